//! Messages larger than a line: on their way out, and when they are read.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use cipher_client::crypto::{PartSealer, SpooledText};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::connection::Inner;
use crate::error::raised;
use crate::process::Owned;
use crate::publishing::{Route, Tries, start_batch};
use crate::text::Octets;
use crate::wait::Mode;

/// A message whose parts are being sent, one after another.
#[pyclass(frozen, module = "ciphermq._native")]
pub(crate) struct LargeMessage {
    parts: Owned<Mutex<PartSealer>>,
    inner: Arc<Inner>,
    route: Route,
    tries: Tries,
    mode: Mode,
}

impl LargeMessage {
    pub(crate) fn new(parts: PartSealer, inner: Arc<Inner>, route: Route, tries: Tries, mode: Mode) -> Self {
        Self { parts: Owned::new(Mutex::new(parts)), inner, route, tries, mode }
    }

    fn with<T>(&self, work: impl FnOnce(&mut PartSealer) -> T) -> PyResult<T> {
        let parts = self.parts.get()?;
        Ok(work(&mut parts.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl LargeMessage {
    /// The id of the whole.
    #[getter]
    fn message_id(&self) -> PyResult<String> {
        self.with(|parts| parts.message_id().to_owned())
    }

    /// How long the next part has to be; `None` after the last.
    #[getter]
    fn next_len(&self) -> PyResult<Option<usize>> {
        self.with(|parts| parts.next_len())
    }

    /// Seals the next part and puts it on its way: a `Batch`.
    fn send<'py>(&self, py: Python<'py>, text: Octets<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text = text.as_bytes();
        let sealed = py.detach(|| self.with(|parts| parts.seal_next(text)))?.map_err(raised)?;
        let batch =
            start_batch(Arc::clone(&self.inner), self.route.clone(), vec![sealed], self.tries, self.mode.clone());
        self.mode.run(py, batch)
    }
}

/// Reads the body of a message, like a file that was opened for reading.
#[pyclass(frozen, module = "ciphermq._native")]
pub(crate) struct BodyReader {
    body: Mutex<Box<dyn Read + Send>>,
}

impl BodyReader {
    pub(crate) fn new(body: impl Read + Send + 'static) -> Self {
        Self { body: Mutex::new(Box::new(body)) }
    }
}

#[pymethods]
impl BodyReader {
    /// Up to `size` bytes; all that are left without it. None at the end.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = size.and_then(|size| u64::try_from(size).ok()).unwrap_or(u64::MAX);
        let bytes = py.detach(|| {
            let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = Vec::new();
            (&mut **body).take(limit).read_to_end(&mut bytes).map(|_| bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (kind, exception, traceback, /))]
    fn __exit__(&self, kind: &Bound<'_, PyAny>, exception: &Bound<'_, PyAny>, traceback: &Bound<'_, PyAny>) {
        let _ = (kind, exception, traceback);
    }
}

/// A whole body out of its file.
pub(crate) fn read_all<'py>(py: Python<'py>, spooled: &SpooledText) -> PyResult<Bound<'py, PyBytes>> {
    let len =
        usize::try_from(spooled.len()).map_err(|_| PyValueError::new_err("too large for memory; use reader()"))?;
    let mut reader = spooled.reader();
    PyBytes::new_with(py, len, |bytes| Ok(reader.read_exact(bytes)?))
}
