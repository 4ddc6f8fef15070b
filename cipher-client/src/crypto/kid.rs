//! Key ids.

use std::fmt;
use std::str::FromStr;

use ::base64::Engine;
use ::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The name of a public key, and of the private key that belongs to it: a
/// SHA-256 of all of it. Two keys with one id do not exist.
///
/// As text `sha256:` and 43 characters of unpadded base64url; there is one text
/// for each id, and [`FromStr`] takes no other. All 32 bytes are compared, ever:
/// shortened ids are for people.
///
/// For RSA, X25519 and Ed25519 it is the hash of the SubjectPublicKeyInfo in
/// DER, so that `openssl pkey -pubin -outform DER | sha256sum` shows the same
/// digest. For X-Wing, the form of which is not settled elsewhere, it is the
/// hash of `cipher/xwing` and the 1,216 bytes of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid([u8; Kid::LEN]);

impl Kid {
    /// Bytes of an id.
    pub const LEN: usize = 32;

    /// An id received as bytes.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they stand in signed headers.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The id of the key with this SubjectPublicKeyInfo, unless it is X-Wing.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    pub(super) fn of_xwing(key: &[u8]) -> Self {
        Self(Sha256::new().chain_update(XWING_DOMAIN).chain_update(key).finalize().into())
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kid({self})")
    }
}

impl FromStr for Kid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(Error::key(NOT_A_KID))
    }
}

const PREFIX: &str = "sha256:";
const XWING_DOMAIN: &[u8] = b"cipher/xwing";
const NOT_A_KID: &str = "not a key id: sha256: and 43 characters of base64url";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        let kid = Kid::of_spki(b"key");
        let text = kid.to_string();
        assert_eq!(text.len(), 50);
        assert_eq!(text.parse::<Kid>().unwrap(), kid);
        let bare = &text[PREFIX.len()..];
        // The last of 43 characters holds 4 bits; one that sets the other two is another text for the same bytes.
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = alphabet.iter().position(|c| *c == bare.as_bytes()[42]).unwrap();
        let other_spelling = format!("{PREFIX}{}{}", &bare[..42], char::from(alphabet[last | 1]));
        for bad in [bare, &format!("{text}="), &text[..49], &text.to_uppercase(), "", PREFIX, &other_spelling] {
            assert!(bad.parse::<Kid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn equal_bytes_of_another_kind_are_another_id() {
        assert_ne!(Kid::of_spki(b"key"), Kid::of_xwing(b"key"));
        assert_eq!(Kid::of_xwing(b"key"), Kid::of_spki(b"cipher/xwingkey"));
    }
}
