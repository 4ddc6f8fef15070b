//! Envelopes of suite 2, in the same manner.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{KeyKind, PrivateKey, Sealer, SessionPolicy, Suite};
use cipher_client::trust::Recipient;
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

/// Makes envelopes for one key.
pub(crate) struct Maker<'a> {
    ours: Sealer,
    other: Sealer,
    /// Of a key of RSA.
    rsa: Option<RsaPublicKey>,
    random: &'a mut StdRng,
}

/// A sealed message, decoded.
struct Sealed {
    id: String,
    suite: String,
    wrap: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(key: &PrivateKey, suite: Suite, random: &'a mut StdRng) -> Result<Self, Failure> {
        let (public, other) = (key.public_key(), another(key)?);
        let rsa = match key.kind() {
            KeyKind::Rsa => Some(RsaPublicKey::from_public_key_pem(&public.to_pem()?)?),
            _ => None,
        };
        let sealer = |key| {
            let sealer = Sealer::builder([Recipient::from_own_source(key)]).session(SessionPolicy::PerMessage);
            sealer.suite(suite).build()
        };
        Ok(Self { ours: sealer(public)?, other: sealer(other.public_key())?, rsa, random })
    }

    fn seal(random: &mut StdRng, sealer: &Sealer) -> Result<Sealed, Failure> {
        let mut text = [0; TEXT_BYTES];
        random.fill_bytes(&mut text);
        Sealed::parse(&sealer.seal(&text)?.envelope)
    }

    fn random_wrap(&mut self, len: usize) -> Vec<u8> {
        let mut wrap = vec![0; len];
        loop {
            self.random.fill_bytes(&mut wrap);
            if self.is_in_range(&wrap) {
                return wrap;
            }
        }
    }

    fn wrap_with(&mut self, padding: impl rsa::traits::PaddingScheme, len: usize) -> Result<Vec<u8>, Failure> {
        let rsa = self.rsa.as_ref().ok_or("not of this suite")?;
        let mut inside = vec![0; len];
        self.random.fill_bytes(&mut inside);
        Ok(rsa.encrypt(self.random, padding, &inside)?)
    }

    fn wrap_of_another(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            let wrap = Self::seal(self.random, &self.other)?.wrap;
            if self.is_in_range(&wrap) {
                return Ok(wrap);
            }
        }
    }

    fn is_in_range(&self, wrap: &[u8]) -> bool {
        self.rsa.as_ref().is_none_or(|rsa| wrap < &rsa.n_bytes()[..])
    }
}

impl Make for Maker<'_> {
    fn make(&mut self, class: Class) -> Result<String, Failure> {
        let mut sealed = Self::seal(self.random, &self.ours)?;
        let mask = mask(self.random);
        let last = sealed.payload.len() - 1;
        match class {
            Class::Valid | Class::ValidAgain => {}
            Class::Block => sealed.wrap = self.random_wrap(sealed.wrap.len()),
            Class::Label => sealed.wrap = self.wrap_with(Oaep::<Sha256>::new_with_label(*b"label"), KEY_LEN)?,
            Class::Hash => sealed.wrap = self.wrap_with(Oaep::<Sha1>::new_with_label(*b"cipher/2"), KEY_LEN)?,
            Class::Length => {
                let len = WRONG_LENGTHS[self.random.random_range(0..WRONG_LENGTHS.len())];
                sealed.wrap = self.wrap_with(Oaep::<Sha256>::new_with_label(*b"cipher/2"), len)?;
            }
            Class::WrapTag => *sealed.wrap.last_mut().ok_or("a wrap is not empty")? ^= mask,
            Class::Recipient => sealed.wrap = self.wrap_of_another()?,
            Class::Salt => sealed.payload[0] ^= mask,
            Class::CommitFirst => sealed.payload[SALT_LEN] ^= mask,
            Class::CommitLast => sealed.payload[SALT_LEN + COMMITMENT_LEN - 1] ^= mask,
            Class::Header => sealed.header[SESSION_AT] ^= mask,
            Class::Ciphertext => sealed.payload[SALT_LEN + COMMITMENT_LEN] ^= mask,
            Class::TagFirst => sealed.payload[last - 15] ^= mask,
            Class::TagLast | Class::Planted | Class::Slowed => sealed.payload[last] ^= mask,
            Class::Range => {
                sealed.wrap.fill(0xff);
                // Each with a cache entry of its own.
                let end = sealed.wrap.len() - 8;
                self.random.fill_bytes(&mut sealed.wrap[end..]);
            }
            Class::Nonce => return Err("not of suite 2".into()),
        }
        Ok(sealed.to_json())
    }
}

const KEY_LEN: usize = 32;
/// Lengths that a content key does not have.
const WRONG_LENGTHS: [usize; 5] = [0, 16, 31, 33, 64];
const SALT_LEN: usize = 24;
const COMMITMENT_LEN: usize = 32;
/// Where in a header the id of the session is.
const SESSION_AT: usize = 11;

fn another(key: &PrivateKey) -> Result<PrivateKey, Failure> {
    Ok(match key.kind() {
        KeyKind::Rsa => PrivateKey::generate(key.bits())?,
        kind => PrivateKey::generate_kind(kind)?,
    })
}

impl Sealed {
    fn parse(envelope: &str) -> Result<Self, Failure> {
        let envelope: Value = serde_json::from_str(envelope)?;
        let text = |name: &str| envelope[name].as_str().ok_or("a member is missing");
        let bytes = |name: &str| -> Result<Vec<u8>, Failure> { Ok(STANDARD.decode(text(name)?)?) };
        Ok(Self {
            id: text("message_id")?.to_owned(),
            suite: text("suite")?.to_owned(),
            wrap: bytes("enc_session_key")?,
            header: bytes("hdr")?,
            payload: bytes("ciphertext")?,
        })
    }

    fn to_json(&self) -> String {
        let [wrap, header, payload] = [&self.wrap, &self.header, &self.payload].map(|bytes| STANDARD.encode(bytes));
        let (id, suite) = (&self.id, &self.suite);
        format!(
            r#"{{"message_id":"{id}","enc_session_key":"{wrap}","nonce":"","tag":"","v":2,"suite":"{suite}","hdr":"{header}","ciphertext":"{payload}"}}"#
        )
    }
}
