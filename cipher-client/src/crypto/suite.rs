//! The primitives of suite 1: RSA-OAEP round a session key, AES-GCM round the text.
//!
//! RFC 8017 section 7.1 with SHA-1, MGF1-SHA-1 and an empty label; NIST
//! SP 800-38D with a 16-byte tag and no additional data.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::cipher::{BlockCipherEncrypt, BlockSizeUser};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AesGcm, Tag};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use zeroize::{Zeroize, Zeroizing};

use super::keys::{Oaep, RsaPrivate, RsaPublic};
use super::signed::OpeningKey;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a session key made here: AES-128, as the originals.
pub(super) const SESSION_KEY_LEN: usize = 16;
/// Bytes of a nonce made here.
pub(super) const NONCE_LEN: usize = 16;
/// Bytes of a tag. Shorter ones do not exist here.
pub(super) const TAG_LEN: usize = 16;

/// The system's random source.
///
/// The operations that take it have no way to report its failure. Each caller
/// has drawn from the same source just before, and the system's source does not
/// fail once it has given bytes.
pub(super) fn system_rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|fault| Error::with_source(ErrorKind::Random, fault))?;
    Ok(bytes)
}

/// Encrypts a session key to an RSA key.
pub(super) fn wrap(key: &RsaPublic, session_key: &[u8]) -> Result<Vec<u8>> {
    key.encrypt(Oaep::Suite1, session_key)
}

/// Decrypts a session key. A block that does not decrypt to a session key gives
/// a random one, so that every failure is found by the same tag check.
pub(super) fn unwrap(key: &RsaPrivate, wrapped: &[u8]) -> Result<OpeningKey> {
    let decoy = Zeroizing::new(random::<SESSION_KEY_LEN>()?);
    key.decrypt(Oaep::Suite1, wrapped)
        .and_then(|session_key| OpeningKey::new(&session_key))
        .or_else(|| OpeningKey::new(&decoy[..]))
        .ok_or(Error::new(ErrorKind::Decrypt))
}

/// A nonce of a length that exists here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nonce {
    /// The usual length of the standard.
    Short([u8; 12]),
    /// What the originals send.
    Long([u8; NONCE_LEN]),
}

impl Nonce {
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            12 => bytes.try_into().ok().map(Self::Short),
            NONCE_LEN => bytes.try_into().ok().map(Self::Long),
            _ => None,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// A session key with its key schedule, wiped when dropped.
pub(super) struct SessionCipher(Gcm);

/// By key length. The length of the nonce is part of the type below.
enum Gcm {
    Aes128(Box<ByNonce<Aes128>>),
    Aes192(Box<ByNonce<Aes192>>),
    Aes256(Box<ByNonce<Aes256>>),
}

impl SessionCipher {
    /// `None` for a length that is not one of AES.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let gcm = match key.len() {
            16 => Gcm::Aes128(ByNonce::new(key)?),
            24 => Gcm::Aes192(ByNonce::new(key)?),
            32 => Gcm::Aes256(ByNonce::new(key)?),
            _ => return None,
        };
        Some(Self(gcm))
    }

    /// Encrypts in place and gives the tag.
    pub(super) fn encrypt(&self, nonce: &Nonce, text: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        let tag = match &self.0 {
            Gcm::Aes128(gcm) => gcm.encrypt(nonce, text),
            Gcm::Aes192(gcm) => gcm.encrypt(nonce, text),
            Gcm::Aes256(gcm) => gcm.encrypt(nonce, text),
        };
        tag.map(Into::into).map_err(|_| text_too_long(text.len()))
    }

    /// Checks the tag and decrypts in place; a failure wipes `text`.
    pub(super) fn decrypt(&self, nonce: &Nonce, text: &mut [u8], tag: [u8; TAG_LEN]) -> Result<()> {
        let tag = Tag::from(tag);
        let opened = match &self.0 {
            Gcm::Aes128(gcm) => gcm.decrypt(nonce, text, &tag),
            Gcm::Aes192(gcm) => gcm.decrypt(nonce, text, &tag),
            Gcm::Aes256(gcm) => gcm.decrypt(nonce, text, &tag),
        };
        opened.map_err(|_| {
            text.zeroize();
            ErrorKind::Decrypt.into()
        })
    }
}

/// The cipher for either length of nonce.
struct ByNonce<Aes> {
    short: AesGcm<Aes, U12>,
    long: AesGcm<Aes, U16>,
}

impl<Aes> ByNonce<Aes>
where
    Aes: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt + KeyInit,
{
    fn new(key: &[u8]) -> Option<Box<Self>> {
        Some(Box::new(Self { short: AesGcm::new_from_slice(key).ok()?, long: AesGcm::new_from_slice(key).ok()? }))
    }

    fn encrypt(&self, nonce: &Nonce, text: &mut [u8]) -> Result<Tag, aes_gcm::Error> {
        match nonce {
            Nonce::Short(n) => self.short.encrypt_inout_detached(n.into(), &[], text.into()),
            Nonce::Long(n) => self.long.encrypt_inout_detached(n.into(), &[], text.into()),
        }
    }

    fn decrypt(&self, nonce: &Nonce, text: &mut [u8], tag: &Tag) -> Result<(), aes_gcm::Error> {
        match nonce {
            Nonce::Short(n) => self.short.decrypt_inout_detached(n.into(), &[], text.into(), tag),
            Nonce::Long(n) => self.long.decrypt_inout_detached(n.into(), &[], text.into(), tag),
        }
    }
}

fn text_too_long(bytes: usize) -> Error {
    Error::new(ErrorKind::TooLarge { what: "plaintext", bytes, max: GCM_BYTES_MAX })
}

/// Limit of GCM itself (SP 800-38D, 5.2.1.1); envelopes end far below it.
const GCM_BYTES_MAX: usize = (1 << 36) - 32;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"the goods are on the dock";

    #[test]
    fn a_text_that_does_not_open_is_wiped() {
        let cipher = SessionCipher::new(&[1; 16]).unwrap();
        for nonce in [Nonce::Short([2; 12]), Nonce::Long([2; 16])] {
            let mut text = TEXT.to_vec();
            let mut tag = cipher.encrypt(&nonce, &mut text).unwrap();
            tag[15] ^= 1;
            assert!(cipher.decrypt(&nonce, &mut text, tag).is_err());
            assert_eq!(text, vec![0; TEXT.len()]);
        }
    }

    #[test]
    fn only_lengths_of_aes_and_of_the_two_nonces_exist() {
        let of_aes: Vec<_> = (0..70).filter(|len| SessionCipher::new(&vec![1; *len]).is_some()).collect();
        assert_eq!(of_aes, [16, 24, 32]);
        let nonces: Vec<_> = (0..70).filter(|len| Nonce::new(&vec![1; *len]).is_some()).collect();
        assert_eq!(nonces, [12, 16]);
    }
}
