//! A window on a disk that fails.

use std::error::Error as _;
use std::fs;
use std::path::Path;

use super::positioned::faults::{set_room, set_unreadable};
use super::*;

const ENTRIES: usize = 1000;
/// Of a disk. The records in it are those of messages 128 to 143.
const SECTOR: std::ops::Range<u64> = 8192 + 4096..8192 + 4096 + 512;
const IN_SECTOR: std::ops::Range<usize> = 128..144;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn try_open(path: &Path) -> Result<DedupeWindow> {
    DedupeWindow::open(path, DedupeOptions { entries: ENTRIES, ..DedupeOptions::default() }, now())
}

fn take(window: &mut DedupeWindow, n: usize) -> Result<Freshness> {
    window.check_and_insert(&format!("message-{n}"), &[n as u8; 32], now())
}

fn known(window: &DedupeWindow, messages: std::ops::Range<usize>) -> Vec<usize> {
    let is_known = |n: &usize| window.contains(&format!("message-{n}"), &[0xff; 32], now());
    messages.filter(is_known).collect()
}

/// The file `seen` with the first `count` messages noted.
fn noted(dir: &Path, count: usize) -> (PathBuf, DedupeWindow) {
    let path = dir.join("seen");
    let mut window = try_open(&path).unwrap();
    for n in 0..count {
        // By the id alone: there are fewer sealings than messages here.
        let mut uniqueness = [0; 32];
        uniqueness[..8].copy_from_slice(&n.to_le_bytes());
        window.insert(&format!("message-{n}"), &uniqueness, now()).unwrap();
    }
    (path, window)
}

#[test]
fn a_sector_that_cannot_be_read_forgets_nothing_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (path, window) = noted(dir.path(), 200);
    drop(window);
    let before = fs::read(&path).unwrap();

    set_unreadable(SECTOR);
    for _ in 0..2 {
        let error = try_open(&path).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Io { .. }), "{error}");
        let told = format!("{error}: {}", error.source().unwrap());
        assert!(told.starts_with(path.to_str().unwrap()), "{told}");
        assert!(told.contains("at byte 12288: ") && told.contains("dd conv=noerror"), "{told}");
    }
    set_unreadable(0..0);
    assert!(fs::read(&path).unwrap() == before);
    let window = try_open(&path).unwrap();
    assert_eq!(known(&window, 0..300), (0..200).collect::<Vec<_>>());
    assert_eq!(window.recovery(), Recovery { records: 200, ..Recovery::default() });
    drop(window);

    // What the copy has that the message speaks of.
    let mut copy = before;
    copy[SECTOR.start as usize..SECTOR.end as usize].fill(0);
    fs::write(&path, copy).unwrap();
    let window = try_open(&path).unwrap();
    assert_eq!(window.recovery().damaged, IN_SECTOR.len() as u64);
    assert_eq!((0..200).filter(|n| !known(&window, *n..n + 1).is_empty()).count(), 200 - IN_SECTOR.len());
    assert!(known(&window, IN_SECTOR).is_empty());
}

/// A message that may be in it is not new.
#[test]
fn a_message_that_cannot_be_looked_up_is_neither_new_nor_known() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut window) = noted(dir.path(), 200);
    set_unreadable(SECTOR);
    let key = MessageKey::new("message-130", &[0xff; 32]);
    for _ in 0..2 {
        assert!(matches!(window.contains_key(&key, now()).unwrap_err().kind(), ErrorKind::Io { .. }));
        assert!(matches!(window.check_and_insert_key(&key, now()).unwrap_err().kind(), ErrorKind::Io { .. }));
    }
    set_unreadable(0..0);
    assert_eq!(window.check_and_insert_key(&key, now()).unwrap(), Freshness::Duplicate);
    assert_eq!(window.len(), 200);
}

/// At each byte of a note, and with a segment that ends.
#[test]
fn a_full_disk_lets_no_message_through_that_is_not_noted() {
    for count in [5, 64, 128] {
        for room in 0..32 {
            let dir = tempfile::tempdir().unwrap();
            let (path, mut window) = noted(dir.path(), count);
            set_room(room);
            for _ in 0..2 {
                let error = take(&mut window, count).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Io { .. }), "{count} {room}: {error}");
                assert_eq!(known(&window, 0..count + 1), (0..count).collect::<Vec<_>>(), "{count} {room}");
            }
            if room % 2 == 0 {
                // The process ends while the disk is full.
                set_room(usize::MAX);
                drop(window);
                window = try_open(&path).unwrap();
                assert_eq!(known(&window, 0..count + 1), (0..count).collect::<Vec<_>>(), "{count} {room}");
            }
            set_room(usize::MAX);
            assert_eq!(take(&mut window, count).unwrap(), Freshness::Fresh, "{count} {room}");
            assert_eq!(take(&mut window, count).unwrap(), Freshness::Duplicate, "{count} {room}");
            drop(window);
            let window = try_open(&path).unwrap();
            assert_eq!(known(&window, 0..count + 1), (0..=count).collect::<Vec<_>>(), "{count} {room}");
            assert_eq!(window.recovery().damaged, 0, "{count} {room}");
        }
    }
}
