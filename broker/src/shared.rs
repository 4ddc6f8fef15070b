use std::sync::Arc;

use ciphermq_journal::{Doorbell, Journal};

use crate::Timestamp;
use crate::event::{Event, Record};
use crate::loader::Loader;
use crate::sessions::Sessions;
use crate::state::State;

/// What the broker and its links have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) journal: Journal<Record>,
    pub(crate) sessions: Sessions,
    /// Nobody waits for the broker's own records; the journal wants a bell all the same.
    own_bell: Arc<Doorbell>,
}

impl Shared {
    pub(crate) fn new(state: Arc<State>, journal: Journal<Record>) -> Shared {
        Shared { state, journal, sessions: Sessions::default(), own_bell: Arc::new(Doorbell::new()) }
    }

    /// For whoever needs bodies that left memory.
    pub(crate) fn loader(&self) -> Loader {
        Loader::new(self.journal.reader())
    }

    /// Journals the broker's own records. A poisoned journal refuses them; nothing is lost by that: the messages
    /// they were to move become ready again.
    pub(crate) fn record(&self, now: Timestamp, events: impl IntoIterator<Item = Event>) {
        let mut records: Vec<Record> = events.into_iter().map(|event| Record { at: now, event }).collect();
        if records.is_empty() {
            return;
        }
        if self.journal.submit(&mut records, &self.own_bell).is_err() {
            records.into_iter().for_each(|record| self.state.refuse(record));
        }
    }
}
