//! The log is read again: every record does to the state what its commit did.

use ciphermq_journal::{Position, Space};

use super::State;
use super::commit::Committer;
use crate::codec::{Fact, Logged};
use crate::dedupe::{KnownId, Place};
use crate::model::QueueId;
use crate::queue::{Size, Stored, copies_log2};

/// A message the log tells of.
struct Found {
    order: Position,
    at: Stored,
    origin: Position,
}

impl Committer {
    pub(super) fn replay(&mut self, position: Position, logged: Logged<'_>, space: &mut Space) {
        let (state, now) = (&*self.state, logged.at);
        let stored =
            |text: &str, copies| Stored { location: position, size: Size::new(text.len() as u64, copies_log2(copies)) };
        match logged.fact {
            Fact::Publish { queues, message } => {
                let mut ids = queues.iter();
                let place = match (ids.next(), ids.next()) {
                    (Some(queue), None) => Place::In(queue),
                    _ => Place::Anywhere,
                };
                let hash = state.hash(message.id());
                state.dedupe().recover(KnownId::new(hash, message.exchange, place, position, message.published));
                let found = Found { order: position, at: stored(message.text, queues.len()), origin: position };
                queues.iter().for_each(|queue| state.found(queue, &found, 0, space));
            }
            Fact::Settle { queue, order, seen } => {
                if let Some(queue) = state.registry.queue_by_id(queue) {
                    state.retire(&queue, order, now, space);
                    state.remember(&queue, seen, now);
                }
            }
            Fact::Move { from, order, to, origin, message } => {
                if let Some(from) = state.registry.queue_by_id(from) {
                    state.retire(&from, order, now, space);
                }
                state.dedupe().recover_move(state.hash(message.id()), origin);
                state.found(to, &Found { order: position, at: stored(message.text, 1), origin }, 0, space);
            }
            Fact::Discard { queue, order } => {
                if let Some(queue) = state.registry.queue_by_id(queue) {
                    state.retire(&queue, order, now, space);
                }
            }
            Fact::Attempts { queue, order, attempts } => {
                if let Some(queue) = state.registry.queue_by_id(queue) {
                    queue.set_attempts(order, attempts);
                }
            }
            Fact::Relocate { order, origin, copies, message } => {
                if order != origin {
                    // A dead letter, whose move may have gone with its segment.
                    state.dedupe().recover_move(state.hash(message.id()), origin);
                }
                let found = Found { order, at: stored(message.text, copies.len()), origin };
                copies.iter().for_each(|(queue, attempts)| state.found(queue, &found, attempts, space));
            }
            Fact::Ids(ids) => {
                let ids: Vec<KnownId> = ids.iter().collect();
                ids.iter().for_each(|id| state.dedupe().recover(*id));
                self.ids.insert(position, &ids, space);
            }
            Fact::Counters(counters) => {
                state.hash_key.get_or_init(|| counters.hash_key);
                state.registry.reserve_ids(counters.last_queue, counters.last_exchange);
            }
            Fact::Change(change) => state.replay_change(position, &change, space),
        }
    }
}

impl State {
    /// A message is in this queue, or its record was written anew. A queue that is not there any more has none.
    fn found(&self, queue: QueueId, found: &Found, attempts: u32, space: &mut Space) {
        let Some(queue) = self.registry.queue_by_id(queue) else { return };
        let replaced = queue.recover(found.order, found.at, found.origin, attempts);
        space.retain(found.at.location, found.at.share());
        match replaced {
            Some(replaced) => space.release(replaced.location, replaced.share()),
            None => self.count_stored(1, found.at.text_bytes()),
        }
    }
}
