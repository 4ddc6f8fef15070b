//! `Broker`: the real broker, inside this process, for tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use ciphermq_server::{DirectoryStore, Server, ServerConfig, Store};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::process::Owned;
use crate::seconds::Seconds;

/// How long the threads of a stopped broker may take to end.
const THREADS_WAIT: Duration = Duration::from_secs(1);

/// A broker on a port of the loopback address, with threads of its own.
#[pyclass(frozen, module = "ciphermq._native")]
pub(crate) struct Broker {
    address: SocketAddr,
    running: Owned<Mutex<Option<Running>>>,
}

struct Running {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ciphermq_server::Error>>,
}

#[pymethods]
impl Broker {
    /// Starts it; port 0 picks a free one.
    #[new]
    #[pyo3(signature = (*, port, lease, max_attempts, data_dir))]
    fn new(
        py: Python<'_>,
        port: u16,
        lease: Option<Seconds>,
        max_attempts: Option<u32>,
        data_dir: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut config =
            ServerConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ..ServerConfig::default() };
        if let Some(Seconds(lease)) = lease {
            config.broker.lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1);
        }
        if let Some(attempts) = max_attempts {
            config.broker.max_attempts = attempts;
        }
        if let Some(path) = data_dir {
            config.store = Store::Directory(DirectoryStore { path, bytes_max: None });
        }
        let (address, running) = py.detach(|| start(config))?;
        Ok(Self { address, running: Owned::new(Mutex::new(Some(running))) })
    }

    #[getter]
    fn host(&self) -> String {
        self.address.ip().to_string()
    }

    #[getter]
    fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends it as a signal would: connections are told, replies are sent.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let running = self.take()?;
        py.detach(|| match running {
            Some(Running { runtime, stop, served }) => {
                // The other end is gone only if the broker has ended by itself.
                let _ = stop.send(());
                let outcome = runtime.block_on(served);
                runtime.shutdown_timeout(THREADS_WAIT);
                match outcome {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(failed(&error)),
                    Err(error) => Err(failed(&error)),
                }
            }
            None => Ok(()),
        })
    }

    /// Ends it in the middle of what it does: connections break, nothing is sealed.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        let running = self.take()?;
        // Dropping the tasks closes their sockets.
        py.detach(|| running.map(|running| running.runtime.shutdown_timeout(THREADS_WAIT)));
        Ok(())
    }
}

impl Broker {
    fn take(&self) -> PyResult<Option<Running>> {
        Ok(self.running.get()?.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

fn start(config: ServerConfig) -> PyResult<(SocketAddr, Running)> {
    let server = Server::bind(config).map_err(|error| failed(&error))?;
    let address = server.local_addr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("ciphermq-broker")
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let served = runtime.spawn(server.run(async { drop(stopped.await) }));
    Ok((address, Running { runtime, stop, served }))
}

/// With its causes: which port is taken, and by what right.
fn failed(error: &dyn std::error::Error) -> PyErr {
    let causes = std::iter::successors(Some(error), |error| error.source());
    PyOSError::new_err(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}
