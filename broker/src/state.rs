mod topology;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ciphermq_journal::{Commit, Doorbell, Position, Space};
use tracing::debug;

use crate::budget::Budget;
use crate::dedupe::{Dedupe, IdHash, Place};
use crate::event::{Event, Record};
use crate::exchange::Route;
use crate::history::{Acknowledged, History};
use crate::model::ExchangeId;
use crate::queue::{Held, Queue};
use crate::registry::Registry;
use crate::stats::Stats;
use crate::timers::Timers;
use crate::{BrokerOptions, Error, Message, QueueSettings, Reason, Timestamp, limits};

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
    /// Reserved and stored bytes, summed over queues.
    store_bytes: AtomicU64,
}

/// The journal's way into the state.
pub(crate) struct Committer(pub(crate) Arc<State>);

impl Commit<Record> for Committer {
    fn commit(&mut self, position: Position, record: Record, _: &mut Space) {
        self.0.commit(position, record);
    }

    fn refuse(&mut self, record: Record) {
        self.0.refuse(record);
    }
}

impl State {
    pub(crate) fn new(options: BrokerOptions) -> State {
        State {
            registry: Registry::default(),
            stats: Arc::new(Stats::default()),
            timers: Arc::new(Timers::new(Arc::new(Doorbell::new()))),
            budget: Arc::new(Budget::unlimited()),
            dedupe: Mutex::new(Dedupe::new(&options)),
            history: Mutex::new(History::new()),
            store_bytes: AtomicU64::new(0),
            options,
        }
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

    pub(crate) fn store_bytes(&self) -> u64 {
        self.store_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn hash(&self, id: &str) -> IdHash {
        IdHash::new(self.options.hash_key, id)
    }

    /// Whether this id was published to this exchange within the window. Counted as a duplicate if so.
    pub(crate) fn is_known(&self, hash: IdHash, exchange: ExchangeId) -> bool {
        let known = self.dedupe().knows(hash, exchange);
        self.stats.duplicates.fetch_add(u64::from(known), Ordering::Relaxed);
        known
    }

    pub(crate) fn dedupe(&self) -> MutexGuard<'_, Dedupe> {
        self.dedupe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one place where a committed record changes anything.
    pub(crate) fn commit(&self, position: Position, record: Record) {
        let now = record.at;
        match record.event {
            Event::Publish { message, hash, route } => self.commit_publish(position, message, hash, &route, now),
            Event::Settle { queue, position } => self.commit_settle(&queue, position, now),
            Event::Move { queue, position: from, to, reason } => {
                self.commit_move(position, &queue, from, &to, reason, now);
            }
            Event::Topology(change, verdict) => self.commit_topology(change, &verdict),
        }
    }

    /// The record will never be durable: what was set aside for it returns.
    pub(crate) fn refuse(&self, record: Record) {
        match record.event {
            Event::Publish { message, route, .. } => self.unreserve(&route, message.bytes()),
            Event::Settle { queue, position } | Event::Move { queue, position, .. } => {
                queue.restore(position, record.at);
            }
            Event::Topology(..) => {}
        }
    }

    fn commit_publish(&self, position: Position, message: Message, hash: IdHash, route: &Route, now: Timestamp) {
        let place = match route.queues.as_slice() {
            [queue] => Place::In(queue.id()),
            _ => Place::Anywhere,
        };
        if !self.dedupe().insert(hash, route.exchange, position, place, now) {
            self.stats.duplicates.fetch_add(1, Ordering::Relaxed);
            self.unreserve(route, message.bytes());
            return;
        }
        self.stats.published.fetch_add(1, Ordering::Relaxed);
        let message = message.with_origin(position, route.queues.len());
        for queue in &route.queues {
            if !queue.push(position, message.clone(), now) {
                self.unreserve_in(queue, message.bytes());
            }
        }
    }

    fn commit_settle(&self, queue: &Arc<Queue>, position: Position, now: Timestamp) {
        let Some(Held { message: Some(message), attempts, delivered, .. }) = queue.retire(position, now) else {
            return;
        };
        self.store_bytes.fetch_sub(in_store(1, message.bytes()), Ordering::Relaxed);
        let published = message.published();
        self.stats.count_ack(now.ms_since(published), now.ms_since(delivered.unwrap_or(now)));
        let exchange = self.registry.exchange_name(message.exchange_id());
        self.history().push(Acknowledged {
            hash: self.hash(message.id()),
            exchange: exchange.unwrap_or_else(|| Arc::from(message.exchange())),
            queue: queue.shared_name(),
            attempts,
            published,
            delivered,
            acknowledged: now,
        });
        debug!(queue = queue.name(), "Message {} acknowledged", message.id());
    }

    fn commit_move(
        &self,
        position: Position,
        from: &Arc<Queue>,
        moved: Position,
        to: &Arc<str>,
        reason: Reason,
        now: Timestamp,
    ) {
        let Some(Held { message: Some(message), .. }) = from.retire(moved, now) else { return };
        self.store_bytes.fetch_sub(in_store(1, message.bytes()), Ordering::Relaxed);
        let target = self
            .registry
            .queue(to)
            .unwrap_or_else(|| self.declare_queue(to, QueueSettings::dead_letter_queue(&self.options)));
        let dead = message.dead(from.name(), reason);
        // Already stored, so no limit can refuse it: it only changes its place.
        target.reserve_unchecked(dead.bytes());
        self.store_bytes.fetch_add(in_store(1, dead.bytes()), Ordering::Relaxed);
        self.dedupe().relocate(self.hash(message.id()), message.origin());
        self.stats.dead_lettered.fetch_add(1, Ordering::Relaxed);
        debug!(from = from.name(), to = &**to, reason = reason.as_str(), "Message {} dead-lettered", message.id());
        if !target.push(position, dead.clone(), now) {
            self.unreserve_in(&target, dead.bytes());
        }
    }

    fn unreserve_in(&self, queue: &Queue, bytes: u64) {
        queue.unreserve(bytes);
        self.store_bytes.fetch_sub(in_store(1, bytes), Ordering::Relaxed);
    }
}

/// What messages with texts of this many bytes count for against the store's limit.
fn in_store(messages: u64, text_bytes: u64) -> u64 {
    text_bytes.saturating_add(messages.saturating_mul(limits::MESSAGE_OVERHEAD_BYTES))
}
