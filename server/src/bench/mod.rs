//! `ciphermq bench`: speaks the protocol over loopback like any client and prints what it saw.
//!
//! The load generator is thin on purpose: one blocking thread for each connection, envelopes sealed once, only ids
//! changed between messages, nothing allocated per message. What it measures is the server.

mod child;
mod echo;
mod histogram;
mod lanes;
mod memory;
mod message;
mod place;
mod reference;
mod reopen;
mod report;
mod runs;
mod sealing;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use cipher_client::crypto::PrivateKey;
use clap::ValueEnum;

use crate::cli::{Bench, Fault, Status};
use crate::open_files;
use child::ServerProcess;
pub(crate) use echo::Echo;
use message::Template;
use place::Place;
use report::{Report, Row, WindowOneRow};
use runs::{Cell, Stage};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Publishes per second and time to the ACK, nobody consuming.
    Publish,
    /// As many consumers as publishers on one queue, every delivery acked: time from publish to delivery.
    EndToEnd,
    /// Emptying a queue that was filled before.
    Drain,
    /// The same lines through a server that only finds their ends: what the machine could do at most.
    Echo,
    /// Sealing and opening on one thread.
    Crypto,
    /// Memory of queued messages and of idle connections.
    Memory,
    /// Time until a broker with many messages is there again.
    Reopen,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Extent {
    time: Duration,
    drained: u64,
    queued: u64,
    idle: u64,
    reopened: u64,
}

const FULL: Extent =
    Extent { time: Duration::from_secs(2), drained: 300_000, queued: 1_000_000, idle: 10_000, reopened: 1_000_000 };
/// Enough to see that everything works; the figures mean nothing.
const QUICK: Extent =
    Extent { time: Duration::from_millis(50), drained: 2_000, queued: 5_000, idle: 50, reopened: 5_000 };
/// Window of a consumer in a drain run, for the table.
const DRAIN_WINDOW: usize = 256;
/// Plaintext of the messages whose memory is measured.
const QUEUED_PLAINTEXT_BYTES: usize = 1 << 10;
const KEY_BITS: usize = 2048;
/// How often the time of a run is doubled in which nothing was counted.
const DOUBLED_MAX: u32 = 6;

/// `ciphermq bench`.
pub(crate) fn run(options: &Bench) -> Result<Status, Fault> {
    let done = match options.echo_server {
        Some(echo) => echo::serve(echo),
        None => measure(options),
    };
    done.map(|()| Status::Success).map_err(Fault::runtime)
}

fn measure(options: &Bench) -> io::Result<()> {
    let extent = extent(options);
    let report = Report::new(options.json);
    let measures = |mode| options.modes.contains(&mode);
    open_files::raise_to_limit();
    // A child speaks the protocol over loopback like any server, and its memory and time are its own.
    let place = place(options);
    let child = if options.server.is_none() { Some(place.broker()?) } else { None };
    let process = child.as_ref().map(|child| &child.server);
    let address = options.server.or(process.map(|server| server.address)).ok_or(io::ErrorKind::NotFound)?;
    let bare = Bare::start(measures(Mode::Echo))?;
    let key = PrivateKey::generate(KEY_BITS).map_err(io::Error::other)?;
    let mut stage = Stage::open(address, process.map(ServerProcess::id))?;

    let cores = thread::available_parallelism().map_or(1, usize::from);
    report.note(&format!(
        "broker {address}, {cores} cores shared by broker and load generator, RSA-{KEY_BITS} envelopes"
    ))?;
    match options.server {
        Some(_) => report.note("where that broker keeps its messages is not known here")?,
        None => report.note(&format!("messages {}", place.describe()))?,
    }
    report.head()?;
    for size in &options.sizes {
        let plaintext_bytes = usize::try_from(size.0).map_err(|_| io::ErrorKind::InvalidInput)?;
        let template = Template::seal(&key.public_key(), plaintext_bytes)?;
        let cell =
            Cell { template: &template, plaintext_bytes, connections: 1, window: DRAIN_WINDOW, time: extent.time };
        for &connections in &options.connections {
            for &window in &options.windows {
                let cell = Cell { connections, window, ..cell };
                lanes_rows(&mut stage, &bare, &report, options, &place, cell)?;
            }
        }
        if measures(Mode::Drain) {
            for &connections in &options.connections {
                report.row(&stage.drain(Cell { connections, ..cell }, extent.drained)?)?;
            }
        }
        if measures(Mode::Crypto) {
            sealing::rows(&key, plaintext_bytes, extent.time / 2)?.iter().try_for_each(|row| report.row(row))?;
        }
    }
    if measures(Mode::Memory) {
        let template = Template::seal(&key.public_key(), QUEUED_PLAINTEXT_BYTES)?;
        report.memory(&memory::queued(&place, &template, extent.queued)?)?;
        report.memory(&memory::idle(&place, extent.idle)?)?;
    }
    match &place {
        Place::Below(dir) if measures(Mode::Reopen) => {
            let template = Template::seal(&key.public_key(), QUEUED_PLAINTEXT_BYTES)?;
            let count = options.reopen_messages.unwrap_or(extent.reopened);
            reopen::rows(dir, &template, count)?.iter().try_for_each(|row| report.reopen(row))
        }
        _ => Ok(()),
    }
}

/// Where brokers of this bench keep their messages.
fn place(options: &Bench) -> Place {
    match &options.data_dir {
        _ if options.memory => Place::Memory,
        Some(dir) => Place::Below(dir.clone()),
        None => Place::Below(std::env::temp_dir()),
    }
}

/// Broker and bare server one after the other, so that both see the same machine.
fn lanes_rows(
    stage: &mut Stage,
    bare: &Bare,
    report: &Report,
    options: &Bench,
    place: &Place,
    cell: Cell<'_>,
) -> io::Result<()> {
    let mut published = None;
    if options.modes.contains(&Mode::Publish) {
        published = Some(counted(cell, |cell| stage.publish(cell))?);
        published.iter().try_for_each(|row| report.row(row))?;
    }
    if let Some(address) = bare.ack_address() {
        let round_trip = counted(cell, |cell| runs::echo(address, Echo::Ack, cell))?;
        report.row(&round_trip)?;
        if let Some(published) = published.filter(|_| cell.connections == 1 && cell.window == 1) {
            window_one(report, place, cell, &published, &round_trip)?;
        }
    }
    if options.modes.contains(&Mode::EndToEnd) {
        report.row(&counted(cell, |cell| stage.end_to_end(cell))?)?;
    }
    if let Some(address) = bare.line_address() {
        report.row(&counted(cell, |cell| runs::echo(address, Echo::Line, cell))?)?;
    }
    Ok(())
}

/// A run that counted something. A machine with other work may let a short one
/// pass without a single message: it is run again, for longer.
fn counted<'a>(cell: Cell<'a>, mut run: impl FnMut(Cell<'a>) -> io::Result<Row>) -> io::Result<Row> {
    for doubled in 0..=DOUBLED_MAX {
        let row = run(Cell { time: cell.time * (1 << doubled), ..cell })?;
        if row.messages > 0 {
            return Ok(row);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "not one message was answered in time: is the broker stopped?"))
}

/// What the machine itself needs, measured between the runs it is compared with.
fn window_one(report: &Report, place: &Place, cell: Cell<'_>, published: &Row, round_trip: &Row) -> io::Result<()> {
    let p50 = |row: &Row| row.latency.as_ref().map_or(0.0, |latency| latency.p50_us);
    let mut sync_p50_us = 0.0;
    if let Place::Below(dir) = place {
        let synced = reference::sync_row(dir, cell.plaintext_bytes, published.line_bytes, cell.time / 2)?;
        report.row(&synced)?;
        sync_p50_us = p50(&synced);
    }
    let (publish_p50_us, round_trip_p50_us) = (p50(published), p50(round_trip));
    report.window_one(&WindowOneRow {
        mode: "window 1",
        plaintext_bytes: cell.plaintext_bytes,
        publish_p50_us,
        sync_p50_us,
        round_trip_p50_us,
        ratio: publish_p50_us / (sync_p50_us + round_trip_p50_us).max(f64::MIN_POSITIVE),
    })
}

fn extent(options: &Bench) -> Extent {
    let extent = if options.quick { QUICK } else { FULL };
    Extent { time: options.seconds.map_or(extent.time, Duration::from_secs), ..extent }
}

/// The servers that do next to nothing.
#[derive(Debug, Default)]
struct Bare {
    ack: Option<ServerProcess>,
    line: Option<ServerProcess>,
}

impl Bare {
    fn start(wanted: bool) -> io::Result<Bare> {
        if !wanted {
            return Ok(Bare::default());
        }
        let start = |echo| ServerProcess::start(&["bench", "--echo-server", echo]);
        Ok(Bare { ack: Some(start("ack")?), line: Some(start("line")?) })
    }

    fn ack_address(&self) -> Option<SocketAddr> {
        self.ack.as_ref().map(|server| server.address)
    }

    fn line_address(&self) -> Option<SocketAddr> {
        self.line.as_ref().map(|server| server.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(messages: u64) -> Row {
        Row {
            mode: "publish",
            plaintext_bytes: 256,
            line_bytes: 887,
            connections: 1,
            window: 1,
            messages,
            messages_per_second: 0.0,
            broker_cpu_us: None,
            latency: None,
        }
    }

    #[test]
    fn a_run_that_counted_nothing_is_run_again_for_longer_and_not_for_ever() {
        let key = PrivateKey::generate(KEY_BITS).unwrap();
        let template = Template::seal(&key.public_key(), 256).unwrap();
        let time = Duration::from_millis(50);
        let cell = Cell { template: &template, plaintext_bytes: 256, connections: 1, window: 1, time };
        let mut times = Vec::new();
        let third = counted(cell, |cell| {
            times.push(cell.time);
            Ok(row_of((times.len() / 3) as u64))
        });
        assert_eq!(third.unwrap().messages, 1);
        assert_eq!(times, [time, time * 2, time * 4]);
        let mut runs = 0;
        let never = counted(cell, |_| {
            runs += 1;
            Ok(row_of(0))
        });
        assert_eq!((never.unwrap_err().kind(), runs), (io::ErrorKind::TimedOut, DOUBLED_MAX + 1));
    }
}
