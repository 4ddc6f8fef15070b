//! What a long queue costs: memory for each message, and the speed of emptying it.
//!
//! `cargo run --release -p ciphermq-broker --example backlog <empty directory> [messages]`
//!
//! - `short`: published to a consumer that waits, taken, acknowledged; 256 at a time.
//! - `filled`: published without a consumer, 1.9 KB each (a KiB of plaintext, sealed).
//! - `drained`: that backlog given to one consumer, taken, acknowledged; 256 at a time.
//!
//! The resident set is the process's, from /proc.

#![allow(clippy::unwrap_used, reason = "a step that fails ends the measurement")]

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Instant, SystemTime};

use ciphermq_broker::{Broker, BrokerOptions, Link, Notice, Publish, Settle, Timestamp, limits};
use ciphermq_journal::{Doorbell, FileDisk, JournalOptions, Receipt};

const WINDOW: usize = 256;
/// Submissions of the publisher that wait for the disk.
const WAITING_MAX: usize = 4;
const ENVELOPE_BYTES: usize = 1_900;
const SHORT: u64 = 200_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("which directory?");
    let messages = args.next().and_then(|messages| messages.parse().ok()).unwrap_or(1_000_000);
    let options = BrokerOptions { store_bytes_max: u64::MAX, ..Default::default() };
    let disk = Arc::new(FileDisk::open(Path::new(&dir)).unwrap());
    let (broker, found) = Broker::open(options, now(), disk, JournalOptions::default()).unwrap();
    println!("{} messages found, resident set {} MiB", found.messages, resident_mib());
    let [mut publisher, mut consumer] = [(); 2].map(|()| Side::new(&broker));

    let mut ids = 0;
    let started = Instant::now();
    consumer.link.subscribe(limits::DEFAULT_QUEUE, WINDOW as u32, now()).unwrap();
    for _ in 0..SHORT / WINDOW as u64 {
        publisher.publish(&mut ids);
        publisher.wait(1);
        consumer.take(WINDOW);
    }
    report("short", ids, started);
    consumer.wait(0);
    consumer.link.cancel(limits::DEFAULT_QUEUE, now()).unwrap();

    let before = ids;
    let started = Instant::now();
    while ids - before < messages {
        publisher.publish(&mut ids);
    }
    publisher.wait(0);
    report("filled", ids - before, started);
    let (bytes, _) = publisher.link.store_bytes();
    println!("{} GiB stored, bodies of {} MiB in memory", bytes >> 30, publisher.link.resident_bytes() >> 20);

    let started = Instant::now();
    consumer.link.subscribe(limits::DEFAULT_QUEUE, WINDOW as u32, now()).unwrap();
    for _ in 0..(ids - before) / WINDOW as u64 {
        consumer.take(WINDOW);
    }
    consumer.wait(0);
    report("drained", ids - before, started);
    assert_eq!(publisher.link.list_queues(None, 1)[0].ready, 0);
    broker.close();
}

/// One connection and what it waits for.
struct Side {
    link: Link,
    bell: Arc<Doorbell>,
    receipts: std::collections::VecDeque<Receipt>,
    envelope: String,
}

impl Side {
    fn new(broker: &Broker) -> Side {
        let bell = Arc::new(Doorbell::new());
        let link = broker.connect(Arc::clone(&bell));
        Side { link, bell, receipts: [].into(), envelope: format!("{{\"body\":\"{}\"}}", "x".repeat(ENVELOPE_BYTES)) }
    }

    fn publish(&mut self, ids: &mut u64) {
        let (exchange, key) = (limits::DEFAULT_EXCHANGE, limits::DEFAULT_KEY);
        for _ in 0..WINDOW {
            let id = format!("message-{ids:012}");
            *ids += 1;
            self.link.publish(Publish { exchange, key, id: &id, envelope: &self.envelope }, now()).unwrap();
        }
        self.submit();
        self.wait(WAITING_MAX);
    }

    /// Takes and acknowledges so many.
    fn take(&mut self, messages: usize) {
        let mut taken = 0;
        while taken < messages {
            if let Some(Notice::Delivery(delivery)) = self.link.next_notice() {
                self.link.settle(delivery.message().id(), None, Settle::Ack, now()).unwrap();
                taken += 1;
            } else {
                // Whatever rings, for a delivery or a receipt, is looked at before the next sleep.
                self.submit();
                self.sleep();
            }
        }
        self.submit();
        self.wait(WAITING_MAX);
    }

    fn submit(&mut self) {
        if let Some(submitted) = self.link.submit() {
            self.receipts.push_back(submitted.unwrap());
        }
        while self.receipts.front().is_some_and(|first| self.link.outcome(*first) == Some(Ok(()))) {
            self.receipts.pop_front();
        }
    }

    /// Until only so many submissions are open.
    fn wait(&mut self, open: usize) {
        while let Some(first) = self.receipts.front() {
            match self.link.outcome(*first) {
                Some(outcome) => {
                    outcome.unwrap();
                    self.receipts.pop_front();
                }
                None if self.receipts.len() <= open => return,
                None => self.sleep(),
            }
        }
    }

    /// Until the bell rings; a core is the measurement's own.
    fn sleep(&self) {
        while self.bell.poll_rung(&mut Context::from_waker(Waker::noop())).is_pending() {
            std::thread::yield_now();
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as u64)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

fn report(what: &str, messages: u64, started: Instant) {
    let a_second = messages as f64 / started.elapsed().as_secs_f64();
    println!("{what:10} {messages:9} messages, {a_second:9.0} a second, resident set {} MiB", resident_mib());
}
