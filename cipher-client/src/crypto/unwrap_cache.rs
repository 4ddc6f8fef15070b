//! Unwrapped session keys, bounded in number and time, and the budget of failures.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::open::OpenPolicy;
use super::unwrap::Secret;

/// Name of an entry: a hash, so that neither the other base64 forms of a key nor
/// long ones take room.
pub(super) type CacheKey = [u8; 32];

/// What a wrap is for, which keeps the names apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    One,
    Two,
}

impl Purpose {
    fn domain(self) -> &'static [u8] {
        match self {
            Self::One => b"cipher/unwrap/1",
            Self::Two => b"cipher/unwrap/2",
        }
    }
}

pub(super) fn cache_key(purpose: Purpose, fingerprint: &str, wrapped: &[u8]) -> CacheKey {
    let hash = Sha256::new().chain_update(purpose.domain()).chain_update(fingerprint).chain_update(wrapped);
    hash.finalize().into()
}

/// Keeps what was unwrapped. A block that did not unwrap is here as well, with
/// the random key it was given: asking again costs no unwrap and fails alike.
pub(super) struct UnwrapCache {
    policy: OpenPolicy,
    entries: HashMap<CacheKey, Entry>,
    recent: Recent,
    /// Counts uses, to know the one unused longest.
    uses: u64,
    swept: Instant,
    budget: Budget,
}

/// What was named last. Messages of one session come one after another, and
/// comparing costs a twentieth of hashing.
#[derive(Default)]
struct Recent {
    purpose: Option<Purpose>,
    fingerprint: String,
    wrapped: Vec<u8>,
    name: CacheKey,
}

struct Entry {
    secret: Secret,
    unwrapped: Instant,
    used: u64,
}

impl UnwrapCache {
    pub(super) fn new(policy: OpenPolicy, now: Instant) -> Self {
        let budget = Budget::new(policy.failures, policy.failure_forgiven_after, now);
        Self { policy, entries: HashMap::new(), recent: Recent::default(), uses: 0, swept: now, budget }
    }

    /// The name under which the session key in `wrapped` is kept.
    pub(super) fn name(&mut self, purpose: Purpose, fingerprint: &str, wrapped: &[u8]) -> CacheKey {
        let recent = &mut self.recent;
        let is_same = recent.wrapped == wrapped && recent.fingerprint == fingerprint;
        if !is_same || recent.purpose != Some(purpose) {
            recent.name = cache_key(purpose, fingerprint, wrapped);
            recent.purpose = Some(purpose);
            recent.wrapped.clear();
            recent.wrapped.extend_from_slice(wrapped);
            recent.fingerprint.clear();
            recent.fingerprint.push_str(fingerprint);
        }
        recent.name
    }

    /// The session key kept under `name`, if it is still good.
    pub(super) fn find(&mut self, name: &CacheKey, now: Instant) -> Option<Secret> {
        self.sweep(now);
        let lifetime = self.policy.cached_for;
        let entry = self.entries.get_mut(name).filter(|entry| entry.is_live(lifetime, now))?;
        self.uses += 1;
        entry.used = self.uses;
        Some(entry.secret.clone())
    }

    /// Keeps a session key; the one unused longest makes room for it.
    pub(super) fn keep(&mut self, name: CacheKey, secret: Secret, now: Instant) {
        if self.entries.len() >= self.policy.cached_keys && !self.entries.contains_key(&name) {
            self.evict();
        }
        self.uses += 1;
        self.entries.insert(name, Entry { secret, unwrapped: now, used: self.uses });
    }

    /// Forgets every key.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Whether the failures so far leave room for another unwrap.
    pub(super) fn may_unwrap(&mut self, now: Instant) -> bool {
        self.budget.is_left(now)
    }

    /// Notes that a message did not open after an unwrap.
    pub(super) fn charge_failure(&mut self, now: Instant) {
        self.budget.charge(now);
    }

    /// Looking through all costs microseconds and comes once an unwrap, which
    /// costs a millisecond and more.
    fn evict(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
        if let Some(name) = oldest.map(|(name, _)| *name) {
            self.entries.remove(&name);
        }
    }

    /// Wipes the keys that are past their time, once in that time.
    fn sweep(&mut self, now: Instant) {
        let lifetime = self.policy.cached_for;
        if now.saturating_duration_since(self.swept) >= lifetime {
            self.entries.retain(|_, entry| entry.is_live(lifetime, now));
            self.swept = now;
        }
    }
}

impl Entry {
    fn is_live(&self, lifetime: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.unwrapped) < lifetime
    }
}

/// How many failures are still allowed; comes back with time.
///
/// Guessing at RSA through success and failure takes a hundred thousand tries
/// and more; this leaves an attacker one a second.
struct Budget {
    left: u32,
    max: u32,
    refill: Duration,
    refilled: Instant,
}

impl Budget {
    fn new(max: u32, refill: Duration, now: Instant) -> Self {
        Self { left: max, max, refill, refilled: now }
    }

    fn is_left(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left > 0
    }

    fn charge(&mut self, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub(1);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let forgiven = match self.refill.as_nanos() {
            0 => u128::from(self.max),
            step => passed.as_nanos() / step,
        };
        let missing = self.max - self.left;
        if forgiven >= u128::from(missing) {
            self.left = self.max;
            self.refilled = now;
            return;
        }
        // Fewer than `missing`, so both fit.
        let forgiven = forgiven as u32;
        self.left += forgiven;
        self.refilled += self.refill * forgiven;
    }
}
