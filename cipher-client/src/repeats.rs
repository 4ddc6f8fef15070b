//! Recognising a message that comes again: one that was acknowledged before,
//! and one that is in hand right now.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::Result;
use crate::crypto::{Opened, Sender};
use crate::dedupe::{DedupeWindow, MessageKey, SealingsInHand};
use crate::delivery::Delivery;

/// The memory of one consumer. What is in hand is bounded by the deliveries
/// its caller holds.
pub(crate) struct Repeats {
    acknowledged: Arc<Mutex<DedupeWindow>>,
    in_hand: Mutex<InHand>,
}

/// A message's id and its sender: the same id from another sender is another
/// message.
type Name = (Arc<str>, Sender);

#[derive(Default)]
struct InHand {
    /// By name, the connection its lease is on.
    epochs: HashMap<Name, Arc<AtomicU64>>,
    sealings: SealingsInHand,
    /// Messages that came in parts; those are among the others.
    wholes: HashSet<Name>,
}

/// What is known of a delivery that has just come.
pub(crate) enum Seen {
    New(Mark),
    /// The caller holds it; the lease of that delivery can be moved.
    InHand(Arc<AtomicU64>),
    Before,
}

impl Repeats {
    pub(crate) fn new(acknowledged: Arc<Mutex<DedupeWindow>>) -> Self {
        Self { acknowledged, in_hand: Mutex::default() }
    }

    /// An error if the window cannot be read: the message may have been acknowledged.
    pub(crate) fn look(self: &Arc<Self>, delivery: &Delivery, uniqueness: [u8; 32]) -> Result<Seen> {
        let name: Name = (delivery.message_id().into(), delivery.sender());
        let mut in_hand = lock(&self.in_hand);
        if let Some(epoch) = in_hand.epochs.get(&name) {
            return Ok(Seen::InHand(epoch.clone()));
        }
        if in_hand.sealings.has_copy(&name.1, &uniqueness) || self.was_acknowledged(&key(&name, &uniqueness))? {
            return Ok(Seen::Before);
        }
        in_hand.epochs.insert(name.clone(), delivery.epoch());
        in_hand.sealings.hold(uniqueness);
        Ok(Seen::New(Mark { repeats: self.clone(), name, uniqueness, kind: Kind::Message }))
    }

    /// The same for a part. It is the whole that is noted when it is acknowledged.
    pub(crate) fn look_at_part(self: &Arc<Self>, delivery: &Delivery) -> Result<Seen> {
        let (opened, sender) = (delivery.opened(), delivery.sender());
        let (Some(whole), Some(uniqueness)) = (opened.whole_id(), opened.whole_uniqueness()) else {
            // Not as a part is named: refused as soon as it is looked at.
            return self.look(delivery, opened.uniqueness);
        };
        let name: Name = (delivery.message_id().into(), sender);
        let mut in_hand = lock(&self.in_hand);
        if let Some(epoch) = in_hand.epochs.get(&name) {
            return Ok(Seen::InHand(epoch.clone()));
        }
        if self.was_acknowledged(&key(&(whole.into(), sender), &uniqueness))? {
            return Ok(Seen::Before);
        }
        in_hand.epochs.insert(name.clone(), delivery.epoch());
        Ok(Seen::New(Mark { repeats: self.clone(), name, uniqueness: opened.uniqueness, kind: Kind::Part }))
    }

    /// A message whose parts are all there; `None` if one of its name is in hand,
    /// or was acknowledged.
    pub(crate) fn look_at_whole(self: &Arc<Self>, message: &Opened) -> Result<Option<Mark>> {
        let name: Name = (message.message_id.as_str().into(), message.sender);
        if self.was_acknowledged(&key(&name, &message.uniqueness))? || !lock(&self.in_hand).wholes.insert(name.clone())
        {
            return Ok(None);
        }
        Ok(Some(Mark { repeats: self.clone(), name, uniqueness: message.uniqueness, kind: Kind::Whole }))
    }

    fn was_acknowledged(&self, key: &MessageKey<'_>) -> Result<bool> {
        lock(&self.acknowledged).contains_key(key, SystemTime::now())
    }
}

/// A delivery in hand that is recognised when it comes again.
pub(crate) struct Mark {
    repeats: Arc<Repeats>,
    name: Name,
    uniqueness: [u8; 32],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Part,
    Whole,
}

impl Mark {
    /// Its work is done: from now on it is known for good.
    pub(crate) fn done(self) -> Result<()> {
        lock(&self.repeats.acknowledged).insert_key(&key(&self.name, &self.uniqueness), SystemTime::now())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut in_hand = lock(&self.repeats.in_hand);
        match self.kind {
            Kind::Whole => drop(in_hand.wholes.remove(&self.name)),
            Kind::Part => drop(in_hand.epochs.remove(&self.name)),
            Kind::Message => {
                in_hand.epochs.remove(&self.name);
                in_hand.sealings.let_go(self.uniqueness);
            }
        }
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("id", &self.name.0).finish_non_exhaustive()
    }
}

fn key<'a>((id, sender): &'a Name, uniqueness: &'a [u8; 32]) -> MessageKey<'a> {
    MessageKey::new(id, uniqueness).sent_by(sender)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another holder leaves the window as it was before one note.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::dedupe::{DedupeOptions, set_unreadable};

    #[test]
    fn a_message_that_cannot_be_looked_up_is_not_handed_over_as_new() {
        let dir = tempfile::tempdir().unwrap();
        let mut window =
            DedupeWindow::open(dir.path().join("seen"), DedupeOptions::default(), SystemTime::now()).unwrap();
        // The records of a full segment are on disk only.
        for n in 0..DedupeOptions::default().entries / 200 + 1 {
            let mut uniqueness = [0; 32];
            uniqueness[..8].copy_from_slice(&n.to_le_bytes());
            window.insert(&format!("message-{n}"), &uniqueness, SystemTime::now()).unwrap();
        }
        let repeats = Repeats::new(Arc::new(Mutex::new(window)));
        let name = |n: usize| (format!("message-{n}").into(), Sender::Unsigned);
        assert!(repeats.was_acknowledged(&key(&name(7), &[0xff; 32])).unwrap());
        set_unreadable(0..1 << 30);
        let error = repeats.was_acknowledged(&key(&name(7), &[0xff; 32])).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Io { .. }));
        set_unreadable(0..0);
    }
}
