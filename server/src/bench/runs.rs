use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::child::cpu_time;
use super::echo::Echo;
use super::histogram::Histogram;
use super::lanes::{self, Backlog, Course, Tally};
use super::message::{Lines, RunClock, Template};
use super::report::{Latency, Row};
use super::wire::Wire;

/// Bytes of messages one run leaves in the broker.
const STORED_BYTES_MAX: usize = 1 << 30;
/// Bytes on their way to an echo server: more could fill both sockets, and both sides would wait to write.
const ECHO_BYTES_MAX: usize = 1 << 20;
/// Part of a run that is not counted: caches and buffers grow to their size.
const WARM_UP: u32 = 5;
/// How long consumers may take for what is left when the publishers have stopped.
const REST: Duration = Duration::from_secs(30);
/// Messages a publisher of an end-to-end run may be ahead of the consumers, whatever its window.
const UNDER_WAY_MIN: usize = 64;
/// Unsettled deliveries of a consumer.
const PREFETCH: usize = 256;
/// The exchange every broker has.
const EXCHANGE: &str = "default_exchange";

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    pub(super) template: &'a Template,
    pub(super) plaintext_bytes: usize,
    pub(super) connections: usize,
    pub(super) window: usize,
    pub(super) time: Duration,
}

/// A broker to measure. Each run has a queue of its own there, deleted behind it.
#[derive(Debug)]
pub(super) struct Stage {
    address: SocketAddr,
    control: Wire,
    run: u32,
    /// The broker, if it is ours to look at.
    process: Option<u32>,
}

impl Stage {
    /// A broker at `address`; `process` is its id if it runs on this machine.
    pub(super) fn open(address: SocketAddr, process: Option<u32>) -> io::Result<Stage> {
        // Ids of an earlier bench against the same broker would be taken for repetitions.
        let (run, ..) = uuid::Uuid::new_v4().as_fields();
        Ok(Stage { address, control: Wire::open(address)?, run, process })
    }

    /// Messages per second and time to the ACK, nobody consuming.
    pub(super) fn publish(&mut self, cell: Cell<'_>) -> io::Result<Row> {
        let queue = self.make_queue()?;
        let messages_max = STORED_BYTES_MAX / self.line_bytes(&queue, cell) / cell.connections;
        let course = course(cell, messages_max as u64);
        let cpu = self.cpu_time();
        let tallies = self.publish_lanes(&queue, cell, &course, None);
        let cpu = self.cpu_time().zip(cpu);
        self.drop_queue(&queue)?;
        Ok(row("publish", cell, self.line_bytes(&queue, cell), &tallies?, cpu))
    }

    /// Messages per second and time from publish to delivery: as many consumers as publishers on one queue.
    pub(super) fn end_to_end(&mut self, cell: Cell<'_>) -> io::Result<Row> {
        let queue = self.make_queue()?;
        let course = course(cell, u64::MAX);
        // More than may be unacknowledged, so that publishers do not wait for consumers message by message.
        let under_way_max = cell.connections * (cell.window * 2).max(UNDER_WAY_MIN);
        let backlog = Backlog::new(under_way_max as u64, 0);
        let wires = self.subscribe(&queue, cell.connections)?;
        let cpu = self.cpu_time();
        let received = consume_while(wires, &course, &backlog, || {
            self.publish_lanes(&queue, cell, &course, Some(&backlog)).map(drop)
        });
        let cpu = self.cpu_time().zip(cpu);
        self.drop_queue(&queue)?;
        Ok(row("end-to-end", cell, self.line_bytes(&queue, cell), &received?, cpu))
    }

    /// Messages per second out of a queue that was filled before.
    pub(super) fn drain(&mut self, cell: Cell<'_>, messages: u64) -> io::Result<Row> {
        let queue = self.make_queue()?;
        let line_bytes = self.line_bytes(&queue, cell);
        let messages = messages.min((STORED_BYTES_MAX / line_bytes) as u64);
        self.fill(&queue, cell.template, messages)?;
        let course = whole(messages);
        let backlog = Backlog::new(messages, messages);
        let wires = self.subscribe(&queue, cell.connections)?;
        let cpu = self.cpu_time();
        let received = consume_while(wires, &course, &backlog, || Ok(()));
        let cpu = self.cpu_time().zip(cpu);
        self.drop_queue(&queue)?;
        let received = received?;
        let last = received.iter().map(|tally| tally.last_nanos).max().unwrap_or(0);
        let per_second = messages as f64 / Duration::from_nanos(last.max(1)).as_secs_f64();
        // How old a message got in the queue says nothing about the broker.
        Ok(Row {
            messages,
            messages_per_second: per_second,
            latency: None,
            ..row("drain", cell, line_bytes, &received, cpu)
        })
    }

    /// Publishes `messages` to `queue` over one connection, as fast as it goes.
    fn fill(&mut self, queue: &str, template: &Template, messages: u64) -> io::Result<()> {
        let cell = Cell { template, plaintext_bytes: 0, connections: 1, window: PREFETCH, time: Duration::MAX };
        let course =
            Course { clock: RunClock(Instant::now()), from_nanos: 0, until_nanos: u64::MAX, messages_max: messages };
        self.publish_lanes(queue, cell, &course, None).map(drop)
    }

    /// Fills a queue that stays. Its name, and the bytes of all envelopes.
    pub(super) fn fill_for_good(&mut self, template: &Template, messages: u64) -> io::Result<(String, u64)> {
        let queue = self.make_queue()?;
        self.fill(&queue, template, messages)?;
        Ok((queue, messages * template.envelope.len() as u64))
    }

    /// Messages in `queue` that wait for a consumer.
    pub(super) fn ready(&mut self, queue: &str) -> io::Result<u64> {
        let line = self.control.ask("list_queues")?;
        let rows: Vec<serde_json::Value> = serde_json::from_str(line.trim_start_matches("Queues: "))?;
        let row = rows.iter().find(|row| row["queue"] == queue);
        row.and_then(|row| row["ready"].as_u64())
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("queue {queue} is not there")))
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.process.and_then(cpu_time)
    }

    fn publish_lanes(
        &self,
        queue: &str,
        cell: Cell<'_>,
        course: &Course,
        backlog: Option<&Backlog>,
    ) -> io::Result<Vec<Tally>> {
        let target = format!("{EXCHANGE} {queue}");
        let wires = open(cell.connections, || Wire::open(self.address))?;
        publish_all(wires, &target, self.run, b"ACK ", cell, course, backlog)
    }

    fn subscribe(&self, queue: &str, consumers: usize) -> io::Result<Vec<Wire>> {
        // The reply is read here; deliveries behind it stay in the wire's buffer for the lane.
        open(consumers, || {
            let mut wire = Wire::open(self.address)?;
            wire.ask(&format!("consume {queue} prefetch={PREFETCH}"))?;
            Ok(wire)
        })
    }

    fn make_queue(&mut self) -> io::Result<String> {
        self.run = self.run.wrapping_add(1);
        let queue = format!("bench-{:08x}", self.run);
        self.control.ask(&format!("declare_queue {queue}"))?;
        self.control.ask(&format!("bind {EXCHANGE} {queue} {queue}"))?;
        Ok(queue)
    }

    fn drop_queue(&mut self, queue: &str) -> io::Result<()> {
        self.control.ask(&format!("delete_queue {queue} force=yes")).map(drop)
    }

    fn line_bytes(&self, queue: &str, cell: Cell<'_>) -> usize {
        Lines::new(cell.template, &format!("{EXCHANGE} {queue}"), self.run, 0).line_bytes()
    }
}

/// The same lines sent to a server that only finds their ends and answers.
pub(super) fn echo(address: SocketAddr, echo: Echo, cell: Cell<'_>) -> io::Result<Row> {
    let target = format!("{EXCHANGE} bench-00000000");
    let line_bytes = Lines::new(cell.template, &target, 0, 0).line_bytes();
    let cell = Cell { window: cell.window.min((ECHO_BYTES_MAX / line_bytes).max(1)), ..cell };
    let wires = open(cell.connections, || Wire::open_bare(address))?;
    let (mode, reply): (_, &[u8]) = match echo {
        Echo::Line => ("echo line", b"publish "),
        Echo::Ack => ("echo ack", b"ACK "),
    };
    let tallies = publish_all(wires, &target, 0, reply, cell, &course(cell, u64::MAX), None)?;
    Ok(row(mode, cell, line_bytes, &tallies, None))
}

fn open(count: usize, one: impl Fn() -> io::Result<Wire>) -> io::Result<Vec<Wire>> {
    (0..count).map(|_| one()).collect()
}

fn course(cell: Cell<'_>, messages_max: u64) -> Course {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let warm_up = cell.time / WARM_UP;
    Course {
        clock: RunClock(Instant::now()),
        from_nanos: nanos(warm_up),
        until_nanos: nanos(warm_up + cell.time),
        messages_max,
    }
}

/// A course over a number of messages, all of them counted.
fn whole(messages_max: u64) -> Course {
    Course { clock: RunClock(Instant::now()), from_nanos: 0, until_nanos: u64::MAX, messages_max }
}

fn publish_all(
    wires: Vec<Wire>,
    target: &str,
    run: u32,
    reply: &[u8],
    cell: Cell<'_>,
    course: &Course,
    backlog: Option<&Backlog>,
) -> io::Result<Vec<Tally>> {
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..).zip(wires).collect();
        let lanes: Vec<_> = lanes
            .into_iter()
            .map(|(lane, mut wire)| {
                let mut lines = Lines::new(cell.template, target, run, lane);
                scope.spawn(move || lanes::publish(&mut wire, &mut lines, cell.window, reply, course, backlog))
            })
            .collect();
        collect(lanes)
    })
}

/// Runs a consumer on each of `wires` while `publish` runs, and until the backlog is empty.
fn consume_while(
    wires: Vec<Wire>,
    course: &Course,
    backlog: &Backlog,
    publish: impl FnOnce() -> io::Result<()>,
) -> io::Result<Vec<Tally>> {
    let is_over = &AtomicBool::new(false);
    let sockets: Vec<_> = wires.iter().map(|wire| wire.socket.try_clone()).collect::<io::Result<_>>()?;
    thread::scope(|scope| {
        let consumers: Vec<_> = wires
            .into_iter()
            .map(|mut wire| scope.spawn(move || lanes::consume(&mut wire, course, backlog, is_over)))
            .collect();
        let published = publish().and_then(|()| wait_until_empty(backlog, &consumers));
        is_over.store(true, Ordering::Release);
        for socket in sockets {
            // Fails where the server has ended it already.
            drop(socket.shutdown(Shutdown::Read));
        }
        let received = collect(consumers);
        published.and(received)
    })
}

fn wait_until_empty<T>(backlog: &Backlog, consumers: &[ScopedJoinHandle<'_, T>]) -> io::Result<()> {
    let deadline = Instant::now() + REST;
    while !backlog.is_empty() && !consumers.iter().any(ScopedJoinHandle::is_finished) {
        if Instant::now() > deadline {
            return Err(io::Error::new(ErrorKind::TimedOut, "messages were published and not delivered"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn collect(lanes: Vec<ScopedJoinHandle<'_, io::Result<Tally>>>) -> io::Result<Vec<Tally>> {
    lanes.into_iter().map(|lane| lane.join().map_err(|_| io::Error::other("a bench thread panicked"))?).collect()
}

/// `cpu` is the broker's processor time after and before all messages of the run.
fn row(
    mode: &'static str,
    cell: Cell<'_>,
    line_bytes: usize,
    tallies: &[Tally],
    cpu: Option<(Duration, Duration)>,
) -> Row {
    let mut latency = Histogram::new();
    tallies.iter().for_each(|tally| latency.add(&tally.latency));
    let messages = tallies.iter().map(|tally| tally.count).sum();
    let total: u64 = tallies.iter().map(|tally| tally.total).sum();
    let broker_cpu_us = cpu.map(|(after, before)| (after - before).as_secs_f64() * 1e6 / total.max(1) as f64);
    let first = tallies.iter().map(|tally| tally.first_nanos).min().unwrap_or(0);
    let last = tallies.iter().map(|tally| tally.last_nanos).max().unwrap_or(0);
    let nanos = last.saturating_sub(first).max(1);
    Row {
        mode,
        plaintext_bytes: cell.plaintext_bytes,
        line_bytes,
        connections: cell.connections,
        window: cell.window,
        messages,
        messages_per_second: messages as f64 / Duration::from_nanos(nanos).as_secs_f64(),
        broker_cpu_us,
        latency: Some(Latency::from(&latency)),
    }
}
