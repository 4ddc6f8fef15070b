//! Several connections at once on a real disk, then the end of the process, then the same again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

use ciphermq_broker::{Broker, BrokerOptions, Link, Publish, Settle, Timestamp};
use ciphermq_journal::{Doorbell, FileDisk, JournalOptions, Receipt};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const QUEUE: &str = "default_queue";
const CONNECTIONS: usize = 4;
const BATCHES: usize = 40;
const BATCH: usize = 32;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn open(dir: &std::path::Path) -> Broker {
    let disk = Arc::new(FileDisk::open(dir).unwrap());
    let (broker, recovered) = Broker::open(BrokerOptions::default(), NOW, disk, JournalOptions::default()).unwrap();
    assert!(recovered.log.findings.is_empty(), "{:?}", recovered.log.findings);
    broker
}

fn connect(broker: &Broker) -> (Link, Arc<Doorbell>) {
    let bell = Arc::new(Doorbell::new());
    (broker.connect(Arc::clone(&bell)), bell)
}

/// Until everything submitted is committed.
fn wait(link: &Link, bell: &Doorbell, receipt: Receipt) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    while link.outcome(receipt).is_none() {
        if bell.poll_rung(&mut Context::from_waker(&waker)).is_pending() {
            thread::park();
        }
    }
    link.outcome(receipt).unwrap().unwrap();
}

fn publish_all(broker: &Broker, connection: usize) {
    let (mut link, bell) = connect(broker);
    for batch in 0..BATCHES {
        for n in 0..BATCH {
            let id = format!("{connection}-{batch}-{n}");
            link.publish(Publish { exchange: "default_exchange", key: "default_key", id: &id, envelope: "{}" }, NOW)
                .unwrap();
        }
        let receipt = link.submit().unwrap().unwrap();
        wait(&link, &bell, receipt);
    }
}

/// Takes and acknowledges messages until there are none.
fn take_all(broker: &Broker, at_most: usize) -> Vec<String> {
    let (mut link, bell) = connect(broker);
    let mut taken = Vec::new();
    while taken.len() < at_most {
        let Some(delivery) = link.fetch(QUEUE, None, NOW).unwrap() else { break };
        let id = delivery.message().id().to_owned();
        link.settle(&id, None, Settle::Ack, NOW).unwrap();
        taken.push(id);
        if taken.len() % BATCH == 0 {
            let receipt = link.submit().unwrap().unwrap();
            wait(&link, &bell, receipt);
        }
    }
    if let Some(submitted) = link.submit() {
        wait(&link, &bell, submitted.unwrap());
    }
    taken
}

#[test]
fn a_broker_with_threads_on_a_real_disk_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let broker = &broker;
            scope.spawn(move || publish_all(broker, connection));
        }
    });
    let half = CONNECTIONS * BATCHES * BATCH / 2;
    let mut taken = take_all(&broker, half);
    // Without a close: the process just ends.
    drop(broker);
    let broker = open(dir.path());
    let both: Vec<Vec<String>> = thread::scope(|scope| {
        let takers: Vec<_> = (0..2).map(|_| scope.spawn(|| take_all(&broker, usize::MAX))).collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    taken.extend(both.into_iter().flatten());
    broker.close();
    drop(broker);
    assert!(take_all(&open(dir.path()), 1).is_empty());
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), distinct.len()), (2 * half, 2 * half), "each exactly once");
    for connection in 0..CONNECTIONS {
        let prefix = format!("{connection}-");
        let of_one: Vec<_> = taken[..half].iter().filter(|id| id.starts_with(&prefix)).collect();
        let sent = (0..BATCHES).flat_map(|batch| (0..BATCH).map(move |n| format!("{connection}-{batch}-{n}")));
        assert!(sent.take(of_one.len()).eq(of_one.into_iter().cloned()), "those of one publisher in their order");
    }
}
