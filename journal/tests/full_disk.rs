//! Disks that are full: publishes are refused, settling goes on, and all is well when there is room again.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use ciphermq_journal::{CallKind, Crash, Durability, Health, JournalOptions, MemoryDisk, Times, Unsynced};

use crate::history::{After, History};
use crate::script::{Step, script};
use crate::store::{SEGMENT_BYTES, Store, options, seed};
use crate::toy::{Fact, What};

const BODY: u16 = 500;

fn publish(id: u32) -> Fact {
    What::Publish { id, queues: vec![1], len: BODY }.into()
}

/// Opens with a queue; publishes until there is no room.
fn fill(store: &Store, history: &mut History, next_id: &mut u32) -> usize {
    let declare = What::Declare { queue: 1 };
    store.play(&[Step::Submit(vec![declare.into()]), Step::Work], history);
    let mut accepted = 0;
    while store.play(&[Step::Submit(vec![publish(*next_id)]), Step::Work], history) {
        *next_id += 1;
        accepted += 1;
        assert!(accepted < 10_000, "a disk without an end");
    }
    accepted
}

#[test]
fn at_any_capacity_settling_goes_on_and_publishing_comes_back_with_room() {
    let (mut openable, mut accepted_in_all) = (0, 0);
    let capacities = (0..8 * SEGMENT_BYTES).step_by(512).chain((1..8).map(|segments| segments * SEGMENT_BYTES - 1));
    let capacities: Vec<u64> = capacities.collect();
    for capacity in &capacities {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(*capacity));
        let Ok(store) = Store::open(&disk) else {
            assert!(
                openable == 0 || *capacity < 3 * SEGMENT_BYTES,
                "{capacity} bytes are too few to open, fewer were not"
            );
            disk.set_capacity(None);
            Store::open(&disk.crash(Crash::Kill)).expect("what a full disk left can be opened");
            continue;
        };
        openable += 1;
        accepted_in_all += fill_settle_and_free(&disk, &store, *capacity);
    }
    println!(
        "full disk: {} capacities, {openable} enough to open, {accepted_in_all} publishes accepted",
        capacities.len()
    );
    assert!(openable >= 80 && accepted_in_all >= 1_000);
}

fn fill_settle_and_free(disk: &MemoryDisk, store: &Store, capacity: u64) -> usize {
    let mut history = History::default();
    let mut next_id = 0;
    let accepted = fill(store, &mut history, &mut next_id);
    for round in 0..3 {
        assert_eq!(store.journal.health(), Health::Full, "{capacity} bytes, round {round}");
        // One message stays, so that the log cannot simply begin anew.
        let waiting: Vec<u32> = store.toy.look().queues[&1].values().copied().skip(1).collect();
        for id in waiting {
            let settle: Fact = What::Settle { queue: 1, id }.into();
            assert!(
                store.play(&[Step::Submit(vec![settle]), Step::Work], &mut history),
                "{capacity} bytes: settle {id}"
            );
        }
        for queue in [2, 3] {
            let topology =
                [What::Declare { queue }, What::Delete { queue }].map(|what| Step::Submit(vec![what.into()]));
            assert!(store.play(&topology, &mut history), "{capacity} bytes: topology");
            store.journal.write_waiting();
        }
        store.settle_down();
        let again = fill(store, &mut history, &mut next_id);
        assert!(accepted == 0 || again > 0, "{capacity} bytes, round {round}: all was settled, nothing more is taken");
        check_reopened(disk, &history, capacity);
    }
    disk.set_capacity(None);
    store.settle_down();
    assert!(
        store.play(&[Step::Submit(vec![publish(next_id)]), Step::Work], &mut history),
        "{capacity} bytes: room is back"
    );
    check_reopened(disk, &history, capacity);
    accepted
}

fn check_reopened(disk: &MemoryDisk, history: &History, capacity: u64) {
    let mut disk = disk.crash(Crash::Kill);
    for round in 0..6 {
        disk = disk.crash(Crash::PowerLoss(Unsynced::Lost));
        // The next process finds the disk as full as this one did.
        disk.set_capacity(Some(disk.used()));
        let store =
            Store::open(&disk).unwrap_or_else(|error| panic!("{capacity} bytes, opened {round} times: {error}"));
        history.check(&store.toy.look(), After::PowerLoss).unwrap_or_else(|fault| panic!("{capacity} bytes: {fault}"));
    }
}

#[test]
fn no_space_for_a_new_segment_is_no_failure_and_no_space_for_a_write_is_one() {
    let script = script(seed(), 140, 20);
    let whole = MemoryDisk::new();
    let store = Store::open(&whole).unwrap();
    store.play(&script, &mut History::default());
    let (mut creates, mut writes) = (0, 0);
    for (number, call) in whole.calls().iter().enumerate() {
        if !matches!(call.kind, CallKind::Create | CallKind::Write) {
            continue;
        }
        for (kind, times) in [(ErrorKind::StorageFull, Times::Once), (ErrorKind::QuotaExceeded, Times::EverAfter)] {
            let disk = MemoryDisk::new();
            disk.fail_at(number as u64, kind, times);
            let mut history = History::default();
            if let Ok(store) = Store::open(&disk) {
                store.play(&script, &mut history);
                match call.kind {
                    CallKind::Create => {
                        assert_ne!(store.journal.health(), Health::Poisoned, "call {number}");
                        disk.work_again();
                        store.settle_down();
                        assert_eq!(store.journal.health(), Health::Healthy, "call {number}: room is back");
                        assert!(store.has_room(), "call {number}: room is back");
                        creates += 1;
                    }
                    _ => {
                        assert_eq!(store.journal.health(), Health::Poisoned, "call {number}");
                        writes += 1;
                    }
                }
            }
            let left = disk.crash(Crash::PowerLoss(Unsynced::Lost));
            let store = Store::open(&left).unwrap();
            history.check(&store.toy.look(), After::PowerLoss).unwrap_or_else(|fault| panic!("call {number}: {fault}"));
        }
    }
    println!("no space: {creates} times at a creation, {writes} times at a write");
    assert!(creates >= 4 && writes >= 150);
}

/// A sixteenth of it is a header and a checkpoint: in tiny segments those alone would be half of all there is.
const LARGER_SEGMENT_BYTES: u64 = 16 * 4096;

#[test]
fn one_stuck_message_does_not_pin_the_disk() {
    let mut steps = 0;
    for (body, backlog) in [(20, 5), (20, 1_000), (500, 3), (500, 60), (500, 600), (3_000, 8), (3_000, 100)] {
        let highest = publish_and_settle(body, backlog, 4_000);
        println!("stuck: {backlog} messages of {body} bytes waiting: at most {:.0} % of the bound", 100.0 * highest);
        steps += 4_000;
    }
    println!("stuck: the bound held at each of {steps} steps");
}

/// Publishes and settles in order, all but message 0. How near the disk's use came to twice what lives and two segments.
fn publish_and_settle(body: u16, backlog: usize, messages: u32) -> f64 {
    let disk = MemoryDisk::new();
    let large = JournalOptions {
        segment_bytes_min: LARGER_SEGMENT_BYTES,
        segment_bytes_max: LARGER_SEGMENT_BYTES,
        ..options()
    };
    let store = Store::open_on(Arc::new(disk.clone()), large).unwrap();
    let mut history = History::default();
    store.play(&[Step::Submit(vec![What::Declare { queue: 1 }.into()]), Step::Work], &mut history);
    let mut waiting = VecDeque::new();
    let mut highest = 0.0_f64;
    for id in 0..messages {
        let publish = What::Publish { id, queues: vec![1], len: body };
        let publish = Fact { durability: Durability::Written, ..publish.into() };
        assert!(store.play(&[Step::Submit(vec![publish])], &mut history), "{body} x {backlog}: {id}");
        waiting.extend((id > 0).then_some(id));
        if waiting.len() > backlog {
            let settle = waiting.pop_front().map(|id| What::Settle { queue: 1, id });
            store.play(&[Step::Submit(settle.into_iter().map(Fact::from).collect())], &mut history);
        }
        store.journal.write_waiting();
        history.units.clear();
        let (used, live) = (disk.used(), store.toy.look().live_bytes());
        let bound = 2 * live + 2 * LARGER_SEGMENT_BYTES;
        let figures = store.journal.figures();
        assert!(used <= bound, "{body} x {backlog}, message {id}: {used} bytes on disk, {live} live: {figures:?}");
        highest = highest.max(used as f64 / bound as f64);
    }
    assert!(store.toy.look().messages.contains_key(&0), "it is still there");
    highest
}
