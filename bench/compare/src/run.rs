use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::course::{Consuming, Course, Publishing, Tally};
use crate::message::Messages;
use crate::options::{Mode, Size};
use crate::process::{Broker, Programs, machine_cpu_time, own_cpu_time};
use crate::targets::{Scene, Target};

/// Deliveries a consumer may hold unacknowledged.
const PREFETCH: u16 = 256;
/// Messages under way end to end, as a multiple of all windows: publishers and consumers each hold one at most.
const UNDER_WAY: u64 = 4;
/// Warming up takes this part of the counted time, one second at most.
const WARM_UP_PART: f64 = 1.0 / 3.0;
const WARM_UP_MAX: f64 = 1.0;
/// Bytes of messages a run leaves in a broker at most: not all of them can move them out of memory.
const STORED_BYTES_MAX: u64 = 4 << 30;
/// How long filling the queue may take; a slow publisher gets fewer messages in.
const FILL_MAX: Duration = Duration::from_secs(10);
/// How long what is left may take when the publishers have stopped, and how long draining may take.
const REST_MAX: Duration = Duration::from_secs(60);
const REST_POLL: Duration = Duration::from_millis(1);

/// What is measured: one table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cell {
    pub(crate) mode: Mode,
    pub(crate) plaintext_bytes: Size,
    pub(crate) connections: u16,
    pub(crate) window: u16,
    pub(crate) seconds: f64,
    pub(crate) backlog: u32,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    /// Messages counted.
    pub(crate) messages: u64,
    /// Publish to confirm, where publishing is measured.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Cores kept busy by the broker and by this program.
    pub(crate) broker_cores: f64,
    pub(crate) client_cores: f64,
    /// Cores kept busy by anything else, the kernel's own threads included.
    pub(crate) other_cores: f64,
}

/// Starts the broker in an empty directory, measures, ends it.
pub(crate) async fn measure(target: &Target, cell: Cell, programs: &Programs, directory: &Path) -> Result<Figures> {
    let broker = target.start(programs, directory).await?;
    let stage = Stage { target, cell, broker: &broker, address: broker.address };
    let measured = stage.measure(directory).await;
    measured.with_context(|| match broker.log_end() {
        log if log.is_empty() => "the broker has logged nothing".to_owned(),
        log => format!("end of the broker's log: {log}"),
    })
}

/// Starts the broker, makes its queue, ends it: whether there is anything to measure.
pub(crate) async fn try_out(target: &Target, programs: &Programs, directory: &Path) -> Result<()> {
    let broker = target.start(programs, directory).await?;
    let scene = Scene { mode: Mode::Publish, consumers: 0, prefetch: PREFETCH };
    target.prepare(broker.address, directory, scene).await
}

/// The runtime a run takes place in: one thread where a second one could only add a hop to what is timed.
pub(crate) fn runtime(mode: Mode) -> Result<Runtime> {
    let mut builder = if mode == Mode::Latency { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    Ok(builder.enable_all().build()?)
}

struct Stage<'a> {
    target: &'a Target,
    cell: Cell,
    broker: &'a Broker,
    address: SocketAddr,
}

impl Stage<'_> {
    async fn measure(&self, directory: &Path) -> Result<Figures> {
        let consumers = match self.cell.mode {
            Mode::Publish | Mode::Latency => 0,
            Mode::EndToEnd => self.cell.connections,
            Mode::Drain => 1,
        };
        let scene = Scene { mode: self.cell.mode, consumers, prefetch: PREFETCH };
        self.target.prepare(self.address, directory, scene).await?;
        match self.cell.mode {
            Mode::Publish | Mode::Latency => self.publish().await,
            Mode::EndToEnd => self.end_to_end().await,
            Mode::Drain => self.drain().await,
        }
    }

    async fn publish(&self) -> Result<Figures> {
        let messages_max = STORED_BYTES_MAX / self.message_len() as u64;
        let course = Arc::new(self.timed_course(self.cell.connections).messages_max(messages_max));
        let publishers = self.publishers(&course);
        course.begin().await;
        let cpu = Cpu::look(self.broker);
        let tallies = join(publishers).await?;
        let confirmed: u64 = tallies.iter().map(|tally| tally.confirmed).sum();
        let last = tallies.iter().map(|tally| tally.last).max().unwrap_or_default();
        let seconds = course.counted_seconds(last);
        ensure!(seconds > 0.0, "all it may store was stored while warming up; take fewer --seconds");
        let figures = cpu.figures(self.broker, confirmed, confirmed as f64 / seconds);
        let mut latencies: Vec<u32> = tallies.into_iter().flat_map(|tally| tally.latencies).collect();
        latencies.sort_unstable();
        Ok(Figures { p50_us: percentile_us(&latencies, 0.5), p99_us: percentile_us(&latencies, 0.99), ..figures })
    }

    async fn end_to_end(&self) -> Result<Figures> {
        let (lanes, window) = (self.cell.connections, self.cell.window);
        let under_way = UNDER_WAY * u64::from(lanes) * u64::from(window.max(PREFETCH));
        let course = Arc::new(self.timed_course(lanes * 2).under_way_max(under_way));
        let mut consumers = self.consumers(&course, lanes, false);
        let publishers = self.publishers(&course);
        begin(&course, &mut consumers).await?;
        let cpu = Cpu::look(self.broker);
        let published = async {
            tokio::time::sleep(course.until()).await;
            let messages = course.acknowledged_counted();
            let per_second = messages as f64 / course.counted_seconds(course.last());
            let figures = cpu.figures(self.broker, messages, per_second);
            join(publishers).await?;
            anyhow::Ok(figures)
        };
        let figures = tokio::select! {
            figures = published => figures?,
            fault = first_end(&mut consumers) => return Err(fault),
        };
        rest(&course, course.sent(), &mut consumers).await?;
        Ok(figures)
    }

    async fn drain(&self) -> Result<Figures> {
        let messages_max = u64::from(self.cell.backlog).min(STORED_BYTES_MAX / self.message_len() as u64);
        let fill = Course::new(self.cell.connections, Duration::ZERO..FILL_MAX).messages_max(messages_max);
        let fill = Arc::new(fill);
        let publishers = self.publishers(&fill);
        fill.begin().await;
        let messages: u64 = join(publishers).await?.iter().map(|tally| tally.confirmed_total).sum();
        ensure!(messages > 0, "nothing was confirmed");
        let course = Arc::new(Course::new(1, Duration::ZERO..Duration::MAX));
        let mut consumers = self.consumers(&course, 1, true);
        begin(&course, &mut consumers).await?;
        let cpu = Cpu::look(self.broker);
        rest(&course, messages, &mut consumers).await?;
        Ok(cpu.figures(self.broker, messages, messages as f64 / course.last().as_secs_f64()))
    }

    /// A warm-up and the counted time behind it.
    fn timed_course(&self, lanes: u16) -> Course {
        let warm_up = (self.cell.seconds * WARM_UP_PART).min(WARM_UP_MAX);
        let (from, until) = (Duration::from_secs_f64(warm_up), Duration::from_secs_f64(warm_up + self.cell.seconds));
        Course::new(lanes, from..until)
    }

    fn message_len(&self) -> usize {
        Messages::new(self.cell.plaintext_bytes.0, 0).len()
    }

    fn publishers(&self, course: &Arc<Course>) -> JoinSet<Result<Tally>> {
        let (target, address) = (*self.target, self.address);
        let lanes = (0..self.cell.connections).map(|lane| {
            let messages = Messages::new(self.cell.plaintext_bytes.0, lane);
            Publishing::new(course, messages, self.cell.window.into())
        });
        lanes.map(|lane| async move { target.publish(address, lane).await }).collect()
    }

    fn consumers(&self, course: &Arc<Course>, count: u16, is_stored: bool) -> JoinSet<Result<()>> {
        let (target, address) = (*self.target, self.address);
        let len = self.message_len();
        let lanes = (0..count).map(|lane| Consuming::new(course, lane, PREFETCH, is_stored, len));
        lanes.map(|lane| async move { target.consume(address, lane).await }).collect()
    }
}

/// Processor time at the start of what is counted.
struct Cpu {
    start: Instant,
    broker: Duration,
    client: Duration,
    machine: Duration,
}

impl Cpu {
    fn look(broker: &Broker) -> Cpu {
        Cpu { start: Instant::now(), broker: broker.cpu_time(), client: own_cpu_time(), machine: machine_cpu_time() }
    }

    /// `messages` at `per_second` since, and the cores that were busy meanwhile.
    fn figures(&self, broker: &Broker, messages: u64, per_second: f64) -> Figures {
        let now = Cpu::look(broker);
        let cores = |from: Duration, to: Duration| {
            to.saturating_sub(from).as_secs_f64() / (now.start - self.start).as_secs_f64()
        };
        let (broker_cores, client_cores) = (cores(self.broker, now.broker), cores(self.client, now.client));
        Figures {
            per_second,
            messages,
            p50_us: None,
            p99_us: None,
            broker_cores,
            client_cores,
            other_cores: (cores(self.machine, now.machine) - broker_cores - client_cores).max(0.0),
        }
    }
}

async fn join(mut publishers: JoinSet<Result<Tally>>) -> Result<Vec<Tally>> {
    let mut tallies = Vec::with_capacity(publishers.len());
    while let Some(tally) = publishers.join_next().await {
        tallies.push(tally.context("a publisher")??);
    }
    Ok(tallies)
}

/// Begins, unless a consumer cannot.
async fn begin(course: &Course, consumers: &mut JoinSet<Result<()>>) -> Result<()> {
    tokio::select! {
        () = course.begin() => Ok(()),
        fault = first_end(consumers) => Err(fault),
    }
}

/// Waits until `messages` are acknowledged.
async fn rest(course: &Course, messages: u64, consumers: &mut JoinSet<Result<()>>) -> Result<()> {
    let deadline = Instant::now() + REST_MAX;
    let all = async {
        while course.acknowledged() < messages {
            ensure!(Instant::now() < deadline, "{} of {messages} messages came back", course.acknowledged());
            tokio::time::sleep(REST_POLL).await;
        }
        Ok(())
    };
    tokio::select! {
        all = all => all,
        fault = first_end(consumers) => Err(fault),
    }
}

/// A consumer never ends by itself.
async fn first_end(consumers: &mut JoinSet<Result<()>>) -> anyhow::Error {
    let end = async {
        match consumers.join_next().await {
            Some(end) => end.context("a consumer")??,
            None => bail!("there are no consumers"),
        }
        bail!("a consumer ended")
    };
    match end.await {
        Ok(()) => anyhow::anyhow!("a consumer ended"),
        Err(fault) => fault,
    }
}

/// Of sorted nanoseconds.
fn percentile_us(sorted: &[u32], part: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.checked_sub(1)?).map(|nanos| f64::from(*nanos) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::percentile_us;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times: Vec<u32> = (1..=100).map(|us| us * 1000).collect();
        assert_eq!(percentile_us(&times, 0.5), Some(50.0));
        assert_eq!(percentile_us(&times, 0.99), Some(99.0));
        assert_eq!(percentile_us(&times[..1], 0.99), Some(1.0));
        assert_eq!(percentile_us(&[], 0.5), None);
    }
}
