//! Seeded random operations on a broker, compared step by step with a model made of plain deques.
//!
//! The model knows no positions, timers or indexes: it scans. Every delivery the broker makes, to whom and in which
//! order, must be the one the model makes; on a disk also after the broker was killed and opened again, many times.
//! `CIPHERMQ_SEED=<n> cargo test -p ciphermq-broker --test model` replays.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

mod checks;
mod directory;
mod queue;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use ciphermq_broker::{Broker, BrokerOptions, Error, Link, Publish, QueueOptions, Reason, Settle, Timestamp};
use ciphermq_journal::{Crash, Doorbell, JournalOptions, MemoryDisk};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};

use directory::ModelDirectory;
use queue::{ModelConsumer, ModelMessage, ModelQueue, Place};

const OPERATIONS: usize = 120_000;
const CONNECTIONS: usize = 5;
const QUEUES: [&str; 2] = ["work", "mail"];
const LEASE_MS: u64 = 500;
const MAX_ATTEMPTS: u32 = 3;
const SEGMENT_BYTES: u64 = 32 << 10;
/// Some bodies stay in memory, some are read back.
const RESIDENT_BYTES_MAX: u64 = 10_000;
/// Keys and the queues behind them.
const KEYS: [(&str, &[&str]); 3] = [("w", &["work"]), ("m", &["mail"]), ("both", &["work", "mail"])];

#[test]
fn every_delivery_is_the_one_a_plain_deque_makes() {
    run(None, OPERATIONS);
}

#[test]
fn every_delivery_is_the_one_a_plain_deque_makes_also_when_the_broker_is_killed() {
    let world = run(Some(MemoryDisk::new()), OPERATIONS / 6);
    let first = world.first_segment.unwrap();
    println!("{} times opened, at last from {first} on", world.opened);
    let dropped = u64::from_str_radix(first.trim_end_matches(".log"), 16).unwrap();
    assert!(world.opened > 30 && dropped > 60 * SEGMENT_BYTES, "{dropped} bytes of log are gone");
}

fn run(disk: Option<MemoryDisk>, operations: usize) -> World {
    let seed = std::env::var("CIPHERMQ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("seed {seed}: replay with CIPHERMQ_SEED={seed}");
    let mut world = World::new(seed, disk);
    for operation in 0..operations {
        world.step(operation);
    }
    world.drain();
    println!(
        "{} keys taken, {} refused; {} dead letters sent again",
        world.directory.taken, world.directory.refused, world.resent
    );
    assert!(world.directory.taken > 50 && world.directory.refused > 20 && world.resent > 10, "these are real, too");
    println!("{} published, {} acknowledged, {} duplicates", world.published, world.acknowledged, world.duplicates);
    assert!(
        world.acknowledged > operations as u64 / 20 && world.duplicates > 100,
        "the mix of operations is a real one"
    );
    world
}

/// Segments so small that they turn every few dozen operations.
fn open(disk: Option<&MemoryDisk>, now: Timestamp) -> Broker {
    let options = BrokerOptions { lease_ms: LEASE_MS, max_attempts: MAX_ATTEMPTS, ..Default::default() };
    let Some(disk) = disk else { return Broker::in_memory(options, now) };
    let options = BrokerOptions { resident_bytes_max: RESIDENT_BYTES_MAX, ..options };
    let (segment_bytes_min, segment_bytes_max) = (SEGMENT_BYTES, SEGMENT_BYTES);
    let journal = JournalOptions { segment_bytes_min, segment_bytes_max, salt_seed: Some(now.0), ..Default::default() };
    let (broker, recovered) = Broker::open_stepped(options, now, Arc::new(disk.clone()), journal).unwrap();
    assert!(recovered.log.findings.is_empty(), "{:?}", recovered.log.findings);
    broker
}

struct World {
    random: StdRng,
    now: Timestamp,
    disk: Option<MemoryDisk>,
    broker: Broker,
    opened: u32,
    /// The oldest part of the log that was there when the broker was killed; its name says how much was written before it.
    first_segment: Option<String>,
    links: Vec<Link>,
    /// Which connection of the model stands behind each link; a new number for every new connection.
    ids: Vec<usize>,
    next_id: usize,
    model: BTreeMap<String, ModelQueue>,
    known: HashSet<String>,
    directory: ModelDirectory,
    published: u64,
    duplicates: u64,
    acknowledged: u64,
    purged: u64,
    /// Dead letters that were sent again.
    resent: u64,
    /// What the model has delivered to a connection and the test has not yet seen from the broker.
    expected: BTreeMap<usize, VecDeque<(String, String, u32)>>,
}

impl World {
    fn new(seed: u64, disk: Option<MemoryDisk>) -> World {
        let now = Timestamp(1_000);
        let broker = open(disk.as_ref(), now);
        let mut setup = broker.connect(Arc::new(Doorbell::new()));
        let mut model = BTreeMap::new();
        for queue in QUEUES {
            let _ = setup.declare_queue(queue, &QueueOptions::default(), now).unwrap();
            broker.write_journal();
            let dead_letter = format!("{queue}.dlq");
            model.insert(queue.to_owned(), ModelQueue { dead_letter: Some(dead_letter.clone()), ..Default::default() });
        }
        for (key, queues) in KEYS {
            for queue in queues {
                let _ = setup.bind("default_exchange", queue, key, now).unwrap();
                broker.write_journal();
            }
        }
        let mut world = World {
            random: StdRng::seed_from_u64(seed),
            now,
            disk,
            broker,
            opened: 0,
            first_segment: None,
            links: Vec::new(),
            ids: Vec::new(),
            next_id: 0,
            model,
            known: HashSet::new(),
            directory: ModelDirectory::default(),
            resent: 0,
            published: 0,
            duplicates: 0,
            acknowledged: 0,
            purged: 0,
            expected: BTreeMap::new(),
        };
        (0..CONNECTIONS).for_each(|_| world.connect());
        world
    }

    fn connect(&mut self) {
        self.links.push(self.broker.connect(Arc::new(Doorbell::new())));
        self.ids.push(self.next_id);
        self.next_id += 1;
    }

    fn step(&mut self, operation: usize) {
        let at = self.random.random_range(0..CONNECTIONS);
        match self.random.random_range(0..100) {
            0..22 => self.publish(),
            22..28 => self.subscribe(at),
            28..30 => self.cancel(at),
            30..42 => self.fetch(at),
            42..86 => self.settle(at),
            86..88 => self.reconnect(at),
            88..96 => self.pass_time(),
            96..97 => self.resend(at),
            97..98 => self.ack_from_elsewhere(at),
            98..99 => self.keys(at),
            _ => self.look_around(operation),
        }
        if self.random.random_range(0..5_000) == 0 {
            self.purge(at);
        }
        if self.disk.is_some() && self.random.random_range(0..400) == 0 {
            self.kill();
        }
        self.compare_deliveries();
    }

    /// Submits what a link collected, and sees that it is committed.
    fn submit(&mut self, at: usize) {
        let Some(submitted) = self.links[at].submit() else { return };
        let receipt = submitted.unwrap();
        self.broker.write_journal();
        assert_eq!(self.links[at].outcome(receipt), Some(Ok(())));
    }

    /// The process ends in the middle of everything, and another one goes on: leases and delays are over, attempts are not.
    fn kill(&mut self) {
        let Some(disk) = &self.disk else { return };
        let disk = disk.crash(Crash::Kill);
        let is_segment = |name: &String| name.ends_with(".log") && !name.starts_with("spare");
        self.first_segment = disk.files().into_iter().map(|(name, _)| name).filter(is_segment).min();
        self.broker = open(Some(&disk), self.now);
        self.disk = Some(disk);
        self.opened += 1;
        self.links.clear();
        self.ids.clear();
        self.expected.clear();
        for queue in self.model.values_mut() {
            (queue.consumers, queue.turn) = Default::default();
            queue.messages.iter_mut().for_each(|message| message.place = Place::Ready);
        }
        (0..CONNECTIONS).for_each(|_| self.connect());
        self.directory.check(&self.links[0]);
    }

    fn keys(&mut self, at: usize) {
        let World { directory, random, links, broker, now, .. } = self;
        directory.step(random, &mut links[at], *now, || broker.write_journal());
        directory.check(&links[0]);
    }

    fn publish(&mut self) {
        let (key, queues) = KEYS[self.random.random_range(0..KEYS.len())];
        // One in eight is a repetition of something published before, long ago or just now.
        let number = match self.random.random_range(0..8) {
            0 if self.published > 0 => self.random.random_range(0..self.published),
            _ => self.published,
        };
        let id = format!("message-{number}");
        let at = self.random.random_range(0..CONNECTIONS);
        let publish = Publish { exchange: "default_exchange", key, id: &id, envelope: "{}" };
        self.links[at].publish(publish, self.now).unwrap();
        self.submit(at);
        if !self.known.insert(id.clone()) {
            self.duplicates += 1;
            return;
        }
        self.published += 1;
        for queue in queues {
            self.arrive(queue, &id);
        }
    }

    fn arrive(&mut self, queue: &str, id: &str) {
        let message = ModelMessage { id: id.to_owned(), attempts: 0, place: Place::Ready };
        self.model.entry(queue.to_owned()).or_default().messages.push_back(message);
        self.dispatch(queue);
    }

    fn dispatch(&mut self, name: &str) {
        let queue = self.model.get_mut(name).unwrap();
        while let Some(index) = queue.next_ready() {
            let Some(connection) = queue.turn.pop_front() else { return };
            let Some(consumer) = queue.consumers.iter_mut().find(|it| it.connection == connection) else { continue };
            if consumer.used >= consumer.limit {
                continue;
            }
            consumer.used += 1;
            let subscription = consumer.subscription;
            queue.join_turn(connection);
            let (id, attempt) = queue.lease(index, connection, self.now.0, Some(subscription));
            self.expected.entry(connection).or_default().push_back((name.to_owned(), id, attempt));
        }
    }

    /// Worn out, or rejected: from one queue to the end of another.
    fn bury(&mut self, name: &str, index: usize) {
        let queue = self.model.get_mut(name).unwrap();
        let message = queue.messages.remove(index).unwrap();
        let dead_letter = queue.dead_letter.clone().unwrap();
        self.dispatch(name);
        self.arrive(&dead_letter, &message.id);
    }

    fn any_queue(&mut self) -> String {
        let names: Vec<&String> = self.model.keys().collect();
        names[self.random.random_range(0..names.len())].clone()
    }

    fn subscribe(&mut self, at: usize) {
        let (name, limit) = (self.any_queue(), self.random.random_range(1..6));
        self.links[at].subscribe(&name, limit, self.now).unwrap();
        let (connection, queue) = (self.ids[at], self.model.get_mut(&name).unwrap());
        match queue.consumers.iter_mut().find(|it| it.connection == connection) {
            Some(consumer) => consumer.limit = limit as usize,
            None => {
                queue.subscriptions += 1;
                let subscription = queue.subscriptions;
                queue.consumers.push(ModelConsumer { connection, subscription, limit: limit as usize, used: 0 });
            }
        }
        queue.join_turn(connection);
        self.dispatch(&name);
    }

    fn cancel(&mut self, at: usize) {
        let name = self.any_queue();
        let (connection, queue) = (self.ids[at], self.model.get_mut(&name).unwrap());
        let subscribed = queue.consumers.iter().any(|it| it.connection == connection);
        assert_eq!(self.links[at].cancel(&name, self.now).is_ok(), subscribed);
        queue.consumers.retain(|it| it.connection != connection);
        queue.turn.retain(|it| *it != connection);
    }

    fn fetch(&mut self, at: usize) {
        let name = self.any_queue();
        let fetched = self.links[at].fetch(&name, None, self.now).unwrap();
        let (connection, now, queue) = (self.ids[at], self.now.0, self.model.get_mut(&name).unwrap());
        let expected = queue.next_ready().map(|index| queue.lease(index, connection, now, None));
        let fetched = fetched.map(|delivery| (delivery.message().id().to_owned(), delivery.attempt()));
        assert_eq!(fetched, expected, "fetch from {name}");
    }

    fn settle(&mut self, at: usize) {
        let (name, connection) = (self.any_queue(), self.ids[at]);
        let queue = self.model.get_mut(&name).unwrap();
        let held = queue.held_by(connection);
        if held.is_empty() {
            let refused = self.links[at].settle("message-0", Some(&name), Settle::Ack, self.now);
            return assert!(matches!(refused, Err(Error::NotLeased(_))));
        }
        let index = held[self.random.random_range(0..held.len())];
        let id = queue.messages[index].id.clone();
        let delay_ms = self.random.random_range(0..3) * 100;
        let how = match self.random.random_range(0..10) {
            0..6 => Settle::Ack,
            6..8 => Settle::Nack { delay_ms },
            8 => [Settle::Release, Settle::Touch { lease_ms: None }][self.random.random_range(0..2)],
            _ => Settle::Reject(Reason::Rejected),
        };
        let settled = self.links[at].settle(&id, Some(&name), how, self.now);
        self.submit(at);
        let queue = self.model.get_mut(&name).unwrap();
        if matches!(how, Settle::Reject(_)) && queue.dead_letter.is_none() {
            return assert!(matches!(settled, Err(Error::NotAllowed(_))));
        }
        settled.unwrap();
        match how {
            Settle::Ack => {
                queue.end_lease(index);
                queue.messages.remove(index);
                self.acknowledged += 1;
            }
            Settle::Reject(_) => {
                queue.end_lease(index);
                return self.bury(&name, index);
            }
            Settle::Touch { .. } => {
                if let Place::Leased { deadline, .. } = &mut queue.messages[index].place {
                    *deadline = self.now.0 + LEASE_MS;
                }
            }
            Settle::Nack { delay_ms } => {
                let delay = (delay_ms > 0).then_some(self.now.0 + delay_ms);
                if queue.give_back(index, true, delay) {
                    return self.bury(&name, index);
                }
            }
            Settle::Release => assert!(!queue.give_back(index, false, None)),
        }
        self.dispatch(&name);
    }

    fn reconnect(&mut self, at: usize) {
        let connection = self.ids[at];
        self.links.remove(at).end(self.now);
        self.broker.write_journal();
        self.ids.remove(at);
        self.expected.remove(&connection);
        // The broker goes through the queues in the order the connection first used them; queues do not touch each
        // other here but through dead letters, whose order the model must not assume: one queue at a time.
        let names: Vec<String> = self.model.keys().cloned().collect();
        let mut worn_out = Vec::new();
        for name in &names {
            let queue = self.model.get_mut(name).unwrap();
            queue.consumers.retain(|it| it.connection != connection);
            queue.turn.retain(|it| *it != connection);
            for (order, index) in queue.held_by(connection).into_iter().enumerate() {
                if queue.give_back(index, order == 0, None) {
                    // Out of the way until it is moved.
                    queue.messages[index].place = Place::Delayed { until: u64::MAX };
                    worn_out.push((name.clone(), queue.messages[index].id.clone()));
                }
            }
            self.dispatch(name);
        }
        for (name, id) in worn_out {
            let index = self.model[&name].messages.iter().position(|message| message.id == id).unwrap();
            self.bury(&name, index);
        }
        self.connect();
    }

    fn pass_time(&mut self) {
        self.now = self.now.plus_ms(self.random.random_range(1..200));
        let now = self.now.0;
        self.broker.handle_timeout(self.now);
        self.broker.write_journal();
        let names: Vec<String> = self.model.keys().cloned().collect();
        let mut worn_out = Vec::new();
        for name in &names {
            let queue = self.model.get_mut(name).unwrap();
            let mut due: Vec<(u64, usize)> = Vec::new();
            for (index, message) in queue.messages.iter().enumerate() {
                match message.place {
                    Place::Delayed { until } if until <= now => due.push((until, index)),
                    Place::Leased { deadline, .. } if deadline <= now => due.push((deadline, index)),
                    _ => {}
                }
            }
            due.sort_unstable();
            for (_, index) in due {
                if let Place::Delayed { .. } = queue.messages[index].place {
                    queue.messages[index].place = Place::Ready;
                } else if queue.give_back(index, true, None) {
                    queue.messages[index].place = Place::Delayed { until: u64::MAX };
                    worn_out.push((name.clone(), queue.messages[index].id.clone()));
                }
            }
            self.dispatch(name);
        }
        for (name, id) in worn_out {
            let index = self.model[&name].messages.iter().position(|message| message.id == id).unwrap();
            self.bury(&name, index);
        }
    }

    /// The original's ack of an id this connection does not hold: every copy goes.
    fn ack_from_elsewhere(&mut self, at: usize) {
        if self.published == 0 {
            return;
        }
        let id = format!("message-{}", self.random.random_range(0..self.published));
        let holds = self
            .model
            .values()
            .any(|queue| queue.held_by(self.ids[at]).into_iter().any(|index| queue.messages[index].id == id));
        if holds {
            return;
        }
        self.links[at].ack_anywhere(&id, self.now);
        self.submit(at);
        let names: Vec<String> = self.model.keys().cloned().collect();
        for name in names {
            let queue = self.model.get_mut(&name).unwrap();
            if let Some(index) = queue.messages.iter().position(|message| message.id == id) {
                queue.end_lease(index);
                queue.messages.remove(index);
                self.acknowledged += 1;
                self.dispatch(&name);
            }
        }
    }

    /// Whatever copies of a message are dead letters, or in this connection's hands, are ready again.
    fn resend(&mut self, at: usize) {
        let dead = self.model.values().filter(|queue| queue.dead_letter.is_none()).flat_map(|queue| &queue.messages);
        let held =
            self.model.values().flat_map(|queue| queue.held_by(self.ids[at]).into_iter().map(|at| &queue.messages[at]));
        let Some(id) = dead.chain(held).map(|message| message.id.clone()).choose(&mut self.random) else { return };
        let outcome = self.links[at].resend(&id, self.now);
        self.submit(at);
        let mut expected = Err(Error::NoMessage(id.clone()));
        let has = |queue: &ModelQueue| queue.messages.iter().any(|message| message.id == id);
        let names: Vec<String> = self.model.iter().filter(|(_, it)| has(it)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let copy = self.resend_copy(&name, &id, self.ids[at]);
            expected = if expected.is_ok() { expected } else { copy };
        }
        assert_eq!(outcome, expected, "{id}");
    }

    fn resend_copy(&mut self, name: &str, id: &str, connection: usize) -> Result<(), Error> {
        let queue = self.model.get_mut(name).unwrap();
        let index = queue.messages.iter().position(|message| message.id == id).unwrap();
        let is_own = queue.held_by(connection).contains(&index);
        let is_leased = matches!(queue.messages[index].place, Place::Leased { .. });
        if is_leased && !is_own {
            return Err(Error::LeasedElsewhere(id.to_owned()));
        }
        if queue.dead_letter.is_none() {
            queue.end_lease(index);
            queue.messages.remove(index);
            self.resent += 1;
            self.dispatch(name);
            self.arrive(name.strip_suffix(".dlq").unwrap(), id);
        } else if is_own && queue.give_back(index, true, None) {
            self.bury(name, index);
        } else {
            self.dispatch(name);
        }
        Ok(())
    }

    fn purge(&mut self, at: usize) {
        let name = self.any_queue();
        let returned = self.links[at].purge(&name, self.now).unwrap();
        self.broker.write_journal();
        let purged = returned.purged();
        let queue = self.model.get_mut(&name).unwrap();
        let before = queue.messages.len() as u64;
        queue.messages.retain(|message| matches!(message.place, Place::Leased { .. }));
        assert_eq!(purged, before - queue.messages.len() as u64);
        self.purged += purged;
    }
}
