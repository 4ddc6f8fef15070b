//! The command line: every flag with its environment variable, default, unit and bounds.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use cipher_client::crypto::{RSA_BITS_MAX, RSA_BITS_MIN};
use ciphermq_broker::limits as broker;
use ciphermq_protocol::limits as wire;
use ciphermq_server::limits;
use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, value_parser};

use crate::bench::{Echo, Mode};

/// An encrypted message broker: it stores and delivers messages it cannot read.
#[derive(Debug, Parser)]
#[command(name = "ciphermq", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done (for serve: stopped by a signal, every connection ended in time or was cut), \
1 failed while running, 2 wrong usage (bad flags, an address that may not be listened on).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker until SIGINT or SIGTERM
    Serve(Serve),
    /// Make an RSA key pair for a receiver
    Keygen(Keygen),
    /// Seal messages for a receiver and publish them
    Send(Send),
    /// Receive messages, open them and print them
    Receive(Receive),
    /// Measure a broker: messages per second, latency, memory
    Bench(Bench),
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Serve {
    /// Address and port to listen on; port 0 picks a free one.
    ///
    /// Only a loopback address is accepted, because this endpoint has neither TLS nor login. The one line on stdout,
    /// `CipherMQ ready on <address>`, says when and where clients can connect.
    #[arg(long, env = "CIPHERMQ_LISTEN", value_name = "ADDRESS:PORT", default_value = limits::LISTEN_DEFAULT)]
    pub(crate) listen: Listen,

    /// Directory for messages [default: ciphermq below $XDG_STATE_HOME or ~/.local/state].
    ///
    /// This version has no journal on disk yet: it says so at the start, keeps messages in memory, and writes nothing
    /// to the directory.
    #[arg(long, env = "CIPHERMQ_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Keep messages in memory only: they are gone when the process ends
    #[arg(long, env = "CIPHERMQ_MEMORY", value_parser = FalseyValueParser::new())]
    pub(crate) memory: bool,

    /// Milliseconds a delivery may stay unsettled before it is delivered again, for queues that do not state their own
    #[arg(long, env = "CIPHERMQ_LEASE_MS", value_name = "MS", default_value_t = broker::LEASE_MS_DEFAULT,
        value_parser = value_parser!(u64).range(1..=wire::LEASE_MS_MAX))]
    pub(crate) lease_ms: u64,

    /// Deliveries before a message goes to its dead-letter queue, for queues that do not state their own; 0: no limit
    #[arg(long, env = "CIPHERMQ_MAX_ATTEMPTS", value_name = "N", default_value_t = broker::MAX_ATTEMPTS_DEFAULT,
        value_parser = value_parser!(u32).range(0..=i64::from(wire::ATTEMPTS_MAX)))]
    pub(crate) max_attempts: u32,

    /// Longest request line, 4KiB to 64MiB; a longer one is refused and its connection closed
    #[arg(long, env = "CIPHERMQ_MAX_LINE", value_name = "SIZE", default_value = "1MiB", value_parser = line_size)]
    pub(crate) max_line: Size,

    /// Bytes of stored messages beyond which publishes are refused; consuming and acking go on
    #[arg(long, env = "CIPHERMQ_STORE_MAX_BYTES", value_name = "SIZE", default_value = "4GiB")]
    pub(crate) store_max_bytes: Size,

    /// Seconds a message id is remembered, so that publishing it again stores nothing
    #[arg(long, env = "CIPHERMQ_DEDUPE_WINDOW_S", value_name = "S",
        default_value_t = broker::DEDUPE_WINDOW_MS_DEFAULT / 1000)]
    pub(crate) dedupe_window_s: u64,

    /// Message ids remembered at most; beyond them the oldest are forgotten early
    #[arg(long, env = "CIPHERMQ_DEDUPE_MAX_IDS", value_name = "N", default_value_t = broker::DEDUPE_IDS_DEFAULT)]
    pub(crate) dedupe_max_ids: usize,

    /// Milliseconds between a reply and the next push to clients of CipherMQ 0.2.0 and 1.0.0, 0 to 10000
    #[arg(long, env = "CIPHERMQ_LEGACY_PAUSE_MS", value_name = "MS", default_value_t = limits::LEGACY_PAUSE_MS_DEFAULT,
        value_parser = value_parser!(u64).range(0..=limits::LEGACY_PAUSE_MS_MAX))]
    pub(crate) legacy_pause_ms: u64,

    /// Milliseconds a connection may take none of the output waiting for it before it is closed
    #[arg(long, env = "CIPHERMQ_SLOW_READER_MS", value_name = "MS", default_value_t = limits::SLOW_READER_MS,
        value_parser = value_parser!(u64).range(1..))]
    pub(crate) slow_reader_ms: u64,

    /// Connections served at a time; further ones wait in the listen queue
    #[arg(long, env = "CIPHERMQ_MAX_CONNECTIONS", value_name = "N", default_value_t = limits::CONNECTIONS_DEFAULT,
        value_parser = at_least_one)]
    pub(crate) max_connections: usize,

    /// Worker threads [default: one for each core this process may use]
    #[arg(long, env = "CIPHERMQ_THREADS", value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,

    /// What is logged to stderr: error, warn, info, debug, trace or off, also for each module
    /// (`info,ciphermq_server=debug`)
    #[arg(long, env = "CIPHERMQ_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Directory for receiver_private.pem (mode 0600) and receiver_public.pem; made if need be, no file is overwritten
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Size of the RSA key, 2048 to 8192
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = key_bits)]
    pub(crate) bits: usize,
}

/// Every argument is a message; without arguments every line of stdin is one.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 every message is confirmed by the broker, 1 at least one is not, 2 wrong usage.")]
pub(crate) struct Send {
    /// Public key of the receiver (PEM)
    #[arg(long, value_name = "PUBLIC.PEM")]
    pub(crate) to: PathBuf,

    /// Broker to connect to
    #[arg(long, env = "CIPHERMQ_SERVER", value_name = "HOST:PORT", default_value = limits::LISTEN_DEFAULT)]
    pub(crate) server: String,

    /// Exchange to publish to
    #[arg(long, value_name = "NAME", default_value = wire::DEFAULT_EXCHANGE)]
    pub(crate) exchange: String,

    /// Routing key to publish with
    #[arg(long, value_name = "KEY", default_value = wire::DEFAULT_KEY)]
    pub(crate) key: String,

    /// Message id instead of a new UUID; takes exactly one MESSAGE. Sending it again with the same id stores nothing
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,

    /// Print the id of each message when the broker has confirmed it
    #[arg(long)]
    pub(crate) print_ids: bool,

    /// The same as one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Messages to send [default: the lines of stdin]
    #[arg(value_name = "MESSAGE")]
    pub(crate) messages: Vec<String>,
}

/// A message is acknowledged after it was written and flushed. One that does not open with the key stays in the
/// queue. SIGINT and SIGTERM end the program cleanly.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 done, 1 a message could not be opened or acknowledged, or --timeout-ms passed before --count messages \
came, 2 wrong usage.")]
pub(crate) struct Receive {
    /// Private key of the receiver (PEM)
    #[arg(long, value_name = "PRIVATE.PEM")]
    pub(crate) identity: PathBuf,

    /// Broker to connect to
    #[arg(long, env = "CIPHERMQ_SERVER", value_name = "HOST:PORT", default_value = limits::LISTEN_DEFAULT)]
    pub(crate) server: String,

    /// Queue to consume
    #[arg(long, value_name = "NAME", default_value = wire::DEFAULT_QUEUE)]
    pub(crate) queue: String,

    /// End after so many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,

    /// Print one JSON object a line: message_id, message, timestamp (seconds), published (milliseconds), queue, attempt
    #[arg(long)]
    pub(crate) json: bool,

    /// End when no message came for so many milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) timeout_ms: Option<u64>,
}

/// Without --server a broker is started as a process of its own, keeping messages in memory. It shares the machine's
/// cores with the load generator: both would be faster alone.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Bench {
    /// Measure the broker at this address instead of a fresh one [modes `memory` and `echo` still start their own]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) server: Option<SocketAddr>,

    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "MODES",
        default_value = "publish,end-to-end,drain,echo,crypto,memory"
    )]
    pub(crate) modes: Vec<Mode>,

    /// Sizes of the plaintext; the envelope around it is larger (1 KiB becomes 1.9 KB)
    #[arg(long, value_delimiter = ',', value_name = "SIZES", default_value = "256,1KiB,16KiB", value_parser = body_size)]
    pub(crate) sizes: Vec<Size>,

    /// Numbers of connections, each on a thread of its own; end to end has as many consumers besides
    #[arg(long, value_delimiter = ',', value_name = "COUNTS", default_value = "1,4", value_parser = connection_count)]
    pub(crate) connections: Vec<usize>,

    /// Publishes a connection may have unanswered
    #[arg(long, value_delimiter = ',', value_name = "COUNTS", default_value = "1,256", value_parser = window)]
    pub(crate) windows: Vec<usize>,

    /// Seconds of each row of publish, end-to-end and echo [default: 2]
    #[arg(long, value_name = "S", value_parser = value_parser!(u64).range(1..=600))]
    pub(crate) seconds: Option<u64>,

    /// Do everything as shortly as possible: a check that it works, not a measurement
    #[arg(long, conflicts_with = "seconds")]
    pub(crate) quick: bool,

    /// Print one line of JSON for each row instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Be the server of mode `echo`
    #[arg(long, value_enum, hide = true)]
    pub(crate) echo_server: Option<Echo>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Success = 0,
    Failure = 1,
    Usage = 2,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Why a command failed, and how the process ends because of it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) status: Status,
    pub(crate) error: Box<dyn Error>,
}

impl Fault {
    pub(crate) fn usage(error: impl Into<Box<dyn Error>>) -> Fault {
        Fault { status: Status::Usage, error: error.into() }
    }

    pub(crate) fn runtime(error: impl Into<Box<dyn Error>>) -> Fault {
        Fault { status: Status::Failure, error: error.into() }
    }
}

/// An error and its causes, as `what: why: why`.
pub(crate) fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

/// A socket address; `localhost` is understood without asking a name server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        match local {
            Some(port) => Ok(Listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
            None => text
                .parse()
                .map(Listen)
                .map_err(|_| "an IP address and a port, such as 127.0.0.1:5672 or [::1]:0".into()),
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let unit = UNITS.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let bytes = digits.trim_end().parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
        bytes.map(Size).ok_or_else(|| "a number of bytes, such as 4096, 64KiB, 1MiB or 4GiB".into())
    }
}

fn line_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    let allowed = wire::LINE_BYTES_MIN as u64..=wire::LINE_BYTES_MAX as u64;
    if allowed.contains(&size.0) { Ok(size) } else { Err("from 4KiB to 64MiB".into()) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number from 1".into())
}

fn key_bits(text: &str) -> Result<usize, String> {
    between(text, RSA_BITS_MIN, RSA_BITS_MAX)
}

/// The default line limit of a broker bounds what a bench can send: base64 makes a third more of it.
fn body_size(text: &str) -> Result<Size, String> {
    const BODY_BYTES_MAX: u64 = 128 << 10;
    let size: Size = text.parse()?;
    if size.0 <= BODY_BYTES_MAX { Ok(size) } else { Err("at most 128KiB".into()) }
}

fn connection_count(text: &str) -> Result<usize, String> {
    between(text, 1, 1000)
}

fn window(text: &str) -> Result<usize, String> {
    between(text, 1, wire::PENDING_REPLIES_MAX)
}

fn between(text: &str, min: usize, max: usize) -> Result<usize, String> {
    text.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| format!("a number from {min} to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_are_exact_or_refused() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0).ok();
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("64KiB"), Some(64 << 10));
        assert_eq!(size("1 MiB"), Some(1 << 20));
        assert_eq!(size("4GiB"), Some(4 << 30));
        for bad in ["", "KiB", "1.5MiB", "-1", "1MB", "4 096", "18446744073709551616", "18446744073709551615KiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn localhost_needs_no_name_server() {
        let listen = |text: &str| text.parse::<Listen>().map(|listen| listen.0.to_string()).ok();
        assert_eq!(listen("localhost:0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(listen("[::1]:5672").as_deref(), Some("[::1]:5672"));
        assert_eq!(listen("localhost"), None);
        assert_eq!(listen("example.org:5672"), None);
    }
}
