//! A delivery as it came off the wire, before anybody owns its lease.

use std::ops::Range;

use ciphermq_protocol::Delivery as Wire;

use crate::line::QueueName;

/// One delivery: two allocations, whatever it holds.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub head: Head,
    pub envelope: String,
    /// The connection that holds the lease.
    pub epoch: u64,
}

/// What stands before the envelope.
#[derive(Debug)]
pub(crate) struct Head {
    pub queue: QueueName,
    pub attempt: u32,
    pub published_ms: u64,
    /// Id, exchange, key, and the two words of a dead letter, end to end.
    text: Box<str>,
    ends: [u16; 4],
}

impl Incoming {
    pub(crate) fn new(wire: &Wire<'_>, queue: QueueName, epoch: u64) -> Self {
        Self { head: Head::new(wire, queue), envelope: wire.envelope.to_owned(), epoch }
    }
}

impl Head {
    fn new(wire: &Wire<'_>, queue: QueueName) -> Self {
        let (from, reason) = match &wire.dead_letter {
            Some(dead) => (dead.from, dead.reason.as_str()),
            None => ("", ""),
        };
        let mut text =
            String::with_capacity(wire.id.len() + wire.exchange.len() + wire.key.len() + from.len() + reason.len());
        let mut ends = [0; 4];
        for (end, part) in ends.iter_mut().zip([wire.id, wire.exchange, wire.key, from]) {
            text.push_str(part);
            *end = u16::try_from(text.len()).unwrap_or(u16::MAX);
        }
        text.push_str(reason);
        Self { queue, attempt: wire.attempt, published_ms: wire.published_ms, text: text.into(), ends }
    }

    pub(crate) fn id(&self) -> &str {
        self.part(0..self.ends[0])
    }

    pub(crate) fn exchange(&self) -> &str {
        self.part(self.ends[0]..self.ends[1])
    }

    pub(crate) fn routing_key(&self) -> &str {
        self.part(self.ends[1]..self.ends[2])
    }

    /// Queue and reason, of a message in a dead-letter queue.
    pub(crate) fn dead_letter(&self) -> Option<(&str, &str)> {
        let from = self.part(self.ends[2]..self.ends[3]);
        let reason = self.text.get(usize::from(self.ends[3])..).unwrap_or_default();
        (!from.is_empty()).then_some((from, reason))
    }

    fn part(&self, range: Range<u16>) -> &str {
        self.text.get(usize::from(range.start)..usize::from(range.end)).unwrap_or_default()
    }
}
