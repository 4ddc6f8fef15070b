use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use hashbrown::HashMap;

use crate::exchange::Exchange;
use crate::model::{ExchangeId, QueueId};
use crate::queue::Queue;

/// Exchanges and queues by name and id.
///
/// A DashMap guard is a lock on a shard: here it lives for one expression, and only `Arc`s go out.
/// Only the committing thread changes the registry, so check-then-insert needs no lock of its own.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    exchanges: DashMap<Arc<str>, Arc<Exchange>>,
    exchanges_by_id: DashMap<ExchangeId, Arc<Exchange>>,
    queues: DashMap<Arc<str>, Arc<Queue>>,
    queues_by_id: DashMap<QueueId, Arc<Queue>>,
    /// Exchange and key of every binding of a queue, so that its deletion costs what it is bound to.
    bound: Mutex<Bound>,
    bindings: AtomicUsize,
    last_exchange: AtomicU32,
    last_queue: AtomicU32,
}

type Bound = HashMap<QueueId, BTreeSet<(Arc<str>, Box<str>)>>;

impl Registry {
    pub(crate) fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.exchanges.get(name).map(|exchange| Arc::clone(&exchange))
    }

    pub(crate) fn exchange_by_id(&self, id: ExchangeId) -> Option<Arc<Exchange>> {
        self.exchanges_by_id.get(&id).map(|exchange| Arc::clone(&exchange))
    }

    pub(crate) fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.get(name).map(|queue| Arc::clone(&queue))
    }

    pub(crate) fn queue_by_id(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.queues_by_id.get(&id).map(|queue| Arc::clone(&queue))
    }

    /// A number no queue ever had.
    pub(crate) fn next_queue_id(&self) -> QueueId {
        QueueId(self.last_queue.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A number no exchange ever had.
    pub(crate) fn next_exchange_id(&self) -> ExchangeId {
        ExchangeId(self.last_exchange.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The last numbers given.
    pub(crate) fn last_ids(&self) -> (QueueId, ExchangeId) {
        (QueueId(self.last_queue.load(Ordering::Relaxed)), ExchangeId(self.last_exchange.load(Ordering::Relaxed)))
    }

    /// These numbers and all before them were given.
    pub(crate) fn reserve_ids(&self, queue: QueueId, exchange: ExchangeId) {
        self.last_queue.fetch_max(queue.0, Ordering::Relaxed);
        self.last_exchange.fetch_max(exchange.0, Ordering::Relaxed);
    }

    pub(crate) fn insert_queue(&self, queue: &Arc<Queue>) {
        self.queues.insert(queue.shared_name(), Arc::clone(queue));
        self.queues_by_id.insert(queue.id(), Arc::clone(queue));
    }

    /// Removes the queue and its bindings.
    pub(crate) fn remove_queue(&self, queue: &Queue) {
        self.queues.remove(queue.name());
        self.queues_by_id.remove(&queue.id());
        let bound = self.bound().remove(&queue.id()).unwrap_or_default();
        for (exchange, key) in bound {
            if self.exchange(&exchange).is_some_and(|exchange| exchange.unbind(&key, queue)) {
                self.bindings.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn insert_exchange(&self, id: ExchangeId, name: &Arc<str>) {
        let exchange = Arc::new(Exchange::new(id, Arc::clone(name)));
        self.exchanges.insert(Arc::clone(name), Arc::clone(&exchange));
        self.exchanges_by_id.insert(id, exchange);
    }

    pub(crate) fn remove_exchange(&self, id: ExchangeId) {
        if let Some((_, exchange)) = self.exchanges_by_id.remove(&id) {
            self.exchanges.remove(exchange.name());
            let bindings = exchange.bindings();
            self.bindings.fetch_sub(bindings.len(), Ordering::Relaxed);
            for (key, queue) in bindings {
                self.forget_binding(&exchange, &queue, key);
            }
        }
    }

    pub(crate) fn bind(&self, exchange: ExchangeId, queue: QueueId, key: &str) {
        let (Some(exchange), Some(queue)) = (self.exchange_by_id(exchange), self.queue_by_id(queue)) else { return };
        if exchange.bind(key, &queue) {
            self.bound().entry(queue.id()).or_default().insert((Arc::clone(exchange.name()), Box::from(key)));
            self.bindings.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn unbind(&self, exchange: ExchangeId, queue: QueueId, key: &str) {
        let (Some(exchange), Some(queue)) = (self.exchange_by_id(exchange), self.queue_by_id(queue)) else { return };
        if exchange.unbind(key, &queue) {
            self.forget_binding(&exchange, &queue, Box::from(key));
            self.bindings.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn forget_binding(&self, exchange: &Exchange, queue: &Queue, key: Box<str>) {
        let mut bound = self.bound();
        let Some(bindings) = bound.get_mut(&queue.id()) else { return };
        bindings.remove(&(Arc::clone(exchange.name()), key));
        if bindings.is_empty() {
            bound.remove(&queue.id());
        }
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub(crate) fn exchange_count(&self) -> usize {
        self.exchanges.len()
    }

    pub(crate) fn binding_count(&self) -> usize {
        self.bindings.load(Ordering::Relaxed)
    }

    /// All queues, sorted by name: a map's own order must never show.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        let mut queues: Vec<_> = self.queues.iter().map(|queue| Arc::clone(&queue)).collect();
        queues.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        queues
    }

    /// All exchanges, sorted by name.
    pub(crate) fn exchanges(&self) -> Vec<Arc<Exchange>> {
        let mut exchanges: Vec<_> = self.exchanges.iter().map(|exchange| Arc::clone(&exchange)).collect();
        exchanges.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        exchanges
    }
}
