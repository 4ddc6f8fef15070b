//! What the machine itself needs for one message at a time: the least any broker that syncs can take.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ciphermq_journal::{Disk as _, FileDisk};

use super::histogram::Histogram;
use super::place::Scratch;
use super::report::{Latency, Row};

/// The file written to: as large as a small segment of the log.
const FILE_BYTES: u64 = 4 << 20;
/// The log is written in blocks.
const BLOCK_BYTES: usize = 4096;
/// What a record has beside the line that brought it: frame, ids, the zeros behind it.
const RECORD_BYTES: usize = 128;

/// The time of one write and sync of as many blocks as a message of `line_bytes` takes, into space that is written already.
pub(super) fn sync_row(below: &Path, plaintext_bytes: usize, line_bytes: usize, time: Duration) -> io::Result<Row> {
    let scratch = Scratch::below(below)?;
    let disk = FileDisk::open(scratch.path())?;
    let file = disk.create("reference", FILE_BYTES)?;
    disk.sync_names()?;
    let write = vec![0x5a; (line_bytes + RECORD_BYTES).next_multiple_of(BLOCK_BYTES)];
    let mut latency = Histogram::new();
    let (began, mut offset, mut messages) = (Instant::now(), 0, 0);
    while began.elapsed() < time {
        if offset + write.len() as u64 > FILE_BYTES {
            offset = 0;
        }
        let started = Instant::now();
        file.write_at(offset, &write)?;
        file.sync()?;
        latency.record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX), 1);
        offset += write.len() as u64;
        messages += 1;
    }
    Ok(Row {
        mode: "write+sync",
        plaintext_bytes,
        line_bytes: write.len(),
        connections: 0,
        window: 1,
        messages,
        messages_per_second: messages as f64 / began.elapsed().as_secs_f64(),
        broker_cpu_us: None,
        latency: Some(Latency::from(&latency)),
    })
}
