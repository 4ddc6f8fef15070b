//! `Opener`, `Opened`, `PartCollector`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use cipher_client::crypto::{self, Collected, ContextPolicy, Order, PartLimits, SuiteSet};
use cipher_client::trust::SenderPolicy;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::context::Context;
use crate::error::raised;
use crate::keys::PrivateKey;
use crate::keyset::Keyset;
use crate::logging;
use crate::sealer::suite_of;
use crate::seconds::Seconds;
use crate::text::Octets;
use crate::trust::Senders;

/// Opens messages. To be kept: it remembers session keys.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Opener {
    pub(crate) inner: Arc<crypto::Opener>,
}

#[pymethods]
impl Opener {
    #[new]
    #[pyo3(signature = (keys, *, senders=None, require_signed=None, source="", mixed=false, allow_lower_suites=false,
        max_age=None, suites=None, on_misdirected="refuse", only_for=None))]
    #[allow(clippy::too_many_arguments)] // the caller names them; they are one thing each
    fn new(
        keys: &Bound<'_, PyAny>,
        senders: Option<&Bound<'_, Senders>>,
        require_signed: Option<bool>,
        source: &str,
        mixed: bool,
        allow_lower_suites: bool,
        max_age: Option<Seconds>,
        suites: Option<Vec<String>>,
        on_misdirected: &str,
        only_for: Option<Vec<Bound<'_, Context>>>,
    ) -> PyResult<Self> {
        let policy = sender_policy(senders, require_signed, source, mixed, allow_lower_suites)?;
        let policy = match (max_age, senders) {
            (Some(_), None) => {
                return Err(PyTypeError::new_err("max_age needs senders: only their times are believed"));
            }
            (Some(Seconds(age)), Some(_)) => policy.max_age(age),
            (None, _) => policy,
        };
        let suites = suites.map_or(Ok(SuiteSet::ALL), |names| {
            names.iter().map(|name| suite_of(name)).collect::<PyResult<Vec<_>>>().map(SuiteSet::of)
        })?;
        let expected = context_policy(on_misdirected)?;
        let build = |keys: &crypto::Keyset| {
            let builder = crypto::Opener::builder(keys).senders(policy).suites(suites).expect(expected);
            let builder = match only_for {
                Some(places) => builder.only_for(places.iter().map(|place| place.get().inner.clone())),
                None => builder,
            };
            builder.build().map_err(raised)
        };
        let inner = match keys.cast::<Keyset>() {
            Ok(keys) => build(&*keys.get().keys()?)?,
            Err(_) => build(&keyset_of(keys)?)?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens an envelope.
    #[pyo3(signature = (envelope, *, delivered=None))]
    fn open(&self, py: Python<'_>, envelope: Octets<'_>, delivered: Option<&Bound<'_, Context>>) -> PyResult<Opened> {
        let (envelope, delivered) = (envelope.as_bytes(), delivered.map(|context| &context.get().inner));
        let opened = logging::detached(py, || {
            let envelope = text_of(envelope)?;
            match delivered {
                Some(context) => self.inner.open_for(envelope, context),
                None => self.inner.open(envelope),
            }
        });
        opened.map(|inner| Opened { inner }).map_err(raised)
    }

    /// Opens the envelope in a file into another file, in constant memory.
    #[pyo3(signature = (source, target, *, delivered=None))]
    fn open_file(
        &self,
        py: Python<'_>,
        source: PathBuf,
        target: PathBuf,
        delivered: Option<&Bound<'_, Context>>,
    ) -> PyResult<Opened> {
        let delivered = delivered.map(|context| &context.get().inner);
        let opened = logging::detached(py, || self.inner.open_file(source, target, delivered));
        opened.map(|inner| Opened { inner }).map_err(raised)
    }

    /// Forgets every session key.
    fn forget(&self) {
        self.inner.forget();
    }

    /// Counts since the start.
    #[getter]
    fn stats(&self) -> std::collections::BTreeMap<&'static str, u64> {
        let stats = self.inner.stats();
        [
            ("opened", stats.opened),
            ("failed", stats.failed),
            ("throttled", stats.throttled),
            ("unwraps", stats.unwraps),
            ("missing", stats.missing),
            ("late", stats.late),
            ("repeated", stats.repeated),
        ]
        .into()
    }
}

/// An envelope is text.
pub(crate) fn text_of(envelope: &[u8]) -> cipher_client::Result<&str> {
    let not_text = cipher_client::ErrorKind::Malformed { part: "envelope", fault: "not UTF-8" };
    std::str::from_utf8(envelope).map_err(|_| not_text.into())
}

fn sender_policy(
    senders: Option<&Bound<'_, Senders>>,
    require_signed: Option<bool>,
    source: &str,
    mixed: bool,
    allow_lower_suites: bool,
) -> PyResult<SenderPolicy> {
    let Some(senders) = senders else {
        let demands = [
            ("require_signed", require_signed == Some(true)),
            ("mixed", mixed),
            ("allow_lower_suites", allow_lower_suites),
        ];
        return match demands.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(PyTypeError::new_err(format!("{name} needs senders: the Senders that are known"))),
            None => Ok(SenderPolicy::default()),
        };
    };
    let known = Arc::clone(&senders.get().inner);
    // Whoever names senders wants them, unless he says otherwise.
    let policy = match require_signed.unwrap_or(true) {
        true => SenderPolicy::require_signed(known),
        false => SenderPolicy::allow_unsigned(known),
    };
    let policy = policy.source(source).map_err(raised)?;
    let policy = if mixed { policy.mixed() } else { policy };
    Ok(if allow_lower_suites { policy.allow_lower_suites() } else { policy })
}

fn context_policy(on_misdirected: &str) -> PyResult<ContextPolicy> {
    match on_misdirected {
        "refuse" => Ok(ContextPolicy::Strict),
        "warn" => Ok(ContextPolicy::Warn),
        "accept" => Ok(ContextPolicy::Off),
        _ => Err(PyValueError::new_err(r#"on_misdirected is "refuse", "warn" or "accept""#)),
    }
}

/// One private key or several, the primary first.
fn keyset_of(keys: &Bound<'_, PyAny>) -> PyResult<crypto::Keyset> {
    let wrong = || {
        PyTypeError::new_err(
            "keys are a PrivateKey, several of them, or a Keyset; PrivateKey.from_file and Keyset.open read them",
        )
    };
    let given: Vec<Bound<'_, PrivateKey>> = match keys.cast::<PrivateKey>() {
        Ok(key) => vec![key.clone()],
        Err(_) => keys.extract().map_err(|_| wrong())?,
    };
    let (primary, retired) = given.split_first().ok_or_else(wrong)?;
    let mut made = crypto::Keyset::new(primary.get().again().map_err(raised)?);
    for key in retired.iter().rev() {
        made = made.with_retired(key.get().again().map_err(raised)?).map_err(raised)?;
    }
    Ok(made)
}

/// An opened message.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Opened {
    inner: crypto::Opened,
}

#[pymethods]
impl Opened {
    #[getter]
    fn message_id(&self) -> &str {
        &self.inner.message_id
    }

    /// What was sealed.
    #[getter]
    fn plaintext<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.plaintext)
    }

    /// The same as text.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        PyString::from_encoded_object(self.plaintext(py).as_any(), Some(c"utf-8"), Some(c"strict"))
    }

    #[getter]
    fn suite(&self) -> &'static str {
        self.inner.suite.name()
    }

    /// Who sealed it, checked.
    #[getter]
    fn sender(&self) -> Option<String> {
        signed_by(&self.inner.sender)
    }

    /// Who says to have sealed it, and is not known.
    #[getter]
    fn claimed_sender(&self) -> Option<String> {
        claimed_by(&self.inner.sender)
    }

    #[getter]
    fn context(&self) -> Option<Context> {
        self.inner.context.clone().map(Context::from)
    }

    #[getter]
    fn sent_at(&self) -> Option<f64> {
        seconds(self.inner.sent_at)
    }

    /// The stream and the number in it.
    #[getter]
    fn sequence(&self) -> Option<(String, u64)> {
        sequence(&self.inner)
    }

    /// What its place says.
    #[getter]
    fn order(&self) -> &'static str {
        order(&self.inner)
    }

    /// What no two sealings share.
    #[getter]
    fn uniqueness<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.uniqueness)
    }

    /// Index and count, of a part.
    #[getter]
    fn part(&self) -> Option<(u32, u32)> {
        self.inner.part.map(|part| (part.index, part.count))
    }

    fn __repr__(&self) -> String {
        let crypto::Opened { message_id, suite, plaintext, .. } = &self.inner;
        // Never the text: logs are read by others than messages are.
        format!("<Opened {message_id} suite={suite} bytes={}>", plaintext.len())
    }
}

pub(crate) fn signed_by(sender: &crypto::Sender) -> Option<String> {
    match sender {
        crypto::Sender::Signed(kid) => Some(kid.to_string()),
        _ => None,
    }
}

pub(crate) fn claimed_by(sender: &crypto::Sender) -> Option<String> {
    match sender {
        crypto::Sender::Unknown(kid) => Some(kid.to_string()),
        _ => None,
    }
}

pub(crate) fn sequence(opened: &crypto::Opened) -> Option<(String, u64)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    opened.sequence.map(|sequence| (hex(&sequence.session), sequence.number))
}

pub(crate) fn order(opened: &crypto::Opened) -> &'static str {
    match opened.order {
        Order::First => "first",
        Order::Next => "next",
        Order::Gap { .. } => "gap",
        Order::Late => "late",
        Order::Repeat => "repeat",
        Order::Old => "old",
        _ => "untracked",
    }
}

/// A time as Python has it.
pub(crate) fn seconds(time: Option<SystemTime>) -> Option<f64> {
    time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).map(|since| since.as_secs_f64())
}

/// Puts messages that came in parts together.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct PartCollector {
    inner: Mutex<crypto::PartCollector<()>>,
}

#[pymethods]
impl PartCollector {
    #[new]
    #[pyo3(signature = (*, messages=16, bytes=256 << 20, age=Seconds(std::time::Duration::from_secs(600))))]
    fn new(messages: usize, bytes: usize, age: Seconds) -> Self {
        let limits = PartLimits { messages, bytes, age: age.0 };
        Self { inner: Mutex::new(crypto::PartCollector::new(limits)) }
    }

    /// Takes a part; the message when it was the last one missing.
    fn add(&self, opened: &Bound<'_, Opened>) -> PyResult<Option<Opened>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.add(opened.get().inner.clone(), (), Instant::now()) {
            Ok(Collected::Whole { message, .. }) => Ok(Some(Opened { inner: message })),
            Ok(Collected::Kept | Collected::Repeated(())) => Ok(None),
            Ok(Collected::NoRoom(())) => Err(crate::error::no_room()),
            Err(refused) => Err(raised(refused.error)),
        }
    }

    /// Messages that are incomplete.
    #[getter]
    fn incomplete(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).incomplete()
    }
}
