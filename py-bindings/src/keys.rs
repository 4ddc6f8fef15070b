//! `PublicKey`, `PrivateKey`, `generate_keypair`, `write_keypair`.
//!
//! Secrets have no way out of these objects but `to_pem`: none is shown, copied
//! or pickled.

use std::path::PathBuf;
use std::sync::Arc;

use cipher_client::crypto::{self, KeyFileOptions, KeyKind, OpenPolicy, Opener, Passphrase, Sealer, SessionPolicy};
use pyo3::exceptions::{PyTypeError, PyValueError};
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
    /// One session for all that is sealed to this object; `None` for a key that
    /// is refused. Made with the key, so that no fork finds it half made.
    sealer: Option<Arc<Sealer>>,
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

    /// What kind of key it is.
    #[getter]
    fn kind(&self) -> &'static str {
        kind_name(self.inner.kind())
    }

    /// The name of the key.
    #[getter]
    fn kid(&self) -> &str {
        self.inner.fingerprint()
    }

    /// The same: what people compare.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }

    /// Size of the modulus, or of all of a key that has none.
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
    pub(crate) fn new(inner: crypto::PublicKey) -> Self {
        let sealer = Sealer::new(&inner, SessionPolicy::default()).ok().map(Arc::new);
        Self { inner, sealer }
    }

    fn read(key: cipher_client::Result<crypto::PublicKey>, allow_legacy_rsa: bool) -> PyResult<Self> {
        let key = key.map_err(raised)?;
        Ok(Self::new(if allow_legacy_rsa { key.allow_legacy_rsa() } else { key }))
    }

    pub(crate) fn sealer(&self) -> PyResult<Arc<Sealer>> {
        match &self.sealer {
            Some(sealer) => Ok(Arc::clone(sealer)),
            // Tells why there is none.
            None => Sealer::new(&self.inner, SessionPolicy::default()).map(Arc::new).map_err(raised),
        }
    }
}

/// The key that opens what was sealed to its public half.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct PrivateKey {
    pub(crate) inner: crypto::PrivateKey,
    allow_legacy_rsa: bool,
    /// One memory of session keys for all that is opened by this object; `None`
    /// for a key that is refused.
    opener: Option<Arc<Opener>>,
}

#[pymethods]
impl PrivateKey {
    /// Makes a key.
    #[staticmethod]
    #[pyo3(signature = (kind="x-wing"))]
    fn generate(py: Python<'_>, kind: &str) -> PyResult<Self> {
        let kind = kind_of(kind)?;
        py.detach(|| crypto::PrivateKey::generate_kind(kind)).map(Self::new).map_err(raised)
    }

    /// Reads a PEM text.
    #[staticmethod]
    #[pyo3(signature = (data, *, passphrase=None, allow_legacy_rsa=false))]
    fn from_pem(
        py: Python<'_>,
        data: Octets<'_>,
        passphrase: Option<Octets<'_>>,
        allow_legacy_rsa: bool,
    ) -> PyResult<Self> {
        let (passphrase, data) = (secret(passphrase)?, data.as_bytes());
        let key = py.detach(|| match passphrase {
            Some(passphrase) => crypto::PrivateKey::from_encrypted_pem(data, &passphrase),
            None => crypto::PrivateKey::from_pem(data),
        });
        Self::read(key, allow_legacy_rsa)
    }

    /// Reads a PEM file.
    #[staticmethod]
    #[pyo3(signature = (path, *, passphrase=None, strict=false, allow_legacy_rsa=false))]
    fn from_file(
        py: Python<'_>,
        path: PathBuf,
        passphrase: Option<Octets<'_>>,
        strict: bool,
        allow_legacy_rsa: bool,
    ) -> PyResult<Self> {
        let options = key_file_options(passphrase, strict)?;
        let key = logging::detached(py, || crypto::PrivateKey::from_file_with(path, &options));
        Self::read(key, allow_legacy_rsa)
    }

    /// The half to give to senders.
    fn public_key(&self) -> PublicKey {
        PublicKey::new(self.inner.public_key())
    }

    /// The PEM text, as bytes: the one way in which a key leaves this object.
    #[pyo3(signature = (*, passphrase=None))]
    fn to_pem<'py>(&self, py: Python<'py>, passphrase: Option<Octets<'py>>) -> PyResult<Bound<'py, PyBytes>> {
        let passphrase = secret(passphrase)?;
        let pem = py.detach(|| match passphrase {
            Some(passphrase) => self.inner.to_encrypted_pem(&passphrase).map(Zeroizing::new),
            None => self.inner.to_pem(),
        });
        Ok(PyBytes::new(py, pem.map_err(raised)?.as_bytes()))
    }

    /// What kind of key it is.
    #[getter]
    fn kind(&self) -> &'static str {
        kind_name(self.inner.kind())
    }

    /// The name of the key: that of its public half.
    #[getter]
    fn kid(&self) -> &str {
        self.inner.fingerprint()
    }

    /// The same: what people compare.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }

    /// Size of the modulus, or of all of a key that has none.
    #[getter]
    fn bits(&self) -> usize {
        self.inner.bits()
    }

    fn __repr__(&self) -> String {
        format!("PrivateKey({})", self.inner.fingerprint())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_copied("PrivateKey"))
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(not_copied("PrivateKey"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(not_copied("PrivateKey"))
    }
}

impl PrivateKey {
    pub(crate) fn new(inner: crypto::PrivateKey) -> Self {
        let opener = Opener::new(&inner, OpenPolicy::default()).ok().map(Arc::new);
        Self { inner, allow_legacy_rsa: false, opener }
    }

    fn read(key: cipher_client::Result<crypto::PrivateKey>, allow_legacy_rsa: bool) -> PyResult<Self> {
        let key = key.map_err(raised)?;
        let inner = if allow_legacy_rsa { key.allow_legacy_rsa() } else { key };
        Ok(Self { allow_legacy_rsa, ..Self::new(inner) })
    }

    pub(crate) fn opener(&self) -> PyResult<Arc<Opener>> {
        match &self.opener {
            Some(opener) => Ok(Arc::clone(opener)),
            None => Opener::new(&self.inner, OpenPolicy::default()).map(Arc::new).map_err(raised),
        }
    }

    /// The key once more, for an owner of its own. It is wiped there as it is here.
    pub(crate) fn again(&self) -> cipher_client::Result<crypto::PrivateKey> {
        let key = crypto::PrivateKey::from_pem(self.inner.to_pem()?.as_bytes())?;
        Ok(if self.allow_legacy_rsa { key.allow_legacy_rsa() } else { key })
    }
}

/// What `__reduce__` and its kin say of a secret.
pub(crate) fn not_copied(class: &str) -> PyErr {
    let load = if class == "Keyset" { "open" } else { "from_file" };
    PyTypeError::new_err(format!("{class} is not copied or pickled; load it where it is needed with {class}.{load}"))
}

/// A passphrase as callers give it.
pub(crate) fn secret(passphrase: Option<Octets<'_>>) -> PyResult<Option<Passphrase>> {
    passphrase.map(|text| Passphrase::new(text.as_bytes())).transpose().map_err(raised)
}

pub(crate) fn key_file_options(passphrase: Option<Octets<'_>>, strict: bool) -> PyResult<KeyFileOptions> {
    let options = KeyFileOptions::default();
    let options = if strict { options.strict() } else { options };
    Ok(match secret(passphrase)? {
        Some(passphrase) => options.with_passphrase(passphrase),
        None => options,
    })
}

const KINDS: [(KeyKind, &str); 3] = [(KeyKind::Rsa, "rsa"), (KeyKind::X25519, "x25519"), (KeyKind::XWing, "x-wing")];

fn kind_of(name: &str) -> PyResult<KeyKind> {
    let found = KINDS.into_iter().find(|(_, known)| *known == name);
    found.map(|(kind, _)| kind).ok_or_else(|| PyValueError::new_err(r#"kind is "rsa", "x25519" or "x-wing""#))
}

fn kind_name(kind: KeyKind) -> &'static str {
    KINDS.into_iter().find(|(known, _)| *known == kind).map_or("unknown", |(_, name)| name)
}

/// Makes an RSA key pair.
#[pyfunction]
#[pyo3(signature = (bits=2048))]
pub(crate) fn generate_keypair(py: Python<'_>, bits: usize) -> PyResult<(PrivateKey, PublicKey)> {
    let private = py.detach(|| crypto::PrivateKey::generate(bits)).map_err(raised)?;
    let public = PublicKey::new(private.public_key());
    Ok((PrivateKey::new(private), public))
}

/// Writes both halves of a key pair into a folder, which is made if need be.
#[pyfunction]
#[pyo3(signature = (directory, private_key, *, passphrase=None))]
pub(crate) fn write_keypair(
    py: Python<'_>,
    directory: PathBuf,
    private_key: &Bound<'_, PrivateKey>,
    passphrase: Option<Octets<'_>>,
) -> PyResult<(PathBuf, PathBuf)> {
    let (key, passphrase) = (&private_key.get().inner, secret(passphrase)?);
    let paths = py.detach(|| match passphrase {
        Some(passphrase) => crypto::write_encrypted_key_pair(directory, key, &passphrase),
        None => crypto::write_key_pair(directory, key),
    });
    paths.map(|paths| (paths.private, paths.public)).map_err(raised)
}
