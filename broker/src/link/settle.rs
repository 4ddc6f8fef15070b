//! Ending leases.

use std::sync::Arc;

use super::Link;
use super::leases::Lease;
use crate::event::{Event, Record, Settled};
use crate::queue::{GiveBack, NoLease, Sighting};
use crate::shared::Stays;
use crate::snapshot::LiveCopy;
use crate::{Error, Reason, Timestamp};

/// How to end or extend a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// The message is done with.
    Ack,
    /// Back into the queue, after a delay, having used up an attempt.
    Nack {
        /// Milliseconds until it is ready; 0 is now.
        delay_ms: u64,
    },
    /// Back into the queue now, having used up none.
    Release,
    /// To the dead-letter queue.
    Reject(Reason),
    /// The lease starts anew.
    Touch {
        /// Its length in milliseconds; the queue's own if not given.
        lease_ms: Option<u64>,
    },
}

/// Why a lease did not end as it should.
#[derive(Clone, Copy, Debug)]
enum NotEnded {
    NoLease,
    /// The message is back in its queue.
    Stays(Stays),
}

impl From<NoLease> for NotEnded {
    fn from(_: NoLease) -> NotEnded {
        NotEnded::NoLease
    }
}

impl From<Stays> for NotEnded {
    fn from(stays: Stays) -> NotEnded {
        NotEnded::Stays(stays)
    }
}

impl Link {
    /// Ends or extends a lease of this connection. `queue` chooses when the id is leased from several; the lease made
    /// first is meant otherwise. Ack and reject are collected for the journal.
    ///
    /// # Errors
    /// `NotLeased`; `NotAllowed` for a reject in a dead-letter queue; `Unreadable` and `DiskFull` for a reject of a message
    /// that cannot become a dead letter now: it is back in its queue.
    pub fn settle(&mut self, id: &str, queue: Option<&str>, how: Settle, now: Timestamp) -> Result<(), Error> {
        self.now = now;
        let not_leased = || Error::NotLeased(id.to_owned());
        let hash = self.shared.state.hash(id);
        // The table also has leases that ended without this connection's doing; the first good one is meant.
        loop {
            let lease = self.leases.find(hash, queue).ok_or_else(not_leased)?.clone();
            let is_held = || lease.queue.holds(self.connection.id(), lease.which);
            if matches!(how, Settle::Reject(_)) && lease.queue.settings().dead_letter.is_none() && is_held() {
                return Err(Error::NotAllowed("a dead-letter queue is left only by ack or purge"));
            }
            let ended = self.end_lease(&lease, how, now);
            if ended.is_err() || !matches!(how, Settle::Touch { .. }) {
                self.leases.remove(&lease);
            }
            match ended {
                Ok(()) => return Ok(()),
                Err(NotEnded::Stays(Stays::Unreadable)) => return Err(Error::Unreadable(id.to_owned())),
                Err(NotEnded::Stays(Stays::DiskFull)) => return Err(Error::DiskFull),
                Err(NotEnded::NoLease) => {}
            }
        }
    }

    /// Ends or extends a lease, and collects the record if it takes one.
    fn end_lease(&mut self, lease: &Lease, how: Settle, now: Timestamp) -> Result<(), NotEnded> {
        let (connection, queue, which) = (self.connection.id(), &lease.queue, lease.which);
        let (loader, records) = (&mut self.loader, &mut self.records);
        let tried = match how {
            Settle::Touch { lease_ms } => {
                queue.touch(connection, which, lease_ms, now)?;
                None
            }
            Settle::Nack { delay_ms } => queue.give_back(connection, which, GiveBack::Nack { delay_ms }, now)?,
            Settle::Release => queue.give_back(connection, which, GiveBack::Release, now)?,
            Settle::Ack => {
                let seen = lease.settled(queue.settle(connection, which, now)?);
                let (queue, order) = (Arc::clone(queue), which.order);
                records.push(Record::new(now, Event::Settle { queue, order, seen, loose: None }));
                None
            }
            Settle::Reject(reason) => {
                queue.settle(connection, which, now)?;
                self.shared.collect_move(queue, which.order, reason, loader, now, records)?;
                None
            }
        };
        if let Some(tried) = tried {
            self.shared.collect_tried(queue, tried, loader, now, records);
        }
        Ok(())
    }

    /// The original's `ack`: the lease this connection holds on the id, or else every copy there is of it.
    pub fn ack_anywhere(&mut self, id: &str, now: Timestamp) {
        if self.settle(id, None, Settle::Ack, now).is_ok() {
            return;
        }
        for LiveCopy { queue, sighting, known } in self.shared.state.copies(id) {
            let Sighting { order, body, delivered, attempts, .. } = sighting;
            let published = match self.loader.load(&queue, order, body) {
                Ok(message) if message.id() != id => continue,
                Ok(message) => message.published(),
                // It has gone elsewhere in the meantime, or cannot be read: it is done with all the same.
                Err(_) => known.published,
            };
            let seen = Settled { hash: known.hash, exchange: known.exchange, published, delivered, attempts };
            let loose = Some(Box::new(known.origin));
            self.records.push(Record::new(now, Event::Settle { queue, order, seen, loose }));
        }
    }
}
