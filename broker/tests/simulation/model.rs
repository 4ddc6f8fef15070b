//! What the broker has answered so far, in plain maps: messages by queue, topology, known ids. It knows no positions, segments,
//! batches or bodies on disk.

use std::collections::{BTreeMap, BTreeSet};

use ciphermq_broker::limits::ANNOUNCEMENTS_PER_CLIENT_MAX;
use ciphermq_broker::{Error, Reason};

pub(crate) use crate::terms::*;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) sends: Vec<Send>,
    pub(crate) queues: BTreeMap<Name, Queue>,
    pub(crate) exchanges: BTreeMap<Name, u32>,
    /// Exchange, key, queue.
    pub(crate) bindings: BTreeSet<(Name, Name, Name)>,
    /// The numbers of the announcements of each client that are kept, ascending; of none where there are none.
    pub(crate) announced: BTreeMap<Name, Vec<u64>>,
    pub(crate) known: BTreeMap<(u32, String), Known>,
    pub(crate) ids: u64,
    /// So many more may have been published.
    pub(crate) ids_undecided: u64,
    pub(crate) window_ms: u64,
    pub(crate) ids_max: u64,
    /// The latest time of a record in the log.
    pub(crate) clock: u64,
    default_attempts: u32,
    serials: u32,
    copies: u64,
    /// Attempts whose records may not be on disk.
    pub(crate) unsynced: Vec<(QueueRef, u64, u32)>,
    /// What became of copies that were moved.
    moved: BTreeMap<u64, (QueueRef, u64)>,
}

/// What the application of an entry did, as far as it is counted or compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Published,
    Duplicate,
    Settled,
    Moved,
    /// Messages surely removed, and perhaps removed.
    Purged(u64, u64),
    Changed,
    Announced,
}

/// The window is kept to the second: an id may be known that much longer.
const WINDOW_TOLERANCE_MS: u64 = 2_000;

impl Model {
    pub(crate) fn new(window_ms: u64, ids_max: u64, default_attempts: u32) -> Model {
        let mut model = Model {
            sends: Vec::new(),
            moved: BTreeMap::new(),
            queues: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            bindings: BTreeSet::new(),
            announced: BTreeMap::new(),
            known: BTreeMap::new(),
            ids: 0,
            ids_undecided: 0,
            window_ms,
            ids_max,
            clock: 0,
            default_attempts,
            serials: 0,
            copies: 0,
            unsynced: Vec::new(),
        };
        model.declare_exchange(DEFAULT_EXCHANGE);
        model.declare_queue(DEFAULT_QUEUE, model.settings(DEFAULT_QUEUE, None, None, 0));
        model.bindings.insert((DEFAULT_EXCHANGE, DEFAULT_KEY, DEFAULT_QUEUE));
        model
    }

    /// Settings of a queue that is declared with these wishes.
    pub(crate) fn settings(
        &self,
        of: &str,
        attempts: Option<u32>,
        dead_letter: Option<Name>,
        max_messages: u64,
    ) -> Settings {
        Settings {
            max_attempts: attempts.unwrap_or(self.default_attempts),
            dead_letter: Some(dead_letter.unwrap_or_else(|| name(&format!("{of}.dlq")))),
            max_messages,
        }
    }

    pub(crate) fn queue_ref(&self, name: Name) -> Option<QueueRef> {
        self.queues.get(name).map(|queue| QueueRef { name, serial: queue.serial })
    }

    pub(crate) fn queue(&self, at: QueueRef) -> Option<&Queue> {
        self.queues.get(at.name).filter(|queue| queue.serial == at.serial)
    }

    pub(crate) fn queue_mut(&mut self, at: QueueRef) -> Option<&mut Queue> {
        self.queues.get_mut(at.name).filter(|queue| queue.serial == at.serial)
    }

    pub(crate) fn copy(&self, at: QueueRef, copy: u64) -> Option<&Copy> {
        self.queue(at)?.copies.get(&copy)
    }

    pub(crate) fn copy_mut(&mut self, at: QueueRef, copy: u64) -> Option<&mut Copy> {
        self.queue_mut(at)?.copies.get_mut(&copy)
    }

    /// The queues behind a key; `None` where the broker has to refuse.
    pub(crate) fn route(&self, exchange: Name, key: Name) -> Option<Vec<QueueRef>> {
        self.exchanges.get(exchange)?;
        let bound = self.bindings.iter().filter(|(from, by, _)| *from == exchange && *by == key);
        let route: Vec<_> = bound.filter_map(|(_, _, queue)| self.queue_ref(queue)).collect();
        (!route.is_empty()).then_some(route)
    }

    /// Whether the id of a send is known when its turn in the log comes: records with later times may stand in front of it.
    pub(crate) fn knowledge(&self, send: usize) -> Knowledge {
        let send = &self.sends[send];
        let Some(known) = self.known.get(&(send.exchange.1, send.id.clone())) else { return Knowledge::Unknown };
        let is_over = |since: u64| send.at.saturating_sub(since) >= self.window_ms.saturating_add(WINDOW_TOLERANCE_MS);
        match known.since {
            Some((since, ids))
                if self.clock.max(send.at) - since < self.window_ms
                    && self.ids + self.ids_undecided - ids < self.ids_max =>
            {
                Knowledge::Known
            }
            since => {
                let all = since.map(|(since, _)| since).into_iter().chain(known.perhaps_since);
                if all.into_iter().all(is_over) { Knowledge::Unknown } else { Knowledge::Perhaps }
            }
        }
    }

    /// Its id is known from now on.
    pub(crate) fn remember(&mut self, send: usize, certainly: bool) {
        let Send { exchange, id, at, .. } = &self.sends[send];
        let known = self.known.entry((exchange.1, id.clone())).or_default();
        if certainly {
            known.since = Some((*at, self.ids));
        }
        // Behind a later record in the log it is kept as long as that one.
        known.perhaps_since = Some(self.clock.max(*at));
        self.ids += 1;
    }

    /// Nothing is certain of ids any more: the record of some may be damaged.
    pub(crate) fn doubt_ids(&mut self) {
        for known in self.known.values_mut() {
            *known = Known { since: None, perhaps_since: Some(u64::MAX) };
        }
    }

    /// A message comes into a queue, if that is still there.
    pub(crate) fn arrive(
        &mut self,
        at: QueueRef,
        rank: Rank,
        send: usize,
        from: Option<(Name, Reason)>,
        now: u64,
    ) -> Option<&mut Copy> {
        let copy = self.new_copy(rank, send, from, now);
        let queue = self.queue_mut(at)?;
        Some(queue.copies.entry(copy.number).or_insert(copy))
    }

    /// A message that is in no queue yet.
    pub(crate) fn new_copy(&mut self, rank: Rank, send: usize, from: Option<(Name, Reason)>, now: u64) -> Copy {
        self.copies += 1;
        Copy {
            number: self.copies,
            rank,
            send,
            from,
            attempts: 0,
            attempts_on_disk: 0,
            ready_since: now,
            place: Place::Ready,
            certainty: Certainty::There,
        }
    }

    /// An entry was committed. `now` is when its record was made.
    pub(crate) fn apply(&mut self, rank: Rank, entry: &Entry, refused: Option<&Error>, now: u64) -> Effect {
        match entry {
            Entry::Publish { send } => self.publish(rank, *send),
            Entry::Settle { queue, copy } => {
                self.synced();
                // One that was moved in front of it is settled where it is now.
                let (mut queue, mut copy) = (queue, copy);
                while let Some((to, dead)) = self.moved.get(copy) {
                    (queue, copy) = (to, dead);
                }
                let (queue, copy) = (*queue, *copy);
                let removed = self.queue_mut(queue).and_then(|queue| queue.copies.remove(&copy));
                if removed.is_some() { Effect::Settled } else { Effect::None }
            }
            Entry::Move { queue, copy, reason, to, declares } => {
                self.bury(rank, (*queue, *copy), *reason, to, *declares, now)
            }
            Entry::Attempts { queue, copy, attempts } => {
                self.unsynced.push((*queue, *copy, *attempts));
                Effect::None
            }
            Entry::Change(change) if refused.is_none() => {
                self.synced();
                self.change(change)
            }
            Entry::Change(_) => Effect::None,
        }
    }

    fn publish(&mut self, rank: Rank, send: usize) -> Effect {
        self.clock = self.clock.max(self.sends[send].at);
        let knowledge = self.knowledge(send);
        if knowledge == Knowledge::Known {
            return Effect::Duplicate;
        }
        self.store(rank, send, knowledge == Knowledge::Unknown);
        Effect::Published
    }

    /// A publish that may have been refused, or not.
    pub(crate) fn publish_perhaps(&mut self, rank: Rank, send: usize) {
        if self.knowledge(send) != Knowledge::Known {
            self.store(rank, send, false);
        }
    }

    fn store(&mut self, rank: Rank, send: usize, is_new: bool) {
        self.remember(send, is_new);
        if is_new {
            self.synced();
        }
        let at = self.sends[send].at;
        for queue in self.sends[send].route.clone() {
            if let Some(copy) = self.arrive(queue, rank, send, None, at)
                && !is_new
            {
                copy.certainty = Certainty::IfNotKnown;
            }
        }
    }

    fn bury(
        &mut self,
        rank: Rank,
        (queue, copy): (QueueRef, u64),
        reason: Reason,
        to: Name,
        declares: bool,
        now: u64,
    ) -> Effect {
        if declares && !self.queues.contains_key(to) {
            self.declare_queue(to, DEAD_LETTER_SETTINGS);
        }
        let Some(target) = self.queue_ref(to) else {
            // Deleted in between: it stays where it is.
            if let Some(copy) = self.copy_mut(queue, copy) {
                copy.place = Place::Ready;
            }
            return Effect::None;
        };
        self.synced();
        let Some(dead) = self.queue_mut(queue).and_then(|queue| queue.copies.remove(&copy)) else {
            return Effect::None;
        };
        let arrived =
            self.arrive(target, rank, dead.send, Some((queue.name, reason)), now).map(|arrived| arrived.number);
        self.moved.extend(arrived.map(|arrived| (copy, (target, arrived))));
        Effect::Moved
    }

    /// Everything in the log so far is on disk.
    pub(crate) fn synced(&mut self) {
        for (queue, copy, attempts) in std::mem::take(&mut self.unsynced) {
            if let Some(copy) = self.copy_mut(queue, copy) {
                copy.attempts_on_disk = copy.attempts_on_disk.max(attempts);
            }
        }
    }

    /// A change was made.
    pub(crate) fn change(&mut self, change: &Change) -> Effect {
        match change {
            Change::DeclareQueue { name, settings } => {
                if !self.queues.contains_key(name) {
                    self.declare_queue(name, settings.clone());
                }
            }
            Change::DeclareExchange { name } => {
                if !self.exchanges.contains_key(name) {
                    self.declare_exchange(name);
                }
            }
            Change::Bind { exchange, queue, key } => {
                if self.exchanges.contains_key(exchange) && self.queues.contains_key(queue) {
                    self.bindings.insert((exchange, key, queue));
                }
            }
            Change::Unbind { exchange, queue, key } => {
                self.bindings.remove(&(*exchange, *key, *queue));
            }
            Change::DeleteQueue { name, force } => {
                let left = self.queues.remove(name).map_or(0, |queue| queue.sure());
                assert!(*force || left == 0, "{name} was deleted with {left} messages, and nobody forced it");
                self.bindings.retain(|(_, _, queue)| queue != name);
            }
            Change::DeleteExchange { name } => {
                self.exchanges.remove(name);
                self.bindings.retain(|(exchange, _, _)| exchange != name);
            }
            Change::Purge { name } => return self.purge(name),
            Change::Announce { client, seq } => {
                let seqs = self.announced.entry(client).or_default();
                seqs.push(*seq);
                seqs.drain(..seqs.len().saturating_sub(ANNOUNCEMENTS_PER_CLIENT_MAX));
                return Effect::Announced;
            }
        }
        Effect::Changed
    }

    fn purge(&mut self, name: Name) -> Effect {
        let Some(queue) = self.queues.get_mut(name) else { return Effect::None };
        let is_certain = queue.is_only_fetched;
        let is_removed = |copy: &Copy| matches!(copy.place, Place::Ready | Place::Delayed { .. });
        let (mut sure, mut perhaps) = (0, 0);
        for copy in queue.copies.values_mut().filter(|copy| is_removed(copy)) {
            // What waits in the outbox of a consumer is leased, and stays.
            let could_stay = !is_certain && copy.place == Place::Ready;
            if could_stay || copy.certainty != Certainty::There {
                perhaps += 1;
                copy.certainty = Certainty::IfNotPurged;
            } else {
                sure += 1;
            }
        }
        queue.copies.retain(|_, copy| !is_removed(copy) || (!is_certain && copy.place == Place::Ready));
        Effect::Purged(sure, perhaps)
    }

    pub(crate) fn declare_queue(&mut self, name: Name, settings: Settings) {
        self.serials += 1;
        let queue = Queue { serial: self.serials, settings, copies: BTreeMap::new(), is_only_fetched: true };
        self.queues.insert(name, queue);
    }

    pub(crate) fn declare_exchange(&mut self, name: Name) {
        self.serials += 1;
        self.exchanges.insert(name, self.serials);
    }

    /// A message was handed over, so it is certain; so are the other copies of its publish.
    pub(crate) fn is_certain_now(&mut self, queue: QueueRef, copy: u64) {
        let Some(seen) = self.copy_mut(queue, copy) else { return };
        let before = std::mem::replace(&mut seen.certainty, Certainty::There);
        let send = seen.send;
        if before == Certainty::IfNotKnown {
            let copies = self.queues.values_mut().flat_map(|queue| queue.copies.values_mut());
            for other in copies.filter(|other| other.send == send && other.certainty == before) {
                other.certainty = Certainty::There;
            }
        }
    }

    /// Puts a message back that was leased; returns what has to be journaled. As the queue does: what has used up its attempts
    /// leaves, however its lease ended.
    pub(crate) fn put_back(
        &mut self,
        at: QueueRef,
        number: u64,
        is_tried: bool,
        delay_ms: u64,
        now: u64,
    ) -> Option<Entry> {
        let Settings { max_attempts, dead_letter, .. } = self.queue(at)?.settings;
        let copy = self.copy_mut(at, number)?;
        copy.attempts += u32::from(is_tried);
        copy.ready_since = now;
        let attempts = copy.attempts;
        if max_attempts > 0 && attempts >= max_attempts {
            copy.place = Place::Leaving;
            let to = dead_letter?;
            let declares = !self.queues.contains_key(to);
            return Some(Entry::Move { queue: at, copy: number, reason: Reason::Attempts, to, declares });
        }
        copy.place = if delay_ms > 0 { Place::Delayed { until: now + delay_ms } } else { Place::Ready };
        is_tried.then_some(Entry::Attempts { queue: at, copy: number, attempts })
    }
}
