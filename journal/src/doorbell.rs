use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

/// Wakes one task, from any thread, once for any number of rings.
///
/// One connection has one doorbell: completed receipts and new deliveries ring it alike, and the
/// connection looks at both when it wakes.
#[derive(Debug, Default)]
pub struct Doorbell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Doorbell {
    /// A doorbell nobody has rung.
    pub fn new() -> Doorbell {
        Doorbell::default()
    }

    /// Wakes the waiting task, or makes its next wait return at once.
    pub fn ring(&self) {
        // Only the first ring since the last answer pays for a wake.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Ready when it was rung since the last time this was ready. For one waiting task.
    pub fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        // A ring between the check and the registration would otherwise be lost.
        if self.rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn many_rings_wake_once_and_are_answered_once() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let bell = Doorbell::new();
        assert!(bell.poll_rung(&mut context).is_pending());
        bell.ring();
        bell.ring();
        bell.ring();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(bell.poll_rung(&mut context).is_ready());
        assert!(bell.poll_rung(&mut context).is_pending());
    }

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let bell = Doorbell::new();
        bell.ring();
        assert!(bell.poll_rung(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
