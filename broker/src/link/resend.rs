//! Making a message ready again whose consumer, or whose dead-letter queue, has it.

use std::sync::Arc;

use super::Link;
use super::settle::Settle;
use crate::event::{Event, Record};
use crate::queue::{Queue, Sighting};
use crate::{Error, Message, Timestamp};

impl Link {
    /// The original's `resend`. Of every copy of the message: one that is leased to this connection comes back as after a nack; a
    /// dead letter, leased to this connection or to nobody, returns to the queue it came from, behind what waits there, with no
    /// attempt used up; what waits to be delivered stays as it is. Moves are collected for the journal.
    ///
    /// # Errors
    /// `NoMessage`; `LeasedElsewhere` when other connections hold all its copies; `NoQueue` for a dead letter whose queue is gone;
    /// `DiskFull`.
    pub fn resend(&mut self, id: &str, now: Timestamp) -> Result<(), Error> {
        self.now = now;
        let found = self.shared.state.sightings(id, &mut self.loader);
        let mut outcome = Err(Error::NoMessage(id.to_owned()));
        for (queue, sighting, message) in found {
            let resent = self.resend_copy(&queue, &sighting, &message, now);
            // One copy on its way is enough; otherwise the last obstacle is told.
            outcome = if outcome.is_ok() { outcome } else { resent };
        }
        outcome
    }

    fn resend_copy(
        &mut self,
        queue: &Arc<Queue>,
        sighting: &Sighting,
        message: &Message,
        now: Timestamp,
    ) -> Result<(), Error> {
        let elsewhere = || Error::LeasedElsewhere(message.id().to_owned());
        if let Some(dead) = message.dead_letter() {
            return self.revive(queue, sighting, message, dead.from, now);
        }
        if !sighting.leased {
            return Ok(());
        }
        let again = Settle::Nack { delay_ms: 0 };
        self.settle(message.id(), Some(queue.name()), again, now).map_err(|_| elsewhere())
    }

    /// A dead letter goes back to the queue it was taken from: one record, as on its way there.
    fn revive(
        &mut self,
        queue: &Arc<Queue>,
        sighting: &Sighting,
        message: &Message,
        from: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let order = sighting.order;
        if self.shared.state.registry.queue(from).is_none() {
            return Err(Error::NoQueue(from.to_owned()));
        }
        let hash = self.shared.state.hash(message.id());
        let lease = self.leases.find(hash, Some(queue.name())).filter(|lease| lease.which.order == order).cloned();
        let is_taken = match &lease {
            Some(lease) if queue.settle(self.connection.id(), lease.which, now).is_ok() => {
                self.leases.remove(lease);
                true
            }
            _ => queue.claim(order),
        };
        if !is_taken {
            return Err(Error::LeasedElsewhere(message.id().to_owned()));
        }
        let (to, message) = (Arc::from(from), Box::new(message.alive()));
        let event = Event::Move { queue: Arc::clone(queue), order, to, target: None, message };
        let mut record = Record::new(now, event);
        if self.shared.reserve(&mut record).is_err() {
            queue.restore(order, now);
            return Err(Error::DiskFull);
        }
        self.records.push(record);
        Ok(())
    }
}
