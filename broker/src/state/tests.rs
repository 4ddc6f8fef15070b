//! A log that is a list: what is read back from it, with or without its oldest part, makes the state it was written by.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use ciphermq_journal::{Commit, Entry, Journal, Owner, Position, Space};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::event::{Event, Record};
use crate::link::{Link, Publish, Settle};
use crate::shared::Shared;
use crate::{ConnectionId, QueueOptions, Reason, Timestamp};

const STEPS: usize = 3_000;
const RECORDS_PER_SEGMENT: usize = 60;
const SEGMENTS: usize = 5;
const START: Timestamp = Timestamp(1_000_000);
const QUEUES: [&str; 4] = ["a", "b", "c", "default_queue"];

/// Segments of records, each begun by a checkpoint; the oldest one goes when there are too many.
#[derive(Default)]
struct Log {
    segments: VecDeque<Vec<(Position, Vec<u8>)>>,
    next: u64,
    /// Of all records there ever were.
    positions: Vec<Position>,
    dropped: usize,
    relocated: usize,
}

/// Stands between a journal in memory and the committer, and writes down what passes.
struct Recorder {
    committer: Committer,
    log: Arc<Mutex<Log>>,
    at: Position,
}

impl Recorder {
    fn write(&mut self, record: &Record) -> Position {
        let mut log = self.log.lock().unwrap();
        let mut payload = Vec::new();
        record.encode(&mut payload);
        assert_eq!(payload.len(), record.encoded_len());
        log.next += 1 + payload.len() as u64;
        let position = Position(log.next);
        log.segments.back_mut().unwrap().push((position, payload));
        log.positions.push(position);
        position
    }

    fn turn(&mut self) {
        self.log.lock().unwrap().segments.push_back(Vec::new());
        let mut checkpoint = Vec::new();
        self.committer.checkpoint(&mut checkpoint);
        for record in &checkpoint {
            self.write(record);
        }
    }

    fn turn_if_full(&mut self) {
        let (is_full, drop_oldest) = {
            let log = self.log.lock().unwrap();
            (log.segments.back().unwrap().len() >= RECORDS_PER_SEGMENT, log.segments.len() > SEGMENTS)
        };
        if is_full {
            self.turn();
        }
        if drop_oldest {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.log.lock().unwrap().segments.front().unwrap().clone();
        let end = self.log.lock().unwrap().segments[1].first().unwrap().0;
        let mut carried = Vec::new();
        for (position, payload) in &oldest {
            self.committer.carry(*position, payload, &mut carried);
        }
        self.log.lock().unwrap().relocated += carried.len();
        self.commit_all(carried);
        loop {
            let mut rest = Vec::new();
            self.committer.carry_rest(oldest[0].0..end, &mut rest);
            if rest.is_empty() {
                break;
            }
            self.commit_all(rest);
        }
        let mut log = self.log.lock().unwrap();
        log.segments.pop_front();
        log.dropped += 1;
    }

    fn commit_all(&mut self, records: Vec<Record>) {
        for record in records {
            let position = self.write(&record);
            self.committer.commit(position, record, &mut Space::uncounted());
        }
    }
}

impl Commit<Record> for Recorder {
    fn admit(&mut self, _: Position, record: &mut Record) -> bool {
        self.turn_if_full();
        let room = record.encoded_len();
        self.at = Position(self.log.lock().unwrap().next + 1 + room as u64);
        if !self.committer.admit(self.at, record) {
            return false;
        }
        // A record may be shorter than the room taken for it; its position was told before it was decided.
        self.log.lock().unwrap().next += (room - record.encoded_len()) as u64;
        assert_eq!(self.write(record), self.at);
        true
    }

    fn commit(&mut self, _: Position, record: Record, space: &mut Space) {
        self.committer.commit(self.at, record, space);
    }

    fn refuse(&mut self, record: Record) {
        self.committer.refuse(record);
    }
}

fn options() -> BrokerOptions {
    BrokerOptions {
        lease_ms: 1_000,
        max_attempts: 3,
        dedupe_ids_max: 700,
        dedupe_window_ms: 60_000,
        ..Default::default()
    }
}

/// Everything that must come back, in words.
fn told(state: &State, positions: &[Position]) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for queue in state.registry.queues() {
        let name = queue.name();
        told.insert(format!("queue {name}"), format!("{:?} {:?}", queue.id(), queue.settings()));
        told.insert(format!("sizes {name}"), format!("{} {}", queue.messages(), queue.bytes()));
        let orders = positions.iter().filter_map(|order| Some((order, queue.location(*order)?)));
        let messages =
            orders.map(|(order, at)| format!("{} at {} tried {:?}", order.0, at.location.0, queue.attempts(*order)));
        told.insert(format!("messages {name}"), messages.collect::<Vec<_>>().join(", "));
    }
    for exchange in state.registry.exchanges() {
        let mut bindings: Vec<_> =
            exchange.bindings().into_iter().map(|(key, queue)| format!("{key} {}", queue.name())).collect();
        bindings.sort_unstable();
        told.insert(format!("exchange {}", exchange.name()), format!("{:?} {bindings:?}", exchange.id()));
    }
    let ids: Vec<_> = state.dedupe().published_at(Position(0)..=Position(u64::MAX)).collect();
    told.insert("ids".to_owned(), format!("{ids:?}"));
    told.insert("numbers".to_owned(), format!("{:?} {:x}", state.registry.last_ids(), state.hash_key()));
    told.insert("store".to_owned(), state.store_bytes().to_string());
    told
}

fn replay(log: &Log, now: Timestamp) -> Arc<State> {
    let state = Arc::new(State::logged(options()));
    let mut committer = Committer::new(Arc::clone(&state), now);
    for (position, payload) in log.segments.iter().flatten() {
        committer.recover(*position, payload, &mut Space::uncounted()).unwrap();
    }
    committer.checkpoint(&mut Vec::new());
    state
}

struct World {
    random: StdRng,
    shared: Arc<Shared>,
    links: Vec<Link>,
    now: Timestamp,
    published: u32,
}

impl World {
    fn connect(&mut self) -> Link {
        let id = ConnectionId(u64::from(self.random.random::<u32>()));
        Link::new(Arc::clone(&self.shared), id, Arc::new(Doorbell::new()))
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.links.len());
        let queue = QUEUES[self.random.random_range(0..QUEUES.len())];
        let key = ["a", "b", "ab", "default_key"][self.random.random_range(0..4)];
        match self.random.random_range(0..100) {
            0..40 => {
                let number = self.random.random_range(self.published.saturating_sub(900)..=self.published);
                let number = if self.random.random_range(0..4) == 0 { number } else { self.published };
                let (id, envelope) = (number.to_string(), "x".repeat(self.random.random_range(0..50)));
                let publish = Publish { exchange: "default_exchange", key, id: &id, envelope: &envelope };
                self.published += u32::from(self.links[at].publish(publish, self.now).is_ok());
            }
            40..75 => {
                let dead = format!("{queue}.dlq");
                let queue = if self.random.random_range(0..4) == 0 { &dead } else { queue };
                let Ok(Some(delivery)) = self.links[at].fetch(queue, None, self.now) else { return };
                let id = delivery.message().id().to_owned();
                let how = match self.random.random_range(0..10) {
                    0..5 => Settle::Ack,
                    5 => Settle::Reject(Reason::Rejected),
                    6..8 => Settle::Nack { delay_ms: 0 },
                    8 => Settle::Nack { delay_ms: 1_500 },
                    _ => return,
                };
                let _ = self.links[at].settle(&id, None, how, self.now);
            }
            75..80 => {
                self.now = self.now.plus_ms(self.random.random_range(1..700));
                let due: Vec<_> = self.shared.state.timers.take_due(self.now).into_iter().collect();
                for queue in due.into_iter().filter_map(|id| self.shared.state.registry.queue_by_id(id)) {
                    let tried = queue.handle_timeout(self.now);
                    self.shared.record_tried(self.now, tried.into_iter().map(|tried| (Arc::clone(&queue), tried)));
                }
            }
            80..83 => {
                let new = self.connect();
                std::mem::replace(&mut self.links[at], new).end(self.now);
            }
            83..86 if self.published > 0 => {
                let id = self.random.random_range(0..self.published).to_string();
                self.links[at].ack_anywhere(&id, self.now);
            }
            86..92 => self.change(at, queue, key),
            _ => {}
        }
        let _ = self.links[at].submit();
    }

    fn change(&mut self, at: usize, queue: &str, key: &str) {
        let (link, now) = (&mut self.links[at], self.now);
        let max_bytes = Some(self.random.random_range(1_000..100_000));
        let options = QueueOptions { max_bytes, durability: None, ..Default::default() };
        let _ = match self.random.random_range(0..40) {
            0..8 => link.declare_queue(queue, &options, now),
            8..28 => link.bind("default_exchange", queue, key, now),
            28..30 => link.unbind("default_exchange", queue, key, now),
            30 => link.delete_queue(queue, self.random.random_range(0..3) == 0, now),
            31 => link.purge(queue, now),
            32..35 => link.declare_exchange("other", now),
            35 => link.delete_exchange("other", now),
            _ => link.bind("other", queue, key, now),
        };
    }
}

#[test]
fn reading_a_log_makes_the_state_it_was_written_by() {
    let seed = std::env::var("CIPHERMQ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    println!("seed {seed}: replay with CIPHERMQ_SEED={seed}");
    for round in 0..2 {
        run(seed + round);
    }
}

fn run(seed: u64) {
    let log = Arc::new(Mutex::new(Log { next: 1, ..Default::default() }));
    // In this test bodies stay in memory: there is nothing to read them back from.
    let state = Arc::new(State::with_budget(options(), Budget::unlimited(), true));
    let mut recorder =
        Recorder { committer: Committer::new(Arc::clone(&state), START), log: Arc::clone(&log), at: Position(0) };
    recorder.turn();
    let shared = Arc::new(Shared::new(Arc::clone(&state), Journal::memory(recorder)));
    let mut world = World { random: StdRng::seed_from_u64(seed), shared, links: Vec::new(), now: START, published: 0 };
    for _ in 0..3 {
        let link = world.connect();
        world.links.push(link);
    }
    for step in 0..STEPS {
        world.step();
        if step % 1_000 == 999 {
            let positions = log.lock().unwrap().positions.clone();
            let read = told(&replay(&log.lock().unwrap(), world.now), &positions);
            state.dedupe().recovered(world.now);
            let written = told(&state, &positions);
            for (what, live) in &written {
                // What a connection holds has its attempts only when it comes back; publishes that wait count as stored.
                assert_eq!(read.get(what), Some(live), "{what} after {step} of seed {seed}");
            }
            assert_eq!(read.len(), written.len());
        }
    }
    let log = log.lock().unwrap();
    assert!(log.dropped > 10 && log.relocated > 100, "{} dropped, {} relocated", log.dropped, log.relocated);
}

#[test]
fn ids_written_anew_together_are_kept_together_or_not_at_all() {
    let state = Arc::new(State::logged(BrokerOptions::default()));
    let mut committer = Committer::new(Arc::clone(&state), START);
    for number in 1..=2_500_u64 {
        let hash = state.hash(&number.to_string());
        let id = crate::dedupe::KnownId::new(
            hash,
            crate::model::ExchangeId(1),
            crate::dedupe::Place::Anywhere,
            Position(number),
            START,
        );
        state.dedupe().recover(id);
    }
    committer.checkpoint(&mut Vec::new());
    let mut out = Vec::new();
    committer.carry_rest(Position(1)..Position(2_501), &mut out);
    let ids: usize = out.iter().map(|record| if let Event::Ids(ids) = &record.event { ids.len() } else { 0 }).sum();
    assert_eq!(ids, 2_500);
    assert_eq!(out.len(), 3);
    let (last, others) = out.split_last().unwrap();
    assert!(others.iter().all(Entry::continues) && !last.continues());
}
