//! What the window of seen messages promises, across restarts.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cipher_client::ErrorKind;
use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Durability, Freshness};

const DAY: Duration = Duration::from_secs(86_400);
const HEADER: usize = 32;
const RECORD: usize = 32;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn options(entries: usize) -> DedupeOptions {
    DedupeOptions { entries, ..DedupeOptions::default() }
}

fn open(path: &Path, entries: usize) -> DedupeWindow {
    DedupeWindow::open(path, options(entries), now()).unwrap()
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

fn note_all(window: &mut DedupeWindow, messages: Range<usize>) {
    for n in messages {
        assert_eq!(take(window, n), Freshness::Fresh);
    }
}

fn knows(window: &DedupeWindow, n: usize) -> bool {
    let (id, uniqueness) = message(n);
    window.contains(&id, &uniqueness, now())
}

#[test]
fn a_message_is_known_by_its_id_and_by_its_sealing() {
    let mut window = DedupeWindow::in_memory(options(10)).unwrap();
    assert_eq!(window.check_and_insert("a", &[1; 32], now()).unwrap(), Freshness::Fresh);
    assert_eq!(window.check_and_insert("a", &[2; 32], now()).unwrap(), Freshness::Duplicate);
    assert_eq!(window.check_and_insert("b", &[1; 32], now()).unwrap(), Freshness::Duplicate);
    assert_eq!(window.check_and_insert("b", &[2; 32], now()).unwrap(), Freshness::Fresh);
    assert_eq!(window.len(), 2);
}

#[test]
fn looking_does_not_note_and_noting_twice_notes_once() {
    let mut window = DedupeWindow::in_memory(options(10)).unwrap();
    assert!(!window.contains("a", &[1; 32], now()));
    assert!(window.is_empty());
    window.insert("a", &[1; 32], now()).unwrap();
    window.insert("a", &[1; 32], now()).unwrap();
    assert!(window.contains("a", &[1; 32], now()));
    assert_eq!(window.len(), 1);
}

#[test]
fn a_message_is_forgotten_after_its_time_and_not_before() {
    let mut window = DedupeWindow::in_memory(options(10)).unwrap();
    window.insert("a", &[1; 32], now()).unwrap();
    assert!(window.contains("a", &[1; 32], now() + DAY - Duration::from_secs(1)));
    assert!(!window.contains("a", &[1; 32], now() + DAY));
    window.insert("b", &[2; 32], now() + DAY).unwrap();
    assert_eq!(window.len(), 1, "the expired one makes room");
}

#[test]
fn a_clock_set_back_forgets_nothing() {
    let mut window = DedupeWindow::in_memory(options(10)).unwrap();
    window.insert("a", &[1; 32], now()).unwrap();
    assert!(window.contains("a", &[1; 32], now() - 2 * DAY));
    window.insert("b", &[2; 32], now() - 2 * DAY).unwrap();
    assert!(window.contains("a", &[1; 32], now()));
}

#[test]
fn the_oldest_makes_room_for_the_newest() {
    let mut window = DedupeWindow::in_memory(options(3)).unwrap();
    for n in 0..5 {
        assert_eq!(take(&mut window, n), Freshness::Fresh);
    }
    assert_eq!(window.len(), 3);
    assert!(!knows(&window, 0) && !knows(&window, 1));
    assert!(knows(&window, 2) && knows(&window, 3) && knows(&window, 4));
}

#[test]
fn fresh_is_on_file_before_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    for durability in [Durability::Written, Durability::Synced] {
        let mut window = DedupeWindow::open(&path, DedupeOptions { durability, ..options(100) }, now()).unwrap();
        let first = window.len();
        for n in first..first + 5 {
            assert_eq!(take(&mut window, n), Freshness::Fresh);
            assert_eq!(fs::metadata(&path).unwrap().len() as usize, HEADER + (n + 1) * RECORD);
        }
        window.sync().unwrap();
    }
    let window = open(&path, 100);
    assert!((0..10).all(|n| knows(&window, n)));
    assert_eq!(window.recovery().records, 10);
    assert_eq!((window.recovery().damaged, window.recovery().cut_bytes), (0, 0));
}

#[test]
fn what_is_past_its_time_does_not_come_back_with_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    note_all(&mut open(&path, 10), 1..2);
    let window = DedupeWindow::open(&path, options(10), now() + DAY).unwrap();
    assert!(window.is_empty());
}

/// The file is cut at every byte, as a crash may leave it.
#[test]
fn a_torn_tail_costs_the_torn_record_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let mut window = open(&path, 100);
    note_all(&mut window, 0..4);
    drop(window);
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
        assert!((0..4).all(|n| knows(&open(&path, 100), n)), "cut at {len}");
    }
}

/// After a loss of power a file system may show zeros where data was not yet.
#[test]
fn zeros_at_the_end_are_cut_like_a_torn_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
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

#[test]
fn damage_costs_the_damaged_record_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let mut window = open(&path, 100);
    note_all(&mut window, 0..4);
    drop(window);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER + RECORD + 7] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    let window = open(&path, 100);
    assert_eq!(window.recovery().damaged, 1);
    assert!(knows(&window, 0) && !knows(&window, 1) && knows(&window, 2) && knows(&window, 3));
}

#[test]
fn the_files_are_bounded_and_hold_the_whole_window() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let full = (HEADER + 10 * RECORD) as u64;
    let mut window = open(&path, 10);
    for n in 0..37 {
        assert_eq!(take(&mut window, n), Freshness::Fresh);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(names.len() <= 2 && names.iter().all(|file| file.metadata().unwrap().len() <= full));
        let again = open(&path, 10);
        let first = (n + 1).saturating_sub(10);
        assert!((first..=n).all(|n| knows(&again, n)), "after {n}");
        assert_eq!(again.len(), n + 1 - first);
    }
}

#[test]
fn a_crash_in_the_middle_of_a_turn_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let mut window = open(&path, 5);
    note_all(&mut window, 0..5);
    drop(window);
    // The full file has its new name, the next one is not there or not finished.
    fs::rename(&path, dir.path().join("seen.old")).unwrap();
    fs::write(dir.path().join("seen.new"), b"CMQS").unwrap();
    let mut window = open(&path, 5);
    assert!((0..5).all(|n| knows(&window, n)));
    assert_eq!(take(&mut window, 5), Freshness::Fresh);
    drop(window);
    assert!((1..6).all(|n| knows(&open(&path, 5), n)));
}

#[test]
fn a_turn_that_fails_refuses_the_message_and_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let mut window = open(&path, 5);
    note_all(&mut window, 0..5);
    let in_the_way = dir.path().join("seen.new");
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..2 {
        let (id, uniqueness) = message(5);
        let error = window.check_and_insert(&id, &uniqueness, now()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Io { .. }));
        assert!(!knows(&window, 5), "refused and yet noted");
    }
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(take(&mut window, 5), Freshness::Fresh);
    drop(window);
    assert!((1..6).all(|n| knows(&open(&path, 5), n)));
}

#[test]
fn a_file_that_is_something_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    for content in [&b""[..], b"short", &[0; 200], b"CMQSEEN1 but the rest of the header is wrong........"] {
        fs::write(&path, content).unwrap();
        let error = DedupeWindow::open(&path, options(10), now()).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::File { .. }), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn files_of_two_windows_are_not_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    note_all(&mut open(&one, 10), 1..2);
    note_all(&mut open(&other, 10), 2..3);
    fs::rename(&other, dir.path().join("one.old")).unwrap();
    let error = DedupeWindow::open(&one, options(10), now()).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::File { .. }));
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let mut window = open(&path, 2);
    note_all(&mut window, 0..5);
    for entry in fs::read_dir(dir.path()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn limits_outside_their_range_are_refused() {
    for entries in [0, 100_000_001] {
        let error = DedupeWindow::in_memory(options(entries)).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Option { option: "entries", .. }));
    }
}
