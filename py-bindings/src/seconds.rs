//! Times as Python has them: seconds, with a fraction.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Longest time that is told from "for ever": no deadline can overflow.
const SECONDS_MAX: f64 = 1e9;

/// A time span given in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for Seconds {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let seconds: f64 = value.extract()?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(PyValueError::new_err("a time is a number of seconds, 0 or more"));
        }
        Ok(Self(Duration::from_secs_f64(seconds.min(SECONDS_MAX))))
    }
}
