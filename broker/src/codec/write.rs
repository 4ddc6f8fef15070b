use crate::Reason;
use crate::message::Parts;
use ciphermq_journal::{Durability, Position};

/// Where a record's bytes go. One description of a record serves both: the length can never differ from the bytes.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn position(&mut self, position: Position) {
        self.u64(position.0);
    }

    /// How many items follow.
    fn count(&mut self, items: usize) {
        self.u32(u32::try_from(items).expect("every list in a record has a bound far below 2^32"));
    }

    fn name(&mut self, name: &str) {
        self.u8(u8::try_from(name.len()).expect("names and keys are at most 255 bytes: Link checks them on the way in"));
        self.put(name.as_bytes());
    }

    fn durability(&mut self, durability: Durability) {
        let (kind, ms) = match durability {
            Durability::Written => (0, 0),
            Durability::Within(ms) => (1, ms),
            Durability::Synced => (2, 0),
        };
        self.u8(kind);
        self.u32(ms);
    }

    fn message(&mut self, message: Parts<'_>) {
        self.u32(message.exchange.0);
        self.u64(message.published.0);
        self.put(&message.lengths);
        self.u8(message.reason.map_or(0, reason_code));
        self.u32(u32::try_from(message.text.len()).expect("a text is shorter than TEXT_BYTES_MAX"));
        self.put(message.text.as_bytes());
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
pub(super) struct Length(pub(super) usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

fn reason_code(reason: Reason) -> u8 {
    match reason {
        Reason::Rejected => 1,
        Reason::Attempts => 2,
        Reason::TooLong => 3,
    }
}
