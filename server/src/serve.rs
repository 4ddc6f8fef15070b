use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;

use ciphermq_broker::BrokerOptions;
use ciphermq_server::{Error, Server, ServerConfig, Store};

use crate::cli::{Fault, Serve, Status};
use crate::{logging, open_files, shutdown};

/// `ciphermq serve`: runs the broker until a signal ends it.
pub(crate) fn run(options: Serve) -> Result<Status, Fault> {
    logging::start(&options.log).map_err(Fault::usage)?;
    let threads = options.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    // By value: CIPHERMQ_MEMORY=0 beside a directory is no contradiction.
    if options.memory && options.data_dir.is_some() {
        return Err(Fault::usage(
            "--memory and --data-dir exclude each other: keep messages in memory, or in a directory",
        ));
    }
    let config = config(options);
    if let Store::Directory(directory) = &config.store {
        // Not through the log: no filter may hide it.
        eprintln!("{}", memory_only(directory));
    }
    open_files::raise(config.connections_max);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(Fault::runtime)?;
    runtime.block_on(async {
        // Before the ready line: whoever reads it may send a signal at once.
        let stop = shutdown::on_signal().map_err(Fault::runtime)?;
        let server = Server::bind(config).map_err(fault)?;
        announce(server.local_addr());
        server.run(stop).await.map_err(fault)
    })?;
    // Whatever a task still does is not worth waiting for.
    runtime.shutdown_background();
    Ok(Status::Success)
}

fn config(options: Serve) -> ServerConfig {
    let store = match (options.memory, options.data_dir) {
        (true, _) => Store::Memory,
        (false, Some(directory)) => Store::Directory(directory),
        (false, None) => Store::Directory(default_directory()),
    };
    let broker = BrokerOptions {
        lease_ms: options.lease_ms,
        max_attempts: options.max_attempts,
        store_bytes_max: options.store_max_bytes.0,
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
    }
}

/// The user's state directory, as the XDG base directory specification has it.
fn default_directory() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from(".")).join("ciphermq")
}

fn memory_only(directory: &Path) -> String {
    format!(
        "ciphermq: WARNING: this version has no journal on disk: messages are kept in memory only, nothing is written \
         to {directory:?}, and all messages are lost when the process ends (--memory says that this is wanted)"
    )
}

/// The one line on stdout. Nobody may be reading it.
fn announce(address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "CipherMQ ready on {address}").and_then(|()| stdout.flush());
    if let Err(fault) = written {
        tracing::warn!(%fault, "the ready line could not be written");
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::NotLoopback(_) => Fault::usage(error),
        _ => Fault::runtime(error),
    }
}
