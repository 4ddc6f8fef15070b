//! Settling: by those who hold a lease, and by those who do not.

use ciphermq_broker::{Error, Reason, Settle};
use rand::RngExt;

use crate::faults::Fault;
use crate::history::{Held, History, LEASE_MS};
use crate::model::{Certainty, Entry, Place, QueueRef};

impl History {
    pub(crate) fn settle(&mut self) {
        let client = self.any_client();
        let held = self.client(client).held.len();
        if held == 0 {
            let at = self.at();
            let refused = self.client(client).link.settle("nobody's", None, Settle::Ack, at);
            return assert!(matches!(refused, Err(Error::NotLeased(_))), "{refused:?}");
        }
        for _ in 0..self.random.random_range(1..3) {
            let held = self.client(client).held.len();
            if held > 0 {
                let index = self.random.random_range(0..held);
                self.settle_one(client, index);
            }
        }
        self.submit_soon(client);
    }

    fn settle_one(&mut self, client: usize, index: usize) {
        let delay_ms = self.random.random_range(0..3) * 100;
        let how = match self.random.random_range(0..12) {
            0..6 => Settle::Ack,
            6..8 => Settle::Nack { delay_ms },
            8 => Settle::Release,
            9 => Settle::Touch { lease_ms: None },
            10 => Settle::Reject(Reason::Rejected),
            _ => Settle::Reject(Reason::TooLong),
        };
        let with_queue = !self.chance(3);
        let at = self.at();
        let target = &self.client(client).held[index];
        let (id, queue) = (target.delivery.message().id().to_owned(), target.queue.name);
        // The lease given first is meant, of those on that id (and in that queue, if it is said).
        let is_meant = |held: &Held| held.delivery.message().id() == id && (!with_queue || held.queue.name == queue);
        let index = self.client(client).held.iter().position(is_meant).expect("at least the one chosen");
        let (queue, copy) = (self.client(client).held[index].queue, self.client(client).held[index].copy);
        self.client_does(client, format!("settles {id} in {}: {how:?}", queue.name));
        // A full disk may refuse this, and what is submitted with it.
        let is_alone = matches!(how, Settle::Reject(_)) && self.may_be_full();
        if is_alone {
            self.submit(client);
        }
        let settled = self.client(client).link.settle(&id, with_queue.then_some(queue.name), how, at);
        if self.is_broken() && settled.is_err() {
            return;
        }
        if matches!(how, Settle::Reject(_))
            && self.model.queue(queue).is_some_and(|it| it.settings.dead_letter.is_none())
        {
            return assert!(matches!(settled, Err(Error::NotAllowed(_))), "a dead letter was rejected: {settled:?}");
        }
        if settled == Err(Error::DiskFull) && matches!(how, Settle::Reject(_)) && self.may_be_full() {
            let until = self.now + ciphermq_broker::limits::UNREADABLE_RETRY_MS;
            self.model.copy_mut(queue, copy).expect("held").place = Place::Delayed { until };
            self.client(client).held.remove(index);
            return;
        }
        assert!(settled.is_ok(), "{id} is leased, but cannot be settled: {settled:?}");
        let now = self.now;
        let entry = match how {
            Settle::Touch { .. } => {
                let copy = self.model.copy_mut(queue, copy).expect("held");
                if let Place::Leased { earliest, latest, .. } = &mut copy.place {
                    (*earliest, *latest) = (now + LEASE_MS, now + LEASE_MS);
                }
                return;
            }
            Settle::Ack => {
                self.model.copy_mut(queue, copy).expect("held").place = Place::Leaving;
                Some(Entry::Settle { queue, copy })
            }
            Settle::Reject(reason) => {
                self.model.copy_mut(queue, copy).expect("held").place = Place::Leaving;
                let to = self.model.queue(queue).and_then(|queue| queue.settings.dead_letter).expect("checked above");
                let declares = !self.model.queues.contains_key(to);
                Some(Entry::Move { queue, copy, reason, to, declares })
            }
            Settle::Nack { delay_ms } => self.model.put_back(queue, copy, true, delay_ms, now),
            Settle::Release => self.model.put_back(queue, copy, false, 0, now),
        };
        self.client(client).held.remove(index);
        self.collect(client, entry);
        if is_alone {
            self.submit(client);
        }
    }

    /// Acknowledges what the client took last, and submits now and then.
    pub(crate) fn ack_last(&mut self) {
        let at = self.at();
        let Some(Held { queue, copy, delivery }) = self.client(0).held.pop() else { return };
        let id = delivery.message().id();
        let acked = self.client(0).link.settle(id, Some(queue.name), Settle::Ack, at);
        assert!(acked.is_ok(), "{id} was just fetched from {}, but cannot be acknowledged: {acked:?}", queue.name);
        self.model.copy_mut(queue, copy).expect("held").place = Place::Leaving;
        self.collect(0, Some(Entry::Settle { queue, copy }));
        if self.chance(5) {
            self.submit(0);
        }
    }

    /// The original's acknowledgement: by somebody who may hold no lease.
    pub(crate) fn ack_anywhere(&mut self) {
        if self.model.sends.is_empty() {
            return;
        }
        let client = self.any_client();
        let send = self.random.random_range(0..self.model.sends.len());
        let id = self.model.sends[send].id.clone();
        // Whether the broker finds a message by its id depends on whether it still knows the id.
        let is_exact = self.model.window_ms > 1_000_000 && self.model.ids_max > 1_000_000 / 2;
        let copies = self.model.queues.values().flat_map(|queue| queue.copies.values());
        let is_doubted = self.model.known.values().any(|known| known.since.is_none())
            || copies.into_iter().any(|copy| copy.certainty != Certainty::There);
        // A message that cannot be read now is not found.
        if !is_exact || is_doubted || matches!(self.fault, Fault::Failing { .. }) {
            return;
        }
        self.coverage.acks_anywhere += 1;
        self.client_does(client, format!("acknowledges {id} wherever it is"));
        let at = self.at();
        self.client(client).link.ack_anywhere(&id, at);
        if self.is_broken() {
            return self.submit(client);
        }
        let held = &self.client(client).held;
        if let Some(index) = held.iter().position(|held| held.delivery.message().id() == id) {
            let Held { queue, copy, .. } = self.client(client).held.remove(index);
            self.model.copy_mut(queue, copy).expect("held").place = Place::Leaving;
            self.collect(client, Some(Entry::Settle { queue, copy }));
        } else {
            let mut entries = Vec::new();
            for (name, queue) in &self.model.queues {
                let at = QueueRef { name, serial: queue.serial };
                let same = queue.copies.values().filter(|copy| self.model.sends[copy.send].id == id);
                entries.extend(same.map(|copy| Entry::Settle { queue: at, copy: copy.number }));
            }
            self.collect(client, entries);
        }
        self.submit(client);
    }
}
