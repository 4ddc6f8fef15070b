//! From [`cipher_client::ErrorKind`] to the exceptions of `ciphermq.errors`.
//!
//! The classes live in Python: each has one of ours and a built-in one as
//! parents, which a class made here cannot have.

use cipher_client::{Error, ErrorKind};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// The exception for a fault.
pub(crate) fn raised(error: &Error) -> PyErr {
    Python::attach(|py| exception(py, error))
}

fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Malformed { .. } | ErrorKind::Unsupported { .. } => class(py, "EnvelopeError", text),
        ErrorKind::TooLarge { .. } => class(py, "EnvelopeError", format!("{text}; send it in parts")),
        ErrorKind::Decrypt => class(py, "DecryptError", DECRYPT.to_owned()),
        ErrorKind::Throttled => class(py, "Throttled", text),
        ErrorKind::Key { .. } => class(py, "KeyFormatError", text),
        ErrorKind::KeyTooSmall { .. } => class(py, "KeyFormatError", format!("{text}; {LEGACY}")),
        ErrorKind::MessageId { .. } | ErrorKind::Option { .. } => PyValueError::new_err(text),
        ErrorKind::Io { operation, path } => os_error(error, operation, path),
        _ => class(py, "CipherMQError", text),
    }
}

/// One text for every cause, see the type of the same name.
const DECRYPT: &str = "the message cannot be opened with this key; compare PublicKey.fingerprint with the sender's, \
     or reject the message";
const LEGACY: &str = "make a new one, or pass allow_legacy_rsa=True to read it all the same";

/// As Python's own `open` would raise it: the number picks the subclass.
fn os_error(error: &Error, operation: &str, path: &str) -> PyErr {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let number = cause.and_then(|cause| match cause.kind() {
        std::io::ErrorKind::AlreadyExists => Some(EEXIST),
        _ => cause.raw_os_error(),
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
