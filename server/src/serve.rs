use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use ciphermq_broker::BrokerOptions;
use ciphermq_journal::{FindingKind, Report};
use ciphermq_server::{DirectoryStore, Error, Recovered, Server, ServerConfig, Store, journal_durability};

use tracing::{info, warn};

use crate::cli::{Fault, Serve, Status};
use crate::{logging, open_files, shutdown};

/// `ciphermq serve`: runs the broker until a signal ends it.
pub(crate) fn run(options: Serve) -> Result<Status, Fault> {
    logging::start(&options.log).map_err(Fault::usage)?;
    // By value: CIPHERMQ_MEMORY=0 beside a directory is no contradiction.
    if options.memory && options.data_dir.is_some() {
        return Err(Fault::usage(
            "--memory and --data-dir exclude each other: keep messages in memory, or in a directory",
        ));
    }
    let config = config(options);
    open_files::raise(config.connections_max);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::runtime)?;
    runtime.block_on(async {
        // Before the ready line: whoever reads it may send a signal at once.
        let stop = shutdown::on_signal().map_err(Fault::runtime)?;
        let began = Instant::now();
        let server = Server::bind(config).map_err(fault)?;
        server.recovered().into_iter().for_each(|recovered| tell(recovered, began.elapsed()));
        announce(server.local_addr());
        server.run(stop).await.map_err(fault)
    })?;
    // Whatever a task still does is not worth waiting for.
    runtime.shutdown_background();
    Ok(Status::Success)
}

fn config(options: Serve) -> ServerConfig {
    let store = if options.memory {
        Store::Memory
    } else {
        let path = options.data_dir.unwrap_or_else(default_directory);
        Store::Directory(DirectoryStore { path, bytes_max: options.disk_max_bytes.map(|size| size.0) })
    };
    let broker = BrokerOptions {
        lease_ms: options.lease_ms,
        max_attempts: options.max_attempts,
        store_bytes_max: options.store_max_bytes.0,
        resident_bytes_max: options.memory_budget.0,
        durability: journal_durability(options.durability),
        dedupe_window_ms: options.dedupe_window_s.saturating_mul(1000),
        dedupe_ids_max: options.dedupe_max_ids,
        ..BrokerOptions::default()
    };
    ServerConfig {
        listen: options.listen.0,
        store,
        broker,
        line_bytes_max: usize::try_from(options.max_line.0).unwrap_or(usize::MAX),
        legacy_pause_ms: options.legacy_pause_ms,
        slow_reader_ms: options.slow_reader_ms,
        connections_max: options.max_connections,
        threads: options.threads.or_else(|| thread::available_parallelism().ok()),
    }
}

/// The user's state directory, as the XDG base directory specification has it.
fn default_directory() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from(".")).join("ciphermq")
}

/// What the start found. Damage is said whatever the log's filter is.
fn tell(recovered: &Recovered, elapsed: Duration) {
    let Recovered { log, queues, messages, ids, .. } = recovered;
    let Report { records, payload_bytes, segments, closed, .. } = log;
    let elapsed_ms = elapsed.as_millis();
    info!(queues, messages, ids, records, payload_bytes, segments, closed, elapsed_ms, "recovered");
    for finding in &log.findings {
        match finding.kind {
            kind if kind.is_loss() => eprintln!("ciphermq: DAMAGED {finding}"),
            FindingKind::Torn => info!("cut {finding}"),
            _ => warn!("noted {finding}"),
        }
    }
    if let Some(error) = &log.aside_failed {
        warn!(error, "damaged bytes could not be kept aside; they stay where they are");
    }
}

/// The one line on stdout. Nobody may be reading it.
fn announce(address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "CipherMQ ready on {address}").and_then(|()| stdout.flush());
    if let Err(fault) = written {
        warn!(%fault, "the ready line could not be written");
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::NotLoopback(_) => Fault::usage(error),
        _ => Fault::runtime(error),
    }
}
