//! What a broker promises while its log drops what is old: tiny segments, many turns.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

mod store;

use std::io::ErrorKind;

use ciphermq_broker::inspect::Inspector;
use ciphermq_broker::{BrokerOptions, Error, Link, QueueOptions, Reason, Settle};
use ciphermq_journal::{FindingKind, Health, JournalOptions, Scanned, Times, scan};

use store::{DEAD, MAX_ATTEMPTS, QUEUE, SEGMENT_BYTES, Store};

/// Publishes and acknowledges, so that the log moves on.
fn churn(store: &Store, link: &mut Link, name: &str, messages: usize) {
    let envelope = "x".repeat(500);
    for n in 0..messages {
        let id = format!("{name}-{n}");
        store.publish_text(link, "churn", &id, &envelope);
        assert_eq!(store.fetch(link, "churn").as_deref(), Some(&*id));
        store.settle(link, &id, Settle::Ack);
    }
}

fn with_churn(store: &Store) -> Link {
    let mut link = store.link();
    store.declare(&mut link, "churn", &QueueOptions::default());
    store.done(link.bind("default_exchange", "churn", "churn", store.now));
    link
}

/// Messages enough to fill this many segments.
const PER_SEGMENT: usize = SEGMENT_BYTES as usize / 600;

#[test]
fn one_stuck_message_does_not_pin_the_disk() {
    let mut store = Store::tiny(BrokerOptions { dedupe_ids_max: 1_000, ..Default::default() });
    let mut link = with_churn(&store);
    store.publish_text(&mut link, "default_key", "stuck", "{\"kept\":true}");
    for round in 0..6 {
        for part in 0..5 {
            churn(&store, &mut link, &format!("{round}-{part}"), PER_SEGMENT);
            let figures = store.broker.journal_figures();
            let bound = 2 * figures.live_bytes + 3 * SEGMENT_BYTES;
            assert!(figures.disk_bytes <= bound, "{figures:?} after {round}-{part}");
        }
        let recovered = store.fail_power();
        assert!(recovered.log.findings.is_empty(), "{:?}", recovered.log.findings);
        assert_eq!(recovered.messages, 1);
        link = store.link();
    }
    let delivery = link.fetch(QUEUE, None, store.now).unwrap().unwrap();
    assert_eq!((delivery.message().id(), delivery.message().envelope()), ("stuck", "{\"kept\":true}"));
    assert_eq!(delivery.message().published(), store::START);
}

#[test]
fn what_is_written_anew_keeps_order_attempts_and_origin() {
    let mut store = Store::tiny(BrokerOptions::default());
    let mut link = with_churn(&store);
    for queue in ["one", "two"] {
        store.declare(&mut link, queue, &QueueOptions::default());
        store.done(link.bind("default_exchange", queue, "both", store.now));
    }
    (0..20).for_each(|n| store.publish(&mut link, "both", &n.to_string()));
    // In "one" the first was tried and the second rejected; in "two" the third is done with.
    store.fetch(&mut link, "one");
    store.settle(&mut link, "0", Settle::Nack { delay_ms: 0 });
    for _ in 0..2 {
        store.fetch(&mut link, "one");
    }
    store.settle(&mut link, "1", Settle::Reject(Reason::Rejected));
    store.settle(&mut link, "0", Settle::Release);
    for _ in 0..3 {
        store.fetch(&mut link, "two");
    }
    link.settle("2", Some("two"), Settle::Ack, store.now).unwrap();
    store.submit(&mut link);
    for round in 0..3 {
        churn(&store, &mut link, &format!("churn-{round}"), 6 * PER_SEGMENT);
        store.publish(&mut link, "both", &format!("young-{round}"));
        store.fail_power();
        link = store.link();
    }
    (0..20).for_each(|n| store.publish(&mut link, "both", &n.to_string()));
    let young = (0..3).map(|round| format!("young-{round}"));
    let numbers = |without: usize| (0..20).filter(move |n| *n != without).map(|n: usize| n.to_string());
    let delivery = link.fetch("one", None, store.now).unwrap().unwrap();
    assert_eq!((delivery.message().id(), delivery.attempt()), ("0", 2));
    store.settle(&mut link, "0", Settle::Release);
    assert_eq!(store.take("one"), numbers(1).chain(young.clone()).collect::<Vec<_>>());
    assert_eq!(store.take("two"), numbers(2).chain(young).collect::<Vec<_>>());
    let dead = link.fetch("one.dlq", None, store.now).unwrap().unwrap();
    assert_eq!((dead.message().id(), dead.message().dead_letter().unwrap().from), ("1", "one"));
    assert_eq!(link.status("1").unwrap().len(), 2, "the dead letter, and what was taken out of the other queue");
}

#[test]
fn ids_are_known_however_often_the_log_was_turned() {
    let ids = 2_500;
    let mut store = Store::tiny(BrokerOptions::default());
    let mut link = with_churn(&store);
    for n in 0..ids {
        store.publish(&mut link, "default_key", &n.to_string());
    }
    assert_eq!(store.take(QUEUE).len(), ids);
    for round in 0..4 {
        churn(&store, &mut link, &format!("churn-{round}"), 10 * PER_SEGMENT);
        store.fail_power();
        link = store.link();
    }
    for n in 0..ids {
        store.publish(&mut link, "default_key", &n.to_string());
    }
    assert_eq!((link.stats().duplicates, store.take(QUEUE).len()), (ids as u64, 0));
    // When the window is over nothing is left of them.
    store.now = store.now.plus_ms(2 * ciphermq_broker::limits::DEDUPE_WINDOW_MS_DEFAULT);
    let before = store.broker.journal_figures().live_bytes;
    churn(&store, &mut link, "last", 12 * PER_SEGMENT);
    let after = store.broker.journal_figures().live_bytes;
    assert!(before > 40 * ids as u64 && after < before / 4, "{before}, then {after}");
}

#[test]
fn ids_that_had_no_room_to_be_written_anew_are_written_when_there_is_some() {
    let mut store = Store::tiny(BrokerOptions::default());
    store.disk.set_capacity(Some(6 * SEGMENT_BYTES));
    let mut link = with_churn(&store);
    let mut stored = 0;
    while link.publish(store::message("default_key", &stored.to_string(), "{}"), store.now).is_ok() {
        store.submit(&mut link);
        stored += 1;
    }
    // So short that acknowledgements and ids together need more room than the messages give back.
    while let Some(id) = store.fetch(&mut link, QUEUE) {
        link.settle(&id, None, Settle::Ack, store.now).unwrap();
        let receipt = link.submit().unwrap().unwrap();
        store.broker.write_journal();
        if link.outcome(receipt).is_none() {
            break;
        }
    }
    let waiting: u64 = link.list_queues(None, 10).iter().map(|view| view.ready).sum();
    assert!(waiting > 0, "{stored} messages: there was room for everything");
    store.disk.set_capacity(None);
    store.broker.write_journal();
    store.take(QUEUE);
    for round in 0..2 {
        churn(&store, &mut link, &format!("churn-{round}"), 10 * PER_SEGMENT);
        store.fail_power();
        link = store.link();
    }
    for n in 0..stored {
        store.publish(&mut link, "default_key", &n.to_string());
    }
    assert_eq!((link.stats().duplicates, store.take(QUEUE).len()), (stored, 0));
}

#[test]
fn when_everything_is_done_with_nothing_is_live() {
    let mut store = Store::tiny(BrokerOptions { dedupe_ids_max: 1, ..Default::default() });
    let mut link = with_churn(&store);
    for queue in ["one", "two", "three"] {
        store.declare(&mut link, queue, &QueueOptions::default());
        store.done(link.bind("default_exchange", queue, "all", store.now));
    }
    store.done(link.bind("default_exchange", "one", "some", store.now));
    store.done(link.bind("default_exchange", "two", "some", store.now));
    for round in 0..3 {
        for n in 0..2 * PER_SEGMENT {
            let key = ["all", "some", "default_key"][n % 3];
            store.publish_text(&mut link, key, &format!("{round}-{n}"), &"x".repeat(n % 700));
        }
        for queue in ["one", "two"] {
            for _ in 0..10 {
                let id = store.fetch(&mut link, queue).unwrap();
                link.settle(&id, Some(queue), Settle::Reject(Reason::Rejected), store.now).unwrap();
                store.submit(&mut link);
            }
        }
        churn(&store, &mut link, &format!("churn-{round}"), 5 * PER_SEGMENT);
        store.fail_power();
        link = store.link();
    }
    assert!(store.broker.journal_figures().live_bytes > 100_000);
    store.done(link.purge("two", store.now));
    store.done(link.delete_queue("three", true, store.now));
    for queue in ["one", "one.dlq", "two.dlq", QUEUE] {
        assert!(!store.take(queue).is_empty());
    }
    // The record of the one id that is remembered.
    let figures = store.broker.journal_figures();
    assert!(figures.live_bytes < 150, "{figures:?}");
    store.fail_power();
    assert_eq!(store.link().store_bytes().0, 0);
    assert!(store.broker.journal_figures().live_bytes <= figures.live_bytes);
}

#[test]
fn bodies_that_left_memory_are_read_back_also_when_their_record_moved() {
    let store = Store::tiny(BrokerOptions { resident_bytes_max: 0, ..Default::default() });
    let mut link = with_churn(&store);
    let text = |n: usize| format!("{{\"n\":{n},\"x\":\"{}\"}}", "y".repeat(n));
    (0..300).for_each(|n| store.publish_text(&mut link, "default_key", &n.to_string(), &text(n)));
    churn(&store, &mut link, "churn", 12 * PER_SEGMENT);
    let mut consumer = store.link();
    consumer.subscribe(QUEUE, 300, store.now).unwrap();
    // They wait in the outbox while their records move once more.
    churn(&store, &mut link, "again", 12 * PER_SEGMENT);
    for n in 0..300 {
        let Some(ciphermq_broker::Notice::Delivery(delivery)) = consumer.next_notice() else { panic!("no {n}") };
        assert_eq!((delivery.message().id(), delivery.message().envelope()), (&*n.to_string(), &*text(n)));
        consumer
            .settle(
                &n.to_string(),
                None,
                if n % 2 == 0 { Settle::Ack } else { Settle::Reject(Reason::Rejected) },
                store.now,
            )
            .unwrap();
    }
    store.submit(&mut consumer);
    assert_eq!(store.take(DEAD).len(), 150);
}

#[test]
fn damage_to_a_record_of_the_topology_costs_nothing() {
    let store = Store::tiny(BrokerOptions::default());
    let mut link = with_churn(&store);
    let options = QueueOptions { max_attempts: Some(MAX_ATTEMPTS), ..Default::default() };
    store.declare(&mut link, "work", &options);
    store.done(link.declare_exchange("shop", store.now));
    store.done(link.bind("shop", "work", "new", store.now));
    let expected = (link.list_queues(None, 99), link.list_exchanges(None, 99), link.list_bindings(None, None, 99));
    let mut inspector = Inspector::new();
    let mut records = Vec::new();
    scan(&store.disk, &mut |scanned| {
        if let Scanned::Record { segment, position, payload, .. } = scanned
            && ["topology", "counters"].contains(&inspector.read(position, payload).unwrap().kind)
        {
            records.push((segment.to_owned(), position.0, payload.len()));
        }
    })
    .unwrap();
    assert!(records.len() > 8, "{records:?}");
    for (segment, position, len) in records {
        let base = u64::from_str_radix(segment.trim_end_matches(".log"), 16).unwrap();
        for byte in [0, 16, len as u64 - 1] {
            let mut damaged = Store { disk: store.disk.crash(ciphermq_journal::Crash::Kill), ..store.copy() };
            assert!(damaged.disk.flip(&segment, (position - base + 32 + byte.min(len as u64 - 1)) * 8 + 3));
            let recovered = damaged.fail_power();
            let kinds: Vec<_> = recovered.log.findings.iter().map(|finding| finding.kind).collect();
            assert_eq!(kinds, [FindingKind::Copy], "{segment} {position} {byte}");
            let link = damaged.link();
            let found = (link.list_queues(None, 99), link.list_exchanges(None, 99), link.list_bindings(None, None, 99));
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_full_disk_refuses_publishes_and_goes_on_with_the_rest() {
    let mut store = Store::tiny(BrokerOptions { dedupe_ids_max: 100, ..Default::default() });
    let mut link = store.link();
    store.disk.set_capacity(Some(20 * SEGMENT_BYTES));
    let mut published = Vec::new();
    let refused = loop {
        let id = published.len().to_string();
        match link.publish(store::message("default_key", &id, &"x".repeat(700)), store.now) {
            Ok(()) => {
                store.submit(&mut link);
                published.push(id);
            }
            Err(error) => break error,
        }
        assert!(published.len() < 40 * PER_SEGMENT);
    };
    assert_eq!((refused, store.broker.health()), (Error::DiskFull, Health::Full));
    assert!(published.len() > 10 * PER_SEGMENT, "{}", published.len());
    let declared = link.declare_queue("more", &QueueOptions::default(), store.now);
    assert_eq!(declared.unwrap_err(), Error::DiskFull);
    // A dead letter is longer than its message: the message stays, and comes back.
    assert_eq!(store.fetch(&mut link, QUEUE).as_ref(), published.first());
    let rejected = link.settle("0", None, Settle::Reject(Reason::Rejected), store.now);
    assert_eq!(rejected, Err(Error::DiskFull));
    store.now = store.now.plus_ms(ciphermq_broker::limits::UNREADABLE_RETRY_MS);
    store.broker.handle_timeout(store.now);
    assert_eq!(store.fetch(&mut link, QUEUE).as_ref(), published.first());
    store.settle(&mut link, "0", Settle::Nack { delay_ms: 0 });
    // Everything can be taken out; then there is room again.
    for id in &published {
        assert_eq!(store.fetch(&mut link, QUEUE).as_ref(), Some(id));
        store.settle(&mut link, id, Settle::Ack);
    }
    store.broker.write_journal();
    store.publish(&mut link, "default_key", "again");
    assert_eq!(store.broker.health(), Health::Healthy);
    store.fail_power();
    assert_eq!(store.take(QUEUE), ["again"]);
}

#[test]
fn after_a_failed_sync_nothing_is_promised_and_nothing_that_was_is_lost() {
    let mut store = Store::with(JournalOptions::default(), BrokerOptions::default());
    let mut link = store.link();
    store.publish(&mut link, "default_key", "kept");
    store.disk.fail_at(store.disk.calls().len() as u64, ErrorKind::Other, Times::EverAfter);
    link.publish(store::message("default_key", "lost", "{}"), store.now).unwrap();
    let receipt = link.submit().unwrap().unwrap();
    store.broker.write_journal();
    assert!(link.outcome(receipt).unwrap().is_err());
    assert_eq!(store.broker.health(), Health::Poisoned);
    assert!(store.broker.journal_failure().is_some());
    // Reading goes on, and a nack needs no journal.
    assert_eq!(store.fetch(&mut link, QUEUE), Some("kept".into()));
    link.settle("kept", None, Settle::Nack { delay_ms: 0 }, store.now).unwrap();
    assert!(link.submit().is_none());
    assert_eq!(store.fetch(&mut link, QUEUE), Some("kept".into()));
    assert_eq!(link.store_bytes().0, link.list_queues(None, 9)[0].bytes + 192, "what was refused is given back");
    store.fail_power();
    assert_eq!(store.take(QUEUE), ["kept"]);
}
