//! How fast the log takes entries, beside what the disk itself can do in the same minute.
//!
//! ```sh
//! cargo run --release -p ciphermq-journal --example journal_speed [directory]
//! ```
//!
//! For each size: a plain loop that writes and syncs the same bytes into a prepared file, then the log with one submitter and one entry at a
//! time, then four submitters with 256 entries under way each. Every entry is synced before it counts.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring program")]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ciphermq_journal::{
    Commit, Disk, Doorbell, Entry, FileDisk, Journal, JournalOptions, Owner, Position, Receipt, Space, Undecodable,
};

const SIZES: [usize; 3] = [500, 2_000, 22_500];
const SECONDS: Duration = Duration::from_secs(2);
const SUBMITTERS: usize = 4;
const WINDOW: usize = 256;
/// As many at a time as a busy connection finds in its socket.
const PER_SUBMISSION: usize = 32;

fn main() {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    for size in SIZES {
        let directory = base.join(format!("journal-speed-{}", std::process::id()));
        for line in [plain(&directory, size, 1), plain(&directory, size, 256)] {
            println!("{line}");
        }
        println!("{}", log(&directory, size, 1, 1, 1));
        println!("{}", log(&directory, size, SUBMITTERS, WINDOW, PER_SUBMISSION));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

/// What the disk can do: `entries` at a time written into a prepared file and synced.
fn plain(directory: &Path, size: usize, entries: usize) -> String {
    const FILE: u64 = 256 << 20;
    let disk = FileDisk::open(directory).unwrap();
    let file = disk.create("plain", FILE).unwrap();
    let bytes = vec![7; (size * entries).next_multiple_of(4096)];
    let (start, mut offset, mut times) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < SECONDS / 2 {
        let begun = Instant::now();
        file.write_at(offset, &bytes).unwrap();
        file.sync().unwrap();
        times.push(begun.elapsed());
        offset = (offset + bytes.len() as u64) % (FILE - bytes.len() as u64).next_multiple_of(4096);
    }
    let done = times.len() * entries;
    disk.remove("plain").unwrap();
    line(&format!("{size:>6} B  plain write and sync of {entries}"), done, start.elapsed(), &mut times)
}

fn log(directory: &Path, size: usize, submitters: usize, window: usize, per_submission: usize) -> String {
    let disk = Arc::new(FileDisk::open(directory).unwrap());
    let (journal, _) = Journal::open(disk, JournalOptions::default(), Forgets).unwrap();
    let start = Instant::now();
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let submit = || submitter(&journal, size, window, per_submission);
        let threads: Vec<_> = (0..submitters).map(|_| scope.spawn(submit)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let took = start.elapsed();
    journal.close();
    let done = times.len() * per_submission;
    line(&format!("{size:>6} B  log, {submitters} x {window}"), done, took, &mut times)
}

/// Keeps up to `window` entries under way; how long each submission took to be committed.
fn submitter(journal: &Journal<Blob>, size: usize, window: usize, per_submission: usize) -> Vec<Duration> {
    let bell = Arc::new(Doorbell::new());
    let text: Arc<[u8]> = vec![7; size].into();
    let (mut waiting, mut times) = (std::collections::VecDeque::<(Receipt, Instant)>::new(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < SECONDS {
        while waiting.len() * per_submission < window {
            let mut entries = (0..per_submission).map(|_| Blob(Arc::clone(&text))).collect();
            waiting.push_back((journal.submit(&mut entries, &bell).unwrap(), Instant::now()));
        }
        wait(&bell);
        while let Some(&(receipt, begun)) = waiting.front() {
            let Some(outcome) = journal.outcome(receipt) else { break };
            outcome.unwrap();
            times.push(begun.elapsed());
            waiting.pop_front();
        }
    }
    times
}

fn wait(bell: &Doorbell) {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    while bell.poll_rung(&mut Context::from_waker(&waker)) == Poll::Pending {
        thread::park();
    }
}

fn line(what: &str, done: usize, took: Duration, times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |per_cent: usize| times.get(times.len() * per_cent / 100).map_or(0, Duration::as_micros);
    let per_second = done as f64 / took.as_secs_f64();
    format!("{what:<40} {per_second:>9.0} /s   p50 {:>6} us   p99 {:>6} us", at(50), at(99))
}

struct Blob(Arc<[u8]>);

impl Entry for Blob {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

/// An owner for whom nothing matters once it is committed: segments are reused at once.
struct Forgets;

impl Commit<Blob> for Forgets {
    fn commit(&mut self, _: Position, _: Blob, _: &mut Space) {}

    fn refuse(&mut self, _: Blob) {}
}

impl Owner<Blob> for Forgets {
    fn recover(&mut self, _: Position, _: &[u8], _: &mut Space) -> Result<(), Undecodable> {
        Ok(())
    }

    fn checkpoint(&mut self, _: &mut Vec<Blob>) {}

    fn carry(&mut self, _: Position, _: &[u8], _: &mut Vec<Blob>) {}

    fn carry_rest(&mut self, _: Range<Position>, _: &mut Vec<Blob>) {}
}
