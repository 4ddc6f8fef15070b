use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

/// How many bytes of waiting messages may stay in memory, over all queues.
#[derive(Debug)]
pub(crate) struct Budget {
    /// `None` where nothing could be read back: then everything stays.
    bytes_max: Option<u64>,
    bytes: AtomicU64,
}

impl Budget {
    /// For a log that cannot be read back.
    pub(crate) fn unlimited() -> Budget {
        Budget { bytes_max: None, bytes: AtomicU64::new(0) }
    }

    /// For a log that can.
    pub(crate) fn new(bytes_max: u64) -> Budget {
        Budget { bytes_max: Some(bytes_max), bytes: AtomicU64::new(0) }
    }

    /// Whether bodies may leave memory at all.
    pub(crate) fn is_limited(&self) -> bool {
        self.bytes_max.is_some()
    }

    /// Whether a message with this much text may stay; if so it is counted.
    pub(crate) fn take(&self, text_bytes: u64) -> bool {
        let Some(bytes_max) = self.bytes_max else { return true };
        let bytes = text_bytes + limits::MESSAGE_OVERHEAD_BYTES;
        // Room is looked for before it is taken: a full budget costs a read, not two writes of a line all queues share.
        if self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > bytes_max {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// A message that was counted left.
    pub(crate) fn give_back(&self, text_bytes: u64) {
        if self.is_limited() {
            self.bytes.fetch_sub(text_bytes + limits::MESSAGE_OVERHEAD_BYTES, Ordering::Relaxed);
        }
    }

    /// Bytes that are counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_given_out_once() {
        let budget = Budget::new(199 + 3 * limits::MESSAGE_OVERHEAD_BYTES);
        assert!(budget.take(100) && budget.take(100));
        assert!(!budget.take(0), "what is left is less than an empty message");
        budget.give_back(100);
        assert!(budget.take(0));
        let unlimited = Budget::unlimited();
        assert!(unlimited.take(u64::MAX) && !unlimited.is_limited() && unlimited.bytes() == 0);
    }
}
