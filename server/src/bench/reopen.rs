//! How long a broker takes to be there again.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::message::Template;
use super::place::{Scratch, broker_in};
use super::report::ReopenRow;
use super::runs::Stage;

/// Fills a broker with `count` messages, ends it by a signal and by force, and starts it again after each.
pub(super) fn rows(below: &Path, template: &Template, count: u64) -> io::Result<[ReopenRow; 2]> {
    let scratch = Scratch::below(below)?;
    let server = broker_in(scratch.path())?;
    let (queue, payload_bytes) = Stage::open(server.address, None)?.fill_for_good(template, count)?;
    server.stop()?;
    let stopped = timed(scratch.path(), &queue, count)?;
    let killed = timed(scratch.path(), &queue, count)?;
    let disk_bytes = scratch.bytes()?;
    let row = |mode, time: Duration| ReopenRow { mode, count, payload_bytes, disk_bytes, seconds: time.as_secs_f64() };
    Ok([row("reopen", stopped), row("reopen killed", killed)])
}

/// From the start of the process to its ready line. The process is killed when all messages were there.
fn timed(dir: &Path, queue: &str, count: u64) -> io::Result<Duration> {
    let began = Instant::now();
    let server = broker_in(dir)?;
    let time = began.elapsed();
    let ready = Stage::open(server.address, None)?.ready(queue)?;
    if ready == count {
        return Ok(time);
    }
    Err(io::Error::new(ErrorKind::InvalidData, format!("{ready} of {count} messages were there again")))
}
