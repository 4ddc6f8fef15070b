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
use crate::error::{ErrorKind, Result};

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
        let wrapped_len = base64::encoded_len(self.key.wrapped_len());
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
        let PublicMaterial::Rsa(rsa) = &key.material;
        let mut wrapped = Vec::new();
        base64::append(&mut wrapped, &suite::wrap(rsa, &session_key[..])?);
        Ok(Arc::new(Self {
            cipher: SessionCipher::new(&session_key[..]).expect("16 bytes are a key of AES-128"),
            wrapped: String::from_utf8(wrapped).expect("base64 is ASCII"),
        }))
    }
}
