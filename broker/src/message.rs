use std::sync::Arc;

use ciphermq_journal::Position;

use crate::Timestamp;
use crate::model::ExchangeId;
use crate::queue::{Size, Stored, copies_log2};

/// A stored message. Cheap to clone: every queue and delivery shares one text.
#[derive(Clone, Debug)]
pub struct Message {
    /// exchange, key, id, from, envelope, one after the other: one allocation, exactly as long as needed.
    /// The read buffer it came from is free at once, so that a stuck message pins only itself.
    text: Arc<str>,
    published: Timestamp,
    /// Position of the publish; stays when a dead letter is stored anew.
    origin: Position,
    exchange: ExchangeId,
    exchange_len: u8,
    key_len: u8,
    id_len: u8,
    from_len: u8,
    reason: Option<Reason>,
    /// How many copies share its record, as a power of two.
    copies_log2: u8,
}

/// A message as it stands in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) exchange: ExchangeId,
    pub(crate) published: Timestamp,
    /// Of exchange, key, id and from.
    pub(crate) lengths: [u8; 4],
    pub(crate) reason: Option<Reason>,
    pub(crate) text: &'a str,
}

/// Why a message was moved to a dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A consumer rejected it.
    Rejected,
    /// It was delivered as often as its queue allows.
    Attempts,
    /// Its delivery line is too long for the consumer's protocol.
    TooLong,
}

/// Where a dead letter comes from, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Queue it was taken from.
    pub from: &'a str,
    /// Why.
    pub reason: Reason,
}

impl Message {
    /// Lengths of names and ids are at most 255 bytes; the doors see to that.
    /// `scratch` is emptied and reused, so that only the exact allocation is made.
    pub(crate) fn new(
        scratch: &mut String,
        exchange: (ExchangeId, &str),
        key: &str,
        id: &str,
        envelope: &str,
        published: Timestamp,
    ) -> Message {
        scratch.clear();
        for part in [exchange.1, key, id, envelope] {
            scratch.push_str(part);
        }
        Message {
            text: Arc::from(scratch.as_str()),
            published,
            origin: Position(0),
            exchange: exchange.0,
            exchange_len: short(exchange.1),
            key_len: short(key),
            id_len: short(id),
            from_len: 0,
            reason: None,
            copies_log2: 0,
        }
    }

    /// The same message as a dead letter out of queue `from`.
    pub(crate) fn dead(&self, from: &str, reason: Reason) -> Message {
        let text = [self.exchange(), self.key(), self.id(), from, self.envelope()].concat();
        Message { text: Arc::from(text), from_len: short(from), reason: Some(reason), copies_log2: 0, ..self.clone() }
    }

    /// The same message as it was before it became a dead letter.
    pub(crate) fn alive(&self) -> Message {
        let text = [self.exchange(), self.key(), self.id(), self.envelope()].concat();
        Message { text: Arc::from(text), from_len: 0, reason: None, copies_log2: 0, ..self.clone() }
    }

    /// First published at `origin`; its record is shared by this many copies.
    pub(crate) fn with_origin(self, origin: Position, copies: usize) -> Message {
        Message { origin, copies_log2: copies_log2(copies), ..self }
    }

    /// What a queue keeps of it when its body leaves memory.
    pub(crate) fn stored_at(&self, location: Position) -> Stored {
        Stored { location, size: Size::new(self.bytes(), self.copies_log2) }
    }

    /// Exchange it was published to.
    pub fn exchange(&self) -> &str {
        &self.text[..self.exchange_end()]
    }

    /// Routing key it was published with.
    pub fn key(&self) -> &str {
        &self.text[self.exchange_end()..self.key_end()]
    }

    /// Its `message_id`.
    pub fn id(&self) -> &str {
        &self.text[self.key_end()..self.id_end()]
    }

    /// The envelope, byte for byte as published.
    pub fn envelope(&self) -> &str {
        &self.text[self.envelope_start()..]
    }

    /// Set in a dead-letter queue.
    pub fn dead_letter(&self) -> Option<DeadLetter<'_>> {
        self.reason.map(|reason| DeadLetter { from: &self.text[self.id_end()..self.envelope_start()], reason })
    }

    /// When the broker took it.
    pub fn published(&self) -> Timestamp {
        self.published
    }

    /// It as a record has it.
    pub(crate) fn parts(&self) -> Parts<'_> {
        let lengths = [self.exchange_len, self.key_len, self.id_len, self.from_len];
        let Message { text, published, exchange, reason, .. } = self;
        Parts { exchange: *exchange, published: *published, lengths, reason: *reason, text }
    }

    /// A message read from a record; whose [origin](Message::with_origin) it is must be said.
    pub(crate) fn from_parts(parts: Parts<'_>) -> Message {
        let [exchange_len, key_len, id_len, from_len] = parts.lengths;
        Message {
            text: Arc::from(parts.text),
            published: parts.published,
            origin: Position(0),
            exchange: parts.exchange,
            exchange_len,
            key_len,
            id_len,
            from_len,
            reason: parts.reason,
            copies_log2: 0,
        }
    }

    pub(crate) fn origin(&self) -> Position {
        self.origin
    }

    pub(crate) fn exchange_id(&self) -> ExchangeId {
        self.exchange
    }

    /// Bytes it counts for against the limits.
    pub(crate) fn bytes(&self) -> u64 {
        self.text.len() as u64
    }

    fn exchange_end(&self) -> usize {
        usize::from(self.exchange_len)
    }

    fn key_end(&self) -> usize {
        self.exchange_end() + usize::from(self.key_len)
    }

    fn id_end(&self) -> usize {
        self.key_end() + usize::from(self.id_len)
    }

    fn envelope_start(&self) -> usize {
        self.id_end() + usize::from(self.from_len)
    }
}

impl<'a> Parts<'a> {
    /// Whether the text has all parts, none of them cut within a character.
    pub(crate) fn are_whole(&self) -> bool {
        (0..self.lengths.len()).all(|part| self.text.is_char_boundary(self.end_of(part)))
    }

    pub(crate) fn exchange(&self) -> &'a str {
        &self.text[..self.end_of(0)]
    }

    pub(crate) fn key(&self) -> &'a str {
        &self.text[self.end_of(0)..self.end_of(1)]
    }

    /// The `message_id`.
    pub(crate) fn id(&self) -> &'a str {
        &self.text[self.end_of(1)..self.end_of(2)]
    }

    pub(crate) fn envelope(&self) -> &'a str {
        &self.text[self.end_of(3)..]
    }

    /// Where the part with this index ends, or would.
    fn end_of(&self, part: usize) -> usize {
        self.lengths[..=part].iter().map(|len| usize::from(*len)).sum()
    }
}

impl Reason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Attempts => "attempts",
            Reason::TooLong => "too-long",
        }
    }
}

fn short(part: &str) -> u8 {
    u8::try_from(part.len()).expect("names and ids are at most 255 bytes: Link checks them on the way in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_they_went_in() {
        let message =
            Message::new(&mut String::new(), (ExchangeId(1), "shop"), "new", "o-1", "{\"ü\":1}", Timestamp(5));
        assert_eq!((message.exchange(), message.key(), message.id()), ("shop", "new", "o-1"));
        assert_eq!((message.envelope(), message.dead_letter()), ("{\"ü\":1}", None));
        let dead = message.dead("orders", Reason::Rejected);
        assert_eq!(dead.envelope(), message.envelope());
        assert_eq!(dead.dead_letter(), Some(DeadLetter { from: "orders", reason: Reason::Rejected }));
        assert_eq!((dead.exchange(), dead.key(), dead.id()), ("shop", "new", "o-1"));
        assert_eq!(dead.alive().parts(), message.parts());
    }
}
