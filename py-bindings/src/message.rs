//! `Message` and `AsyncMessage`: a delivery and the means to settle it.

use std::io::Cursor;
use std::sync::Arc;

use cipher_client::RawDelivery;
use cipher_client::crypto::{Opened, SpooledText};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::context::Context;
use crate::error::Failure;
use crate::large::{BodyReader, read_all};
use crate::leases::{Lease, Verdict};
use crate::opener::{claimed_by, order, seconds, sequence, signed_by};
use crate::process::Owned;
use crate::seconds::Seconds;
use crate::wait::{Mode, wait};

/// A message on its way into Python.
pub(crate) struct Received {
    pub(crate) head: Head,
    /// `None`: it did not open.
    pub(crate) opened: Option<Opened>,
    /// Its text, if that was kept in a directory.
    pub(crate) spooled: Option<SpooledText>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) mode: Mode,
}

/// What the broker says of a message.
pub(crate) struct Head {
    message_id: String,
    queue: String,
    exchange: String,
    routing_key: String,
    attempt: u32,
    published_ms: u64,
    dead_letter: Option<(String, String)>,
}

impl Head {
    pub(crate) fn of(delivery: &RawDelivery) -> Self {
        Self {
            message_id: delivery.message_id().to_owned(),
            queue: delivery.queue().to_owned(),
            exchange: delivery.exchange().to_owned(),
            routing_key: delivery.routing_key().to_owned(),
            attempt: delivery.attempt(),
            published_ms: delivery.published_ms(),
            dead_letter: delivery.dead_letter().map(|(queue, reason)| (queue.to_owned(), reason.to_owned())),
        }
    }
}

impl Head {
    /// That of the message, out of that of its last part.
    pub(crate) fn of_whole(self, message_id: &str) -> Self {
        Self { message_id: message_id.to_owned(), ..self }
    }
}

impl<'py> IntoPyObject<'py> for Received {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let Self { head, mut opened, spooled, lease, mode } = self;
        let is_blocking = matches!(mode, Mode::Blocking);
        let text = opened.as_mut().map(|opened| std::mem::take(&mut opened.plaintext));
        let body = text.map(|text| PyBytes::new(py, &text).unbind());
        let base =
            PyClassInitializer::from(MessageBase { head, body, opened, spooled, lease: Owned::new(lease), mode });
        match is_blocking {
            true => Ok(Bound::new(py, base.add_subclass(Message))?.into_any()),
            false => Ok(Bound::new(py, base.add_subclass(AsyncMessage))?.into_any()),
        }
    }
}

/// What both kinds of message have in common.
#[pyclass(frozen, subclass, module = "ciphermq._native")]
pub(crate) struct MessageBase {
    head: Head,
    body: Option<Py<PyBytes>>,
    /// All but the text.
    opened: Option<Opened>,
    spooled: Option<SpooledText>,
    lease: Owned<Arc<Lease>>,
    mode: Mode,
}

#[pymethods]
impl MessageBase {
    /// The id its publisher gave it.
    #[getter]
    fn message_id(&self) -> &str {
        &self.head.message_id
    }

    /// The opened message.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let unopened = || Failure::from(cipher_client::ErrorKind::Decrypt).into_exception(py);
        if let Some(spooled) = &self.spooled {
            return read_all(py, spooled);
        }
        self.body.as_ref().map(|body| body.bind(py).clone()).ok_or_else(unopened)
    }

    /// How long it is.
    #[getter]
    fn size(&self, py: Python<'_>) -> PyResult<u64> {
        match &self.spooled {
            Some(spooled) => Ok(spooled.len()),
            None => Ok(self.body(py)?.as_bytes().len() as u64),
        }
    }

    /// Reads it from its beginning, a piece at a time.
    fn reader(&self, py: Python<'_>) -> PyResult<BodyReader> {
        Ok(match &self.spooled {
            Some(spooled) => BodyReader::new(spooled.reader()),
            None => BodyReader::new(Cursor::new(self.body(py)?.as_bytes().to_vec())),
        })
    }

    /// The opened message as text.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        PyString::from_encoded_object(self.body(py)?.as_any(), Some(c"utf-8"), Some(c"strict"))
    }

    /// How it was protected.
    #[getter]
    fn suite(&self) -> Option<&'static str> {
        self.opened.as_ref().map(|opened| opened.suite.name())
    }

    /// Who sealed it, checked.
    #[getter]
    fn sender(&self) -> Option<String> {
        self.opened.as_ref().and_then(|opened| signed_by(&opened.sender))
    }

    /// Who says to have sealed it, and is not known.
    #[getter]
    fn claimed_sender(&self) -> Option<String> {
        self.opened.as_ref().and_then(|opened| claimed_by(&opened.sender))
    }

    /// What its sender bound to it.
    #[getter]
    fn context(&self) -> Option<Context> {
        self.opened.as_ref().and_then(|opened| opened.context.clone()).map(Context::from)
    }

    /// When it was sealed, by its sender's clock.
    #[getter]
    fn sent_at(&self) -> Option<f64> {
        self.opened.as_ref().and_then(|opened| seconds(opened.sent_at))
    }

    /// The sender's stream, and the number in it.
    #[getter]
    fn sequence(&self) -> Option<(String, u64)> {
        self.opened.as_ref().and_then(sequence)
    }

    /// What its place says.
    #[getter]
    fn order(&self) -> Option<&'static str> {
        self.opened.as_ref().map(order)
    }

    /// The sealed form, byte for byte as it was published; `None` once settled.
    #[getter]
    fn envelope(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let lease = self.lease.get()?;
        wait(py, lease.envelope())
    }

    /// The queue it came from.
    #[getter]
    fn queue(&self) -> &str {
        &self.head.queue
    }

    /// The exchange it was published to.
    #[getter]
    fn exchange(&self) -> &str {
        &self.head.exchange
    }

    /// The key it was published with.
    #[getter]
    fn routing_key(&self) -> &str {
        &self.head.routing_key
    }

    /// Which delivery this is: 1 is the first.
    #[getter]
    fn attempt(&self) -> u32 {
        self.head.attempt
    }

    /// When the broker took it, in seconds since 1970.
    #[getter]
    fn published(&self) -> f64 {
        self.head.published_ms as f64 / 1000.0
    }

    /// In a dead-letter queue: the queue it was in, and why it left.
    #[getter]
    fn dead_letter(&self) -> Option<(&str, &str)> {
        self.head.dead_letter.as_ref().map(|(queue, reason)| (queue.as_str(), reason.as_str()))
    }

    /// Done with the message.
    #[pyo3(signature = (*, wait=true))]
    fn ack<'py>(&self, py: Python<'py>, wait: bool) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, if wait { Verdict::Ack } else { Verdict::AckLater })
    }

    /// Back into the queue; uses up an attempt.
    #[pyo3(signature = (*, delay=None))]
    fn nack<'py>(&self, py: Python<'py>, delay: Option<Seconds>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, Verdict::Nack(delay.map(|delay| delay.0)))
    }

    /// Back into the queue; uses up no attempt.
    fn release<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, Verdict::Release)
    }

    /// Into the dead-letter queue.
    fn reject<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, Verdict::Reject)
    }

    /// The lease starts anew.
    fn touch<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let lease = Arc::clone(self.lease.get()?);
        self.mode.run(py, async move { lease.touch().await })
    }

    fn __repr__(&self) -> String {
        let Head { message_id, queue, attempt, .. } = &self.head;
        // Never the body: logs are read by others than messages are.
        format!("<Message {message_id} queue={queue} attempt={attempt}>")
    }
}

impl MessageBase {
    fn settle<'py>(&self, py: Python<'py>, verdict: Verdict) -> PyResult<Bound<'py, PyAny>> {
        let (lease, id) = (Arc::clone(self.lease.get()?), self.head.message_id.clone());
        self.mode.run(py, async move { lease.settle(verdict).await.map_err(|failure| failure.of(&id)) })
    }

    /// The end of a `with` block.
    fn finish<'py>(&self, py: Python<'py>, raised: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let (lease, id) = (Arc::clone(self.lease.get()?), self.head.message_id.clone());
        let verdict = verdict_on(raised)?;
        self.mode.run(py, async move {
            if lease.is_settled().await {
                return Ok(false);
            }
            match lease.settle(verdict).await {
                Ok(()) => Ok(false),
                Err(failure) if verdict == Verdict::Ack => Err(failure.of(&id)),
                Err(_) => {
                    // The exception of the block is the one to be seen.
                    tracing::warn!(message_id = id, "a failed message was not given back; its lease will run out");
                    Ok(false)
                }
            }
        })
    }
}

/// An error of the work uses up an attempt. Ctrl-C, `exit` and a cancelled
/// task are none: the message was not tried to its end.
fn verdict_on(raised: Option<&Bound<'_, PyAny>>) -> PyResult<Verdict> {
    Ok(match raised {
        None => Verdict::Ack,
        Some(exception) if exception.is_instance_of::<PyException>() => Verdict::Nack(None),
        Some(_) => Verdict::Release,
    })
}

/// A message of a `Receiver`.
#[pyclass(frozen, extends = MessageBase, module = "ciphermq")]
pub(crate) struct Message;

#[pymethods]
impl Message {
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (kind, exception, traceback, /))]
    fn __exit__<'py>(
        slf: &Bound<'py, Self>,
        kind: &Bound<'py, PyAny>,
        exception: Option<&Bound<'py, PyAny>>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (kind, traceback);
        slf.as_super().get().finish(slf.py(), exception)
    }
}

/// A message of an `aio.Receiver`.
#[pyclass(frozen, extends = MessageBase, module = "ciphermq._native")]
pub(crate) struct AsyncMessage;

#[pymethods]
impl AsyncMessage {
    fn __aenter__<'py>(slf: Bound<'py, Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mode = slf.as_super().get().mode.clone();
        let own = slf.unbind();
        mode.run(py, async move { Ok(own) })
    }

    #[pyo3(signature = (kind, exception, traceback, /))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        kind: &Bound<'py, PyAny>,
        exception: Option<&Bound<'py, PyAny>>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (kind, traceback);
        slf.as_super().get().finish(slf.py(), exception)
    }
}
