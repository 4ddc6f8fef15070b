//! Keys: read, made, written, named by their id.

#[cfg(feature = "aws-lc")]
mod aws_lc;
pub(in crate::crypto) mod encrypted;
mod material;
pub(in crate::crypto) mod pem;
mod rsa;
mod x25519;
mod xwing;

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::key_files::{self, KeyFileOptions};
use super::kid::Kid;
use super::open::{OpenPolicy, Opener};
use super::passphrase::Passphrase;
use super::seal::Sealer;
use super::session::SessionPolicy;
use crate::error::{ErrorKind, Result};
pub use material::KeyKind;
pub(in crate::crypto) use material::{PrivateMaterial, PublicMaterial};
pub use pem::PemKind;
pub(in crate::crypto) use rsa::{Oaep, RsaPrivate, RsaPublic};
pub use rsa::{RSA_BITS_MAX, RSA_BITS_MIN};

/// The key of a recipient: what it takes to seal a message for them.
///
/// A clone shares the session that [`super::seal`] keeps for the key.
#[derive(Clone)]
pub struct PublicKey {
    pub(super) inner: Arc<PublicInner>,
    legacy: bool,
    /// What [`super::seal`] uses; `None` for a key that is refused. Made with the
    /// key: what is made later may be half made when the process forks.
    pub(super) sealer: Option<Arc<Sealer>>,
}

pub(super) struct PublicInner {
    pub(super) material: PublicMaterial,
    spki: Vec<u8>,
    kid: Kid,
    fingerprint: String,
}

impl PublicKey {
    /// Reads a PEM text: `PUBLIC KEY` (SPKI) of any [`KeyKind`], or `RSA PUBLIC
    /// KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`]; a private key, a certificate or another algorithm is
    /// named, and so is a key that would protect nothing.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self> {
        Self::from_der(pem::public_der(pem.as_ref())?)
    }

    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::from_pem`].
    pub fn from_der(spki: impl AsRef<[u8]>) -> Result<Self> {
        let inner = Arc::new(PublicInner::new(PublicMaterial::from_spki(spki.as_ref())?)?);
        Ok(Self::new(inner, false))
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::from_pem`], and [`ErrorKind::Io`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_pem(key_files::read(path.as_ref())?.as_slice())
    }

    /// The SPKI PEM text, as the originals write it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if the key has no such form.
    pub fn to_pem(&self) -> Result<String> {
        pem::public_text(&self.inner.spki)
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn as_der(&self) -> &[u8] {
        &self.inner.spki
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.inner.material.kind()
    }

    /// The name of the key.
    pub fn kid(&self) -> &Kid {
        &self.inner.kid
    }

    /// [`PublicKey::kid`] as text: what people compare.
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// Size of the modulus of an RSA key, of all of another.
    pub fn bits(&self) -> usize {
        self.inner.material.bits()
    }

    /// Allows sealing to an RSA key under 2048 bits. Such a key can be broken by
    /// an effort that states and large companies can make; the originals' key
    /// script made keys of 1048 bits for a while.
    #[must_use]
    pub fn allow_legacy_rsa(self) -> Self {
        Self::new(self.inner, true)
    }

    /// Refuses a key that is too small to be used without opt-in.
    pub(super) fn check_size(&self) -> Result<()> {
        check_size(&self.inner.material, self.legacy)
    }

    fn new(inner: Arc<PublicInner>, legacy: bool) -> Self {
        let bare = Self { inner, legacy, sealer: None };
        // The sealer has a copy of the key, which has no sealer.
        let sealer = Sealer::new(&bare, SessionPolicy::default()).ok().map(Arc::new);
        Self { sealer, ..bare }
    }
}

impl PublicInner {
    fn new(material: PublicMaterial) -> Result<Self> {
        let spki = material.to_spki()?;
        let kid = material.kid(&spki);
        Ok(Self { material, spki, kid, fingerprint: kid.to_string() })
    }

    /// Length of a session key wrapped in suite 1; `None` for a key that is not RSA.
    pub(super) fn suite_1_len(&self) -> Option<usize> {
        match &self.material {
            PublicMaterial::Rsa(key) => Some(key.size()),
            PublicMaterial::X25519(_) | PublicMaterial::XWing(_) => None,
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.inner.spki == other.inner.spki
    }
}

impl Eq for PublicKey {}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// The key that opens what was sealed to its public half.
///
/// It is wiped when dropped, and it cannot be shown, copied, compared or
/// serialised by accident:
///
/// ```compile_fail,E0277
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap();
/// println!("{key:?}");
/// ```
/// ```compile_fail,E0277
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap();
/// println!("{key}");
/// ```
/// ```compile_fail,E0599
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap();
/// let copy = key.clone();
/// ```
/// ```compile_fail,E0369
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap();
/// assert!(key == key);
/// ```
/// ```compile_fail,E0277
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap();
/// serde_json::to_string(&key);
/// ```
pub struct PrivateKey {
    pub(super) inner: Arc<PrivateInner>,
    public_key: PublicKey,
    /// What [`super::open`] uses; `None` for a key that is refused.
    pub(super) opener: Option<Box<Opener>>,
}

pub(super) struct PrivateInner {
    pub(super) material: PrivateMaterial,
    pub(super) public: Arc<PublicInner>,
}

impl PrivateKey {
    /// Reads a PEM text: `PRIVATE KEY` (PKCS#8) of any [`KeyKind`], or `RSA
    /// PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PassphraseNeeded`] for an encrypted key, [`ErrorKind::Key`];
    /// a public key or another algorithm is named.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self> {
        Self::from_pkcs8(&pem::private_der(pem.as_ref(), None)?)
    }

    /// Reads a PEM text as [`PrivateKey::from_pem`] does, or an `ENCRYPTED
    /// PRIVATE KEY` (PKCS#8 with PBES2: scrypt or PBKDF2, AES) that the
    /// passphrase opens.
    ///
    /// It takes as long as whoever encrypted it chose, up to seconds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PassphraseWrong`], and as [`PrivateKey::from_pem`].
    pub fn from_encrypted_pem(pem: impl AsRef<[u8]>, passphrase: &Passphrase) -> Result<Self> {
        Self::from_pkcs8(&pem::private_der(pem.as_ref(), Some(passphrase))?)
    }

    /// Reads a PEM file that is not encrypted. A file that others than its owner
    /// can read is taken, with a warning in the log.
    ///
    /// # Errors
    ///
    /// As [`PrivateKey::from_pem`], and [`ErrorKind::Io`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file_with(path, &KeyFileOptions::default())
    }

    /// Reads a PEM file, encrypted or not.
    ///
    /// # Errors
    ///
    /// As [`PrivateKey::from_encrypted_pem`], and [`ErrorKind::Io`];
    /// [`ErrorKind::File`] for a file that others can read, if the options are
    /// strict.
    pub fn from_file_with(path: impl AsRef<Path>, options: &KeyFileOptions) -> Result<Self> {
        let path = path.as_ref();
        let pem = key_files::read_secret(path, options.exposed())?;
        Self::from_pkcs8(&pem::private_der(&pem, options.passphrase())?)
    }

    /// Makes an RSA key of `bits` bits: 2048 to 8192, a multiple of 8.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for another size, [`ErrorKind::Random`].
    pub fn generate(bits: usize) -> Result<Self> {
        Self::new(PrivateMaterial::Rsa(Box::new(RsaPrivate::generate(bits)?)))
    }

    /// Makes a key; one of RSA has 2048 bits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Random`].
    pub fn generate_kind(kind: KeyKind) -> Result<Self> {
        Self::new(PrivateMaterial::generate(kind)?)
    }

    /// The half to give to senders.
    pub fn public_key(&self) -> PublicKey {
        self.public_key.clone()
    }

    /// The PKCS#8 PEM text, wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if the key has no such form.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        pem::private_text(&self.inner.material.to_pkcs8()?)
    }

    /// The PEM text of the PKCS#8 key under a passphrase: scrypt (N = 16,384,
    /// r = 8, p = 5) and AES-256-CBC, which OpenSSL 1.1 and later reads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if the key has no such form, [`ErrorKind::Random`].
    pub fn to_encrypted_pem(&self, passphrase: &Passphrase) -> Result<String> {
        encrypted::to_pem(&self.inner.material.to_pkcs8()?, passphrase)
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.inner.public.material.kind()
    }

    /// [`PublicKey::kid`] of the public half.
    pub fn kid(&self) -> &Kid {
        self.inner.kid()
    }

    /// [`PublicKey::fingerprint`] of the public half.
    pub fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }

    /// [`PublicKey::bits`] of the public half.
    pub fn bits(&self) -> usize {
        self.inner.public.material.bits()
    }

    /// Allows opening with an RSA key under 2048 bits, see
    /// [`PublicKey::allow_legacy_rsa`].
    #[must_use]
    pub fn allow_legacy_rsa(self) -> Self {
        Self::with(self.inner, true)
    }

    /// Refuses a key that is too small to be used without opt-in.
    pub(super) fn check_size(&self) -> Result<()> {
        self.public_key.check_size()
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self> {
        Self::new(PrivateMaterial::from_pkcs8(der)?)
    }

    fn new(material: PrivateMaterial) -> Result<Self> {
        let public = Arc::new(PublicInner::new(material.public())?);
        let inner = Arc::new(PrivateInner { material, public });
        Ok(Self::with(inner, false))
    }

    fn with(inner: Arc<PrivateInner>, legacy: bool) -> Self {
        let public_key = PublicKey::new(Arc::clone(&inner.public), legacy);
        let bare = Self { inner, public_key, opener: None };
        let opener = Opener::new(&bare, OpenPolicy::default()).ok().map(Box::new);
        Self { opener, ..bare }
    }
}

impl PrivateInner {
    pub(super) fn kid(&self) -> &Kid {
        &self.public.kid
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.public.fingerprint
    }

    /// [`PublicInner::suite_1_len`].
    pub(super) fn suite_1_len(&self) -> Option<usize> {
        self.public.suite_1_len()
    }
}

fn check_size(material: &PublicMaterial, legacy: bool) -> Result<()> {
    match material {
        PublicMaterial::Rsa(_) if material.bits() < RSA_BITS_MIN && !legacy => {
            Err(ErrorKind::KeyTooSmall { bits: material.bits(), min: RSA_BITS_MIN }.into())
        }
        _ => Ok(()),
    }
}
