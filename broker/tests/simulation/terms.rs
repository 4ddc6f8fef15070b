//! What the account speaks of: names, sends, messages, queues, and the facts of the log.

use std::collections::BTreeMap;

use ciphermq_broker::Reason;

/// All names there can be are in tables: what the broker says must be one of them.
pub(crate) type Name = &'static str;

pub(crate) const DEFAULT_QUEUE: Name = "default_queue";
pub(crate) const DEFAULT_EXCHANGE: Name = "default_exchange";
pub(crate) const DEFAULT_KEY: Name = "default_key";
pub(crate) const QUEUES: [Name; 5] = [DEFAULT_QUEUE, "work", "mail", "log", "audit"];
pub(crate) const DEAD_LETTERS: [Name; 5] = ["default_queue.dlq", "work.dlq", "mail.dlq", "log.dlq", "audit.dlq"];
pub(crate) const EXCHANGES: [Name; 3] = [DEFAULT_EXCHANGE, "events", "other"];
pub(crate) const KEYS: [Name; 4] = [DEFAULT_KEY, "one", "two", "all"];

pub(crate) const ANNOUNCERS: [Name; 3] = ["anna", "bert", "carl"];

/// The entry of the tables with this text.
pub(crate) fn name(text: &str) -> Name {
    let mut all = QUEUES.iter().chain(&DEAD_LETTERS).chain(&EXCHANGES).chain(&KEYS).chain(&ANNOUNCERS);
    all.find(|name| **name == text).unwrap_or_else(|| panic!("nobody ever said '{text}'"))
}

/// The queue of this name while it is the same queue: declared again it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueRef {
    pub(crate) name: Name,
    pub(crate) serial: u32,
}

/// One publish that the broker took in.
#[derive(Debug)]
pub(crate) struct Send {
    pub(crate) exchange: (Name, u32),
    pub(crate) key: Name,
    pub(crate) id: String,
    pub(crate) envelope: String,
    pub(crate) at: u64,
    pub(crate) route: Vec<QueueRef>,
    /// Sends of one batch share this number.
    pub(crate) batch: Option<u64>,
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    /// Names it for as long as the broker runs.
    pub(crate) number: u64,
    /// Its place in the order of the queue: submission, and which of its entries. What one call moved has one rank.
    pub(crate) rank: Rank,
    pub(crate) send: usize,
    pub(crate) from: Option<(Name, Reason)>,
    /// Attempts used up, and how many of them are certainly on disk.
    pub(crate) attempts: u32,
    pub(crate) attempts_on_disk: u32,
    pub(crate) ready_since: u64,
    pub(crate) place: Place,
    pub(crate) certainty: Certainty,
}

pub(crate) type Rank = (u64, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Ready,
    Delayed {
        until: u64,
    },
    /// Ends at `latest` at the latest: when it began is known only to the queue.
    Leased {
        connection: u64,
        earliest: u64,
        latest: u64,
    },
    /// Settled, and the record of it is not answered yet.
    Leaving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    There,
    /// Published with an id that may have been known still, or perhaps refused.
    IfNotKnown,
    /// There was a purge, and nobody can see from outside whether it was leased then.
    IfNotPurged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) max_attempts: u32,
    pub(crate) dead_letter: Option<Name>,
    pub(crate) max_messages: u64,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) serial: u32,
    pub(crate) settings: Settings,
    pub(crate) copies: BTreeMap<u64, Copy>,
    /// Nobody has subscribed since the broker started: there are no leases but those of fetches.
    pub(crate) is_only_fetched: bool,
}

/// A fact in the log.
#[derive(Debug)]
pub(crate) enum Entry {
    Publish {
        send: usize,
    },
    Settle {
        queue: QueueRef,
        copy: u64,
    },
    /// `declares`: the dead-letter queue was not there, so its declaration goes in front.
    Move {
        queue: QueueRef,
        copy: u64,
        reason: Reason,
        to: Name,
        declares: bool,
    },
    Attempts {
        queue: QueueRef,
        copy: u64,
        attempts: u32,
    },
    Change(Change),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    DeclareQueue { name: Name, settings: Settings },
    DeclareExchange { name: Name },
    Bind { exchange: Name, queue: Name, key: Name },
    Unbind { exchange: Name, queue: Name, key: Name },
    DeleteQueue { name: Name, force: bool },
    DeleteExchange { name: Name },
    Purge { name: Name },
    Announce { client: Name, seq: u64 },
}

/// Since when an id is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// When, and how many ids were known before it.
    pub(crate) since: Option<(u64, u64)>,
    /// When that was at the latest, or when there was a publish of it that may have been new.
    pub(crate) perhaps_since: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    Known,
    Unknown,
    Perhaps,
}

impl Queue {
    /// Messages that must be there.
    pub(crate) fn sure(&self) -> u64 {
        self.copies.values().filter(|copy| copy.certainty == Certainty::There).count() as u64
    }
}

pub(crate) const DEAD_LETTER_SETTINGS: Settings = Settings { max_attempts: 0, dead_letter: None, max_messages: 0 };
