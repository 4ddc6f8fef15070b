//! PEM texts: which block it is, and the DER in it.

use std::path::Path;

use pkcs8::der::Encode;
use pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use pkcs8::{Document, LineEnding, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use super::encrypted;
use crate::crypto::key_files;
use crate::crypto::passphrase::Passphrase;
use crate::error::{Error, ErrorKind, Result};

/// The SubjectPublicKeyInfo in a PEM text.
pub(in crate::crypto) fn public_der(pem: &[u8]) -> Result<Vec<u8>> {
    let (label, pem) = first_block(pem)?;
    match label {
        PUBLIC => Ok(document(pem)?.into_vec()),
        PUBLIC_RSA => {
            let key = document(pem)?;
            let key = BitStringRef::from_bytes(key.as_bytes()).map_err(damaged)?;
            let info = SubjectPublicKeyInfoRef { algorithm: rsa::pkcs1::ALGORITHM_ID, subject_public_key: key };
            info.to_der().map_err(damaged)
        }
        label => Err(Error::key(wrong_label_for_public(label))),
    }
}

/// The PKCS#8 in a PEM text, decrypted if need be.
pub(in crate::crypto) fn private_der(pem: &[u8], passphrase: Option<&Passphrase>) -> Result<Zeroizing<Vec<u8>>> {
    let (label, pem) = first_block(pem)?;
    match (label, passphrase) {
        (PRIVATE, _) => Ok(secret_document(pem)?.to_bytes()),
        (ENCRYPTED, Some(passphrase)) => encrypted::decrypt(document(pem)?.as_bytes(), passphrase),
        (ENCRYPTED, None) => Err(ErrorKind::PassphraseNeeded.into()),
        (PRIVATE_RSA, _) if pem.contains("Proc-Type: 4,ENCRYPTED") => Err(Error::key(OLD_ENCRYPTION)),
        (PRIVATE_RSA, _) => {
            let key = secret_document(pem)?;
            let key = OctetStringRef::new(key.as_bytes()).map_err(damaged)?;
            let info = PrivateKeyInfoRef::new(rsa::pkcs1::ALGORITHM_ID, key);
            info.to_der().map(Zeroizing::new).map_err(damaged)
        }
        (label, _) => Err(Error::key(wrong_label_for_private(label))),
    }
}

/// What a PEM text is, told from its label: the key itself may be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemKind {
    /// A public key.
    Public,
    /// A private key.
    Private,
    /// A private key that a passphrase opens.
    EncryptedPrivate,
}

impl PemKind {
    /// Of a PEM text.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] for anything but a key.
    pub fn of(pem: impl AsRef<[u8]>) -> Result<Self> {
        match first_block(pem.as_ref())?.0 {
            ENCRYPTED => Ok(Self::EncryptedPrivate),
            PRIVATE | PRIVATE_RSA => Ok(Self::Private),
            PUBLIC | PUBLIC_RSA => Ok(Self::Public),
            _ => Err(Error::key("neither a public nor a private key")),
        }
    }

    /// Of a PEM file.
    ///
    /// # Errors
    ///
    /// As [`PemKind::of`], and [`ErrorKind::Io`].
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(key_files::read(path.as_ref())?.as_slice())
    }
}

/// The PEM text of a SubjectPublicKeyInfo.
pub(in crate::crypto) fn public_text(spki: &[u8]) -> Result<String> {
    Document::try_from(spki).and_then(|der| der.to_pem(PUBLIC, LineEnding::LF)).map_err(unwritable)
}

/// The PEM text of a PKCS#8 key.
pub(in crate::crypto) fn private_text(pkcs8: &[u8]) -> Result<Zeroizing<String>> {
    SecretDocument::try_from(pkcs8).and_then(|der| der.to_pem(PRIVATE, LineEnding::LF)).map_err(unwritable)
}

/// The PEM text of an encrypted PKCS#8 key.
pub(super) fn encrypted_text(info: &[u8]) -> Result<String> {
    Document::try_from(info).and_then(|der| der.to_pem(ENCRYPTED, LineEnding::LF)).map_err(unwritable)
}

/// A PKCS#8 key of an algorithm without parameters.
pub(in crate::crypto) fn pkcs8_der(oid: pkcs8::ObjectIdentifier, key: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let key = OctetStringRef::new(key).map_err(unwritable)?;
    let info = PrivateKeyInfoRef::new(AlgorithmIdentifierRef { oid, parameters: None }, key);
    info.to_der().map(Zeroizing::new).map_err(unwritable)
}

/// A SubjectPublicKeyInfo of an algorithm without parameters.
pub(in crate::crypto) fn spki_der(oid: pkcs8::ObjectIdentifier, key: &[u8]) -> Result<Vec<u8>> {
    let subject_public_key = BitStringRef::from_bytes(key).map_err(unwritable)?;
    let algorithm = AlgorithmIdentifierRef { oid, parameters: None };
    SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().map_err(unwritable)
}

/// Label and text of the first PEM block; what stands round it is left out.
fn first_block(pem: &[u8]) -> Result<(&str, &str)> {
    std::str::from_utf8(pem).ok().and_then(block).ok_or(Error::key(NOT_PEM))
}

fn block(text: &str) -> Option<(&str, &str)> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "\n-----END ";
    let text = &text[text.find(BEGIN)?..];
    let (label, _) = text[BEGIN.len()..].split_once("-----")?;
    let end = text.find(END)? + END.len() + label.len() + "-----".len();
    Some((label, text.get(..end)?))
}

fn document(pem: &str) -> Result<Document> {
    Document::from_pem(pem).map(|(_, der)| der).map_err(damaged)
}

fn secret_document(pem: &str) -> Result<SecretDocument> {
    SecretDocument::from_pem(pem).map(|(_, der)| der).map_err(damaged)
}

const PUBLIC: &str = "PUBLIC KEY";
const PRIVATE: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const PUBLIC_RSA: &str = "RSA PUBLIC KEY";
const PRIVATE_RSA: &str = "RSA PRIVATE KEY";

const NOT_PEM: &str = "not a PEM text";
const OLD_ENCRYPTION: &str = "encrypted in the form of old OpenSSL, which is weak; write it anew: openssl pkey -in <file> -aes256 -out <new file>";

fn wrong_label_for_public(label: &str) -> &'static str {
    match label {
        PRIVATE | PRIVATE_RSA | ENCRYPTED => "this is a private key, a public one is needed",
        "CERTIFICATE" => "this is a certificate, a public key is needed",
        _ => "neither PUBLIC KEY nor RSA PUBLIC KEY",
    }
}

fn wrong_label_for_private(label: &str) -> &'static str {
    match label {
        PUBLIC | PUBLIC_RSA => "this is a public key, a private one is needed",
        _ => "none of PRIVATE KEY, ENCRYPTED PRIVATE KEY and RSA PRIVATE KEY",
    }
}

pub(super) fn damaged(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Key { reason: "damaged, or not a key" }, fault)
}

pub(super) fn unwritable(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Key { reason: "cannot be written as PEM" }, fault)
}
