//! The command line: every flag with its environment variable, default, unit and bounds.

mod keys;
mod values;

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use cipher_client::ErrorKind;
use cipher_client::crypto::{Context, Suite};
use ciphermq_broker::limits as broker;
use ciphermq_protocol::{Durability, limits as wire};
use ciphermq_server::limits;
use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, value_parser};

use crate::bench::{Echo, Mode};
pub(crate) use keys::{
    Key, KeyCommand, KeyFingerprint, KeyPrune, KeyRewrap, KeyRotate, KeyShow, KeySuite, KeyUse, Keygen, PassphraseFrom,
};
pub(crate) use values::{Listen, Size};
use values::{at_least_one, body_size, connection_count, disk_size, durability, line_size, place, suite, window};

/// An encrypted message broker: it stores and delivers messages it cannot read.
#[derive(Debug, Parser)]
#[command(name = "ciphermq", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// [`broker::RESIDENT_BYTES_DEFAULT`] as a flag says it.
const MEMORY_BUDGET_DEFAULT: &str = "64MiB";

const EXIT_CODES: &str = "\
Exit codes: 0 done (for serve: stopped by a signal, every connection ended in time or was cut), \
1 failed while running, 2 wrong usage (bad flags, an address that may not be listened on).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker until SIGINT or SIGTERM
    Serve(Serve),
    /// Check a data directory without changing it
    ///
    /// Reads every byte of the log and compares it with its checksums. Takes no lock and writes nothing, so it can run beside a
    /// broker; what that one is just writing is not counted as damage.
    Verify(Verify),
    /// Print the records of a data directory, never a body
    ///
    /// One line a record, in the order of the log: position, time, kind, exchange, queues, message id, lengths. Takes no lock and
    /// writes nothing.
    Inspect(Inspect),
    /// Make a key pair for a receiver, or for a sender who signs
    Keygen(Keygen),
    /// Look at keys, change keys and their passphrases
    Key(Key),
    /// Seal messages for one receiver or several and publish them
    ///
    /// Every argument is a message; without arguments every line of stdin is one. The keys of the receivers say how it is
    /// sealed: RSA for the original clients, X25519, or X-Wing, which holds against quantum computers too.
    Send(Send),
    /// Receive messages, open them and print them
    ///
    /// A message is acknowledged after it was written and flushed. One that does not open with the key, or is not signed by
    /// one of --from, stays in the queue. SIGINT and SIGTERM end the program cleanly.
    Receive(Receive),
    /// Measure a broker: messages per second, latency, memory
    ///
    /// Without --server a broker is started as a process of its own. It keeps its messages in a temporary directory, synced
    /// before each answer, or in memory (--memory). It shares the machine's cores with the load generator: both would be faster
    /// alone.
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

    /// Directory for messages, made if it is not there [default: ciphermq below $XDG_STATE_HOME or ~/.local/state].
    ///
    /// One broker at a time uses it. What a start finds wrong with it is said on stderr and kept in its directory `aside`.
    #[arg(long, env = "CIPHERMQ_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Keep messages in memory only: they are gone when the process ends
    #[arg(long, env = "CIPHERMQ_MEMORY", value_parser = FalseyValueParser::new())]
    pub(crate) memory: bool,

    /// What an ACK waits for, for queues that do not state their own: sync, interval:MS or none.
    ///
    /// sync: the message is on disk. interval:MS: it is written, and on disk at most so many milliseconds later. none: it
    /// is written, and the system puts it on disk when it likes. What is written survives the end of the process, what
    /// is on disk survives the end of the power.
    #[arg(long, env = "CIPHERMQ_DURABILITY", value_name = "WHEN", default_value = "sync", value_parser = durability)]
    pub(crate) durability: Durability,

    /// Bytes of message bodies kept in memory; beyond them bodies are read back from disk when they are delivered
    #[arg(long, env = "CIPHERMQ_MEMORY_BUDGET", value_name = "SIZE", default_value = MEMORY_BUDGET_DEFAULT)]
    pub(crate) memory_budget: Size,

    /// Bytes the data directory may take, at least 16MiB [default: what the disk has].
    ///
    /// Near the limit publishes are refused with DISK_FULL; consuming and acking go on.
    #[arg(long, env = "CIPHERMQ_DISK_MAX_BYTES", value_name = "SIZE", value_parser = disk_size)]
    pub(crate) disk_max_bytes: Option<Size>,

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

    /// Threads that serve connections [default: one for each core this process may use]
    #[arg(long, env = "CIPHERMQ_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// What is logged to stderr: error, warn, info, debug, trace or off, also for each module
    /// (`info,ciphermq_server=debug`)
    #[arg(long, env = "CIPHERMQ_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 every record is whole, 1 at least one is damaged or the directory cannot be read, 2 wrong usage.")]
pub(crate) struct Verify {
    /// Directory of messages
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 done, 1 at least one record is damaged or the directory cannot be read, 2 wrong usage.")]
pub(crate) struct Inspect {
    /// Directory of messages
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Print records from this position on
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub(crate) from: u64,

    /// Print records of this queue only
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 every message is confirmed by the broker, 1 at least one is not, 2 wrong usage.")]
pub(crate) struct Send {
    /// Public key of the receiver (PEM), or the directory of its keyset; several times for several receivers, whose keys
    /// are of one kind
    #[arg(long, value_name = "PUBLIC.PEM|DIR", required = true)]
    pub(crate) to: Vec<PathBuf>,

    /// Private key to sign with (PEM, from `keygen --suite sign`)
    #[arg(long, value_name = "SENDER.PEM")]
    pub(crate) sign: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) key_use: KeyUse,

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

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 done, 1 a message could not be opened or acknowledged, or --timeout-ms passed before --count messages \
came, 2 wrong usage.")]
pub(crate) struct Receive {
    /// Private key of the receiver (PEM), or the directory of its keyset
    #[arg(long, value_name = "PRIVATE.PEM|DIR")]
    pub(crate) identity: PathBuf,

    #[command(flatten)]
    pub(crate) key_use: KeyUse,

    /// Public key of a sender (PEM); only what one of the senders has signed is taken, without --from everything that opens
    #[arg(long, value_name = "SENDER_PUBLIC.PEM")]
    pub(crate) from: Vec<PathBuf>,

    /// Take only what its sender sealed for this exchange and key, whatever the broker says; may be given several times
    #[arg(long, value_name = "EXCHANGE,KEY", value_parser = place)]
    pub(crate) only_for: Vec<Context>,

    /// Take only what was signed at most so many seconds ago, by its sender's clock
    #[arg(long, value_name = "S", requires = "from")]
    pub(crate) max_age_s: Option<u64>,

    /// Take only these suites: 1, 2r, 2x, 2pq [default: all]
    #[arg(long, value_name = "SUITES", value_delimiter = ',', value_parser = suite)]
    pub(crate) suites: Vec<Suite>,

    /// File that remembers what was printed and acknowledged, 1,000,000 messages of the last 24 hours: one that comes again,
    /// also under another id, is acknowledged and not printed
    #[arg(long, value_name = "FILE")]
    pub(crate) dedupe: Option<PathBuf>,

    /// Broker to connect to
    #[arg(long, env = "CIPHERMQ_SERVER", value_name = "HOST:PORT", default_value = limits::LISTEN_DEFAULT)]
    pub(crate) server: String,

    /// Queue to consume
    #[arg(long, value_name = "NAME", default_value = wire::DEFAULT_QUEUE)]
    pub(crate) queue: String,

    /// End after so many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,

    /// Print one JSON object a line: message_id, message, timestamp (seconds), published (milliseconds), queue, attempt,
    /// suite, sender (the id of one of --from, or null)
    #[arg(long)]
    pub(crate) json: bool,

    /// End when no message came for so many milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) timeout_ms: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Bench {
    /// Measure the broker at this address instead of a fresh one [modes `memory` and `echo` still start their own]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) server: Option<SocketAddr>,

    /// Have the brokers that are started keep their messages in memory: nothing is synced, nothing is reopened
    #[arg(long)]
    pub(crate) memory: bool,

    /// Directory below which they keep their messages; removed behind them [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    pub(crate) data_dir: Option<PathBuf>,

    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "MODES",
        default_value = "publish,end-to-end,drain,echo,crypto,memory,reopen"
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

    /// Messages of mode reopen [default: 1,000,000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=100_000_000))]
    pub(crate) reopen_messages: Option<u64>,

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

/// Why there is no connection to the broker.
pub(crate) fn not_connected(server: &str, error: &cipher_client::Error) -> Fault {
    let next = match error.kind() {
        ErrorKind::Connection => "; `ciphermq serve` starts a broker, --server names another",
        _ => "",
    };
    Fault::runtime(format!("{server}: {}{next}", one_line(error)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_in_words_are_those_in_numbers() {
        assert_eq!(MEMORY_BUDGET_DEFAULT.parse(), Ok(Size(broker::RESIDENT_BYTES_DEFAULT)));
    }
}
