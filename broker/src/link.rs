mod leases;
mod looks;
mod publish;
mod resend;
mod settle;
mod topology;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ciphermq_journal::{Doorbell, Receipt, Unavailable};
use hashbrown::HashMap;

use crate::connection::Connection;
use crate::event::{Event, Record};
use crate::loader::{Loader, Unloadable};
use crate::outbox::{Delivery, Notice, Offer, Waiting};
use crate::queue::{GiveBack, LeaseRef, Queue};
use crate::shared::Shared;
use crate::{ConnectionId, Error, SessionId, Timestamp, limits};

use leases::{Lease, Leases};
pub use publish::Publish;
pub use settle::Settle;
pub use topology::Returned;

/// One connection's way into the broker: what a front-end calls.
///
/// Publishes and settlements are collected and go to the journal together with [`Link::submit`]; they may be
/// answered when the receipt is complete. Dropping the link ends the connection: leases return at once.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    session: Option<SessionId>,
    subscriptions: HashMap<Arc<str>, Arc<Queue>>,
    leases: Leases,
    /// Collected for the journal.
    records: Vec<Record>,
    /// Taken out of the outbox, not looked at yet.
    notices: VecDeque<Waiting>,
    scratch: String,
    /// Reads back what left memory.
    loader: Loader,
    /// The time of the last call: ending a connection happens "now" as well.
    now: Timestamp,
}

impl Link {
    pub(crate) fn new(shared: Arc<Shared>, id: ConnectionId, bell: Arc<Doorbell>) -> Link {
        Link {
            loader: shared.loader(),
            shared,
            connection: Arc::new(Connection::new(id, bell)),
            session: None,
            subscriptions: HashMap::new(),
            leases: Leases::new(),
            records: Vec::new(),
            notices: VecDeque::new(),
            scratch: String::new(),
            now: Timestamp(0),
        }
    }

    /// This connection's number.
    pub fn id(&self) -> ConnectionId {
        self.connection.id()
    }

    /// Opens a session; the connection that had the one asked for is ended and its leases return at once.
    pub fn open_session(&mut self, asked: Option<SessionId>, now: Timestamp) -> SessionId {
        self.now = now;
        let (session, before) = self.shared.sessions.open(asked, &self.connection);
        if let Some(before) = before {
            let tried = before.hand_over(now);
            self.shared.record_tried(now, tried);
        }
        self.session = Some(session);
        session
    }

    /// Another connection took this one's session: close it.
    pub fn is_taken_over(&self) -> bool {
        self.connection.is_taken_over()
    }

    /// Hands what was collected to the journal. `None` when nothing was.
    ///
    /// # Errors
    /// [`Unavailable`] when the journal has failed; what was set aside has been given back.
    pub fn submit(&mut self) -> Option<Result<Receipt, Unavailable>> {
        if self.records.is_empty() {
            return None;
        }
        let submitted = self.shared.journal.submit(&mut self.records, self.connection.bell());
        if submitted.is_err() {
            // Attempts are recorded for the next start only: what they tell of has happened.
            let is_awaited = self.records.iter().any(|record| !matches!(record.event, Event::Attempts { .. }));
            self.records.drain(..).for_each(|record| self.shared.give_back(record));
            return is_awaited.then_some(submitted);
        }
        Some(submitted)
    }

    /// How many entries the next submission has so far: what was collected behind the first `n` of them is [`Receipt::part`]
    /// `n..` of its receipt.
    pub fn collected(&self) -> usize {
        self.records.len()
    }

    /// Whether a receipt is complete; `None` while it is not.
    pub fn outcome(&self, receipt: Receipt) -> Option<Result<(), Unavailable>> {
        self.shared.journal.outcome(receipt)
    }

    /// Consumes a queue with this much credit, or changes the credit.
    ///
    /// # Errors
    /// `NoQueue`, `Limit`.
    pub fn subscribe(&mut self, queue: &str, prefetch: u32, now: Timestamp) -> Result<(), Error> {
        self.now = now;
        let no_queue = || Error::NoQueue(queue.to_owned());
        let found = self.shared.state.registry.queue(queue).ok_or_else(no_queue)?;
        if self.subscriptions.len() >= limits::SUBSCRIPTIONS_MAX && !self.subscriptions.contains_key(queue) {
            return Err(Error::Limit("1024 subscriptions on a connection"));
        }
        self.connection.may_use(&found);
        if !found.subscribe(self.connection.id(), self.connection.outbox(), prefetch, now) {
            return Err(no_queue());
        }
        self.leave_if_taken_over(&found);
        let before = self.subscriptions.insert(found.shared_name(), Arc::clone(&found));
        // A queue of that name was deleted and declared again: its end is of no interest any more.
        if let Some(before) = before.filter(|before| before.id() != found.id()) {
            self.return_untaken(&before);
        }
        Ok(())
    }

    /// Whether this connection consumes anything.
    pub fn is_consumer(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// The queues this connection consumes, by name.
    pub fn subscriptions(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.subscriptions.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Ends a subscription; its leases stay.
    ///
    /// # Errors
    /// `NoSubscription`.
    pub fn cancel(&mut self, queue: &str, now: Timestamp) -> Result<(), Error> {
        self.now = now;
        let found = self.subscriptions.remove(queue).ok_or_else(|| Error::NoSubscription(queue.to_owned()))?;
        found.unsubscribe(self.connection.id());
        self.return_untaken(&found);
        Ok(())
    }

    /// What waits to be taken from a subscription that is over returns untouched: no push may follow.
    fn return_untaken(&mut self, queue: &Arc<Queue>) {
        self.take_notices();
        let all = std::mem::take(&mut self.notices).into_iter();
        let (over, kept): (VecDeque<_>, _) = all.partition(|waiting| waiting.queue().id() == queue.id());
        self.notices = kept;
        for waiting in over {
            if let Waiting::Offer(offer) = waiting {
                let _ = queue.give_back(self.connection.id(), offer.which(), GiveBack::Release, self.now);
            }
        }
    }

    /// The next ready message, leased to this connection.
    ///
    /// # Errors
    /// `NoQueue`, `Limit`.
    pub fn fetch(&mut self, queue: &str, lease_ms: Option<u64>, now: Timestamp) -> Result<Option<Delivery>, Error> {
        self.now = now;
        let found = self.shared.state.registry.queue(queue).ok_or_else(|| Error::NoQueue(queue.to_owned()))?;
        self.connection.may_use(&found);
        self.forget_old_leases();
        if self.leases.len() >= limits::FETCHED_MAX
            && self.leases.prune_now(self.connection.id()) >= limits::FETCHED_MAX
        {
            return Err(Error::Limit("65535 leases on a connection"));
        }
        while let Some(offer) = found.fetch(self.connection.id(), lease_ms, now) {
            if self.connection.is_taken_over() {
                let _ = found.give_back(self.connection.id(), offer.which(), GiveBack::Release, now);
                break;
            }
            self.shared.state.stats.count_delivery(offer.attempt);
            match self.redeem(offer) {
                Ok(delivery) => return Ok(Some(delivery)),
                Err(Unloadable::Unreadable) => break,
                Err(Unloadable::Gone | Unloadable::Damaged) => {}
            }
        }
        self.leave_if_taken_over(&found);
        Ok(None)
    }

    /// The next thing the broker has to say; look again when the bell rang.
    ///
    /// What was overtaken while it waited is not said: a delivery whose lease has ended, the end of a queue that was
    /// declared and consumed again.
    pub fn next_notice(&mut self) -> Option<Notice> {
        loop {
            if self.notices.is_empty() {
                self.take_notices();
            }
            let Some(waiting) = self.notices.pop_front() else {
                self.rest();
                return None;
            };
            match waiting {
                Waiting::Offer(offer) => {
                    if offer.queue.take_delivery(self.connection.id(), offer.which(), offer.paid) {
                        self.forget_old_leases();
                        if let Ok(delivery) = self.redeem(offer) {
                            return Some(Notice::Delivery(delivery));
                        }
                    }
                }
                Waiting::Cancelled(queue) => {
                    let name = queue.shared_name();
                    if self.subscriptions.get(&name).is_some_and(|consumed| consumed.id() == queue.id()) {
                        self.subscriptions.remove(&name);
                        return Some(Notice::Cancelled { queue: name });
                    }
                }
            }
        }
    }

    /// Whether the lease behind a delivery has not ended yet.
    pub fn holds(&self, delivery: &Delivery) -> bool {
        delivery.queue.holds(self.connection.id(), delivery.which())
    }

    /// Ends the connection: subscriptions are over, leases return to their queues. Dropping the link does the same, but
    /// as of its last call.
    pub fn end(mut self, now: Timestamp) {
        self.now = now;
    }

    /// The connection may have been detached between the look-up of a queue and its use: then nothing would ever detach
    /// it from that queue again.
    fn leave_if_taken_over(&self, queue: &Arc<Queue>) {
        if self.connection.is_taken_over() {
            let tried = queue.detach(self.connection.id(), self.now);
            self.shared.record_tried(self.now, tried.into_iter().map(|tried| (Arc::clone(queue), tried)));
        }
    }

    /// The message of an offer that was taken, read back if it left memory.
    fn redeem(&mut self, offer: Offer) -> Result<Delivery, Unloadable> {
        let Offer { queue, order, lease, attempt, body, .. } = offer;
        let which = LeaseRef { order, lease };
        match self.loader.load(&queue, order, body) {
            Ok(message) => {
                let hash = self.shared.state.hash(message.id());
                let delivery = Delivery { queue, order, lease, message, attempt };
                self.leases.insert(Lease::of(&delivery, hash));
                Ok(delivery)
            }
            Err(Unloadable::Gone) => Err(Unloadable::Gone),
            Err(Unloadable::Unreadable) => {
                queue.unread(self.connection.id(), which);
                Err(Unloadable::Unreadable)
            }
            Err(Unloadable::Damaged) => {
                // Nobody will ever read this message: it leaves its queue, by a record like every other.
                if let Ok(leased) = queue.abandon(self.connection.id(), which) {
                    self.shared.state.stats.damaged.fetch_add(1, Ordering::Relaxed);
                    let event = Event::Discard { queue, order };
                    self.shared.record(vec![Record::new(leased, event)]);
                }
                Err(Unloadable::Damaged)
            }
        }
    }

    /// Nothing is to be done. A consumer that still holds a lease will soon read on, others need not keep what they read.
    fn rest(&mut self) {
        if self.leases.len() == 0 {
            self.loader.rest();
        }
    }

    fn forget_old_leases(&mut self) {
        self.leases.prune(self.connection.id());
    }

    fn take_notices(&mut self) {
        if self.notices.is_empty() {
            self.connection.outbox().swap(&mut self.notices);
        } else {
            let mut more = VecDeque::new();
            self.connection.outbox().swap(&mut more);
            self.notices.append(&mut more);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Collected but never submitted: not answered either.
        self.records.drain(..).for_each(|record| self.shared.give_back(record));
        let tried = self.connection.detach(self.now);
        self.shared.record_tried(self.now, tried);
        if let Some(session) = self.session {
            self.shared.sessions.close(session, &self.connection);
        }
    }
}

/// Stored messages keep the lengths of names and ids in a byte each.
fn check_length(text: &str) -> Result<(), Error> {
    if text.len() > limits::NAME_BYTES_MAX { Err(Error::Limit("255 bytes in a name or id")) } else { Ok(()) }
}
