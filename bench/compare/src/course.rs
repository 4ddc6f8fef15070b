use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::sync::Barrier;

use crate::message::Messages;

/// How long a publisher waits when consumers are behind and nothing of its own is in flight.
const BEHIND: Duration = Duration::from_millis(1);

/// What all connections of a run share: its clock, when it counts, and how many messages are under way.
#[derive(Debug)]
pub(crate) struct Course {
    clock: OnceLock<Instant>,
    gate: Barrier,
    /// What comes before is warming up and not counted.
    from: Duration,
    /// Publishers stop here; what comes after is not counted either.
    until: Duration,
    under_way_max: u64,
    /// Publishers stop here too.
    messages_max: u64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    acknowledged_counted: AtomicU64,
    last_nanos: AtomicU64,
}

impl Course {
    /// `lanes` connections and the conductor begin together; what happens in `counted` is counted, and at the end of it
    /// publishers stop.
    pub(crate) fn new(lanes: u16, counted: Range<Duration>) -> Course {
        Course {
            clock: OnceLock::new(),
            gate: Barrier::new(usize::from(lanes) + 1),
            from: counted.start,
            until: counted.end,
            under_way_max: u64::MAX,
            messages_max: u64::MAX,
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            acknowledged_counted: AtomicU64::new(0),
            last_nanos: AtomicU64::new(0),
        }
    }

    /// Publishers wait while more messages than this are sent and not acknowledged.
    pub(crate) fn under_way_max(self, under_way_max: u64) -> Course {
        Course { under_way_max, ..self }
    }

    /// Publishers stop after so many messages, all lanes together.
    pub(crate) fn messages_max(self, messages_max: u64) -> Course {
        Course { messages_max, ..self }
    }

    /// Waits until every lane has connected.
    pub(crate) async fn begin(&self) {
        self.gate.wait().await;
        self.clock.get_or_init(Instant::now);
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    /// Seconds that were counted, when the last thing to be counted happened at `last`.
    pub(crate) fn counted_seconds(&self, last: Duration) -> f64 {
        let is_cut_short = self.sent() >= self.messages_max;
        let until = if is_cut_short { last.min(self.until) } else { self.until };
        until.saturating_sub(self.from).as_secs_f64()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    pub(crate) fn acknowledged_counted(&self) -> u64 {
        self.acknowledged_counted.load(Ordering::Acquire)
    }

    /// When the last message was acknowledged.
    pub(crate) fn last(&self) -> Duration {
        Duration::from_nanos(self.last_nanos.load(Ordering::Acquire))
    }

    fn counts(&self, now: Duration) -> bool {
        (self.from..self.until).contains(&now)
    }

    /// Takes up to `wanted` of the messages that are left to send.
    fn take(&self, wanted: usize) -> usize {
        let sent = self.sent.fetch_add(wanted as u64, Ordering::AcqRel);
        let left = self.messages_max.saturating_sub(sent).min(wanted as u64);
        self.sent.fetch_sub(wanted as u64 - left, Ordering::AcqRel);
        usize::try_from(left).unwrap_or(wanted)
    }

    fn is_behind(&self) -> bool {
        self.sent() >= self.acknowledged().saturating_add(self.under_way_max)
    }
}

/// What a publisher is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Publish this many messages.
    Send(usize),
    /// Wait for confirms.
    Wait,
    /// Nothing to wait for: consumers are behind.
    Pause,
    Done,
}

/// One publishing connection: the same rules for every client.
#[derive(Debug)]
pub(crate) struct Publishing {
    course: Arc<Course>,
    messages: Messages,
    window: usize,
    /// Refilling the window for every single confirm would be as many writes as messages.
    refill: usize,
    in_flight: usize,
    /// Messages sent in one turn have one time; confirms come in the order of the publishes.
    batches: VecDeque<(Duration, usize)>,
    tally: Tally,
}

/// What a publisher has seen in the counted time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) confirmed: u64,
    /// Confirmed at any time.
    pub(crate) confirmed_total: u64,
    pub(crate) last: Duration,
    /// Nanoseconds from publish to confirm.
    pub(crate) latencies: Vec<u32>,
}

impl Publishing {
    /// `window` messages are unconfirmed at a time.
    pub(crate) fn new(course: &Arc<Course>, messages: Messages, window: usize) -> Publishing {
        Publishing {
            course: Arc::clone(course),
            messages,
            window,
            refill: (window / 8).max(1),
            in_flight: 0,
            batches: VecDeque::with_capacity(window),
            tally: Tally::default(),
        }
    }

    /// To be called once, when the connection stands.
    pub(crate) async fn begin(&self) {
        self.course.begin().await;
    }

    pub(crate) fn turn(&mut self) -> Turn {
        let now = self.course.now();
        let waiting = if self.in_flight > 0 { Turn::Wait } else { Turn::Pause };
        let free = self.window - self.in_flight;
        if now >= self.course.until {
            return if self.in_flight > 0 { Turn::Wait } else { Turn::Done };
        }
        if free < self.refill || self.course.is_behind() {
            return waiting;
        }
        let count = self.course.take(free);
        if count == 0 {
            return if self.in_flight > 0 { Turn::Wait } else { Turn::Done };
        }
        self.in_flight += count;
        self.batches.push_back((now, count));
        Turn::Send(count)
    }

    pub(crate) async fn pause(&self) {
        tokio::time::sleep(BEHIND).await;
    }

    /// The next message to publish.
    pub(crate) fn message(&mut self) -> &[u8] {
        self.messages.next()
    }

    /// The broker has confirmed `count` more messages.
    ///
    /// # Errors
    ///
    /// More confirms than publishes.
    pub(crate) fn confirmed(&mut self, mut count: usize) -> Result<()> {
        ensure!(count <= self.in_flight, "the broker confirmed more messages than it was sent");
        let now = self.course.now();
        self.in_flight -= count;
        self.tally.confirmed_total += count as u64;
        self.tally.last = now;
        let counts = self.course.counts(now);
        while count > 0
            && let Some((sent, left)) = self.batches.front_mut()
        {
            let part = count.min(*left);
            if counts {
                let nanos = u32::try_from((now - *sent).as_nanos()).unwrap_or(u32::MAX);
                self.tally.latencies.extend(std::iter::repeat_n(nanos, part));
                self.tally.confirmed += part as u64;
            }
            *left -= part;
            count -= part;
            if *left == 0 {
                self.batches.pop_front();
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Tally {
        self.tally
    }
}

/// One consuming connection.
#[derive(Debug, Clone)]
pub(crate) struct Consuming {
    course: Arc<Course>,
    /// Which of the consumers this is.
    pub(crate) lane: u16,
    /// Deliveries a consumer may hold unacknowledged.
    pub(crate) prefetch: u16,
    /// The messages are in the queue already and no further ones come.
    pub(crate) is_stored: bool,
    message_len: usize,
}

impl Consuming {
    pub(crate) fn new(
        course: &Arc<Course>,
        lane: u16,
        prefetch: u16,
        is_stored: bool,
        message_len: usize,
    ) -> Consuming {
        Consuming { course: Arc::clone(course), lane, prefetch, is_stored, message_len }
    }

    /// To be called once, when the connection stands and before a stored message is asked for.
    pub(crate) async fn begin(&self) {
        self.course.begin().await;
    }

    /// Looks at a body that was delivered.
    ///
    /// # Errors
    ///
    /// It has not the length of those that were sent.
    pub(crate) fn received(&self, body_len: usize) -> Result<()> {
        ensure!(body_len == self.message_len, "received {body_len} bytes, sent {}", self.message_len);
        Ok(())
    }

    /// `count` more messages are acknowledged.
    pub(crate) fn acknowledged(&self, count: usize) {
        let now = self.course.now();
        if self.course.counts(now) {
            self.course.acknowledged_counted.fetch_add(count as u64, Ordering::Release);
        }
        self.course.last_nanos.fetch_max(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        self.course.acknowledged.fetch_add(count as u64, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publishing(window: usize, messages_max: u64, under_way_max: u64) -> (Arc<Course>, Publishing) {
        let course = Course::new(0, Duration::ZERO..Duration::from_secs(3600));
        let course = Arc::new(course.under_way_max(under_way_max).messages_max(messages_max));
        course.clock.get_or_init(Instant::now);
        let lane = Publishing::new(&course, Messages::new(1, 0), window);
        (course, lane)
    }

    #[test]
    fn a_window_is_filled_whole_and_refilled_in_parts() {
        let (_, mut lane) = publishing(64, 100, u64::MAX);
        assert_eq!(lane.turn(), Turn::Send(64));
        assert_eq!(lane.turn(), Turn::Wait);
        lane.confirmed(7).unwrap();
        assert_eq!(lane.turn(), Turn::Wait);
        lane.confirmed(1).unwrap();
        assert_eq!(lane.turn(), Turn::Send(8));
        lane.confirmed(64).unwrap();
        assert_eq!(lane.turn(), Turn::Send(28));
        lane.confirmed(28).unwrap();
        assert_eq!(lane.turn(), Turn::Done);
        assert!(lane.confirmed(1).is_err());
        let tally = lane.finish();
        assert_eq!((tally.confirmed, tally.latencies.len()), (100, 100));
    }

    #[test]
    fn publishers_wait_for_consumers_that_are_behind() {
        let (course, mut lane) = publishing(4, 100, 4);
        let consumer = Consuming::new(&course, 0, 1, false, 10);
        assert_eq!(lane.turn(), Turn::Send(4));
        lane.confirmed(4).unwrap();
        assert_eq!(lane.turn(), Turn::Pause);
        consumer.acknowledged(3);
        assert_eq!(lane.turn(), Turn::Send(4));
        assert!(consumer.received(10).is_ok() && consumer.received(9).is_err());
    }
}
