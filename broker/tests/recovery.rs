//! What a broker promises across the end of its process. Each test ends in a power failure that keeps only what was synced.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

mod store;

use ciphermq_broker::{BrokerOptions, CopyView, Error, QueueOptions, Reason, Settle, Status, limits};
use ciphermq_journal::{Durability, JournalOptions};

use store::{DEAD, QUEUE, Store};

#[test]
fn an_empty_directory_begins_with_the_default_topology() {
    let store = Store::new();
    let mut link = store.link();
    assert_eq!(link.list_bindings(None, None, 9).len(), 1);
    store.publish(&mut link, "default_key", "a");
    assert_eq!(store.take(QUEUE), ["a"]);
}

#[test]
fn messages_come_back_in_order_and_acknowledged_ones_do_not() {
    let mut store = Store::new();
    let mut link = store.link();
    (0..100).for_each(|n| store.publish(&mut link, "default_key", &n.to_string()));
    for _ in 0..50 {
        let delivery = link.fetch(QUEUE, None, store.now).unwrap().unwrap();
        let id = delivery.message().id().to_owned();
        // Every second one is acknowledged; the others are leased when the power fails.
        if id.parse::<u32>().unwrap() % 2 == 0 {
            store.settle(&mut link, &id, Settle::Ack);
        }
    }
    store.fail_power();
    let left = (0..50).filter(|n| n % 2 == 1).chain(50..100).map(|n| n.to_string());
    assert_eq!(store.take(QUEUE), left.collect::<Vec<_>>());
    store.fail_power();
    assert!(store.take(QUEUE).is_empty(), "what was taken out and acknowledged stays out");
}

#[test]
fn a_message_comes_back_byte_for_byte() {
    let mut store = Store::new();
    let envelope = "{\"ü\": \"\\u0000\", \"more\": [1, 2,\t3]}";
    let mut link = store.link();
    store.publish_text(&mut link, "default_key", "an id", envelope);
    store.fail_power();
    let mut link = store.link();
    let delivery = link.fetch(QUEUE, None, store.now).unwrap().unwrap();
    let message = delivery.message();
    assert_eq!((message.id(), message.envelope(), message.key()), ("an id", envelope, "default_key"));
    assert_eq!((message.exchange(), message.published()), ("default_exchange", store::START));
}

#[test]
fn queues_exchanges_and_bindings_come_back_with_their_settings() {
    let mut store = Store::new();
    let mut link = store.link();
    let options = QueueOptions {
        lease_ms: Some(7_000),
        max_attempts: Some(2),
        dead_letter: Some("graveyard".into()),
        max_messages: Some(10),
        max_bytes: Some(10_000),
        durability: Some(Durability::Within(50)),
    };
    store.declare(&mut link, "work", &options);
    store.declare(&mut link, "other", &QueueOptions { durability: Some(Durability::Written), ..Default::default() });
    store.done(link.declare_exchange("shop", store.now));
    store.done(link.declare_exchange("gone", store.now));
    for (queue, key) in [("work", "new"), ("other", "new"), ("work", "old"), ("other", "not")] {
        store.done(link.bind("shop", queue, key, store.now));
    }
    store.done(link.bind("gone", "work", "k", store.now));
    store.done(link.unbind("shop", "other", "not", store.now));
    store.done(link.delete_exchange("gone", store.now));
    let before = (link.list_queues(None, 99), link.list_exchanges(None, 99), link.list_bindings(None, None, 99));
    store.fail_power();
    let mut link = store.link();
    let after = (link.list_queues(None, 99), link.list_exchanges(None, 99), link.list_bindings(None, None, 99));
    assert_eq!(before, after);
    assert_eq!(after.0.iter().find(|queue| queue.queue == "work").unwrap().durability, "interval:50");
    store.done(link.declare_queue("work", &options, store.now));
    let differs = QueueOptions { durability: Some(Durability::Synced), ..options };
    let conflict = link.declare_queue("work", &differs, store.now).unwrap_err();
    assert_eq!(conflict, Error::Conflict { queue: "work".into(), has: "durability=interval:50".into() });
}

#[test]
fn attempts_are_remembered() {
    let mut store = Store::new();
    let mut link = store.link();
    store.publish(&mut link, "default_key", "a");
    store.publish(&mut link, "default_key", "b");
    for _ in 0..2 {
        assert_eq!(store.fetch(&mut link, QUEUE), Some("a".into()));
        store.settle(&mut link, "a", Settle::Nack { delay_ms: 0 });
    }
    assert_eq!(store.fetch(&mut link, QUEUE), Some("a".into()));
    assert_eq!(store.fetch(&mut link, QUEUE), Some("b".into()));
    store.now = store.now.plus_ms(store::LEASE_MS);
    store.broker.handle_timeout(store.now);
    store.broker.write_journal();
    // Attempts are not waited for; the next publish takes them to the disk.
    store.publish(&mut link, "default_key", "c");
    store.fail_power();
    let mut link = store.link();
    let attempts = std::iter::from_fn(|| link.fetch(QUEUE, None, store.now).unwrap());
    let attempts: Vec<_> = attempts.map(|it| (it.message().id().to_owned(), it.attempt())).collect();
    assert_eq!(attempts, [("a".to_owned(), 4), ("b".to_owned(), 2), ("c".to_owned(), 1)]);
}

#[test]
fn a_consumer_that_vanished_with_a_poison_message_has_used_up_an_attempt() {
    let mut store = Store::new();
    let mut link = store.link();
    store.publish(&mut link, "default_key", "a");
    let mut consumer = store.link();
    assert_eq!(store.fetch(&mut consumer, QUEUE), Some("a".into()));
    consumer.end(store.now);
    store.publish(&mut link, "default_key", "b");
    store.fail_power();
    let delivery = store.link().fetch(QUEUE, None, store.now).unwrap().unwrap();
    assert_eq!((delivery.message().id(), delivery.attempt()), ("a", 2));
}

#[test]
fn dead_letters_come_back_with_where_they_came_from_and_why() {
    let mut store = Store::new();
    let mut link = store.link();
    store.publish(&mut link, "default_key", "rejected");
    store.publish(&mut link, "default_key", "worn-out");
    store.fetch(&mut link, QUEUE);
    store.settle(&mut link, "rejected", Settle::Reject(Reason::Rejected));
    for _ in 0..store::MAX_ATTEMPTS {
        assert_eq!(store.fetch(&mut link, QUEUE), Some("worn-out".into()));
        store.settle(&mut link, "worn-out", Settle::Nack { delay_ms: 0 });
    }
    store.fail_power();
    let mut link = store.link();
    for (id, reason) in [("rejected", Reason::Rejected), ("worn-out", Reason::Attempts)] {
        let delivery = link.fetch(DEAD, None, store.now).unwrap().unwrap();
        let dead = delivery.message().dead_letter().unwrap();
        assert_eq!((delivery.message().id(), dead.from, dead.reason), (id, QUEUE, reason));
        let refused = link.settle(id, None, Settle::Reject(Reason::Rejected), store.now);
        assert!(matches!(refused, Err(Error::NotAllowed(_))), "it is a dead-letter queue as before");
        store.settle(&mut link, id, Settle::Ack);
    }
    assert!(store.take(QUEUE).is_empty());
    store.fail_power();
    assert!(store.take(DEAD).is_empty() && store.take(QUEUE).is_empty());
    assert_eq!(store.link().store_bytes().0, 0);
}

#[test]
fn a_duplicate_is_known_across_a_restart() {
    let mut store = Store::new();
    let mut link = store.link();
    store.publish(&mut link, "default_key", "acknowledged");
    store.publish(&mut link, "default_key", "waiting");
    store.fetch(&mut link, QUEUE);
    store.settle(&mut link, "acknowledged", Settle::Ack);
    store.fail_power();
    let mut link = store.link();
    for id in ["acknowledged", "waiting"] {
        store.publish(&mut link, "default_key", id);
    }
    assert_eq!(link.stats().duplicates, 2);
    store.fail_power();
    assert_eq!(store.take(QUEUE), ["waiting"]);
    // The window is over.
    store.now = store.now.plus_ms(limits::DEDUPE_WINDOW_MS_DEFAULT + 2_000);
    let mut link = store.link();
    store.publish(&mut link, "default_key", "waiting");
    store.fail_power();
    assert_eq!(store.take(QUEUE), ["waiting"]);
}

#[test]
fn a_duplicate_is_not_answered_before_what_it_repeats() {
    let mut store = Store::new();
    let (mut first, mut second) = (store.link(), store.link());
    store.declare(&mut first, "small", &QueueOptions { max_messages: Some(1), ..Default::default() });
    store.done(first.bind("default_exchange", "small", "small", store.now));
    store.publish(&mut first, "small", "a");
    // The queue is full, so that this takes the way past its limit.
    second.publish(store::message("small", "a", "{}"), store.now).unwrap();
    let receipt = second.submit().unwrap().unwrap();
    assert_eq!(second.outcome(receipt), None, "it waits its turn");
    store.broker.write_journal();
    assert_eq!(second.outcome(receipt), Some(Ok(())));
    store.fail_power();
    assert_eq!(store.take("small"), ["a"]);
}

#[test]
fn status_remembers_what_was_acknowledged() {
    let mut store = Store::new();
    let mut link = store.link();
    store.publish(&mut link, "default_key", "a");
    store.now = store.now.plus_ms(10);
    store.fetch(&mut link, QUEUE);
    store.now = store.now.plus_ms(10);
    store.settle(&mut link, "a", Settle::Ack);
    let before = link.status("a").unwrap();
    store.fail_power();
    let expected = CopyView {
        exchange: "default_exchange".into(),
        queue: QUEUE.into(),
        status: Status::Acknowledged,
        attempts: 1,
        published: store::START.0,
        delivered: Some(store::START.0 + 10),
        acknowledged: Some(store::START.0 + 20),
    };
    assert_eq!((before, store.link().status("a").unwrap()), (vec![expected.clone()], vec![expected]));
}

#[test]
fn a_purge_spares_what_is_leased_also_afterwards() {
    let mut store = Store::new();
    let mut link = store.link();
    (0..10).for_each(|n| store.publish(&mut link, "default_key", &n.to_string()));
    for _ in 0..3 {
        store.fetch(&mut link, QUEUE);
    }
    store.settle(&mut link, "1", Settle::Nack { delay_ms: 60_000 });
    let purged = store.done(link.purge(QUEUE, store.now));
    assert_eq!(purged, 8, "seven ready, one delayed");
    store.publish(&mut link, "default_key", "later");
    store.fail_power();
    assert_eq!(store.take(QUEUE), ["0", "2", "later"]);
    assert_eq!(store.link().store_bytes().0, 0);
}

#[test]
fn a_queue_that_was_deleted_and_declared_again_is_empty() {
    let mut store = Store::new();
    let mut link = store.link();
    for round in 0..3 {
        store.declare(&mut link, "q", &QueueOptions::default());
        store.done(link.bind("default_exchange", "q", "q", store.now));
        store.publish(&mut link, "q", &format!("{round}-lost"));
        store.done(link.delete_queue("q", true, store.now));
    }
    store.declare(&mut link, "q", &QueueOptions::default());
    store.fail_power();
    let mut link = store.link();
    assert_eq!(store.take("q"), Vec::<String>::new());
    assert_eq!(link.list_bindings(None, None, 99).len(), 1, "its bindings ended with it");
    assert!(matches!(link.publish(store::message("q", "x", "{}"), store.now), Err(Error::NoRoute { .. })));
    assert_eq!(link.store_bytes().0, 0);
}

#[test]
fn every_copy_of_a_message_is_settled_by_itself() {
    let mut store = Store::new();
    let mut link = store.link();
    for queue in ["one", "two", "three"] {
        store.declare(&mut link, queue, &QueueOptions::default());
        store.done(link.bind("default_exchange", queue, "all", store.now));
    }
    store.publish(&mut link, "all", "a");
    store.fetch(&mut link, "two");
    store.settle(&mut link, "a", Settle::Ack);
    store.fail_power();
    assert!(store.take("two").is_empty());
    assert_eq!((store.take("one"), store.take("three")), (vec!["a".to_owned()], vec!["a".to_owned()]));
}

#[test]
fn a_batch_is_there_as_a_whole() {
    let mut store = Store::new();
    let mut link = store.link();
    let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let batch = ids.iter().map(|id| store::message("default_key", id, "{}"));
    link.publish_batch(batch, store.now).unwrap();
    let receipt = link.submit().unwrap().unwrap();
    store.broker.write_journal();
    assert_eq!(link.outcome(receipt), Some(Ok(())));
    store.fail_power();
    assert_eq!(store.take(QUEUE), ids);
}

#[test]
fn a_batch_with_what_is_known_already_is_answered_like_any_other() {
    let mut store = Store::new();
    let mut link = store.link();
    store.declare(&mut link, "small", &QueueOptions { max_messages: Some(3), ..Default::default() });
    store.done(link.bind("default_exchange", "small", "small", store.now));
    store.publish(&mut link, "small", "a");
    store.publish(&mut link, "small", "b");
    // Room for one more, so that the known ones take the way past the limit, in a batch with a new one and alone.
    for batch in [["c", "a", "b"], ["c", "b", "a"]] {
        link.publish_batch(batch.map(|id| store::message("small", id, "{}")), store.now).unwrap();
        store.submit(&mut link);
    }
    let refused = link.publish_batch(["a", "d"].map(|id| store::message("small", id, "{}")), store.now);
    assert_eq!(refused, Err(Error::QueueFull("small".into())));
    assert!(link.submit().is_none(), "all or none");
    store.fail_power();
    assert_eq!(store.take("small"), ["a", "b", "c"]);
}

#[test]
fn an_orderly_end_loses_nothing_that_was_submitted() {
    let mut store = Store::new();
    let mut link = store.link();
    link.publish(store::message("default_key", "a", "{}"), store.now).unwrap();
    let _ = link.submit().unwrap().unwrap();
    store.broker.close();
    assert!(link.publish(store::message("default_key", "b", "{}"), store.now).is_ok());
    assert!(link.submit().unwrap().is_err(), "a closed broker accepts nothing");
    let recovered = store.fail_power();
    assert!(recovered.log.closed && recovered.log.findings.is_empty());
    assert_eq!((recovered.messages, recovered.ids), (1, 1));
    assert_eq!(store.take(QUEUE), ["a"]);
}

#[test]
fn an_id_is_forgotten_when_its_time_is_over_also_where_a_full_queue_refuses_it() {
    let mut store =
        Store::with(JournalOptions::default(), BrokerOptions { dedupe_window_ms: 3_000, ..BrokerOptions::default() });
    let mut link = store.link();
    store.declare(&mut link, "small", &QueueOptions { max_messages: Some(1), ..QueueOptions::default() });
    store.done(link.bind("default_exchange", "small", "small", store.now));
    store.publish(&mut link, "small", "m-1");
    store.now = store.now.plus_ms(2_900);
    store.publish(&mut link, "small", "m-1");
    assert_eq!(link.stats().duplicates, 1, "a retry is no second copy, and is not refused");
    store.now = store.now.plus_ms(1_200);
    let again = link.publish(store::message("small", "m-1", "{}"), store.now);
    assert_eq!(again, Err(Error::QueueFull("small".to_owned())), "nothing else was published in between");
}
