//! `Keyset`: one key that senders seal to, and those before it.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use cipher_client::crypto;
use pyo3::prelude::*;

use crate::error::{forked, raised};
use crate::keys::{PrivateKey, PublicKey, key_file_options, not_copied, secret};
use crate::logging;
use crate::seconds::Seconds;
use crate::text::Octets;

/// The private keys of one receiver.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Keyset {
    inner: RwLock<crypto::Keyset>,
    /// The process that made it. Changes take their time, and leave the lock as
    /// it is in a child that is forked meanwhile.
    process: u32,
}

#[pymethods]
impl Keyset {
    /// In memory.
    #[new]
    #[pyo3(signature = (primary, *retired))]
    fn new(primary: &Bound<'_, PrivateKey>, retired: Vec<Bound<'_, PrivateKey>>) -> PyResult<Self> {
        let mut keys = crypto::Keyset::new(primary.get().again().map_err(raised)?);
        for key in retired.into_iter().rev() {
            keys = keys.with_retired(key.get().again().map_err(raised)?).map_err(raised)?;
        }
        Ok(Self::holding(keys))
    }

    /// Makes one in a directory.
    #[staticmethod]
    #[pyo3(signature = (directory, primary, *, passphrase=None))]
    fn create(
        py: Python<'_>,
        directory: PathBuf,
        primary: &Bound<'_, PrivateKey>,
        passphrase: Option<Octets<'_>>,
    ) -> PyResult<Self> {
        let (key, passphrase) = (primary.get().again().map_err(raised)?, secret(passphrase)?);
        let made = logging::detached(py, || crypto::Keyset::create(directory, key, passphrase));
        made.map(Self::holding).map_err(raised)
    }

    /// Opens the one in a directory.
    #[staticmethod]
    #[pyo3(signature = (directory, *, passphrase=None, strict=false))]
    fn open(py: Python<'_>, directory: PathBuf, passphrase: Option<Octets<'_>>, strict: bool) -> PyResult<Self> {
        let options = key_file_options(passphrase, strict)?;
        let opened = logging::detached(py, || crypto::Keyset::open_with(directory, options));
        opened.map(Self::holding).map_err(raised)
    }

    /// What senders are to use.
    fn public_key(&self) -> PyResult<PublicKey> {
        Ok(PublicKey::new(self.keys()?.primary().public_key()))
    }

    /// The names of all keys, the primary first.
    #[getter]
    fn kids(&self) -> PyResult<Vec<String>> {
        Ok(self.keys()?.keys().map(|key| key.fingerprint().to_owned()).collect())
    }

    /// Makes a key the primary.
    fn rotate(&self, py: Python<'_>, key: &Bound<'_, PrivateKey>) -> PyResult<()> {
        let key = key.get().again().map_err(raised)?;
        logging::detached(py, || PyResult::Ok(self.change()?.rotate(key)))?.map_err(raised)
    }

    /// Deletes the keys retired long enough; their names.
    fn prune(&self, py: Python<'_>, retention: Seconds) -> PyResult<Vec<String>> {
        let deleted = logging::detached(py, || PyResult::Ok(self.change()?.prune(retention.0)))?.map_err(raised)?;
        Ok(deleted.iter().map(ToString::to_string).collect())
    }

    /// Reads the directory again, if another program has changed it; whether it had.
    fn reload(&self, py: Python<'_>) -> PyResult<bool> {
        logging::detached(py, || PyResult::Ok(self.change()?.reload()))?.map_err(raised)
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.keys()?.keys().count())
    }

    fn __repr__(&self) -> PyResult<String> {
        let keys = self.keys()?;
        Ok(format!("Keyset({}, {} retired)", keys.primary().fingerprint(), keys.keys().count() - 1))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied("Keyset"))
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(not_copied("Keyset"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(not_copied("Keyset"))
    }
}

impl Keyset {
    fn holding(keys: crypto::Keyset) -> Self {
        Self { inner: RwLock::new(keys), process: std::process::id() }
    }

    pub(crate) fn keys(&self) -> PyResult<RwLockReadGuard<'_, crypto::Keyset>> {
        match self.is_here() {
            true => Ok(self.inner.read().unwrap_or_else(PoisonError::into_inner)),
            false => unless_locked(self.inner.try_read()),
        }
    }

    fn change(&self) -> PyResult<RwLockWriteGuard<'_, crypto::Keyset>> {
        match self.is_here() {
            true => Ok(self.inner.write().unwrap_or_else(PoisonError::into_inner)),
            false => unless_locked(self.inner.try_write()),
        }
    }

    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

/// In a child of the process that made the keyset nobody may come to give a lock back.
fn unless_locked<G>(guard: Result<G, TryLockError<G>>) -> PyResult<G> {
    match guard {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(forked()),
    }
}
