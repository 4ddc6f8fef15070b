mod carry;
mod commit;
mod recover;
mod topology;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ciphermq_journal::Doorbell;

use crate::budget::Budget;
use crate::dedupe::{Dedupe, IdHash};
use crate::directory::Directory;
use crate::exchange::Route;
use crate::history::History;
use crate::model::ExchangeId;
use crate::queue::Queue;
use crate::registry::Registry;
use crate::stats::Stats;
use crate::timers::Timers;
use crate::{BrokerOptions, Error, Timestamp, limits};

pub(crate) use commit::Committer;

/// Everything the broker knows. Derived: committing the journal's records in order makes it again.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: BrokerOptions,
    pub(crate) registry: Registry,
    pub(crate) stats: Arc<Stats>,
    pub(crate) timers: Arc<Timers>,
    pub(crate) budget: Arc<Budget>,
    dedupe: Mutex<Dedupe>,
    history: Mutex<History>,
    directory: Mutex<Directory>,
    /// Reserved and stored bytes, summed over queues.
    store_bytes: AtomicU64,
    /// What ids are hashed with: the log's, if there is one.
    hash_key: OnceLock<u128>,
    /// Whether the journal can be read again: then it has to be told more.
    is_logged: bool,
}

impl State {
    /// The state behind a journal that ends with the process.
    pub(crate) fn new(options: BrokerOptions) -> State {
        let state = State::with_budget(options, Budget::unlimited(), false);
        state.hash_key.get_or_init(|| state.options.hash_key);
        state
    }

    /// The state behind a journal that is going to tell what it has.
    pub(crate) fn logged(options: BrokerOptions) -> State {
        let budget = Budget::new(options.resident_bytes_max);
        State::with_budget(options, budget, true)
    }

    fn with_budget(options: BrokerOptions, budget: Budget, is_logged: bool) -> State {
        State {
            registry: Registry::default(),
            stats: Arc::new(Stats::default()),
            timers: Arc::new(Timers::new(Arc::new(Doorbell::new()))),
            budget: Arc::new(budget),
            dedupe: Mutex::new(Dedupe::new(&options)),
            history: Mutex::new(History::new()),
            directory: Mutex::default(),
            store_bytes: AtomicU64::new(0),
            hash_key: OnceLock::new(),
            is_logged,
            options,
        }
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.is_logged
    }

    pub(crate) fn route(&self, exchange: &str, key: &str) -> Result<Arc<Route>, Error> {
        let found = self.registry.exchange(exchange).ok_or_else(|| Error::NoExchange(exchange.to_owned()))?;
        found.route(key).ok_or_else(|| Error::NoRoute { exchange: exchange.to_owned(), key: key.to_owned() })
    }

    /// Takes room for a message in every queue of its route, or in none.
    pub(crate) fn reserve(&self, route: &Route, bytes: u64) -> Result<(), Error> {
        let total = in_store(route.queues.len() as u64, bytes.saturating_mul(route.queues.len() as u64));
        if self.store_bytes.fetch_add(total, Ordering::Relaxed).saturating_add(total) > self.options.store_bytes_max {
            self.store_bytes.fetch_sub(total, Ordering::Relaxed);
            return Err(Error::StoreFull);
        }
        for (index, queue) in route.queues.iter().enumerate() {
            if !queue.reserve(bytes) {
                route.queues[..index].iter().for_each(|reserved| reserved.unreserve(bytes));
                self.store_bytes.fetch_sub(total, Ordering::Relaxed);
                let name = queue.name().to_owned();
                // Deleted after the route was looked up: an ACK would promise a message that is nowhere.
                return Err(if queue.is_closed() { Error::NoQueue(name) } else { Error::QueueFull(name) });
            }
        }
        Ok(())
    }

    /// Gives back what `reserve` took.
    pub(crate) fn unreserve(&self, route: &Route, bytes: u64) {
        route.queues.iter().for_each(|queue| self.unreserve_in(queue, bytes));
    }

    fn unreserve_in(&self, queue: &Queue, bytes: u64) {
        queue.unreserve(bytes);
        self.count_removed(1, bytes);
    }

    /// Messages with this much text are stored from now on.
    fn count_stored(&self, messages: u64, text_bytes: u64) {
        self.store_bytes.fetch_add(in_store(messages, text_bytes), Ordering::Relaxed);
    }

    /// Messages with this much text are not stored any more.
    fn count_removed(&self, messages: u64, text_bytes: u64) {
        self.store_bytes.fetch_sub(in_store(messages, text_bytes), Ordering::Relaxed);
    }

    pub(crate) fn store_bytes(&self) -> u64 {
        self.store_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn hash(&self, id: &str) -> IdHash {
        IdHash::new(self.hash_key(), id)
    }

    fn hash_key(&self) -> u128 {
        self.hash_key.get().copied().unwrap_or(self.options.hash_key)
    }

    /// Whether this id was published to this exchange within the window. Counted as a duplicate if so.
    pub(crate) fn is_known(&self, hash: IdHash, exchange: ExchangeId, now: Timestamp) -> bool {
        let mut dedupe = self.dedupe();
        dedupe.expire(now);
        let known = dedupe.knows(hash, exchange);
        self.stats.duplicates.fetch_add(u64::from(known), Ordering::Relaxed);
        known
    }

    pub(crate) fn dedupe(&self) -> MutexGuard<'_, Dedupe> {
        self.dedupe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What messages with texts of this many bytes count for against the store's limit.
fn in_store(messages: u64, text_bytes: u64) -> u64 {
    text_bytes.saturating_add(messages.saturating_mul(limits::MESSAGE_OVERHEAD_BYTES))
}

#[cfg(test)]
mod tests;
