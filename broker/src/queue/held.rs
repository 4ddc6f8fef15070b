//! What a queue knows of one message.

use std::num::{NonZeroU32, NonZeroU64};

use ciphermq_journal::Position;

use crate::{Message, Timestamp, limits};

/// Where the record with a message's body is in the log, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) location: Position,
    pub(crate) size: Size,
}

/// How long a message's text is, and how many copies share its record: that as a power of two, rounded up.
///
/// Four bytes that are never zero, so that an entry of a queue needs none to say that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(NonZeroU32);

/// The body of a message, or where to read it.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Resident(Message),
    Stored(Stored),
}

/// A message that was delivered at least once, or that is about to be. Laid out to be small: a lease and its key are moved
/// about without a call as long as they have at most 128 bytes.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    location: Position,
    size: Size,
    /// Attempts used up.
    pub(super) attempts: u32,
    /// When it was last delivered: a millisecond more than the time.
    delivered: Option<NonZeroU64>,
    /// Always there if the log cannot read bodies back.
    pub(super) message: Option<Message>,
}

/// What a consumer who is done with a message saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The delivery that ended with it included.
    pub(crate) attempts: u32,
    pub(crate) delivered: Option<Timestamp>,
}

/// A message that came back and has used up an attempt by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) order: Position,
    pub(crate) attempts: u32,
    /// It was the last one: the message waits to be moved to the dead-letter queue.
    pub(crate) worn_out: bool,
}

/// What `status` shows of a message still in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) order: Position,
    pub(crate) body: Body,
    pub(crate) leased: bool,
    pub(crate) attempts: u32,
    pub(crate) delivered: Option<Timestamp>,
}

const TEXT_BITS: u32 = 27;
const COPIES_BITS: u32 = 4;
const ALWAYS_SET: NonZeroU32 = NonZeroU32::new(1 << 31).expect("a set bit is not zero");

const _: () = assert!(limits::TEXT_BYTES_MAX < 1 << TEXT_BITS && TEXT_BITS + COPIES_BITS + 1 == u32::BITS);
const _: () = assert!(limits::QUEUES_PER_MESSAGE_MAX.next_power_of_two().ilog2() < 1 << COPIES_BITS);

impl Stored {
    /// Bytes of its record one copy keeps alive: the same whether the body is in memory or not.
    pub(crate) fn share(self) -> u64 {
        ((self.text_bytes() + limits::RECORD_OVERHEAD_BYTES) >> self.size.copies_log2()).max(1)
    }

    /// Bytes the message counts for against the limits.
    pub(crate) fn text_bytes(self) -> u64 {
        u64::from(self.size.0.get() & ((1 << TEXT_BITS) - 1))
    }
}

impl Body {
    /// Where to read it, if it has to be read.
    pub(crate) fn location(&self) -> Option<Position> {
        match self {
            Body::Resident(_) => None,
            Body::Stored(at) => Some(at.location),
        }
    }
}

impl Size {
    /// A text is at most [`limits::TEXT_BYTES_MAX`] long and has 1 to [`limits::QUEUES_PER_MESSAGE_MAX`] copies.
    pub(crate) fn new(text_bytes: u64, copies_log2: u8) -> Size {
        debug_assert!(text_bytes <= limits::TEXT_BYTES_MAX && copies_log2 < 1 << COPIES_BITS);
        let text = text_bytes.min(limits::TEXT_BYTES_MAX) as u32;
        Size(ALWAYS_SET | (u32::from(copies_log2) << TEXT_BITS) | text)
    }

    fn copies_log2(self) -> u32 {
        (self.0.get() ^ ALWAYS_SET.get()) >> TEXT_BITS
    }
}

/// How many copies share a record, as [`Size`] keeps it.
pub(crate) fn copies_log2(copies: usize) -> u8 {
    copies.next_power_of_two().ilog2() as u8
}

impl Kept {
    /// One that was never delivered.
    pub(super) fn new(at: Stored, message: Option<Message>) -> Kept {
        Kept { location: at.location, size: at.size, attempts: 0, delivered: None, message }
    }

    pub(super) fn at(&self) -> Stored {
        Stored { location: self.location, size: self.size }
    }

    /// Its record was written anew; returns where it was.
    pub(super) fn relocate(&mut self, to: Stored) -> Stored {
        let at = self.at();
        (self.location, self.size) = (to.location, to.size);
        at
    }

    pub(super) fn delivered(&self) -> Option<Timestamp> {
        self.delivered.map(|at| Timestamp(at.get() - 1))
    }

    pub(super) fn set_delivered(&mut self, now: Timestamp) {
        self.delivered = Some(NonZeroU64::MIN.saturating_add(now.0));
    }

    pub(super) fn sighting(&self, order: Position, leased: bool, delivered: bool) -> Sighting {
        let body = self.message.clone().map_or(Body::Stored(self.at()), Body::Resident);
        let attempts = self.attempts + u32::from(delivered);
        Sighting { order, body, leased, attempts, delivered: self.delivered() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_stored_message_takes_sixteen_bytes() {
        assert_eq!(size_of::<Option<Stored>>(), 16);
        for (text, copies) in [(0, 1), (1, 2), (1_900, 3), (limits::TEXT_BYTES_MAX, limits::QUEUES_PER_MESSAGE_MAX)] {
            let at = Stored { location: Position(7), size: Size::new(text, copies_log2(copies)) };
            assert_eq!(at.text_bytes(), text);
            let shares = at.share() * copies as u64;
            let record = text + limits::RECORD_OVERHEAD_BYTES;
            assert!(shares <= record && shares * 2 + copies as u64 * 2 >= record, "{shares} of {record}");
        }
    }
}
