//! `Connection`: what a sender and a receiver do with the broker.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cipher_client::crypto::{self, Context, PartLimits, Sealed};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Durability};
use cipher_client::{Client, ConnectOptions, ErrorKind, QueueOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::sync::OnceCell;

use crate::collecting::Collecting;
use crate::directory::{self, Announced};
use crate::error::{Failure, raised};
use crate::identity::Identity;
use crate::keys::PublicKey;
use crate::large::LargeMessage;
use crate::leases::Dedupe;
use crate::logging;
use crate::opener::Opener;
use crate::process::Owned;
use crate::publishing::{Route, Tries, publish, start_batch};
use crate::sealer::Sealer;
use crate::seconds::Seconds;
use crate::subscription::{Inbox, Subscription};
use crate::text::Octets;
use crate::topology;
use crate::trust::{Pins, time};
use crate::wait::Mode;

/// A client that connects on first use.
#[pyclass(frozen, module = "ciphermq._native")]
pub(crate) struct Connection {
    inner: Owned<Arc<Inner>>,
    mode: Mode,
}

/// What the operations under way share.
pub(crate) struct Inner {
    options: ConnectOptions,
    client: OnceCell<Client>,
    is_closed: AtomicBool,
    pub(crate) pending: Arc<AtomicUsize>,
}

impl Inner {
    /// The client, connected.
    pub(crate) async fn client(&self) -> Result<&Client, Failure> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(ErrorKind::Closed.into());
        }
        let connect = || Client::connect(self.options.clone());
        Ok(self.client.get_or_try_init(connect).await?)
    }

    async fn close(&self) -> Result<(), Failure> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        match self.client.get() {
            Some(client) => Ok(client.clone().close().await?),
            None => Ok(()),
        }
    }
}

#[pymethods]
impl Connection {
    /// Nothing is sent before the first operation.
    #[new]
    #[pyo3(signature = (host, port, *, timeout, window, name, asyncio))]
    fn new(
        py: Python<'_>,
        host: &str,
        port: u16,
        timeout: Seconds,
        window: usize,
        name: Option<String>,
        asyncio: bool,
    ) -> PyResult<Self> {
        logging::read_level(py)?;
        let host = if host.contains(':') { Cow::from(format!("[{host}]")) } else { Cow::from(host) };
        let options = ConnectOptions::new(format!("{host}:{port}"))
            .connect_timeout(timeout.0)
            .request_timeout(timeout.0)
            .window(window);
        let options = match name {
            Some(name) => options.name(name),
            None => options,
        };
        let inner = Inner {
            options,
            client: OnceCell::new(),
            is_closed: AtomicBool::new(false),
            pending: Arc::new(AtomicUsize::new(0)),
        };
        Ok(Self { inner: Owned::new(Arc::new(inner)), mode: Mode::new(asyncio) })
    }

    /// Connects, if that was not done.
    fn connect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { inner.client().await.map(drop) })
    }

    /// Waits for what is under way, and ends.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { inner.close().await })
    }

    /// Whether there is a connection at this moment.
    #[getter]
    fn connected(&self) -> PyResult<bool> {
        Ok(self.inner.get()?.client.get().is_some_and(Client::is_connected))
    }

    /// Whether it was closed by its owner.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.inner.get()?.is_closed.load(Ordering::Acquire))
    }

    /// How many times the connection was lost and made again.
    #[getter]
    fn reconnects(&self) -> PyResult<u64> {
        Ok(self.inner.get()?.client.get().map_or(0, Client::reconnects))
    }

    /// Publishes without confirmation so far.
    #[getter]
    fn pending(&self) -> PyResult<usize> {
        Ok(self.inner.get()?.pending.load(Ordering::Relaxed))
    }

    /// Seals and publishes.
    #[pyo3(signature = (exchange, routing_key, plaintext, sealer, *, content_type, message_id, timeout, attempts))]
    #[allow(clippy::too_many_arguments)] // the caller names them; they are one thing each
    fn send<'py>(
        &self,
        py: Python<'py>,
        exchange: &str,
        routing_key: &str,
        plaintext: Octets<'py>,
        sealer: &Bound<'py, Sealer>,
        content_type: Option<&str>,
        message_id: Option<&str>,
        timeout: Seconds,
        attempts: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (inner, route) = (self.inner()?, route(exchange, routing_key));
        let (sealer, plaintext) = (&sealer.get().inner, plaintext.as_bytes());
        let context = Context::new(exchange, routing_key).content_type(content_type.unwrap_or_default());
        let sealed = py.detach(|| match message_id {
            Some(id) => sealer.seal_for_with_id(&context, id, plaintext),
            None => sealer.seal_for(&context, plaintext),
        });
        let tries = tries(timeout, attempts)?;
        self.mode.run(py, publish(inner, route, sealed.map_err(raised)?, tries))
    }

    /// Publishes what is sealed already.
    #[pyo3(signature = (exchange, routing_key, envelope, *, message_id, timeout, attempts))]
    #[allow(clippy::too_many_arguments)] // as for `send`
    fn publish<'py>(
        &self,
        py: Python<'py>,
        exchange: &str,
        routing_key: &str,
        envelope: String,
        message_id: Option<String>,
        timeout: Seconds,
        attempts: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (inner, route, tries) = (self.inner()?, route(exchange, routing_key), tries(timeout, attempts)?);
        let sealed = sealed(envelope, message_id)?;
        self.mode.run(py, publish(inner, route, sealed, tries))
    }

    /// Seals a group of messages and puts them on their way: a `Batch`.
    #[pyo3(signature = (exchange, routing_key, plaintexts, sealer, *, content_type, timeout, attempts))]
    #[allow(clippy::too_many_arguments)] // as for `send`
    fn send_batch<'py>(
        &self,
        py: Python<'py>,
        exchange: &str,
        routing_key: &str,
        plaintexts: &Bound<'py, PyList>,
        sealer: &Bound<'py, Sealer>,
        content_type: Option<&str>,
        timeout: Seconds,
        attempts: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (inner, route, tries) = (self.inner()?, route(exchange, routing_key), tries(timeout, attempts)?);
        let plaintexts: Vec<Octets<'py>> = plaintexts.iter().map(|text| text.extract()).collect::<PyResult<_>>()?;
        let plaintexts: Vec<&[u8]> = plaintexts.iter().map(Octets::as_bytes).collect();
        let sealer = &sealer.get().inner;
        let context = Context::new(exchange, routing_key).content_type(content_type.unwrap_or_default());
        let sealed: cipher_client::Result<Vec<Sealed>> =
            py.detach(|| plaintexts.iter().map(|text| sealer.seal_for(&context, text)).collect());
        let batch = start_batch(inner, route, sealed.map_err(raised)?, tries, self.mode.clone());
        self.mode.run(py, batch)
    }

    /// Begins a message of `bytes` bytes that is sent in parts: a `LargeMessage`.
    #[pyo3(signature = (exchange, routing_key, bytes, sealer, *, content_type, message_id, timeout, attempts))]
    #[allow(clippy::too_many_arguments)] // as for `send`
    fn begin_large<'py>(
        &self,
        py: Python<'py>,
        exchange: String,
        routing_key: String,
        bytes: u64,
        sealer: &Bound<'py, Sealer>,
        content_type: Option<&str>,
        message_id: Option<String>,
        timeout: Seconds,
        attempts: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (inner, route, tries) = (self.inner()?, route(&exchange, &routing_key), tries(timeout, attempts)?);
        let context = Context::new(exchange, routing_key).content_type(content_type.unwrap_or_default());
        let (sealer, mode) = (Arc::clone(&sealer.get().inner), self.mode.clone());
        self.mode.run(py, async move {
            let line_bytes = inner.client().await?.line_bytes_max();
            let parts = sealer.part_sealer_for_lines(&context, message_id.as_deref(), bytes, line_bytes)?;
            Ok(LargeMessage::new(parts, inner, route, tries, mode))
        })
    }

    /// Makes ready to consume a queue; nothing is sent before the first message is asked for.
    #[pyo3(signature = (queue, opener, *, prefetch, dedupe, dedupe_sync, reject_undecryptable, parts_messages, parts_bytes,
        parts_timeout, spool))]
    #[allow(clippy::too_many_arguments)] // as for `send`
    fn consume(
        &self,
        py: Python<'_>,
        queue: String,
        opener: &Bound<'_, Opener>,
        prefetch: u32,
        dedupe: Option<Remember>,
        dedupe_sync: bool,
        reject_undecryptable: bool,
        parts_messages: usize,
        parts_bytes: usize,
        parts_timeout: Seconds,
        spool: Option<PathBuf>,
    ) -> PyResult<Subscription> {
        let opener = Arc::clone(&opener.get().inner);
        let durability = if dedupe_sync { Durability::Synced } else { Durability::Written };
        let options = DedupeOptions { durability, ..DedupeOptions::default() };
        let window = logging::detached(py, || match dedupe {
            None => Ok(None),
            Some(Remember::InMemory) => DedupeWindow::in_memory(options).map(Some),
            Some(Remember::File(path)) => DedupeWindow::open(path, options, SystemTime::now()).map(Some),
        });
        let dedupe = window.map_err(raised)?.map(|window| Dedupe::new(window, dedupe_sync));
        let limits = PartLimits { messages: parts_messages, bytes: parts_bytes, age: parts_timeout.0 };
        let collecting = Collecting::new(limits, spool, prefetch);
        let inbox = Inbox::new(self.inner()?, queue, prefetch, opener, dedupe, reject_undecryptable, collecting);
        Ok(Subscription::new(inbox, self.mode.clone()))
    }

    #[pyo3(signature = (queue, *, lease, max_attempts, dead_letter, max_messages, max_bytes, durability))]
    #[allow(clippy::too_many_arguments)] // as for `send`
    fn declare_queue<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        lease: Option<Seconds>,
        max_attempts: Option<u32>,
        dead_letter: Option<String>,
        max_messages: Option<u64>,
        max_bytes: Option<u64>,
        durability: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut options = QueueOptions::new();
        if let Some(Seconds(lease)) = lease {
            options = options.lease(lease);
        }
        if let Some(attempts) = max_attempts {
            options = options.max_attempts(attempts);
        }
        if let Some(queue) = dead_letter {
            options = options.dead_letter(queue);
        }
        if let Some(messages) = max_messages {
            options = options.max_messages(messages);
        }
        if let Some(bytes) = max_bytes {
            options = options.max_bytes(bytes);
        }
        if let Some(durability) = durability {
            options = options.durability(self::durability(&durability)?);
        }
        let inner = self.inner()?;
        self.mode.run(py, async move { Ok(inner.client().await?.declare_queue(&queue, &options).await?) })
    }

    /// Announces a key under a name.
    #[pyo3(signature = (client_id, public_key, identity, *, not_before, not_after))]
    fn announce_key<'py>(
        &self,
        py: Python<'py>,
        client_id: String,
        public_key: Option<&Bound<'py, PublicKey>>,
        identity: &Bound<'py, Identity>,
        not_before: Option<f64>,
        not_after: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let announced = Announced {
            key: public_key.map(|key| key.get().inner.clone()),
            identity: Arc::clone(&identity.get().inner),
            not_before: not_before.map(time).transpose()?,
            not_after: not_after.map(time).transpose()?,
        };
        self.mode.run(py, directory::announce(self.inner()?, client_id, announced))
    }

    /// The last announcement of a name.
    fn lookup_key<'py>(&self, py: Python<'py>, client_id: String) -> PyResult<Bound<'py, PyAny>> {
        self.mode.run(py, directory::look_up(self.inner()?, client_id))
    }

    /// The key to seal to for a name.
    fn resolve<'py>(&self, py: Python<'py>, client_id: String, pins: &Bound<'py, Pins>) -> PyResult<Bound<'py, PyAny>> {
        self.mode.run(py, directory::resolve(self.inner()?, client_id, Arc::clone(&pins.get().inner)))
    }

    /// The key that messages of a name are signed with.
    fn resolve_sender<'py>(
        &self,
        py: Python<'py>,
        client_id: String,
        pins: &Bound<'py, Pins>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.mode.run(py, directory::resolve_sender(self.inner()?, client_id, Arc::clone(&pins.get().inner)))
    }

    fn declare_exchange<'py>(&self, py: Python<'py>, exchange: String) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { Ok(inner.client().await?.declare_exchange(&exchange).await?) })
    }

    fn bind<'py>(
        &self,
        py: Python<'py>,
        exchange: String,
        queue: String,
        routing_key: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { Ok(inner.client().await?.bind(&exchange, &queue, &routing_key).await?) })
    }

    fn unbind<'py>(
        &self,
        py: Python<'py>,
        exchange: String,
        queue: String,
        routing_key: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { Ok(inner.client().await?.unbind(&exchange, &queue, &routing_key).await?) })
    }

    fn delete_queue<'py>(&self, py: Python<'py>, queue: String, force: bool) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move {
            let client = inner.client().await?;
            match force {
                true => Ok(client.delete_queue_and_messages(&queue).await?),
                false => Ok(client.delete_queue(&queue).await?),
            }
        })
    }

    fn delete_exchange<'py>(&self, py: Python<'py>, exchange: String) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { Ok(inner.client().await?.delete_exchange(&exchange).await?) })
    }

    fn purge<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { Ok(inner.client().await?.purge(&queue).await?) })
    }

    /// The time an answer takes, in seconds.
    fn ping<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move { Ok(inner.client().await?.ping().await?.as_secs_f64()) })
    }

    fn status<'py>(&self, py: Python<'py>, message_id: String) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move {
            let status = inner.client().await?.status(&message_id).await?;
            Ok(status.map(topology::Status))
        })
    }

    fn list_queues<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move {
            let queues = inner.client().await?.list_queues().await?;
            Ok(queues.into_iter().map(topology::Queue).collect::<Vec<_>>())
        })
    }

    fn list_exchanges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move {
            let exchanges = inner.client().await?.list_exchanges().await?;
            Ok(exchanges.into_iter().map(topology::Exchange).collect::<Vec<_>>())
        })
    }

    fn list_bindings<'py>(&self, py: Python<'py>, exchange: Option<String>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move {
            let bindings = inner.client().await?.list_bindings(exchange.as_deref()).await?;
            Ok(bindings.into_iter().map(topology::Binding).collect::<Vec<_>>())
        })
    }

    /// The broker's statistics.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.mode.run(py, async move {
            let stats = inner.client().await?.stats().await?;
            Ok(topology::Json(stats.to_string()))
        })
    }
}

impl Connection {
    fn inner(&self) -> PyResult<Arc<Inner>> {
        self.inner.get().map(Arc::clone)
    }
}

/// What a receiver remembers of the messages it acknowledged.
enum Remember {
    InMemory,
    File(PathBuf),
}

impl<'py> FromPyObject<'_, 'py> for Remember {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<bool>() {
            Ok(true) => Ok(Self::InMemory),
            Ok(false) => Err(PyValueError::new_err("dedupe is None, True (in memory) or the path of a file")),
            Err(_) => Ok(Self::File(value.extract()?)),
        }
    }
}

fn route(exchange: &str, key: &str) -> Route {
    Route { exchange: exchange.into(), key: key.into() }
}

fn tries(Seconds(timeout): Seconds, attempts: u32) -> PyResult<Tries> {
    if timeout == Duration::ZERO || attempts == 0 {
        return Err(PyValueError::new_err("timeout is more than 0 and attempts at least 1"));
    }
    Ok(Tries { timeout, attempts })
}

fn durability(text: &str) -> PyResult<cipher_client::Durability> {
    let parsed = cipher_client::Durability::parse(text);
    parsed.map_err(|error| PyValueError::new_err(format!("durability is {error}")))
}

/// An envelope with the id that is in it.
fn sealed(envelope: String, message_id: Option<String>) -> PyResult<Sealed> {
    let inside = crypto::Envelope::parse(&envelope).map_err(raised)?.message_id().to_owned();
    if message_id.is_some_and(|given| given != inside) {
        return Err(PyValueError::new_err("message_id is not the one in the envelope"));
    }
    Ok(Sealed { message_id: inside, envelope })
}
