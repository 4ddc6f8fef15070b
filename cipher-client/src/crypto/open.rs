//! Opening: the costly unwrap once a session key, and one answer for every failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::envelope::{Envelope, Parts};
use super::keys::{PrivateInner, PrivateKey, PrivateMaterial};
use super::process::{Moment, PerProcess};
use super::suite::{self, SessionCipher};
use super::unwrap_cache::UnwrapCache;
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
        for key in self.keys.iter().filter(|key| key.suite_1_len() == Some(wrapped.len())) {
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
        let lookup = |cache: &mut UnwrapCache| {
            let name = cache.name(key.fingerprint(), wrapped);
            match cache.find(&name, moment.now) {
                Some(cipher) => Ok((name, Some(cipher))),
                None if cache.may_unwrap(moment.now) => Ok((name, None)),
                None => Err(Error::new(ErrorKind::Throttled)),
            }
        };
        // Without the cache (its lock was held across a fork) each message is unwrapped.
        let name = match self.cache.with(moment.pid, |_| (), lookup).transpose()? {
            Some((_, Some(cipher))) => return Ok(SessionKey::Kept(cipher)),
            Some((name, None)) => Some(name),
            None => None,
        };
        let PrivateMaterial::Rsa(rsa) = &key.material else { return Err(ErrorKind::Decrypt.into()) };
        let cipher = Arc::new(suite::unwrap(rsa, wrapped)?);
        self.unwraps.fetch_add(1, Ordering::Relaxed);
        if let Some(name) = name {
            let keep = Arc::clone(&cipher);
            self.cache.with(moment.pid, |_| (), |cache| cache.keep(name, keep, moment.now));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Sealer, SessionPolicy, base64};

    const TEXT: &[u8] = b"the goods are on the dock";

    fn key() -> PrivateKey {
        PrivateKey::generate(2048).unwrap()
    }

    fn seal(key: &PrivateKey) -> String {
        Sealer::new(&key.public_key(), SessionPolicy::PerMessage).unwrap().seal(TEXT).unwrap().envelope
    }

    /// An envelope whose session key does not unwrap; each `n` has another.
    fn forged(n: u8) -> String {
        let mut block = Vec::new();
        base64::append(&mut block, &[n; 256]);
        let block = String::from_utf8(block).unwrap();
        crate::crypto::envelope::write("m", &block, &suite::Nonce::Long([0; 16]), &[0; 16], b"x")
    }

    fn small(failures: u32) -> OpenPolicy {
        OpenPolicy { cached_keys: 4, cached_for: Duration::from_secs(100), failures, ..OpenPolicy::default() }
    }

    fn later(moment: Moment, secs: u64) -> Moment {
        Moment { now: moment.now + Duration::from_secs(secs), ..moment }
    }

    fn kind(outcome: Result<Opened>) -> ErrorKind {
        outcome.unwrap_err().kind().clone()
    }

    #[test]
    fn a_session_key_is_unwrapped_once_until_its_time_is_over() {
        let (key, start) = (key(), Moment::current());
        let sealer = Sealer::new(&key.public_key(), SessionPolicy::default()).unwrap();
        let opener = Opener::build(&[&key], small(64), start);
        let open = |secs| {
            let opened = opener.open_at(&sealer.seal(TEXT).unwrap().envelope, later(start, secs)).unwrap();
            assert_eq!(opened.plaintext, TEXT);
            opener.stats().unwraps
        };
        assert_eq!([open(0), open(1), open(99)], [1, 1, 1]);
        assert_eq!([open(100), open(150)], [2, 2]);
        opener.forget();
        assert_eq!(open(150), 3);
    }

    #[test]
    fn the_key_unused_longest_makes_room() {
        let (key, start) = (key(), Moment::current());
        let opener = Opener::build(&[&key], small(64), start);
        let envelopes: Vec<_> = (0..5).map(|_| seal(&key)).collect();
        let mut unwraps = |n: usize| {
            opener.open_at(&envelopes[n], start).unwrap();
            opener.stats().unwraps
        };
        assert_eq!([0, 1, 2, 3, 0].map(&mut unwraps), [1, 2, 3, 4, 4]);
        assert_eq!(unwraps(4), 5, "takes the place of 1");
        assert_eq!([0, 2, 3, 4].map(&mut unwraps), [5, 5, 5, 5]);
        assert_eq!(unwraps(1), 6);
    }

    #[test]
    fn a_failed_unwrap_is_not_tried_again() {
        let (key, start) = (key(), Moment::current());
        let opener = Opener::build(&[&key], small(64), start);
        for _ in 0..200 {
            assert_eq!(kind(opener.open_at(&forged(1), start)), ErrorKind::Decrypt);
        }
        assert_eq!(opener.stats(), OpenerStats { failed: 200, unwraps: 1, ..OpenerStats::default() });
    }

    #[test]
    fn failures_use_up_the_budget_and_time_restores_it() {
        let (key, start) = (key(), Moment::current());
        let opener = Opener::build(&[&key], small(3), start);
        let good = seal(&key);
        for n in 0..3 {
            assert_eq!(kind(opener.open_at(&forged(n), start)), ErrorKind::Decrypt);
        }
        assert_eq!(kind(opener.open_at(&forged(3), start)), ErrorKind::Throttled);
        assert_eq!(kind(opener.open_at(&good, start)), ErrorKind::Throttled);
        assert_eq!(opener.stats().unwraps, 3, "refused without an unwrap");
        let one_second = later(start, 1);
        assert_eq!(opener.open_at(&good, one_second).unwrap().plaintext, TEXT);
        assert_eq!(kind(opener.open_at(&forged(4), one_second)), ErrorKind::Decrypt);
        assert_eq!(kind(opener.open_at(&forged(5), one_second)), ErrorKind::Throttled);
        assert_eq!(opener.open_at(&good, one_second).unwrap().plaintext, TEXT, "known keys go on");
        for n in 6..9 {
            assert_eq!(kind(opener.open_at(&forged(n), later(start, 60))), ErrorKind::Decrypt);
        }
        assert_eq!(
            kind(opener.open_at(&forged(9), later(start, 60))),
            ErrorKind::Throttled,
            "no more than 3 are saved up"
        );
    }

    #[test]
    fn messages_that_open_cost_no_budget() {
        let (key, start) = (key(), Moment::current());
        let opener = Opener::build(&[&key], small(1), start);
        for _ in 0..5 {
            opener.open_at(&seal(&key), start).unwrap();
        }
        assert_eq!(opener.stats(), OpenerStats { opened: 5, unwraps: 5, ..OpenerStats::default() });
    }

    /// A message altered under a session key not seen before costs an unwrap as
    /// well, so it counts as a failure.
    #[test]
    fn a_bad_tag_after_an_unwrap_costs_budget() {
        let (key, start) = (key(), Moment::current());
        let opener = Opener::build(&[&key], small(1), start);
        let bad = seal(&key).replace(r#""ciphertext":""#, r#""ciphertext":"AAAA"#);
        assert_eq!(kind(opener.open_at(&bad, start)), ErrorKind::Decrypt);
        assert_eq!(kind(opener.open_at(&seal(&key), start)), ErrorKind::Throttled);
    }

    #[test]
    fn several_keys_open_what_was_sealed_to_any_of_them() {
        let (old, new, start) = (key(), key(), Moment::current());
        let opener = Opener::build(&[&new, &old], small(1), start);
        for _ in 0..2 {
            for key in [&old, &new] {
                assert_eq!(opener.open_at(&seal(key), start).unwrap().plaintext, TEXT);
            }
        }
        assert_eq!(kind(opener.open_at(&forged(0), start)), ErrorKind::Decrypt, "an old key is no failure");
    }

    #[test]
    fn a_forked_child_goes_on_with_the_keys_it_knows() {
        let (key, start) = (key(), Moment::current());
        let opener = Opener::build(&[&key], small(1), start);
        let envelope = seal(&key);
        opener.open_at(&envelope, start).unwrap();
        opener.open_at(&envelope, Moment { pid: start.pid + 1, ..start }).unwrap();
        assert_eq!(opener.stats().unwraps, 1);
    }

    #[test]
    fn uniqueness_is_nonce_and_tag() {
        let key = key();
        let one = open(&seal(&key), &key).unwrap();
        let other = open(&seal(&key), &key).unwrap();
        assert_ne!(one.uniqueness, other.uniqueness);
        let parts =
            Parts { wrapped: Vec::new(), nonce: suite::Nonce::Short([1; 12]), tag: [2; 16], ciphertext: Vec::new() };
        let expected = [&[1; 12][..], &[0; 4], &[2; 16]].concat();
        assert_eq!(uniqueness(&parts)[..], expected);
    }

    #[test]
    fn limits_outside_their_range_are_refused() {
        let key = key();
        let policies = [
            OpenPolicy { cached_keys: 0, ..OpenPolicy::default() },
            OpenPolicy { cached_keys: CACHED_KEYS_MAX + 1, ..OpenPolicy::default() },
            OpenPolicy { failures: 0, ..OpenPolicy::default() },
        ];
        for policy in policies {
            assert!(matches!(Opener::new(&key, policy).err().unwrap().kind(), ErrorKind::Option { .. }));
        }
        for keys in [vec![], vec![&key; KEYS_MAX + 1]] {
            let error = Opener::with_keys(&keys, OpenPolicy::default()).err().unwrap();
            assert!(matches!(error.kind(), ErrorKind::Option { option: "keys", .. }));
        }
    }
}
