use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ciphermq_journal::Position;
use hashbrown::HashMap;

use super::consumers::{Consumers, SubscriptionId};
use super::holders::Holders;
use crate::model::LeaseId;
use crate::{ConnectionId, Message, QueueSettings, Timestamp};

/// The life of every message in one queue. Pure: no lock, no clock, no connection.
///
/// Each message is in exactly one of the places below, under its position in the log. Positions order the queue:
/// whatever was delivered before stands in front of all that was not, so `returned` is served before `fresh`.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) settings: QueueSettings,
    pub(crate) consumers: Consumers,
    /// Ready, never delivered; ascending. `None` marks one that was removed out of turn.
    fresh: VecDeque<(Position, Option<Message>)>,
    fresh_live: usize,
    /// Ready again.
    returned: BTreeMap<Position, Held>,
    /// Nacked with a delay that is not over.
    delayed: HashMap<Position, Delayed>,
    leased: HashMap<Position, Leased>,
    holders: Holders,
    /// Settled or worn out; the record that removes it is on its way through the journal.
    leaving: HashMap<Position, Leaving>,
    /// One entry for each leased and each delayed message.
    timers: BTreeSet<(Timestamp, Position)>,
    /// Where dead letters stored here were first published, and where they stand; lets `find` follow them. One origin
    /// has several when its copies wore out in several queues.
    moved: BTreeSet<(Position, Position)>,
    last_lease: u64,
}

/// A message that was delivered at least once, or that is about to be.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) message: Message,
    /// Attempts used up.
    pub(crate) attempts: u32,
    pub(crate) delivered: Option<Timestamp>,
}

#[derive(Debug)]
struct Leased {
    held: Held,
    lease: LeaseId,
    connection: ConnectionId,
    paid: Paid,
    deadline: Timestamp,
    /// The connection has taken the delivery; until then it waits in an outbox, and nobody has seen the message.
    taken: bool,
}

#[derive(Debug)]
struct Leaving {
    held: Held,
    /// It left while it was delivered: that delivery is an attempt, too.
    delivered: bool,
}

#[derive(Debug)]
struct Delayed {
    held: Held,
    until: Timestamp,
}

/// Whether a lease occupies credit of a subscription.
///
/// The credit returns when the lease has ended *and* its delivery has left the outbox, whichever comes last: an outbox
/// nobody empties never holds more than the credit of its subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paid {
    By(SubscriptionId),
    ByFetch,
}

/// A lease just made.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    pub(crate) connection: ConnectionId,
    pub(crate) position: Position,
    pub(crate) lease: LeaseId,
    pub(crate) message: Message,
    pub(crate) attempt: u32,
    pub(crate) paid: Paid,
}

/// How a lease ends when the message stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveBack {
    /// Uses up an attempt.
    Nack { delay_ms: u64 },
    /// Does not.
    Release,
}

/// Where a message went that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Back,
    /// Its last attempt is used up: it waits to be moved to the dead-letter queue.
    WornOut,
}

/// The lease does not exist, or belongs to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoLease;

/// Which message and lease a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseRef {
    pub(crate) position: Position,
    pub(crate) lease: LeaseId,
}

/// What `status` shows of a message still in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) position: Position,
    pub(crate) message: Message,
    pub(crate) leased: bool,
    pub(crate) attempts: u32,
    pub(crate) delivered: Option<Timestamp>,
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

impl QueueState {
    pub(crate) fn new(settings: QueueSettings) -> QueueState {
        QueueState {
            settings,
            consumers: Consumers::default(),
            fresh: VecDeque::new(),
            fresh_live: 0,
            returned: BTreeMap::new(),
            delayed: HashMap::new(),
            leased: HashMap::new(),
            holders: Holders::default(),
            leaving: HashMap::new(),
            timers: BTreeSet::new(),
            moved: BTreeSet::new(),
            last_lease: 0,
        }
    }

    /// Adds a message. Positions must ascend.
    pub(crate) fn push(&mut self, position: Position, message: Message) {
        debug_assert!(self.fresh.back().is_none_or(|(last, _)| *last < position), "positions ascend in a queue");
        if message.origin() != position {
            self.moved.insert((message.origin(), position));
        }
        self.fresh.push_back((position, Some(message)));
        self.fresh_live += 1;
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
        if let Some(leased) = self.leased.get_mut(&which.position).filter(|leased| leased.is(connection, which)) {
            leased.taken = true;
            return true;
        }
        self.refund(connection, paid);
        false
    }

    /// The next message for a connection that asks for one.
    pub(crate) fn fetch(&mut self, connection: ConnectionId, lease_ms: u64, now: Timestamp) -> Option<Assigned> {
        self.lease_next(connection, Paid::ByFetch, lease_ms, now)
    }

    /// Ends a lease for good: the message waits for the record that removes it.
    pub(crate) fn settle(&mut self, connection: ConnectionId, which: LeaseRef) -> Result<(), NoLease> {
        let leased = self.end_lease(connection, which)?;
        self.leaving.insert(which.position, Leaving { held: leased.held, delivered: true });
        Ok(())
    }

    /// Ends a lease; the message stays, unless that was its last attempt.
    pub(crate) fn give_back(
        &mut self,
        connection: ConnectionId,
        which: LeaseRef,
        how: GiveBack,
        now: Timestamp,
    ) -> Result<Gone, NoLease> {
        let held = self.end_lease(connection, which)?.held;
        Ok(self.put_back(which.position, held, how, now))
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
        let leased =
            self.leased.get_mut(&which.position).filter(|leased| leased.is(connection, which)).ok_or(NoLease)?;
        self.timers.remove(&(leased.deadline, which.position));
        leased.deadline = deadline;
        self.timers.insert((deadline, which.position));
        Ok(())
    }

    /// Whether the connection still holds this lease.
    pub(crate) fn holds(&self, connection: ConnectionId, which: LeaseRef) -> bool {
        self.leased.get(&which.position).is_some_and(|leased| leased.is(connection, which))
    }

    /// A record removed this message: forget it, wherever it is. Its attempts count the delivery that ends with it.
    pub(crate) fn retire(&mut self, position: Position) -> Option<Held> {
        let held = self.take(position)?;
        self.moved.remove(&(held.message.origin(), position));
        Some(held)
    }

    /// The record that was to remove this message failed: it is ready again.
    pub(crate) fn restore(&mut self, position: Position) {
        if let Some(leaving) = self.leaving.remove(&position) {
            self.returned.insert(position, leaving.held);
        }
    }

    /// A connection ended: its subscription is over and its messages are ready again. The one it has taken and held
    /// longest uses up an attempt, being the one most likely worked on; returns it if that was its last.
    pub(crate) fn detach(&mut self, connection: ConnectionId, now: Timestamp) -> Option<Position> {
        self.consumers.unsubscribe(connection);
        let (mut is_first, mut worn_out) = (true, None);
        for (lease, position) in self.holders.take(connection) {
            let is_lease = |leased: &&Leased| leased.is(connection, LeaseRef { position, lease });
            let Some(leased) = self.leased.get(&position).filter(is_lease) else { continue };
            let is_worked_on = leased.taken && std::mem::take(&mut is_first);
            let how = if is_worked_on { GiveBack::Nack { delay_ms: 0 } } else { GiveBack::Release };
            if self.give_back(connection, LeaseRef { position, lease }, how, now) == Ok(Gone::WornOut) {
                worn_out = Some(position);
            }
        }
        worn_out
    }

    /// When `handle_timeout` has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Ends leases that ran out and delays that are over, at most [`DUE_MAX`] of them: ask `poll_timeout` whether that
    /// was all. Returns the messages that are worn out.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Vec<Position> {
        let mut worn_out = Vec::new();
        for _ in 0..DUE_MAX {
            let Some(&(deadline, position)) = self.timers.first().filter(|(deadline, _)| *deadline <= now) else {
                break;
            };
            self.timers.remove(&(deadline, position));
            if let Some(delayed) = self.delayed.remove(&position) {
                self.returned.insert(position, delayed.held);
            } else if let Some(leased) = self.remove_leased(position) {
                // What nobody has seen was not attempted.
                let how = if leased.taken { GiveBack::Nack { delay_ms: 0 } } else { GiveBack::Release };
                if self.put_back(position, leased.held, how, now) == Gone::WornOut {
                    worn_out.push(position);
                }
            }
        }
        worn_out
    }

    /// Removes what is ready or delayed.
    pub(crate) fn purge(&mut self) -> Vec<Message> {
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        let fresh = fresh.filter_map(|(position, message)| Some((position, message?)));
        let returned = std::mem::take(&mut self.returned).into_iter();
        let mut purged: Vec<(Position, Message)> =
            fresh.chain(returned.map(|(position, held)| (position, held.message))).collect();
        self.fresh_live = 0;
        for (position, delayed) in self.delayed.drain() {
            self.timers.remove(&(delayed.until, position));
            purged.push((position, delayed.held.message));
        }
        for (position, message) in &purged {
            self.moved.remove(&(message.origin(), *position));
        }
        purged.into_iter().map(|(_, message)| message).collect()
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) -> Vec<Message> {
        let mut cleared = self.purge();
        cleared.extend(self.leased.drain().map(|(_, leased)| leased.held.message));
        cleared.extend(self.leaving.drain().map(|(_, leaving)| leaving.held.message));
        self.holders.clear();
        self.timers.clear();
        self.moved.clear();
        self.consumers = Consumers::default();
        cleared
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            ready: (self.fresh_live + self.returned.len()) as u64,
            leased: (self.leased.len() + self.leaving.len()) as u64,
            delayed: self.delayed.len() as u64,
        }
    }

    /// The messages first published at `origin` that are in this queue: itself, and what became of its other copies.
    pub(crate) fn find(&self, origin: Position) -> Vec<Sighting> {
        let moved = self.moved.range((origin, Position(0))..=(origin, Position(u64::MAX)));
        let moved = moved.map(|(_, position)| *position);
        std::iter::once(origin).chain(moved).filter_map(|position| self.look(position)).collect()
    }

    fn look(&self, position: Position) -> Option<Sighting> {
        let sighting = |held: &Held, leased: bool, delivered: bool| Sighting {
            position,
            message: held.message.clone(),
            leased,
            attempts: held.attempts + u32::from(delivered),
            delivered: held.delivered,
        };
        if let Some(leased) = self.leased.get(&position) {
            return Some(sighting(&leased.held, true, true));
        }
        if let Some(leaving) = self.leaving.get(&position) {
            return Some(sighting(&leaving.held, true, leaving.delivered));
        }
        let delayed = || self.delayed.get(&position).map(|delayed| &delayed.held);
        if let Some(held) = self.returned.get(&position).or_else(delayed) {
            return Some(sighting(held, false, false));
        }
        let message = self.fresh[self.fresh_index(position)?].1.clone()?;
        Some(sighting(&Held::new(message), false, false))
    }

    /// Whether `poll_delivery` may find something to do.
    pub(crate) fn is_deliverable(&self) -> bool {
        self.is_ready() && self.consumers.is_anyone_in_turn()
    }

    fn is_ready(&self) -> bool {
        !self.returned.is_empty() || self.fresh_live > 0
    }

    fn lease_next(&mut self, connection: ConnectionId, paid: Paid, lease_ms: u64, now: Timestamp) -> Option<Assigned> {
        let (position, mut held) = self.pop_ready()?;
        held.delivered = Some(now);
        self.last_lease += 1;
        let (lease, deadline) = (LeaseId(self.last_lease), now.plus_ms(lease_ms.max(LEASE_MS_MIN)));
        let (message, attempt) = (held.message.clone(), held.attempts + 1);
        self.timers.insert((deadline, position));
        self.holders.insert(connection, lease, position);
        // A fetch is answered with the message itself; there is no outbox in between.
        let taken = paid == Paid::ByFetch;
        self.leased.insert(position, Leased { held, lease, connection, paid, deadline, taken });
        Some(Assigned { connection, position, lease, message, attempt, paid })
    }

    fn pop_ready(&mut self) -> Option<(Position, Held)> {
        if let Some(returned) = self.returned.pop_first() {
            return Some(returned);
        }
        let (position, message) = self.fresh.pop_front()?;
        self.fresh_live -= 1;
        self.trim_fresh();
        Some((position, Held::new(message.expect("no tombstone stands at an end: trim_fresh takes them away"))))
    }

    fn end_lease(&mut self, connection: ConnectionId, which: LeaseRef) -> Result<Leased, NoLease> {
        if !self.holds(connection, which) {
            return Err(NoLease);
        }
        let leased = self.remove_leased(which.position).ok_or(NoLease)?;
        self.timers.remove(&(leased.deadline, which.position));
        Ok(leased)
    }

    /// Ends whatever lease there is, but for its timer.
    fn remove_leased(&mut self, position: Position) -> Option<Leased> {
        let leased = self.leased.remove(&position)?;
        let is_live = |lease, position| self.leased.get(&position).is_some_and(|leased| leased.lease == lease);
        self.holders.one_ended(leased.connection, is_live);
        if leased.taken {
            self.refund(leased.connection, leased.paid);
        }
        Some(leased)
    }

    fn refund(&mut self, connection: ConnectionId, paid: Paid) {
        if let Paid::By(subscription) = paid {
            self.consumers.return_credit(connection, subscription);
        }
    }

    fn put_back(&mut self, position: Position, mut held: Held, how: GiveBack, now: Timestamp) -> Gone {
        if let GiveBack::Nack { .. } = how {
            held.attempts += 1;
        }
        if self.settings.max_attempts > 0 && held.attempts >= self.settings.max_attempts {
            self.leaving.insert(position, Leaving { held, delivered: false });
            return Gone::WornOut;
        }
        match how {
            GiveBack::Nack { delay_ms } if delay_ms > 0 => {
                let until = now.plus_ms(delay_ms);
                self.timers.insert((until, position));
                self.delayed.insert(position, Delayed { held, until });
            }
            GiveBack::Nack { .. } | GiveBack::Release => {
                self.returned.insert(position, held);
            }
        }
        Gone::Back
    }

    fn take(&mut self, position: Position) -> Option<Held> {
        if let Some(Leaving { mut held, delivered }) = self.leaving.remove(&position) {
            held.attempts += u32::from(delivered);
            return Some(held);
        }
        if let Some(mut leased) = self.remove_leased(position) {
            self.timers.remove(&(leased.deadline, position));
            leased.held.attempts += 1;
            return Some(leased.held);
        }
        if let Some(held) = self.returned.remove(&position) {
            return Some(held);
        }
        if let Some(delayed) = self.delayed.remove(&position) {
            self.timers.remove(&(delayed.until, position));
            return Some(delayed.held);
        }
        let index = self.fresh_index(position)?;
        let message = self.fresh[index].1.take()?;
        self.fresh_live -= 1;
        self.trim_fresh();
        Some(Held::new(message))
    }

    /// Takes tombstones away from both ends, and all of them when they outnumber the messages: each is moved past at
    /// most once for every message removed.
    fn trim_fresh(&mut self) {
        while self.fresh.front().is_some_and(|(_, message)| message.is_none()) {
            self.fresh.pop_front();
        }
        while self.fresh.back().is_some_and(|(_, message)| message.is_none()) {
            self.fresh.pop_back();
        }
        if self.fresh.len() > 2 * self.fresh_live {
            self.fresh.retain(|(_, message)| message.is_some());
        }
    }

    fn fresh_index(&self, position: Position) -> Option<usize> {
        self.fresh.binary_search_by_key(&position, |(position, _)| *position).ok()
    }
}

impl Held {
    fn new(message: Message) -> Held {
        Held { message, attempts: 0, delivered: None }
    }
}

impl Leased {
    fn is(&self, connection: ConnectionId, which: LeaseRef) -> bool {
        self.lease == which.lease && self.connection == connection
    }
}

#[cfg(test)]
mod tests;
