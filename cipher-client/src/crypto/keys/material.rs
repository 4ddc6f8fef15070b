//! What a key is made of, by its kind.

use std::fmt;

use pkcs8::der::Decode;
use pkcs8::spki::SubjectPublicKeyInfoRef;
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use rsa::pkcs1::ALGORITHM_OID as RSA_OID;
use zeroize::Zeroizing;

use super::rsa::{RSA_BITS_MIN, RsaPrivate, RsaPublic};
use super::{pem, x25519, xwing};
use crate::crypto::kid::Kid;
use crate::crypto::suite;
use crate::error::{Error, Result};

/// The kinds of keys that messages are sealed to. The kind selects the suite.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA: suite 1, which the original clients speak, and suite 2r.
    Rsa,
    /// X25519: suite 2x.
    X25519,
    /// X-Wing, X25519 and ML-KEM-768 together: suite 2pq. It holds against a
    /// quantum computer as long as ML-KEM does, and against every other as long
    /// as one of the two does.
    XWing,
}

impl KeyKind {
    /// The inverse of the text.
    pub(in crate::crypto) fn from_word(word: &str) -> Option<Self> {
        [Self::Rsa, Self::X25519, Self::XWing].into_iter().find(|kind| kind.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::X25519 => "X25519",
            Self::XWing => "X-Wing",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A public key; what is in here has been checked.
pub(in crate::crypto) enum PublicMaterial {
    Rsa(RsaPublic),
    X25519([u8; x25519::LEN]),
    XWing(Box<[u8; xwing::LEN]>),
}

impl PublicMaterial {
    pub(super) fn from_spki(der: &[u8]) -> Result<Self> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(pem::damaged)?;
        if info.algorithm.oid == RSA_OID {
            return RsaPublic::from_spki(der).map(Self::Rsa);
        }
        if info.algorithm.parameters.is_some() {
            return Err(Error::key(unknown(info.algorithm.oid)));
        }
        let key = info.subject_public_key.as_bytes().unwrap_or(&[]);
        match info.algorithm.oid {
            x25519::OID => x25519::public(key).map(Self::X25519),
            xwing::OID => xwing::public(key).map(Self::XWing),
            oid => Err(Error::key(unknown(oid))),
        }
    }

    pub(super) fn to_spki(&self) -> Result<Vec<u8>> {
        match self {
            Self::Rsa(key) => key.to_spki(),
            Self::X25519(key) => pem::spki_der(x25519::OID, key),
            Self::XWing(key) => pem::spki_der(xwing::OID, &key[..]),
        }
    }

    /// The key as it stands in SPKI, of the kinds where it is just bytes.
    fn raw(&self) -> Option<&[u8]> {
        match self {
            Self::Rsa(_) => None,
            Self::X25519(key) => Some(key),
            Self::XWing(key) => Some(&key[..]),
        }
    }

    pub(super) fn kid(&self, spki: &[u8]) -> Kid {
        match self {
            Self::Rsa(_) | Self::X25519(_) => Kid::of_spki(spki),
            Self::XWing(key) => Kid::of_xwing(&key[..]),
        }
    }

    pub(super) fn kind(&self) -> KeyKind {
        match self {
            Self::Rsa(_) => KeyKind::Rsa,
            Self::X25519(_) => KeyKind::X25519,
            Self::XWing(_) => KeyKind::XWing,
        }
    }

    pub(super) fn bits(&self) -> usize {
        match self {
            Self::Rsa(key) => key.bits(),
            Self::X25519(key) => 8 * key.len(),
            Self::XWing(key) => 8 * key.len(),
        }
    }
}

/// A private key, wiped when dropped.
pub(in crate::crypto) enum PrivateMaterial {
    Rsa(Box<RsaPrivate>),
    X25519(Zeroizing<[u8; x25519::LEN]>),
    /// The seed, from which both halves are made.
    XWing(Zeroizing<[u8; xwing::SEED_LEN]>),
}

impl PrivateMaterial {
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let info = PrivateKeyInfoRef::from_der(der).map_err(pem::damaged)?;
        let key = info.private_key.as_bytes();
        let material = match info.algorithm.oid {
            RSA_OID => Self::Rsa(Box::new(RsaPrivate::from_pkcs8(der)?)),
            x25519::OID => Self::X25519(x25519::private(key)?),
            xwing::OID => Self::XWing(xwing::private(key)?),
            oid => return Err(Error::key(unknown(oid))),
        };
        // Version 2 of the form states the public half as well.
        let stated = info.public_key.and_then(|key| key.as_bytes());
        let public = material.public();
        match (stated, public.raw()) {
            (Some(stated), Some(derived)) if stated != derived => {
                Err(Error::key("its two halves do not belong together"))
            }
            _ => Ok(material),
        }
    }

    pub(super) fn generate(kind: KeyKind) -> Result<Self> {
        Ok(match kind {
            KeyKind::Rsa => Self::Rsa(Box::new(RsaPrivate::generate(RSA_BITS_MIN)?)),
            KeyKind::X25519 => Self::X25519(Zeroizing::new(suite::random()?)),
            KeyKind::XWing => Self::XWing(Zeroizing::new(suite::random()?)),
        })
    }

    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Rsa(key) => key.to_pkcs8(),
            Self::X25519(key) => x25519::to_pkcs8(key),
            Self::XWing(seed) => xwing::to_pkcs8(seed),
        }
    }

    pub(super) fn public(&self) -> PublicMaterial {
        match self {
            Self::Rsa(key) => PublicMaterial::Rsa(key.public()),
            Self::X25519(key) => PublicMaterial::X25519(x25519::public_of(key)),
            Self::XWing(seed) => PublicMaterial::XWing(xwing::public_of(seed)),
        }
    }
}

fn unknown(oid: ObjectIdentifier) -> &'static str {
    match oid {
        ED25519_OID => "an Ed25519 key: it signs, and nothing can be sealed to it",
        ML_KEM_768_OID => "an ML-KEM key alone; X-Wing keys are used, which hold if either half does",
        _ => "not a key of RSA, X25519 or X-Wing",
    }
}

const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ML_KEM_768_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.4.2");
