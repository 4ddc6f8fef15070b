//! `Recipient` and `UnverifiedRecipient`: whether anybody vouches for a key.

use cipher_client::crypto::Kid;
use cipher_client::trust::{self, Unverified};
use pyo3::prelude::*;

use crate::error::raised;
use crate::keys::PublicKey;

/// A key that somebody vouches for: it can be sealed to.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Recipient {
    pub(crate) inner: trust::Recipient,
}

#[pymethods]
impl Recipient {
    /// A key that the caller vouches for.
    #[new]
    fn new(public_key: &Bound<'_, PublicKey>) -> Self {
        Self { inner: trust::Recipient::from_own_source(public_key.get().inner.clone()) }
    }

    /// The key.
    fn public_key(&self) -> PublicKey {
        PublicKey::new(self.inner.key().clone())
    }

    /// The name of the key.
    #[getter]
    fn kid(&self) -> String {
        self.inner.kid().to_string()
    }

    fn __repr__(&self) -> String {
        format!("Recipient({})", self.inner.kid())
    }
}

/// A key out of a directory, for which nobody vouches: it cannot be sealed to.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct UnverifiedRecipient {
    pub(crate) inner: trust::Recipient<Unverified>,
}

#[pymethods]
impl UnverifiedRecipient {
    #[new]
    fn new(public_key: &Bound<'_, PublicKey>) -> Self {
        Self { inner: trust::Recipient::from_directory(public_key.get().inner.clone()) }
    }

    /// The name of the key, to be compared.
    #[getter]
    fn kid(&self) -> String {
        self.inner.kid().to_string()
    }

    /// Trusts it, if it is the expected one.
    fn verify(&self, expected: &str) -> PyResult<Recipient> {
        let expected: Kid = expected.parse().map_err(raised)?;
        self.inner.clone().verify(&expected).map(|inner| Recipient { inner }).map_err(raised)
    }

    fn __repr__(&self) -> String {
        format!("UnverifiedRecipient({})", self.inner.kid())
    }
}
