//! Who sends: Ed25519 key pairs (RFC 8032, RFC 8410).

use std::fmt;
use std::io::Write;
use std::path::Path;

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rsa::pkcs8::ObjectIdentifier;
use zeroize::Zeroizing;

use super::key_files::{self, KeyFileOptions};
use super::keys::{encrypted, pem};
use super::kid::Kid;
use super::passphrase::Passphrase;
use super::suite;
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Bytes of a signature.
pub(crate) const SIGNATURE_LEN: usize = 64;
/// Bytes of a key, either half.
pub(crate) const IDENTITY_KEY_LEN: usize = 32;

/// The key that says who sends: it signs messages and announcements of keys.
///
/// It opens nothing, so it may live where the keys that open do not, and longer.
/// It is wiped when dropped, and cannot be shown, copied, compared or
/// serialised by accident:
///
/// ```compile_fail,E0277
/// # let me = cipher_client::crypto::Identity::generate().unwrap();
/// println!("{me:?}");
/// ```
/// ```compile_fail,E0277
/// # let me = cipher_client::crypto::Identity::generate().unwrap();
/// println!("{me}");
/// ```
/// ```compile_fail,E0599
/// # let me = cipher_client::crypto::Identity::generate().unwrap();
/// let copy = me.clone();
/// ```
/// ```compile_fail,E0369
/// # let me = cipher_client::crypto::Identity::generate().unwrap();
/// assert!(me == me);
/// ```
/// ```compile_fail,E0277
/// # let me = cipher_client::crypto::Identity::generate().unwrap();
/// serde_json::to_string(&me);
/// ```
///
/// Nor does it sign what a caller makes up: a signature exists only inside a
/// message or an announcement.
///
/// ```compile_fail,E0624
/// # let me = cipher_client::crypto::Identity::generate().unwrap();
/// me.sign(b"anything");
/// ```
pub struct Identity {
    key: SigningKey,
    public: SenderKey,
}

impl Identity {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Random`].
    pub fn generate() -> Result<Self> {
        let seed = Zeroizing::new(suite::random::<IDENTITY_KEY_LEN>()?);
        Self::from_key(SigningKey::from_bytes(&seed))
    }

    /// Reads a PEM text: `PRIVATE KEY` (PKCS#8).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`]; for a key under a passphrase
    /// [`ErrorKind::PassphraseNeeded`].
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self> {
        Self::from_pkcs8(&pem::private_der(pem.as_ref(), None)?)
    }

    /// Reads a PEM text under a passphrase: `ENCRYPTED PRIVATE KEY`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PassphraseWrong`], and as [`Identity::from_pem`].
    pub fn from_encrypted_pem(pem: impl AsRef<[u8]>, passphrase: &Passphrase) -> Result<Self> {
        Self::from_pkcs8(&pem::private_der(pem.as_ref(), Some(passphrase))?)
    }

    /// Reads a PEM file, with a passphrase if there is one. A file that others
    /// than its owner can read is taken, with a warning in the log.
    ///
    /// # Errors
    ///
    /// As [`Identity::from_pem`], [`Identity::from_encrypted_pem`], and
    /// [`ErrorKind::Io`].
    pub fn from_file(path: impl AsRef<Path>, passphrase: Option<&Passphrase>) -> Result<Self> {
        Self::read(path.as_ref(), key_files::Exposed::Warn, passphrase)
    }

    /// As [`Identity::from_file`], with options.
    ///
    /// # Errors
    ///
    /// As [`Identity::from_file`], and [`ErrorKind::File`] for a file that others
    /// can read, if that is refused.
    pub fn from_file_with(path: impl AsRef<Path>, options: &KeyFileOptions) -> Result<Self> {
        Self::read(path.as_ref(), options.exposed(), options.passphrase())
    }

    fn read(path: &Path, exposed: key_files::Exposed, passphrase: Option<&Passphrase>) -> Result<Self> {
        let pem = key_files::read_secret(path, exposed)?;
        Self::from_pkcs8(&pem::private_der(&pem, passphrase)?)
    }

    /// The PKCS#8 PEM text, wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if it cannot be written.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        pem::private_text(&self.to_pkcs8()?)
    }

    /// The PKCS#8 PEM text under a passphrase.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Random`], [`ErrorKind::Key`] if it cannot be written.
    pub fn to_encrypted_pem(&self, passphrase: &Passphrase) -> Result<String> {
        encrypted::to_pem(&self.to_pkcs8()?, passphrase)
    }

    /// Writes a new file of mode 0600, under a passphrase if there is one. The
    /// file is on disk when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]; a file that exists is left as it is.
    pub fn write_file(&self, path: impl AsRef<Path>, passphrase: Option<&Passphrase>) -> Result<()> {
        let path = path.as_ref();
        let text = match passphrase {
            Some(passphrase) => Zeroizing::new(self.to_encrypted_pem(passphrase)?),
            None => self.to_pem()?,
        };
        let mut file = files::create_new(path, 0o600).map_err(|fault| Error::io("cannot be created", path, fault))?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| files::sync_parent(path)).map_err(|fault| {
            let _ = std::fs::remove_file(path);
            Error::io("cannot be written", path, fault)
        })
    }

    /// The half to give to receivers.
    pub fn sender_key(&self) -> &SenderKey {
        &self.public
    }

    /// The name of the public half.
    pub fn kid(&self) -> &Kid {
        self.public.kid()
    }

    /// Signs bytes that begin with the name of what they are.
    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(bytes).to_bytes()
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let key = SigningKey::from_pkcs8_der(der).map_err(|fault| Error::with_source(NOT_AN_IDENTITY, fault))?;
        Self::from_key(key)
    }

    fn from_key(key: SigningKey) -> Result<Self> {
        if *key.as_bytes() == [0; IDENTITY_KEY_LEN] {
            return Err(Error::key("all zeros: not a key anybody made at random"));
        }
        let public = SenderKey::from_key(key.verifying_key())?;
        Ok(Self { key, public })
    }

    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut inner = Zeroizing::new(vec![OCTET_STRING, IDENTITY_KEY_LEN as u8]);
        inner.reserve_exact(IDENTITY_KEY_LEN);
        inner.extend_from_slice(self.key.as_bytes());
        pem::pkcs8_der(OID, &inner)
    }
}

/// The public half of an [`Identity`]: what a receiver knows a sender by.
#[derive(Clone, PartialEq, Eq)]
pub struct SenderKey {
    key: VerifyingKey,
    kid: Kid,
}

impl SenderKey {
    /// Reads a PEM text: `PUBLIC KEY` (SPKI).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`].
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self> {
        let der = pem::public_der(pem.as_ref())?;
        let key = VerifyingKey::from_public_key_der(&der).map_err(|fault| Error::with_source(NOT_A_SENDER, fault))?;
        Self::from_key(key)
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    ///
    /// As [`SenderKey::from_pem`], and [`ErrorKind::Io`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_pem(key_files::read(path.as_ref())?.as_slice())
    }

    /// The SPKI PEM text.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if it cannot be written.
    pub fn to_pem(&self) -> Result<String> {
        pem::public_text(&pem::spki_der(OID, self.as_bytes())?)
    }

    /// The name of the key: [`Kid`] of its SPKI.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; IDENTITY_KEY_LEN] {
        self.key.as_bytes()
    }

    /// A key from its 32 bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] for bytes that are no key, a second spelling of one,
    /// or a key of low order.
    pub fn from_bytes(bytes: &[u8; IDENTITY_KEY_LEN]) -> Result<Self> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|fault| Error::with_source(NOT_A_SENDER, fault))?;
        Self::from_key(key)
    }

    /// Whether `signature` is one of this key over `bytes`: RFC 8032 without
    /// leniency, so that there is one verdict everywhere.
    pub(crate) fn verifies(&self, bytes: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.key.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }

    fn from_key(key: VerifyingKey) -> Result<Self> {
        // Under a key of low order a signature can be made for anything.
        if key.is_weak() {
            return Err(Error::key("an Ed25519 key of low order: it proves nothing"));
        }
        if key.to_edwards().compress().as_bytes() != key.as_bytes() {
            return Err(Error::key("an Ed25519 key that is not below the prime"));
        }
        let kid = Kid::of_spki(&pem::spki_der(OID, key.as_bytes())?);
        Ok(Self { key, kid })
    }
}

impl fmt::Debug for SenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SenderKey({})", self.kid)
    }
}

const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const OCTET_STRING: u8 = 4;

const NOT_AN_IDENTITY: ErrorKind = ErrorKind::Key { reason: "not an Ed25519 private key" };
const NOT_A_SENDER: ErrorKind = ErrorKind::Key { reason: "not an Ed25519 public key" };

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 section 7.1, test 2; the PKCS#8 text as `openssl pkey` writes it.
    const SEED: [u8; 32] = [
        0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f, 0x5b, 0x8a,
        0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
    ];
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n\
        -----END PRIVATE KEY-----\n";

    fn identity() -> Identity {
        Identity::from_key(SigningKey::from_bytes(&SEED)).unwrap()
    }

    #[test]
    fn the_signature_is_that_of_the_standard() {
        let signature = identity().sign(&[0x72]);
        assert_eq!(signature[..4], [0x92, 0xa0, 0x09, 0xa9]);
        assert_eq!(signature[60..], [0x12, 0xbb, 0x0c, 0x00]);
        assert!(identity().sender_key().verifies(&[0x72], &signature));
    }

    #[test]
    fn the_pem_form_is_the_one_of_openssl_and_reads_back() {
        assert_eq!(identity().to_pem().unwrap().as_str(), PEM);
        assert_eq!(Identity::from_pem(PEM).unwrap().kid(), identity().kid());
        let public = identity().sender_key().to_pem().unwrap();
        assert_eq!(&SenderKey::from_pem(&public).unwrap(), identity().sender_key());
        assert!(SenderKey::from_pem(PEM).is_err());
        assert!(Identity::from_pem(public).is_err());
    }

    #[test]
    fn a_passphrase_protects_the_file_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, locked) = (dir.path().join("plain.pem"), dir.path().join("locked.pem"));
        let passphrase = Passphrase::new("correct horse").unwrap();
        identity().write_file(&plain, None).unwrap();
        identity().write_file(&locked, Some(&passphrase)).unwrap();
        assert_eq!(Identity::from_file(&plain, None).unwrap().kid(), identity().kid());
        assert_eq!(Identity::from_file(&locked, Some(&passphrase)).unwrap().kid(), identity().kid());
        let fault = |passphrase: Option<&Passphrase>| Identity::from_file(&locked, passphrase).err().unwrap();
        assert_eq!(*fault(None).kind(), ErrorKind::PassphraseNeeded);
        assert_eq!(*fault(Some(&Passphrase::new("wrong").unwrap())).kind(), ErrorKind::PassphraseWrong);
        assert!(identity().write_file(&plain, None).is_err(), "overwritten");
        #[cfg(unix)]
        for path in [&plain, &locked] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// The points of order 1 and 2, and a spelling of 1 over the prime.
    #[test]
    fn keys_that_prove_nothing_are_refused() {
        let with_first = |first: u8, middle: u8, last: u8| {
            let mut key = [middle; IDENTITY_KEY_LEN];
            (key[0], key[31]) = (first, last);
            key
        };
        for key in [with_first(1, 0, 0), with_first(0xec, 0xff, 0x7f), with_first(0xee, 0xff, 0x7f), [0; 32]] {
            assert!(SenderKey::from_bytes(&key).is_err(), "{key:?}");
        }
        // y = 3 is on the curve; p + 3 is another spelling of it.
        assert!(SenderKey::from_bytes(&with_first(3, 0, 0)).is_ok());
        assert!(SenderKey::from_bytes(&with_first(0xf0, 0xff, 0x7f)).is_err());
        assert!(Identity::from_key(SigningKey::from_bytes(&[0; 32])).is_err());
    }

    /// With R of order 1 and S = k a the equation holds, and a lenient check takes
    /// it. What one reader takes and another does not is no signature.
    #[test]
    fn a_signature_round_a_point_of_low_order_is_none() {
        use ed25519_dalek::Verifier;
        use sha2::{Digest, Sha512};
        use std::ops::{Add, Mul};

        /// Little-endian, in the field of `like`.
        fn number<S: From<u64> + Add<Output = S> + Mul<Output = S> + Copy>(_like: S, bytes: &[u8]) -> S {
            bytes.iter().rev().fold(S::from(0), |all, byte| all * S::from(256) + S::from((*byte).into()))
        }
        let (me, text) = (identity(), b"text");
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let secret = me.key.to_scalar();
        let k = Sha512::new().chain_update(neutral).chain_update(me.sender_key().as_bytes()).chain_update(text);
        let s = number(secret, &k.finalize()) * secret;
        let mut signature = [0; SIGNATURE_LEN];
        signature[..32].copy_from_slice(&neutral);
        signature[32..].copy_from_slice(&s.to_bytes());
        assert!(me.public.key.verify(text, &Signature::from_bytes(&signature)).is_ok(), "made as it was meant");
        assert!(!me.sender_key().verifies(text, &signature));
    }

    /// S + L is the other half of what a lenient check takes.
    #[test]
    fn a_signature_has_one_form() {
        const L: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut signature = identity().sign(b"text");
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(L) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert!(!identity().sender_key().verifies(b"text", &signature));
    }
}
