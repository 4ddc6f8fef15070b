mod consumers;
mod holders;
mod state;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ciphermq_journal::Position;
use hashbrown::HashMap;
use tracing::debug;

use crate::model::QueueId;
use crate::outbox::{Delivery, Outbox, Waiting};
use crate::stats::Stats;
use crate::timers::Timers;
use crate::{ConnectionId, Message, QueueSettings, Timestamp};

pub(crate) use state::{Counts, GiveBack, Gone, Held, LeaseRef, NoLease, Paid, Sighting};

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
    ) -> Queue {
        let inner = Inner {
            state: state::QueueState::new(settings.clone()),
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
    pub(crate) fn push(self: &Arc<Queue>, position: Position, message: Message, now: Timestamp) -> bool {
        self.with(now, |inner| {
            if !inner.deleted {
                inner.state.push(position, message);
            }
            !inner.deleted
        })
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
    ) -> Option<Delivery> {
        let assigned = self.with(now, |inner| {
            let lease_ms = lease_ms.unwrap_or(inner.state.settings.lease_ms);
            inner.state.fetch(connection, lease_ms, now)
        })?;
        Some(self.delivery(assigned))
    }

    pub(crate) fn settle(
        self: &Arc<Queue>,
        connection: ConnectionId,
        which: LeaseRef,
        now: Timestamp,
    ) -> Result<(), NoLease> {
        self.with(now, |inner| inner.state.settle(connection, which))
    }

    pub(crate) fn give_back(
        self: &Arc<Queue>,
        connection: ConnectionId,
        which: LeaseRef,
        how: GiveBack,
        now: Timestamp,
    ) -> Result<Gone, NoLease> {
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
        let (taken, announcement) = {
            let mut inner = self.lock();
            let taken = inner.state.take_delivery(connection, which, paid);
            let wake = !taken && inner.state.is_deliverable() && inner.announced != Some(AT_ONCE);
            (taken, wake.then(|| inner.announced.replace(AT_ONCE)))
        };
        // Taking knows no time to begin the next lease with: the timer does.
        if let Some(before) = announcement {
            self.timers.announce(self.id, before, AT_ONCE);
        }
        taken
    }

    /// A committed record removes a message.
    pub(crate) fn retire(self: &Arc<Queue>, position: Position, now: Timestamp) -> Option<Held> {
        let held = self.with(now, |inner| inner.state.retire(position))?;
        self.unreserve(held.message.bytes());
        Some(held)
    }

    /// The record that was to remove a message failed.
    pub(crate) fn restore(self: &Arc<Queue>, position: Position, now: Timestamp) {
        self.with(now, |inner| inner.state.restore(position));
    }

    pub(crate) fn detach(self: &Arc<Queue>, connection: ConnectionId, now: Timestamp) -> Option<Position> {
        self.with(now, |inner| {
            inner.outboxes.remove(&connection);
            inner.state.detach(connection, now)
        })
    }

    /// Ends what is due, letting the lock go in between. Returns the messages that are worn out.
    pub(crate) fn handle_timeout(self: &Arc<Queue>, now: Timestamp) -> Vec<Position> {
        let mut worn_out = Vec::new();
        loop {
            let is_done = self.with(now, |inner| {
                inner.announced = None;
                worn_out.extend(inner.state.handle_timeout(now));
                inner.state.poll_timeout().is_none_or(|next| next > now)
            });
            if is_done {
                return worn_out;
            }
        }
    }

    /// Removes what is ready or delayed.
    pub(crate) fn purge(&self) -> Removed {
        let purged = self.lock().state.purge();
        self.forget(&purged)
    }

    /// Removes everything and tells the consumers; nothing enters a deleted queue any more.
    pub(crate) fn delete(self: &Arc<Queue>) -> Removed {
        let (cleared, outboxes) = {
            let mut inner = self.lock();
            inner.deleted = true;
            (inner.state.clear(), std::mem::take(&mut inner.outboxes))
        };
        for outbox in outboxes.into_values() {
            outbox.push(Waiting::Cancelled(Arc::clone(self)));
        }
        self.forget(&cleared)
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
                self.stats.count_delivery(assigned.attempt);
                if assigned.attempt > 1 {
                    debug!(queue = &*self.name, "Message {} delivered again", assigned.message.id());
                }
                let outbox = inner.outboxes.get(&assigned.connection);
                let outbox = outbox.expect("a consumer in turn has an outbox: both come and go under this lock");
                let paid = assigned.paid;
                outbox.push(Waiting::Delivery(self.delivery(assigned), paid));
            }
            (result, inner.announce())
        };
        if let Some((before, at)) = announcement {
            self.timers.announce(self.id, before, at);
        }
        result
    }

    fn delivery(self: &Arc<Queue>, assigned: state::Assigned) -> Delivery {
        let state::Assigned { position, lease, message, attempt, .. } = assigned;
        Delivery { queue: Arc::clone(self), position, lease, message, attempt }
    }

    fn forget(&self, messages: &[Message]) -> Removed {
        messages.iter().for_each(|message| self.unreserve(message.bytes()));
        Removed { messages: messages.len() as u64, bytes: messages.iter().map(Message::bytes).sum() }
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
