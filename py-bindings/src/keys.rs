//! `PublicKey`, `PrivateKey`, `generate_keypair`, `write_keypair`.

use std::path::PathBuf;

use cipher_client::crypto;
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::error::raised;
use crate::text::Octets;

/// The key of a recipient: what it takes to seal a message for them.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct PublicKey {
    pub(crate) inner: crypto::PublicKey,
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
        self.inner.to_pem().map_err(|error| raised(&error))
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

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> Option<bool> {
        let same = self.inner == other.cast::<Self>().ok()?.get().inner;
        match op {
            CompareOp::Eq => Some(same),
            CompareOp::Ne => Some(!same),
            _ => None,
        }
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        pyo3::types::PyString::new(py, self.inner.fingerprint()).hash()
    }
}

impl PublicKey {
    fn read(key: cipher_client::Result<crypto::PublicKey>, allow_legacy_rsa: bool) -> PyResult<Self> {
        let key = key.map_err(|error| raised(&error))?;
        let inner = if allow_legacy_rsa { key.allow_legacy_rsa() } else { key };
        Ok(Self { inner })
    }
}

/// The key that opens what was sealed to its public half.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct PrivateKey {
    pub(crate) inner: crypto::PrivateKey,
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
        Self::read(py.detach(|| crypto::PrivateKey::from_file(path)), allow_legacy_rsa)
    }

    /// The half to give to senders.
    fn public_key(&self) -> PublicKey {
        PublicKey { inner: self.inner.public_key() }
    }

    /// The PEM text, as bytes: the one way in which a key leaves this object.
    fn to_pem<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let pem: Zeroizing<String> = self.inner.to_pem().map_err(|error| raised(&error))?;
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
    fn read(key: cipher_client::Result<crypto::PrivateKey>, allow_legacy_rsa: bool) -> PyResult<Self> {
        let key = key.map_err(|error| raised(&error))?;
        let inner = if allow_legacy_rsa { key.allow_legacy_rsa() } else { key };
        Ok(Self { inner })
    }
}

fn not_copied() -> PyErr {
    PyTypeError::new_err("a PrivateKey is not copied or pickled; load it where it is needed with PrivateKey.from_file")
}

/// Makes a key pair.
#[pyfunction]
#[pyo3(signature = (bits=2048))]
pub(crate) fn generate_keypair(py: Python<'_>, bits: usize) -> PyResult<(PrivateKey, PublicKey)> {
    let private = py.detach(|| crypto::PrivateKey::generate(bits)).map_err(|error| raised(&error))?;
    let public = PublicKey { inner: private.public_key() };
    Ok((PrivateKey { inner: private }, public))
}

/// Writes both halves of a key pair into a folder, which is made if need be.
#[pyfunction]
pub(crate) fn write_keypair(
    py: Python<'_>,
    directory: PathBuf,
    private_key: &Bound<'_, PrivateKey>,
) -> PyResult<(PathBuf, PathBuf)> {
    let key = &private_key.get().inner;
    let paths = py.detach(|| crypto::write_key_pair(directory, key)).map_err(|error| raised(&error))?;
    Ok((paths.private, paths.public))
}
