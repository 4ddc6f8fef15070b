//! What damage, a crash and older files cost the window of seen messages.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cipher_client::ErrorKind;
use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Freshness};
use sha2::{Digest, Sha256};

const HEADER: usize = 8192;
const RECORD: usize = 32;
/// Slots of the smallest ring.
const SLOTS: usize = 64;
const NONE: [usize; 0] = [];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn try_open(path: &Path, entries: usize) -> cipher_client::Result<DedupeWindow> {
    DedupeWindow::open(path, DedupeOptions { entries, ..DedupeOptions::default() }, now())
}

fn open(path: &Path, entries: usize) -> DedupeWindow {
    try_open(path, entries).unwrap()
}

fn message(n: usize) -> (String, [u8; 32]) {
    let mut uniqueness = [0xa5; 32];
    uniqueness[..8].copy_from_slice(&n.to_le_bytes());
    (format!("message-{n}"), uniqueness)
}

fn take(window: &mut DedupeWindow, n: usize) -> Freshness {
    let (id, uniqueness) = message(n);
    window.check_and_insert(&id, &uniqueness, now()).unwrap()
}

fn note_all(window: &mut DedupeWindow, messages: std::ops::Range<usize>) {
    for n in messages {
        assert_eq!(take(window, n), Freshness::Fresh);
    }
}

fn knows(window: &DedupeWindow, n: usize) -> bool {
    let (id, uniqueness) = message(n);
    window.contains(&id, &uniqueness, now())
}

/// Those of `messages` that are forgotten.
fn missing(window: &DedupeWindow, messages: std::ops::Range<usize>) -> Vec<usize> {
    messages.filter(|n| !knows(window, *n)).collect()
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }
}

/// The file is cut at every byte, as a crash may leave it.
#[test]
fn a_torn_tail_costs_the_torn_record_only() {
    let dir = Dir::new();
    let path = dir.file("seen");
    note_all(&mut open(&path, 100), 0..4);
    let whole = fs::read(&path).unwrap();
    for len in HEADER..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let mut window = open(&path, 100);
        let kept = (len - HEADER) / RECORD;
        assert_eq!(window.len(), kept, "cut at {len}");
        assert_eq!(window.recovery().cut_bytes as usize, (len - HEADER) % RECORD);
        for n in 0..4 {
            assert_eq!(take(&mut window, n) == Freshness::Duplicate, n < kept, "cut at {len}");
        }
        drop(window);
        let window = open(&path, 100);
        assert!((0..4).all(|n| knows(&window, n)), "cut at {len}");
    }
}

/// In a ring that is full a note goes over the oldest: at every byte of it, at
/// the end of a lap, at that of a segment, and in the middle of one.
#[test]
fn a_torn_overwrite_costs_the_torn_record_only() {
    let dir = Dir::new();
    let path = dir.file("seen");
    for (entries, before) in [(63, 2 * SLOTS - 1), (63, 2 * SLOTS), (150, 3 * SLOTS + 64), (150, 9 * SLOTS + 65)] {
        fs::remove_file(&path).ok();
        let mut window = open(&path, entries);
        note_all(&mut window, 0..before);
        let old = fs::read(&path).unwrap();
        note_all(&mut window, before..before + 1);
        drop(window);
        let new = fs::read(&path).unwrap();
        let slot = HEADER + before % (new.len() / RECORD - HEADER / RECORD) * RECORD;
        assert!(old[..slot] == new[..slot] && old[slot..slot + RECORD] != new[slot..slot + RECORD]);
        for len in 0..=RECORD {
            let mut torn = old.clone();
            torn[slot..slot + len].copy_from_slice(&new[slot..slot + len]);
            fs::write(&path, &torn).unwrap();
            let mut window = open(&path, entries);
            let lost = missing(&window, before - entries..before);
            assert_eq!(
                lost,
                if len == RECORD { vec![before - entries] } else { NONE.to_vec() },
                "{entries} {before} {len}"
            );
            assert_eq!(knows(&window, before), len == RECORD);
            let cut = window.recovery().cut_bytes as usize;
            assert!(cut == 0 || cut == RECORD && (1..RECORD).contains(&len), "{entries} {before} {len}: {cut}");
            assert_eq!(window.recovery().damaged, 0);
            note_all(&mut window, before + usize::from(len == RECORD)..before + 5);
            drop(window);
            let window = open(&path, entries);
            assert_eq!(missing(&window, before + 5 - entries..before + 5), NONE);
            assert_eq!(window.recovery().cut_bytes, 0);
        }
    }
}

/// After a loss of power a file system may show zeros where data was not yet.
#[test]
fn zeros_at_the_end_are_cut_like_a_torn_record() {
    let dir = Dir::new();
    let path = dir.file("seen");
    note_all(&mut open(&path, 100), 1..2);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([0; 3 * RECORD + 5]);
    fs::write(&path, &bytes).unwrap();
    let mut window = open(&path, 100);
    assert_eq!(window.recovery().cut_bytes as usize, 3 * RECORD + 5);
    note_all(&mut window, 2..3);
    drop(window);
    let window = open(&path, 100);
    assert!(knows(&window, 1) && knows(&window, 2));
    assert_eq!((window.recovery().damaged, window.recovery().cut_bytes), (0, 0));
}

/// Pages are written back in any order: one that was not shows the lap before.
#[test]
fn a_page_of_the_lap_before_costs_what_it_should_have_held() {
    let dir = Dir::new();
    let path = dir.file("seen");
    let mut window = open(&path, 191);
    note_all(&mut window, 0..192);
    let old = fs::read(&path).unwrap();
    note_all(&mut window, 192..192 + 100);
    drop(window);
    let mut bytes = fs::read(&path).unwrap();
    let stale = HEADER + 20 * RECORD..HEADER + 30 * RECORD;
    bytes[stale.clone()].copy_from_slice(&old[stale]);
    fs::write(&path, &bytes).unwrap();
    let window = open(&path, 191);
    assert_eq!(missing(&window, 292 - 191..292), (212..222).collect::<Vec<_>>());
    assert_eq!(window.recovery().damaged, 10);
}

#[test]
fn every_single_flipped_bit_costs_one_note_at_most_and_is_reported() {
    let dir = Dir::new();
    let path = dir.file("seen");
    for (entries, count) in [(63, 5), (20, SLOTS), (40, 3 * SLOTS + 17)] {
        fs::remove_file(&path).ok();
        note_all(&mut open(&path, entries), 0..count);
        let whole = fs::read(&path).unwrap();
        let first = count.saturating_sub(entries);
        let record = |slot: usize| HEADER + slot * RECORD..HEADER + (slot + 1) * RECORD;
        let (last, middle) = ((count - 1) % SLOTS, (first + count) / 2 % SLOTS);
        let header = (0..48).chain(4096..4096 + 48).chain([100, 4095, 8191]).filter(|_| count == 5);
        let bytes = header.chain(record(last)).chain(record(middle)).chain(record(0));
        for byte in bytes {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[byte] ^= 1 << bit;
                fs::write(&path, &damaged).unwrap();
                let window = open(&path, entries);
                let lost = missing(&window, first..count);
                let recovery = window.recovery();
                drop(window);
                let is_header = byte < HEADER;
                assert!(lost.len() <= usize::from(!is_header), "{count} {byte}.{bit}: {lost:?}");
                let is_noted = recovery.damaged + recovery.cut_bytes / RECORD as u64 == 1;
                assert_eq!(is_noted, !is_header, "{count} {byte}.{bit}: {recovery:?}");
                assert_eq!(recovery.header_repaired, byte % 4096 < 48 && is_header, "{count} {byte}.{bit}");
                if is_header {
                    assert!(!open(&path, entries).recovery().header_repaired, "{count} {byte}.{bit}");
                }
            }
        }
    }
}

#[test]
fn a_window_whose_header_is_lost_is_put_aside_and_begun_anew() {
    let dir = Dir::new();
    let path = dir.file("seen");
    for n in 1..=3 {
        note_all(&mut open(&path, 100), 0..4);
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        bytes[4096 + 20] ^= 1;
        bytes[4096 + 2] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let window = open(&path, 100);
        assert!(window.recovery().set_aside && window.is_empty());
        assert_eq!(fs::read(dir.file(&format!("seen.damaged{n}"))).unwrap(), bytes);
        drop(window);
    }
}

/// Every slot that a header speaks of is looked at: 2^40 of them are too many.
#[test]
fn a_header_of_a_window_that_cannot_be_is_no_header() {
    let dir = Dir::new();
    let path = dir.file("seen");
    note_all(&mut open(&path, 100), 0..4);
    let mut bytes = fs::read(&path).unwrap();
    for (segment, segments) in [(1 << 32, 2), (500_001, 2), (64, 202), (1 << 32, 253), (0, 2), (64, 0)] {
        for at in [0, 4096] {
            bytes[at + 24..at + 32].copy_from_slice(&u64::to_le_bytes(segment));
            bytes[at + 32..at + 40].copy_from_slice(&u64::to_le_bytes(segments));
            let check = xxhash_rust::xxh3::xxh3_64(&bytes[at..at + 40]);
            bytes[at + 40..at + 48].copy_from_slice(&check.to_le_bytes());
        }
        fs::write(&path, &bytes).unwrap();
        let window = open(&path, 100);
        assert!(window.recovery().set_aside && window.is_empty(), "{segment} {segments}");
    }
}

#[test]
fn a_file_that_is_something_else_is_refused_and_left_alone() {
    let dir = Dir::new();
    let path = dir.file("seen");
    for content in [&b"short"[..], &[0; 200], &[0x5a; 9000], b"my notes, which are not a window"] {
        fs::write(&path, content).unwrap();
        let error = try_open(&path, 10).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::File { .. }), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::write(&path, b"").unwrap();
    assert!(open(&path, 10).is_empty(), "there is nothing in an empty file to lose");
}

/// The index is derived: what happens to it costs time.
#[test]
fn a_damaged_index_forgets_nothing() {
    let dir = Dir::new();
    let path = dir.file("seen");
    let mut window = open(&path, 1000);
    note_all(&mut window, 0..1500);
    let index = dir.file("seen.index");
    let bytes = fs::read(&index).unwrap();
    for damage in [0, 1, 7] {
        let damaged: Vec<_> = bytes.iter().map(|byte| byte ^ damage).collect();
        fs::write(&index, damaged).unwrap();
        assert_eq!(missing(&window, 500..1500), NONE, "{damage}");
        assert!((1500..2000).all(|n| !knows(&window, n)));
    }
    fs::write(&index, b"").unwrap();
    assert_eq!(missing(&window, 500..1500), NONE);
    note_all(&mut window, 1500..1600);
    drop(window);
    fs::remove_file(index).unwrap();
    assert_eq!(missing(&open(&path, 1000), 600..1600), NONE);
}

/// Each state that a crash can leave while a file of another size is made.
#[test]
fn a_change_of_size_that_is_interrupted_is_done_again() {
    let dir = Dir::new();
    let path = dir.file("seen");
    note_all(&mut open(&path, 100), 0..200);
    let (before, small) = (fs::read(&path).unwrap(), dir.file("copy"));
    fs::write(&small, &before).unwrap();
    drop(open(&small, 500));
    let after = fs::read(&small).unwrap();
    for len in (0..after.len()).step_by(509) {
        fs::write(&path, &before).unwrap();
        fs::write(dir.file("seen.new"), &after[..len]).unwrap();
        let mut window = open(&path, 500);
        assert_eq!(missing(&window, 100..200), NONE);
        assert!(!dir.has("seen.new"));
        note_all(&mut window, 200..201);
    }
}

/// A file as version 0.1 wrote it up to November 2026.
fn format1(salt: [u8; 16], messages: std::ops::Range<usize>) -> Vec<u8> {
    let mut bytes = [&b"CMQSEEN1"[..], &salt].concat();
    let check = Sha256::digest(&bytes);
    bytes.extend(&check[..8]);
    let hash = |domain: u8, value: &[u8]| Sha256::digest([&salt[..], &[domain], value].concat());
    for n in messages {
        let (id, uniqueness) = message(n);
        let mut record = [&hash(b'i', id.as_bytes())[..12], &hash(b'u', &uniqueness)[..12]].concat();
        record.extend(1_800_000_000u32.to_le_bytes());
        let check = hash(b'c', &record);
        record.extend(&check[..4]);
        bytes.extend(record);
    }
    bytes
}

#[test]
fn files_of_the_format_before_are_taken_over() {
    let dir = Dir::new();
    let path = dir.file("seen");
    fs::write(dir.file("seen.old"), format1([3; 16], 0..10)).unwrap();
    fs::write(&path, format1([3; 16], 10..15)).unwrap();
    let mut window = open(&path, 10);
    assert_eq!((window.recovery().records, window.recovery().converted), (15, 15));
    assert_eq!(missing(&window, 5..15), NONE);
    assert!(!knows(&window, 4) && !dir.has("seen.old") && !dir.has("seen.new"));
    note_all(&mut window, 15..16);
    drop(window);
    let window = open(&path, 10);
    assert_eq!(missing(&window, 6..16), NONE);
    assert_eq!(window.recovery().converted, 0);
}

#[test]
fn damage_in_files_of_the_format_before_costs_the_damaged_notes() {
    let dir = Dir::new();
    let path = dir.file("seen");
    let (mut old, mut current) = (format1([3; 16], 0..10), format1([3; 16], 10..15));
    old[32 + 4 * 32 + 5] ^= 1;
    current.truncate(current.len() - 7);
    current[9] ^= 1; // the salt: the other file has it, too
    fs::write(dir.file("seen.old"), old).unwrap();
    fs::write(&path, current).unwrap();
    let window = open(&path, 20);
    assert_eq!(missing(&window, 0..15), [4, 14]);
    assert_eq!((window.recovery().damaged, window.recovery().cut_bytes), (1, 25));
}

/// Each state that a crash can leave while files of the format before are
/// taken over, and while that format began its next file.
#[test]
fn a_takeover_that_is_interrupted_is_done_again_or_finished() {
    let dir = Dir::new();
    let path = dir.file("seen");
    let (old, current) = (format1([3; 16], 0..10), format1([3; 16], 10..15));
    fs::write(dir.file("seen.old"), &old).unwrap();
    fs::write(&path, &current).unwrap();
    drop(open(&path, 20));
    let after = fs::read(&path).unwrap();
    type Content<'a> = Option<&'a [u8]>;
    let states: [(Content<'_>, Content<'_>, Content<'_>); 6] = [
        (Some(&current), Some(&old), Some(b"CMQS")),
        (Some(&current), Some(&old), Some(&after)),
        (Some(&after), Some(&old), None),
        (Some(&after), None, None),
        (None, Some(&old), Some(b"CMQS")),
        (Some(b""), Some(&old), None),
    ];
    for (number, (ring, old, new)) in states.into_iter().enumerate() {
        for (name, content) in [("seen", ring), ("seen.old", old), ("seen.new", new)] {
            fs::remove_file(dir.file(name)).ok();
            content.into_iter().for_each(|content| fs::write(dir.file(name), content).unwrap());
        }
        let known = if number < 4 { 0..15 } else { 0..10 };
        assert_eq!(missing(&open(&path, 20), known), NONE, "state {number}");
        assert!(!dir.has("seen.new") && !dir.has("seen.old"), "state {number}");
    }
}

#[test]
fn files_of_two_windows_are_not_mixed() {
    let dir = Dir::new();
    let path = dir.file("seen");
    fs::write(&path, format1([3; 16], 0..5)).unwrap();
    fs::write(dir.file("seen.old"), format1([4; 16], 5..9)).unwrap();
    assert!(matches!(try_open(&path, 10).err().unwrap().kind(), ErrorKind::File { .. }));
    assert_eq!(fs::read(&path).unwrap(), format1([3; 16], 0..5));
}
