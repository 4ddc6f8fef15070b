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
    let (sealer, plaintext) = (public_key.get().sealer()?, plaintext.as_bytes());
    let sealed = py.detach(|| match message_id.as_deref() {
        Some(id) => sealer.seal_with_id(id, plaintext),
        None => sealer.seal(plaintext),
    });
    sealed.map(|sealed| sealed.envelope).map_err(raised)
}

/// Opens an envelope with the key it was sealed for.
#[pyfunction]
pub(crate) fn open_envelope<'py>(
    py: Python<'py>,
    envelope: Octets<'py>,
    private_key: &Bound<'py, PrivateKey>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (opener, envelope) = (private_key.get().opener()?, envelope.as_bytes());
    let opened = py.detach(|| {
        let envelope = std::str::from_utf8(envelope).map_err(|_| not_text())?;
        opener.open(envelope)
    });
    let opened = opened.map_err(raised)?;
    Ok(PyBytes::new(py, &opened.plaintext))
}

fn not_text() -> cipher_client::Error {
    cipher_client::ErrorKind::Malformed { part: "envelope", fault: "not UTF-8" }.into()
}
