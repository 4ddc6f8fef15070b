//! What happens to a record on its way through the journal: decided before it is written, done when it is committed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ciphermq_journal::{Commit, Position, Space};
use tracing::debug;

use super::State;
use super::carry::CarriedIds;
use crate::dedupe::{IdHash, Place};
use crate::event::{Change, Event, Record, Settled};
use crate::exchange::Route;
use crate::history::Acknowledged;
use crate::model::{ExchangeId, QueueId};
use crate::queue::{Queue, Stored};
use crate::{Message, Timestamp};

/// The journal's way into the state. Whatever depends on more than the log is decided in `admit`: replay repeats what was
/// written and decides nothing.
pub(crate) struct Committer {
    pub(super) state: Arc<State>,
    /// When the log is read.
    pub(super) now: Timestamp,
    /// Settlements by somebody without a lease, admitted and not committed: nobody else may move these messages.
    loose: HashSet<(QueueId, Position)>,
    /// Whether there ever was one.
    was_loose: bool,
    /// All other settlements admitted and not committed, in order.
    settling: VecDeque<(QueueId, Position)>,
    /// Moves admitted and not committed: where each message goes.
    moving: HashMap<(QueueId, Position), (Arc<Queue>, Position)>,
    pub(super) ids: CarriedIds,
    pub(super) is_replaying: bool,
    /// Publishes until records of ids are looked at again.
    until_expiry: u32,
}

/// Publishes from one look at the records of expired ids to the next.
const EXPIRY_EVERY: u32 = 1_024;

impl Commit<Record> for Committer {
    fn admit(&mut self, position: Position, record: &mut Record) -> bool {
        let state = &self.state;
        let now = record.at;
        match &mut record.event {
            Event::Publish { message, hash, route } => state.admit_publish(position, message, *hash, route, now),
            Event::Duplicate => false,
            Event::Settle { queue, order, loose: Some(origin), .. } => match self.find_copy(queue, *order, **origin) {
                Some(found) => {
                    (*queue, *order) = found;
                    self.was_loose = true;
                    self.loose.insert((queue.id(), *order))
                }
                None => false,
            },
            Event::Settle { queue, order, loose: None, .. } => {
                let named = (queue.id(), *order);
                // Somebody without a lease was faster: that record is the one.
                let is_first = !self.was_loose || !self.loose.contains(&named) && queue.location(*order).is_some();
                if is_first {
                    self.settling.push_back(named);
                }
                is_first
            }
            Event::Move { queue, order, to, target, .. } => {
                // Acknowledged by somebody without a lease, or its queue was deleted: nothing is left to move.
                if self.loose.contains(&(queue.id(), *order)) || queue.location(*order).is_none() {
                    return false;
                }
                *target = state.registry.queue(to);
                match target {
                    Some(target) => {
                        self.moving.insert((queue.id(), *order), (Arc::clone(target), position));
                    }
                    None => queue.restore(*order, now),
                }
                target.is_some()
            }
            Event::Ask(asked, verdict) => match state.decide(asked, now) {
                Ok(Some(change)) => {
                    record.event = Event::Change(Box::new(change), Arc::clone(verdict));
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    verdict.refuse(error);
                    false
                }
            },
            Event::Discard { .. }
            | Event::Attempts { .. }
            | Event::Relocate { .. }
            | Event::Ids(_)
            | Event::Counters(_)
            | Event::Change(..) => true,
        }
    }

    fn commit(&mut self, position: Position, record: Record, space: &mut Space) {
        let (state, now) = (&self.state, record.at);
        match record.event {
            Event::Publish { message, route, .. } => {
                state.commit_publish(position, message, &route, now, space);
                self.expire_ids(space);
            }
            Event::Settle { queue, order, seen, loose } => {
                match loose {
                    Some(_) => drop(self.loose.remove(&(queue.id(), order))),
                    None => drop(self.settling.pop_front()),
                }
                state.commit_settle(&queue, order, seen, now, space);
            }
            Event::Move { queue, order, target: Some(target), message, .. } => {
                self.moving.remove(&(queue.id(), order));
                state.commit_move(position, (&queue, order), &target, *message, now, space);
            }
            Event::Discard { queue, order } => drop(state.retire(&queue, order, now, space)),
            Event::Relocate { order, message, copies } => {
                for (queue, _) in copies {
                    state.commit_relocation(position, (&queue, order), &message, space);
                }
            }
            Event::Ids(ids) => {
                self.ids.insert(position, &ids, space);
                self.ids.forget_expired(&state.dedupe(), space);
            }
            Event::Change(change, verdict) => verdict.set_purged(state.commit_change(position, &change, space)),
            // The queue knows its attempts; the log is told for the next start.
            Event::Attempts { .. } | Event::Counters(_) => {}
            // Not admitted.
            Event::Duplicate | Event::Ask(..) | Event::Move { target: None, .. } => {}
        }
    }

    fn refuse(&mut self, record: Record) {
        if let Event::Ids(ids) = &record.event {
            self.ids.take_back(ids);
        }
        self.state.refuse(record);
    }
}

impl Committer {
    pub(crate) fn new(state: Arc<State>, now: Timestamp) -> Committer {
        let is_replaying = state.is_logged();
        Committer {
            state,
            now,
            loose: HashSet::new(),
            was_loose: false,
            settling: VecDeque::new(),
            moving: HashMap::new(),
            ids: CarriedIds::default(),
            is_replaying,
            until_expiry: 0,
        }
    }

    /// Where the message is that somebody without a lease saw as `order` of `queue`: it may have been moved since, or be about to. If it
    /// has gone from there, any copy of it: all are to be settled. `None` if nothing is left to do.
    fn find_copy(&self, queue: &Arc<Queue>, order: Position, origin: Position) -> Option<(Arc<Queue>, Position)> {
        if self.is_settling(queue, order) {
            return None;
        }
        let here = self.moved_to(queue, order);
        here.or_else(|| {
            let copies = |queue: Arc<Queue>| {
                let copies = queue.find(origin).into_iter().map(|copy| copy.order);
                copies.filter_map(|order| self.moved_to(&queue, order)).next()
            };
            self.state.registry.queues().into_iter().find_map(copies)
        })
    }

    /// Where the message will be when it is settled by the next record, unless it is settled by then.
    fn moved_to(&self, queue: &Arc<Queue>, order: Position) -> Option<(Arc<Queue>, Position)> {
        let to = match self.moving.get(&(queue.id(), order)) {
            Some((target, position)) => (Arc::clone(target), *position),
            None if queue.location(order).is_some() => (Arc::clone(queue), order),
            None => return None,
        };
        (!self.is_settling(&to.0, to.1)).then_some(to)
    }

    /// Whether a record that is admitted and not committed settles it.
    fn is_settling(&self, queue: &Queue, order: Position) -> bool {
        let named = (queue.id(), order);
        self.loose.contains(&named) || self.settling.contains(&named)
    }

    fn expire_ids(&mut self, space: &mut Space) {
        self.until_expiry = self.until_expiry.checked_sub(1).unwrap_or_else(|| {
            self.ids.forget_expired(&self.state.dedupe(), space);
            EXPIRY_EVERY
        });
    }
}

impl State {
    /// The record will never be durable: what was set aside for it returns.
    pub(crate) fn refuse(&self, record: Record) {
        match record.event {
            Event::Publish { message, route, .. } => self.unreserve(&route, message.bytes()),
            Event::Settle { queue, order, loose: None, .. } | Event::Move { queue, order, .. } => {
                queue.restore(order, record.at);
            }
            Event::Change(change, _) => self.refuse_change(&change, record.at),
            // What cannot be read is not given out again.
            Event::Discard { .. } => {}
            Event::Duplicate
            | Event::Settle { .. }
            | Event::Attempts { .. }
            | Event::Relocate { .. }
            | Event::Ids(_)
            | Event::Counters(_)
            | Event::Ask(..) => {}
        }
    }

    fn refuse_change(&self, change: &Change, now: Timestamp) {
        let queue = |id: &QueueId| self.registry.queue_by_id(*id);
        match change {
            Change::DeleteQueue { id } => queue(id).iter().for_each(|queue| queue.reopen()),
            Change::Purge { id, .. } => queue(id).iter().for_each(|queue| queue.restore_condemned(now)),
            Change::DeclareQueue { .. }
            | Change::DeclareExchange { .. }
            | Change::Bind { .. }
            | Change::Unbind { .. }
            | Change::DeleteExchange { .. }
            | Change::Key { .. } => {}
        }
    }

    /// False for a duplicate: of two connections that publish one id, the later in the log is the duplicate.
    fn admit_publish(
        &self,
        position: Position,
        message: &Message,
        hash: IdHash,
        route: &Route,
        now: Timestamp,
    ) -> bool {
        let place = match route.queues.as_slice() {
            [queue] => Place::In(queue.id()),
            _ => Place::Anywhere,
        };
        let is_new = self.dedupe().insert(hash, route.exchange, position, place, now);
        if !is_new {
            self.stats.duplicates.fetch_add(1, Ordering::Relaxed);
            self.unreserve(route, message.bytes());
        }
        is_new
    }

    fn commit_publish(&self, position: Position, message: Message, route: &Route, now: Timestamp, space: &mut Space) {
        self.stats.published.fetch_add(1, Ordering::Relaxed);
        let message = message.with_origin(position, route.queues.len());
        for queue in &route.queues {
            self.arrive(position, queue, message.clone(), now, space);
        }
    }

    fn commit_settle(&self, queue: &Arc<Queue>, order: Position, seen: Settled, now: Timestamp, space: &mut Space) {
        if self.retire(queue, order, now, space).is_some() {
            self.stats.count_ack(now.ms_since(seen.published), now.ms_since(seen.delivered.unwrap_or(now)));
            self.remember(queue, seen, now);
            debug!(queue = queue.name(), order = order.0, "acknowledged");
        }
    }

    fn commit_move(
        &self,
        position: Position,
        (from, order): (&Arc<Queue>, Position),
        target: &Arc<Queue>,
        message: Message,
        now: Timestamp,
        space: &mut Space,
    ) {
        // Whoever looks for copies of the message meanwhile would see none.
        let mut dedupe = self.dedupe();
        self.retire(from, order, now, space);
        dedupe.relocate(self.hash(message.id()), message.origin());
        let is_dead = message.dead_letter().is_some();
        self.stats.dead_lettered.fetch_add(u64::from(is_dead), Ordering::Relaxed);
        let how = if is_dead { "dead-lettered" } else { "sent again" };
        debug!(from = from.name(), to = target.name(), "Message {} {how}", message.id());
        // Already stored, so no limit can refuse it: it only changes its place.
        target.reserve_unchecked(message.bytes());
        self.count_stored(1, message.bytes());
        let origin = message.origin();
        self.arrive(position, target, message.with_origin(origin, 1), now, space);
    }

    fn commit_relocation(
        &self,
        position: Position,
        (queue, order): (&Arc<Queue>, Position),
        message: &Message,
        space: &mut Space,
    ) {
        let to = message.stored_at(position);
        if let Some(from) = queue.relocate(order, to) {
            space.retain(position, to.share());
            space.release(from.location, from.share());
        }
    }

    /// A message for which there is room comes into a queue.
    fn arrive(&self, position: Position, queue: &Arc<Queue>, message: Message, now: Timestamp, space: &mut Space) {
        let (at, bytes) = (message.stored_at(position), message.bytes());
        if queue.push(position, message, now) {
            space.retain(position, at.share());
        } else {
            self.unreserve_in(queue, bytes);
        }
    }

    /// A message leaves its queue.
    pub(super) fn retire(
        &self,
        queue: &Arc<Queue>,
        order: Position,
        now: Timestamp,
        space: &mut Space,
    ) -> Option<Stored> {
        let at = queue.retire(order, now)?;
        self.count_removed(1, at.text_bytes());
        space.release(at.location, at.share());
        Some(at)
    }

    /// `status` shows for some time what was acknowledged.
    pub(super) fn remember(&self, queue: &Queue, seen: Settled, now: Timestamp) {
        self.history().push(Acknowledged {
            hash: seen.hash,
            exchange: self.exchange_name(seen.exchange),
            queue: queue.shared_name(),
            attempts: seen.attempts,
            published: seen.published,
            delivered: seen.delivered,
            acknowledged: now,
        });
    }

    fn exchange_name(&self, id: ExchangeId) -> Arc<str> {
        match self.registry.exchange_by_id(id) {
            Some(exchange) => Arc::clone(exchange.name()),
            // Deleted since: its name is in nobody's memory.
            None => Arc::from(format!("#{}", id.0)),
        }
    }
}
