use ciphermq_broker::{Delivery, Link, Notice, Settle, Timestamp};

/// How deliveries are pushed in legacy mode: the original receivers read one line at a time and lose what comes
/// together with another (docs/protocol.md section 8).
///
/// At most one delivery is `outstanding`, and one more may be `next` once that has ended. A connection that consumes
/// several queues has one credit for all of them: while it is spent, no queue leases it anything that would only wait.
#[derive(Debug)]
pub(crate) struct Pace {
    pause_ms: u64,
    /// No push before this: a reply was sent a moment ago.
    quiet_until: Timestamp,
    /// Pushed, and not known to be settled.
    outstanding: Option<Delivery>,
    /// Taken from the broker, waiting for its moment.
    next: Option<Delivery>,
    /// Whether the queues may lease this connection something.
    credit: Credit,
    /// Which queue gets the credit first: they take turns.
    first: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credit {
    Given,
    Withdrawn,
}

/// How often to look whether the outstanding delivery's lease has run out while other queues wait for their credit.
const RECHECK_MS: u64 = 250;

impl Pace {
    pub(crate) fn new(pause_ms: u64) -> Pace {
        Pace { pause_ms, quiet_until: Timestamp(0), outstanding: None, next: None, credit: Credit::Given, first: 0 }
    }

    /// A reply was sent.
    pub(crate) fn replied(&mut self, now: Timestamp) {
        // A millisecond more: the clock's milliseconds are cut off, and the pause must be at least what was asked.
        self.quiet_until = now.plus_ms(self.pause_ms + u64::from(self.pause_ms > 0));
    }

    /// The client settled this id.
    pub(crate) fn settled(&mut self, id: &str) {
        self.outstanding.take_if(|outstanding| outstanding.message().id() == id);
    }

    /// Looks at what has ended and takes the next delivery from the broker. Call whenever the bell may have rung:
    /// nobody rings again for what is in the link already.
    pub(crate) fn refill(&mut self, link: &mut Link, now: Timestamp) {
        if self.is_free(link) {
            self.give_credit(link, now);
        }
        while let Some(notice) = link.next_notice() {
            let Notice::Delivery(delivery) = notice else { continue };
            if self.is_free(link) {
                self.next = Some(delivery);
                self.withdraw_credit(link, now);
            } else {
                // It would only wait behind the other one while its lease runs: back, unused, and no more of these.
                self.credit = Credit::Withdrawn;
                let _ = link.subscribe(delivery.queue(), 0, now);
                let _ = link.settle(delivery.message().id(), Some(delivery.queue()), Settle::Release, now);
            }
        }
    }

    /// Whether nothing is held; what has ended meanwhile is not.
    fn is_free(&mut self, link: &Link) -> bool {
        self.outstanding.take_if(|outstanding| !link.holds(outstanding));
        self.next.take_if(|next| !link.holds(next));
        self.outstanding.is_none() && self.next.is_none()
    }

    /// The delivery to push now, if it is time.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Delivery> {
        if self.outstanding.is_some() || now < self.quiet_until { None } else { self.next.take() }
    }

    pub(crate) fn pushed(&mut self, delivery: Delivery) {
        self.outstanding = Some(delivery);
    }

    /// When to try again, if the output and the replies are empty by then.
    pub(crate) fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        match (&self.outstanding, &self.next) {
            (None, Some(_)) => Some(self.quiet_until),
            // Nobody rings when its lease runs out: no queue has credit to lease us the next one.
            (Some(_), _) if self.credit == Credit::Withdrawn => Some(now.plus_ms(RECHECK_MS)),
            _ => None,
        }
    }

    fn give_credit(&mut self, link: &mut Link, now: Timestamp) {
        if self.credit == Credit::Given {
            return;
        }
        let queues = link.subscriptions();
        self.credit = Credit::Given;
        self.first = self.first.wrapping_add(1);
        for offset in 0..queues.len() {
            let queue = &queues[self.first.wrapping_add(offset) % queues.len()];
            // A queue deleted in this moment has nothing to lease.
            let _ = link.subscribe(queue, 1, now);
        }
    }

    fn withdraw_credit(&mut self, link: &mut Link, now: Timestamp) {
        let queues = link.subscriptions();
        // The broker itself keeps a single queue to one delivery.
        if queues.len() < 2 {
            return;
        }
        self.credit = Credit::Withdrawn;
        for queue in queues {
            let _ = link.subscribe(&queue, 0, now);
        }
    }
}
