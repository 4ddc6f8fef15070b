//! One session key for many messages, within limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::process::{Moment, PerProcess, Pid};
use super::suite::random;
use crate::error::{ErrorKind, Result};

/// Most messages under one session key, whatever the policy says.
pub const SESSION_MESSAGES_MAX: u64 = 1 << 20;
/// Most bytes of plaintext under one session key, whatever the policy says.
pub const SESSION_BYTES_MAX: u64 = 1 << 36;

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
    pub(super) fn check(self) -> Result<()> {
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

/// The session key in use, shared between threads and not across a `fork`.
///
/// It has neither `Clone` nor a way out: what is given is counted.
pub(super) struct Sessions<Secret> {
    policy: SessionPolicy,
    current: PerProcess<Current<Secret>>,
}

/// What there is in one process.
struct Current<Secret> {
    stream: Option<Stream>,
    session: Option<Session<Secret>>,
}

/// Numbers messages, over session keys that follow each other: so a receiver
/// misses the last ones of a session as well.
struct Stream {
    id: [u8; 16],
    next: u64,
}

/// A session key and what is left of it.
struct Session<Secret> {
    secret: Arc<Secret>,
    messages_left: u64,
    bytes_left: u64,
    expires: Option<Instant>,
}

/// A session key for one message.
pub(super) struct Turn<Secret> {
    pub(super) secret: Arc<Secret>,
    /// How many messages of the stream came before.
    pub(super) number: u64,
}

impl<Secret> Sessions<Secret> {
    pub(super) fn new(policy: SessionPolicy) -> Result<Self> {
        policy.check()?;
        Ok(Self { policy, current: PerProcess::new(Pid::Current, Current::default()) })
    }

    /// For how long a session key is used.
    pub(super) fn lifetime_ms(&self) -> u64 {
        match self.policy {
            SessionPolicy::Reuse { lifetime, .. } => u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX),
            SessionPolicy::PerMessage => 0,
        }
    }

    /// Forgets the session key: the next message starts a new one.
    pub(super) fn rotate(&self) {
        self.current.with(Pid::Current, Current::forget, |current| current.session = None);
    }

    /// The stream, for what has a key of its own.
    pub(super) fn stream(&self, moment: Moment) -> Result<[u8; 16]> {
        let stream = self.current.with(moment.pid, Current::forget, Current::stream).transpose()?;
        // Without the state (its lock was held across a fork) each message is a stream of its own.
        stream.map_or_else(random, Ok)
    }

    /// The next number of the stream.
    pub(super) fn number(&self, moment: Moment) -> u64 {
        self.current.with(moment.pid, Current::forget, Current::number).unwrap_or(0)
    }

    /// A session key with room for a message of `bytes`; `make` makes a new one
    /// for a stream.
    pub(super) fn turn(
        &self,
        bytes: u64,
        moment: Moment,
        make: impl FnOnce(&[u8; 16]) -> Result<Secret>,
    ) -> Result<Turn<Secret>> {
        let kept = self.current.with(moment.pid, Current::forget, |current| current.take(bytes, moment.now));
        if let Some(turn) = kept.flatten() {
            return Ok(turn);
        }
        let stream = self.stream(moment)?;
        // Made outside the lock. Threads that come here together each make a
        // session; the last one stays.
        let secret = Arc::new(make(&stream)?);
        let session = self.begin(Arc::clone(&secret), bytes, moment.now);
        let number = self.current.with(moment.pid, Current::forget, |current| current.begin(session));
        Ok(Turn { secret, number: number.unwrap_or(0) })
    }

    /// The session after its first message; none if it has only one.
    fn begin(&self, secret: Arc<Secret>, bytes: u64, now: Instant) -> Option<Session<Secret>> {
        let SessionPolicy::Reuse { messages, lifetime, bytes: bytes_max } = self.policy else { return None };
        let (messages_left, bytes_left) = (messages - 1, bytes_max.saturating_sub(bytes));
        Some(Session { secret, messages_left, bytes_left, expires: now.checked_add(lifetime) })
    }
}

impl<Secret> Current<Secret> {
    /// A child of a fork has streams of its own.
    fn forget(&mut self) {
        *self = Self::default();
    }

    fn stream(&mut self) -> Result<[u8; 16]> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => Stream { id: random()?, next: 0 },
        };
        Ok(self.stream.insert(stream).id)
    }

    fn take(&mut self, bytes: u64, now: Instant) -> Option<Turn<Secret>> {
        let secret = self.session.as_mut()?.take(bytes, now)?;
        Some(Turn { secret, number: self.number() })
    }

    fn begin(&mut self, session: Option<Session<Secret>>) -> u64 {
        if session.is_some() {
            self.session = session;
        }
        self.number()
    }

    fn number(&mut self) -> u64 {
        self.stream.as_mut().map_or(0, |stream| {
            stream.next += 1;
            stream.next - 1
        })
    }
}

impl<Secret> Default for Current<Secret> {
    fn default() -> Self {
        Self { stream: None, session: None }
    }
}

impl<Secret> Session<Secret> {
    /// Counts a message of `bytes`, if there is room for it.
    fn take(&mut self, bytes: u64, now: Instant) -> Option<Arc<Secret>> {
        let is_live = self.expires.is_none_or(|expires| now < expires);
        if !is_live || self.messages_left == 0 || self.bytes_left < bytes {
            return None;
        }
        self.messages_left -= 1;
        self.bytes_left -= bytes;
        Some(Arc::clone(&self.secret))
    }
}
