//! The account after a restart: what must be there, what may be there, and that nothing else is.
//!
//! What was answered must be there. What was on its way when the broker ended may have happened or not, but each record whole, a
//! batch whole, a move at both its ends or at none. After this nothing is undecided: what was found is what counts from then on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ciphermq_broker::Recovered;

use crate::faults::End;
use crate::history::{History, Submission};
use crate::model::{Certainty, Change, Copy, DEAD_LETTER_SETTINGS, Entry, Knowledge, Name, Place, QueueRef, Rank};
use crate::recovery::{Found, Observed};

/// A message that may be in a queue.
struct Candidate {
    copy: Copy,
    /// It must be there.
    is_required: bool,
    /// A purge that is undecided may have taken it.
    is_purgeable: bool,
    is_found: bool,
}

type Candidates = BTreeMap<Name, Vec<Candidate>>;

/// A move that is undecided: the message is at one of both ends.
struct Undecided {
    source: (QueueRef, u64),
    target: (Name, Rank),
    send: usize,
}

impl History {
    pub(crate) fn settle_accounts(&mut self, observed: Observed, end: End, recovered: &Recovered) {
        let pending = std::mem::take(&mut self.pending);
        self.model.clock = self.now;
        self.model.unsynced.clear();
        let publishes =
            pending.iter().flat_map(|it| &it.entries).filter(|entry| matches!(entry, Entry::Publish { .. }));
        self.model.ids_undecided = publishes.count() as u64;
        self.added(&pending, &observed);
        let (mut candidates, moves) = self.candidates(&pending);
        self.removed(&pending, &observed);
        self.compare_topology(&observed);
        candidates.retain(|name, _| self.model.queues.contains_key(name));
        let mut affected = BTreeSet::new();
        for (name, found) in &observed.queues {
            let copies = self.match_queue(name, found, candidates.entry(name).or_default(), end, &mut affected);
            let queue = self.model.queues.get_mut(name).expect("compared");
            queue.copies = copies.into_iter().map(|copy| (copy.number, copy)).collect();
            queue.is_only_fetched = true;
        }
        self.has_untold_attempts = false;
        self.check_damage(&affected, end, recovered);
        if end != End::Flipped {
            check_moves(&moves, &candidates);
        }
        self.check_publishes(&pending, &candidates);
        self.model.ids_undecided = 0;
    }

    // ---- topology

    /// Additions that were on their way and are there now.
    fn added(&mut self, pending: &VecDeque<Submission>, observed: &Observed) {
        for entry in pending.iter().flat_map(|submission| &submission.entries) {
            match entry {
                Entry::Move { to, declares: true, .. } if is_new(&self.model.queues, observed, to) => {
                    self.model.declare_queue(to, DEAD_LETTER_SETTINGS);
                }
                Entry::Change(Change::DeclareQueue { name, settings })
                    if is_new(&self.model.queues, observed, name) =>
                {
                    self.model.declare_queue(name, settings.clone());
                }
                Entry::Change(Change::DeclareExchange { name })
                    if observed.exchanges.contains(name) && !self.model.exchanges.contains_key(name) =>
                {
                    self.model.declare_exchange(name);
                }
                _ => {}
            }
        }
        for entry in pending.iter().flat_map(|submission| &submission.entries) {
            if let Entry::Change(change @ Change::Announce { client, seq }) = entry
                && observed.announced.get(client).is_some_and(|seqs| seqs.contains(seq))
            {
                self.model.change(change);
            }
            if let Entry::Change(Change::Bind { exchange, queue, key }) = entry
                && observed.bindings.contains(&(*exchange, *key, *queue))
            {
                self.model.bindings.insert((exchange, key, queue));
            }
        }
    }

    /// Removals that were on their way and have happened.
    fn removed(&mut self, pending: &VecDeque<Submission>, observed: &Observed) {
        for entry in pending.iter().flat_map(|submission| &submission.entries) {
            let Entry::Change(change) = entry else { continue };
            let has_happened = match change {
                Change::DeleteQueue { name, .. } => !observed.queues.contains_key(name),
                Change::DeleteExchange { name } => !observed.exchanges.contains(name),
                Change::Unbind { exchange, queue, key } => !observed.bindings.contains(&(*exchange, *key, *queue)),
                _ => false,
            };
            if has_happened {
                self.model.change(change);
            }
        }
    }

    fn compare_topology(&self, observed: &Observed) {
        let queues: Vec<_> = self.model.queues.keys().collect();
        assert_eq!(queues, observed.queues.keys().collect::<Vec<_>>(), "queues after the restart");
        let exchanges: Vec<_> = self.model.exchanges.keys().collect();
        assert_eq!(exchanges, observed.exchanges.iter().collect::<Vec<_>>(), "exchanges after the restart");
        assert_eq!(self.model.bindings, observed.bindings, "bindings after the restart");
        assert_eq!(self.model.announced, observed.announced, "keys after the restart");
    }

    // ---- messages

    fn candidates(&mut self, pending: &VecDeque<Submission>) -> (Candidates, Vec<Undecided>) {
        let mut all = Candidates::new();
        for (name, queue) in &self.model.queues {
            let candidate = |copy: &Copy| Candidate {
                is_required: copy.certainty == Certainty::There,
                copy: copy.clone(),
                is_purgeable: false,
                is_found: false,
            };
            all.insert(name, queue.copies.values().map(candidate).collect());
        }
        let mut moves = Vec::new();
        for submission in pending {
            for (index, entry) in submission.entries.iter().enumerate() {
                let rank = submission.rank(index);
                match entry {
                    Entry::Publish { send } if self.model.knowledge(*send) != Knowledge::Known => {
                        for queue in self.model.sends[*send].route.clone() {
                            if self.model.queue(queue).is_some() {
                                self.may_arrive(&mut all, queue.name, rank, *send, None);
                            }
                        }
                    }
                    Entry::Settle { queue, copy } => {
                        find(&mut all, *queue, *copy).into_iter().for_each(|found| found.is_required = false);
                        // Of one that is moved in front of it, too.
                        moves.retain(|undecided: &Undecided| undecided.source != (*queue, *copy));
                    }
                    Entry::Move { queue, copy, reason, to, .. } => {
                        let Some(source) = find(&mut all, *queue, *copy) else { continue };
                        // One that may have been settled at the same time need not be anywhere.
                        let is_strict = std::mem::take(&mut source.is_required);
                        let send = source.copy.send;
                        if self.model.queues.contains_key(to) {
                            self.may_arrive(&mut all, to, rank, send, Some((queue.name, *reason)));
                        }
                        if is_strict {
                            moves.push(Undecided { source: (*queue, *copy), target: (to, rank), send });
                        }
                    }
                    Entry::Change(Change::Purge { name }) => {
                        for candidate in all.get_mut(name).into_iter().flatten() {
                            if matches!(candidate.copy.place, Place::Ready | Place::Delayed { .. }) {
                                (candidate.is_required, candidate.is_purgeable) = (false, true);
                            }
                        }
                    }
                    Entry::Publish { .. } | Entry::Attempts { .. } | Entry::Change(_) => {}
                }
            }
        }
        (all, moves)
    }

    fn may_arrive(
        &mut self,
        all: &mut Candidates,
        to: Name,
        rank: Rank,
        send: usize,
        from: Option<(Name, ciphermq_broker::Reason)>,
    ) {
        let copy = self.model.new_copy(rank, send, from, self.now);
        let candidate = Candidate { copy, is_required: false, is_purgeable: false, is_found: false };
        all.entry(to).or_default().push(candidate);
    }

    /// Finds the message of the account for each that is in a queue; returns what the queue has from now on.
    fn match_queue(
        &mut self,
        name: Name,
        found: &[Found],
        candidates: &mut [Candidate],
        end: End,
        affected: &mut BTreeSet<usize>,
    ) -> Vec<Copy> {
        let max = self.model.queues[name].settings.max_attempts;
        let is_exact = end != End::Crashed && !self.has_untold_attempts;
        let now = self.now;
        let mut last: Rank = (0, 0);
        let mut copies = Vec::new();
        candidates.sort_by_key(|candidate| candidate.copy.rank);
        for it in found {
            let attempts = |copy: &Copy| {
                // The last attempt is told by the record of the move alone.
                let told = if max > 0 { copy.attempts.min(max - 1) } else { copy.attempts };
                if is_exact { told..=copy.attempts } else { copy.attempts_on_disk.min(told)..=copy.attempts }
            };
            let is_same = |candidate: &&mut Candidate| {
                !candidate.is_found && candidate.copy.send == it.send && candidate.copy.from == it.from
            };
            let fits = |candidate: &&mut Candidate| attempts(&candidate.copy).contains(&it.attempts);
            let mut copy = if let Some(candidate) = candidates.iter_mut().filter(is_same).find(fits) {
                candidate.is_found = true;
                candidate.copy.clone()
            } else if end == End::Flipped {
                affected.insert(it.send);
                match candidates.iter_mut().find(is_same) {
                    Some(candidate) => {
                        candidate.is_found = true;
                        candidate.copy.clone()
                    }
                    // Settled or moved, and the record of that is damaged.
                    None => self.model.new_copy(last, it.send, it.from, now),
                }
            } else {
                let same: Vec<_> = candidates.iter().filter(|candidate| candidate.copy.send == it.send).collect();
                let same: Vec<_> = same.iter().map(|candidate| (&candidate.copy, candidate.is_found)).collect();
                panic!("{name} has {it:?}, the account of it: {same:?}");
            };
            assert!(last <= copy.rank, "{name} has n{} ({:?}) behind {last:?}", it.send, copy.rank);
            last = copy.rank;
            (copy.attempts, copy.attempts_on_disk) = (it.attempts, it.attempts);
            (copy.place, copy.ready_since, copy.certainty) = (Place::Ready, now, Certainty::There);
            copies.push(copy);
        }
        for lost in candidates.iter().filter(|candidate| candidate.is_required && !candidate.is_found) {
            assert!(end == End::Flipped, "{name} has lost {:?}", lost.copy);
            affected.insert(lost.copy.send);
        }
        copies
    }

    /// One bit costs one record at most, and it is reported.
    fn check_damage(&mut self, affected: &BTreeSet<usize>, end: End, recovered: &Recovered) {
        if end != End::Flipped {
            return;
        }
        let mut batches = affected.iter().map(|send| self.model.sends[*send].batch);
        let first = batches.next().flatten();
        let is_one = affected.len() <= 1 || (first.is_some() && batches.all(|batch| batch == first));
        assert!(is_one, "one bit turned over cost {affected:?}: {:?}", recovered.log.findings);
        let is_reported = !recovered.log.findings.is_empty();
        assert!(is_reported || affected.is_empty(), "one bit cost {affected:?}, and nobody said so");
        self.coverage.flips_that_cost += u64::from(!affected.is_empty());
        if is_reported {
            self.model.doubt_ids();
        }
    }

    /// A publish is in all its queues or in none, a batch is there or not, an id once.
    fn check_publishes(&mut self, pending: &VecDeque<Submission>, candidates: &Candidates) {
        let entries = pending.iter().flat_map(|submission| &submission.entries);
        let sends: Vec<usize> =
            entries.filter_map(|entry| if let Entry::Publish { send } = entry { Some(*send) } else { None }).collect();
        let id = |send: &usize| (self.model.sends[*send].exchange.1, self.model.sends[*send].id.clone());
        let mut times: BTreeMap<_, u32> = BTreeMap::new();
        sends.iter().for_each(|send| *times.entry(id(send)).or_default() += 1);
        let ids: Vec<_> = sends.iter().map(id).collect();
        let (mut batches, mut stored) = (BTreeMap::new(), BTreeSet::new());
        // In the order of the log: the window forgets in that order.
        for (send, id) in sends.iter().zip(ids) {
            if self.check_publish(*send, times[&id] == 1, candidates, &mut batches) {
                assert!(stored.insert(id.clone()), "{id:?} was published more than once, and stored more than once");
            }
        }
        for (batch, stored) in batches {
            assert!(stored.len() == 1, "a part of batch {batch} is there");
        }
        self.unanswered.extend(sends);
    }

    fn check_publish(
        &mut self,
        send: usize,
        is_only: bool,
        candidates: &Candidates,
        batches: &mut BTreeMap<u64, BTreeSet<bool>>,
    ) -> bool {
        let knowledge = self.model.knowledge(send);
        if knowledge == Knowledge::Known {
            return false;
        }
        let all = candidates.values().flatten();
        let copies: Vec<_> = all.filter(|it| it.copy.send == send && it.copy.from.is_none()).collect();
        let stored = copies.iter().any(|candidate| candidate.is_found);
        let is_visible = copies.iter().any(|candidate| !candidate.is_purgeable);
        let is_whole = copies.iter().all(|candidate| candidate.is_found == stored || candidate.is_purgeable);
        assert!(is_whole, "n{send} is in some of its queues");
        if stored {
            self.model.remember(send, true);
            self.coverage.unanswered_and_kept += 1;
        } else if !is_visible || knowledge == Knowledge::Perhaps {
            self.model.remember(send, false);
        } else {
            self.coverage.unanswered_and_lost += 1;
        }
        if let Some(batch) = self.model.sends[send].batch
            && is_only
            && (stored || is_visible)
            && knowledge == Knowledge::Unknown
        {
            batches.entry(batch).or_default().insert(stored);
        }
        stored
    }
}

fn is_new<T>(queues: &BTreeMap<Name, T>, observed: &Observed, name: Name) -> bool {
    observed.queues.contains_key(name) && !queues.contains_key(name)
}

fn find(all: &mut Candidates, queue: QueueRef, copy: u64) -> Option<&mut Candidate> {
    all.get_mut(queue.name)?.iter_mut().find(|candidate| candidate.copy.number == copy)
}

/// A message whose move was undecided is at one end.
fn check_moves(moves: &[Undecided], candidates: &Candidates) {
    for Undecided { source, target, send } in moves {
        let Some(sources) = candidates.get(source.0.name) else { continue };
        let Some(source) = sources.iter().find(|candidate| candidate.copy.number == source.1) else { continue };
        let arrived = candidates.get(target.0).into_iter().flatten();
        let arrived = arrived.filter(|it| it.copy.send == *send && it.copy.rank == target.1).any(|it| it.is_found);
        assert!(source.is_found || arrived || source.is_purgeable, "n{send} was to be moved, and is nowhere");
        assert!(!(source.is_found && arrived), "n{send} was moved, and is still there");
    }
}
