//! `Identity` and `SenderKey`: who seals.

use std::path::PathBuf;
use std::sync::Arc;

use cipher_client::crypto;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use zeroize::Zeroizing;

use crate::error::raised;
use crate::keys::{key_file_options, not_copied, secret};
use crate::logging;
use crate::text::Octets;

/// The key that says who sends: it signs messages and announcements.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Identity {
    pub(crate) inner: Arc<crypto::Identity>,
}

#[pymethods]
impl Identity {
    /// Makes a new one.
    #[staticmethod]
    fn generate() -> PyResult<Self> {
        Self::read(crypto::Identity::generate())
    }

    /// Reads a PEM text.
    #[staticmethod]
    #[pyo3(signature = (data, *, passphrase=None))]
    fn from_pem(py: Python<'_>, data: Octets<'_>, passphrase: Option<Octets<'_>>) -> PyResult<Self> {
        let (passphrase, data) = (secret(passphrase)?, data.as_bytes());
        Self::read(py.detach(|| match passphrase {
            Some(passphrase) => crypto::Identity::from_encrypted_pem(data, &passphrase),
            None => crypto::Identity::from_pem(data),
        }))
    }

    /// Reads a PEM file.
    #[staticmethod]
    #[pyo3(signature = (path, *, passphrase=None, strict=false))]
    fn from_file(py: Python<'_>, path: PathBuf, passphrase: Option<Octets<'_>>, strict: bool) -> PyResult<Self> {
        let options = key_file_options(passphrase, strict)?;
        Self::read(logging::detached(py, || crypto::Identity::from_file_with(path, &options)))
    }

    /// Writes a new file of mode 0600.
    #[pyo3(signature = (path, *, passphrase=None))]
    fn write_file(&self, py: Python<'_>, path: PathBuf, passphrase: Option<Octets<'_>>) -> PyResult<()> {
        let passphrase = secret(passphrase)?;
        py.detach(|| self.inner.write_file(path, passphrase.as_ref())).map_err(raised)
    }

    /// The PEM text, as bytes.
    #[pyo3(signature = (*, passphrase=None))]
    fn to_pem<'py>(&self, py: Python<'py>, passphrase: Option<Octets<'py>>) -> PyResult<Bound<'py, PyBytes>> {
        let passphrase = secret(passphrase)?;
        let pem = py.detach(|| match passphrase {
            Some(passphrase) => self.inner.to_encrypted_pem(&passphrase).map(Zeroizing::new),
            None => self.inner.to_pem(),
        });
        Ok(PyBytes::new(py, pem.map_err(raised)?.as_bytes()))
    }

    /// The half to give to receivers.
    fn sender_key(&self) -> SenderKey {
        SenderKey { inner: self.inner.sender_key().clone() }
    }

    /// The name of the public half.
    #[getter]
    fn kid(&self) -> String {
        self.inner.kid().to_string()
    }

    fn __repr__(&self) -> String {
        format!("Identity({})", self.inner.kid())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied("Identity"))
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(not_copied("Identity"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(not_copied("Identity"))
    }
}

impl Identity {
    fn read(identity: cipher_client::Result<crypto::Identity>) -> PyResult<Self> {
        identity.map(|identity| Self { inner: Arc::new(identity) }).map_err(raised)
    }
}

/// What a receiver knows a sender by.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct SenderKey {
    pub(crate) inner: crypto::SenderKey,
}

#[pymethods]
impl SenderKey {
    /// Reads a PEM text.
    #[staticmethod]
    fn from_pem(data: Octets<'_>) -> PyResult<Self> {
        crypto::SenderKey::from_pem(data.as_bytes()).map(|inner| Self { inner }).map_err(raised)
    }

    /// Reads a PEM file.
    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| crypto::SenderKey::from_file(path)).map(|inner| Self { inner }).map_err(raised)
    }

    /// The PEM text.
    fn to_pem(&self) -> PyResult<String> {
        self.inner.to_pem().map_err(raised)
    }

    /// The name of the key.
    #[getter]
    fn kid(&self) -> String {
        self.inner.kid().to_string()
    }

    fn __repr__(&self) -> String {
        format!("SenderKey({})", self.inner.kid())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.inner == other.get().inner)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyString::new(py, &self.inner.kid().to_string()).hash()
    }
}
