//! Bodies that left memory: what is delivered is what was published, wherever its record is meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

use std::io::ErrorKind;
use std::sync::Arc;

use ciphermq_broker::{Broker, BrokerOptions, Delivery, Link, Notice, Publish, Reason, Settle, Timestamp, limits};
use ciphermq_journal::{CallKind, Doorbell, JournalOptions, MemoryDisk, Times};

const NOW: Timestamp = Timestamp(1_000_000);
const QUEUE: &str = limits::DEFAULT_QUEUE;
const DEAD: &str = "default_queue.dlq";

fn open(disk: &MemoryDisk, resident_bytes_max: u64) -> Broker {
    let options = BrokerOptions { resident_bytes_max, ..Default::default() };
    let journal = JournalOptions {
        segment_bytes_min: 64 << 10,
        segment_bytes_max: 64 << 10,
        salt_seed: Some(7),
        ..Default::default()
    };
    Broker::open_stepped(options, NOW, Arc::new(disk.clone()), journal).unwrap().0
}

fn connect(broker: &Broker) -> Link {
    broker.connect(Arc::new(Doorbell::new()))
}

/// No two are alike.
fn envelope(n: u64) -> String {
    format!("{{\"n\":\"<{n}>\",\"body\":\"{}\"}}", "x".repeat(n as usize * 37 % 900))
}

fn publish(broker: &Broker, link: &mut Link, numbers: impl Iterator<Item = u64>) {
    let (exchange, key) = (limits::DEFAULT_EXCHANGE, limits::DEFAULT_KEY);
    for n in numbers {
        link.publish(Publish { exchange, key, id: &n.to_string(), envelope: &envelope(n) }, NOW).unwrap();
    }
    submit(broker, link);
}

fn submit(broker: &Broker, link: &mut Link) {
    let receipt = link.submit().unwrap().unwrap();
    broker.write_journal();
    assert_eq!(link.outcome(receipt), Some(Ok(())));
}

/// The delivery of message `n`, as it was published.
fn check(delivery: &Delivery, n: u64) {
    let message = delivery.message();
    assert_eq!(message.id(), n.to_string());
    assert_eq!(message.envelope(), envelope(n));
    assert_eq!((message.exchange(), message.key()), (limits::DEFAULT_EXCHANGE, limits::DEFAULT_KEY));
    assert_eq!(message.published(), NOW);
}

fn next(link: &mut Link) -> Option<Delivery> {
    match link.next_notice()? {
        Notice::Delivery(delivery) => Some(delivery),
        Notice::Cancelled { queue } => panic!("{queue} cancelled"),
    }
}

/// Takes and acknowledges everything there is, which must be these, in order.
fn drain(broker: &Broker, link: &mut Link, mut numbers: impl Iterator<Item = u64>) {
    link.subscribe(QUEUE, 16, NOW).unwrap();
    while let Some(delivery) = next(link) {
        let n = numbers.next().unwrap();
        check(&delivery, n);
        link.settle(&n.to_string(), None, Settle::Ack, NOW).unwrap();
        submit(broker, link);
    }
    assert_eq!(numbers.next(), None);
    link.cancel(QUEUE, NOW).unwrap();
    assert_eq!((link.store_bytes().0, link.resident_bytes()), (0, 0));
}

#[test]
fn bodies_beyond_the_budget_leave_memory_and_come_back() {
    let budget = 100_000;
    let disk = MemoryDisk::new();
    let broker = open(&disk, budget);
    let mut link = connect(&broker);
    publish(&broker, &mut link, 0..1_000);
    assert!((budget / 2..=budget).contains(&link.resident_bytes()), "{}", link.resident_bytes());
    assert!(link.store_bytes().0 > 3 * budget);
    drain(&broker, &mut link, 0..1_000);
    // What is free again is used again.
    publish(&broker, &mut link, 1_000..1_010);
    assert!(link.resident_bytes() > 0);
    drain(&broker, &mut link, 1_000..1_010);
}

#[test]
fn what_a_start_finds_is_delivered_in_the_order_it_came() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, 10_000);
    let mut link = connect(&broker);
    publish(&broker, &mut link, 0..500);
    let fetched = link.fetch(QUEUE, None, NOW).unwrap().unwrap();
    check(&fetched, 0);
    broker.close();
    drop((link, broker));
    let broker = open(&disk, 10_000);
    drain(&broker, &mut connect(&broker), 0..500);
}

#[test]
fn a_record_written_anew_is_found_by_a_delivery_that_waited() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, 0);
    let [mut sleeper, mut other] = [(); 2].map(|()| connect(&broker));
    publish(&broker, &mut other, 0..8);
    sleeper.subscribe(QUEUE, 8, NOW).unwrap();
    let oldest =
        |disk: &MemoryDisk| disk.files().into_iter().map(|(name, _)| name).filter(|it| it.ends_with(".log")).min();
    let before = oldest(&disk);
    let _ = other.declare_queue("churn", &Default::default(), NOW).unwrap();
    broker.write_journal();
    let _ = other.bind(limits::DEFAULT_EXCHANGE, "churn", "churn", NOW).unwrap();
    broker.write_journal();
    for n in 8..2_000 {
        let (id, envelope) = (n.to_string(), envelope(n));
        other
            .publish(Publish { exchange: limits::DEFAULT_EXCHANGE, key: "churn", id: &id, envelope: &envelope }, NOW)
            .unwrap();
        submit(&broker, &mut other);
        assert!(other.fetch("churn", None, NOW).unwrap().is_some());
        other.settle(&id, None, Settle::Ack, NOW).unwrap();
        submit(&broker, &mut other);
    }
    assert_ne!(oldest(&disk), before, "their segment was dropped");
    for n in 0..8 {
        check(&next(&mut sleeper).unwrap(), n);
    }
}

#[test]
fn what_was_delivered_before_is_read_back() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, 1 << 20);
    let mut link = connect(&broker);
    publish(&broker, &mut link, 0..4);
    for attempt in 1..=3 {
        for n in 0..4 {
            let delivery = link.fetch(QUEUE, None, NOW).unwrap().unwrap();
            check(&delivery, n);
            assert_eq!(delivery.attempt(), attempt);
        }
        (0..4).for_each(|n| link.settle(&n.to_string(), None, Settle::Nack { delay_ms: 0 }, NOW).unwrap());
        submit(&broker, &mut link);
    }
    check(&link.fetch(QUEUE, None, NOW).unwrap().unwrap(), 0);
    link.settle("0", None, Settle::Reject(Reason::Rejected), NOW).unwrap();
    submit(&broker, &mut link);
    let dead = link.fetch(DEAD, None, NOW).unwrap().unwrap();
    check(&dead, 0);
    assert_eq!(dead.message().dead_letter().map(|dead| dead.from), Some(QUEUE));
    assert_eq!(link.status("0").unwrap().len(), 1);
}

#[test]
fn damage_costs_the_message_it_hits_and_is_counted() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, 0);
    let mut link = connect(&broker);
    publish(&broker, &mut link, 0..5);
    let marks = |bytes: &[u8]| bytes.windows(3).position(|window| window == b"<2>");
    let (name, at) = disk.files().into_iter().find_map(|(name, bytes)| Some((name, marks(&bytes)?))).unwrap();
    assert!(disk.flip(&name, at as u64 * 8));
    link.subscribe(QUEUE, 5, NOW).unwrap();
    for n in [0, 1, 3, 4] {
        check(&next(&mut link).unwrap(), n);
        link.settle(&n.to_string(), None, Settle::Ack, NOW).unwrap();
    }
    assert!(next(&mut link).is_none());
    submit(&broker, &mut link);
    assert_eq!((link.stats().damaged, link.list_queues(None, 1)[0].leased, link.store_bytes().0), (1, 0, 0));
    broker.close();
    drop((link, broker));
    let broker = open(&disk, 0);
    assert!(connect(&broker).fetch(QUEUE, None, NOW).unwrap().is_none(), "it is gone for good");
}

#[test]
fn a_disk_that_does_not_read_delays_messages_and_loses_none() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, 0);
    let mut link = connect(&broker);
    publish(&broker, &mut link, 0..20);
    link.subscribe(QUEUE, 4, NOW).unwrap();
    disk.fail_at(disk.calls().len() as u64, ErrorKind::Other, Times::EverAfter);
    let mut now = NOW;
    for _ in 0..100 {
        assert!(next(&mut link).is_none());
        assert!(link.fetch(QUEUE, None, now).unwrap().is_none());
        now = now.plus_ms(limits::UNREADABLE_RETRY_MS);
        broker.handle_timeout(now);
        broker.write_journal();
    }
    let reads = disk.calls().iter().filter(|call| call.kind == CallKind::Read).count();
    assert!(reads <= 100 * 10, "{reads} reads in vain");
    disk.work_again();
    now = now.plus_ms(limits::UNREADABLE_RETRY_MS);
    broker.handle_timeout(now);
    for n in 0..20 {
        let delivery = next(&mut link).unwrap();
        check(&delivery, n);
        assert_eq!(delivery.attempt(), 1);
        link.settle(&n.to_string(), None, Settle::Ack, now).unwrap();
        submit(&broker, &mut link);
    }
    assert_eq!(link.stats().dead_lettered, 0);
}

#[test]
fn a_purge_and_a_deletion_take_what_is_on_disk_with_them() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, 20_000);
    let mut link = connect(&broker);
    publish(&broker, &mut link, 0..300);
    check(&link.fetch(QUEUE, None, NOW).unwrap().unwrap(), 0);
    let purged = link.purge(QUEUE, NOW).unwrap();
    broker.write_journal();
    assert_eq!((purged.purged(), link.resident_bytes()), (299, 0));
    publish(&broker, &mut link, 300..310);
    link.settle("0", None, Settle::Release, NOW).unwrap();
    broker.close();
    drop((link, broker));
    let broker = open(&disk, 20_000);
    drain(&broker, &mut connect(&broker), std::iter::once(0).chain(300..310));
}
