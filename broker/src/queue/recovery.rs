//! What the log tells when it is read again, and when it writes a record anew.

use ciphermq_journal::Position;

use super::held::{Kept, Stored};
use super::state::QueueState;

impl QueueState {
    /// A message found in the log, first published at `origin`. Records written anew come after younger ones, and after
    /// the record they replace if that is still there: it is returned.
    pub(crate) fn recover(&mut self, order: Position, at: Stored, origin: Position, attempts: u32) -> Option<Stored> {
        // A record is read once: one that is where the message came can replace none.
        let replaced = if at.location == order { None } else { self.relocate(order, at) };
        if replaced.is_some() {
            self.set_attempts(order, attempts);
            return replaced;
        }
        if origin != order {
            self.moved.insert((origin, order));
        }
        if attempts == 0 && self.stored.last().is_none_or(|last| last < order) {
            self.stored.push(order, at);
        } else {
            let mut held = Kept::new(at, None);
            held.attempts = attempts;
            self.returned.insert(order, held);
        }
        None
    }

    /// The message has used up at least so many attempts. Nothing happens to one that is delivered or not there.
    pub(crate) fn set_attempts(&mut self, order: Position, attempts: u32) {
        if let Some(held) = self.held_mut(order) {
            held.attempts = held.attempts.max(attempts);
        } else if attempts > 0
            && let Some(mut held) = self.take_fresh(order)
        {
            held.attempts = attempts;
            self.returned.insert(order, held);
        }
    }

    /// The log has been read: what was found out of turn moves to where it takes less room.
    pub(crate) fn recovered(&mut self) {
        let mut returned = std::mem::take(&mut self.returned);
        while let Some((order, held)) = returned.pop_last() {
            let is_in_front = self.stored.first().is_none_or(|first| order < first);
            if is_in_front && held.attempts == 0 && held.delivered().is_none() {
                self.stored.push_front(order, held.at());
            } else {
                self.returned.insert(order, held);
            }
        }
    }

    /// Where the message's record is.
    pub(crate) fn location(&self, order: Position) -> Option<Stored> {
        let resident = || self.resident.get(order).map(|message| message.stored_at(order));
        self.held(order).map(|held| held.at()).or_else(resident).or_else(|| self.stored.get(order).copied())
    }

    /// Attempts the message has used up, not counting a delivery under way.
    pub(crate) fn attempts(&self, order: Position) -> Option<u32> {
        self.held(order).map(|held| held.attempts).or_else(|| self.location(order).map(|_| 0))
    }

    /// The message's record was written anew. Returns where it was, if the message is still here.
    pub(crate) fn relocate(&mut self, order: Position, to: Stored) -> Option<Stored> {
        if let Some(held) = self.held_mut(order) {
            return Some(held.relocate(to));
        }
        if let Some(at) = self.stored.get_mut(order) {
            return Some(std::mem::replace(at, to));
        }
        // A record that is not where it was when it came is not what `resident` is for.
        let fresh = self.take_fresh(order)?;
        let at = fresh.at();
        let message = fresh.message.filter(|_| !self.budget.is_limited());
        self.returned.insert(order, Kept::new(to, message));
        Some(at)
    }

    fn held(&self, order: Position) -> Option<&Kept> {
        let leased = self.leased.get(&order).map(|leased| &leased.held);
        let leaving = || self.leaving.get(&order).map(|leaving| &leaving.held);
        let delayed = || self.delayed.get(&order).map(|delayed| &delayed.held);
        leased.or_else(leaving).or_else(|| self.returned.get(&order)).or_else(delayed)
    }

    fn held_mut(&mut self, order: Position) -> Option<&mut Kept> {
        if let Some(leased) = self.leased.get_mut(&order) {
            return Some(&mut leased.held);
        }
        if let Some(leaving) = self.leaving.get_mut(&order) {
            return Some(&mut leaving.held);
        }
        if let Some(delayed) = self.delayed.get_mut(&order) {
            return Some(&mut delayed.held);
        }
        self.returned.get_mut(&order)
    }
}
