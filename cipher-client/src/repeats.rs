//! Recognising a message that comes again: one that was acknowledged before,
//! and one that is in hand right now.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::Result;
use crate::dedupe::DedupeWindow;
use crate::delivery::Delivery;

/// The memory of one consumer. What is in hand is bounded by the deliveries
/// its caller holds.
pub(crate) struct Repeats {
    acknowledged: Arc<Mutex<DedupeWindow>>,
    in_hand: Mutex<InHand>,
}

#[derive(Default)]
struct InHand {
    /// By id, the connection its lease is on.
    epochs: HashMap<Arc<str>, Arc<AtomicU64>>,
    uniqueness: HashSet<[u8; 32]>,
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

    pub(crate) fn look(self: &Arc<Self>, delivery: &Delivery, uniqueness: [u8; 32]) -> Seen {
        let id = delivery.message_id();
        let mut in_hand = lock(&self.in_hand);
        if let Some(epoch) = in_hand.epochs.get(id) {
            return Seen::InHand(epoch.clone());
        }
        let copy_in_hand = in_hand.uniqueness.contains(&uniqueness);
        if copy_in_hand || lock(&self.acknowledged).contains(id, &uniqueness, SystemTime::now()) {
            return Seen::Before;
        }
        let id: Arc<str> = id.into();
        in_hand.epochs.insert(id.clone(), delivery.epoch());
        in_hand.uniqueness.insert(uniqueness);
        Seen::New(Mark { repeats: self.clone(), id, uniqueness })
    }
}

/// A delivery in hand that is recognised when it comes again.
pub(crate) struct Mark {
    repeats: Arc<Repeats>,
    id: Arc<str>,
    uniqueness: [u8; 32],
}

impl Mark {
    /// Its work is done: from now on it is known for good.
    pub(crate) fn done(self) -> Result<()> {
        lock(&self.repeats.acknowledged).insert(&self.id, &self.uniqueness, SystemTime::now())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut in_hand = lock(&self.repeats.in_hand);
        in_hand.epochs.remove(&self.id);
        in_hand.uniqueness.remove(&self.uniqueness);
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("id", &self.id).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another holder leaves the window as it was before one note.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
