use std::sync::Arc;

use hashbrown::HashTable;

use crate::dedupe::IdHash;
use crate::event::Settled;
use crate::model::ExchangeId;
use crate::outbox::Delivery;
use crate::queue::{LeaseRef, Queue, Seen};
use crate::{ConnectionId, Timestamp};

/// The leases a connection was given, by message id.
///
/// The queue decides whether a lease is still good; this table only finds it. Leases that ran out stay here until
/// a prune, which is due each time the table has doubled.
#[derive(Debug)]
pub(crate) struct Leases {
    table: HashTable<Lease>,
    given: u64,
    prune_at: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) hash: IdHash,
    pub(crate) exchange: ExchangeId,
    pub(crate) published: Timestamp,
    pub(crate) queue: Arc<Queue>,
    pub(crate) which: LeaseRef,
    /// Leases of one connection in the order they were given.
    serial: u64,
}

/// Below this many entries pruning is not worth a pass.
const PRUNE_MIN: usize = 1024;

impl Leases {
    pub(crate) fn new() -> Leases {
        Leases { table: HashTable::new(), given: 0, prune_at: PRUNE_MIN }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn insert(&mut self, mut lease: Lease) {
        self.given += 1;
        lease.serial = self.given;
        // The same message again: its earlier lease has ended.
        if let Ok(entry) = self.table.find_entry(lease.hash.short(), |found| found.is_same_message(&lease)) {
            entry.remove();
        }
        self.table.insert_unique(lease.hash.short(), lease, |lease| lease.hash.short());
    }

    /// The lease on this id from `queue`, or the first one given.
    pub(crate) fn find(&self, hash: IdHash, queue: Option<&str>) -> Option<&Lease> {
        let same = self.table.iter_hash(hash.short()).filter(|lease| lease.hash == hash);
        match queue {
            Some(name) => same.filter(|lease| lease.queue.name() == name).min_by_key(|lease| lease.serial),
            None => same.min_by_key(|lease| lease.serial),
        }
    }

    pub(crate) fn remove(&mut self, lease: &Lease) {
        if let Ok(entry) = self.table.find_entry(lease.hash.short(), |found| found.serial == lease.serial) {
            entry.remove();
        }
    }

    /// Forgets leases that have ended, when it is time to.
    pub(crate) fn prune(&mut self, connection: ConnectionId) {
        if self.table.len() >= self.prune_at {
            self.prune_now(connection);
        }
    }

    /// Forgets leases that have ended; returns how many are left.
    pub(crate) fn prune_now(&mut self, connection: ConnectionId) -> usize {
        self.table.retain(|lease| lease.queue.holds(connection, lease.which));
        self.prune_at = (self.table.len() * 2).max(PRUNE_MIN);
        self.table.len()
    }
}

impl Lease {
    pub(crate) fn of(delivery: &Delivery, hash: IdHash) -> Lease {
        let (queue, message) = (Arc::clone(&delivery.queue), delivery.message());
        let (exchange, published) = (message.exchange_id(), message.published());
        Lease { hash, exchange, published, queue, which: delivery.which(), serial: 0 }
    }

    /// What the record of its end says.
    pub(crate) fn settled(&self, seen: Seen) -> Settled {
        let Lease { hash, exchange, published, .. } = *self;
        Settled { hash, exchange, published, delivered: seen.delivered, attempts: seen.attempts }
    }

    fn is_same_message(&self, other: &Lease) -> bool {
        self.which.order == other.which.order && Arc::ptr_eq(&self.queue, &other.queue)
    }
}
