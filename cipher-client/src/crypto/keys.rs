//! Keys: read from PEM, made, named by fingerprint.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ::base64::Engine;
use ::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::traits::PublicKeyParts;
use rsa::{RsaPrivateKey, RsaPublicKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::key_files;
use super::open::Opener;
use super::seal::Sealer;
use super::suite;
use crate::error::{Error, ErrorKind, Result};

/// Least size of an RSA key that is used without [`PublicKey::allow_legacy_rsa`].
pub const RSA_BITS_MIN: usize = 2048;
/// Largest RSA key.
pub const RSA_BITS_MAX: usize = 8192;

/// The key of a recipient: what it takes to seal a message for them.
///
/// A clone shares the session that [`super::seal`] keeps for the key.
#[derive(Clone)]
pub struct PublicKey {
    pub(super) inner: Arc<PublicInner>,
    legacy: bool,
    pub(super) sealer: Arc<OnceLock<Sealer>>,
}

pub(super) struct PublicInner {
    pub(super) material: PublicMaterial,
    spki: Vec<u8>,
    fingerprint: String,
}

/// By kind of key. The kind selects the suite.
pub(super) enum PublicMaterial {
    /// Suite 1.
    Rsa(RsaPublicKey),
}

impl PublicKey {
    /// Reads a PEM text: `PUBLIC KEY` (SPKI) or `RSA PUBLIC KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`]; a private key, a certificate or another algorithm is named.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self> {
        let (label, pem) = pem_block(pem.as_ref())?;
        let key = match label {
            "PUBLIC KEY" => RsaPublicKey::from_public_key_pem(pem).map_err(unreadable),
            "RSA PUBLIC KEY" => RsaPublicKey::from_pkcs1_pem(pem).map_err(unreadable),
            label => Err(Error::key(wrong_label_for_public(label))),
        }?;
        Self::from_rsa(key)
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
        let PublicMaterial::Rsa(key) = &self.inner.material;
        key.to_public_key_pem(LineEnding::LF).map_err(unwritable)
    }

    /// The name of the key: `sha256:` and the unpadded base64url of the SHA-256
    /// of its SubjectPublicKeyInfo in DER.
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// Size of the modulus.
    pub fn bits(&self) -> usize {
        self.inner.bits()
    }

    /// Allows sealing to an RSA key under 2048 bits. Such a key can be broken by
    /// an effort that states and large companies can make; the originals' key
    /// script made keys of 1048 bits for a while.
    #[must_use]
    pub fn allow_legacy_rsa(self) -> Self {
        Self { legacy: true, sealer: Arc::default(), ..self }
    }

    /// Refuses a key that is too small to be used without opt-in.
    pub(super) fn check_size(&self) -> Result<()> {
        check_size(self.bits(), self.legacy)
    }

    fn from_rsa(key: RsaPublicKey) -> Result<Self> {
        let inner = Arc::new(PublicInner::from_rsa(key)?);
        Ok(Self { inner, legacy: false, sealer: Arc::default() })
    }
}

impl PublicInner {
    fn from_rsa(key: RsaPublicKey) -> Result<Self> {
        let spki = key.to_public_key_der().map_err(unwritable)?.into_vec();
        let fingerprint = format!("sha256:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(&spki)));
        Ok(Self { material: PublicMaterial::Rsa(key), spki, fingerprint })
    }

    fn bits(&self) -> usize {
        let PublicMaterial::Rsa(key) = &self.material;
        key.n().bits() as usize
    }

    /// Length of a session key wrapped to this key.
    pub(super) fn wrapped_len(&self) -> usize {
        let PublicMaterial::Rsa(key) = &self.material;
        key.size()
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
    legacy: bool,
    pub(super) opener: OnceLock<Opener>,
    sealer: Arc<OnceLock<Sealer>>,
}

pub(super) struct PrivateInner {
    pub(super) material: PrivateMaterial,
    pub(super) public: Arc<PublicInner>,
}

/// By kind of key.
pub(super) enum PrivateMaterial {
    /// Suite 1.
    Rsa(RsaPrivateKey),
}

impl PrivateKey {
    /// Reads a PEM text: `PRIVATE KEY` (PKCS#8) or `RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`]; an encrypted key, a public one or another algorithm is named.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self> {
        let (label, pem) = pem_block(pem.as_ref())?;
        let key = match label {
            _ if is_encrypted(label, pem) => Err(Error::key(ENCRYPTED)),
            "PRIVATE KEY" => RsaPrivateKey::from_pkcs8_pem(pem).map_err(unreadable),
            "RSA PRIVATE KEY" => RsaPrivateKey::from_pkcs1_pem(pem).map_err(unreadable),
            label => Err(Error::key(wrong_label_for_private(label))),
        }?;
        Self::from_rsa(key)
    }

    /// Reads a PEM file. A file that others than its owner can read is taken,
    /// with a warning in the log.
    ///
    /// # Errors
    ///
    /// As [`PrivateKey::from_pem`], and [`ErrorKind::Io`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let pem = key_files::read(path)?;
        key_files::warn_if_exposed(path);
        Self::from_pem(pem.as_slice())
    }

    /// Makes an RSA key of `bits` bits: 2048 to 8192, a multiple of 8.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for another size, [`ErrorKind::Random`].
    pub fn generate(bits: usize) -> Result<Self> {
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) || !bits.is_multiple_of(8) {
            let reason = "2048 to 8192, a multiple of 8";
            return Err(ErrorKind::Option { option: "bits", reason }.into());
        }
        suite::random::<1>()?;
        let key = RsaPrivateKey::new(&mut suite::system_rng(), bits)
            .map_err(|fault| Error::with_source(ErrorKind::Key { reason: "cannot be made" }, fault))?;
        Self::from_rsa(key)
    }

    /// The half to give to senders.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { inner: Arc::clone(&self.inner.public), legacy: self.legacy, sealer: Arc::clone(&self.sealer) }
    }

    /// The PKCS#8 PEM text, wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if the key has no such form.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        let PrivateMaterial::Rsa(key) = &self.inner.material;
        key.to_pkcs8_pem(LineEnding::LF).map_err(|fault| Error::with_source(ErrorKind::Key { reason: NO_PEM }, fault))
    }

    /// [`PublicKey::fingerprint`] of the public half.
    pub fn fingerprint(&self) -> &str {
        &self.inner.public.fingerprint
    }

    /// Size of the modulus.
    pub fn bits(&self) -> usize {
        self.inner.public.bits()
    }

    /// Allows opening with an RSA key under 2048 bits, see
    /// [`PublicKey::allow_legacy_rsa`].
    #[must_use]
    pub fn allow_legacy_rsa(self) -> Self {
        Self { legacy: true, opener: OnceLock::new(), sealer: Arc::default(), ..self }
    }

    /// Refuses a key that is too small to be used without opt-in.
    pub(super) fn check_size(&self) -> Result<()> {
        check_size(self.bits(), self.legacy)
    }

    fn from_rsa(key: RsaPrivateKey) -> Result<Self> {
        let public = Arc::new(PublicInner::from_rsa(key.to_public_key())?);
        let inner = Arc::new(PrivateInner { material: PrivateMaterial::Rsa(key), public });
        Ok(Self { inner, legacy: false, opener: OnceLock::new(), sealer: Arc::default() })
    }
}

impl PrivateInner {
    pub(super) fn fingerprint(&self) -> &str {
        &self.public.fingerprint
    }

    /// Length of a session key wrapped to this key.
    pub(super) fn wrapped_len(&self) -> usize {
        self.public.wrapped_len()
    }
}

fn check_size(bits: usize, legacy: bool) -> Result<()> {
    if bits < RSA_BITS_MIN && !legacy {
        return Err(ErrorKind::KeyTooSmall { bits, min: RSA_BITS_MIN }.into());
    }
    Ok(())
}

/// The label and the text of the first PEM block; what stands round it is left out.
fn pem_block(pem: &[u8]) -> Result<(&str, &str)> {
    let text = std::str::from_utf8(pem).map_err(|_| Error::key(NOT_PEM))?;
    first_block(text).ok_or(Error::key(NOT_PEM))
}

fn first_block(text: &str) -> Option<(&str, &str)> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "\n-----END ";
    let text = &text[text.find(BEGIN)?..];
    let (label, _) = text[BEGIN.len()..].split_once("-----")?;
    let end = text.find(END)? + END.len() + label.len() + "-----".len();
    Some((label, text.get(..end)?))
}

fn is_encrypted(label: &str, pem: &str) -> bool {
    label == "ENCRYPTED PRIVATE KEY" || pem.contains("Proc-Type: 4,ENCRYPTED")
}

const NOT_PEM: &str = "not a PEM text";
const NO_PEM: &str = "cannot be written as PEM";
const ENCRYPTED: &str = "encrypted with a passphrase; decrypt it first (openssl pkey -in <file> -out <new file>)";

fn wrong_label_for_public(label: &str) -> &'static str {
    match label {
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => "this is a private key, a public one is needed",
        "CERTIFICATE" => "this is a certificate, a public key is needed",
        _ => "neither PUBLIC KEY nor RSA PUBLIC KEY",
    }
}

fn wrong_label_for_private(label: &str) -> &'static str {
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => "this is a public key, a private one is needed",
        _ => "neither PRIVATE KEY nor RSA PRIVATE KEY",
    }
}

fn unreadable(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    let reason = "not an RSA key of 1024 to 8192 bits";
    Error::with_source(ErrorKind::Key { reason }, fault)
}

fn unwritable(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Key { reason: NO_PEM }, fault)
}
