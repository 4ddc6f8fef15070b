//! One history: a broker, its clients and its disk from the first declaration to the empty store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ciphermq_broker::{Broker, BrokerOptions, Delivery, Link, Returned, Timestamp};
use ciphermq_journal::{Doorbell, Durability, Health, JournalOptions, MemoryDisk, Receipt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::coverage::Coverage;
use crate::disk::WatchedDisk;
use crate::faults::Fault;
use crate::model::{Change, DEAD_LETTER_SETTINGS, Effect, Entry, Model, Name, Place, QueueRef, Rank};

/// Operations that are shown when a history fails.
const TRACE: usize = 40;
pub(crate) const LEASE_MS: u64 = 500;
pub(crate) const MAX_ATTEMPTS: u32 = 3;

pub(crate) struct History {
    pub(crate) random: StdRng,
    pub(crate) options: BrokerOptions,
    pub(crate) journal: JournalOptions,
    /// Whether the disk may become full. A full disk records no attempts, and moves no message: none wears out in such a history.
    pub(crate) may_fill: bool,
    /// Attempts were used up while the disk was full.
    pub(crate) has_untold_attempts: bool,
    /// Bytes of the longest usual body.
    pub(crate) body: usize,
    /// Milliseconds since 1970, as far as the broker knows.
    pub(crate) now: u64,
    pub(crate) disk: WatchedDisk,
    pub(crate) running: Option<Running>,
    pub(crate) model: Model,
    /// Submitted and not answered, in the order of the log.
    pub(crate) pending: VecDeque<Submission>,
    pub(crate) submissions: u64,
    pub(crate) batches: u64,
    pub(crate) fault: Fault,
    /// The disk was full, and has room: so many were refused since, one after the other.
    pub(crate) refused_with_room: Option<u32>,
    /// Sends that were not answered when the broker ended: their publishers try again.
    pub(crate) unanswered: Vec<usize>,
    pub(crate) connections: u64,
    pub(crate) operations: u64,
    /// The longest time between the making of a record and its commit: a lease that begins with a commit begins with the time of
    /// its record.
    pub(crate) lag_ms: u64,
    pub(crate) clients_wanted: usize,
    pub(crate) trace: VecDeque<String>,
    /// `CIPHERMQ_TRACE`: show all of it, and what became of each record.
    is_told_all: bool,
    pub(crate) coverage: Coverage,
}

/// A broker that runs, and who is connected.
pub(crate) struct Running {
    pub(crate) clients: Vec<Client>,
    /// Looks, and never changes anything.
    pub(crate) observer: Link,
    pub(crate) broker: Broker,
    /// Reads of the disk when it had been opened.
    pub(crate) reads: u64,
}

pub(crate) struct Client {
    pub(crate) link: Link,
    pub(crate) number: u64,
    pub(crate) session: Option<ciphermq_broker::SessionId>,
    pub(crate) subscribed: BTreeMap<Name, QueueRef>,
    /// In the order they were taken.
    pub(crate) held: Vec<Held>,
    /// Collected, not submitted.
    pub(crate) collected: Vec<Entry>,
    /// When it began to collect that.
    pub(crate) collects_since: u64,
    pub(crate) is_taken_over: bool,
}

pub(crate) struct Held {
    pub(crate) queue: QueueRef,
    pub(crate) copy: u64,
    pub(crate) delivery: Delivery,
}

/// What went to the journal at once.
pub(crate) struct Submission {
    pub(crate) number: u64,
    /// When its first record was made.
    pub(crate) at: u64,
    pub(crate) entries: Vec<Entry>,
    /// `None` for what the broker records on its own: all of it has one rank.
    pub(crate) receipt: Option<Receipt>,
    pub(crate) returned: Option<Returned>,
}

/// What is known of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The broker's own: nobody has its receipt.
    Untold,
    Waits,
    Good,
    Bad,
}

use Outcome::{Bad, Good, Untold, Waits};

impl Submission {
    pub(crate) fn rank(&self, index: usize) -> Rank {
        (self.number, if self.receipt.is_some() { index as u32 } else { 0 })
    }
}

impl History {
    pub(crate) fn new(seed: u64) -> History {
        let mut random = StdRng::seed_from_u64(seed);
        let mut any = |all: &[u64]| all[random.random_range(0..all.len())];
        let (window_ms, ids_max) = match any(&[0, 0, 0, 1, 2]) {
            0 => (24 * 3_600_000, 1_000_000),
            1 => (3_000, 1_000_000),
            _ => (24 * 3_600_000, 24),
        };
        let segment = any(&[8 << 10, 8 << 10, 12 << 10, 16 << 10, 32 << 10]);
        let journal = JournalOptions {
            segment_bytes_min: segment,
            segment_bytes_max: segment * any(&[1, 2, 4]),
            batch_bytes_max: any(&[1, 4 << 10, 64 << 10]) as usize,
            carry_bytes_per_step: any(&[1 << 10, 4 << 10, 64 << 10]) as usize,
            salt_seed: Some(seed),
            ..JournalOptions::default()
        };
        let may_fill = any(&[0, 0, 0, 1]) == 1;
        let max_attempts = if may_fill { 0 } else { MAX_ATTEMPTS };
        let options = BrokerOptions {
            lease_ms: LEASE_MS,
            max_attempts,
            resident_bytes_max: any(&[0, 2_000, 1 << 30]),
            dedupe_window_ms: window_ms,
            dedupe_ids_max: ids_max as usize,
            durability: [Durability::Synced, Durability::Written, Durability::Within(50)]
                [any(&[0, 0, 0, 0, 1, 2]) as usize],
            hash_key: u128::from(seed),
            ..BrokerOptions::default()
        };
        let body = any(&[60, 200, 1_500]) as usize;
        let clients_wanted = any(&[2, 3, 4, 6]) as usize;
        History {
            random,
            options,
            journal,
            may_fill,
            has_untold_attempts: false,
            body,
            now: 1_700_000_000_000,
            disk: WatchedDisk::new(MemoryDisk::new()),
            running: None,
            model: Model::new(window_ms, ids_max, max_attempts),
            pending: VecDeque::new(),
            submissions: 0,
            batches: 0,
            fault: Fault::None,
            refused_with_room: None,
            unanswered: Vec::new(),
            connections: 0,
            operations: 0,
            lag_ms: 0,
            clients_wanted,
            trace: VecDeque::new(),
            is_told_all: std::env::var_os("CIPHERMQ_TRACE").is_some(),
            coverage: Coverage::default(),
        }
    }

    /// From the first start to the empty store. Panics where a promise is broken.
    pub(crate) fn run(&mut self) {
        let operations = self.random.random_range(30..=300);
        self.reopen(MemoryDisk::new());
        while self.operations < operations {
            self.operations += 1;
            self.operate();
            self.end_of_operation();
        }
        self.finish();
    }

    /// After each operation: has the fault struck?
    pub(crate) fn end_of_operation(&mut self) {
        if self.is_broken() {
            self.look_while_broken();
            self.crash();
        } else {
            self.apply_fault();
        }
    }

    pub(crate) fn say(&mut self, what: String) {
        if self.trace.len() == TRACE && !self.is_told_all {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>4} {:>6} ms  {what}", self.operations, self.now - 1_700_000_000_000));
    }

    pub(crate) fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_range(0..one_in) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.random.random_range(0..from.len())].clone()) }
    }

    pub(crate) fn at(&self) -> Timestamp {
        Timestamp(self.now)
    }

    pub(crate) fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("operations happen while the broker runs")
    }

    pub(crate) fn client(&mut self, index: usize) -> &mut Client {
        &mut self.running().clients[index]
    }

    pub(crate) fn any_client(&mut self) -> usize {
        let clients = self.running().clients.len();
        self.random.random_range(0..clients)
    }

    /// Stopped or poisoned, or the disk cannot be read: what calls return now is not held against the broker.
    pub(crate) fn is_broken(&self) -> bool {
        if self.disk.reads_failed() > 0 {
            return true;
        }
        let is_poisoned = |running: &Running| running.broker.health() == Health::Poisoned;
        self.disk.disk.is_stopped() || self.running.as_ref().is_some_and(is_poisoned)
    }

    pub(crate) fn connect(&mut self) {
        self.connections += 1;
        let (number, now) = (self.connections, self.now);
        let link = self.running().broker.connect(Arc::new(Doorbell::new()));
        self.running().clients.push(Client {
            link,
            number,
            session: None,
            subscribed: BTreeMap::new(),
            held: Vec::new(),
            collected: Vec::new(),
            collects_since: now,
            is_taken_over: false,
        });
    }

    /// The client has done what is recorded when it submits.
    pub(crate) fn collect(&mut self, client: usize, entries: impl IntoIterator<Item = Entry>) {
        let now = self.now;
        let client = self.client(client);
        if client.collected.is_empty() {
            client.collects_since = now;
        }
        client.collected.extend(entries);
    }

    /// Gives to the log what the client has collected.
    pub(crate) fn submit(&mut self, client: usize) {
        let client = &mut self.running.as_mut().expect("runs").clients[client];
        let entries = std::mem::take(&mut client.collected);
        let at = client.collects_since;
        match client.link.submit() {
            None => {
                let is_untold = |entry: &Entry| matches!(entry, Entry::Attempts { .. }) && self.may_be_full();
                assert!(entries.iter().all(is_untold) || self.is_broken(), "nothing to submit of {entries:?}");
                self.has_untold_attempts |= !entries.is_empty();
            }
            Some(Ok(receipt)) => self.submitted(at, entries, Some(receipt), None),
            Some(Err(_)) => assert!(self.is_broken(), "a healthy journal refused a submission"),
        }
    }

    pub(crate) fn submitted(
        &mut self,
        at: u64,
        mut entries: Vec<Entry>,
        receipt: Option<Receipt>,
        returned: Option<Returned>,
    ) {
        if entries.is_empty() && receipt.is_none() {
            return;
        }
        if receipt.is_none() {
            // Their order is the broker's; attempts behind the others are the least it promises.
            entries.sort_by_key(|entry| matches!(entry, Entry::Attempts { .. }));
        }
        self.submissions += 1;
        self.pending.push_back(Submission { number: self.submissions, at, entries, receipt, returned });
    }

    /// Lets the journal work, and believes its receipts.
    pub(crate) fn write_journal(&mut self) {
        self.running().broker.write_journal();
        self.hear();
    }

    /// Applies to the model what was answered: a stretch from the front of the log.
    pub(crate) fn hear(&mut self) {
        if !self.is_broken() && self.outcomes().contains(&Waits) {
            assert!(self.may_be_full(), "the journal leaves submissions waiting");
            self.coverage.waited_for_room += 1;
            self.room_returns();
        }
        let (broken, outcomes) = (self.is_broken(), self.outcomes());
        assert!(broken || !outcomes.contains(&Waits), "there is room, and submissions wait");
        let last_good = outcomes.iter().rposition(|outcome| *outcome == Good);
        let heard = if broken { last_good.map_or(0, |last| last + 1) } else { self.pending.len() };
        for outcome in outcomes.into_iter().take(heard) {
            let submission = self.pending.pop_front().expect("counted");
            let is_right = outcome != Bad || self.may_be_full();
            assert!(is_right, "submission {} was refused, and the journal works", submission.number);
            self.apply(&submission, outcome == Bad);
        }
        self.forget_ended_leases();
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let link = &self.running.as_ref().expect("runs").observer;
        let outcome = |submission: &Submission| match submission.receipt.map(|receipt| link.outcome(receipt)) {
            None => Untold,
            Some(None) => Waits,
            Some(Some(Ok(()))) => Good,
            Some(Some(Err(_))) => Bad,
        };
        self.pending.iter().map(outcome).collect()
    }

    /// `is_refused`: the disk was found full after the submission was taken in, which refuses publishes of it, and nothing else.
    fn apply(&mut self, submission: &Submission, is_refused: bool) {
        self.lag_ms = self.lag_ms.max(self.now - submission.at);
        self.coverage.refused_late += u64::from(is_refused);
        if is_refused {
            self.refused_for_room();
        }
        let is_all_refused = is_refused && self.is_one_publish(submission);
        for (index, entry) in submission.entries.iter().enumerate() {
            if matches!(entry, Entry::Attempts { .. }) && self.may_be_full() {
                self.has_untold_attempts = true;
                continue;
            }
            if is_refused && matches!(entry, Entry::Move { .. } | Entry::Change(_)) {
                assert_eq!(submission.entries.len(), 1, "submitted by itself on a full disk");
                self.not_done(entry);
                continue;
            }
            if let Entry::Publish { send } = entry {
                self.unanswered.retain(|other| other != send);
                if is_refused {
                    self.unanswered.push(*send);
                    if !is_all_refused {
                        self.model.publish_perhaps(submission.rank(index), *send);
                    }
                    continue;
                }
            }
            let refused = submission.returned.as_ref().and_then(Returned::refused);
            let refused = refused.filter(|_| matches!(entry, Entry::Change(_)));
            let effect = self.model.apply(submission.rank(index), entry, refused, submission.at);
            if self.is_told_all {
                self.say(format!("... {:?} {entry:?}: {effect:?}", submission.rank(index)));
            }
            self.coverage.count(&effect);
            if effect == Effect::Published {
                self.refused_with_room = self.refused_with_room.map(|_| 0);
            }
            if let Effect::Purged(sure, perhaps) = effect {
                let purged = submission.returned.as_ref().map_or(0, Returned::purged);
                let range = sure..=sure + perhaps;
                assert!(range.contains(&purged), "a purge removed {purged} messages, {range:?} were there");
            }
        }
    }

    /// A full disk has no room for a change or a dead letter; for its queue perhaps.
    fn not_done(&mut self, entry: &Entry) {
        let Entry::Move { queue, copy, to, .. } = entry else { return };
        let now = self.now;
        if let Some(copy) = self.model.copy_mut(*queue, *copy) {
            (copy.place, copy.ready_since) = (Place::Ready, now);
        }
        if self.running().observer.is_queue(to) && !self.model.queues.contains_key(to) {
            self.model.declare_queue(to, DEAD_LETTER_SETTINGS);
        }
    }

    /// Whether the publishes of a submission are one, or one batch: if one is refused, all are.
    fn is_one_publish(&self, submission: &Submission) -> bool {
        let mut sends = submission.entries.iter().filter_map(|entry| match entry {
            Entry::Publish { send } => Some(self.model.sends[*send].batch),
            _ => None,
        });
        let first = sends.next().flatten();
        sends.all(|batch| first.is_some() && batch == first)
    }

    /// Leases on what has left its queue are over.
    pub(crate) fn forget_ended_leases(&mut self) {
        let Some(running) = &mut self.running else { return };
        for client in &mut running.clients {
            let number = client.number;
            let model = &self.model;
            client.held.retain(|held| {
                let place = model.copy(held.queue, held.copy).map(|copy| copy.place);
                matches!(place, Some(Place::Leased { connection, .. }) if connection == number)
            });
        }
    }

    /// Queues and exchanges about which something is on its way.
    pub(crate) fn undecided(&self) -> BTreeSet<Name> {
        let collected = self.running.iter().flat_map(|running| &running.clients).flat_map(|client| &client.collected);
        let entries = self.pending.iter().flat_map(|submission| &submission.entries).chain(collected);
        entries
            .flat_map(|entry| match entry {
                Entry::Move { queue, to, .. } => vec![queue.name, to],
                Entry::Change(
                    Change::DeclareQueue { name, .. } | Change::DeleteQueue { name, .. } | Change::Purge { name },
                ) => {
                    vec![*name]
                }
                Entry::Change(Change::Announce { client, .. }) => vec![*client],
                Entry::Change(Change::DeclareExchange { name } | Change::DeleteExchange { name }) => vec![*name],
                Entry::Change(Change::Bind { exchange, queue, .. } | Change::Unbind { exchange, queue, .. }) => {
                    vec![*exchange, *queue]
                }
                _ => Vec::new(),
            })
            .collect()
    }
}
