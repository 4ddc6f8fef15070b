//! What somebody announces of himself.

use std::fmt;
use std::time::{Duration, SystemTime};

use ciphermq_protocol::limits::ANNOUNCEMENT_BYTES_MAX;
use ciphermq_protocol::{self as protocol, SignedAnnouncement};
use sha2::{Digest, Sha256};

use super::recipient::Recipient;
use crate::crypto::{Identity, Kid, PublicKey, SenderKey, base64};
use crate::error::{Error, ErrorKind, Result};
use crate::line;

/// A key that somebody announced as his, with the signature of his identity.
///
/// That it exists means: its bytes are right, its keys are keys, and the
/// identity named in it signed it. Whether that identity is the one meant is for
/// [`super::Pins`] to say. docs/encryption.md has the bytes.
///
/// ```
/// use cipher_client::crypto::{Identity, PrivateKey};
/// use cipher_client::trust::Announcement;
///
/// let billing = Identity::generate()?;
/// let first = PrivateKey::generate(2048)?;
/// let announced = Announcement::of("billing", Some(&first.public_key())).sign(&billing)?;
///
/// let second = PrivateKey::generate(2048)?;
/// let next = Announcement::of("billing", Some(&second.public_key())).after(&announced).sign(&billing)?;
/// assert_eq!(Announcement::from_text(&next.to_text())?.seq(), 2);
/// # Ok::<(), cipher_client::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Announcement {
    client_id: String,
    seq: u64,
    identity: SenderKey,
    successor: Option<SenderKey>,
    prev: [u8; 32],
    key: Option<PublicKey>,
    not_before_ms: u64,
    not_after_ms: u64,
    bytes: Vec<u8>,
}

impl Announcement {
    /// The announcement of a key, to be signed; without one, of an identity
    /// that nothing can be sealed to: of a sender, or of one who takes his key
    /// back.
    pub fn of<'a>(client_id: &'a str, key: Option<&'a PublicKey>) -> AnnouncementBuilder<'a> {
        AnnouncementBuilder { client_id, key, seq: 1, prev: NONE_BEFORE, successor: None, valid: (0, NO_END) }
    }

    /// Reads the bytes and checks their signature.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Untrusted`] for bytes that are no announcement or not signed
    /// by the identity they name, [`ErrorKind::Key`] for a key that is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let read = SignedAnnouncement::parse(bytes).map_err(|fault| Error::with_source(NOT_READ, fault))?;
        let said = read.announcement;
        let identity = SenderKey::from_bytes(said.identity)?;
        if !identity.verifies(read.signed, read.signature) {
            return Err(ErrorKind::Untrusted { what: "an announcement that its identity did not sign" }.into());
        }
        Ok(Self {
            client_id: said.client_id.as_str().to_owned(),
            seq: said.seq,
            identity,
            successor: said.successor.map(SenderKey::from_bytes).transpose()?,
            prev: *said.prev,
            key: Some(said.key).filter(|key| !key.is_empty()).map(PublicKey::from_der).transpose()?,
            not_before_ms: said.not_before_ms,
            not_after_ms: said.not_after_ms,
            bytes: bytes.to_vec(),
        })
    }

    /// Reads the text form: the bytes in base64.
    ///
    /// # Errors
    ///
    /// As [`Announcement::from_bytes`].
    pub fn from_text(text: &str) -> Result<Self> {
        if text.len() > base64::encoded_len(ANNOUNCEMENT_BYTES_MAX) {
            return Err(NOT_READ.into());
        }
        let bytes = base64::decode("announcement", text).map_err(|_| Error::new(NOT_READ))?;
        Self::from_bytes(&bytes)
    }

    /// The bytes, signature included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes in base64.
    pub fn to_text(&self) -> String {
        base64::text(&self.bytes)
    }

    /// Who announces.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// How many he has made, this one included.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The identity that signed.
    pub fn identity(&self) -> &SenderKey {
        &self.identity
    }

    /// The identity that may sign the next one instead.
    pub fn successor(&self) -> Option<&SenderKey> {
        self.successor.as_ref()
    }

    /// The name of the key to seal to, if one is announced. The key itself
    /// comes out of [`super::Pins`].
    pub fn kid(&self) -> Option<&Kid> {
        self.key.as_ref().map(PublicKey::kid)
    }

    /// Whether the key is to be used at this time.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        let now = millis(now);
        self.not_before_ms <= now && now < self.not_after_ms
    }

    pub(super) fn not_before_ms(&self) -> u64 {
        self.not_before_ms
    }

    /// The key to seal to, as long as the announcement says.
    pub(super) fn recipient(&self) -> Option<Recipient> {
        self.key.clone().map(|key| Recipient::from_own_source(key).until_ms(self.not_after_ms))
    }

    /// Whether it refers to `before` as the one before it.
    pub(super) fn is_after(&self, before: &Self) -> bool {
        self.prev == before.digest()
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement")
            .field("client_id", &self.client_id)
            .field("seq", &self.seq)
            .field("identity", self.identity.kid())
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}

/// An announcement in the making.
#[derive(Debug, Clone)]
#[must_use = "it is made by `sign`"]
pub struct AnnouncementBuilder<'a> {
    client_id: &'a str,
    key: Option<&'a PublicKey>,
    seq: u64,
    prev: [u8; 32],
    successor: Option<&'a SenderKey>,
    valid: (u64, u64),
}

impl<'a> AnnouncementBuilder<'a> {
    /// Takes the place of `before`. Without it, it is the first.
    pub fn after(self, before: &Announcement) -> Self {
        Self { seq: before.seq + 1, prev: before.digest(), ..self }
    }

    /// Names the identity that may sign the next announcement.
    pub fn successor(self, identity: &'a SenderKey) -> Self {
        Self { successor: Some(identity), ..self }
    }

    /// The key is good from this time on. It can be announced before.
    pub fn not_before(self, time: SystemTime) -> Self {
        Self { valid: (millis(time), self.valid.1), ..self }
    }

    /// The key is good until this time. An end bounds for how long a directory
    /// can keep back that there is another key.
    pub fn not_after(self, time: SystemTime) -> Self {
        Self { valid: (self.valid.0, millis(time)), ..self }
    }

    /// Signs it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for a bad client id, an end before the beginning,
    /// or more announcements than can be counted.
    pub fn sign(self, identity: &Identity) -> Result<Announcement> {
        if self.valid.0 >= self.valid.1 {
            return Err(ErrorKind::Option { option: "not_after", reason: "after not_before" }.into());
        }
        let unsigned = protocol::Announcement {
            client_id: line::name("client_id", self.client_id)?,
            seq: self.seq,
            identity: identity.sender_key().as_bytes(),
            successor: self.successor.map(SenderKey::as_bytes),
            prev: &self.prev,
            key: self.key.map(PublicKey::as_der).unwrap_or_default(),
            not_before_ms: self.valid.0,
            not_after_ms: self.valid.1,
        };
        let refused = ErrorKind::Option { option: "announcement", reason: "too long, or too many before it" };
        let mut bytes = unsigned.signed_bytes().map_err(|fault| Error::with_source(refused, fault))?;
        let signature = identity.sign(&bytes);
        bytes.extend_from_slice(&signature);
        Announcement::from_bytes(&bytes)
    }
}

const NONE_BEFORE: [u8; 32] = [0; 32];
pub(super) const NO_END: u64 = u64::MAX;
const NOT_READ: ErrorKind = ErrorKind::Untrusted { what: "not an announcement of a key" };

/// Milliseconds since 1970; before it, zero.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_millis().try_into().unwrap_or(NO_END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::PrivateKey;

    fn announcement() -> Announcement {
        let key = PrivateKey::generate(2048).unwrap().public_key();
        Announcement::of("billing", Some(&key)).sign(&Identity::generate().unwrap()).unwrap()
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = announcement().as_bytes().to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Announcement::from_bytes(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_text_reads_back_and_has_one_form() {
        let one = announcement();
        assert_eq!(Announcement::from_text(&one.to_text()).unwrap(), one);
        for text in [format!("{} ", one.to_text()), one.to_text().replace('=', ""), "A".repeat(5465), String::new()] {
            assert!(Announcement::from_text(&text).is_err());
        }
    }

    #[test]
    fn the_time_of_a_key_has_a_beginning_and_an_end() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let me = Identity::generate().unwrap();
        let one = Announcement::of("me", None).not_before(at(10)).not_after(at(20)).sign(&me).unwrap();
        assert_eq!([9, 10, 19, 20].map(|secs| one.is_valid(at(secs))), [false, true, true, false]);
        assert!(Announcement::of("me", None).not_before(at(20)).not_after(at(20)).sign(&me).is_err());
        assert!(Announcement::of("me", None).sign(&me).unwrap().is_valid(SystemTime::now()));
        assert!(Announcement::of("not a name", None).sign(&me).is_err());
    }
}
