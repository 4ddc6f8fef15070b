//! What the clients know to be true, and the checks it is held against.
//!
//! Each copy of a message has one life. A connection that ends in the middle of a settlement leaves its outcome open
//! (`Perhaps…`): both outcomes are right, and the next sighting tells which it was. Everything else the broker may not do is a
//! violation: a delivery of what was confirmed to be gone, of what somebody else holds, of what nobody sent.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::{Id, PUBLISHERS, Place, Queue};

/// Events kept to be shown with a violation.
const EVENTS_KEPT: usize = 200_000;

/// Copies that are published and not done with, above which publishers wait.
const BACKLOG_MAX: u64 = 6_000;

/// How long nothing may happen at all.
const STANDSTILL: Duration = Duration::from_secs(30);

/// The shared memory of all clients over all rounds.
#[derive(Debug, Default)]
pub(super) struct History {
    facts: Mutex<Facts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Facts {
    /// By queue, publisher and number.
    copies: [[Vec<Copy>; PUBLISHERS]; Queue::ALL.len()],
    /// The last number the ordered queue has shown of each publisher.
    shown: [Option<u32>; PUBLISHERS],
    /// Batches whose outcome is open for ever: stored whole or not at all.
    open_batches: Vec<Vec<Id>>,
    /// Copies acknowledged to their publisher that somebody must still take.
    backlog: u64,
    round: u32,
    count: u64,
    is_ending: bool,
    events: VecDeque<Event>,
    violation: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Copy {
    published: Published,
    life: Life,
    seen: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Published {
    #[default]
    Never,
    /// Sent, not answered: it may be there or not.
    Perhaps,
    Surely,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    InQueue,
    Held,
    Acking,
    /// Acked or in the queue.
    PerhapsAcked,
    Rejecting,
    /// Among the dead letters or in the queue.
    PerhapsRejected,
    Dead,
    DeadHeld,
    DeadAcking,
    /// Acked or among the dead letters.
    PerhapsDeadAcked,
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    round: u32,
    id: Id,
    what: &'static str,
}

/// How a delivery is settled for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settling {
    Ack,
    Reject,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies acknowledged to their publisher.
    pub published: u64,
    /// Copies confirmed to be gone, or known to be.
    pub gone: u64,
    /// Copies with an open publish that were there after all.
    pub kept_unanswered: u64,
    /// Copies with an open publish that were not.
    pub lost_unanswered: u64,
}

impl History {
    /// A new message is about to be sent.
    pub(super) fn sending(&self, id: Id) {
        let mut facts = self.facts();
        facts.note(id, "sent");
        for queue in id.route().queues() {
            facts.change(*queue, id, |copy| {
                if copy.published == Published::Never {
                    copy.published = Published::Perhaps;
                }
            });
        }
    }

    /// The broker said `ACK`.
    pub(super) fn acknowledged(&self, id: Id) {
        let mut facts = self.facts();
        facts.note(id, "ACK");
        for queue in id.route().queues() {
            facts.change(*queue, id, |copy| copy.published = Published::Surely);
        }
        self.changed.notify_all();
    }

    /// Whether the broker ever said `ACK` to it.
    pub(super) fn is_acknowledged(&self, id: Id) -> bool {
        let mut facts = self.facts();
        id.route().queues().iter().all(|queue| facts.copy(*queue, id).published == Published::Surely)
    }

    /// The broker delivered something: its id if it is right.
    pub(super) fn delivered(&self, place: Place, id: &str, envelope: &str) -> Option<Id> {
        let mut facts = self.facts();
        let queue = place.queue();
        let known = Id::parse(id).filter(|id| id.route().queues().contains(&queue));
        let Some(known) = known.filter(|id| facts.copy(queue, *id).published != Published::Never) else {
            facts.violate(None, format!("{place} delivered {id}, which nobody sent there"));
            return None;
        };
        facts.note(known, "delivered");
        if known.envelope() != envelope {
            facts.violate(Some(known), format!("{place} delivered {id} with another text: {envelope:.200}"));
        }
        facts.first_sight(place, known);
        let before = facts.copy(queue, known).life;
        let held = match (place, before) {
            (Place::Queue(_), Life::InQueue | Life::PerhapsAcked | Life::PerhapsRejected) => Life::Held,
            // The dead letter may be out before whoever rejected it reads the confirmation.
            (Place::DeadLetters(_), Life::Rejecting | Life::Dead | Life::PerhapsRejected | Life::PerhapsDeadAcked) => {
                Life::DeadHeld
            }
            _ => {
                facts.violate(Some(known), format!("{place} delivered {id}, which is {before:?}"));
                return None;
            }
        };
        facts.change(queue, known, |copy| copy.life = held);
        self.changed.notify_all();
        Some(known)
    }

    /// An `ack` or `reject` is about to be sent.
    pub(super) fn settling(&self, place: Place, id: Id, how: Settling) {
        let mut facts = self.facts();
        facts.note(id, if how == Settling::Ack { "ack sent" } else { "reject sent" });
        let life = match (place, how) {
            (Place::Queue(_), Settling::Ack) => Life::Acking,
            (Place::Queue(_), Settling::Reject) => Life::Rejecting,
            (Place::DeadLetters(_), _) => Life::DeadAcking,
        };
        facts.change(place.queue(), id, |copy| copy.life = life);
    }

    /// The broker confirmed a settlement.
    pub(super) fn settled(&self, place: Place, id: Id) {
        let mut facts = self.facts();
        facts.note(id, "confirmed");
        let life = match (place, facts.copy(place.queue(), id).life) {
            (Place::Queue(_), Life::Acking) | (Place::DeadLetters(_), Life::DeadAcking) => Life::Gone,
            (Place::Queue(_), Life::Rejecting) => Life::Dead,
            // Rejected, and taken out of the dead letters before this was read.
            (Place::Queue(_), life) if life.is_dead() => life,
            (_, life) => {
                facts.violate(Some(id), format!("{place} confirmed a settlement of {id}, which is {life:?}"));
                life
            }
        };
        facts.change(place.queue(), id, |copy| copy.life = life);
        self.changed.notify_all();
    }

    /// A delivery is about to be given back.
    pub(super) fn returning(&self, place: Place, id: Id) {
        let mut facts = self.facts();
        facts.note(id, "given back");
        facts.change(place.queue(), id, |copy| copy.ended(place));
    }

    /// A connection has ended that held these, or was settling them.
    pub(super) fn ended(&self, held: impl IntoIterator<Item = (Place, Id)>) {
        let mut facts = self.facts();
        for (place, id) in held {
            facts.note(id, "its connection ended");
            facts.change(place.queue(), id, |copy| copy.ended(place));
        }
    }

    /// These were sent in one batch, not answered, and will not be sent again.
    pub(super) fn left_open(&self, batch: Vec<Id>) {
        self.facts().open_batches.push(batch);
    }

    /// Something the broker may not do.
    pub(super) fn violate(&self, what: String) {
        self.facts().violate(None, what);
        self.changed.notify_all();
    }

    /// Waits while the backlog is as large as it may be. False when the round is ending.
    pub(super) fn wait_for_room(&self) -> bool {
        let facts = self.facts();
        let full = |facts: &mut Facts| facts.backlog >= BACKLOG_MAX && !facts.is_over();
        let waited = self.changed.wait_timeout_while(facts, STANDSTILL, full);
        let (mut facts, late) = waited.unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            let backlog = facts.backlog;
            facts.violate(None, format!("of {backlog} messages none is taken in {STANDSTILL:?}"));
        }
        !facts.is_over()
    }

    /// A round begins.
    pub(super) fn begin(&self, round: u32) {
        let mut facts = self.facts();
        facts.round = round;
        facts.is_ending = false;
    }

    /// Waits until so many more events have happened, or the round ends.
    pub(super) fn wait_for(&self, events: u64) {
        let facts = self.facts();
        let until = facts.count + events;
        let waited =
            self.changed.wait_timeout_while(facts, STANDSTILL, |facts| facts.count < until && !facts.is_over());
        let (mut facts, late) = waited.unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            facts.violate(None, format!("less than {events} events in {STANDSTILL:?}"));
        }
    }

    /// From now on connections may break.
    pub(super) fn end_round(&self) {
        self.facts().is_ending = true;
        self.changed.notify_all();
    }

    /// Whether connections may break, or nothing matters any more.
    pub(super) fn is_over(&self) -> bool {
        self.facts().is_over()
    }

    /// The first thing the broker did that it may not do.
    pub(super) fn violation(&self) -> Option<String> {
        self.facts().violation.clone()
    }

    /// Everything was taken out of all queues: each copy must be accounted for.
    pub(super) fn account(&self) -> Counts {
        let mut facts = self.facts();
        let mut counts = Counts::default();
        for queue in Queue::ALL {
            for publisher in 0..PUBLISHERS {
                let copies = std::mem::take(&mut facts.copies[queue as usize][publisher]);
                for (number, copy) in (0..).zip(&copies) {
                    if let Some(lost) = counts.count(copy) {
                        let id = Id { publisher, number };
                        facts.violate(Some(id), format!("{id} is missing in {}: it was {lost:?}", queue.name()));
                    }
                }
                facts.copies[queue as usize][publisher] = copies;
            }
        }
        for batch in std::mem::take(&mut facts.open_batches) {
            let seen = batch.iter().filter(|id| facts.was_seen(**id)).count();
            if seen != 0 && seen != batch.len() {
                facts.violate(Some(batch[0]), format!("{seen} of a batch of {} were stored", batch.len()));
            }
        }
        counts
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn copy(&mut self, queue: Queue, id: Id) -> &mut Copy {
        let copies = &mut self.copies[queue as usize][id.publisher];
        let index = id.number as usize;
        if copies.len() <= index {
            copies.resize(index + 1, Copy::default());
        }
        &mut copies[index]
    }

    fn change(&mut self, queue: Queue, id: Id, change: impl FnOnce(&mut Copy)) {
        let copy = self.copy(queue, id);
        let before = copy.is_waiting();
        change(copy);
        let after = copy.is_waiting();
        self.backlog = self.backlog + u64::from(after) - u64::from(before);
    }

    /// What the ordered queue shows for the first time comes in the order it was published.
    fn first_sight(&mut self, place: Place, id: Id) {
        let copy = self.copy(place.queue(), id);
        let is_first = !std::mem::replace(&mut copy.seen, true);
        if is_first && place == Place::Queue(Queue::Ordered) {
            let before = self.shown[id.publisher].replace(id.number);
            if let Some(before) = before.filter(|before| *before > id.number) {
                self.violate(Some(id), format!("{place} delivered {id} after number {before}"));
            }
        }
    }

    fn was_seen(&mut self, id: Id) -> bool {
        id.route().queues().iter().any(|queue| self.copy(*queue, id).seen)
    }

    fn is_over(&self) -> bool {
        self.is_ending || self.violation.is_some()
    }

    fn note(&mut self, id: Id, what: &'static str) {
        self.count += 1;
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event { round: self.round, id, what });
    }

    fn violate(&mut self, about: Option<Id>, what: String) {
        if self.violation.is_some() {
            return;
        }
        let mut text = format!("round {}: {what}", self.round);
        for event in self.events.iter().filter(|event| Some(event.id) == about) {
            let _ = write!(text, "\n  round {}: {}", event.round, event.what);
        }
        self.violation = Some(text);
    }
}

impl Copy {
    /// Whether it is certainly there and somebody must still take it.
    fn is_waiting(&self) -> bool {
        use Life::{Acking, DeadAcking, Gone, PerhapsAcked, PerhapsDeadAcked};
        let is_done = matches!(self.life, Acking | DeadAcking | Gone | PerhapsAcked | PerhapsDeadAcked);
        self.published == Published::Surely && !is_done
    }

    /// The connection that took it from `place` has ended, or has given it back.
    fn ended(&mut self, place: Place) {
        self.life = match (place, self.life) {
            (Place::Queue(_), Life::Held) => Life::InQueue,
            (Place::Queue(_), Life::Acking) => Life::PerhapsAcked,
            (Place::Queue(_), Life::Rejecting) => Life::PerhapsRejected,
            (Place::DeadLetters(_), Life::DeadHeld) => Life::Dead,
            (Place::DeadLetters(_), Life::DeadAcking) => Life::PerhapsDeadAcked,
            // Rejected, and somebody else has it from the dead letters by now.
            (_, other) => other,
        };
    }
}

impl Life {
    /// Whether it was seen among the dead letters.
    fn is_dead(self) -> bool {
        use Life::{Dead, DeadAcking, DeadHeld, Gone, PerhapsDeadAcked};
        matches!(self, Dead | DeadHeld | DeadAcking | PerhapsDeadAcked | Gone)
    }
}

impl Counts {
    /// Counts a copy; what it was if it is missing.
    fn count(&mut self, copy: &Copy) -> Option<Life> {
        // All queues are empty: what was perhaps acked was.
        let is_gone = matches!(copy.life, Life::Gone | Life::PerhapsAcked | Life::PerhapsDeadAcked);
        match (copy.published, is_gone) {
            (Published::Never, _) => {}
            (Published::Perhaps, true) => self.kept_unanswered += 1,
            (Published::Perhaps, false) if copy.seen => return Some(copy.life),
            (Published::Perhaps, false) => self.lost_unanswered += 1,
            (Published::Surely, true) => {
                self.published += 1;
                self.gone += 1;
            }
            (Published::Surely, false) => return Some(copy.life),
        }
        None
    }
}
