//! From [`cipher_client::ErrorKind`] to the exceptions of `ciphermq.errors`.
//!
//! The classes live in Python: each has one of ours and a built-in one as
//! parents, which a class made here cannot have.

use cipher_client::{Code, Error, ErrorKind};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::message::Received;

/// A fault and what it is about.
pub(crate) struct Failure(Box<Fault>);

struct Fault {
    error: Error,
    /// Instead of the error's own.
    text: Option<&'static str>,
    message_id: Option<String>,
    message: Option<Received>,
    confirmed: Option<Vec<String>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(Box::new(Fault { error, text: None, message_id: None, message: None, confirmed: None }))
    }
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        Error::from(kind).into()
    }
}

impl Failure {
    /// With a text that says more than the error does.
    pub(crate) fn because(mut self, text: &'static str) -> Self {
        self.0.text = Some(text);
        self
    }

    /// With the id of the message it is about.
    pub(crate) fn of(mut self, message_id: &str) -> Self {
        self.0.message_id = Some(message_id.to_owned());
        self
    }

    /// With the message that did not open, to be settled by who catches it.
    pub(crate) fn with_message(mut self, message: Received) -> Self {
        self.0.message = Some(message);
        self
    }

    /// With the ids of a batch that were confirmed.
    pub(crate) fn with_confirmed(mut self, ids: Vec<String>) -> Self {
        self.0.confirmed = Some(ids);
        self
    }

    pub(crate) fn kind(&self) -> &ErrorKind {
        self.0.error.kind()
    }

    /// Nobody knows whether it happened, or it did not: worth another try.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self.kind(), ErrorKind::Timeout | ErrorKind::OutcomeUnknown)
    }

    pub(crate) fn into_exception(self, py: Python<'_>) -> PyErr {
        let Fault { error, text, message_id, message, confirmed } = *self.0;
        let exception = exception(py, &error, text.map_or_else(|| error.to_string(), str::to_owned));
        let details = || -> PyResult<()> {
            let value = exception.value(py);
            match error.kind() {
                ErrorKind::Refused { code, .. } => value.setattr("code", code.as_str())?,
                ErrorKind::Incomplete { missing, count, .. } => {
                    value.setattr("missing", missing)?;
                    value.setattr("count", count)?;
                }
                _ => {}
            }
            if let Some(id) = message_id {
                value.setattr("message_id", id)?;
            }
            if let Some(ids) = confirmed {
                value.setattr("confirmed", ids)?;
            }
            if let Some(message) = message {
                value.setattr("message", message.into_bound_py_any(py)?)?;
            }
            Ok(())
        };
        match details() {
            Ok(()) => exception,
            Err(fault) => fault,
        }
    }
}

/// The exception for a fault that has no more to it.
pub(crate) fn raised(error: Error) -> PyErr {
    Python::attach(|py| Failure::from(error).into_exception(py))
}

/// The exception for the use of an object on the other side of a fork.
pub(crate) fn forked() -> PyErr {
    Python::attach(|py| class(py, "ForkError", FORKED.to_owned()))
}

/// The exception for a part that finds no room.
pub(crate) fn no_room() -> PyErr {
    Python::attach(|py| class(py, "NoRoom", NO_ROOM.to_owned()))
}

fn exception(py: Python<'_>, error: &Error, text: String) -> PyErr {
    match error.kind() {
        ErrorKind::Malformed { .. } | ErrorKind::Unsupported { .. } => class(py, "EnvelopeError", text),
        ErrorKind::TooLarge { what: "exchange" | "routing key" | "content type", .. } => PyValueError::new_err(text),
        ErrorKind::TooLarge { what: "plaintext" | "the request line", .. } => {
            class(py, "EnvelopeError", format!("{text}; send it in parts"))
        }
        ErrorKind::TooLarge { .. } => class(py, "EnvelopeError", text),
        ErrorKind::Decrypt => class(py, "DecryptError", DECRYPT.to_owned()),
        ErrorKind::Throttled => class(py, "Throttled", text),
        ErrorKind::Key { .. } => class(py, "KeyFormatError", text),
        ErrorKind::KeyTooSmall { .. } => class(py, "KeyFormatError", format!("{text}; {LEGACY}")),
        ErrorKind::MessageId { .. } | ErrorKind::Option { .. } => PyValueError::new_err(text),
        ErrorKind::Io { operation, path } => os_error(error, operation, path),
        ErrorKind::Connection => class(py, "ConnectionLost", format!("{}; {UNREACHED}", with_cause(error))),
        ErrorKind::Timeout => class(py, "Timeout", TIMEOUT.to_owned()),
        ErrorKind::OutcomeUnknown => class(py, "OutcomeUnknown", text),
        ErrorKind::LeaseLost => class(py, "LeaseLost", text),
        ErrorKind::Closed => class(py, "Closed", CLOSED.to_owned()),
        ErrorKind::Protocol { .. } => class(py, "ProtocolError", with_cause(error)),
        ErrorKind::Refused { code: Code::QueueFull | Code::StoreFull | Code::DiskFull, .. } => class(py, "Full", text),
        ErrorKind::Refused { code: Code::NotLeased, .. } => class(py, "LeaseLost", text),
        ErrorKind::Refused { .. } => class(py, "Refused", text),
        ErrorKind::PassphraseNeeded => class(py, "PassphraseError", format!("{text}: pass passphrase=")),
        ErrorKind::PassphraseWrong => class(py, "PassphraseError", text),
        ErrorKind::Untrusted { .. } => class(py, "Untrusted", text),
        ErrorKind::KeyChanged { .. } => class(py, "KeyChanged", format!("{text}; {CHANGED}")),
        ErrorKind::Incomplete { .. } => class(py, "Incomplete", text),
        ErrorKind::Misdirected { .. } => class(py, "Misdirected", text),
        _ => class(py, "CipherMQError", text),
    }
}

/// One text for every cause, see the type of the same name.
const DECRYPT: &str = "the message cannot be opened with this key; compare PublicKey.fingerprint with the sender's, \
     or reject the message";
const CHANGED: &str = "find out why, by another way than the directory; only then Pins.forget and Pins.pin";
const LEGACY: &str = "make a new one, or pass allow_legacy_rsa=True to use it all the same";
const UNREACHED: &str = "check host and port, and that `ciphermq serve` is running";
const TIMEOUT: &str = "the deadline passed before anything was sent; try again, or give it more time with timeout=";
const CLOSED: &str = "it was closed; make a new one";
const FORKED: &str = "made before a fork, and does not work in the child process; make a new one after the fork";

const NO_ROOM: &str =
    "too much is incomplete already; release the message and add it later, or give the collector larger bounds";

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// As Python's own `open` would raise it: the number picks the subclass.
fn os_error(error: &Error, operation: &str, path: &str) -> PyErr {
    let cause = std::error::Error::source(error);
    // Some say first where in the file it was.
    let mut chain = std::iter::successors(cause, |cause| cause.source());
    let fault = chain.find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let number = fault.and_then(|fault| match fault.kind() {
        std::io::ErrorKind::AlreadyExists => Some(EEXIST),
        _ => fault.raw_os_error(),
    });
    match (number, cause) {
        (Some(number), Some(cause)) => {
            // Python writes the number itself.
            let cause = cause.to_string();
            let cause = cause.split(" (os error").next().unwrap_or_default();
            PyOSError::new_err((number, format!("{operation}: {cause}"), path.to_owned()))
        }
        _ => PyOSError::new_err(format!("{path}: {operation}")),
    }
}

/// The same number on Linux, macOS, the BSDs and in the C runtime of Windows.
const EEXIST: i32 = 17;

/// An exception of `ciphermq.errors`.
fn class(py: Python<'_>, name: &str, text: String) -> PyErr {
    static ERRORS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let errors = ERRORS.get_or_try_init(py, || py.import("ciphermq.errors").map(|module| module.into_any().unbind()));
    let class = errors.and_then(|errors| Ok(errors.bind(py).getattr(name)?.cast_into::<PyType>()?));
    class.map_or_else(|fault| fault, |class| PyErr::from_type(class, text))
}
