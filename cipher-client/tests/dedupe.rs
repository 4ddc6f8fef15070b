//! What the window of seen messages promises, across restarts.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cipher_client::ErrorKind;
use cipher_client::crypto::{Kid, Sender};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Durability, Freshness, MessageKey};

const DAY: Duration = Duration::from_secs(86_400);
const HEADER: usize = 8192;
const RECORD: usize = 32;
/// Slots of the smallest ring.
const SLOTS: usize = 64;

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

/// Who can send unsigned messages must not be able to use up the ids of one
/// who signs.
#[test]
fn ids_of_different_senders_are_different_ids() {
    let dir = tempfile::tempdir().unwrap();
    for mut window in [DedupeWindow::in_memory(options(10)).unwrap(), open(&dir.path().join("seen"), 10)] {
        let key = MessageKey::new("a", &[1; 32]);
        assert_eq!(window.check_and_insert_key(&key, now()).unwrap(), Freshness::Fresh);
        let (ann, bob) = (Kid::from_bytes([7; 32]), Kid::from_bytes([8; 32]));
        let of_ann = MessageKey::new("a", &[2; 32]).signed_by(&ann);
        let of_bob = MessageKey::new("a", &[3; 32]).signed_by(&bob);
        assert_eq!(window.check_and_insert_key(&of_ann, now()).unwrap(), Freshness::Fresh);
        assert_eq!(window.check_and_insert_key(&of_bob, now()).unwrap(), Freshness::Fresh);
        assert!(window.contains_key(&MessageKey::new("a", &[9; 32]).signed_by(&ann), now()).unwrap());
        assert!(window.contains_key(&MessageKey::new("b", &[2; 32]), now()).unwrap(), "stripped of its signature");
        assert!(!window.contains_key(&MessageKey::new("b", &[9; 32]).signed_by(&ann), now()).unwrap());
        window.insert_key(&of_bob, now()).unwrap();
        let new = MessageKey::new("a", &[9; 32]);
        let stranger = Kid::from_bytes([9; 32]);
        for known in [Sender::Unsigned, Sender::Unknown(stranger), Sender::Signed(ann)] {
            assert!(window.contains_key(&new.sent_by(&known), now()).unwrap(), "{known:?}");
        }
        assert!(!window.contains_key(&new.sent_by(&Sender::Signed(stranger)), now()).unwrap());
        assert_eq!(window.len(), 3);
    }
}

/// A copy without its signature is known by its sealing; but what has the sealing
/// of a signed message, or was shown before it, does not keep that out.
#[test]
fn a_sealing_keeps_out_unsigned_messages_only() {
    let dir = tempfile::tempdir().unwrap();
    let (ann, bob) = (Kid::from_bytes([7; 32]), Kid::from_bytes([8; 32]));
    for mut window in [DedupeWindow::in_memory(options(10)).unwrap(), open(&dir.path().join("seen"), 10)] {
        let key = |id| MessageKey::new(id, &[1; 32]);
        let mut note = |key: &MessageKey<'_>| window.check_and_insert_key(key, now()).unwrap();
        assert_eq!(note(&key("a")), Freshness::Fresh);
        assert_eq!(note(&key("b").signed_by(&ann)), Freshness::Fresh, "after a copy without its signature");
        assert_eq!(note(&key("c").signed_by(&bob)), Freshness::Fresh, "made by another to look like it");
        assert_eq!(note(&key("b").signed_by(&ann)), Freshness::Duplicate);
        assert_eq!(note(&key("d")), Freshness::Duplicate);
    }
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
    let dir = tempfile::tempdir().unwrap();
    for mut window in [DedupeWindow::in_memory(options(10)).unwrap(), open(&dir.path().join("seen"), 10)] {
        window.insert("a", &[1; 32], now()).unwrap();
        assert!(window.contains("a", &[1; 32], now() + DAY - Duration::from_secs(1)));
        assert!(!window.contains("a", &[1; 32], now() + DAY));
        window.insert("b", &[2; 32], now() + DAY).unwrap();
        assert_eq!(window.len(), 1, "the expired one makes room");
    }
}

#[test]
fn a_clock_set_back_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for mut window in [DedupeWindow::in_memory(options(10)).unwrap(), open(&dir.path().join("seen"), 10)] {
        window.insert("a", &[1; 32], now()).unwrap();
        assert!(window.contains("a", &[1; 32], now() - 2 * DAY));
        window.insert("b", &[2; 32], now() - 2 * DAY).unwrap();
        assert!(window.contains("a", &[1; 32], now()));
    }
}

#[test]
fn the_oldest_makes_room_for_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    for mut window in [DedupeWindow::in_memory(options(3)).unwrap(), open(&dir.path().join("seen"), 3)] {
        for n in 0..500 {
            assert_eq!(take(&mut window, n), Freshness::Fresh);
            let first = (n + 1).saturating_sub(3);
            assert_eq!(window.len(), n + 1 - first);
            assert!((first..=n).all(|n| knows(&window, n)));
            assert!((0..first).rev().take(200).all(|n| !knows(&window, n)));
        }
    }
}

/// Every segment and every lap of the ring begins at another of these points.
#[test]
fn a_restart_at_any_point_forgets_nothing_and_invents_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for entries in [1, 63, 64, 150] {
        let path = dir.path().join(format!("seen-{entries}"));
        for n in 0..2 * SLOTS.max(entries) + SLOTS {
            let mut window = open(&path, entries);
            let first = n.saturating_sub(entries);
            assert_eq!(window.len(), n - first, "{entries} {n}");
            assert!((first..n).all(|n| knows(&window, n)), "{entries} {n}");
            assert!((0..first).rev().take(70).all(|n| !knows(&window, n)), "{entries} {n}");
            assert_eq!((window.recovery().damaged, window.recovery().cut_bytes), (0, 0));
            assert_eq!(take(&mut window, n), Freshness::Fresh);
        }
        let slots = (entries / SLOTS + 1) * SLOTS;
        assert_eq!(fs::metadata(&path).unwrap().len() as usize, HEADER + slots * RECORD, "the file is bounded");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len() % 2, 0, "a ring and an index: {names:?}");
    }
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
}

#[test]
fn what_is_past_its_time_does_not_come_back_with_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    note_all(&mut open(&path, 1000), 0..700);
    let window = DedupeWindow::open(&path, options(1000), now() + DAY).unwrap();
    assert!(window.is_empty());
    let (id, uniqueness) = message(3);
    assert!(!window.contains(&id, &uniqueness, now() + DAY));
}

/// A report that is sent under one id day after day stands in more segments
/// than the filter has room for at one place.
#[test]
fn an_id_that_is_used_again_when_its_time_is_over_is_new_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let mut window = open(&path, 3000);
    let mut others = 0..;
    for day in 0..100 {
        let today = now() + day * DAY;
        for id in ["report", "summary"] {
            let uniqueness = message(1_000_000 + others.next().unwrap()).1;
            assert_eq!(window.check_and_insert(id, &uniqueness, today).unwrap(), Freshness::Fresh, "day {day}");
            let other = message(1_000_000 + others.next().unwrap()).1;
            let later = today + DAY - Duration::from_secs(1);
            assert_eq!(window.check_and_insert(id, &other, later).unwrap(), Freshness::Duplicate, "day {day}");
        }
        for n in others.by_ref().take(80) {
            let (id, uniqueness) = message(n);
            assert_eq!(window.check_and_insert(&id, &uniqueness, today).unwrap(), Freshness::Fresh);
        }
        if day % 10 == 9 {
            drop(window);
            window = open(&path, 3000);
        }
    }
}

#[test]
fn windows_of_one_process_on_one_file_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let (mut one, mut other) = (open(&path, 10), open(&dir.path().join(".").join("seen"), 10));
    note_all(&mut one, 0..1);
    assert!(knows(&other, 0));
    note_all(&mut other, 1..2);
    drop(one);
    assert!(knows(&other, 1));
    drop(other);
    assert_eq!(open(&path, 10).recovery().records, 2);
}

#[test]
fn another_process_is_kept_out_until_the_window_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    // A lock belongs to a handle: this one stands for that of another process.
    let foreign = File::create(dir.path().join("seen.index")).unwrap();
    foreign.try_lock().unwrap();
    let error = DedupeWindow::open(&path, options(10), now()).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::File { reason: "in use by another process", .. }), "{error:?}");
    foreign.unlock().unwrap();
    let window = open(&path, 10);
    assert!(foreign.try_lock().is_err());
    drop(window);
    foreign.try_lock().unwrap();
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    File::create(&path).unwrap();
    note_all(&mut open(&path, 2), 0..5);
    note_all(&mut open(&path, 2000), 5..6);
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

/// A window that is made smaller keeps its newest, one made larger all.
#[test]
fn another_size_takes_over_what_was_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    note_all(&mut open(&path, 1000), 0..1500);
    let mut window = open(&path, 300);
    assert!((1200..1500).all(|n| knows(&window, n)) && (0..1200).all(|n| !knows(&window, n)));
    note_all(&mut window, 1500..1600);
    drop(window);
    let mut window = open(&path, 5000);
    assert!((1300..1600).all(|n| knows(&window, n)));
    note_all(&mut window, 1600..6000);
    drop(window);
    let window = open(&path, 5000);
    assert!((1300..6000).all(|n| knows(&window, n)));
}
