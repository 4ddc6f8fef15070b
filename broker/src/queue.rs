mod consumers;
mod held;
mod holders;
mod lane;
mod lease;
mod purge;
mod recovery;
mod state;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ciphermq_journal::Position;
use hashbrown::HashMap;
use tracing::debug;

use crate::budget::Budget;
use crate::model::QueueId;
use crate::outbox::{Offer, Outbox};
use crate::stats::Stats;
use crate::timers::Timers;
use crate::{ConnectionId, Message, QueueSettings, Timestamp};

pub(crate) use held::{Body, Seen, Sighting, Size, Stored, Tried, copies_log2};
pub(crate) use lease::{GiveBack, LeaseRef, NoLease, Paid};
pub(crate) use state::Counts;

/// One queue: its state behind one lock, and the outboxes of its consumers.
///
/// Every method that may make a message or a credit available delivers before it returns.
#[derive(Debug)]
pub(crate) struct Queue {
    id: QueueId,
    name: Arc<str>,
    settings: QueueSettings,
    /// Reserved and stored messages and bytes. Reserved before the journal takes a publish, so that a limit holds
    /// however many publishes are on their way.
    /// The highest bit of `messages` says that the queue is closed.
    messages: AtomicU64,
    bytes: AtomicU64,
    timers: Arc<Timers>,
    stats: Arc<Stats>,
    budget: Arc<Budget>,
    inner: Mutex<Inner>,
}

/// What a purge or deletion took out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Inner {
    state: state::QueueState,
    outboxes: HashMap<ConnectionId, Arc<Outbox>>,
    /// The wake-up announced to `timers`.
    announced: Option<Timestamp>,
    deleted: bool,
}

/// Set in `Queue::messages` when the queue is being deleted.
const CLOSED: u64 = 1 << 63;
/// Announced when a queue is to be looked at whatever the time is.
const AT_ONCE: Timestamp = Timestamp(0);

impl Queue {
    pub(crate) fn new(
        id: QueueId,
        name: Arc<str>,
        settings: QueueSettings,
        timers: Arc<Timers>,
        stats: Arc<Stats>,
        budget: Arc<Budget>,
    ) -> Queue {
        let inner = Inner {
            state: state::QueueState::new(settings.clone(), Arc::clone(&budget)),
            outboxes: HashMap::new(),
            announced: None,
            deleted: false,
        };
        Queue {
            id,
            name,
            settings,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            timers,
            stats,
            budget,
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn id(&self) -> QueueId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Messages in the queue, and those on their way into it.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire) & !CLOSED
    }

    /// Whether the queue is being deleted, or is.
    pub(crate) fn is_closed(&self) -> bool {
        self.messages.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Lets nobody reserve room any more. Not forced, only if nobody has: otherwise how many messages stand against it.
    pub(crate) fn close(&self, force: bool) -> Result<(), u64> {
        if force {
            self.messages.fetch_or(CLOSED, Ordering::AcqRel);
            return Ok(());
        }
        let closed = self.messages.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        closed.map(drop)
    }

    /// It is not deleted after all.
    pub(crate) fn reopen(&self) {
        self.messages.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// Takes room for one message; false, and nothing taken, when a limit of the queue would be passed or it is closed.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let messages = self.messages.fetch_add(1, Ordering::AcqRel) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let within = |limit, value| limit == 0 || value <= limit;
        let is_open = messages & CLOSED == 0;
        if is_open && within(self.settings.max_messages, messages) && within(self.settings.max_bytes, total) {
            return true;
        }
        self.unreserve(bytes);
        false
    }

    /// Takes room for one message without asking the limits.
    pub(crate) fn reserve_unchecked(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives the room of one message back.
    pub(crate) fn unreserve(&self, bytes: u64) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// A committed message arrives. False when the queue was deleted in the meantime.
    pub(crate) fn push(self: &Arc<Queue>, order: Position, message: Message, now: Timestamp) -> bool {
        self.with(now, |inner| {
            if inner.deleted {
                return false;
            }
            if let Some(assigned) = inner.state.push(order, message, now) {
                self.hand_out(inner, assigned);
            }
            true
        })
    }

    /// A message found in the log when it is read again: see `QueueState::recover`. Its room is taken. Returns where the
    /// record is that this one replaces.
    pub(crate) fn recover(&self, order: Position, at: Stored, origin: Position, attempts: u32) -> Option<Stored> {
        let replaced = self.lock().state.recover(order, at, origin, attempts);
        if replaced.is_none() {
            self.reserve_unchecked(at.text_bytes());
        }
        replaced
    }

    /// The log has been read.
    pub(crate) fn recovered(&self) {
        self.lock().state.recovered();
    }

    /// The message has used up at least so many attempts.
    pub(crate) fn set_attempts(&self, order: Position, attempts: u32) {
        self.lock().state.set_attempts(order, attempts);
    }

    /// Attempts a message has used up, not counting a delivery under way.
    pub(crate) fn attempts(&self, order: Position) -> Option<u32> {
        self.lock().state.attempts(order)
    }

    /// Where a message's record is; `None` when the queue does not have it (any more).
    pub(crate) fn location(&self, order: Position) -> Option<Stored> {
        self.lock().state.location(order)
    }

    /// A message's record was written anew. Returns where it was, if the queue still has the message.
    pub(crate) fn relocate(&self, order: Position, to: Stored) -> Option<Stored> {
        self.lock().state.relocate(order, to)
    }

    /// A message's body, or where it is.
    pub(crate) fn body(&self, order: Position) -> Option<Body> {
        self.lock().state.body(order)
    }

    /// Adds a consumer or changes its credit. False when the queue was deleted in the meantime.
    pub(crate) fn subscribe(
        self: &Arc<Queue>,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
        prefetch: u32,
        now: Timestamp,
    ) -> bool {
        self.with(now, |inner| {
            if inner.deleted {
                return false;
            }
            inner.outboxes.insert(connection, Arc::clone(outbox));
            inner.state.consumers.subscribe(connection, prefetch);
            true
        })
    }

    /// Ends a subscription; leases stay.
    pub(crate) fn unsubscribe(&self, connection: ConnectionId) -> bool {
        let mut inner = self.lock();
        inner.outboxes.remove(&connection);
        inner.state.consumers.unsubscribe(connection)
    }

    pub(crate) fn fetch(
        self: &Arc<Queue>,
        connection: ConnectionId,
        lease_ms: Option<u64>,
        now: Timestamp,
    ) -> Option<Offer> {
        let assigned = self.with(now, |inner| {
            let lease_ms = lease_ms.unwrap_or(inner.state.settings.lease_ms);
            inner.state.fetch(connection, lease_ms, now)
        })?;
        Some(self.offer(assigned))
    }

    pub(crate) fn settle(
        self: &Arc<Queue>,
        connection: ConnectionId,
        which: LeaseRef,
        now: Timestamp,
    ) -> Result<Seen, NoLease> {
        self.with(now, |inner| inner.state.settle(connection, which))
    }

    pub(crate) fn give_back(
        self: &Arc<Queue>,
        connection: ConnectionId,
        which: LeaseRef,
        how: GiveBack,
        now: Timestamp,
    ) -> Result<Option<Tried>, NoLease> {
        self.with(now, |inner| inner.state.give_back(connection, which, how, now))
    }

    pub(crate) fn touch(
        self: &Arc<Queue>,
        connection: ConnectionId,
        which: LeaseRef,
        lease_ms: Option<u64>,
        now: Timestamp,
    ) -> Result<(), NoLease> {
        self.with(now, |inner| inner.state.touch(connection, which, lease_ms, now))
    }

    pub(crate) fn holds(&self, connection: ConnectionId, which: LeaseRef) -> bool {
        self.lock().state.holds(connection, which)
    }

    /// The connection takes a delivery out of its outbox; false when its lease has ended in the meantime.
    pub(crate) fn take_delivery(&self, connection: ConnectionId, which: LeaseRef, paid: Paid) -> bool {
        let mut inner = self.lock();
        let taken = inner.state.take_delivery(connection, which, paid);
        if !taken {
            self.look_later(inner);
        }
        taken
    }

    /// The message of a delivery that was taken cannot be read back now.
    pub(crate) fn unread(&self, connection: ConnectionId, which: LeaseRef) {
        let mut inner = self.lock();
        inner.state.unread(connection, which);
        self.look_later(inner);
    }

    /// The message of a delivery that was taken can never be read back; returns when it was leased.
    pub(crate) fn abandon(&self, connection: ConnectionId, which: LeaseRef) -> Result<Timestamp, NoLease> {
        let mut inner = self.lock();
        let leased = inner.state.abandon(connection, which);
        self.look_later(inner);
        leased
    }

    /// Whoever takes a delivery knows no time to begin the next lease with: if there is one to begin, the timer does.
    fn look_later(&self, mut inner: MutexGuard<'_, Inner>) {
        let wake = inner.state.is_deliverable() && inner.announced != Some(AT_ONCE);
        let announcement = if wake { Some((inner.announced.replace(AT_ONCE), AT_ONCE)) } else { inner.announce() };
        drop(inner);
        if let Some((before, at)) = announcement {
            self.timers.announce(self.id, before, at);
        }
    }

    /// Sets a message nobody holds aside for the record that moves it.
    pub(crate) fn claim(&self, order: Position) -> bool {
        self.lock().state.claim(order)
    }

    /// A committed record removes a message. Returns where the message's own record is.
    pub(crate) fn retire(self: &Arc<Queue>, order: Position, now: Timestamp) -> Option<Stored> {
        let at = self.with(now, |inner| inner.state.retire(order))?;
        self.unreserve(at.text_bytes());
        Some(at)
    }

    /// The record that was to remove a message failed.
    pub(crate) fn restore(self: &Arc<Queue>, order: Position, now: Timestamp) {
        self.with(now, |inner| inner.state.restore(order));
    }

    /// A message that was to be moved cannot be read back now: it rests for a while, and wears out again.
    pub(crate) fn defer(self: &Arc<Queue>, order: Position, now: Timestamp) {
        self.with(now, |inner| inner.state.defer(order, now));
    }

    /// A connection ended; returns what used up an attempt by that, or has none left.
    pub(crate) fn detach(self: &Arc<Queue>, connection: ConnectionId, now: Timestamp) -> Vec<Tried> {
        self.with(now, |inner| {
            inner.outboxes.remove(&connection);
            inner.state.detach(connection, now)
        })
    }

    /// Ends what is due, letting the lock go in between. Returns what has used up an attempt.
    pub(crate) fn handle_timeout(self: &Arc<Queue>, now: Timestamp) -> Vec<Tried> {
        let mut tried = Vec::new();
        loop {
            let is_done = self.with(now, |inner| {
                inner.announced = None;
                tried.extend(inner.state.handle_timeout(now));
                inner.state.poll_timeout().is_none_or(|next| next > now)
            });
            if is_done {
                return tried;
            }
        }
    }

    /// First step of a purge: nobody can lease any more what is ready or delayed. Returns what stays, in order.
    pub(crate) fn condemn(&self) -> Vec<Position> {
        self.lock().state.condemn()
    }

    /// Second step of a purge: `release` gets where the record of each message is.
    pub(crate) fn remove_condemned(&self, release: impl FnMut(Stored)) -> Removed {
        let condemned = self.lock().state.take_condemned();
        self.forget(condemned, release)
    }

    /// The purge failed: what was condemned is ready again.
    pub(crate) fn restore_condemned(self: &Arc<Queue>, now: Timestamp) {
        self.with(now, |inner| inner.state.restore_condemned());
    }

    /// A purge found in the log: removes everything but these messages, which are in order.
    pub(crate) fn remove_except(&self, kept: &[Position], release: impl FnMut(Stored)) -> Removed {
        let condemned = self.lock().state.take_except(kept);
        self.forget(condemned, release)
    }

    /// Removes everything and tells the consumers; nothing enters a deleted queue any more.
    pub(crate) fn delete(self: &Arc<Queue>, release: impl FnMut(Stored)) -> Removed {
        let (cleared, outboxes) = {
            let mut inner = self.lock();
            inner.deleted = true;
            (inner.state.clear(), std::mem::take(&mut inner.outboxes))
        };
        for outbox in outboxes.into_values() {
            outbox.cancel(self);
        }
        self.forget(cleared, release)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().state.counts()
    }

    pub(crate) fn consumers(&self) -> usize {
        self.lock().state.consumers.len()
    }

    pub(crate) fn find(&self, origin: Position) -> Vec<Sighting> {
        self.lock().state.find(origin)
    }

    /// Runs `change`, delivers what it made deliverable, and announces an earlier deadline.
    fn with<T>(self: &Arc<Queue>, now: Timestamp, change: impl FnOnce(&mut Inner) -> T) -> T {
        let (result, announcement) = {
            let mut inner = self.lock();
            let result = change(&mut inner);
            while let Some(assigned) = inner.state.poll_delivery(now) {
                self.hand_out(&inner, assigned);
            }
            (result, inner.announce())
        };
        if let Some((before, at)) = announcement {
            self.timers.announce(self.id, before, at);
        }
        result
    }

    /// Puts a delivery into the outbox of its consumer.
    fn hand_out(self: &Arc<Queue>, inner: &Inner, assigned: lease::Assigned) {
        self.stats.count_delivery(assigned.attempt);
        if assigned.attempt > 1 {
            debug!(queue = &*self.name, order = assigned.order.0, attempt = assigned.attempt, "delivered again");
        }
        let outbox = inner.outboxes.get(&assigned.connection);
        let outbox = outbox.expect("a consumer in turn has an outbox: both come and go under this lock");
        outbox.offer(self.offer(assigned), self.budget.is_limited());
    }

    fn offer(self: &Arc<Queue>, assigned: lease::Assigned) -> Offer {
        let lease::Assigned { order, lease, body, attempt, paid, .. } = assigned;
        Offer { queue: Arc::clone(self), order, lease, attempt, paid, body }
    }

    /// Gives back the room of what was taken out, after the queue's lock: there may be millions.
    fn forget(&self, condemned: Option<Box<purge::Condemned>>, mut release: impl FnMut(Stored)) -> Removed {
        let mut removed = Removed { messages: 0, bytes: 0 };
        if let Some(condemned) = condemned {
            condemned.release(&self.budget, |at| {
                removed.messages += 1;
                removed.bytes += at.text_bytes();
                release(at);
            });
        }
        self.messages.fetch_sub(removed.messages, Ordering::Relaxed);
        self.bytes.fetch_sub(removed.bytes, Ordering::Relaxed);
        removed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The wake-up to announce, with the one it replaces, if the earliest deadline is now earlier.
    fn announce(&mut self) -> Option<(Option<Timestamp>, Timestamp)> {
        let next = self.state.poll_timeout()?;
        if self.announced.is_some_and(|announced| announced <= next) {
            return None;
        }
        Some((self.announced.replace(next), next))
    }
}
