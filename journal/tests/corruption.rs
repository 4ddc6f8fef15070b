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

/// Of the first copy of a segment's header.
const HEADER_BYTES: u64 = 64;

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
    let disk = small_store(&script, close);
    let whole = Whole::of(&disk, &script);
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

/// A length that was not synced, or that the system does not tell right.
#[test]
fn a_file_of_any_other_length_costs_at_most_what_is_not_there() {
    let script = script(seed(), OPERATIONS, BACKLOG);
    let disk = small_store(&script, true);
    let whole = Whole::of(&disk, &script);
    let mut lengths = 0;
    for (name, bytes) in disk.files() {
        for len in (0..bytes.len() as u64).step_by(61).chain([0, 1, 2 * SEGMENT_BYTES, 1 << 20]) {
            let cut = disk.crash(Crash::Kill);
            cut.set_len(&name, len);
            let cut = whole.compare_cut(&cut, &name, len);
            let lying = disk.crash(Crash::Kill);
            lying.report_len(&name, len);
            cut.and(whole.compare_cut(&lying, &name, SEGMENT_BYTES))
                .unwrap_or_else(|fault| panic!("{name} with {len} bytes: {fault}"));
            lengths += 2;
        }
    }
    println!("corruption: {lengths} lengths of files");
    assert!(lengths >= 800);
}

/// What the store has when it is not damaged.
struct Whole {
    toy: Toy,
    findings: usize,
    groups: Vec<Vec<What>>,
}

impl Whole {
    fn of(disk: &MemoryDisk, script: &[Step]) -> Whole {
        let store = open(&disk.crash(Crash::Kill));
        let groups = script.iter().filter_map(|step| match step {
            Step::Submit(facts) => Some(facts.iter().map(|fact| fact.what.clone()).collect()),
            Step::Work => None,
        });
        let toy = store.toy.look().clone();
        Whole { toy, findings: store.report.findings.len(), groups: groups.collect() }
    }

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

    /// A store of which a file has only so many bytes.
    fn compare_cut(&self, cut: &MemoryDisk, name: &str, len: u64) -> Result<(), String> {
        let store = open(cut);
        store.read_all()?;
        let found = store.toy.look();
        let missing = self.missing(&found)?;
        // The header takes all of its file along.
        let end = position_of(name) + if len < HEADER_BYTES { 0 } else { len };
        let behind_cut = |position: u64, len: usize| {
            position + RECORD_HEADER_BYTES + len as u64 > end && position < position_of(name) + SEGMENT_BYTES
        };
        let told = self.toy.told.iter();
        let cut: Vec<&What> = told.filter(|(at, len, _)| behind_cut(*at, *len)).map(|(.., what)| what).collect();
        for (position, what) in &missing {
            let group = self.groups.iter().find(|group| group.contains(what));
            let with_cut = group.is_some_and(|group| group.iter().any(|member| cut.contains(&member)));
            if *position < position_of(name) || !(cut.contains(what) || with_cut) {
                return Err(format!("{what:?} at {position} is missing"));
            }
        }
        let is_reported = store.report.findings.iter().any(|finding| finding.segment == name && finding.kind.is_loss());
        if missing.is_empty() || is_reported { Ok(()) } else { Err(format!("not reported: {missing:?}")) }
    }

    /// What the undamaged store tells and this one did not.
    fn missing(&self, found: &Toy) -> Result<Vec<(u64, &What)>, String> {
        let mut told = found.told.iter().peekable();
        let mut missing = Vec::new();
        for record in &self.toy.told {
            if told.next_if_eq(&record).is_none() {
                missing.push((record.0, &record.2));
            }
        }
        match told.next() {
            Some(record) => Err(format!("told something new, or again: {record:?}")),
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
