//! What callers hand over: text or bytes, borrowed from Python where that is sound.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

/// A `str` (as UTF-8) or a bytes-like object.
///
/// `bytes` is borrowed: it cannot change, so it can be read while other
/// threads run. A `bytearray` or a `memoryview` can change meanwhile and is
/// copied once.
pub(crate) struct Octets<'py>(Bound<'py, PyBytes>);

impl Octets<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<'py> FromPyObject<'_, 'py> for Octets<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let value = &*value;
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self(bytes.clone()));
        }
        if let Ok(text) = value.cast::<PyString>() {
            return text.encode_utf8().map(Self);
        }
        if let Ok(array) = value.cast::<PyByteArray>() {
            return Ok(Self(PyBytes::new(value.py(), &array.to_vec())));
        }
        Self::from_buffer(value)
    }
}

impl<'py> Octets<'py> {
    /// By way of `memoryview`, which refuses what is no buffer: `bytes(5)`
    /// would be five zeros.
    fn from_buffer(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let view = pyo3::types::PyMemoryView::from(value).map_err(|_| wrong_type(value))?;
        Ok(Self(view.call_method0("tobytes")?.cast_into()?))
    }
}

fn wrong_type(value: &Bound<'_, PyAny>) -> PyErr {
    let name = value.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("str or a bytes-like object is needed, not {name}"))
}
