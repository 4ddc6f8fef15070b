//! Answers about queues, exchanges, bindings and messages, as dictionaries.

use cipher_client::{BindingInfo, CopyStatus, ExchangeInfo, MessageStatus, QueueInfo};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// A `QueueInfo`.
pub(crate) struct Queue(pub(crate) QueueInfo);
/// An `ExchangeInfo`.
pub(crate) struct Exchange(pub(crate) ExchangeInfo);
/// A `BindingInfo`.
pub(crate) struct Binding(pub(crate) BindingInfo);
/// A `MessageStatus`.
pub(crate) struct Status(pub(crate) MessageStatus);
/// What `json.loads` makes of it.
pub(crate) struct Json(pub(crate) String);

impl<'py> IntoPyObject<'py> for Queue {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = PyDict::new(py);
        dict.set_item("queue", self.0.queue)?;
        dict.set_item("ready", self.0.ready)?;
        dict.set_item("leased", self.0.leased)?;
        dict.set_item("delayed", self.0.delayed)?;
        dict.set_item("bytes", self.0.bytes)?;
        dict.set_item("consumers", self.0.consumers)?;
        dict.set_item("lease", seconds(self.0.lease_ms))?;
        dict.set_item("max_attempts", self.0.max_attempts)?;
        dict.set_item("dead_letter", self.0.dead_letter)?;
        dict.set_item("max_messages", self.0.max_messages)?;
        dict.set_item("max_bytes", self.0.max_bytes)?;
        dict.set_item("durability", self.0.durability)?;
        Ok(dict)
    }
}

impl<'py> IntoPyObject<'py> for Exchange {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = PyDict::new(py);
        dict.set_item("exchange", self.0.exchange)?;
        dict.set_item("kind", self.0.kind)?;
        dict.set_item("bindings", self.0.bindings)?;
        Ok(dict)
    }
}

impl<'py> IntoPyObject<'py> for Binding {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = PyDict::new(py);
        dict.set_item("exchange", self.0.exchange)?;
        dict.set_item("queue", self.0.queue)?;
        dict.set_item("routing_key", self.0.key)?;
        Ok(dict)
    }
}

impl<'py> IntoPyObject<'py> for Status {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let copies = self.0.copies.into_iter().map(|copy| copy_status(py, copy)).collect::<PyResult<Vec<_>>>()?;
        let dict = PyDict::new(py);
        dict.set_item("message_id", self.0.message_id)?;
        dict.set_item("copies", copies)?;
        Ok(dict)
    }
}

fn copy_status(py: Python<'_>, copy: CopyStatus) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("exchange", copy.exchange)?;
    dict.set_item("queue", copy.queue)?;
    dict.set_item("status", copy.status)?;
    dict.set_item("attempts", copy.attempts)?;
    dict.set_item("published", copy.published.map(seconds))?;
    dict.set_item("delivered", copy.delivered.map(seconds))?;
    dict.set_item("acknowledged", copy.acknowledged.map(seconds))?;
    Ok(dict)
}

/// Times in Python are seconds.
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

impl<'py> IntoPyObject<'py> for Json {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        LOADS.import(py, "json", "loads")?.call1((self.0,))
    }
}
