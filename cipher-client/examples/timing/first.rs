//! Envelopes of suite 1. Only the library's public API, and `rsa` for what the library cannot be made to do: wrapping with a
//! wrong label, hash or length.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{PrivateKey, Sealer, SessionPolicy};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{Oaep, RsaPublicKey};
use serde_json::Value;
use sha1::Sha1;
use sha2::Sha256;

use crate::Failure;
use crate::classes::{Class, Make, TEXT_BYTES, mask};

/// Lengths that are none of AES.
const WRONG_LENGTHS: [usize; 6] = [0, 1, 15, 17, 33, 64];

/// Makes envelopes for one key.
pub(crate) struct Maker<'a> {
    ours: Recipient,
    other: Recipient,
    random: &'a mut StdRng,
}

struct Recipient {
    sealer: Sealer,
    rsa: RsaPublicKey,
}

/// A sealed message, decoded.
struct Sealed {
    block: Vec<u8>,
    nonce: Vec<u8>,
    tag: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(key: &PrivateKey, bits: usize, random: &'a mut StdRng) -> Result<Self, Failure> {
        let other = PrivateKey::generate(bits)?;
        Ok(Self { ours: Recipient::new(key)?, other: Recipient::new(&other)?, random })
    }

    fn random_block(&mut self) -> Vec<u8> {
        let mut block = vec![0; self.ours.rsa.size()];
        loop {
            self.random.fill_bytes(&mut block);
            if self.ours.is_in_range(&block) {
                return block;
            }
        }
    }

    fn wrap(&mut self, padding: impl rsa::traits::PaddingScheme, length: usize) -> Result<Vec<u8>, Failure> {
        let mut inside = vec![0; length];
        self.random.fill_bytes(&mut inside);
        Ok(self.ours.rsa.encrypt(self.random, padding, &inside)?)
    }

    /// One whose block is a number below our modulus too; others are [`Class::Range`].
    fn of_another_recipient(&mut self) -> Result<Sealed, Failure> {
        loop {
            let sealed = self.other.seal(self.random)?;
            if self.ours.is_in_range(&sealed.block) {
                return Ok(sealed);
            }
        }
    }
}

impl Make for Maker<'_> {
    fn make(&mut self, class: Class) -> Result<String, Failure> {
        let mut sealed = self.ours.seal(self.random)?;
        match class {
            Class::Valid | Class::ValidAgain => {}
            Class::TagFirst => sealed.tag[0] ^= mask(self.random),
            Class::TagLast | Class::Planted | Class::Slowed => sealed.tag[15] ^= mask(self.random),
            Class::Nonce => sealed.nonce[0] ^= mask(self.random),
            Class::Ciphertext => sealed.ciphertext[0] ^= mask(self.random),
            Class::Block => sealed.block = self.random_block(),
            Class::Label => sealed.block = self.wrap(Oaep::<Sha1>::new_with_label(*b"label"), 16)?,
            Class::Hash => sealed.block = self.wrap(Oaep::<Sha256>::new(), 16)?,
            Class::Length => {
                let length = WRONG_LENGTHS[self.random.random_range(0..WRONG_LENGTHS.len())];
                sealed.block = self.wrap(Oaep::<Sha1>::new(), length)?;
            }
            Class::Recipient => sealed = self.of_another_recipient()?,
            Class::Range => sealed.block = vec![0xff; sealed.block.len()],
            Class::WrapTag | Class::CommitFirst | Class::CommitLast | Class::Salt | Class::Header => {
                return Err("not of suite 1".into());
            }
        }
        if class == Class::Range {
            // Each with a cache entry of its own.
            let end = sealed.block.len() - 8;
            self.random.fill_bytes(&mut sealed.block[end..]);
        }
        Ok(sealed.to_json())
    }
}

impl Recipient {
    fn new(key: &PrivateKey) -> Result<Self, Failure> {
        let public = key.public_key();
        let rsa = RsaPublicKey::from_public_key_pem(&public.to_pem()?)?;
        Ok(Self { sealer: Sealer::new(&public, SessionPolicy::PerMessage)?, rsa })
    }

    fn seal(&self, random: &mut StdRng) -> Result<Sealed, Failure> {
        let mut text = [0; TEXT_BYTES];
        random.fill_bytes(&mut text);
        Sealed::parse(&self.sealer.seal(&text)?.envelope)
    }

    fn is_in_range(&self, block: &[u8]) -> bool {
        block < &self.rsa.n_bytes()[..]
    }
}

impl Sealed {
    fn parse(envelope: &str) -> Result<Self, Failure> {
        let envelope: Value = serde_json::from_str(envelope)?;
        let member = |name: &str| -> Result<Vec<u8>, Failure> {
            let text = envelope[name].as_str().ok_or("a member is missing")?;
            Ok(STANDARD.decode(text)?)
        };
        Ok(Self {
            block: member("enc_session_key")?,
            nonce: member("nonce")?,
            tag: member("tag")?,
            ciphertext: member("ciphertext")?,
        })
    }

    /// All with one id, so that all texts have one length.
    fn to_json(&self) -> String {
        let [block, nonce, tag, ciphertext] =
            [&self.block, &self.nonce, &self.tag, &self.ciphertext].map(|bytes| STANDARD.encode(bytes));
        format!(
            r#"{{"message_id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","enc_session_key":"{block}","nonce":"{nonce}","tag":"{tag}","ciphertext":"{ciphertext}"}}"#
        )
    }
}
