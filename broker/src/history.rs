use std::collections::VecDeque;
use std::sync::Arc;

use crate::dedupe::IdHash;
use crate::{Timestamp, limits};

/// The last acknowledged messages, for `status`.
///
/// Every acknowledgement is written here, hardly any is ever looked for: there is no index, and a search reads through the short
/// hashes.
#[derive(Debug)]
pub(crate) struct History {
    /// Of the hash of each record, what a search compares first.
    short_hashes: VecDeque<u64>,
    records: VecDeque<Acknowledged>,
}

/// What is remembered of an acknowledged message.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) hash: IdHash,
    pub(crate) exchange: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) attempts: u32,
    pub(crate) published: Timestamp,
    pub(crate) delivered: Option<Timestamp>,
    pub(crate) acknowledged: Timestamp,
}

impl History {
    pub(crate) fn new() -> History {
        History { short_hashes: VecDeque::new(), records: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, acknowledged: Acknowledged) {
        if self.records.len() >= limits::HISTORY_MAX {
            self.short_hashes.pop_front();
            self.records.pop_front();
        }
        self.short_hashes.push_back(acknowledged.hash.short());
        self.records.push_back(acknowledged);
    }

    /// Oldest first.
    pub(crate) fn find(&self, hash: IdHash) -> Vec<Acknowledged> {
        let likely = self.short_hashes.iter().zip(&self.records).filter(|(short, _)| **short == hash.short());
        likely.map(|(_, record)| record).filter(|record| record.hash == hash).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(id: usize) -> Acknowledged {
        Acknowledged {
            hash: IdHash::new(7, &id.to_string()),
            exchange: Arc::from("e"),
            queue: Arc::from("q"),
            attempts: 1,
            published: Timestamp(1),
            delivered: None,
            acknowledged: Timestamp(id as u64),
        }
    }

    fn times(history: &History, id: usize) -> Vec<u64> {
        history.find(IdHash::new(7, &id.to_string())).iter().map(|record| record.acknowledged.0).collect()
    }

    #[test]
    fn the_last_hundred_thousand_are_found_and_no_older_one() {
        let mut history = History::new();
        (0..=limits::HISTORY_MAX).for_each(|id| history.push(acknowledged(id)));
        assert_eq!(times(&history, 0), [0; 0]);
        assert_eq!(times(&history, 1), [1]);
        assert_eq!(times(&history, limits::HISTORY_MAX), [limits::HISTORY_MAX as u64]);
    }

    #[test]
    fn a_message_acknowledged_in_two_queues_is_found_twice() {
        let mut history = History::new();
        [3, 4, 3].map(acknowledged).into_iter().for_each(|record| history.push(record));
        assert_eq!(times(&history, 3), [3, 3]);
    }
}
