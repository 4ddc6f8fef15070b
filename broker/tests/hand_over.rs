//! Between a lease and its hand-over lies an outbox: what may happen to a message while its delivery waits there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ciphermq_broker::{
    Broker, BrokerOptions, Delivery, Error, Link, Notice, Publish, QueueOptions, Settle, Status, Timestamp,
};
use ciphermq_journal::Doorbell;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const LEASE_MS: u64 = 1_000;
const MAX_ATTEMPTS: u32 = 3;
const START: Timestamp = Timestamp(1_000);
const QUEUE: &str = "default_queue";
const DEAD: &str = "default_queue.dlq";

fn broker() -> Broker {
    Broker::in_memory(BrokerOptions { lease_ms: LEASE_MS, max_attempts: MAX_ATTEMPTS, ..Default::default() }, START)
}

fn connect(broker: &Broker) -> Link {
    broker.connect(Arc::new(Doorbell::new()))
}

fn publish_with(link: &mut Link, key: &str, id: &str) {
    link.publish(Publish { exchange: "default_exchange", key, id, envelope: "{}" }, START).unwrap();
    submit(link);
}

fn publish(link: &mut Link, id: &str) {
    publish_with(link, "default_key", id);
}

fn submit(link: &mut Link) {
    let _ = link.submit().unwrap().unwrap();
}

fn delivery(link: &mut Link) -> Option<Delivery> {
    match link.next_notice()? {
        Notice::Delivery(delivery) => Some(delivery),
        Notice::Cancelled { queue } => panic!("{queue} cancelled"),
    }
}

fn next(link: &mut Link) -> Option<(String, u32)> {
    delivery(link).map(|delivery| (delivery.message().id().to_owned(), delivery.attempt()))
}

fn declare_bound(link: &mut Link, name: &str, options: &QueueOptions) {
    let _ = link.declare_queue(name, options, START).unwrap();
    let _ = link.bind("default_exchange", name, name, START).unwrap();
}

#[test]
fn a_message_is_never_handed_over_after_its_ack_was_confirmed() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    consumer.subscribe(QUEUE, 1, START).unwrap();
    publish(&mut other, "a");
    other.ack_anywhere("a", START);
    submit(&mut other);
    assert_eq!(next(&mut consumer), None);
    // The credit the stale delivery kept is free again.
    publish(&mut other, "b");
    assert_eq!(next(&mut consumer), Some(("b".into(), 1)));
}

#[test]
fn credit_freed_by_a_stale_delivery_is_used_when_the_timer_looks() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    consumer.subscribe(QUEUE, 1, START).unwrap();
    publish(&mut other, "a");
    publish(&mut other, "b");
    other.ack_anywhere("a", START);
    submit(&mut other);
    assert_eq!(next(&mut consumer), None);
    let later = START.plus_ms(10 * LEASE_MS);
    assert!(broker.poll_timeout().unwrap() <= later, "the timer is asked to look");
    broker.handle_timeout(later);
    assert_eq!(next(&mut consumer), Some(("b".into(), 1)));
    assert_eq!(broker.poll_timeout(), Some(later.plus_ms(LEASE_MS)), "its lease began when it was given");
}

#[test]
fn a_delivery_of_a_deleted_queue_is_not_handed_over() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    declare_bound(&mut other, "q", &QueueOptions::default());
    consumer.subscribe("q", 1, START).unwrap();
    publish_with(&mut other, "q", "a");
    let _ = other.delete_queue("q", true, START).unwrap();
    assert!(matches!(consumer.next_notice(), Some(Notice::Cancelled { queue }) if &*queue == "q"));
    assert!(consumer.next_notice().is_none());
}

#[test]
fn an_outbox_nobody_empties_never_holds_more_than_the_credit() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    consumer.subscribe(QUEUE, 2, START).unwrap();
    (0..10).for_each(|n| publish(&mut other, &n.to_string()));
    let mut now = START;
    for _ in 0..1_000 {
        now = now.plus_ms(LEASE_MS);
        broker.handle_timeout(now);
    }
    assert_eq!(other.stats().delivered, 2, "leases given to it");
    assert_eq!(next(&mut consumer), None, "both have ended");
    broker.handle_timeout(now);
    assert_eq!(next(&mut consumer), Some(("0".into(), 1)));
    assert_eq!(next(&mut consumer), Some(("1".into(), 1)));
    assert_eq!(next(&mut consumer), None);
}

#[test]
fn a_lease_nobody_saw_uses_up_no_attempt() {
    let broker = broker();
    let (mut sleeper, mut other) = (connect(&broker), connect(&broker));
    let mut now = START;
    for round in 0..2 * MAX_ATTEMPTS {
        sleeper.subscribe(QUEUE, 1, now).unwrap();
        if round == 0 {
            publish(&mut other, "a");
        }
        now = now.plus_ms(LEASE_MS);
        broker.handle_timeout(now);
        sleeper.cancel(QUEUE, now).unwrap();
        // Ended while its delivery waits: not an attempt either.
        sleeper.subscribe(QUEUE, 1, now).unwrap();
        sleeper.end(now);
        sleeper = connect(&broker);
    }
    let fetched = other.fetch(QUEUE, None, now).unwrap().unwrap();
    assert_eq!((fetched.message().id(), fetched.attempt()), ("a", 1));
    assert_eq!(other.stats().dead_lettered, 0);
}

#[test]
fn an_ack_finds_the_good_lease_behind_one_that_ended() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    declare_bound(&mut other, "short", &QueueOptions { lease_ms: Some(10), ..Default::default() });
    let _ = other.bind("default_exchange", "short", "default_key", START).unwrap();
    publish(&mut other, "a");
    assert!(consumer.fetch("short", None, START).unwrap().is_some());
    assert!(consumer.fetch(QUEUE, None, START).unwrap().is_some());
    let now = START.plus_ms(10);
    broker.handle_timeout(now);
    consumer.settle("a", None, Settle::Ack, now).unwrap();
    submit(&mut consumer);
    assert!(matches!(consumer.settle("a", None, Settle::Ack, now), Err(Error::NotLeased(_))));
    let left = other.status("a").unwrap();
    let left: Vec<_> = left.iter().filter(|copy| copy.status == Status::Sent).map(|copy| &*copy.queue).collect();
    assert_eq!(left, ["short"]);
}

#[test]
fn the_end_of_a_queue_does_not_end_the_subscription_to_its_successor() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    declare_bound(&mut other, "q", &QueueOptions::default());
    consumer.subscribe("q", 1, START).unwrap();
    let _ = other.delete_queue("q", false, START).unwrap();
    declare_bound(&mut other, "q", &QueueOptions::default());
    consumer.subscribe("q", 1, START).unwrap();
    publish_with(&mut other, "q", "a");
    assert_eq!(next(&mut consumer), Some(("a".into(), 1)), "and no Cancelled before it");
    consumer.cancel("q", START).unwrap();
}

#[test]
fn a_connection_that_was_taken_over_cannot_consume_any_more() {
    let broker = broker();
    let (mut before, mut after) = (connect(&broker), connect(&broker));
    let session = before.open_session(None, START);
    assert_eq!(after.open_session(Some(session), START), session);
    before.subscribe(QUEUE, 1, START).unwrap();
    publish(&mut after, "a");
    assert!(before.fetch(QUEUE, None, START).unwrap().is_none());
    assert!(next(&mut before).is_none());
    let queue = &after.list_queues(None, 10)[0];
    assert_eq!((queue.ready, queue.leased, queue.consumers), (1, 0, 0));
}

#[test]
fn a_cancel_returns_messages_at_the_time_it_is_made() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    consumer.subscribe(QUEUE, 1, START).unwrap();
    publish(&mut other, "a");
    let now = START.plus_ms(LEASE_MS - 1);
    other.subscribe(QUEUE, 1, now).unwrap();
    consumer.cancel(QUEUE, now).unwrap();
    assert_eq!(next(&mut other), Some(("a".into(), 1)));
    broker.handle_timeout(now.plus_ms(LEASE_MS - 1));
    other.settle("a", None, Settle::Ack, now).unwrap();
}

#[test]
fn status_and_ack_see_every_dead_letter_of_one_message() {
    let broker = broker();
    let (mut consumer, mut other) = (connect(&broker), connect(&broker));
    for name in ["one", "two"] {
        declare_bound(&mut other, name, &QueueOptions { dead_letter: Some(DEAD.into()), ..Default::default() });
        let _ = other.bind("default_exchange", name, "both", START).unwrap();
    }
    publish_with(&mut other, "both", "a");
    for name in ["one", "two"] {
        assert!(consumer.fetch(name, None, START).unwrap().is_some());
        consumer.settle("a", Some(name), Settle::Reject(ciphermq_broker::Reason::Rejected), START).unwrap();
        submit(&mut consumer);
    }
    let copies = other.status("a").unwrap();
    assert_eq!(copies.iter().map(|copy| &*copy.queue).collect::<Vec<_>>(), [DEAD, DEAD]);
    other.ack_anywhere("a", START);
    submit(&mut other);
    assert!(other.status("a").unwrap().iter().all(|copy| copy.status == Status::Acknowledged));
    assert_eq!(other.store_bytes().0, 0);
}

#[test]
fn an_ack_without_a_lease_counts_only_the_attempts_there_were() {
    let broker = broker();
    let mut link = connect(&broker);
    publish(&mut link, "a");
    for _ in 0..2 {
        link.fetch(QUEUE, None, START).unwrap().unwrap();
        link.settle("a", None, Settle::Nack { delay_ms: 0 }, START).unwrap();
    }
    link.ack_anywhere("a", START);
    submit(&mut link);
    let copy = link.status("a").unwrap().remove(0);
    assert_eq!((copy.status, copy.attempts), (Status::Acknowledged, 2));
}

#[test]
fn ended_leases_do_not_count_against_the_bound_on_fetched_messages() {
    let broker = broker();
    let (mut link, mut other) = (connect(&broker), connect(&broker));
    let max = ciphermq_broker::limits::FETCHED_MAX;
    for n in 0..=max {
        other
            .publish(
                Publish { exchange: "default_exchange", key: "default_key", id: &n.to_string(), envelope: "{}" },
                START,
            )
            .unwrap();
    }
    submit(&mut other);
    (0..max).for_each(|_| assert!(link.fetch(QUEUE, None, START).unwrap().is_some()));
    assert!(matches!(link.fetch(QUEUE, None, START), Err(Error::Limit(_))));
    // More than one lock's worth ends at once.
    let now = START.plus_ms(LEASE_MS);
    broker.handle_timeout(now);
    assert!(link.fetch(QUEUE, None, now).unwrap().is_some());
    assert_eq!(link.list_queues(None, 10)[0].leased, 1);
}

/// Consumers that take late, expiry, acks by others: whatever the order, nothing is handed over after its ack,
/// attempts are what was seen, outboxes stay within the credit, and nothing is lost.
#[test]
fn whoever_takes_late_gets_only_what_is_still_leased_to_him() {
    let seed = std::env::var("CIPHERMQ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    println!("seed {seed}: replay with CIPHERMQ_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let broker = broker();
    let mut links: Vec<Link> = (0..4).map(|_| connect(&broker)).collect();
    let mut credit = [0u32; 4];
    let (mut now, mut published, mut overtaken) = (START, 0u32, 0u32);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut gone: BTreeSet<String> = BTreeSet::new();
    for _ in 0..40_000 {
        let at = random.random_range(0..links.len());
        match random.random_range(0..20) {
            0..5 => {
                publish(&mut links[at], &published.to_string());
                published += 1;
            }
            5 => {
                let limit = random.random_range(1..5);
                links[at].subscribe(QUEUE, limit, now).unwrap();
                credit[at] = credit[at].max(limit);
            }
            6 => {
                let _ = links[at].cancel(QUEUE, now);
                credit[at] = 0;
            }
            7 => {
                std::mem::replace(&mut links[at], connect(&broker)).end(now);
                credit[at] = 0;
            }
            8..12 => {
                now = now.plus_ms(random.random_range(1..LEASE_MS));
                broker.handle_timeout(now);
            }
            12 if published > 0 => {
                let id = random.random_range(0..published).to_string();
                links[at].ack_anywhere(&id, now);
                if let Some(submitted) = links[at].submit() {
                    let _ = submitted.unwrap();
                    gone.insert(id);
                }
            }
            _ => {
                // Takes what waited, acks some of it, forgets the rest.
                let mut taken = 0;
                let before = links[at].stats().delivered;
                while let Some((id, attempt)) = next(&mut links[at]) {
                    taken += 1;
                    assert!(!gone.contains(&id), "{id} was handed over after its ack");
                    let hand_overs = seen.entry(id.clone()).or_default();
                    assert!(attempt <= *hand_overs + 1, "attempt {attempt} of {id}, seen {hand_overs} times");
                    *hand_overs += 1;
                    if random.random_range(0..3) == 0 {
                        links[at].settle(&id, None, Settle::Ack, now).unwrap();
                        submit(&mut links[at]);
                        gone.insert(id);
                    }
                }
                let new = (links[at].stats().delivered - before) as u32;
                assert!(taken <= credit[at] + new, "{taken} taken with a credit of {}", credit[at]);
                overtaken += u32::from(taken == 0);
            }
        }
    }
    assert!(gone.len() > 1_000 && overtaken > 100, "the mix of operations is a real one");
    for link in std::mem::take(&mut links) {
        link.end(now);
    }
    let mut link = connect(&broker);
    let mut left = BTreeSet::new();
    for queue in [QUEUE, DEAD] {
        while let Some(delivery) = link.fetch(queue, None, now).unwrap() {
            let id = delivery.message().id().to_owned();
            assert!(queue == QUEUE || seen[&id] >= MAX_ATTEMPTS, "{id} was dead-lettered unseen");
            link.settle(&id, Some(queue), Settle::Ack, now).unwrap();
            submit(&mut link);
            assert!(left.insert(id.clone()) && !gone.contains(&id), "{id} comes twice");
        }
    }
    assert_eq!(gone.len() + left.len(), published as usize, "none is lost");
    assert_eq!(link.store_bytes().0, 0, "nothing stored, nothing reserved");
}
