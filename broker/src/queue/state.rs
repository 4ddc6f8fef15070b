use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ciphermq_journal::Position;
use hashbrown::HashMap;

use super::consumers::Consumers;
use super::held::{Body, Kept, Seen, Sighting, Stored, Tried};
use super::holders::Holders;
use super::lane::Lane;
use super::lease::{Assigned, Delayed, GiveBack, HandOver, LeaseRef, Leased, Leaving, NoLease, Paid};
use super::purge::Condemned;
use crate::budget::Budget;
use crate::model::LeaseId;
use crate::{ConnectionId, Message, QueueSettings, Timestamp, limits};

/// The life of every message in one queue. Pure: no lock, no clock, no connection, no disk.
///
/// Each message is in exactly one of the places below, under its order: its position in the log when it came. Of all
/// that is ready the lowest order is delivered first.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) settings: QueueSettings,
    pub(crate) consumers: Consumers,
    pub(super) budget: Arc<Budget>,
    /// Ready, never delivered, in memory; counted in the budget. Its record is where it was when it came.
    pub(super) resident: Lane<Message>,
    /// Ready, never delivered, in the log only.
    pub(super) stored: Lane<Stored>,
    /// Ready again, or found out of turn when the log was read.
    pub(super) returned: BTreeMap<Position, Kept>,
    pub(super) delayed: HashMap<Position, Delayed>,
    pub(super) leased: HashMap<Position, Leased>,
    pub(super) holders: Holders,
    pub(super) leaving: HashMap<Position, Leaving>,
    /// One entry for each leased and each delayed message.
    pub(super) timers: BTreeSet<(Timestamp, Position)>,
    /// Where dead letters stored here were first published, and their order; lets `find` follow them. One origin
    /// has several when its copies wore out in several queues. Some may have left: see `forget_moved`.
    pub(super) moved: BTreeSet<(Position, Position)>,
    /// What a purge that is on its way through the journal will remove.
    pub(super) condemned: Option<Box<Condemned>>,
    last_lease: u64,
}

/// Numbers of messages by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ready: u64,
    pub(crate) leased: u64,
    pub(crate) delayed: u64,
}

/// Ends of leases and delays handled before the queue's lock is let go.
const DUE_MAX: usize = 1_024;
/// A lease that ends when it begins would be given out again for ever.
const LEASE_MS_MIN: u64 = 1;
/// So many entries of dead letters that have left are not worth a sweep.
const MOVED_ENDED_MAX: usize = 64;

impl QueueState {
    pub(crate) fn new(settings: QueueSettings, budget: Arc<Budget>) -> QueueState {
        QueueState {
            settings,
            consumers: Consumers::default(),
            budget,
            resident: Lane::new(),
            stored: Lane::new(),
            returned: BTreeMap::new(),
            delayed: HashMap::new(),
            leased: HashMap::new(),
            holders: Holders::default(),
            leaving: HashMap::new(),
            timers: BTreeSet::new(),
            moved: BTreeSet::new(),
            condemned: None,
            last_lease: 0,
        }
    }

    /// Adds a message whose record is at `order`; orders must ascend. Returns its delivery if a consumer waits for it:
    /// then it takes no part of the budget.
    pub(crate) fn push(&mut self, order: Position, message: Message, now: Timestamp) -> Option<Assigned> {
        if message.origin() != order {
            self.moved.insert((message.origin(), order));
        }
        if !self.is_ready()
            && let Some((connection, subscription)) = self.consumers.take_turn()
        {
            let held = Kept::new(message.stored_at(order), Some(message));
            return Some(self.lease(order, held, connection, Paid::By(subscription), self.settings.lease_ms, now));
        }
        if self.budget.take(message.bytes()) {
            self.resident.push(order, message);
        } else {
            self.stored.push(order, message.stored_at(order));
        }
        None
    }

    /// The next message for the consumer whose turn it is. Call after anything that adds messages or credit,
    /// until it returns `None`.
    pub(crate) fn poll_delivery(&mut self, now: Timestamp) -> Option<Assigned> {
        if !self.is_ready() {
            return None;
        }
        let (connection, subscription) = self.consumers.take_turn()?;
        self.lease_next(connection, Paid::By(subscription), self.settings.lease_ms, now)
    }

    /// The connection takes a delivery out of its outbox. False when its lease has ended: the delivery must not be
    /// handed over, and the credit it kept is free.
    pub(crate) fn take_delivery(&mut self, connection: ConnectionId, which: LeaseRef, paid: Paid) -> bool {
        if let Some(leased) = self.leased.get_mut(&which.order).filter(|leased| leased.is(connection, which)) {
            leased.hand_over = HandOver::Seen;
            return true;
        }
        self.refund(connection, paid);
        false
    }

    /// The message of a delivery that was taken cannot be read back now. It stays leased, unseen, and is tried again soon
    /// after that lease began: the credit it keeps bounds how many are tried in vain.
    pub(crate) fn unread(&mut self, connection: ConnectionId, which: LeaseRef) {
        let Some(leased) = self.leased.get_mut(&which.order).filter(|leased| leased.is(connection, which)) else {
            return;
        };
        leased.hand_over = HandOver::Unread;
        let began = leased.held.delivered().unwrap_or_default();
        let deadline = began.plus_ms(limits::UNREADABLE_RETRY_MS).min(leased.deadline);
        self.timers.remove(&(leased.deadline, which.order));
        leased.deadline = deadline;
        self.timers.insert((deadline, which.order));
    }

    /// The message of a delivery that was taken can never be read back: it waits for the record that removes it. Returns
    /// when it was leased.
    pub(crate) fn abandon(&mut self, connection: ConnectionId, which: LeaseRef) -> Result<Timestamp, NoLease> {
        let seen = self.settle(connection, which)?;
        Ok(seen.delivered.unwrap_or_default())
    }

    /// The next message for a connection that asks for one.
    pub(crate) fn fetch(&mut self, connection: ConnectionId, lease_ms: u64, now: Timestamp) -> Option<Assigned> {
        self.lease_next(connection, Paid::ByFetch, lease_ms, now)
    }

    /// Ends a lease for good: the message waits for the record that removes it.
    pub(crate) fn settle(&mut self, connection: ConnectionId, which: LeaseRef) -> Result<Seen, NoLease> {
        let held = self.end_lease(connection, which)?.held;
        let seen = Seen { attempts: held.attempts + 1, delivered: held.delivered() };
        self.leaving.insert(which.order, Leaving { held, delivered: true });
        Ok(seen)
    }

    /// Ends a lease; the message stays, unless that was its last attempt.
    pub(crate) fn give_back(
        &mut self,
        connection: ConnectionId,
        which: LeaseRef,
        how: GiveBack,
        now: Timestamp,
    ) -> Result<Option<Tried>, NoLease> {
        let held = self.end_lease(connection, which)?.held;
        Ok(self.put_back(which.order, held, how, now))
    }

    /// The lease starts anew from `now`.
    pub(crate) fn touch(
        &mut self,
        connection: ConnectionId,
        which: LeaseRef,
        lease_ms: Option<u64>,
        now: Timestamp,
    ) -> Result<(), NoLease> {
        let deadline = now.plus_ms(lease_ms.unwrap_or(self.settings.lease_ms).max(LEASE_MS_MIN));
        let leased = self.leased.get_mut(&which.order).filter(|leased| leased.is(connection, which)).ok_or(NoLease)?;
        self.timers.remove(&(leased.deadline, which.order));
        leased.deadline = deadline;
        self.timers.insert((deadline, which.order));
        Ok(())
    }

    /// Whether the connection still holds this lease.
    pub(crate) fn holds(&self, connection: ConnectionId, which: LeaseRef) -> bool {
        self.leased.get(&which.order).is_some_and(|leased| leased.is(connection, which))
    }

    /// A message nobody holds waits, from now on, for the record that moves it. False if it is held, on its way out, or not here.
    pub(crate) fn claim(&mut self, order: Position) -> bool {
        let Some(held) = self.take_waiting(order) else { return false };
        self.leaving.insert(order, Leaving { held, delivered: false });
        true
    }

    /// A record removed this message: forget it, wherever it is. Returns where its own record is.
    pub(crate) fn retire(&mut self, order: Position) -> Option<Stored> {
        let held = self.take(order)?;
        self.forget_moved(order, held.message.as_ref());
        Some(held.at())
    }

    /// The record that was to remove this message failed: it is ready again.
    pub(crate) fn restore(&mut self, order: Position) {
        if let Some(leaving) = self.leaving.remove(&order) {
            self.returned.insert(order, leaving.held);
        }
    }

    /// The message was to be removed, but its body cannot be read back now: it rests for a while.
    pub(crate) fn defer(&mut self, order: Position, now: Timestamp) {
        if let Some(leaving) = self.leaving.remove(&order) {
            self.delay(order, leaving.held, now.plus_ms(limits::UNREADABLE_RETRY_MS));
        }
    }

    /// A connection ended: its subscription is over and its messages are ready again. The one it has taken and held
    /// longest uses up an attempt, being the one most likely worked on. Returns that one, and all that have none left: some
    /// may have been worn out before, and could not be moved then.
    pub(crate) fn detach(&mut self, connection: ConnectionId, now: Timestamp) -> Vec<Tried> {
        self.consumers.unsubscribe(connection);
        let (mut is_first, mut tried) = (true, Vec::new());
        for (lease, order) in self.holders.take(connection) {
            let is_lease = |leased: &&Leased| leased.is(connection, LeaseRef { order, lease });
            let Some(leased) = self.leased.get(&order).filter(is_lease) else { continue };
            let is_worked_on = leased.hand_over == HandOver::Seen && std::mem::take(&mut is_first);
            let how = if is_worked_on { GiveBack::Nack { delay_ms: 0 } } else { GiveBack::Release };
            if let Ok(used_up) = self.give_back(connection, LeaseRef { order, lease }, how, now) {
                tried.extend(used_up);
            }
        }
        tried
    }

    /// When `handle_timeout` has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Ends leases that ran out and delays that are over, at most [`DUE_MAX`] of them: ask `poll_timeout` whether that
    /// was all. Returns what has used up an attempt.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Vec<Tried> {
        let mut tried = Vec::new();
        for _ in 0..DUE_MAX {
            let Some(&(deadline, order)) = self.timers.first().filter(|(deadline, _)| *deadline <= now) else {
                break;
            };
            self.timers.remove(&(deadline, order));
            if let Some(delayed) = self.delayed.remove(&order) {
                self.returned.insert(order, delayed.held);
            } else if let Some(leased) = self.remove_leased(order) {
                let how = leased.when_it_runs_out();
                tried.extend(self.put_back(order, leased.held, how, now));
            }
        }
        tried
    }

    pub(crate) fn counts(&self) -> Counts {
        let condemned = self.condemned.as_ref().map_or(Counts::default(), |condemned| condemned.counts());
        Counts {
            ready: (self.resident.len() + self.stored.len() + self.returned.len()) as u64 + condemned.ready,
            leased: (self.leased.len() + self.leaving.len()) as u64,
            delayed: self.delayed.len() as u64 + condemned.delayed,
        }
    }

    /// The messages first published at `origin` that are in this queue: itself, and what became of its other copies.
    pub(crate) fn find(&self, origin: Position) -> Vec<Sighting> {
        let moved = self.moved.range((origin, Position(0))..=(origin, Position(u64::MAX)));
        let moved = moved.map(|(_, order)| *order).filter(|order| *order != origin);
        std::iter::once(origin).chain(moved).filter_map(|order| self.look(order)).collect()
    }

    /// The body of a message that is in the queue, or where it is.
    pub(crate) fn body(&self, order: Position) -> Option<Body> {
        self.look(order).map(|sighting| sighting.body)
    }

    fn look(&self, order: Position) -> Option<Sighting> {
        if let Some(leased) = self.leased.get(&order) {
            return Some(leased.held.sighting(order, true, true));
        }
        if let Some(leaving) = self.leaving.get(&order) {
            return Some(leaving.held.sighting(order, true, leaving.delivered));
        }
        let delayed = || self.delayed.get(&order).map(|delayed| &delayed.held);
        if let Some(held) = self.returned.get(&order).or_else(delayed) {
            return Some(held.sighting(order, false, false));
        }
        let fresh = |body| Sighting { order, body, leased: false, attempts: 0, delivered: None };
        let resident = self.resident.get(order).map(|message| fresh(Body::Resident(message.clone())));
        resident.or_else(|| self.stored.get(order).map(|at| fresh(Body::Stored(*at))))
    }

    /// Whether `poll_delivery` may find something to do.
    pub(crate) fn is_deliverable(&self) -> bool {
        self.is_ready() && self.consumers.is_anyone_in_turn()
    }

    fn is_ready(&self) -> bool {
        !self.returned.is_empty() || !self.resident.is_empty() || !self.stored.is_empty()
    }

    fn lease_next(&mut self, connection: ConnectionId, paid: Paid, lease_ms: u64, now: Timestamp) -> Option<Assigned> {
        let (order, held) = self.pop_ready()?;
        Some(self.lease(order, held, connection, paid, lease_ms, now))
    }

    fn lease(
        &mut self,
        order: Position,
        mut held: Kept,
        connection: ConnectionId,
        paid: Paid,
        lease_ms: u64,
        now: Timestamp,
    ) -> Assigned {
        held.set_delivered(now);
        self.last_lease += 1;
        let (lease, deadline) = (LeaseId(self.last_lease), now.plus_ms(lease_ms.max(LEASE_MS_MIN)));
        // What can be read back is in memory for its delivery only.
        let message = if self.budget.is_limited() { held.message.take() } else { held.message.clone() };
        let body = message.map_or(Body::Stored(held.at()), Body::Resident);
        let attempt = held.attempts + 1;
        self.timers.insert((deadline, order));
        self.holders.insert(connection, lease, order);
        // A fetch is answered with the message itself; there is no outbox in between.
        let hand_over = if paid == Paid::ByFetch { HandOver::Seen } else { HandOver::Waits };
        self.leased.insert(order, Leased { held, lease, connection, paid, deadline, hand_over });
        Assigned { connection, order, lease, body, attempt, paid }
    }

    /// The lowest order of all that is ready.
    fn pop_ready(&mut self) -> Option<(Position, Kept)> {
        let (resident, stored) = (self.resident.first(), self.stored.first());
        let returned = self.returned.first_key_value().map(|(order, _)| *order);
        if returned.is_some() && !is_before(resident, returned) && !is_before(stored, returned) {
            return self.returned.pop_first();
        }
        if is_before(stored, resident) {
            let (order, at) = self.stored.pop()?;
            return Some((order, Kept::new(at, None)));
        }
        let (order, message) = self.resident.pop()?;
        self.budget.give_back(message.bytes());
        Some((order, Kept::new(message.stored_at(order), Some(message))))
    }

    fn end_lease(&mut self, connection: ConnectionId, which: LeaseRef) -> Result<Leased, NoLease> {
        if !self.holds(connection, which) {
            return Err(NoLease);
        }
        let leased = self.remove_leased(which.order).ok_or(NoLease)?;
        self.timers.remove(&(leased.deadline, which.order));
        Ok(leased)
    }

    /// Ends whatever lease there is, but for its timer.
    fn remove_leased(&mut self, order: Position) -> Option<Leased> {
        let leased = self.leased.remove(&order)?;
        let is_live = |lease, order| self.leased.get(&order).is_some_and(|leased| leased.lease == lease);
        self.holders.one_ended(leased.connection, is_live);
        if leased.hand_over != HandOver::Waits {
            self.refund(leased.connection, leased.paid);
        }
        Some(leased)
    }

    fn refund(&mut self, connection: ConnectionId, paid: Paid) {
        if let Paid::By(subscription) = paid {
            self.consumers.return_credit(connection, subscription);
        }
    }

    /// Returns what has used up an attempt.
    fn put_back(&mut self, order: Position, mut held: Kept, how: GiveBack, now: Timestamp) -> Option<Tried> {
        let is_tried = matches!(how, GiveBack::Nack { .. });
        held.attempts += u32::from(is_tried);
        let attempts = held.attempts;
        let worn_out = self.settings.max_attempts > 0 && attempts >= self.settings.max_attempts;
        match how {
            _ if worn_out => drop(self.leaving.insert(order, Leaving { held, delivered: false })),
            GiveBack::Nack { delay_ms } if delay_ms > 0 => self.delay(order, held, now.plus_ms(delay_ms)),
            GiveBack::Nack { .. } | GiveBack::Release => drop(self.returned.insert(order, held)),
        }
        (is_tried || worn_out).then_some(Tried { order, attempts, worn_out })
    }

    fn delay(&mut self, order: Position, held: Kept, until: Timestamp) {
        self.timers.insert((until, order));
        self.delayed.insert(order, Delayed { held, until });
    }

    fn take(&mut self, order: Position) -> Option<Kept> {
        if let Some(leaving) = self.leaving.remove(&order) {
            return Some(leaving.held);
        }
        if let Some(leased) = self.remove_leased(order) {
            self.timers.remove(&(leased.deadline, order));
            return Some(leased.held);
        }
        self.take_waiting(order)
    }

    /// Takes out what is ready or delayed.
    pub(super) fn take_waiting(&mut self, order: Position) -> Option<Kept> {
        if let Some(held) = self.returned.remove(&order) {
            return Some(held);
        }
        if let Some(delayed) = self.delayed.remove(&order) {
            self.timers.remove(&(delayed.until, order));
            return Some(delayed.held);
        }
        self.take_fresh(order)
    }

    pub(super) fn take_fresh(&mut self, order: Position) -> Option<Kept> {
        if let Some(message) = self.resident.remove(order) {
            self.budget.give_back(message.bytes());
            return Some(Kept::new(message.stored_at(order), Some(message)));
        }
        self.stored.remove(order).map(|at| Kept::new(at, None))
    }

    /// A message has left. Where its body is not at hand nobody knows where it was published: such entries stay until
    /// they outnumber the messages.
    fn forget_moved(&mut self, order: Position, message: Option<&Message>) {
        if self.moved.is_empty() {
            return;
        }
        if let Some(message) = message {
            self.moved.remove(&(message.origin(), order));
        } else if self.moved.len() > 2 * self.len() + MOVED_ENDED_MAX {
            self.sweep_moved();
        }
    }

    pub(super) fn sweep_moved(&mut self) {
        let mut moved = std::mem::take(&mut self.moved);
        moved.retain(|(_, order)| self.look(*order).is_some());
        self.moved = moved;
    }

    /// Messages in the queue, but for condemned ones.
    fn len(&self) -> usize {
        let waiting = self.resident.len() + self.stored.len() + self.returned.len() + self.delayed.len();
        waiting + self.leased.len() + self.leaving.len()
    }
}

/// Whether there is a first one, and it comes before the second one, if there is that.
fn is_before(first: Option<Position>, second: Option<Position>) -> bool {
    first.is_some_and(|first| second.is_none_or(|second| first < second))
}

#[cfg(test)]
mod tests;
