//! Moments at which everything is answered, and the end of a history: what the broker says of itself is held against the account.

use std::collections::BTreeMap;

use ciphermq_broker::Status;

use crate::faults::{End, Fault};
use crate::history::History;
use crate::model::{Certainty, Copy, Name, Place, QUEUES, name};

/// Steps of the journal after which a store at rest has dropped what it can.
const STEPS_TO_REST: usize = 200;

impl History {
    /// Compares what can be seen without touching anything.
    pub(crate) fn look(&mut self) {
        if !self.is_at_rest() {
            self.write_journal();
        }
        if self.is_broken() || !self.is_at_rest() {
            return;
        }
        self.say("somebody looks".into());
        self.coverage.quiet_moments += 1;
        for view in self.running().observer.list_queues(None, usize::MAX) {
            let queue = &self.model.queues[name(&view.queue)];
            let (sure, all) = (queue.sure(), queue.copies.len() as u64);
            let has = view.ready + view.leased + view.delayed;
            assert!((sure..=all).contains(&has), "{view:?}: there are {sure} to {all} messages");
            let delayed = queue.copies.values().filter(|copy| matches!(copy.place, Place::Delayed { .. })).count();
            assert!(view.delayed == delayed as u64 || sure < all, "{view:?}: {delayed} are delayed");
        }
        self.look_at_one();
    }

    fn look_at_one(&mut self) {
        let is_exact = self.model.known.values().all(|known| known.since.is_some()) && self.model.window_ms > 1_000_000;
        if self.model.sends.is_empty() || !is_exact || self.model.ids_max < 1_000_000 {
            return;
        }
        let ids: Vec<String> = self.model.sends.iter().map(|send| send.id.clone()).collect();
        let Some(id) = self.pick(&ids) else { return };
        let mut expected: BTreeMap<Name, usize> = BTreeMap::new();
        for (name, queue) in &self.model.queues {
            if queue.sure() < queue.copies.len() as u64 {
                return;
            }
            let copies = queue.copies.values().filter(|copy| self.model.sends[copy.send].id == id).count();
            if copies > 0 {
                expected.insert(name, copies);
            }
        }
        let copies = self.running().observer.status(&id).unwrap_or_default();
        if self.is_broken() {
            return;
        }
        let mut seen: BTreeMap<Name, usize> = BTreeMap::new();
        for copy in copies.iter().filter(|copy| copy.status != Status::Acknowledged) {
            *seen.entry(name(&copy.queue)).or_default() += 1;
        }
        assert_eq!(seen, expected, "where {id} is");
    }

    /// The end: everything there is is delivered and acknowledged, and the store is empty.
    pub(crate) fn finish(&mut self) {
        self.say("-- the end of the history".into());
        match self.fault {
            Fault::Full { .. } => self.make_room(),
            _ => self.disarm(),
        }
        while !self.running().clients.is_empty() {
            self.end_client(0);
        }
        self.write_journal();
        assert!(!self.is_broken(), "the journal has failed: {:?}", self.running().broker.journal_failure());
        self.connect();
        self.close();
        self.drain();
        self.come_to_rest();
        let observer = &self.running().observer;
        assert_eq!(observer.store_bytes().0, 0, "nothing is stored, nothing reserved");
        self.running().broker.close();
        self.hear();
        let image = self.disk.disk.crash(ciphermq_journal::Crash::Kill);
        self.reopen_after(image, End::Closed);
        let left: usize = self.model.queues.values().map(|queue| queue.copies.len()).sum();
        assert_eq!(left, 0, "everything was acknowledged");
    }

    /// Delivers and acknowledges all there is.
    fn drain(&mut self) {
        let queues: Vec<Name> = self.model.queues.keys().copied().collect();
        assert!(queues.contains(&QUEUES[0]), "the default queue is always there");
        for queue in queues {
            let at = self.at();
            while let Some(delivery) = self.client(0).link.fetch(queue, None, at).expect("the queue is there") {
                self.delivered(0, delivery, true);
                self.ack_last();
            }
            // What was found after a restart is certain.
            let is_left = |copy: &&Copy| copy.place == Place::Ready && copy.certainty == Certainty::There;
            let left = self.model.queues[queue].copies.values().find(is_left);
            assert!(left.is_none(), "{queue} has nothing more to give, but there is {left:?}");
        }
        self.submit(0);
        self.write_journal();
        assert!(self.pending.is_empty() && !self.is_broken(), "a healthy broker answers");
    }

    /// With nothing to do the log has at most twice what is of use, and two segments; and a third if what was written since the last
    /// one was dropped does not pay for dropping another yet (seed 279978573224: segments of two blocks, one of them a header).
    fn come_to_rest(&mut self) {
        for _ in 0..STEPS_TO_REST {
            self.running().broker.write_journal();
        }
        let figures = self.running().broker.journal_figures();
        let longest = self.disk.disk.files().iter().map(|(_, bytes)| bytes.len() as u64).max().unwrap_or(0);
        let segment = longest.max(self.journal.segment_bytes_max);
        let bound = 2 * figures.live_bytes + 3 * segment;
        assert!(figures.disk_bytes <= bound, "{figures:?}: more than {bound} bytes, segments of {segment}");
    }
}
