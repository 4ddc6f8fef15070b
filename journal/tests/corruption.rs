//! Every bit of every file of a small store is turned over, one at a time: the store opens, loses at most the record hit, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ciphermq_journal::{Crash, Finding, FindingKind, JournalOptions, MemoryDisk};

use crate::history::History;
use crate::script::{Step, script};
use crate::store::{Store, on_two_threads, options, seed};
use crate::toy::{Toy, What};

const OPERATIONS: usize = 60;

/// So much lives that several segments stay.
const BACKLOG: usize = 40;

/// A header and one block: several segments in few bytes.
const SEGMENT_BYTES: u64 = 2 * 4096;

const RECORD_HEADER_BYTES: u64 = 32;

pub fn small_segments() -> JournalOptions {
    JournalOptions { segment_bytes_min: SEGMENT_BYTES, segment_bytes_max: SEGMENT_BYTES, ..options() }
}

pub fn open(disk: &MemoryDisk) -> Store {
    Store::open_on(Arc::new(disk.clone()), small_segments()).expect("damage is no reason not to open")
}

/// A small store, closed in order or not.
fn small_store(script: &[Step], close: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    assert!(store.play(script, &mut History::default()));
    if close {
        store.journal.close();
    }
    disk.crash(Crash::Kill)
}

#[derive(Default)]
struct Counts {
    bits: AtomicUsize,
    reported: AtomicUsize,
    lost: AtomicUsize,
}

#[test]
fn any_bit_turned_over_in_a_closed_store_costs_at_most_its_record() {
    turn_over_every_bit(true);
}

#[test]
fn any_bit_turned_over_in_a_killed_store_costs_at_most_its_record_or_its_group_at_the_end() {
    turn_over_every_bit(false);
}

fn turn_over_every_bit(close: bool) {
    let script = script(seed(), OPERATIONS, BACKLOG);
    let groups = script.iter().filter_map(|step| match step {
        Step::Submit(facts) => Some(facts.iter().map(|fact| fact.what.clone()).collect()),
        Step::Work => None,
    });
    let disk = small_store(&script, close);
    let whole = open(&disk.crash(Crash::Kill));
    let whole =
        Whole { toy: whole.toy.look().clone(), findings: whole.report.findings.len(), groups: groups.collect() };
    assert!(whole.toy.told.len() >= 30 && disk.files().iter().filter(|(name, _)| name.ends_with(".log")).count() >= 3);
    let counts = Counts::default();
    for (name, bytes) in disk.files() {
        on_two_threads(bytes.len(), |byte, (): &mut ()| {
            for bit in 0..8 {
                let damaged = disk.crash(Crash::Kill);
                assert!(damaged.flip(&name, byte as u64 * 8 + bit));
                whole
                    .compare(&damaged, &name, byte as u64, &counts)
                    .unwrap_or_else(|fault| panic!("{name}, byte {byte}, bit {bit}: {fault}"));
            }
        });
    }
    let Counts { bits, reported, lost } = counts;
    let [bits, reported, lost] = [bits, reported, lost].map(AtomicUsize::into_inner);
    let silent = bits - reported;
    let state = if close { "closed" } else { "killed" };
    println!(
        "corruption: {state} store, {bits} bits; {reported} reported, {lost} of them cost a record; {silent} never read"
    );
    assert!(bits >= 3 * 8 * SEGMENT_BYTES as usize && reported >= 20_000 && lost >= 10_000);
}

/// What the store has when it is not damaged.
struct Whole {
    toy: Toy,
    findings: usize,
    groups: Vec<Vec<What>>,
}

impl Whole {
    fn compare(&self, damaged: &MemoryDisk, name: &str, byte: u64, counts: &Counts) -> Result<(), String> {
        let store = open(damaged);
        store.read_all()?;
        let found = store.toy.look();
        let covers = |finding: &&Finding| {
            finding.segment == name
                && (finding.kind == FindingKind::Header
                    || (finding.offset..finding.offset + finding.len).contains(&byte))
        };
        let findings = &store.report.findings;
        let reported = findings.iter().find(covers);
        counts.bits.fetch_add(1, Ordering::Relaxed);
        counts.reported.fetch_add(usize::from(reported.is_some()), Ordering::Relaxed);
        let cut = findings.iter().filter(|finding| finding.kind == FindingKind::Torn && !covers(finding)).count();
        if findings.len() > self.findings + usize::from(reported.is_some()) + cut {
            return Err(format!("found besides: {findings:?}"));
        }
        let hit = self.record_at(name, byte);
        if hit.is_some() && reported.is_none() {
            return Err("a record was hit and nothing reported".to_owned());
        }
        let missing = self.missing(&found)?;
        if missing.is_empty() {
            return Ok(());
        }
        counts.lost.fetch_add(1, Ordering::Relaxed);
        reported.ok_or("something is missing, and nothing reported")?;
        let hit = hit.ok_or("something is missing, though no record was hit")?;
        let all_hit = missing.iter().all(|(position, _)| *position == hit);
        // At the end of a log that was not closed, what was never acknowledged may have been a group.
        let group = self.groups.iter().any(|group| missing.iter().all(|(_, what)| group.contains(what)));
        let is_cut = findings.iter().any(|finding| finding.kind == FindingKind::Torn);
        if all_hit || (is_cut && group) {
            return Ok(());
        }
        Err(format!("missing: {missing:?}; found: {findings:?}"))
    }

    /// What the undamaged store tells and this one did not.
    fn missing(&self, found: &Toy) -> Result<Vec<(u64, &What)>, String> {
        let mut told = found.told.iter().map(|(.., what)| what).peekable();
        let mut missing = Vec::new();
        for (position, _, what) in &self.toy.told {
            if told.next_if_eq(&what).is_none() {
                missing.push((*position, what));
            }
        }
        match told.next() {
            Some(what) => Err(format!("told something new, or again: {what:?}")),
            None => Ok(missing),
        }
    }

    /// The position of the record that has this byte.
    fn record_at(&self, name: &str, byte: u64) -> Option<u64> {
        let at = position_of(name) + byte;
        let mut records = self.toy.told.iter();
        let hit = records.find(|(from, len, _)| (*from..*from + RECORD_HEADER_BYTES + *len as u64).contains(&at));
        hit.map(|(position, ..)| *position)
    }
}

/// The position of a file's first byte; of a spare, one that no record has.
fn position_of(name: &str) -> u64 {
    name.strip_suffix(".log").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(u64::MAX / 2)
}
