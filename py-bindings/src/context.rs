//! `Context`: where a message was meant to go.

use cipher_client::crypto;
use pyo3::prelude::*;

/// What a sender binds to a message beside its text.
#[pyclass(frozen, eq, hash, module = "ciphermq")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Context {
    pub(crate) inner: crypto::Context,
}

#[pymethods]
impl Context {
    #[new]
    #[pyo3(signature = (exchange="", routing_key="", content_type=None))]
    fn new(exchange: &str, routing_key: &str, content_type: Option<&str>) -> Self {
        let inner = crypto::Context::new(exchange, routing_key).content_type(content_type.unwrap_or_default());
        Self { inner }
    }

    /// The exchange published to.
    #[getter]
    fn exchange(&self) -> &str {
        &self.inner.exchange
    }

    /// The key published with.
    #[getter]
    fn routing_key(&self) -> &str {
        &self.inner.routing_key
    }

    /// What the text is.
    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.inner.content_type.as_deref()
    }

    fn __repr__(&self) -> String {
        let crypto::Context { exchange, routing_key, content_type } = &self.inner;
        match content_type {
            Some(text) => format!("Context({exchange:?}, {routing_key:?}, {text:?})"),
            None => format!("Context({exchange:?}, {routing_key:?})"),
        }
    }
}

/// Of what was found in a message.
impl From<crypto::Context> for Context {
    fn from(inner: crypto::Context) -> Self {
        Self { inner }
    }
}
