//! Taking out many messages at once: a purge, in two steps around its record, and the end of a queue.

use std::collections::BTreeMap;

use ciphermq_journal::Position;
use hashbrown::HashMap;

use super::consumers::Consumers;
use super::held::{Kept, Stored};
use super::lane::Lane;
use super::lease::Delayed;
use super::state::{Counts, QueueState};
use crate::Message;
use crate::budget::Budget;

/// What is going to be removed: nobody can lease it any more.
#[derive(Debug)]
pub(crate) struct Condemned {
    resident: Lane<Message>,
    stored: Lane<Stored>,
    returned: BTreeMap<Position, Kept>,
    delayed: HashMap<Position, Delayed>,
    /// Leased or leaving when their queue was deleted.
    held: Vec<Kept>,
}

impl QueueState {
    /// Sets aside what is ready or delayed, until [`QueueState::take_condemned`] or [`QueueState::restore_condemned`].
    /// Returns what stays, in order.
    pub(crate) fn condemn(&mut self) -> Vec<Position> {
        self.restore_condemned();
        for (order, delayed) in &self.delayed {
            self.timers.remove(&(delayed.until, *order));
        }
        self.condemned = Some(Box::new(Condemned {
            resident: std::mem::replace(&mut self.resident, Lane::new()),
            stored: std::mem::replace(&mut self.stored, Lane::new()),
            returned: std::mem::take(&mut self.returned),
            delayed: std::mem::take(&mut self.delayed),
            held: Vec::new(),
        }));
        let mut kept: Vec<Position> = self.leased.keys().chain(self.leaving.keys()).copied().collect();
        kept.sort_unstable();
        kept
    }

    /// What was condemned is out of the queue; what it takes to count it is the caller's, without the queue's lock.
    pub(crate) fn take_condemned(&mut self) -> Option<Box<Condemned>> {
        let condemned = self.condemned.take()?;
        self.sweep_moved();
        Some(condemned)
    }

    /// The purge failed: what was condemned is where it was.
    pub(crate) fn restore_condemned(&mut self) {
        let Some(condemned) = self.condemned.take() else { return };
        let Condemned { resident, stored, mut returned, delayed, .. } = *condemned;
        self.returned.append(&mut returned);
        for (order, delayed) in delayed {
            self.timers.insert((delayed.until, order));
            self.delayed.insert(order, delayed);
        }
        self.resident = resident.followed_by(std::mem::replace(&mut self.resident, Lane::new()));
        self.stored = stored.followed_by(std::mem::replace(&mut self.stored, Lane::new()));
    }

    /// Takes out everything but these, which are in order: what a purge did when it was recorded.
    pub(crate) fn take_except(&mut self, kept: &[Position]) -> Option<Box<Condemned>> {
        let kept: Vec<_> = kept.iter().filter_map(|order| Some((*order, self.take_waiting(*order)?))).collect();
        self.condemn();
        self.returned.extend(kept);
        self.take_condemned()
    }

    /// Takes out everything there is.
    pub(crate) fn clear(&mut self) -> Option<Box<Condemned>> {
        self.condemn();
        let leased = self.leased.drain().map(|(_, leased)| leased.held);
        let held = leased.chain(self.leaving.drain().map(|(_, leaving)| leaving.held)).collect();
        self.holders.clear();
        self.timers.clear();
        self.consumers = Consumers::default();
        let mut condemned = self.take_condemned()?;
        condemned.held = held;
        Some(condemned)
    }
}

impl Condemned {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            ready: (self.resident.len() + self.stored.len() + self.returned.len()) as u64,
            leased: 0,
            delayed: self.delayed.len() as u64,
        }
    }

    /// Where each message's record is; what was in memory is not any more.
    pub(crate) fn release(self, budget: &Budget, mut release: impl FnMut(Stored)) {
        for (order, message) in self.resident.into_items() {
            budget.give_back(message.bytes());
            release(message.stored_at(order));
        }
        self.stored.into_items().for_each(|(_, at)| release(at));
        let delayed = self.delayed.into_values().map(|delayed| delayed.held);
        self.returned.into_values().chain(delayed).chain(self.held).for_each(|held| release(held.at()));
    }
}
