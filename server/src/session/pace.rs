use ciphermq_broker::{Delivery, Timestamp};

/// How deliveries are pushed in legacy mode: the original receivers read one line at a time and lose what comes
/// together with another (docs/protocol.md section 8).
#[derive(Debug)]
pub(crate) struct Pace {
    pause_ms: u64,
    /// No push before this: a reply was sent a moment ago.
    quiet_until: Timestamp,
    /// Pushed, and not known to be settled.
    pub(crate) outstanding: Option<Delivery>,
    /// Taken from the broker, waiting for its moment.
    pub(crate) next: Option<Delivery>,
    pub(crate) warned_of_length: bool,
}

/// How often to look whether the outstanding delivery's lease has run out while another one waits behind it. Only a
/// connection that consumes several queues gets there; with one queue the broker itself waits.
const RECHECK_MS: u64 = 250;

impl Pace {
    pub(crate) fn new(pause_ms: u64) -> Pace {
        Pace { pause_ms, quiet_until: Timestamp(0), outstanding: None, next: None, warned_of_length: false }
    }

    /// A reply was sent.
    pub(crate) fn replied(&mut self, now: Timestamp) {
        // A millisecond more: the clock's milliseconds are cut off, and the pause must be at least what was asked.
        self.quiet_until = now.plus_ms(self.pause_ms + u64::from(self.pause_ms > 0));
    }

    pub(crate) fn may_push(&self, now: Timestamp) -> bool {
        self.outstanding.is_none() && now >= self.quiet_until
    }

    /// When to try again.
    pub(crate) fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        self.next.as_ref()?;
        if self.outstanding.is_some() { Some(now.plus_ms(RECHECK_MS)) } else { Some(self.quiet_until) }
    }
}
