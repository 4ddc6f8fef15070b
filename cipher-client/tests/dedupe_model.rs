//! The window of seen messages against a plain list, over random histories.
//!
//! `CIPHERMQ_SEED=<n> cargo test -p cipher-client --test dedupe_model` replays one.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cipher_client::crypto::Kid;
use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Durability, Freshness, MessageKey};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SEEDS: u64 = 12;
const STEPS: usize = 3000;
const SLOTS: usize = 64;

#[test]
fn a_window_remembers_what_a_list_remembers() {
    let seeds = match std::env::var("CIPHERMQ_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=SEEDS,
    };
    for seed in seeds {
        println!("CIPHERMQ_SEED={seed}");
        History::new(seed).run();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    sender: Option<Kid>,
    id: u32,
    uniqueness: [u8; 32],
}

struct History {
    random: StdRng,
    options: DedupeOptions,
    /// What was noted and when, the newest last, as much as a ring may hold.
    list: VecDeque<(Message, u64)>,
    now: u64,
    ids: u32,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let entries = match random.random_range(0..3) {
            0 => random.random_range(1..2 * SLOTS),
            1 => random.random_range(1..8) * SLOTS - random.random_range(0..2),
            _ => random.random_range(1..700),
        };
        let window = Duration::from_secs(random.random_range(1..3000));
        let ids = random.random_range(20..4000);
        let options = DedupeOptions { entries, window, durability: Durability::Written };
        Self { random, options, list: VecDeque::new(), now: 1_800_000_000, ids }
    }

    fn run(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let mut window = self.open(&path);
        for step in 0..STEPS {
            self.now = match self.random.random_range(0..1000) {
                0..600 => self.now,
                600..990 => self.now + self.random.random_range(1..4),
                990..996 => self.now + self.random.random_range(1..2000),
                _ => self.now - self.random.random_range(1..50),
            };
            let message = self.message();
            let (id, now) = (format!("id-{}", message.id), SystemTime::UNIX_EPOCH + Duration::from_secs(self.now));
            let key = MessageKey::new(&id, &message.uniqueness);
            let key = message.sender.as_ref().map_or(key, |sender| key.signed_by(sender));
            let known = self.knows(&message);
            let place = format!("step {step} of {:?}", self.options);
            match self.random.random_range(0..100) {
                0..75 => {
                    let said = window.check_and_insert_key(&key, now).unwrap();
                    assert_eq!(said == Freshness::Duplicate, known, "{place}");
                    self.note(message, known);
                }
                75..95 => assert_eq!(window.contains_key(&key, now).unwrap(), known, "{place}"),
                95..98 => {
                    window.insert_key(&key, now).unwrap();
                    self.note(message, known);
                }
                _ => {
                    drop(window);
                    window = self.open(&path);
                    assert_eq!((window.recovery().damaged, window.recovery().cut_bytes), (0, 0), "{place}");
                }
            }
            assert!(window.len() <= self.options.entries.min(self.list.len()), "{place}");
        }
    }

    fn open(&self, path: &Path) -> DedupeWindow {
        DedupeWindow::open(path, self.options, SystemTime::UNIX_EPOCH + Duration::from_secs(self.now)).unwrap()
    }

    /// New, noted before, or noted before in part.
    fn message(&mut self) -> Message {
        let senders = [None, Some(Kid::from_bytes([1; 32])), Some(Kid::from_bytes([2; 32]))];
        let mut message = Message {
            sender: senders[self.random.random_range(0..3)],
            id: self.random.random_range(0..self.ids),
            uniqueness: self.random.random(),
        };
        if !self.list.is_empty() && self.random.random_bool(0.4) {
            let (old, _) = self.list[self.random.random_range(0..self.list.len())];
            match self.random.random_range(0..3) {
                0 => message = old,
                1 => message.uniqueness = old.uniqueness,
                _ => (message.sender, message.id) = (old.sender, old.id),
            }
        }
        message
    }

    fn knows(&self, message: &Message) -> bool {
        let is_same = |old: &Message| {
            let is_copy = message.sender.is_none() && old.uniqueness == message.uniqueness;
            is_copy || (old.sender, old.id) == (message.sender, message.id)
        };
        let window = self.options.window.as_secs();
        let live = self.list.iter().rev().take(self.options.entries);
        live.into_iter().any(|(old, seen)| is_same(old) && self.now.saturating_sub(*seen) < window)
    }

    fn note(&mut self, message: Message, known: bool) {
        if !known {
            self.list.push_back((message, self.now));
            if self.list.len() > 2 * self.options.entries {
                self.list.pop_front();
            }
        }
    }
}
