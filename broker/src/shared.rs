use std::sync::Arc;
use std::sync::atomic::Ordering;

use ciphermq_journal::{Doorbell, Entry, Journal, NoRoom, Position};

use crate::event::{Event, Record, Topology};
use crate::loader::{Loader, Unloadable};
use crate::queue::{Queue, Tried};
use crate::sessions::Sessions;
use crate::state::State;
use crate::{QueueOptions, QueueSettings, Reason, Timestamp};

/// What the broker and its links have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) journal: Journal<Record>,
    pub(crate) sessions: Sessions,
    /// Nobody waits for the broker's own records; the journal wants a bell all the same.
    own_bell: Arc<Doorbell>,
}

/// Why a message is not moved now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    /// The disk failed to read it.
    Unreadable,
    /// There is no room for it as a dead letter.
    DiskFull,
}

/// Bytes of the broker's own records collected before they are submitted: those of a moment when very many messages wear out.
const OWN_RECORDS_BYTES_MAX: usize = 1 << 20;

impl Shared {
    pub(crate) fn new(state: Arc<State>, journal: Journal<Record>) -> Shared {
        Shared { state, journal, sessions: Sessions::default(), own_bell: Arc::new(Doorbell::new()) }
    }

    /// For whoever needs bodies that left memory.
    pub(crate) fn loader(&self) -> Loader {
        Loader::new(self.journal.reader())
    }

    /// Journals what became of messages that have used up an attempt. Nobody waits for it: a journal that refuses it loses
    /// no message, they become ready again.
    pub(crate) fn record_tried(&self, now: Timestamp, tried: impl IntoIterator<Item = (Arc<Queue>, Tried)>) {
        let (mut loader, mut records, mut bytes) = (self.loader(), Vec::new(), 0);
        for (queue, tried) in tried {
            let before = records.len();
            self.collect_tried(&queue, tried, &mut loader, now, &mut records);
            bytes += records[before..].iter().map(Record::encoded_len).sum::<usize>();
            if bytes > OWN_RECORDS_BYTES_MAX {
                self.record(std::mem::take(&mut records));
                bytes = 0;
            }
        }
        self.record(records);
    }

    /// Journals records nobody waits for.
    pub(crate) fn record(&self, mut records: Vec<Record>) {
        if !records.is_empty() && self.journal.submit(&mut records, &self.own_bell).is_err() {
            records.into_iter().for_each(|record| self.give_back(record));
        }
    }

    /// Takes room in the log for a record that can be refused. What frees the disk, or must be possible on a full one, does not
    /// ask: settlements, deletions.
    ///
    /// # Errors
    /// [`NoRoom`]: it must not be submitted.
    pub(crate) fn reserve(&self, record: &mut Record) -> Result<(), NoRoom> {
        if self.state.is_logged() {
            let bytes = record.encoded_len();
            self.journal.reserve(bytes as u64)?;
            record.reserved = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        Ok(())
    }

    /// A record that was never submitted: what was set aside for it returns.
    pub(crate) fn give_back(&self, record: Record) {
        self.journal.unreserve(record.reserved.into());
        self.state.refuse(record);
    }

    /// The record of an attempt that was used up: if it was the last, the message moves.
    pub(crate) fn collect_tried(
        &self,
        queue: &Arc<Queue>,
        tried: Tried,
        loader: &mut Loader,
        now: Timestamp,
        out: &mut Vec<Record>,
    ) {
        let Tried { order, attempts, worn_out } = tried;
        if worn_out {
            // One that has to stay is tried again.
            let _ = self.collect_move(queue, order, Reason::Attempts, loader, now, out);
        } else if self.state.is_logged() {
            let queue = Arc::clone(queue);
            let mut record = Record::new(now, Event::Attempts { queue, order, attempts });
            // On a full disk attempts are remembered until the end of the process only.
            if self.reserve(&mut record).is_ok() {
                out.push(record);
            }
        }
    }

    /// The records that take a message to the dead-letter queue. It is `leaving`: nobody else removes it.
    ///
    /// # Errors
    /// [`Stays`] for now: it is back in its queue after a while.
    pub(crate) fn collect_move(
        &self,
        queue: &Arc<Queue>,
        order: Position,
        reason: Reason,
        loader: &mut Loader,
        now: Timestamp,
        out: &mut Vec<Record>,
    ) -> Result<(), Stays> {
        let Some((to, body)) = queue.settings().dead_letter.clone().zip(queue.body(order)) else { return Ok(()) };
        let message = match loader.load(queue, order, body) {
            Ok(message) => Box::new(message.dead(queue.name(), reason)),
            Err(Unloadable::Gone) => return Ok(()),
            Err(Unloadable::Unreadable) => {
                queue.defer(order, now);
                return Err(Stays::Unreadable);
            }
            Err(Unloadable::Damaged) => {
                self.state.stats.damaged.fetch_add(1, Ordering::Relaxed);
                out.push(Record::new(now, Event::Discard { queue: Arc::clone(queue), order }));
                return Ok(());
            }
        };
        let is_asked_for = |record: &Record| matches!(&record.event, Event::Move { to: before, .. } if *before == to);
        let is_there = self.state.registry.queue(&to).is_some() || out.last().is_some_and(is_asked_for);
        let before = out.len();
        if !is_there {
            out.push(Record::new(now, self.declare_dead_letters(&to)));
        }
        out.push(Record::new(now, Event::Move { queue: Arc::clone(queue), order, to, target: None, message }));
        // A dead letter is longer than the message was: a disk full of messages has no room to move them all.
        if out[before..].iter_mut().try_for_each(|record| self.reserve(record)).is_err() {
            out.drain(before..).for_each(|record| self.journal.unreserve(record.reserved.into()));
            queue.defer(order, now);
            return Err(Stays::DiskFull);
        }
        Ok(())
    }

    /// A dead-letter queue is made on first need.
    fn declare_dead_letters(&self, name: &Arc<str>) -> Event {
        let settings = QueueSettings::dead_letter_queue(&self.state.options);
        let (name, options) = (Arc::clone(name), QueueOptions::default());
        Event::Ask(Box::new(Topology::DeclareQueue { name, options, settings }), Arc::default())
    }
}
