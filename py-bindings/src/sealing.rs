//! `seal` and `open_envelope`.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raised;
use crate::keys::{PrivateKey, PublicKey};
use crate::text::Octets;

/// Seals a message for the holder of a key.
#[pyfunction]
#[pyo3(signature = (plaintext, public_key, *, message_id=None))]
pub(crate) fn seal(
    py: Python<'_>,
    plaintext: Octets<'_>,
    public_key: &Bound<'_, PublicKey>,
    message_id: Option<Cow<'_, str>>,
) -> PyResult<String> {
    let (key, plaintext) = (&public_key.get().inner, plaintext.as_bytes());
    py.detach(|| cipher_client::crypto::seal(plaintext, key, message_id.as_deref())).map_err(|error| raised(&error))
}

/// Opens an envelope with the key it was sealed for.
#[pyfunction]
pub(crate) fn open_envelope<'py>(
    py: Python<'py>,
    envelope: Octets<'py>,
    private_key: &Bound<'py, PrivateKey>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (key, envelope) = (&private_key.get().inner, envelope.as_bytes());
    let opened = py.detach(|| {
        let envelope = std::str::from_utf8(envelope).map_err(|_| not_text())?;
        cipher_client::crypto::open(envelope, key)
    });
    let opened = opened.map_err(|error| raised(&error))?;
    Ok(PyBytes::new(py, &opened.plaintext))
}

fn not_text() -> cipher_client::Error {
    cipher_client::ErrorKind::Malformed { part: "envelope", fault: "not UTF-8" }.into()
}
