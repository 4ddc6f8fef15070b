//! A broker on a simulated disk, and the end of its machine.

#![allow(dead_code, reason = "each test crate uses its part")]

use std::sync::Arc;

use ciphermq_broker::{
    Broker, BrokerOptions, Error, Link, Publish, QueueOptions, Recovered, Returned, Settle, Timestamp,
};
use ciphermq_journal::{Crash, Doorbell, JournalOptions, MemoryDisk, Unsynced};

pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000);
pub(crate) const LEASE_MS: u64 = 1_000;
pub(crate) const MAX_ATTEMPTS: u32 = 5;
pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;
pub(crate) const QUEUE: &str = "default_queue";
pub(crate) const DEAD: &str = "default_queue.dlq";

pub(crate) struct Store {
    pub(crate) disk: MemoryDisk,
    pub(crate) broker: Broker,
    pub(crate) now: Timestamp,
    pub(crate) journal: JournalOptions,
    pub(crate) options: BrokerOptions,
}

pub(crate) fn message<'a>(key: &'a str, id: &'a str, envelope: &'a str) -> Publish<'a> {
    Publish { exchange: "default_exchange", key, id, envelope }
}

impl Store {
    pub(crate) fn new() -> Store {
        Store::with(JournalOptions::default(), BrokerOptions::default())
    }

    /// Segments so small that they turn every few dozen records.
    pub(crate) fn tiny(options: BrokerOptions) -> Store {
        let (segment_bytes_min, segment_bytes_max) = (SEGMENT_BYTES, SEGMENT_BYTES);
        Store::with(JournalOptions { segment_bytes_min, segment_bytes_max, ..Default::default() }, options)
    }

    /// The same disk, another broker on it when it is opened again.
    pub(crate) fn copy(&self) -> Store {
        let Store { disk, broker, now, journal, options } = self;
        Store {
            disk: disk.clone(),
            broker: broker.clone(),
            now: *now,
            journal: journal.clone(),
            options: options.clone(),
        }
    }

    pub(crate) fn with(journal: JournalOptions, options: BrokerOptions) -> Store {
        let options = BrokerOptions { lease_ms: LEASE_MS, max_attempts: MAX_ATTEMPTS, ..options };
        let journal = JournalOptions { salt_seed: Some(1), ..journal };
        let disk = MemoryDisk::new();
        let (broker, _) = open(&disk, &options, &journal, START);
        Store { disk, broker, now: START, journal, options }
    }

    /// The machine goes off, keeping what was synced, and comes back.
    pub(crate) fn fail_power(&mut self) -> Recovered {
        self.crash(Crash::PowerLoss(Unsynced::Lost))
    }

    pub(crate) fn crash(&mut self, crash: Crash) -> Recovered {
        self.disk = self.disk.crash(crash);
        // A new broker has a new key; the log's own counts.
        self.options.hash_key = BrokerOptions::default().hash_key;
        let (broker, recovered) = open(&self.disk, &self.options, &self.journal, self.now);
        self.broker = broker;
        recovered
    }

    pub(crate) fn link(&self) -> Link {
        self.broker.connect(Arc::new(Doorbell::new()))
    }

    pub(crate) fn publish(&self, link: &mut Link, key: &str, id: &str) {
        self.publish_text(link, key, id, "{}");
    }

    pub(crate) fn publish_text(&self, link: &mut Link, key: &str, id: &str, envelope: &str) {
        link.publish(message(key, id, envelope), self.now).unwrap();
        self.submit(link);
    }

    pub(crate) fn settle(&self, link: &mut Link, id: &str, how: Settle) {
        link.settle(id, None, how, self.now).unwrap();
        self.submit(link);
    }

    /// Submits, writes, and sees that it is committed.
    pub(crate) fn submit(&self, link: &mut Link) {
        if let Some(submitted) = link.submit() {
            let receipt = submitted.unwrap();
            self.broker.write_journal();
            assert_eq!(link.outcome(receipt), Some(Ok(())));
        }
    }

    pub(crate) fn declare(&self, link: &mut Link, queue: &str, options: &QueueOptions) {
        self.done(link.declare_queue(queue, options, self.now));
    }

    /// A change that was asked for is made; how many messages it purged.
    pub(crate) fn done(&self, returned: Result<Returned, Error>) -> u64 {
        let returned = returned.unwrap();
        self.broker.write_journal();
        assert_eq!(returned.refused(), None);
        returned.purged()
    }

    pub(crate) fn fetch(&self, link: &mut Link, queue: &str) -> Option<String> {
        link.fetch(queue, None, self.now).unwrap().map(|delivery| delivery.message().id().to_owned())
    }

    /// Takes everything out of a queue, in order.
    pub(crate) fn take(&self, queue: &str) -> Vec<String> {
        let mut link = self.link();
        let mut taken = Vec::new();
        while let Some(id) = self.fetch(&mut link, queue) {
            self.settle(&mut link, &id, Settle::Ack);
            taken.push(id);
        }
        taken
    }
}

fn open(disk: &MemoryDisk, options: &BrokerOptions, journal: &JournalOptions, now: Timestamp) -> (Broker, Recovered) {
    Broker::open_stepped(options.clone(), now, Arc::new(disk.clone()), journal.clone()).unwrap()
}
