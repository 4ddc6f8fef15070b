//! Parts of large messages in a receiver: kept, leased, and paid for with credit
//! until their messages are whole. `cipher_client::Consumer` does the same.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cipher_client::crypto::{Collected, Opened, Opener, PartCollector, PartLimits, SpooledText};
use cipher_client::{Error, ErrorKind, RawConsumer, RawDelivery};
use tokio::time::Instant;

use crate::leases::{Lease, Verdict};

/// How long parts stay away that did not become a message.
const GIVEN_UP_DELAY: Duration = Duration::from_secs(30);
/// Longest lease a broker gives.
const LEASE_MAX: Duration = Duration::from_secs(86_400);
/// Most deliveries that can be unsettled.
const PREFETCH_MAX: usize = 65_535;

/// The parts a receiver has.
pub(crate) struct Collecting {
    collector: PartCollector<Arc<Lease>>,
    /// Of messages there is no room for yet; they come again when there may be.
    parked: Vec<Arc<Lease>>,
    /// Parts of messages that the caller has not settled.
    in_hand: Vec<Weak<Lease>>,
    prefetch: u32,
    /// The credit that was asked for last.
    asked: u32,
    lease: Duration,
}

/// What became of a part.
pub(crate) enum Sorted {
    Kept,
    Whole(Box<Opened>, Option<SpooledText>, Vec<Arc<Lease>>),
    Refused(Error, Arc<Lease>),
}

impl Collecting {
    pub(crate) fn new(limits: PartLimits, spool: Option<PathBuf>, prefetch: u32) -> Self {
        let collector = match spool {
            Some(dir) => PartCollector::spooled(limits, dir),
            None => PartCollector::new(limits),
        };
        // As long as it may take to become whole, and as long again for the caller.
        let lease = limits.age.saturating_mul(2).clamp(Duration::from_millis(1), LEASE_MAX);
        Self { collector, parked: Vec::new(), in_hand: Vec::new(), prefetch, asked: prefetch, lease }
    }

    /// Leases a part for as long as it may have to wait.
    pub(crate) fn hold(&self, delivery: &RawDelivery) {
        // One whose lease is lost comes again.
        drop(delivery.hold(self.lease));
    }

    /// Takes a part in.
    pub(crate) async fn add(&mut self, opened: Opened, lease: Arc<Lease>, opener: &Opener) -> Sorted {
        match self.collector.add(opened, Arc::clone(&lease), Instant::now().into_std()) {
            Ok(Collected::Whole { mut message, spooled, tokens }) => {
                opener.note_whole(&mut message);
                // There may be room now. Dropped, they go back to their places.
                self.parked.clear();
                self.in_hand.extend(tokens.iter().map(Arc::downgrade));
                Sorted::Whole(Box::new(message), spooled, tokens)
            }
            Ok(Collected::Kept) => Sorted::Kept,
            Ok(Collected::Repeated(earlier)) => {
                lease.take_over(&earlier).await;
                Sorted::Kept
            }
            Ok(Collected::NoRoom(token)) if self.parked.len() < PREFETCH_MAX / 2 => {
                self.parked.push(token);
                Sorted::Kept
            }
            Ok(Collected::NoRoom(token)) => {
                drop(token.settle(Verdict::Nack(Some(GIVEN_UP_DELAY))).await);
                Sorted::Kept
            }
            Err(refused) => Sorted::Refused(refused.error, refused.token),
        }
    }

    /// A message whose parts did not all come in time; they are put back, or away.
    pub(crate) async fn give_up(&mut self, is_rejected: bool) -> Option<(Error, String)> {
        self.collector.next_expiry()?;
        let given_up = self.collector.take_expired(Instant::now().into_std())?;
        let verdict = if is_rejected { Verdict::Reject } else { Verdict::Nack(Some(GIVEN_UP_DELAY)) };
        let missing = given_up.count.saturating_sub(given_up.tokens.len() as u32);
        for token in given_up.tokens {
            // A lease that is lost already needs no settling.
            drop(token.settle(verdict).await);
        }
        self.parked.clear();
        let (message_id, count) = (given_up.message_id, given_up.count);
        let error = ErrorKind::Incomplete { message_id: message_id.clone(), missing, count };
        Some((error.into(), message_id))
    }

    /// Before waiting: sees to it that what is missing can come, and says when it
    /// is too late for it.
    pub(crate) async fn prepare_wait(&mut self, consumer: &RawConsumer) -> Option<Instant> {
        let wanted = self.wanted_credit();
        if wanted != self.asked && consumer.set_prefetch(wanted).await.is_ok() {
            self.asked = wanted;
        }
        self.collector.next_expiry().map(Instant::from)
    }

    /// Parts that are held take no part of the prefetch: else a message of more
    /// parts would never be whole. What has come and was not taken in yet is at
    /// most twice the prefetch.
    fn wanted_credit(&mut self) -> u32 {
        self.in_hand.retain(|lease| lease.strong_count() > 0);
        let held = self.collector.parts() + self.parked.len() + self.in_hand.len();
        let (own, asked) = (self.prefetch as usize, self.asked as usize);
        let wanted = match held {
            0 => own,
            _ if held + own <= asked => asked,
            // A prefetch of 0 is refused when the consumer begins.
            _ => (held / own.max(1) + 2) * own,
        };
        wanted.min(PREFETCH_MAX) as u32
    }
}
