//! `seal` and `open_envelope`.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raised;
use crate::keys::{PrivateKey, PublicKey};
use crate::opener::text_of;
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
    let opened = py.detach(|| opener.open(text_of(envelope)?));
    let opened = opened.map_err(raised)?;
    Ok(PyBytes::new(py, &opened.plaintext))
}
