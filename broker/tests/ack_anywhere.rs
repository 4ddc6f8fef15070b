//! The original's `ack` by somebody who holds no lease: every copy there is goes for good, whatever else happens to it meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

mod store;

use std::io::ErrorKind;
use std::sync::{Arc, Barrier};
use std::thread;

use ciphermq_broker::{Broker, BrokerOptions, Link, QueueOptions, Reason, Settle};
use ciphermq_journal::{Doorbell, JournalOptions, Receipt, Times};

use store::{DEAD, QUEUE, START, Store, message};

fn submit(link: &mut Link) -> Receipt {
    link.submit().unwrap().unwrap()
}

/// It is nowhere, now and after the machine went off, and `status` tells so many acknowledgements of it.
fn is_gone(store: &mut Store, id: &str, queues: &[&str], acknowledged: usize) {
    for round in 0..2 {
        for queue in queues {
            assert_eq!(store.take(queue), [""; 0], "{queue}, round {round}");
        }
        assert_eq!(store.link().status(id).unwrap().len(), acknowledged, "round {round}");
        store.fail_power();
    }
}

#[test]
fn a_dead_letter_on_its_way_is_followed() {
    let mut store = Store::new();
    let (mut worker, mut other) = (store.link(), store.link());
    store.publish(&mut worker, "default_key", "m");
    assert_eq!(store.fetch(&mut worker, QUEUE).as_deref(), Some("m"));
    worker.settle("m", None, Settle::Reject(Reason::Rejected), store.now).unwrap();
    let _ = submit(&mut worker);
    other.ack_anywhere("m", store.now);
    let receipt = submit(&mut other);
    store.broker.write_journal();
    assert_eq!(other.outcome(receipt), Some(Ok(())));
    is_gone(&mut store, "m", &[QUEUE, DEAD], 1);
}

#[test]
fn a_dead_letter_that_went_after_it_was_seen_is_followed() {
    let mut store = Store::new();
    let (mut worker, mut other) = (store.link(), store.link());
    store.publish(&mut worker, "default_key", "m");
    assert_eq!(store.fetch(&mut worker, QUEUE).as_deref(), Some("m"));
    other.ack_anywhere("m", store.now);
    store.settle(&mut worker, "m", Settle::Reject(Reason::Rejected));
    store.submit(&mut other);
    is_gone(&mut store, "m", &[QUEUE, DEAD], 1);
}

#[test]
fn a_dead_letter_of_a_dead_letter_is_followed() {
    let mut store = Store::new();
    let (mut worker, mut other) = (store.link(), store.link());
    // A dead-letter queue that was declared has one of its own.
    store.declare(&mut worker, DEAD, &QueueOptions::default());
    store.publish(&mut worker, "default_key", "m");
    assert_eq!(store.fetch(&mut worker, QUEUE).as_deref(), Some("m"));
    other.ack_anywhere("m", store.now);
    store.settle(&mut worker, "m", Settle::Reject(Reason::Rejected));
    assert_eq!(store.fetch(&mut worker, DEAD).as_deref(), Some("m"));
    worker.settle("m", None, Settle::Reject(Reason::Rejected), store.now).unwrap();
    let _ = submit(&mut worker);
    store.submit(&mut other);
    is_gone(&mut store, "m", &[QUEUE, DEAD, "default_queue.dlq.dlq"], 1);
}

#[test]
fn the_dead_letters_of_two_queues_are_each_followed() {
    let mut store = Store::new();
    let (mut worker, mut other) = (store.link(), store.link());
    for queue in ["one", "two"] {
        let options = QueueOptions { dead_letter: Some(Arc::from("dead")), ..Default::default() };
        store.declare(&mut worker, queue, &options);
        store.done(worker.bind("default_exchange", queue, "both", store.now));
    }
    store.publish(&mut worker, "both", "m");
    other.ack_anywhere("m", store.now);
    for queue in ["one", "two"] {
        assert_eq!(store.fetch(&mut worker, queue).as_deref(), Some("m"));
        store.settle(&mut worker, "m", Settle::Reject(Reason::Rejected));
    }
    store.submit(&mut other);
    is_gone(&mut store, "m", &["one", "two", "dead"], 2);
}

#[test]
fn a_message_acknowledged_twice_at_once_is_told_once() {
    for (worker_first, at_once) in [(true, true), (false, true), (false, false)] {
        let mut store = Store::new();
        let (mut worker, mut other) = (store.link(), store.link());
        store.publish(&mut worker, "default_key", "m");
        assert_eq!(store.fetch(&mut worker, QUEUE).as_deref(), Some("m"));
        worker.settle("m", None, Settle::Ack, store.now).unwrap();
        other.ack_anywhere("m", store.now);
        let mut receipts = Vec::new();
        let links = if worker_first { [&mut worker, &mut other] } else { [&mut other, &mut worker] };
        for link in links {
            receipts.push(submit(link));
            if !at_once {
                store.broker.write_journal();
            }
        }
        store.broker.write_journal();
        assert!(receipts.into_iter().all(|receipt| worker.outcome(receipt) == Some(Ok(()))));
        is_gone(&mut store, "m", &[QUEUE], 1);
    }
}

#[test]
fn a_message_that_cannot_be_read_now_is_done_with_all_the_same() {
    let options = BrokerOptions { resident_bytes_max: 0, ..Default::default() };
    let mut store = Store::with(JournalOptions::default(), options);
    let mut link = store.link();
    store.publish(&mut link, "default_key", "m");
    store.disk.fail_at(store.disk.calls().len() as u64, ErrorKind::Other, Times::Once);
    link.ack_anywhere("m", store.now);
    store.disk.work_again();
    store.submit(&mut link);
    is_gone(&mut store, "m", &[QUEUE], 1);
}

#[test]
fn no_copy_is_missed_while_it_moves() {
    const ROUNDS: usize = 1_000;
    let broker = Broker::in_memory(BrokerOptions::default(), START);
    let (mut worker, mut other) = (connect(&broker), connect(&broker));
    for round in 0..ROUNDS {
        let id = round.to_string();
        worker.publish(message("default_key", &id, "{}"), START).unwrap();
        let _ = submit(&mut worker);
        assert!(worker.fetch(QUEUE, None, START).unwrap().is_some());
        worker.settle(&id, None, Settle::Reject(Reason::Rejected), START).unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                let _ = submit(&mut worker);
            });
            start.wait();
            // At another moment of the move each time.
            (0..round % 300).for_each(|_| std::hint::spin_loop());
            other.ack_anywhere(&id, START);
            let _ = other.submit();
        });
        let queues = other.list_queues(None, 10);
        let left: u64 = queues.iter().map(|view| view.ready + view.leased + view.delayed).sum();
        assert_eq!(left, 0, "round {round}");
    }
}

fn connect(broker: &Broker) -> Link {
    broker.connect(Arc::new(Doorbell::new()))
}
