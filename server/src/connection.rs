use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant as StdInstant;

use ciphermq_broker::Broker;
use ciphermq_journal::Doorbell;
use ciphermq_protocol::limits::READ_BYTES;
use ciphermq_protocol::{Code, Decoder};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};
use tracing::info;

use crate::clock::Clock;
use crate::counters::{Counters, InputClaim};
use crate::limits::INPUT_BYTES_TOTAL_MAX;
use crate::session::{OUTPUT_BYTES_MAX, Received, TextSession, Transmitted};

/// What every connection of a server shares.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    /// The time.
    pub(crate) clock: Clock,
    /// Where messages are kept.
    pub(crate) store: StoreKind,
    /// Bounds and pauses.
    pub(crate) limits: SessionLimits,
    /// Becomes true when the server stops.
    pub(crate) shutdown: watch::Receiver<bool>,
    /// What is counted.
    pub(crate) counters: Arc<Counters>,
}

/// What a journal can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Disk,
}

/// Bounds and pauses of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    /// Bytes of a line, LF included.
    pub(crate) max_line: usize,
    /// Milliseconds between a reply and the next push in legacy mode.
    pub(crate) legacy_pause_ms: u64,
    /// Milliseconds a connection may take none of the output waiting for it.
    pub(crate) slow_reader_ms: u64,
}

/// Buffers of a connection that has been quiet this long are given back.
const IDLE_SHRINK: Duration = Duration::from_secs(5);
/// Buffers up to this size are not worth giving back.
const IDLE_BYTES: usize = 8 * 1024;

/// Serves one connection to its end.
pub(crate) async fn drive(stream: TcpStream, broker: &Broker, context: Arc<ConnectionContext>) {
    let bell = Arc::new(Doorbell::new());
    let link = broker.connect(Arc::clone(&bell));
    let connection = link.id().0;
    let _counted = context.counters.connected_guard();
    let peer = stream.peer_addr().map_or_else(|_| "gone".to_owned(), |peer| peer.to_string());
    info!(connection, peer, "Client connected");
    let session = TextSession::new(link, Arc::clone(&context));
    let input = Decoder::new(context.limits.max_line);
    let shutdown = context.shutdown.clone();
    let claim = context.counters.input_claim();
    let mut driver = Driver { stream, session, input, claim, output: Output::default(), bell, shutdown, context };
    let end = driver.run().await;
    let Driver { session, context, .. } = driver;
    session.close(context.clock.now());
    match end {
        Ok(reason) => info!(connection, reason, "Client disconnected"),
        Err(error) => info!(connection, %error, "Client disconnected"),
    }
}

struct Driver {
    stream: TcpStream,
    session: TextSession,
    input: Decoder,
    claim: InputClaim,
    output: Output,
    bell: Arc<Doorbell>,
    shutdown: watch::Receiver<bool>,
    context: Arc<ConnectionContext>,
}

/// Bytes on their way to the socket.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// Since when the socket has taken nothing of it.
    stalled: Option<Instant>,
}

/// What woke the driver.
enum Woken {
    Socket(tokio::io::Ready),
    Bell,
    Shutdown,
    /// A delivery may be due.
    Pace,
    /// The peer has taken nothing for too long.
    Slow,
    /// Nothing happened for a while.
    Idle,
}

impl Driver {
    /// Bytes in, requests done, bytes out, until one side ends it.
    async fn run(&mut self) -> io::Result<&'static str> {
        let mut peer_ended = false;
        loop {
            // A peer that always has something to read or to hear must not keep the others waiting.
            tokio::task::coop::consume_budget().await;
            let (received, transmitted) = self.work();
            self.output.send(&self.stream)?;
            if self.session.is_finished() && self.output.is_empty() {
                return Ok(if peer_ended { "end of input" } else { "closed by us" });
            }
            // Everything that came before the end of input has been read.
            if peer_ended && received == Received::All && !self.session.is_ending() {
                self.session.end();
                continue;
            }
            // What stopped the session has gone out: go on. Nobody will ring for what it already knows.
            let more_to_do = received == Received::Part && self.wants_input();
            let more_to_say = transmitted == Transmitted::Part && self.output.len() < OUTPUT_BYTES_MAX;
            if more_to_do || more_to_say {
                continue;
            }
            match self.wait(!peer_ended).await? {
                Woken::Socket(ready) if ready.is_readable() && !peer_ended => peer_ended = self.read()?,
                Woken::Shutdown => {
                    self.session.end_because(Code::ShuttingDown, "the server is stopping; connect again");
                }
                Woken::Slow => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "SLOW_READER: took no output for too long"));
                }
                Woken::Idle => self.give_back_buffers(),
                Woken::Socket(_) | Woken::Bell | Woken::Pace => {}
            }
        }
    }

    /// Requests that can be done, then everything that can be said.
    fn work(&mut self) -> (Received, Transmitted) {
        let now = self.context.clock.now();
        if self.session.is_taken_over() {
            self.session.end_because(Code::TakenOver, "another connection opened this session");
        }
        let mut received = Received::Part;
        if self.output.len() < OUTPUT_BYTES_MAX {
            let started = StdInstant::now();
            received = self.session.receive(&mut self.input, now);
            self.context.counters.record(self.session.take_tally(), started.elapsed());
        }
        self.output.forget_sent();
        let unsent = self.output.len();
        let transmitted = self.session.transmit(&mut self.output.bytes, unsent, now);
        (received, transmitted)
    }

    fn wants_input(&self) -> bool {
        self.session.wants_requests() && self.output.len() < OUTPUT_BYTES_MAX
    }

    async fn wait(&mut self, may_read: bool) -> io::Result<Woken> {
        let interest = match (may_read && self.wants_input(), !self.output.is_empty()) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let deadline = self.next_deadline();
        let bell = std::future::poll_fn(|context| self.bell.poll_rung(context));
        tokio::select! {
            biased;
            // An error means the sender is gone, which only happens at the end of the server.
            _ = self.shutdown.wait_for(|stopping| *stopping), if !self.session.is_ending() => Ok(Woken::Shutdown),
            () = bell => Ok(Woken::Bell),
            ready = self.stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => {
                Ok(Woken::Socket(ready?))
            }
            woken = at(deadline) => Ok(woken),
        }
    }

    /// The earliest time at which something must be done though nothing happened.
    fn next_deadline(&self) -> Option<(Instant, Woken)> {
        let now = self.context.clock.now();
        let slow = self.output.stalled.map(|since| (since + self.slow_reader(), Woken::Slow));
        // With output waiting no delivery is due: writing it will wake us.
        let pace = self.session.poll_timeout(now).filter(|_| self.output.is_empty());
        let pace = pace.map(|at| (self.context.clock.instant(at), Woken::Pace));
        let is_large = self.input.capacity() + self.output.bytes.capacity() > IDLE_BYTES;
        let idle = is_large.then(|| (Instant::now() + IDLE_SHRINK, Woken::Idle));
        [slow, pace, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// True when the peer has ended its side.
    fn read(&mut self) -> io::Result<bool> {
        match self.stream.try_read(self.input.spare()) {
            Ok(0) => Ok(true),
            Ok(count) => {
                self.input.advance(count);
                self.claim_input()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Long lines of many connections together must not take all memory.
    fn claim_input(&mut self) -> io::Result<bool> {
        let capacity = self.input.capacity();
        if self.claim.set(capacity) > INPUT_BYTES_TOTAL_MAX && capacity > READ_BYTES {
            return Err(io::Error::new(ErrorKind::OutOfMemory, "too many long lines at a time, over all connections"));
        }
        Ok(false)
    }

    fn give_back_buffers(&mut self) {
        if self.output.is_empty() && !self.input.is_mid_line() {
            self.input.shrink();
            self.output = Output::default();
            self.claim.set(self.input.capacity());
        }
    }

    fn slow_reader(&self) -> Duration {
        Duration::from_millis(self.context.limits.slow_reader_ms)
    }
}

impl Output {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes what the socket takes now.
    fn send(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.is_empty() {
            match stream.try_write(&self.bytes[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.stalled = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.forget_sent();
        Ok(())
    }

    /// Makes the buffer start with what was not sent; cheap when all was.
    fn forget_sent(&mut self) {
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= OUTPUT_BYTES_MAX / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

async fn at(deadline: Option<(Instant, Woken)>) -> Woken {
    match deadline {
        Some((instant, woken)) => {
            sleep_until(instant).await;
            woken
        }
        None => std::future::pending().await,
    }
}
