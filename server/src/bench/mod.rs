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
use report::Report;
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
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Extent {
    time: Duration,
    drained: u64,
    queued: u64,
    idle: u64,
}

const FULL: Extent = Extent { time: Duration::from_secs(2), drained: 300_000, queued: 1_000_000, idle: 10_000 };
/// Enough to see that everything works; the figures mean nothing.
const QUICK: Extent = Extent { time: Duration::from_millis(50), drained: 2_000, queued: 5_000, idle: 50 };
/// Window of a consumer in a drain run, for the table.
const DRAIN_WINDOW: usize = 256;
/// Plaintext of the messages whose memory is measured.
const QUEUED_PLAINTEXT_BYTES: usize = 1 << 10;
const KEY_BITS: usize = 2048;

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
    let child = if options.server.is_none() { Some(ServerProcess::broker()?) } else { None };
    let address = options.server.or(child.as_ref().map(|child| child.address)).ok_or(io::ErrorKind::NotFound)?;
    let bare = Bare::start(measures(Mode::Echo))?;
    let key = PrivateKey::generate(KEY_BITS).map_err(io::Error::other)?;
    let mut stage = Stage::open(address, child.as_ref().map(ServerProcess::id))?;

    let cores = thread::available_parallelism().map_or(1, usize::from);
    report.note(&format!(
        "broker {address}, {cores} cores shared by broker and load generator, RSA-{KEY_BITS} envelopes"
    ))?;
    report.head()?;
    for size in &options.sizes {
        let plaintext_bytes = usize::try_from(size.0).map_err(|_| io::ErrorKind::InvalidInput)?;
        let template = Template::seal(&key.public_key(), plaintext_bytes)?;
        let cell =
            Cell { template: &template, plaintext_bytes, connections: 1, window: DRAIN_WINDOW, time: extent.time };
        for &connections in &options.connections {
            for &window in &options.windows {
                lanes_rows(&mut stage, &bare, &report, options, Cell { connections, window, ..cell })?;
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
        report.memory(&memory::queued(&template, extent.queued)?)?;
        report.memory(&memory::idle(extent.idle)?)?;
    }
    Ok(())
}

/// Broker and bare server one after the other, so that both see the same machine.
fn lanes_rows(stage: &mut Stage, bare: &Bare, report: &Report, options: &Bench, cell: Cell<'_>) -> io::Result<()> {
    if options.modes.contains(&Mode::Publish) {
        report.row(&stage.publish(cell)?)?;
    }
    if let Some(address) = bare.ack_address() {
        report.row(&runs::echo(address, Echo::Ack, cell)?)?;
    }
    if options.modes.contains(&Mode::EndToEnd) {
        report.row(&stage.end_to_end(cell)?)?;
    }
    if let Some(address) = bare.line_address() {
        report.row(&runs::echo(address, Echo::Line, cell)?)?;
    }
    Ok(())
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
