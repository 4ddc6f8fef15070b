//! Directories written once and kept: whatever this version's predecessors wrote is still understood, damaged or not.
//!
//! A directory that is there never changes. To make those of a new format version:
//! `cargo test -p ciphermq-journal --test disk -- --ignored write_fixtures`, which writes what is missing.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use ciphermq_journal::{CallKind, Crash, Disk, FileDisk, MemoryDisk, Stop};

use crate::corruption::{open, small_segments};
use crate::history::History;
use crate::script::script;
use crate::store::Store;

/// What is done to a log before it is kept.
const FIXTURES: [(&str, Make); 12] = [
    ("v1-empty", || closed(0)),
    ("v1-closed", || closed(OPERATIONS)),
    ("v1-killed", killed),
    ("v1-torn", torn),
    ("v1-damaged-copy", || in_second(|disk, name| damage(disk, name, 4096 + 200, 1))),
    ("v1-damaged-record", || in_second(|disk, name| damage(disk, name, 4096 + 500, 1))),
    ("v1-damaged-stretch", || in_second(|disk, name| damage(disk, name, 4096 + 500, 700))),
    ("v1-damaged-header-copy", || in_second(|disk, name| damage(disk, name, 9, 1))),
    ("v1-damaged-header", || in_second(|disk, name| damage(disk, name, 0, 4096))),
    ("v1-cut-short", || in_second(|disk, name| disk.set_len(name, 5000))),
    ("v2-closed", || closed(OPERATIONS)),
    ("v2-killed", killed),
];

type Make = fn() -> MemoryDisk;

const OPERATIONS: usize = 60;

const BACKLOG: usize = 40;

#[test]
fn what_was_written_once_is_still_understood() {
    let mut opened = 0;
    for dir in fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()) {
        let expected = fs::read_to_string(dir.join("expected.txt")).unwrap();
        let disk = MemoryDisk::new();
        for file in fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()) {
            disk.put(file.file_name().unwrap().to_str().unwrap(), fs::read(&file).unwrap());
        }
        assert_eq!(describe(&open(&disk)), expected, "{}", dir.display());
        opened += 1;
    }
    println!("fixtures: {opened} directories opened");
    assert!(opened >= FIXTURES.len());
}

#[test]
fn a_directory_of_the_file_system_is_opened_like_a_simulated_one() {
    let dir = tempfile::tempdir().unwrap();
    let kept = fixtures().join("v1-damaged-stretch");
    fs::create_dir(dir.path().join("log")).unwrap();
    for file in fs::read_dir(kept.join("log")).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, dir.path().join("log").join(file.file_name().unwrap())).unwrap();
    }
    let disk = FileDisk::open(dir.path()).unwrap();
    let store = Store::open_on(std::sync::Arc::new(disk), small_segments()).unwrap();
    assert_eq!(describe(&store), fs::read_to_string(kept.join("expected.txt")).unwrap());
    assert!(fs::read_dir(dir.path().join("aside")).unwrap().count() > 0, "what was fenced is kept aside");
}

#[test]
#[ignore = "writes into the source directory"]
fn write_fixtures() {
    for (name, make) in FIXTURES {
        let dir = fixtures().join(name);
        if dir.exists() {
            continue;
        }
        let disk = make();
        fs::create_dir_all(dir.join("log")).unwrap();
        for (file, bytes) in disk.files().into_iter().filter(|(file, _)| !file.starts_with("spare")) {
            fs::write(dir.join("log").join(file), bytes).unwrap();
        }
        fs::write(dir.join("expected.txt"), describe(&open(&disk.crash(Crash::Kill)))).unwrap();
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What a store found when it was opened.
fn describe(store: &Store) -> String {
    let mut text = format!("closed in order: {}\nrecords: {}\n", store.report.closed, store.report.records);
    for finding in &store.report.findings {
        writeln!(text, "finding: {finding}").unwrap();
    }
    let toy = store.toy.look();
    for (queue, messages) in &toy.queues {
        let messages: Vec<String> =
            messages.values().map(|id| format!("{id} ({} bytes)", toy.messages[id].len)).collect();
        writeln!(text, "queue {queue}: {}", messages.join(", ")).unwrap();
    }
    writeln!(text, "known ids: {:?}", toy.known.keys().collect::<Vec<_>>()).unwrap();
    drop(toy);
    store.read_all().unwrap();
    text
}

fn played(operations: usize) -> (MemoryDisk, Store) {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    assert!(operations == 0 || store.play(&script(1, operations, BACKLOG), &mut History::default()));
    (disk, store)
}

fn closed(operations: usize) -> MemoryDisk {
    let (disk, store) = played(operations);
    store.journal.close();
    disk.crash(Crash::Kill)
}

fn killed() -> MemoryDisk {
    let (disk, _store) = played(OPERATIONS);
    disk.crash(Crash::Kill)
}

/// The last write was torn within its record.
fn torn() -> MemoryDisk {
    // Kept: its end would be one more write.
    let (whole, _store) = played(OPERATIONS);
    let last = whole.calls().iter().rposition(|call| call.kind == CallKind::Write).unwrap();
    let disk = MemoryDisk::new();
    disk.stop_at(last as u64, Stop::Before);
    let store = open(&disk);
    store.play(&script(1, OPERATIONS, BACKLOG), &mut History::default());
    let torn = |len| disk.crash_torn(len, Crash::Kill).unwrap();
    let len = whole.calls()[last].len as usize;
    let record_end = (0..len).rev().find(|len| torn(*len).files() != whole.files()).unwrap();
    torn(record_end - 20)
}

/// A closed log whose second segment was changed.
fn in_second(change: impl Fn(&MemoryDisk, &str)) -> MemoryDisk {
    let disk = closed(OPERATIONS);
    let mut segments = disk.list().unwrap();
    segments.retain(|name| !name.starts_with("spare"));
    segments.sort();
    change(&disk, &segments[1]);
    disk.crash(Crash::Kill)
}

fn damage(disk: &MemoryDisk, name: &str, offset: u64, bytes: u64) {
    for byte in offset..offset + bytes {
        assert!(disk.flip(name, byte * 8 + 3));
    }
}
