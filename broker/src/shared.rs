use std::sync::Arc;
use std::sync::atomic::Ordering;

use ciphermq_journal::{Doorbell, Entry, Journal, Position};

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

/// The disk failed to read a message back; it is back in its queue after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

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

    /// A record that was never submitted: what was set aside for it returns.
    pub(crate) fn give_back(&self, record: Record) {
        self.journal.unreserve(record.room());
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
            // One that cannot be read now is tried again.
            let _ = self.collect_move(queue, order, Reason::Attempts, loader, now, out);
        } else if self.state.is_logged() {
            let queue = Arc::clone(queue);
            out.push(Record::new(now, Event::Attempts { queue, order, attempts }));
        }
    }

    /// The records that take a message to the dead-letter queue. It is `leaving`: nobody else removes it.
    ///
    /// # Errors
    /// [`Unreadable`] when it stays for now.
    pub(crate) fn collect_move(
        &self,
        queue: &Arc<Queue>,
        order: Position,
        reason: Reason,
        loader: &mut Loader,
        now: Timestamp,
        out: &mut Vec<Record>,
    ) -> Result<(), Unreadable> {
        let Some((to, body)) = queue.settings().dead_letter.clone().zip(queue.body(order)) else { return Ok(()) };
        let dead = match loader.load(queue, order, body) {
            Ok(message) => Box::new(message.dead(queue.name(), reason)),
            Err(Unloadable::Gone) => return Ok(()),
            Err(Unloadable::Unreadable) => {
                queue.defer(order, now);
                return Err(Unreadable);
            }
            Err(Unloadable::Damaged) => {
                self.state.stats.damaged.fetch_add(1, Ordering::Relaxed);
                out.push(Record::new(now, Event::Discard { queue: Arc::clone(queue), order }));
                return Ok(());
            }
        };
        let is_asked_for = |record: &Record| matches!(&record.event, Event::Move { to: before, .. } if *before == to);
        if self.state.registry.queue(&to).is_none() && !out.last().is_some_and(is_asked_for) {
            out.push(Record::new(now, self.declare_dead_letters(&to)));
        }
        out.push(Record::new(now, Event::Move { queue: Arc::clone(queue), order, to, target: None, dead }));
        Ok(())
    }

    /// A dead-letter queue is made on first need.
    fn declare_dead_letters(&self, name: &Arc<str>) -> Event {
        let settings = QueueSettings::dead_letter_queue(&self.state.options);
        let (name, options) = (Arc::clone(name), QueueOptions::default());
        Event::Ask(Box::new(Topology::DeclareQueue { name, options, settings }), Arc::default())
    }
}
