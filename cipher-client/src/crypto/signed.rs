//! What suite 1 lacks: who sealed a message, when, and for where (the member `x`).
//!
//! ```text
//! session   what Ed25519 signs once for each session key:
//!           "cipher/1 session" 00 | recipient kid 32 | sender kid 32 | signed 1 | bounds 32 | SHA-256(wrapped) 32
//! bounds    stream 16 | started u64 | lifetime u64
//! mac key   HKDF-SHA256(session key, salt "cipher/1x", info "mac" 00 | SHA-256(session))
//! binding   id | nonce | tag 16 | number u64 | sent u64 | exchange | routing key | content type
//! mac       HMAC-SHA256(mac key, binding), in every message
//! message   what Ed25519 signs for each message instead, if told to:
//!           "cipher/1 message" 00 | SHA-256(session) | SHA-256(binding) | SHA-256(ciphertext)
//! ```
//!
//! Integers are big-endian; id, nonce, exchange, routing key and content type
//! have their length before them as u32. docs/encryption.md says what follows
//! from which part.

mod extension;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub(super) use self::extension::{Extension, Head, X, X_WRITTEN_MAX};
use super::context::Context;
use super::identity::Identity;
use super::kid::Kid;
use super::process::Once;
use super::suite::SessionCipher;
use crate::error::{ErrorKind, Result};

/// How often an [`Identity`] signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signing {
    /// Once for a session key; a MAC under a key that comes from it covers the
    /// messages. The recipient knows who sent them. To others he can prove
    /// nothing: with the session key he could have made them himself. The
    /// default, where a message has one recipient.
    #[default]
    Session,
    /// Every message, which is 20 times slower to make and to check. What the
    /// recipient shows to others is proven to be the sender's.
    EveryMessage,
}

impl Signing {
    fn byte(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::EveryMessage => 2,
        }
    }
}

/// What a session key may be used for. One that gets out later on is good for
/// messages of that time and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Messages are numbered in it, over the session keys that follow each other.
    pub(super) stream: [u8; 16],
    /// Milliseconds since 1970.
    pub(super) started_ms: u64,
    pub(super) lifetime_ms: u64,
}

/// Bytes of [`Bounds`].
const BOUNDS_LEN: usize = 32;

impl Bounds {
    fn to_bytes(self) -> [u8; BOUNDS_LEN] {
        let mut bytes = [0; BOUNDS_LEN];
        bytes[..16].copy_from_slice(&self.stream);
        bytes[16..24].copy_from_slice(&self.started_ms.to_be_bytes());
        bytes[24..].copy_from_slice(&self.lifetime_ms.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; BOUNDS_LEN]) -> Self {
        let number = |at: usize| bytes[at..at + 8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let mut stream = [0; 16];
        stream.copy_from_slice(&bytes[..16]);
        Self { stream, started_ms: number(16), lifetime_ms: number(24) }
    }

    /// `ms`, or what is nearest to it inside: clocks are set.
    pub(super) fn clamp(self, ms: u64) -> u64 {
        ms.clamp(self.started_ms, self.started_ms.saturating_add(self.lifetime_ms))
    }

    /// Whether a message may have been sealed then.
    fn cover(&self, sent_ms: u64) -> bool {
        sent_ms >= self.started_ms && sent_ms - self.started_ms <= self.lifetime_ms
    }
}

/// What a sender says of a session key, in the one form that is signed.
pub(super) struct Session {
    recipient: Kid,
    sender: Kid,
    signing: Signing,
    bounds: Bounds,
    wrapped: [u8; 32],
}

impl Session {
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SESSION_DOMAIN.len() + 3 * 32 + 1 + BOUNDS_LEN);
        bytes.extend_from_slice(SESSION_DOMAIN);
        bytes.extend_from_slice(self.recipient.as_bytes());
        bytes.extend_from_slice(self.sender.as_bytes());
        bytes.push(self.signing.byte());
        bytes.extend_from_slice(&self.bounds.to_bytes());
        bytes.extend_from_slice(&self.wrapped);
        bytes
    }
}

/// The part of a session key that MAC keys are made from; the session key
/// itself is not kept beside its key schedule.
pub(super) struct MacSeed(Zeroizing<[u8; 32]>);

impl MacSeed {
    pub(super) fn new(session_key: &[u8]) -> Self {
        let (seed, _) = Hkdf::<Sha256>::extract(Some(SEED_SALT), session_key);
        Self(Zeroizing::new(seed.into()))
    }

    fn key(&self, session: &[u8; 32]) -> MacKey {
        let expand = Hkdf::<Sha256>::from_prk(&self.0[..]).expect("as long as the hash");
        let mut key = Zeroizing::new([0; 32]);
        expand.expand_multi_info(&[MAC_INFO, session], &mut key[..]).expect("one block of the hash");
        MacKey(Hmac::new_from_slice(&key[..]).expect("HMAC takes a key of any length"))
    }
}

/// The MAC of one session, its key taken in already. Wiped when dropped.
struct MacKey(Hmac<Sha256>);

impl MacKey {
    fn tag(&self, binding: &[u8]) -> [u8; MAC_LEN] {
        self.0.clone().chain_update(binding).finalize().into_bytes().into()
    }

    fn verifies(&self, binding: &[u8], tag: &[u8; MAC_LEN]) -> bool {
        self.0.clone().chain_update(binding).verify(tag.into()).is_ok()
    }
}

/// Bytes of a MAC.
const MAC_LEN: usize = 32;

/// One message: what the MAC covers, and what the signature of each message
/// covers beside that.
pub(super) struct Message<'a> {
    pub(super) id: &'a str,
    pub(super) nonce: &'a [u8],
    pub(super) tag: &'a [u8; 16],
    pub(super) ciphertext: &'a [u8],
}

fn binding(message: &Message<'_>, stamp: &Stamp<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BINDING_LEN);
    append(&mut bytes, message.id.as_bytes());
    append(&mut bytes, message.nonce);
    bytes.extend_from_slice(message.tag);
    bytes.extend_from_slice(&stamp.number.to_be_bytes());
    bytes.extend_from_slice(&stamp.sent_ms.to_be_bytes());
    append(&mut bytes, stamp.exchange.as_bytes());
    append(&mut bytes, stamp.routing_key.as_bytes());
    append(&mut bytes, stamp.content_type.as_bytes());
    bytes
}

/// Usual length, with room.
const BINDING_LEN: usize = 256;

/// All parts have been bounded before: they are far below 4 GiB.
fn append(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
    bytes.extend_from_slice(part);
}

/// What a sender says of a message beside its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp<'a> {
    /// Its place in the stream.
    pub(super) number: u64,
    /// Milliseconds since 1970.
    pub(super) sent_ms: u64,
    pub(super) exchange: Cow<'a, str>,
    pub(super) routing_key: Cow<'a, str>,
    /// Empty for none.
    pub(super) content_type: Cow<'a, str>,
}

impl<'a> Stamp<'a> {
    pub(super) fn new(number: u64, sent_ms: u64, context: &'a Context) -> Self {
        let content_type = context.content_type.as_deref().unwrap_or_default().into();
        let (exchange, routing_key) = (context.exchange.as_str().into(), context.routing_key.as_str().into());
        Self { number, sent_ms, exchange, routing_key, content_type }
    }

    /// What was bound; `None` if nothing.
    pub(super) fn context(&self) -> Option<Context> {
        let context = Context::new(&*self.exchange, &*self.routing_key).content_type(&*self.content_type);
        Some(context).filter(|context| !context.is_empty())
    }
}

fn message_bytes(session: &[u8; 32], binding: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let digests = [*session, Sha256::digest(binding).into(), Sha256::digest(ciphertext).into()];
    [MESSAGE_DOMAIN, digests.as_flattened()].concat()
}

/// A session key of a sender that signs.
pub(super) struct SealingSession {
    /// The first part of `x`, the same in all messages.
    head: String,
    digest: [u8; 32],
    mac: MacKey,
    /// Who signs each message, if each is.
    each: Option<Arc<Identity>>,
}

impl SealingSession {
    /// Signs for the session key in `wrapped`, from which `seed` is.
    pub(super) fn new(
        (identity, signing): (&Arc<Identity>, Signing),
        recipient: Kid,
        bounds: Bounds,
        wrapped: &[u8],
        seed: &MacSeed,
    ) -> Self {
        let wrapped = Sha256::digest(wrapped).into();
        let session = Session { recipient, sender: *identity.kid(), signing, bounds, wrapped };
        let signed = session.signed_bytes();
        let digest = Sha256::digest(&signed).into();
        let (signature, each) = match signing {
            Signing::Session => (Some(identity.sign(&signed)), None),
            Signing::EveryMessage => (None, Some(Arc::clone(identity))),
        };
        Self { head: extension::write_head(&session, signature.as_ref()), digest, mac: seed.key(&digest), each }
    }

    /// The JSON of `x` for one message.
    pub(super) fn extension(&self, message: &Message<'_>, stamp: &Stamp<'_>) -> String {
        let binding = binding(message, stamp);
        let sign = |identity: &Arc<Identity>| identity.sign(&message_bytes(&self.digest, &binding, message.ciphertext));
        let signature = self.each.as_ref().map(sign);
        extension::write(&self.head, signature.as_ref(), stamp, &self.mac.tag(&binding))
    }
}

/// A session key of a receiver.
pub(super) struct OpeningKey {
    pub(super) cipher: SessionCipher,
    seed: MacSeed,
    /// What a known sender has signed of it, once a message has shown it to be so.
    pub(super) session: Once<OpeningSession>,
}

impl OpeningKey {
    /// `None` for a length that is not one of AES.
    pub(super) fn new(session_key: &[u8]) -> Option<Self> {
        let cipher = SessionCipher::new(session_key)?;
        Some(Self { cipher, seed: MacSeed::new(session_key), session: Once::new() })
    }
}

/// What `x` says of the session key: to be believed once its signature is
/// checked and a message under it was found to be good.
pub(super) struct OpeningSession {
    head: Head<'static>,
    pub(super) session: Session,
    mac: MacKey,
    /// Since when nothing was learned of its sender that could be against it.
    pub(super) admitted: AtomicU64,
}

impl OpeningSession {
    pub(super) fn new(head: &Head<'_>, session: Session, key: &OpeningKey) -> Self {
        let digest = Sha256::digest(session.signed_bytes()).into();
        Self { head: head.to_owned(), session, mac: key.seed.key(&digest), admitted: AtomicU64::new(0) }
    }

    /// Whether it is the one that `head` speaks of.
    pub(super) fn is_of(&self, head: &Head<'_>) -> bool {
        self.head == *head
    }

    /// Checks that somebody who has the session key made this of the message,
    /// for this sender, within the bounds.
    pub(super) fn verify(&self, message: &Message<'_>, stamp: &Stamp<'_>, mac: &[u8; MAC_LEN]) -> Result<()> {
        let is_good = self.mac.verifies(&binding(message, stamp), mac) && self.session.bounds.cover(stamp.sent_ms);
        if is_good { Ok(()) } else { Err(ErrorKind::Decrypt.into()) }
    }
}

impl Session {
    pub(super) fn sender(&self) -> &Kid {
        &self.sender
    }

    pub(super) fn stream(&self) -> [u8; 16] {
        self.bounds.stream
    }

    /// What the signature of `extension` has to be of.
    pub(super) fn signed(&self, message: &Message<'_>, stamp: &Stamp<'_>) -> Vec<u8> {
        let session = self.signed_bytes();
        match self.signing {
            Signing::Session => session,
            Signing::EveryMessage => {
                message_bytes(&Sha256::digest(&session).into(), &binding(message, stamp), message.ciphertext)
            }
        }
    }
}

const SESSION_DOMAIN: &[u8] = b"cipher/1 session\0";
const MESSAGE_DOMAIN: &[u8] = b"cipher/1 message\0";
const SEED_SALT: &[u8] = b"cipher/1x";
const MAC_INFO: &[u8] = b"mac\0";

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [1; 16];
    const WRAPPED: &[u8] = &[2; 256];

    struct Sealed {
        json: String,
        nonce: [u8; 16],
        tag: [u8; 16],
    }

    fn bounds() -> Bounds {
        Bounds { stream: [3; 16], started_ms: 1000, lifetime_ms: 60_000 }
    }

    fn context() -> Context {
        Context::new("orders", "eu").content_type("text/plain")
    }

    fn message<'a>(id: &'a str, sealed: &'a Sealed) -> Message<'a> {
        Message { id, nonce: &sealed.nonce, tag: &sealed.tag, ciphertext: b"ciphertext" }
    }

    fn seal(identity: &Arc<Identity>, signing: Signing, sent_ms: u64) -> Sealed {
        let session =
            SealingSession::new((identity, signing), Kid::from_bytes([9; 32]), bounds(), WRAPPED, &MacSeed::new(&KEY));
        let mut sealed = Sealed { json: String::new(), nonce: [4; 16], tag: [5; 16] };
        sealed.json = session.extension(&message("m-1", &sealed), &Stamp::new(7, sent_ms, &context()));
        sealed
    }

    /// What a receiver does: signature, then MAC.
    fn open(
        identity: &Identity,
        sealed: &Sealed,
        message: &Message<'_>,
        key: &[u8],
        wrapped: &[u8],
    ) -> Result<Stamp<'static>> {
        let read = Extension::parse(&sealed.json)?;
        let session = read.head.session(wrapped)?;
        if !identity.sender_key().verifies(&session.signed(message, &read.stamp), &read.signature()?) {
            return Err(ErrorKind::Decrypt.into());
        }
        let opening = OpeningSession::new(&read.head, session, &OpeningKey::new(key).unwrap());
        opening.verify(message, &read.stamp, &read.mac()?)?;
        let Stamp { number, sent_ms, .. } = read.stamp;
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let (exchange, routing_key) = (own(read.stamp.exchange), own(read.stamp.routing_key));
        Ok(Stamp { number, sent_ms, exchange, routing_key, content_type: own(read.stamp.content_type) })
    }

    #[test]
    fn what_was_said_is_found_to_have_been_said() {
        let me = Arc::new(Identity::generate().unwrap());
        for signing in [Signing::Session, Signing::EveryMessage] {
            let sealed = seal(&me, signing, 1000);
            let stamp = open(&me, &sealed, &message("m-1", &sealed), &KEY, WRAPPED).unwrap();
            assert_eq!((stamp.number, stamp.sent_ms), (7, 1000));
            assert_eq!(stamp.context().unwrap(), context());
        }
    }

    #[test]
    fn nothing_that_is_bound_can_be_exchanged() {
        let (me, other) = (Arc::new(Identity::generate().unwrap()), Identity::generate().unwrap());
        for signing in [Signing::Session, Signing::EveryMessage] {
            let sealed = seal(&me, signing, 1000);
            let good = || message("m-1", &sealed);
            assert!(open(&me, &sealed, &good(), &KEY, WRAPPED).is_ok());
            assert!(open(&other, &sealed, &good(), &KEY, WRAPPED).is_err(), "another signer");
            assert!(open(&me, &sealed, &good(), &[0; 16], WRAPPED).is_err(), "another session key");
            assert!(open(&me, &sealed, &good(), &KEY, &[0; 256]).is_err(), "another wrap");
            assert!(open(&me, &sealed, &Message { id: "m-2", ..good() }, &KEY, WRAPPED).is_err(), "another id");
            assert!(open(&me, &sealed, &Message { nonce: &[0; 16], ..good() }, &KEY, WRAPPED).is_err());
            assert!(open(&me, &sealed, &Message { tag: &[0; 16], ..good() }, &KEY, WRAPPED).is_err());
            for (from, to) in [("\"seq\":7", "\"seq\":8"), ("\"ts\":1000", "\"ts\":1001"), ("orders", "refunds")] {
                let changed = Sealed { json: sealed.json.replace(from, to), ..sealed };
                assert!(open(&me, &changed, &good(), &KEY, WRAPPED).is_err(), "{from} -> {to}");
            }
        }
        let sealed = seal(&me, Signing::EveryMessage, 1000);
        let forged = Message { ciphertext: b"another", ..message("m-1", &sealed) };
        assert!(open(&me, &sealed, &forged, &KEY, WRAPPED).is_err(), "what was signed can be shown to others");
    }

    #[test]
    fn fields_cannot_flow_into_each_other() {
        let context = |exchange, key| Context::new(exchange, key);
        let message = Message { id: "m", nonce: &[0; 16], tag: &[0; 16], ciphertext: b"" };
        let one = binding(&message, &Stamp::new(0, 0, &context("ab", "c")));
        assert_ne!(one, binding(&message, &Stamp::new(0, 0, &context("a", "bc"))));
        assert_ne!(one, binding(&message, &Stamp::new(0, 0, &context("ab", "").content_type("c"))));
    }

    #[test]
    fn a_session_key_is_good_for_its_time() {
        let me = Arc::new(Identity::generate().unwrap());
        for (sent_ms, is_good) in [(999, false), (1000, true), (61_000, true), (61_001, false)] {
            let sealed = seal(&me, Signing::Session, sent_ms);
            assert_eq!(open(&me, &sealed, &message("m-1", &sealed), &KEY, WRAPPED).is_ok(), is_good, "{sent_ms}");
        }
        assert!(Bounds { lifetime_ms: u64::MAX, ..bounds() }.cover(u64::MAX));
    }

    /// Made with Python's hmac, hashlib and cryptography; see docs/encryption.md.
    #[test]
    fn the_bytes_are_those_of_the_contract() {
        let me = Arc::new(Identity::from_pem(TEST_IDENTITY).unwrap());
        for (signing, digest) in [
            (Signing::Session, "e0bacb17afcabe3ce5eacf466fc988f76fa61e2557733c28d0506a7c5472cdb1"),
            (Signing::EveryMessage, "621efbb1863af955e193cdf036677cf0a58da6782a0c0e1b54e506e79cf8ad3f"),
        ] {
            let json = seal(&me, signing, 1000).json;
            let found: String = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, digest);
        }
    }

    /// RFC 8032 section 7.1, test 2.
    const TEST_IDENTITY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n\
        -----END PRIVATE KEY-----\n";
}
