//! Session keys out of their wraps: each once, from a cache, within a budget of
//! failures. For every suite alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::keys::PrivateInner;
use super::open::OpenPolicy;
use super::process::{Moment, PerProcess, Pid};
use super::signed::OpeningKey;
use super::suite2;
use super::unwrap_cache::{CacheKey, Purpose, UnwrapCache, cache_key};
use crate::error::{ErrorKind, Result};

/// What one opener has unwrapped.
pub(super) struct Unwrapper {
    cache: PerProcess<UnwrapCache>,
    unwraps: AtomicU64,
}

/// A session key of either suite.
#[derive(Clone)]
pub(super) enum Secret {
    One(Arc<OpeningKey>),
    Two(Arc<suite2::open::Secret>),
}

/// A wrap that was looked up.
pub(super) struct Found {
    /// Its name, which tells nothing of the key.
    pub(super) name: CacheKey,
    /// The session key, if it is known.
    pub(super) kept: Option<Secret>,
}

impl Unwrapper {
    pub(super) fn new(policy: OpenPolicy, moment: Moment) -> Self {
        let cache = PerProcess::new(moment.pid, UnwrapCache::new(policy, moment.now));
        Self { cache, unwraps: AtomicU64::new(0) }
    }

    /// The session key that `wrapped` holds for `key`, if it is known. If it is
    /// not, it may be unwrapped: when too much failed lately, this is an error.
    pub(super) fn find(&self, purpose: Purpose, key: &PrivateInner, wrapped: &[u8], moment: Moment) -> Result<Found> {
        let look = |cache: &mut UnwrapCache| {
            let name = cache.name(purpose, key.fingerprint(), wrapped);
            match cache.find(&name, moment.now) {
                None if !cache.may_unwrap(moment.now) => Err(ErrorKind::Throttled.into()),
                kept => Ok(Found { name, kept }),
            }
        };
        // Without the cache (its lock was held across a fork) each message is unwrapped.
        self.cache
            .share(moment.pid, look)
            .unwrap_or_else(|| Ok(Found { name: cache_key(purpose, key.fingerprint(), wrapped), kept: None }))
    }

    /// Keeps what was unwrapped, be it good or not.
    pub(super) fn keep(&self, name: CacheKey, secret: Secret, moment: Moment) {
        self.unwraps.fetch_add(1, Ordering::Relaxed);
        self.cache.share(moment.pid, |cache| cache.keep(name, secret, moment.now));
    }

    /// Notes that a message did not open after an unwrap.
    pub(super) fn charge_failure(&self, moment: Moment) {
        self.cache.share(moment.pid, |cache| cache.charge_failure(moment.now));
    }

    /// Forgets every session key.
    pub(super) fn forget(&self) {
        self.cache.share(Pid::Current, UnwrapCache::clear);
    }

    /// How many keys were unwrapped.
    pub(super) fn unwraps(&self) -> u64 {
        self.unwraps.load(Ordering::Relaxed)
    }
}
