//! The files of a window of seen messages, damaged or made up.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use cipher_client::ErrorKind;
use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Freshness};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

use super::edits::{Program, edit};

/// Whatever is in the files of a window: it is refused and left alone, or the window that opens knows no message that it was
/// not given, and what it notes from then on it knows.
pub fn seen(input: &[u8]) {
    static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(good_files);
    thread_local!(static DIR: TempDir = tempfile::tempdir().expect("a folder"));
    let mut program = Program::new(input);
    let mut file = FILES[program.below(FILES.len())].clone();
    let entries = ENTRIES[usize::from(program.byte()) % ENTRIES.len()];
    let is_checked_again = program.byte() % 2 == 1;
    for _ in 0..program.steps() {
        // Half of the changes to the first copy of the header, which is small beside the records.
        match program.byte() % 2 {
            0 => edit(&mut file, &mut program),
            _ => {
                let mut header: Vec<u8> = file.drain(..file.len().min(HEADER_LEN)).collect();
                edit(&mut header, &mut program);
                file.splice(..0, header);
            }
        }
    }
    if is_checked_again && let Some(header) = file.first_chunk_mut::<HEADER_LEN>() {
        let check = xxh3_64(&header[..HEADER_LEN - 8]);
        header[HEADER_LEN - 8..].copy_from_slice(&check.to_le_bytes());
    }
    DIR.with(|dir| check(&dir.path().join("seen"), &file, entries, program.rest()));
}

fn check(path: &Path, file: &[u8], entries: usize, index: &[u8]) {
    fs::write(path, file).expect("the folder can be written");
    fs::write(beside(path, ".index"), index).expect("the folder can be written");
    let options = DedupeOptions { entries, ..DedupeOptions::default() };
    match DedupeWindow::open(path, options, now()) {
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::File { .. }), "{error}");
            assert!(fs::read(path).expect("it is there") == file, "what is refused is left as it is");
        }
        Ok(mut window) => {
            let new = NOTED..NOTED + entries;
            assert!(new.clone().all(|n| !knows(&window, n)), "knows what it was not given");
            let (id, uniqueness) = message(NOTED);
            assert_eq!(window.check_and_insert(&id, &uniqueness, now()).expect("the disk works"), Freshness::Fresh);
            drop(window);
            let mut window = DedupeWindow::open(path, options, now()).expect("what was opened opens again");
            assert!(knows(&window, NOTED));
            new.skip(1).for_each(|n| insert(&mut window, n));
            assert!((NOTED..NOTED + entries).all(|n| knows(&window, n)));
        }
    }
    remove_all_beside(path);
}

/// Each has more than one segment, or its place beside another file.
const ENTRIES: [usize; 3] = [1, 63, 150];
const HEADER_LEN: usize = 48;
/// Messages of the files that are damaged have lower numbers.
const NOTED: usize = 10_000;

fn good_files() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("seen");
    let mut files = vec![Vec::new()];
    for (entries, count) in [(63, 5), (63, 64), (150, 150), (150, 700)] {
        let options = DedupeOptions { entries, ..DedupeOptions::default() };
        let mut window = DedupeWindow::open(&path, options, now()).expect("a window");
        (0..count).for_each(|n| insert(&mut window, n));
        drop(window);
        files.push(fs::read(&path).expect("it was written"));
        remove_all_beside(&path);
    }
    files
}

fn insert(window: &mut DedupeWindow, n: usize) {
    let (id, uniqueness) = message(n);
    window.insert(&id, &uniqueness, now()).expect("the disk works");
}

fn knows(window: &DedupeWindow, n: usize) -> bool {
    let (id, uniqueness) = message(n);
    window.contains(&id, &uniqueness, now())
}

fn message(n: usize) -> (String, [u8; 32]) {
    let mut uniqueness = [0xa5; 32];
    uniqueness[..8].copy_from_slice(&n.to_le_bytes());
    (format!("message-{n}"), uniqueness)
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove_all_beside(path: &Path) {
    let folder = path.parent().expect("in a folder");
    for entry in fs::read_dir(folder).expect("a folder") {
        fs::remove_file(entry.expect("an entry").path()).expect("it can be removed");
    }
}
