//! How long the broker itself takes for a message, without sockets and without a disk.
//!
//! `cargo run --release -p ciphermq-broker --example speed [messages]`
//!
//! - `straight`: published to a consumer that waits, taken, acknowledged; 256 at a time.
//! - `backlog`: published without a consumer.
//! - `drained`: that backlog given to one consumer, taken, acknowledged; 256 at a time.

#![allow(clippy::unwrap_used, reason = "a step that fails ends the measurement")]

use std::sync::Arc;
use std::time::Instant;

use ciphermq_broker::{Broker, BrokerOptions, Link, Notice, Publish, Settle, Timestamp, limits};
use ciphermq_journal::Doorbell;

const WINDOW: usize = 256;
const NOW: Timestamp = Timestamp(1);
/// A KiB of plaintext, sealed.
const ENVELOPE_BYTES: usize = 1_900;

fn main() {
    let messages = std::env::args().nth(1).and_then(|messages| messages.parse().ok()).unwrap_or(1_000_000);
    let envelope = format!("{{\"body\":\"{}\"}}", "x".repeat(ENVELOPE_BYTES));
    let broker = Broker::in_memory(BrokerOptions { store_bytes_max: u64::MAX, ..Default::default() }, NOW);
    let [mut publisher, mut consumer] = [(); 2].map(|()| broker.connect(Arc::new(Doorbell::new())));
    let ids: Vec<String> = (0..2 * messages).map(|id| format!("message-{id:012}")).collect();

    consumer.subscribe(limits::DEFAULT_QUEUE, WINDOW as u32, NOW).unwrap();
    let started = Instant::now();
    for ids in ids[..messages].chunks(WINDOW) {
        publish(&mut publisher, ids, &envelope);
        assert_eq!(take(&mut consumer), ids.len());
    }
    report("straight", messages, started);

    consumer.cancel(limits::DEFAULT_QUEUE, NOW).unwrap();
    let started = Instant::now();
    ids[messages..].chunks(WINDOW).for_each(|ids| publish(&mut publisher, ids, &envelope));
    report("backlog", messages, started);

    let started = Instant::now();
    consumer.subscribe(limits::DEFAULT_QUEUE, WINDOW as u32, NOW).unwrap();
    let mut drained = 0;
    while drained < messages {
        drained += take(&mut consumer);
    }
    report("drained", messages, started);
}

fn publish(link: &mut Link, ids: &[String], envelope: &str) {
    for id in ids {
        let (exchange, key) = (limits::DEFAULT_EXCHANGE, limits::DEFAULT_KEY);
        link.publish(Publish { exchange, key, id, envelope }, NOW).unwrap();
    }
    let _ = link.submit().unwrap().unwrap();
}

/// Takes and acknowledges what has been delivered; how many that were.
fn take(link: &mut Link) -> usize {
    let mut taken = 0;
    while taken < WINDOW
        && let Some(Notice::Delivery(delivery)) = link.next_notice()
    {
        link.settle(delivery.message().id(), None, Settle::Ack, NOW).unwrap();
        taken += 1;
    }
    let _ = link.submit().unwrap().unwrap();
    taken
}

fn report(what: &str, messages: usize, started: Instant) {
    let took = started.elapsed();
    let each = took.as_nanos() as f64 / messages as f64;
    println!("{what:10} {each:7.0} ns a message, {:9.0} a second", 1e9 / each);
}
