//! Messages that are a function of their id: whoever sees one can tell whether it is right.

use std::fmt;

/// Publishers, each with numbers of its own.
pub(super) const PUBLISHERS: usize = 3;

/// Messages of one publisher: an invented id must not take all memory.
pub(super) const NUMBERS_MAX: u32 = 100_000_000;

/// The exchange everything is published to.
pub(super) const EXCHANGE: &str = "torture";

/// The queues messages are published to; each has its dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// One consumer: what it sees first comes in order.
    Ordered,
    /// Several consumers.
    Shared,
}

/// Where a message is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Queue(Queue),
    DeadLetters(Queue),
}

/// A message: which publisher's, and which of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) publisher: usize,
    pub(super) number: u32,
}

/// Which queues a message goes to, by its routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Ordered,
    Shared,
    Both,
}

impl Queue {
    pub(super) const ALL: [Queue; 2] = [Queue::Ordered, Queue::Shared];

    pub(super) fn name(self) -> &'static str {
        match self {
            Queue::Ordered => "ordered",
            Queue::Shared => "shared",
        }
    }
}

impl Place {
    pub(super) fn queue(self) -> Queue {
        match self {
            Place::Queue(queue) | Place::DeadLetters(queue) => queue,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Queue(queue) => f.write_str(queue.name()),
            Place::DeadLetters(queue) => write!(f, "{}.dlq", queue.name()),
        }
    }
}

impl Route {
    pub(super) const ALL: [Route; 3] = [Route::Ordered, Route::Shared, Route::Both];

    pub(super) fn key(self) -> &'static str {
        match self {
            Route::Ordered => "to-ordered",
            Route::Shared => "to-shared",
            Route::Both => "to-both",
        }
    }

    pub(super) fn queues(self) -> &'static [Queue] {
        match self {
            Route::Ordered => &[Queue::Ordered],
            Route::Shared => &[Queue::Shared],
            Route::Both => &Queue::ALL,
        }
    }
}

impl Id {
    pub(super) fn route(self) -> Route {
        Route::ALL[(self.hash() % 3) as usize]
    }

    /// The envelope: mostly a few hundred bytes, sometimes more than a block or a read buffer.
    pub(super) fn envelope(self) -> String {
        let hash = self.hash() >> 8;
        let bytes = match hash % 100 {
            0 => 100_000,
            1..=9 => hash % 8_192,
            _ => hash % 1_024,
        };
        let letter = char::from(b'a' + (hash % 26) as u8);
        let body: String = std::iter::repeat_n(letter, bytes as usize).collect();
        format!(r#"{{"message_id":"{self}","enc_session_key":"{hash:x}","nonce":"n","tag":"t","ciphertext":"{body}"}}"#)
    }

    /// The id a delivery names, if it can be one of ours.
    pub(super) fn parse(text: &str) -> Option<Id> {
        let (publisher, number) = text.strip_prefix('p')?.split_once('-')?;
        let id = Id { publisher: publisher.parse().ok()?, number: number.parse().ok()? };
        (id.publisher < PUBLISHERS && id.number < NUMBERS_MAX && id.to_string() == text).then_some(id)
    }

    /// SplitMix64 of the id: the same in every run.
    fn hash(self) -> u64 {
        let mut z = ((self.publisher as u64) << 32 | u64::from(self.number)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}-{}", self.publisher, self.number)
    }
}
