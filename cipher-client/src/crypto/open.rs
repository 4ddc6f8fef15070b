//! Opening: the costly unwrap once a session key, and one answer for every failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::envelope::{Envelope, Parts};
use super::keys::{PrivateInner, PrivateKey, PrivateMaterial};
use super::process::{Moment, PerProcess};
use super::suite::{self, SessionCipher};
use super::unwrap_cache::{UnwrapCache, cache_key};
use crate::error::{Error, ErrorKind, Result};

/// Opens an envelope sealed to `key`. Calls with the same key share an
/// [`Opener`] with [`OpenPolicy::default`].
///
/// # Errors
///
/// As [`Opener::open`].
pub fn open(envelope: &str, key: &PrivateKey) -> Result<Opened> {
    let opener = match key.opener.get() {
        Some(opener) => opener,
        None => {
            let opener = Opener::new(key, OpenPolicy::default())?;
            key.opener.get_or_init(|| opener)
        }
    };
    opener.open(envelope)
}

/// The bounds of an [`Opener`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenPolicy {
    /// Unwrapped session keys kept; the one unused longest goes first. 1,024.
    pub cached_keys: usize,
    /// How long one is kept after its unwrapping. 10 minutes.
    pub cached_for: Duration,
    /// Openings that may fail after an unwrap before further unwraps are
    /// refused with [`ErrorKind::Throttled`]. 64.
    pub failures: u32,
    /// Time in which one of the `failures` is forgiven. 1 second.
    pub failure_forgiven_after: Duration,
}

impl Default for OpenPolicy {
    fn default() -> Self {
        Self {
            cached_keys: 1024,
            cached_for: Duration::from_secs(600),
            failures: 64,
            failure_forgiven_after: Duration::from_secs(1),
        }
    }
}

impl OpenPolicy {
    fn check(self) -> Result<()> {
        if !(1..=CACHED_KEYS_MAX).contains(&self.cached_keys) {
            let reason = "1 to 65536";
            return Err(ErrorKind::Option { option: "cached_keys", reason }.into());
        }
        if self.failures == 0 {
            let reason = "at least 1";
            return Err(ErrorKind::Option { option: "failures", reason }.into());
        }
        Ok(())
    }
}

/// Largest `cached_keys`: a kept key takes about 2 KiB.
const CACHED_KEYS_MAX: usize = 1 << 16;

/// An opened message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The id in the envelope. Suite 1 does not authenticate it: whoever
    /// carries the envelope can change it.
    pub message_id: String,
    /// What was sealed.
    pub plaintext: Vec<u8>,
    /// Nonce and tag, which no two sealings share: tells a repetition even
    /// under another id. A 12-byte nonce is followed by four zeros.
    pub uniqueness: [u8; 32],
}

/// What an [`Opener`] has done so far.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenerStats {
    /// Messages opened.
    pub opened: u64,
    /// Messages that did not open.
    pub failed: u64,
    /// Messages refused as [`ErrorKind::Throttled`].
    pub throttled: u64,
    /// Session keys unwrapped, the costly step.
    pub unwraps: u64,
}

/// Opens messages with one or several private keys. To be kept and shared
/// between threads.
pub struct Opener {
    keys: Vec<Arc<PrivateInner>>,
    cache: PerProcess<UnwrapCache>,
    opened: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    unwraps: AtomicU64,
}

/// How a session key was come by.
enum SessionKey {
    Kept(Arc<SessionCipher>),
    Unwrapped(Arc<SessionCipher>),
}

impl Opener {
    /// An opener with one key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`], [`ErrorKind::Option`].
    pub fn new(key: &PrivateKey, policy: OpenPolicy) -> Result<Self> {
        Self::with_keys(&[key], policy)
    }

    /// An opener with several keys, tried in their order: the way to change
    /// keys while messages to the old one are still queued.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`], [`ErrorKind::Option`], also for no key or
    /// more than 16.
    pub fn with_keys(keys: &[&PrivateKey], policy: OpenPolicy) -> Result<Self> {
        policy.check()?;
        if !(1..=KEYS_MAX).contains(&keys.len()) {
            return Err(ErrorKind::Option { option: "keys", reason: "1 to 16" }.into());
        }
        keys.iter().try_for_each(|key| key.check_size())?;
        Ok(Self::build(keys, policy, Moment::current()))
    }

    fn build(keys: &[&PrivateKey], policy: OpenPolicy, moment: Moment) -> Self {
        Self {
            keys: keys.iter().map(|key| Arc::clone(&key.inner)).collect(),
            cache: PerProcess::new(moment.pid, UnwrapCache::new(policy, moment.now)),
            opened: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            unwraps: AtomicU64::new(0),
        }
    }

    /// Opens an envelope.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TooLarge`], [`ErrorKind::Malformed`], [`ErrorKind::Unsupported`]:
    ///   told from the text alone, no key was touched.
    /// - [`ErrorKind::Decrypt`]: every failure that has to do with a key, alike.
    /// - [`ErrorKind::Throttled`]: not tried, because of the failures of others.
    pub fn open(&self, envelope: &str) -> Result<Opened> {
        self.open_at(envelope, Moment::current())
    }

    /// Forgets every session key.
    pub fn forget(&self) {
        self.cache.with(std::process::id(), |_| (), UnwrapCache::clear);
    }

    /// Counts since the start.
    pub fn stats(&self) -> OpenerStats {
        OpenerStats {
            opened: self.opened.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            throttled: self.throttled.load(Ordering::Relaxed),
            unwraps: self.unwraps.load(Ordering::Relaxed),
        }
    }

    fn open_at(&self, envelope: &str, moment: Moment) -> Result<Opened> {
        let envelope = Envelope::parse(envelope)?;
        let parts = envelope.decode()?;
        let uniqueness = uniqueness(&parts);
        let outcome = self.decrypt(&envelope, parts, moment);
        let count = match &outcome {
            Ok(_) => &self.opened,
            Err(error) if *error.kind() == ErrorKind::Throttled => &self.throttled,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let message_id = envelope.message_id().to_owned();
        outcome.map(|plaintext| Opened { message_id, plaintext, uniqueness })
    }

    /// Tries the keys whose size fits.
    fn decrypt(&self, envelope: &Envelope<'_>, parts: Parts, moment: Moment) -> Result<Vec<u8>> {
        let Parts { wrapped, nonce, tag, ciphertext } = parts;
        let mut text = Some(ciphertext);
        let mut failure = ErrorKind::Decrypt;
        let mut unwrapped = false;
        for key in self.keys.iter().filter(|key| key.wrapped_len() == wrapped.len()) {
            let cipher = match self.session_key(key, &wrapped, moment) {
                Ok(SessionKey::Kept(cipher)) => cipher,
                Ok(SessionKey::Unwrapped(cipher)) => {
                    unwrapped = true;
                    cipher
                }
                Err(error) if *error.kind() == ErrorKind::Throttled => {
                    failure = ErrorKind::Throttled;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut text = match text.take() {
                Some(text) => text,
                None => envelope.ciphertext()?,
            };
            if cipher.decrypt(&nonce, &mut text, tag).is_ok() {
                return Ok(text);
            }
        }
        if unwrapped {
            self.cache.with(moment.pid, |_| (), |cache| cache.charge_failure(moment.now));
        }
        Err(failure.into())
    }

    /// The session key that `wrapped` holds for `key`, from the cache if it is there.
    fn session_key(&self, key: &PrivateInner, wrapped: &[u8], moment: Moment) -> Result<SessionKey> {
        let name = cache_key(key.fingerprint(), wrapped);
        let lookup = |cache: &mut UnwrapCache| match cache.find(&name, moment.now) {
            Some(cipher) => Ok(Some(cipher)),
            None if cache.may_unwrap(moment.now) => Ok(None),
            None => Err(Error::new(ErrorKind::Throttled)),
        };
        // Without the cache (its lock was held across a fork) each message is unwrapped.
        if let Some(cipher) = self.cache.with(moment.pid, |_| (), lookup).transpose()?.flatten() {
            return Ok(SessionKey::Kept(cipher));
        }
        let PrivateMaterial::Rsa(rsa) = &key.material;
        let cipher = Arc::new(suite::unwrap(rsa, wrapped)?);
        self.unwraps.fetch_add(1, Ordering::Relaxed);
        let keep = Arc::clone(&cipher);
        self.cache.with(moment.pid, |_| (), |cache| cache.keep(name, keep, moment.now));
        Ok(SessionKey::Unwrapped(cipher))
    }
}

/// Most keys of one opener: each message of another recipient costs an unwrap
/// with every one of them.
const KEYS_MAX: usize = 16;

fn uniqueness(parts: &Parts) -> [u8; 32] {
    let nonce = parts.nonce.as_bytes();
    let mut bytes = [0; 32];
    bytes[..nonce.len()].copy_from_slice(nonce);
    bytes[16..].copy_from_slice(&parts.tag);
    bytes
}
