//! A message in a receiver's hand: what holds it, and how it is settled.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use cipher_client::crypto::{Opened, Sender};
use cipher_client::dedupe::{DedupeWindow, MessageKey, SealingsInHand};
use cipher_client::{Error, ErrorKind, RawDelivery};
use tokio::sync::Mutex;

use crate::error::Failure;
use crate::process::Process;

/// How long a message stays away that did not open and was not settled: it must
/// not come back as fast as it can be thrown away.
const UNOPENED_DELAY: Duration = Duration::from_secs(30);

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ack,
    /// Acknowledge without waiting for the broker's word.
    AckLater,
    Nack(Option<Duration>),
    Release,
    Reject,
}

/// A message in hand. One that is dropped unsettled goes back to its queue.
pub(crate) struct Lease {
    /// Empty once settled. The newest is last: there are several when the
    /// broker took the first lease back and delivered the message here
    /// again, at most as many as the queue's `max_attempts`.
    deliveries: Mutex<Vec<RawDelivery>>,
    /// Of a message that came in parts, which has no deliveries of its own.
    parts: Mutex<Vec<Arc<Self>>>,
    mark: Option<Mark>,
    /// Set for a message that did not open.
    unopened: Option<&'static Process>,
}

impl Lease {
    /// A message that opened.
    pub(crate) fn opened(delivery: RawDelivery, mark: Option<Mark>) -> Arc<Self> {
        let deliveries = Mutex::new(vec![delivery]);
        let lease = Arc::new(Self { deliveries, parts: Mutex::default(), mark, unopened: None });
        if let Some(mark) = &lease.mark {
            let mut in_hand = mark.dedupe.in_hand();
            in_hand.leases.insert((mark.id.clone(), mark.sender), Arc::downgrade(&lease));
            in_hand.sealings.hold(mark.uniqueness);
        }
        lease
    }

    /// A message that did not.
    pub(crate) fn unopened(delivery: RawDelivery, process: &'static Process) -> Arc<Self> {
        let deliveries = Mutex::new(vec![delivery]);
        Arc::new(Self { deliveries, parts: Mutex::default(), mark: None, unopened: Some(process) })
    }

    /// A message all of whose parts are in hand.
    pub(crate) fn whole(parts: Vec<Arc<Self>>, mark: Option<Mark>) -> Arc<Self> {
        Arc::new(Self { deliveries: Mutex::default(), parts: Mutex::new(parts), mark, unopened: None })
    }

    /// Adds a newer lease on the same message, unless it was settled meanwhile.
    async fn renew(&self, delivery: RawDelivery) -> Result<(), RawDelivery> {
        let mut deliveries = self.deliveries.lock().await;
        if deliveries.is_empty() {
            return Err(delivery);
        }
        deliveries.push(delivery);
        Ok(())
    }

    /// Has the deliveries of an earlier lease on the same message, which are older.
    pub(crate) async fn take_over(&self, earlier: &Self) {
        let older = std::mem::take(&mut *earlier.deliveries.lock().await);
        self.deliveries.lock().await.splice(0..0, older);
    }

    /// The delivery of a part that is of no use, with what was sealed.
    pub(crate) async fn into_delivery(self: Arc<Self>, envelope: String) -> Option<RawDelivery> {
        let delivery = self.deliveries.lock().await.pop()?;
        self.forget();
        Some(delivery.with_envelope(envelope))
    }

    /// The envelope as it was published; `None` once settled.
    pub(crate) async fn envelope(&self) -> Option<String> {
        self.deliveries.lock().await.last().map(|delivery| delivery.envelope().to_owned())
    }

    /// Whether it was settled.
    pub(crate) async fn is_settled(&self) -> bool {
        self.deliveries.lock().await.is_empty() && self.parts.lock().await.is_empty()
    }

    pub(crate) async fn touch(&self) -> Result<(), Failure> {
        let parts = self.parts.lock().await;
        if parts.is_empty() {
            return self.touch_one().await;
        }
        for part in &*parts {
            part.touch_one().await?;
        }
        Ok(())
    }

    async fn touch_one(&self) -> Result<(), Failure> {
        let deliveries = self.deliveries.lock().await;
        let delivery = deliveries.last().ok_or_else(settled_before)?;
        Ok(delivery.touch().await?)
    }

    pub(crate) async fn settle(&self, verdict: Verdict) -> Result<(), Failure> {
        let (delivery, older, parts) = self.take().await;
        let delivery = delivery.ok_or_else(settled_before)?;
        if let (Verdict::Ack | Verdict::AckLater, Some(mark)) = (verdict, &self.mark) {
            // Before the broker is told: a crash in between must not let it in again.
            mark.note().await?;
        }
        self.forget();
        parts.iter().for_each(|part| part.forget());
        match verdict {
            Verdict::Ack => delivery.ack().await?,
            Verdict::AckLater => drop(delivery.ack_later()?),
            Verdict::Nack(delay) => delivery.nack(delay).await?,
            Verdict::Release => delivery.release().await?,
            Verdict::Reject => delivery.reject().await?,
        }
        // Leases before the newest are over; the broker answers their release, which
        // comes behind that request, with NOT_LEASED.
        drop(older);
        Ok(())
    }

    /// What is to be settled, if that was not done; and the leases before it, and
    /// its parts, which are known until then.
    async fn take(&self) -> (Option<RawDelivery>, Vec<RawDelivery>, Vec<Arc<Self>>) {
        let mut older = std::mem::take(&mut *self.deliveries.lock().await);
        let parts = std::mem::take(&mut *self.parts.lock().await);
        if parts.is_empty() {
            return (older.pop(), older, parts);
        }
        let mut newest = Vec::with_capacity(parts.len());
        for part in &parts {
            let mut deliveries = std::mem::take(&mut *part.deliveries.lock().await);
            newest.extend(deliveries.pop());
            older.append(&mut deliveries);
        }
        (RawDelivery::bundle("", newest), older, parts)
    }

    /// From here on the message, when it comes again, is another delivery.
    fn forget(&self) {
        if let Some(mark) = &self.mark {
            let mut in_hand = mark.dedupe.in_hand();
            if mark.is_whole {
                in_hand.wholes.remove(&(mark.id.clone(), mark.sender));
                return;
            }
            in_hand.leases.remove(&(mark.id.clone(), mark.sender));
            in_hand.sealings.let_go(mark.uniqueness);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.deliveries.get_mut().is_empty() && self.parts.get_mut().is_empty() {
            return;
        }
        self.forget();
        if let Some(process) = self.unopened {
            for delivery in self.deliveries.get_mut().drain(..) {
                process.runtime.spawn(delivery.nack(Some(UNOPENED_DELAY)));
            }
        }
    }
}

fn settled_before() -> Failure {
    Failure::from(ErrorKind::LeaseLost).because("this message was settled before, once is enough")
}

/// How a message in hand is recognised when it comes again.
pub(crate) struct Mark {
    dedupe: Arc<Dedupe>,
    id: Arc<str>,
    uniqueness: [u8; 32],
    sender: Sender,
    /// Of a message that came in parts, whose leases are those of the parts.
    is_whole: bool,
}

impl Mark {
    async fn note(&self) -> Result<(), Failure> {
        if !self.dedupe.is_synced {
            return Ok(self.dedupe.note(&self.id, &self.uniqueness, &self.sender)?);
        }
        // The disk takes its time: not that of an event loop.
        let (dedupe, id, uniqueness) = (Arc::clone(&self.dedupe), Arc::clone(&self.id), self.uniqueness);
        let sender = self.sender;
        let noted = tokio::task::spawn_blocking(move || dedupe.note(&id, &uniqueness, &sender)).await;
        // It is cancelled only with the runtime, which is never dropped.
        Ok(noted.unwrap_or(Err(ErrorKind::Closed.into()))?)
    }
}

/// The memory of one receiver.
pub(crate) struct Dedupe {
    /// Each note waits for the disk.
    is_synced: bool,
    acknowledged: StdMutex<DedupeWindow>,
    in_hand: StdMutex<InHand>,
}

/// As many as the receiver's caller holds.
#[derive(Default)]
struct InHand {
    /// By id and sender: the same id from another sender is another message.
    leases: HashMap<(Arc<str>, Sender), Weak<Lease>>,
    sealings: SealingsInHand,
    /// Messages that came in parts; those are among the others.
    wholes: HashSet<(Arc<str>, Sender)>,
}

/// What is known of a message that has just come.
pub(crate) enum Seen {
    New(RawDelivery, Mark),
    /// It is in hand; that lease goes on.
    InHand,
    /// It was acknowledged before, or a copy of it is in hand.
    Before(RawDelivery),
    /// The window cannot be read: the message may have been acknowledged.
    Unknown(RawDelivery, Error),
}

impl Dedupe {
    pub(crate) fn new(window: DedupeWindow, is_synced: bool) -> Arc<Self> {
        Arc::new(Self { is_synced, acknowledged: StdMutex::new(window), in_hand: StdMutex::default() })
    }

    /// What is known of a message that opened as `opened`.
    pub(crate) async fn look(self: &Arc<Self>, delivery: RawDelivery, opened: &Opened) -> Seen {
        let Opened { uniqueness, sender, .. } = *opened;
        let id: Arc<str> = delivery.message_id().into();
        let held = self.in_hand().leases.get(&(id.clone(), sender)).and_then(Weak::upgrade);
        let delivery = match held {
            None => delivery,
            Some(lease) => match lease.renew(delivery).await {
                Ok(()) => return Seen::InHand,
                Err(delivery) => delivery,
            },
        };
        // The same sealing under another id is a copy that somebody made.
        let is_copy = self.in_hand().sealings.has_copy(&sender, &uniqueness);
        let is_noted = || match (opened.whole_id(), opened.whole_uniqueness()) {
            // It is the whole that is noted.
            (Some(whole), Some(uniqueness)) => self.is_noted(whole, &uniqueness, &sender),
            _ => self.is_noted(&id, &uniqueness, &sender),
        };
        match if is_copy { Ok(true) } else { is_noted() } {
            Ok(true) => Seen::Before(delivery),
            Ok(false) => {
                let mark = Mark { dedupe: Arc::clone(self), id, uniqueness, sender, is_whole: false };
                Seen::New(delivery, mark)
            }
            Err(error) => Seen::Unknown(delivery, error),
        }
    }

    /// A message whose parts are all there; `None` if one of its name is in hand,
    /// or was acknowledged.
    pub(crate) fn look_at_whole(self: &Arc<Self>, message: &Opened) -> cipher_client::Result<Option<Mark>> {
        let Opened { uniqueness, sender, .. } = *message;
        let id: Arc<str> = message.message_id.as_str().into();
        let is_new = !self.is_noted(&id, &uniqueness, &sender)? && self.in_hand().wholes.insert((id.clone(), sender));
        Ok(is_new.then(|| Mark { dedupe: Arc::clone(self), id, uniqueness, sender, is_whole: true }))
    }

    fn is_noted(&self, id: &str, uniqueness: &[u8; 32], sender: &Sender) -> cipher_client::Result<bool> {
        let key = MessageKey::new(id, uniqueness).sent_by(sender);
        lock(&self.acknowledged).contains_key(&key, SystemTime::now())
    }

    fn note(&self, id: &str, uniqueness: &[u8; 32], sender: &Sender) -> cipher_client::Result<()> {
        let key = MessageKey::new(id, uniqueness).sent_by(sender);
        lock(&self.acknowledged).insert_key(&key, SystemTime::now())
    }

    fn in_hand(&self) -> MutexGuard<'_, InHand> {
        lock(&self.in_hand)
    }
}

fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    // No change under these locks is ever half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
