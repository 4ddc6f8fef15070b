//! What outlives the oldest segment of the log: written anew at its end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ciphermq_journal::{Owner, Position, Space, Undecodable};

use super::State;
use super::commit::Committer;
use crate::codec::{self, Fact};
use crate::dedupe::{Dedupe, KnownId};
use crate::event::{Change, Counters, Event, Record, Verdict};
use crate::model::QueueId;
use crate::queue::Queue;
use crate::{Timestamp, limits};

/// Which records of the log hold known ids: those whose publish is not in the log any more.
///
/// Segments go in order and ids are kept in order of their origin, so that each record holds a stretch of them, and all of
/// them together everything up to one origin.
#[derive(Debug, Default)]
pub(super) struct CarriedIds {
    /// By the last origin in the record.
    records: BTreeMap<Position, IdsRecord>,
    /// Ids with origins up to here were pushed into records.
    through: Position,
}

#[derive(Clone, Copy, Debug)]
struct IdsRecord {
    first: Position,
    location: Position,
    bytes: u64,
}

/// Records of ids in one answer to [`Owner::carry_rest`].
const IDS_RECORDS_PER_STEP: usize = 16;

impl Owner<Record> for Committer {
    fn recover(&mut self, position: Position, payload: &[u8], space: &mut Space) -> Result<(), Undecodable> {
        self.replay(position, codec::decode(payload)?, space);
        Ok(())
    }

    fn checkpoint(&mut self, out: &mut Vec<Record>) {
        if std::mem::take(&mut self.is_replaying) {
            self.state.end_replay(self.now);
        }
        out.extend(self.state.topology().map(|event| self.carried(event)));
    }

    fn carry(&mut self, position: Position, payload: &[u8], out: &mut Vec<Record>) {
        // What cannot be read was reported when the log was opened, or will be by whoever wants it.
        let Ok(logged) = codec::decode(payload) else { return };
        let event = match logged.fact {
            Fact::Publish { queues, .. } => self.relocation(position, position, queues.iter(), payload),
            Fact::Move { to, .. } => self.relocation(position, position, [to].into_iter(), payload),
            Fact::Relocate { order, copies, .. } => {
                self.relocation(position, order, copies.iter().map(|(queue, _)| queue), payload)
            }
            Fact::Ids(ids) => self.ids.again(position, ids.iter().next_back(), &self.state.dedupe()).map(Event::Ids),
            Fact::Change(change @ Change::Key { .. }) => self.key_again(position, change),
            Fact::Settle { .. }
            | Fact::Discard { .. }
            | Fact::Attempts { .. }
            | Fact::Counters(_)
            | Fact::Change(_) => None,
        };
        out.extend(event.map(|event| self.carried(event)));
    }

    fn carry_rest(&mut self, segment: Range<Position>, out: &mut Vec<Record>) {
        let state = Arc::clone(&self.state);
        let dedupe = state.dedupe();
        for _ in 0..IDS_RECORDS_PER_STEP {
            let ids = self.ids.next(segment.end, &dedupe);
            if ids.is_empty() {
                break;
            }
            out.push(self.carried(Event::Ids(ids)));
        }
        // Whole or not at all: of a torn write a later record could be left without an earlier one, whose ids would then pass for
        // written.
        if let Some((_, all_but_last)) = out.split_last_mut() {
            all_but_last.iter_mut().for_each(|record| record.continues = true);
        }
    }
}

impl Committer {
    fn carried(&self, event: Event) -> Record {
        Record::new(self.now, event)
    }

    /// The record at `position` anew, if the directory still has from it what it says.
    fn key_again(&self, position: Position, change: Change) -> Option<Event> {
        let Change::Key { entry, .. } = &change else { return None };
        let is_here = self.state.directory().is_at(entry, position);
        is_here.then(|| Event::Change(Box::new(change), Arc::default()))
    }

    /// The record at `position` anew, for the queues that have the message `order` from it.
    fn relocation(
        &self,
        position: Position,
        order: Position,
        queues: impl Iterator<Item = QueueId>,
        payload: &[u8],
    ) -> Option<Event> {
        let is_here = |queue: &Arc<Queue>| queue.location(order).is_some_and(|at| at.location == position);
        let queues = queues.filter_map(|id| self.state.registry.queue_by_id(id)).filter(is_here);
        let with_attempts = |queue: Arc<Queue>| {
            let attempts = queue.attempts(order).unwrap_or(0);
            (queue, attempts)
        };
        let copies: Vec<_> = queues.map(with_attempts).collect();
        if copies.is_empty() {
            return None;
        }
        let message = codec::message(payload, order).ok()?;
        let origin = message.origin();
        Some(Event::Relocate { order, message: Box::new(message.with_origin(origin, copies.len())), copies })
    }
}

impl CarriedIds {
    /// A record of ids is in the log; one with the same ids that it replaces is of no use any more.
    pub(super) fn insert(&mut self, location: Position, ids: &[KnownId], space: &mut Space) {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return };
        let bytes = size_of_val(ids) as u64 + limits::RECORD_OVERHEAD_BYTES;
        space.retain(location, bytes);
        self.through = self.through.max(last.origin);
        let record = IdsRecord { first: first.origin, location, bytes };
        if let Some(before) = self.records.insert(last.origin, record) {
            space.release(before.location, before.bytes);
        }
    }

    /// A record of ids is not written: if no other has them, they are the next ones again.
    pub(super) fn take_back(&mut self, ids: &[KnownId]) {
        if let (Some(first), Some(last)) = (ids.first(), ids.last())
            && !self.records.contains_key(&last.origin)
        {
            self.through = self.through.min(Position(first.origin.0 - 1));
        }
    }

    /// Records all of whose ids are forgotten are of no use.
    pub(super) fn forget_expired(&mut self, dedupe: &Dedupe, space: &mut Space) {
        while let Some(entry) = self.records.first_entry()
            && dedupe.first_origin().is_none_or(|first| *entry.key() < first)
        {
            let record = entry.remove();
            space.release(record.location, record.bytes);
        }
    }

    /// What is still known of the ids in the record at `location`, whose last is `last`.
    fn again(&mut self, location: Position, last: Option<KnownId>, dedupe: &Dedupe) -> Option<Vec<KnownId>> {
        let last = last?.origin;
        let record = self.records.get(&last).filter(|record| record.location == location)?;
        let ids: Vec<_> = dedupe.published_at(record.first..=last).collect();
        if ids.is_empty() {
            // What is counted of it goes with its segment.
            self.records.remove(&last);
            return None;
        }
        Some(ids)
    }

    /// The next ids published in front of `end` that no record holds.
    fn next(&mut self, end: Position, dedupe: &Dedupe) -> Vec<KnownId> {
        if self.through.0 + 1 >= end.0 {
            return Vec::new();
        }
        let origins = Position(self.through.0 + 1)..=Position(end.0 - 1);
        let ids: Vec<_> = dedupe.published_at(origins).take(limits::IDS_PER_RECORD_MAX).collect();
        if let Some(last) = ids.last() {
            self.through = last.origin;
        }
        ids
    }
}

impl State {
    /// Everything but messages, ids and keys, told to somebody who knows nothing.
    fn topology(&self) -> impl Iterator<Item = Event> {
        let (last_queue, last_exchange) = self.registry.last_ids();
        let counters = Event::Counters(Counters { hash_key: self.hash_key(), last_queue, last_exchange });
        let queues = self.registry.queues().into_iter().map(|queue| {
            let (id, name, settings) = (queue.id(), queue.shared_name(), queue.settings().clone());
            Change::DeclareQueue { id, name, settings }
        });
        let exchanges = self.registry.exchanges();
        let names: Vec<_> = exchanges.iter().map(|exchange| (exchange.id(), Arc::clone(exchange.name()))).collect();
        let names = names.into_iter().map(|(id, name)| Change::DeclareExchange { id, name });
        let bindings = exchanges.into_iter().flat_map(|exchange| {
            let id = exchange.id();
            let mut bindings: Vec<_> = exchange.bindings().into_iter().map(|(key, queue)| (queue.id(), key)).collect();
            // Stable: queues behind one key stay in the order they were bound in.
            bindings.sort_by(|(_, a), (_, b)| a.cmp(b));
            let records = bindings.chunks(limits::BINDINGS_PER_RECORD_MAX).map(<[_]>::to_vec);
            records.map(|bindings| Change::Bind { exchange: id, bindings }).collect::<Vec<_>>()
        });
        let changes = queues
            .chain(names)
            .chain(bindings)
            .map(|change| Event::Change(Box::new(change), Arc::<Verdict>::default()));
        std::iter::once(counters).chain(changes)
    }

    /// The log has been read; what is always there is made if it is not.
    pub(crate) fn end_replay(&self, now: Timestamp) {
        self.hash_key.get_or_init(|| self.options.hash_key);
        self.dedupe().recovered(now);
        self.registry.queues().iter().for_each(|queue| queue.recovered());
        self.declare_default_topology();
    }
}
