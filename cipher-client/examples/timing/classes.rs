//! The classes of envelopes whose opening is timed. Only the library's public API, and `rsa` for what the library cannot be
//! made to do: wrapping with a wrong label, hash or length.

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

/// What is wrong with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing.
    Valid,
    /// Nothing, made apart from the others: no difference may be found. A control.
    ValidAgain,
    /// The tag, and its opening is made slower by the measurement: a difference must be found. The other control.
    Slowed,
    /// A random block: what it decrypts to is no OAEP, and does not start with the byte 0.
    Block,
    /// OAEP with a label: the byte 0, then a wrong hash. Telling it from [`Class::Block`] is Manger's attack.
    Label,
    /// OAEP with SHA-256.
    Hash,
    /// Good OAEP round something that is no key of AES.
    Length,
    /// The first byte of the tag.
    TagFirst,
    /// The last byte of the tag.
    TagLast,
    Nonce,
    Ciphertext,
    /// Sealed for somebody else with a key of the same size.
    Recipient,
    /// A block that is no number below the modulus. Anybody who has the public key can see that.
    Range,
}

impl Class {
    pub(crate) const ALL: [Class; 13] = [
        Class::Valid,
        Class::ValidAgain,
        Class::Slowed,
        Class::Block,
        Class::Label,
        Class::Hash,
        Class::Length,
        Class::TagFirst,
        Class::TagLast,
        Class::Nonce,
        Class::Ciphertext,
        Class::Recipient,
        Class::Range,
    ];

    /// Whether it is one of the ways to fail that must look alike.
    pub(crate) fn is_failure(self) -> bool {
        !matches!(self, Class::Valid | Class::ValidAgain | Class::Slowed | Class::Range)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Valid => "valid",
            Class::ValidAgain => "valid again (control)",
            Class::Slowed => "slowed (control)",
            Class::Block => "bad block",
            Class::Label => "label inside",
            Class::Hash => "other hash inside",
            Class::Length => "session key length",
            Class::TagFirst => "tag, first byte",
            Class::TagLast => "tag, last byte",
            Class::Nonce => "nonce",
            Class::Ciphertext => "ciphertext",
            Class::Recipient => "another recipient",
            Class::Range => "block over modulus",
        }
    }
}

/// Bytes of text in each envelope. Little, so that the time of a whole opening is not that of AES.
const TEXT_BYTES: usize = 64;

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

    pub(crate) fn make(&mut self, class: Class) -> Result<String, Failure> {
        let mut sealed = self.ours.seal(self.random)?;
        match class {
            Class::Valid | Class::ValidAgain => {}
            Class::TagFirst => sealed.tag[0] ^= self.mask(),
            Class::TagLast | Class::Slowed => sealed.tag[15] ^= self.mask(),
            Class::Nonce => sealed.nonce[0] ^= self.mask(),
            Class::Ciphertext => sealed.ciphertext[0] ^= self.mask(),
            Class::Block => sealed.block = self.random_block(),
            Class::Label => sealed.block = self.wrap(Oaep::<Sha1>::new_with_label(*b"label"), 16)?,
            Class::Hash => sealed.block = self.wrap(Oaep::<Sha256>::new(), 16)?,
            Class::Length => {
                let length = WRONG_LENGTHS[self.random.random_range(0..WRONG_LENGTHS.len())];
                sealed.block = self.wrap(Oaep::<Sha1>::new(), length)?;
            }
            Class::Recipient => sealed = self.of_another_recipient()?,
            Class::Range => sealed.block = vec![0xff; sealed.block.len()],
        }
        if class == Class::Range {
            // Each with a cache entry of its own.
            let end = sealed.block.len() - 8;
            self.random.fill_bytes(&mut sealed.block[end..]);
        }
        Ok(sealed.to_json())
    }

    /// One changed bit.
    fn mask(&mut self) -> u8 {
        1 << self.random.random_range(0..8)
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
