//! `Senders`, `Pins`, `Announcement`: whom to believe.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cipher_client::crypto::Kid;
use cipher_client::trust::{self, PinMode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raised;
use crate::identity::{Identity, SenderKey};
use crate::keys::PublicKey;
use crate::logging;
use crate::recipient::Recipient;
use crate::text::Octets;

/// The senders a receiver knows.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Senders {
    pub(crate) inner: Arc<trust::Senders>,
}

#[pymethods]
impl Senders {
    /// In memory, or in a file.
    #[new]
    #[pyo3(signature = (path=None))]
    fn new(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        let senders = logging::detached(py, || match path {
            Some(path) => trust::Senders::open(path),
            None => Ok(trust::Senders::in_memory()),
        });
        senders.map(|senders| Self { inner: Arc::new(senders) }).map_err(raised)
    }

    /// Makes a sender known.
    fn add(&self, py: Python<'_>, name: &str, key: &Bound<'_, SenderKey>) -> PyResult<()> {
        let key = key.get().inner.clone();
        logging::detached(py, || self.inner.add(name, key)).map_err(raised)
    }

    /// Forgets a sender.
    fn remove(&self, py: Python<'_>, kid: &str) -> PyResult<()> {
        let kid = kid_of(kid)?;
        logging::detached(py, || self.inner.remove(&kid)).map_err(raised)
    }

    /// The name a sender was made known under.
    fn name(&self, kid: &str) -> PyResult<Option<String>> {
        Ok(self.inner.name(&kid_of(kid)?))
    }

    /// Forgets that messages from there are signed.
    fn forget_source(&self, py: Python<'_>, source: &str) -> PyResult<()> {
        logging::detached(py, || self.inner.forget_source(source)).map_err(raised)
    }
}

/// The identities behind names, remembered.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Pins {
    pub(crate) inner: Arc<trust::Pins>,
}

#[pymethods]
impl Pins {
    #[new]
    #[pyo3(signature = (directory, *, mode="tofu"))]
    fn new(py: Python<'_>, directory: PathBuf, mode: &str) -> PyResult<Self> {
        let mode = match mode {
            "tofu" => PinMode::Tofu,
            "strict" => PinMode::Strict,
            _ => return Err(PyValueError::new_err(r#"mode is "tofu" or "strict""#)),
        };
        let pins = logging::detached(py, || trust::Pins::open(directory, mode));
        pins.map(|pins| Self { inner: Arc::new(pins) }).map_err(raised)
    }

    /// Pins a name to an identity.
    fn pin(&self, py: Python<'_>, client_id: &str, identity: &str) -> PyResult<()> {
        let identity = kid_of(identity)?;
        logging::detached(py, || self.inner.pin(client_id, &identity)).map_err(raised)
    }

    /// Takes what a directory says of a name.
    fn take(&self, py: Python<'_>, client_id: &str, announced: Vec<Bound<'_, Announcement>>) -> PyResult<()> {
        let announced: Vec<_> = announced.iter().map(|one| one.get().inner.clone()).collect();
        logging::detached(py, || self.inner.take(client_id, &announced)).map(drop).map_err(raised)
    }

    /// The key to seal to for a name.
    fn recipient(&self, py: Python<'_>, client_id: &str) -> PyResult<Recipient> {
        let found = logging::detached(py, || self.inner.recipient(client_id, SystemTime::now()));
        found.map(|inner| Recipient { inner }).map_err(raised)
    }

    /// The key that messages of a name are signed with.
    fn sender(&self, py: Python<'_>, client_id: &str) -> PyResult<SenderKey> {
        let found = logging::detached(py, || self.inner.sender(client_id));
        found.map(|inner| SenderKey { inner }).map_err(raised)
    }

    /// The identity that a name is pinned to.
    fn identity(&self, py: Python<'_>, client_id: &str) -> PyResult<Option<String>> {
        let pin = logging::detached(py, || self.inner.look(client_id)).map_err(raised)?;
        Ok(pin.map(|pin| pin.identity.to_string()))
    }

    /// Forgets a name.
    fn forget(&self, py: Python<'_>, client_id: &str) -> PyResult<()> {
        logging::detached(py, || self.inner.forget(client_id)).map_err(raised)
    }
}

/// A key that somebody announced as his.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Announcement {
    pub(crate) inner: trust::Announcement,
}

#[pymethods]
impl Announcement {
    /// Makes one and signs it.
    #[staticmethod]
    #[pyo3(signature = (client_id, public_key, identity, *, after=None, successor=None, not_before=None, not_after=None))]
    #[allow(clippy::too_many_arguments)] // the caller names them; they are one thing each
    fn sign(
        client_id: &str,
        public_key: Option<&Bound<'_, PublicKey>>,
        identity: &Bound<'_, Identity>,
        after: Option<&Bound<'_, Announcement>>,
        successor: Option<&Bound<'_, SenderKey>>,
        not_before: Option<f64>,
        not_after: Option<f64>,
    ) -> PyResult<Self> {
        let mut builder = trust::Announcement::of(client_id, public_key.map(|key| &key.get().inner));
        if let Some(before) = after {
            builder = builder.after(&before.get().inner);
        }
        if let Some(key) = successor {
            builder = builder.successor(&key.get().inner);
        }
        if let Some(since) = not_before {
            builder = builder.not_before(time(since)?);
        }
        if let Some(until) = not_after {
            builder = builder.not_after(time(until)?);
        }
        builder.sign(&identity.get().inner).map(|inner| Self { inner }).map_err(raised)
    }

    /// Reads the bytes and checks the signature.
    #[staticmethod]
    fn from_bytes(data: Octets<'_>) -> PyResult<Self> {
        trust::Announcement::from_bytes(data.as_bytes()).map(|inner| Self { inner }).map_err(raised)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.as_bytes())
    }

    #[getter]
    fn client_id(&self) -> &str {
        self.inner.client_id()
    }

    #[getter]
    fn seq(&self) -> u64 {
        self.inner.seq()
    }

    /// The name of the identity that signed.
    #[getter]
    fn identity(&self) -> String {
        self.inner.identity().kid().to_string()
    }

    /// The name of the key announced.
    #[getter]
    fn kid(&self) -> Option<String> {
        self.inner.kid().map(Kid::to_string)
    }

    fn __repr__(&self) -> String {
        format!("<Announcement {} seq={} identity={}>", self.client_id(), self.seq(), self.identity())
    }
}

/// Seconds since 1970.
pub(crate) fn time(since: f64) -> PyResult<SystemTime> {
    let since = Duration::try_from_secs_f64(since).ok();
    let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    time.ok_or_else(|| PyValueError::new_err("a time is a number of seconds since 1970"))
}

fn kid_of(text: &str) -> PyResult<Kid> {
    text.parse().map_err(raised)
}
