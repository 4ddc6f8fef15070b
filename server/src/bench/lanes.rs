use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::histogram::Histogram;
use super::message::{ID_BYTES, Lines, RunClock, stamp};
use super::wire::{Wire, unexpected};

/// When a lane starts to count, stops to send, and how much it sends at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) clock: RunClock,
    /// What comes before is warming up and not counted.
    pub(super) from_nanos: u64,
    pub(super) until_nanos: u64,
    /// Messages of one lane.
    pub(super) messages_max: u64,
}

/// What a lane has seen.
#[derive(Debug)]
pub(super) struct Tally {
    /// Messages counted.
    pub(super) count: u64,
    /// Messages sent, those of the warm-up included.
    pub(super) total: u64,
    pub(super) first_nanos: u64,
    pub(super) last_nanos: u64,
    pub(super) latency: Histogram,
}

impl Tally {
    fn new() -> Tally {
        Tally { count: 0, total: 0, first_nanos: u64::MAX, last_nanos: 0, latency: Histogram::new() }
    }

    fn record(&mut self, course: &Course, sent: u64, now: u64, count: u64) {
        if sent >= course.from_nanos {
            self.first_nanos = self.first_nanos.min(sent);
            self.last_nanos = now;
            self.count += count;
            self.latency.record(now.saturating_sub(sent), count);
        }
    }
}

/// Messages under way between publishers and consumers, from the send to the confirmed ack: keeps a run from measuring a growing queue.
#[derive(Debug)]
pub(super) struct Backlog {
    sent: AtomicU64,
    received: AtomicU64,
    max: u64,
}

impl Backlog {
    /// At most `max` messages under way, `sent` of them from the start.
    pub(super) fn new(max: u64, sent: u64) -> Backlog {
        Backlog { sent: AtomicU64::new(sent), received: AtomicU64::new(0), max }
    }

    fn is_full(&self) -> bool {
        self.sent.load(Ordering::Relaxed) >= self.received.load(Ordering::Relaxed) + self.max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.load(Ordering::Acquire) == self.received.load(Ordering::Acquire)
    }
}

/// Publishes with at most `window` messages unanswered, until the course is over and everything is answered.
///
/// `reply` is how a good answer starts.
pub(super) fn publish(
    wire: &mut Wire,
    lines: &mut Lines,
    window: usize,
    reply: &[u8],
    course: &Course,
    backlog: Option<&Backlog>,
) -> io::Result<Tally> {
    /// How long to wait for consumers that are behind.
    const BEHIND: Duration = Duration::from_micros(50);
    let mut tally = Tally::new();
    // Lines are written in batches; each has one time, and replies come in order.
    let mut batches: VecDeque<(u64, usize)> = VecDeque::with_capacity(window);
    let mut in_flight = 0;
    // Refilling the window for every single answer would be as many writes as messages.
    let refill = (window / 8).clamp(1, lines.chunk());
    loop {
        let now = course.clock.nanos();
        let left = course.messages_max - tally.total;
        let sending = now < course.until_nanos && left > 0;
        let behind = backlog.is_some_and(Backlog::is_full);
        if sending && !behind && window - in_flight >= refill {
            let count = (window - in_flight).min(lines.chunk()).min(usize::try_from(left).unwrap_or(usize::MAX));
            if let Some(backlog) = backlog {
                backlog.sent.fetch_add(count as u64, Ordering::Release);
            }
            wire.socket.write_all(lines.next(count, now))?;
            batches.push_back((now, count));
            in_flight += count;
            tally.total += count as u64;
            continue;
        }
        if in_flight == 0 {
            if !sending {
                return Ok(tally);
            }
            thread::sleep(BEHIND);
            continue;
        }
        wire.read()?;
        let answered = count_replies(wire, reply)?;
        in_flight -= answered;
        settle(&mut tally, &mut batches, answered, course);
    }
}

fn count_replies(wire: &mut Wire, reply: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(line) = wire.next_line() {
        if !line.starts_with(reply) {
            return Err(unexpected(line));
        }
        count += 1;
    }
    Ok(count)
}

fn settle(tally: &mut Tally, batches: &mut VecDeque<(u64, usize)>, mut answered: usize, course: &Course) {
    let now = course.clock.nanos();
    while answered > 0
        && let Some((sent, left)) = batches.front_mut()
    {
        let count = answered.min(*left);
        tally.record(course, *sent, now, count as u64);
        *left -= count;
        answered -= count;
        if *left == 0 {
            batches.pop_front();
        }
    }
}

/// Takes deliveries and acks each, until `is_over` is set and the caller has shut the socket down for reading, which
/// is what wakes a consumer that waits for a message nobody will send.
pub(super) fn consume(wire: &mut Wire, course: &Course, backlog: &Backlog, is_over: &AtomicBool) -> io::Result<Tally> {
    let mut tally = Tally::new();
    let mut acks: Vec<u8> = Vec::with_capacity(64 << 10);
    let mut unconfirmed = 0_u64;
    loop {
        let now = course.clock.nanos();
        let mut confirmed = 0;
        while let Some(line) = wire.next_line() {
            if line.starts_with(b"ACK_CONFIRMED ") {
                confirmed += 1;
                continue;
            }
            let id = line.strip_prefix(b"Message: ").and_then(|rest| rest.get(..ID_BYTES));
            let Some((id, sent)) = id.and_then(|id| Some((id, stamp(id)?))) else { return Err(unexpected(line)) };
            acks.extend_from_slice(b"ack ");
            acks.extend_from_slice(id);
            acks.push(b'\n');
            tally.total += 1;
            unconfirmed += 1;
            tally.record(course, sent, now, 1);
        }
        if !acks.is_empty() {
            wire.socket.write_all(&acks)?;
            acks.clear();
        }
        unconfirmed = unconfirmed.saturating_sub(confirmed);
        backlog.received.fetch_add(confirmed, Ordering::Release);
        match wire.read() {
            Err(_) if unconfirmed == 0 && is_over.load(Ordering::Acquire) => return Ok(tally),
            read => read?,
        }
    }
}
