//! Sealing: one session key for many messages, within limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::base64;
use super::envelope;
use super::keys::{PublicInner, PublicKey, PublicMaterial};
use super::message_id;
use super::process::{Moment, PerProcess};
use super::suite::{self, NONCE_LEN, Nonce, SESSION_KEY_LEN, SessionCipher};
use crate::error::{Error, ErrorKind, Result};

/// Most messages under one session key, whatever the policy says.
pub const SESSION_MESSAGES_MAX: u64 = 1 << 20;
/// Most bytes of plaintext under one session key, whatever the policy says.
pub const SESSION_BYTES_MAX: u64 = 1 << 36;

/// Seals `plaintext` for the holder of `key`. Calls with the same key, or with
/// clones of it, share a session as [`SessionPolicy::default`] says.
///
/// Without a `message_id` a version 4 UUID is made. A given one has 1 to 255
/// bytes, no space, control character, quote or backslash.
///
/// # Errors
///
/// [`ErrorKind::MessageId`], [`ErrorKind::TooLarge`], [`ErrorKind::KeyTooSmall`],
/// [`ErrorKind::Random`].
pub fn seal(plaintext: &[u8], key: &PublicKey, message_id: Option<&str>) -> Result<String> {
    let sealer = match key.sealer.get() {
        Some(sealer) => sealer,
        None => {
            let sealer = Sealer::new(key, SessionPolicy::default())?;
            key.sealer.get_or_init(|| sealer)
        }
    };
    let sealed = match message_id {
        Some(id) => sealer.seal_with_id(id, plaintext),
        None => sealer.seal(plaintext),
    };
    sealed.map(|sealed| sealed.envelope)
}

/// For how long a session key is used again.
///
/// Wrapping a session key costs twenty times the rest of a seal, and unwrapping
/// it several hundred times the rest of an opening. docs/encryption.md weighs
/// what reuse costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPolicy {
    /// Until any of the three is used up. The default: 1,000 messages, 60
    /// seconds, 1 GiB.
    Reuse {
        /// Messages, 1 to [`SESSION_MESSAGES_MAX`].
        messages: u64,
        /// Time since the key was made.
        lifetime: Duration,
        /// Bytes of plaintext, 1 to [`SESSION_BYTES_MAX`].
        bytes: u64,
    },
    /// A fresh key for every message, as the originals do.
    PerMessage,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self::Reuse { messages: 1000, lifetime: Duration::from_secs(60), bytes: 1 << 30 }
    }
}

impl SessionPolicy {
    fn check(self) -> Result<()> {
        let Self::Reuse { messages, bytes, .. } = self else { return Ok(()) };
        if !(1..=SESSION_MESSAGES_MAX).contains(&messages) {
            let reason = "1 to 1048576 messages a session key";
            return Err(ErrorKind::Option { option: "messages", reason }.into());
        }
        if !(1..=SESSION_BYTES_MAX).contains(&bytes) {
            let reason = "1 to 68719476736 bytes a session key";
            return Err(ErrorKind::Option { option: "bytes", reason }.into());
        }
        Ok(())
    }
}

/// A sealed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The id inside the envelope.
    pub message_id: String,
    /// The JSON text to publish.
    pub envelope: String,
}

/// Seals messages for one recipient. To be kept and shared between threads.
///
/// A process that forks may go on using it on both sides: the child starts a
/// session of its own.
pub struct Sealer {
    key: Arc<PublicInner>,
    policy: SessionPolicy,
    session: PerProcess<Option<Session>>,
}

/// The session key in use and what is left of it.
struct Session {
    secret: Arc<SessionSecret>,
    messages_left: u64,
    bytes_left: u64,
    expires: Option<Instant>,
}

/// A session key ready for use, and its wrapped form in base64.
struct SessionSecret {
    cipher: SessionCipher,
    wrapped: String,
}

impl Sealer {
    /// A sealer for the holder of `key`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`], [`ErrorKind::Option`] for limits over the hard ones.
    pub fn new(key: &PublicKey, policy: SessionPolicy) -> Result<Self> {
        key.check_size()?;
        key.inner.suite_1_len().ok_or(Error::key(NO_SUITE))?;
        policy.check()?;
        let session = PerProcess::new(std::process::id(), None);
        Ok(Self { key: Arc::clone(&key.inner), policy, session })
    }

    /// Seals under a new id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`], [`ErrorKind::Random`].
    pub fn seal(&self, plaintext: &[u8]) -> Result<Sealed> {
        self.seal_new_at(plaintext, Moment::current())
    }

    /// Seals under a given id, by the rules of [`seal`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MessageId`], [`ErrorKind::TooLarge`], [`ErrorKind::Random`].
    pub fn seal_with_id(&self, id: &str, plaintext: &[u8]) -> Result<Sealed> {
        message_id::check(id)?;
        let nonce = Nonce::Long(suite::random()?);
        self.seal_as(id.to_owned(), nonce, plaintext, Moment::current())
    }

    /// Forgets the session key: the next message starts a new one.
    pub fn rotate(&self) {
        self.session.with(std::process::id(), |_| (), |session| *session = None);
    }

    fn seal_new_at(&self, plaintext: &[u8], moment: Moment) -> Result<Sealed> {
        // One call to the system for both: it costs more than the cipher does
        // for a short message.
        let random: [u8; NONCE_LEN + 16] = suite::random()?;
        let (nonce, id) = random.split_at(NONCE_LEN);
        let nonce = Nonce::new(nonce).expect("split at the length of a nonce");
        let id = message_id::from_random(id.try_into().expect("16 bytes are left"));
        self.seal_as(id, nonce, plaintext, moment)
    }

    fn seal_as(&self, id: String, nonce: Nonce, plaintext: &[u8], moment: Moment) -> Result<Sealed> {
        let wrapped_len = base64::encoded_len(self.key.suite_1_len().ok_or(Error::key(NO_SUITE))?);
        envelope::check_len(envelope::written_len(id.len(), wrapped_len, plaintext.len()))?;
        let secret = self.session_for(plaintext.len() as u64, moment)?;
        let mut text = plaintext.to_vec();
        let tag = secret.cipher.encrypt(&nonce, &mut text)?;
        let envelope = envelope::write(&id, &secret.wrapped, &nonce, &tag, &text);
        Ok(Sealed { message_id: id, envelope })
    }

    /// A session key with room for a message of `bytes`.
    fn session_for(&self, bytes: u64, moment: Moment) -> Result<Arc<SessionSecret>> {
        let SessionPolicy::Reuse { messages, lifetime, bytes: bytes_max } = self.policy else {
            return SessionSecret::new(&self.key);
        };
        let forget = |session: &mut Option<Session>| *session = None;
        let kept = self
            .session
            .with(moment.pid, forget, |session| session.as_mut().and_then(|session| session.take(bytes, moment.now)));
        if let Some(secret) = kept.flatten() {
            return Ok(secret);
        }
        // Wrapped outside the lock. Threads that come here together each make
        // a session; the last one stays.
        let secret = SessionSecret::new(&self.key)?;
        let session = Session {
            secret: Arc::clone(&secret),
            messages_left: messages - 1,
            bytes_left: bytes_max.saturating_sub(bytes),
            expires: moment.now.checked_add(lifetime),
        };
        self.session.with(moment.pid, forget, |kept| *kept = Some(session));
        Ok(secret)
    }
}

const NO_SUITE: &str = "suite 1 takes RSA keys only";

impl Session {
    /// Counts a message of `bytes`, if there is room for it.
    fn take(&mut self, bytes: u64, now: Instant) -> Option<Arc<SessionSecret>> {
        let is_live = self.expires.is_none_or(|expires| now < expires);
        if !is_live || self.messages_left == 0 || self.bytes_left < bytes {
            return None;
        }
        self.messages_left -= 1;
        self.bytes_left -= bytes;
        Some(Arc::clone(&self.secret))
    }
}

impl SessionSecret {
    fn new(key: &PublicInner) -> Result<Arc<Self>> {
        let session_key = Zeroizing::new(suite::random::<SESSION_KEY_LEN>()?);
        let PublicMaterial::Rsa(rsa) = &key.material else { return Err(Error::key(NO_SUITE)) };
        let mut wrapped = Vec::new();
        base64::append(&mut wrapped, &suite::wrap(rsa, &session_key[..])?);
        Ok(Arc::new(Self {
            cipher: SessionCipher::new(&session_key[..]).expect("16 bytes are a key of AES-128"),
            wrapped: String::from_utf8(wrapped).expect("base64 is ASCII"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::envelope::Envelope;
    use crate::crypto::{PrivateKey, open};

    const KIB: &[u8] = &[b'k'; 1024];

    fn key() -> PrivateKey {
        PrivateKey::generate(2048).unwrap()
    }

    fn reuse(messages: u64, secs: u64, bytes: u64) -> SessionPolicy {
        SessionPolicy::Reuse { messages, lifetime: Duration::from_secs(secs), bytes }
    }

    /// The wrapped session keys of messages sealed at the given seconds.
    fn sessions(sealer: &Sealer, start: Moment, seconds: &[u64]) -> Vec<Vec<u8>> {
        let seal = |second: &u64| {
            let moment = Moment { now: start.now + Duration::from_secs(*second), ..start };
            let sealed = sealer.seal_new_at(KIB, moment).unwrap();
            Envelope::parse(&sealed.envelope).unwrap().decode().unwrap().wrapped
        };
        seconds.iter().map(seal).collect()
    }

    /// How many messages in a row have the same session key.
    fn runs(sessions: &[Vec<u8>]) -> Vec<usize> {
        sessions.chunk_by(|a, b| a == b).map(<[_]>::len).collect()
    }

    #[test]
    fn a_session_key_ends_with_its_messages_its_time_and_its_bytes() {
        let key = key();
        let runs_with = |policy, seconds: &[u64]| {
            let sealer = Sealer::new(&key.public_key(), policy).unwrap();
            runs(&sessions(&sealer, Moment::current(), seconds))
        };
        assert_eq!(runs_with(reuse(3, 60, 1 << 30), &[0; 8]), [3, 3, 2]);
        assert_eq!(runs_with(reuse(100, 60, 1 << 30), &[0, 59, 60, 119, 120]), [2, 2, 1]);
        assert_eq!(runs_with(reuse(100, 60, 2500), &[0; 5]), [2, 2, 1]);
        assert_eq!(runs_with(reuse(100, 60, 10), &[0; 3]), [1, 1, 1]);
        assert_eq!(runs_with(reuse(1, 60, 1 << 30), &[0; 3]), [1, 1, 1]);
        assert_eq!(runs_with(SessionPolicy::PerMessage, &[0; 3]), [1, 1, 1]);
    }

    #[test]
    fn the_default_is_a_thousand_messages() {
        let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
        assert_eq!(runs(&sessions(&sealer, Moment::current(), &[0; 2001])), [1000, 1000, 1]);
    }

    #[test]
    fn limits_over_the_hard_ones_are_refused() {
        let key = key().public_key();
        let over = [reuse(0, 1, 1), reuse(SESSION_MESSAGES_MAX + 1, 1, 1), reuse(1, 1, 0)];
        for policy in over.into_iter().chain([reuse(1, 1, SESSION_BYTES_MAX + 1)]) {
            let error = Sealer::new(&key, policy).err().unwrap();
            assert!(matches!(error.kind(), ErrorKind::Option { .. }), "{policy:?}");
        }
        assert!(Sealer::new(&key, reuse(SESSION_MESSAGES_MAX, u64::MAX, SESSION_BYTES_MAX)).is_ok());
    }

    #[test]
    fn a_forked_child_starts_its_own_session() {
        let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
        let parent = Moment::current();
        let child = Moment { pid: parent.pid + 1, ..parent };
        let before = sessions(&sealer, parent, &[0, 0]);
        let after = sessions(&sealer, child, &[0, 0]);
        assert_eq!((runs(&before), runs(&after)), (vec![2], vec![2]));
        assert_ne!(before[0], after[0]);
    }

    #[test]
    fn rotate_starts_a_new_session() {
        let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
        let before = sessions(&sealer, Moment::current(), &[0]);
        sealer.rotate();
        assert_ne!(before, sessions(&sealer, Moment::current(), &[0]));
    }

    #[test]
    fn no_two_messages_share_a_nonce_or_an_id() {
        let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
        let (mut nonces, mut ids) = (std::collections::HashSet::new(), std::collections::HashSet::new());
        for _ in 0..5000 {
            let sealed = sealer.seal(b"").unwrap();
            let nonce = Envelope::parse(&sealed.envelope).unwrap().decode().unwrap().nonce;
            assert!(nonces.insert(nonce.as_bytes().to_vec()), "a nonce came twice");
            assert!(ids.insert(sealed.message_id), "an id came twice");
        }
    }

    /// Each thread gets sessions that keep the limit, and none waits for ever.
    #[test]
    fn threads_share_a_session_within_its_limits() {
        let key = key();
        let sealer = Sealer::new(&key.public_key(), reuse(10, 60, 1 << 30)).unwrap();
        let seal = || (0..100).map(|_| sealer.seal(KIB).unwrap().envelope).collect::<Vec<_>>();
        let envelopes: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut uses = std::collections::HashMap::new();
        for envelope in &envelopes {
            *uses.entry(Envelope::parse(envelope).unwrap().decode().unwrap().wrapped).or_insert(0) += 1;
            assert_eq!(open(envelope, &key).unwrap().plaintext, KIB);
        }
        assert!(uses.values().all(|uses| *uses <= 10));
        assert!(uses.len() < 400, "no session was shared");
    }

    #[test]
    fn the_one_call_form_reuses_the_session_of_its_key() {
        let key = key();
        let wrapped = |envelope: String| Envelope::parse(&envelope).unwrap().decode().unwrap().wrapped;
        let public = key.public_key();
        let first = wrapped(seal(KIB, &public, None).unwrap());
        assert_eq!(first, wrapped(seal(KIB, &public.clone(), Some("m-1")).unwrap()));
        assert_eq!(first, wrapped(seal(KIB, &key.public_key(), None).unwrap()));
    }

    #[test]
    fn a_text_too_long_for_an_envelope_is_refused_before_any_work() {
        let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
        let error = sealer.seal(&vec![0; 50 << 20]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
    }

    #[test]
    fn bad_ids_are_refused() {
        let key = key().public_key();
        for id in ["", "a b", "a\"b", "a\n"] {
            let error = seal(b"text", &key, Some(id)).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::MessageId { .. }));
        }
    }
}
