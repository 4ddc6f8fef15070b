use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::log::lock;
use crate::{Doorbell, Receipt, Unavailable};

/// Where entries wait to be written, and what became of them.
pub(crate) struct Front<E> {
    inbox: Mutex<Inbox<E>>,
    wake: Condvar,
    /// Every submission up to here is committed. Written by the writer only.
    committed: AtomicU64,
    /// The first submission that failed; `u64::MAX` while healthy.
    failed_from: AtomicU64,
    /// A copy of the inbox's, to be looked at without its lock.
    bytes: AtomicU64,
    /// In order.
    refused: Mutex<VecDeque<RangeInclusive<u64>>>,
    /// The last submission in `refused`; 0 if there is none.
    last_refused: AtomicU64,
}

/// How many stretches of refused submissions are told apart. Of more, what lies between the oldest counts as refused, too: nobody is
/// ever told that something was committed which was not. A mebibyte of them.
const REFUSED_MAX: usize = 64 << 10;

struct Inbox<E> {
    waiting: Waiting<E>,
    /// Bytes that wait, where somebody counts them.
    bytes: u64,
    /// Who wants to know when fewer bytes wait.
    crowd: Vec<Arc<Doorbell>>,
    is_closed: bool,
    writer: Asleep,
}

/// Entries in log order.
#[derive(Debug)]
pub(crate) struct Waiting<E> {
    pub(crate) entries: Vec<E>,
    /// Who submitted up to which entry.
    pub(crate) bells: Vec<(u64, Arc<Doorbell>)>,
    /// The number of the last entry ever submitted.
    pub(crate) last: u64,
}

/// Whether the writer waits to be woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asleep {
    No,
    Yes,
    /// It was woken, or shall not go to sleep.
    Woken,
}

impl<E> Front<E> {
    pub(crate) fn new() -> Front<E> {
        let waiting = Waiting { entries: Vec::new(), bells: Vec::new(), last: 0 };
        Front {
            inbox: Mutex::new(Inbox { waiting, bytes: 0, crowd: Vec::new(), is_closed: false, writer: Asleep::No }),
            wake: Condvar::new(),
            committed: AtomicU64::new(0),
            failed_from: AtomicU64::new(u64::MAX),
            bytes: AtomicU64::new(0),
            refused: Mutex::new(VecDeque::new()),
            last_refused: AtomicU64::new(0),
        }
    }

    /// Adds `entries`, of so many bytes, and wakes the writer.
    pub(crate) fn submit(
        &self,
        entries: &mut Vec<E>,
        bytes: u64,
        bell: &Arc<Doorbell>,
    ) -> Result<Receipt, Unavailable> {
        let mut inbox = lock(&self.inbox);
        if inbox.is_closed || self.has_failed() {
            return Err(Unavailable);
        }
        let Waiting { entries: waiting, bells, last } = &mut inbox.waiting;
        let first = *last + 1;
        *last += entries.len() as u64;
        waiting.append(entries);
        // Batches of one connection follow each other often; one ring serves them all.
        match bells.last_mut() {
            Some((upto, newest)) if Arc::ptr_eq(newest, bell) => *upto = *last,
            _ => bells.push((*last, Arc::clone(bell))),
        }
        let receipt = Receipt { first, last: *last };
        inbox.bytes += bytes;
        self.bytes.store(inbox.bytes, Ordering::Relaxed);
        let was_asleep = std::mem::replace(&mut inbox.writer, Asleep::Woken) == Asleep::Yes;
        drop(inbox);
        if was_asleep {
            self.wake.notify_one();
        }
        Ok(receipt)
    }

    /// Swaps what waits with `into`, which is empty. False if nothing waits.
    pub(crate) fn take(&self, into: &mut Waiting<E>) -> bool {
        let mut inbox = lock(&self.inbox);
        if inbox.waiting.entries.is_empty() && inbox.waiting.bells.is_empty() {
            return false;
        }
        into.last = inbox.waiting.last;
        std::mem::swap(&mut inbox.waiting, into);
        inbox.bytes = 0;
        self.bytes.store(0, Ordering::Relaxed);
        for bell in inbox.crowd.drain(..) {
            bell.ring();
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.inbox).waiting.entries.is_empty()
    }

    /// Whether more than `bytes_max` wait. If so, `bell` rings when it is less.
    pub(crate) fn is_congested(&self, bytes_max: u64, bell: &Arc<Doorbell>) -> bool {
        if self.bytes.load(Ordering::Relaxed) <= bytes_max {
            return false;
        }
        let mut inbox = lock(&self.inbox);
        let is_congested = inbox.bytes > bytes_max;
        if is_congested && !inbox.crowd.iter().any(|known| Arc::ptr_eq(known, bell)) {
            inbox.crowd.push(Arc::clone(bell));
        }
        is_congested
    }

    /// Submission number `number` is not written, though later ones may be. Called before it counts as committed.
    pub(crate) fn refuse(&self, number: u64) {
        let mut refused = lock(&self.refused);
        match refused.back_mut() {
            Some(last) if *last.end() + 1 == number => *last = *last.start()..=number,
            _ => refused.push_back(number..=number),
        }
        if refused.len() > REFUSED_MAX
            && let Some(oldest) = refused.pop_front()
            && let Some(next) = refused.front_mut()
        {
            *next = *oldest.start()..=*next.end();
        }
        self.last_refused.store(number, Ordering::Release);
    }

    /// What became of a submission.
    pub(crate) fn outcome(&self, receipt: Receipt) -> Option<Result<(), Unavailable>> {
        let Receipt { first, last } = receipt;
        if last <= self.committed() {
            let is_refused = first <= self.last_refused.load(Ordering::Acquire) && self.is_refused(first..=last);
            return Some(if is_refused { Err(Unavailable) } else { Ok(()) });
        }
        (last >= self.failed_from()).then_some(Err(Unavailable))
    }

    /// Whether any of these was refused.
    fn is_refused(&self, numbers: RangeInclusive<u64>) -> bool {
        let refused = lock(&self.refused);
        let behind = refused.partition_point(|range| range.end() < numbers.start());
        refused.get(behind).is_some_and(|range| range.start() <= numbers.end())
    }

    /// Everything up to `last` is committed.
    pub(crate) fn commit(&self, last: u64) {
        self.committed.store(last, Ordering::Release);
    }

    /// Nothing from `first` on will be.
    pub(crate) fn fail(&self, first: u64) {
        // With the inbox locked: nothing is submitted after this and not refused.
        let _inbox = lock(&self.inbox);
        self.failed_from.store(first, Ordering::Release);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed_from() != u64::MAX
    }

    pub(crate) fn failed_from(&self) -> u64 {
        self.failed_from.load(Ordering::Acquire)
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Nothing more is accepted.
    pub(crate) fn close(&self) {
        lock(&self.inbox).is_closed = true;
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.inbox).is_closed
    }

    /// Wakes the writer, or makes its next sleep return at once.
    pub(crate) fn wake(&self) {
        lock(&self.inbox).writer = Asleep::Woken;
        self.wake.notify_one();
    }

    /// Waits until something is submitted or somebody calls [`Front::wake`], for at most this long.
    pub(crate) fn sleep(&self, at_most: Duration) {
        let mut inbox = lock(&self.inbox);
        if inbox.writer != Asleep::Woken {
            inbox.writer = Asleep::Yes;
            let awake = |inbox: &mut Inbox<E>| inbox.writer == Asleep::Yes;
            let woken = self.wake.wait_timeout_while(inbox, at_most, awake);
            inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        inbox.writer = Asleep::No;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    fn rang(bell: &Doorbell) -> bool {
        bell.poll_rung(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_found_it_congested_hears_when_it_is_not() {
        let front = Front::new();
        let (busy, idle) = (Arc::new(Doorbell::new()), Arc::new(Doorbell::new()));
        let _ = front.submit(&mut vec![1], 100, &busy).unwrap();
        assert!(!front.is_congested(100, &idle));
        let _ = front.submit(&mut vec![2], 1, &busy).unwrap();
        assert!(front.is_congested(100, &idle));
        let mut waiting = Waiting { entries: Vec::new(), bells: Vec::new(), last: 0 };
        assert!(front.take(&mut waiting));
        assert!(rang(&idle) && !rang(&busy), "the submitter's rings with its receipt");
        assert!(!front.is_congested(100, &idle));
        assert_eq!((waiting.entries, waiting.bells.len(), waiting.last), (vec![1, 2], 1, 2));
    }

    #[test]
    fn a_refused_submission_is_told_from_its_neighbours() {
        let front = Front::new();
        let bell = Arc::new(Doorbell::new());
        let receipts: Vec<Receipt> = (0..4).map(|_| front.submit(&mut vec![0, 0], 0, &bell).unwrap()).collect();
        front.refuse(3);
        front.refuse(6);
        front.commit(8);
        let outcomes: Vec<_> = receipts.iter().map(|receipt| front.outcome(*receipt).unwrap()).collect();
        assert_eq!(outcomes, [Ok(()), Err(Unavailable), Err(Unavailable), Ok(())]);
    }

    #[test]
    fn of_too_many_refusals_none_is_forgotten() {
        let front: Front<u8> = Front::new();
        let most = 3 * REFUSED_MAX as u64;
        let numbers = || (1..=most).step_by(2);
        numbers().for_each(|number| front.refuse(number));
        front.commit(most);
        assert!(lock(&front.refused).len() <= REFUSED_MAX);
        let outcome = |number| front.outcome(Receipt { first: number, last: number });
        assert!(numbers().all(|number| outcome(number) == Some(Err(Unavailable))));
        assert_eq!(outcome(most), Some(Ok(())));
    }

    #[test]
    fn nothing_is_accepted_once_closed() {
        let front = Front::new();
        front.close();
        let mut entries = vec![1];
        assert_eq!(front.submit(&mut entries, 0, &Arc::default()), Err(Unavailable));
        assert_eq!(entries, [1], "it was given back");
    }
}
