//! Parts of large messages in a consumer: kept, leased, and paid for with credit
//! until their messages are whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use ciphermq_protocol::limits::{LEASE_MS_MAX, PREFETCH_MAX};
use tokio::time::Instant;

use crate::alarm::Alarm;
use crate::consumer::THROTTLED_DELAY;
use crate::crypto::{Collected, Opener, PartCollector, PartLimits};
use crate::delivery::{Delivery, Verdict};
use crate::raw_consumer::RawConsumer;
use crate::{Error, ErrorKind};

/// How long parts stay away that did not become a message.
const GIVEN_UP_DELAY: Duration = Duration::from_secs(30);

/// The parts a consumer has.
pub(crate) struct Collecting {
    collector: PartCollector<Delivery<()>>,
    /// Of messages there is no room for yet. Their text was let go; they go back,
    /// and come again, when there may be.
    parked: Vec<Delivery<()>>,
    /// Parts of messages that the caller holds.
    in_hand: Arc<AtomicUsize>,
    /// The caller's, for messages that are in one piece.
    prefetch: AtomicU32,
    lease: Duration,
    alarm: Option<Alarm>,
}

/// What became of a part.
pub(crate) enum Sorted {
    Kept,
    Whole(Box<Delivery>),
    Refused(Error),
}

/// Counts parts as long as their message is in the caller's hand.
#[derive(Debug)]
pub(crate) struct Held {
    count: Arc<AtomicUsize>,
    own: usize,
}

impl Held {
    fn new(count: &Arc<AtomicUsize>, own: usize) -> Self {
        count.fetch_add(own, Ordering::Relaxed);
        Self { count: Arc::clone(count), own }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(self.own, Ordering::Relaxed);
    }
}

impl Collecting {
    pub(crate) fn new(limits: PartLimits, spool: Option<PathBuf>, prefetch: u32) -> Self {
        let collector = match spool {
            Some(dir) => PartCollector::spooled(limits, dir),
            None => PartCollector::new(limits),
        };
        Self {
            collector,
            parked: Vec::new(),
            in_hand: Arc::default(),
            prefetch: AtomicU32::new(prefetch),
            // As long as it may take to become whole, and as long again for the caller.
            lease: limits.age.saturating_mul(2).clamp(Duration::from_millis(1), Duration::from_millis(LEASE_MS_MAX)),
            alarm: None,
        }
    }

    pub(crate) fn set_prefetch(&self, prefetch: u32) {
        self.prefetch.store(prefetch, Ordering::Relaxed);
    }

    /// Leases a part for as long as it may have to wait.
    pub(crate) fn hold<Body>(&self, delivery: &Delivery<Body>) {
        // One whose lease is lost comes again.
        drop(delivery.hold(self.lease));
    }

    /// Takes a part in.
    pub(crate) fn add(&mut self, delivery: Delivery, envelope: String, opener: &Opener) -> Sorted {
        self.hold(&delivery);
        let (opened, token) = delivery.into_parts();
        match self.collector.add(opened, token, Instant::now().into_std()) {
            Ok(Collected::Whole { mut message, spooled, tokens }) => {
                opener.note_whole(&mut message);
                self.release_parked();
                let held = Held::new(&self.in_hand, tokens.len());
                let whole = Delivery::of_parts(tokens, message, spooled, held);
                whole.map_or(Sorted::Kept, |whole| Sorted::Whole(Box::new(whole)))
            }
            Ok(Collected::Kept) => Sorted::Kept,
            Ok(Collected::Repeated(earlier)) => {
                // The later one has the lease: giving this one back would end it.
                earlier.disarm();
                Sorted::Kept
            }
            Ok(Collected::NoRoom(token)) => {
                self.park(token);
                Sorted::Kept
            }
            Err(refused) if matches!(refused.error.kind(), ErrorKind::Io { .. }) => {
                // Says nothing about the message.
                refused.token.settle_later(Verdict::Nack(Some(THROTTLED_DELAY)));
                Sorted::Refused(refused.error)
            }
            Err(refused) => {
                Sorted::Refused(refused.error.with_undecryptable(refused.token.into_undecryptable(envelope)))
            }
        }
    }

    fn park(&mut self, token: Delivery<()>) {
        match self.held() < PREFETCH_MAX as usize / 2 {
            true => self.parked.push(token),
            // Not more than there is credit for.
            false => token.settle_later(Verdict::Nack(Some(GIVEN_UP_DELAY))),
        }
    }

    /// There may be room now. Dropped, they go back to their places.
    fn release_parked(&mut self) {
        self.parked.clear();
    }

    /// A message whose parts did not all come in time; they are put back, or away.
    pub(crate) fn give_up(&mut self, is_rejected: bool) -> Option<Error> {
        self.collector.next_expiry()?;
        let given_up = self.collector.take_expired(Instant::now().into_std())?;
        let verdict = if is_rejected { Verdict::Reject } else { Verdict::Nack(Some(GIVEN_UP_DELAY)) };
        let missing = given_up.count.saturating_sub(given_up.tokens.len() as u32);
        given_up.tokens.into_iter().for_each(|token| token.settle_later(verdict));
        self.release_parked();
        let (message_id, count) = (given_up.message_id, given_up.count);
        Some(Error::new(ErrorKind::Incomplete { message_id, missing, count }))
    }

    /// Nothing has come: sees to it that what is missing can, and that the caller
    /// is woken when it is too late for it. True if it is.
    pub(crate) fn is_due(&mut self, consumer: &RawConsumer, cx: &mut Context<'_>) -> bool {
        self.adjust_credit(consumer);
        let Some(expiry) = self.collector.next_expiry() else { return false };
        let alarm = self.alarm.get_or_insert_with(Alarm::new);
        loop {
            alarm.arm(expiry.into());
            if !alarm.fires(cx) {
                return false;
            }
            if Instant::now() >= expiry.into() {
                return true;
            }
        }
    }

    /// Parts that are held take no part of the prefetch: else a message of more
    /// parts would never be whole. What has come and was not taken in yet is at
    /// most twice the prefetch.
    fn adjust_credit(&self, consumer: &RawConsumer) {
        let (held, own, asked) =
            (self.held(), self.prefetch.load(Ordering::Relaxed) as usize, consumer.prefetch() as usize);
        if asked == 0 {
            // It has ended.
            return;
        }
        let wanted = match held {
            0 => own,
            _ if held + own <= asked => asked,
            _ => (held / own + 2) * own,
        };
        let wanted = wanted.min(PREFETCH_MAX as usize);
        if wanted != asked {
            consumer.ask_later(wanted as u32);
        }
    }

    fn held(&self) -> usize {
        self.collector.parts() + self.parked.len() + self.in_hand.load(Ordering::Relaxed)
    }
}
