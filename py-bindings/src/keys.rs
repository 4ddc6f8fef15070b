//! `PublicKey`, `PrivateKey`, `generate_keypair`, `write_keypair`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use cipher_client::crypto::{self, OpenPolicy, Opener, Sealer, SessionPolicy};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::error::raised;
use crate::logging;
use crate::text::Octets;

/// The key of a recipient: what it takes to seal a message for them.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct PublicKey {
    pub(crate) inner: crypto::PublicKey,
    /// One session for all that is sealed to this object.
    sealer: OnceLock<Arc<Sealer>>,
}

#[pymethods]
impl PublicKey {
    /// Reads a PEM text.
    #[staticmethod]
    #[pyo3(signature = (data, *, allow_legacy_rsa=false))]
    fn from_pem(data: Octets<'_>, allow_legacy_rsa: bool) -> PyResult<Self> {
        Self::read(crypto::PublicKey::from_pem(data.as_bytes()), allow_legacy_rsa)
    }

    /// Reads a PEM file.
    #[staticmethod]
    #[pyo3(signature = (path, *, allow_legacy_rsa=false))]
    fn from_file(py: Python<'_>, path: PathBuf, allow_legacy_rsa: bool) -> PyResult<Self> {
        Self::read(py.detach(|| crypto::PublicKey::from_file(path)), allow_legacy_rsa)
    }

    /// The PEM text.
    fn to_pem(&self) -> PyResult<String> {
        self.inner.to_pem().map_err(raised)
    }

    /// The name of the key.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }

    /// Size of the modulus.
    #[getter]
    fn bits(&self) -> usize {
        self.inner.bits()
    }

    fn __repr__(&self) -> String {
        format!("PublicKey({})", self.inner.fingerprint())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.inner == other.get().inner)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        pyo3::types::PyString::new(py, self.inner.fingerprint()).hash()
    }
}

impl PublicKey {
    fn new(inner: crypto::PublicKey) -> Self {
        Self { inner, sealer: OnceLock::new() }
    }

    fn read(key: cipher_client::Result<crypto::PublicKey>, allow_legacy_rsa: bool) -> PyResult<Self> {
        let key = key.map_err(raised)?;
        Ok(Self::new(if allow_legacy_rsa { key.allow_legacy_rsa() } else { key }))
    }

    pub(crate) fn sealer(&self) -> PyResult<&Arc<Sealer>> {
        if let Some(sealer) = self.sealer.get() {
            return Ok(sealer);
        }
        let sealer = Sealer::new(&self.inner, SessionPolicy::default()).map_err(raised)?;
        Ok(self.sealer.get_or_init(|| Arc::new(sealer)))
    }
}

/// The key that opens what was sealed to its public half.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct PrivateKey {
    pub(crate) inner: crypto::PrivateKey,
    /// One memory of session keys for all that is opened by this object.
    opener: OnceLock<Arc<Opener>>,
}

#[pymethods]
impl PrivateKey {
    /// Reads a PEM text.
    #[staticmethod]
    #[pyo3(signature = (data, *, allow_legacy_rsa=false))]
    fn from_pem(data: Octets<'_>, allow_legacy_rsa: bool) -> PyResult<Self> {
        Self::read(crypto::PrivateKey::from_pem(data.as_bytes()), allow_legacy_rsa)
    }

    /// Reads a PEM file.
    #[staticmethod]
    #[pyo3(signature = (path, *, allow_legacy_rsa=false))]
    fn from_file(py: Python<'_>, path: PathBuf, allow_legacy_rsa: bool) -> PyResult<Self> {
        Self::read(logging::detached(py, || crypto::PrivateKey::from_file(path)), allow_legacy_rsa)
    }

    /// The half to give to senders.
    fn public_key(&self) -> PublicKey {
        PublicKey::new(self.inner.public_key())
    }

    /// The PEM text, as bytes: the one way in which a key leaves this object.
    fn to_pem<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let pem: Zeroizing<String> = self.inner.to_pem().map_err(raised)?;
        Ok(PyBytes::new(py, pem.as_bytes()))
    }

    /// The name of the key: that of its public half.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }

    /// Size of the modulus.
    #[getter]
    fn bits(&self) -> usize {
        self.inner.bits()
    }

    fn __repr__(&self) -> String {
        format!("PrivateKey({})", self.inner.fingerprint())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(not_copied())
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(not_copied())
    }
}

impl PrivateKey {
    fn new(inner: crypto::PrivateKey) -> Self {
        Self { inner, opener: OnceLock::new() }
    }

    fn read(key: cipher_client::Result<crypto::PrivateKey>, allow_legacy_rsa: bool) -> PyResult<Self> {
        let key = key.map_err(raised)?;
        Ok(Self::new(if allow_legacy_rsa { key.allow_legacy_rsa() } else { key }))
    }

    pub(crate) fn opener(&self) -> PyResult<Arc<Opener>> {
        if let Some(opener) = self.opener.get() {
            return Ok(Arc::clone(opener));
        }
        let opener = Opener::new(&self.inner, OpenPolicy::default()).map_err(raised)?;
        Ok(Arc::clone(self.opener.get_or_init(|| Arc::new(opener))))
    }
}

fn not_copied() -> PyErr {
    PyTypeError::new_err("a PrivateKey is not copied or pickled; load it where it is needed with PrivateKey.from_file")
}

/// Makes a key pair.
#[pyfunction]
#[pyo3(signature = (bits=2048))]
pub(crate) fn generate_keypair(py: Python<'_>, bits: usize) -> PyResult<(PrivateKey, PublicKey)> {
    let private = py.detach(|| crypto::PrivateKey::generate(bits)).map_err(raised)?;
    let public = PublicKey::new(private.public_key());
    Ok((PrivateKey::new(private), public))
}

/// Writes both halves of a key pair into a folder, which is made if need be.
#[pyfunction]
pub(crate) fn write_keypair(
    py: Python<'_>,
    directory: PathBuf,
    private_key: &Bound<'_, PrivateKey>,
) -> PyResult<(PathBuf, PathBuf)> {
    let key = &private_key.get().inner;
    let paths = py.detach(|| crypto::write_key_pair(directory, key)).map_err(raised)?;
    Ok((paths.private, paths.public))
}
