use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use ciphermq_broker::{Broker, Recovered, Timestamp};
use ciphermq_journal::{FileDisk, JournalOptions};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::connection::{ConnectionContext, SessionLimits, StoreKind, drive};
use crate::counters::Counters;
use crate::workers::Workers;
use crate::{Error, ServerConfig, Store, limits, listener, timers};

/// A broker with its listening socket. Connections are served by [`Server::run`]; until then they wait.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    address: SocketAddr,
    broker: Broker,
    recovered: Option<Recovered>,
    clock: Clock,
    config: ServerConfig,
}

impl Server {
    /// Takes the address and makes the broker; reads its log if it has one, which takes a moment when it is long. Needs no
    /// runtime.
    ///
    /// # Errors
    /// [`Error::NotLoopback`] for an address other machines could reach, [`Error::Listen`] if the system refuses it,
    /// [`Error::Data`] if the data directory cannot be used; damage in it is no error.
    pub fn bind(config: ServerConfig) -> Result<Server, Error> {
        let asked = config.listen;
        if !asked.ip().to_canonical().is_loopback() {
            return Err(Error::NotLoopback(asked));
        }
        let refused = |source| Error::Listen { address: asked, source };
        let listener = listener::listen(asked).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let clock = Clock::start();
        let (broker, recovered) = start(&config, clock.now())?;
        Ok(Server { listener, address, broker, recovered, clock, config })
    }

    /// What was found in the data directory; `None` without one.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    /// Where the server listens, with the port that was picked if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves connections until `shutdown` completes, then takes no new ones, lets the others say good-bye for at
    /// most [`limits::SHUTDOWN_WAIT`], ends them, and closes the journal. Must be called within a tokio runtime with IO and time enabled.
    ///
    /// # Errors
    /// [`Error::Accept`] if the runtime does not take the listening socket, [`Error::Thread`] if a thread cannot be started.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Server { listener, address, broker, clock, config, .. } = self;
        let listener = TcpListener::from_std(listener).map_err(Error::Accept)?;
        let (stop, stopping) = watch::channel(false);
        let context = Arc::new(context(&config, clock, stopping));
        // Dropping a set ends its tasks, also when this future is dropped half-way.
        let mut background = JoinSet::new();
        background.spawn(timers::run(broker.clone(), clock));
        let mut connections = JoinSet::new();
        let workers = Workers::start(config.threads).map_err(Error::Thread)?;

        info!(%address, "listening");
        tokio::select! {
            () = listener::accept(&listener, &mut connections, config.connections_max, |connections, stream| {
                let (broker, context) = (broker.clone(), Arc::clone(&context));
                workers.spawn(connections, stream, move |stream| async move { drive(stream, &broker, context).await });
            }) => {}
            () = shutdown => {}
        }
        drop(listener);
        info!(connections = connections.len(), "shutting down");
        stop.send_replace(true);
        if tokio::time::timeout(limits::SHUTDOWN_WAIT, listener::drain(&mut connections)).await.is_err() {
            warn!(connections = connections.len(), "connections did not end in time and are cut");
        }
        // Those that were cut return their leases, which is written, too.
        connections.shutdown().await;
        // Writes and syncs what is left: a moment in which nothing else runs.
        broker.close();
        info!("stopped");
        Ok(())
    }
}

fn start(config: &ServerConfig, now: Timestamp) -> Result<(Broker, Option<Recovered>), Error> {
    let options = config.broker.clone();
    let Store::Directory(store) = &config.store else { return Ok((Broker::in_memory(options, now), None)) };
    let failed = |source| Error::Data { path: store.path.clone(), source };
    let disk = FileDisk::open(&store.path).map_err(|error| failed(error.into()))?;
    let journal = JournalOptions { disk_bytes_max: store.bytes_max, ..JournalOptions::default() };
    let opened = Broker::open(options, now, Arc::new(disk), journal);
    opened.map(|(broker, recovered)| (broker, Some(recovered))).map_err(|error| failed(error.into()))
}

fn context(config: &ServerConfig, clock: Clock, shutdown: watch::Receiver<bool>) -> ConnectionContext {
    let limits = SessionLimits {
        max_line: config.line_bytes_max,
        legacy_pause_ms: config.legacy_pause_ms,
        slow_reader_ms: config.slow_reader_ms,
    };
    let store = match config.store {
        Store::Memory => StoreKind::Memory,
        Store::Directory(_) => StoreKind::Disk,
    };
    ConnectionContext { clock, store, limits, shutdown, counters: Arc::new(Counters::default()) }
}
