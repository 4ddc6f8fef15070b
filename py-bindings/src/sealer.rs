//! `Sealer`: seals for one recipient or several, with all that can be chosen.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use cipher_client::crypto::{self, Compression, Padding, SealerBuilder, SessionPolicy, Signing};
use cipher_client::trust;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::context::Context;
use crate::error::raised;
use crate::identity::Identity;
use crate::keys::PublicKey;
use crate::recipient::{Recipient, UnverifiedRecipient};
use crate::seconds::Seconds;
use crate::text::Octets;

/// Seals messages. To be kept: it uses a session key for many of them.
#[pyclass(frozen, module = "ciphermq")]
pub(crate) struct Sealer {
    pub(crate) inner: Arc<crypto::Sealer>,
}

#[pymethods]
impl Sealer {
    #[new]
    #[pyo3(signature = (recipients, *, identity=None, signing="session", suite=None, padding=None, compression=None, messages=1000,
        lifetime=Seconds(std::time::Duration::from_secs(60)), bytes=1 << 30))]
    #[allow(clippy::too_many_arguments)] // the caller names them; they are one thing each
    fn new(
        recipients: &Bound<'_, PyAny>,
        identity: Option<&Bound<'_, Identity>>,
        signing: &str,
        suite: Option<&str>,
        padding: Option<&str>,
        compression: Option<&str>,
        messages: u64,
        lifetime: Seconds,
        bytes: u64,
    ) -> PyResult<Self> {
        let builder = crypto::Sealer::builder(all_of(recipients)?);
        let builder = builder.session(session(messages, lifetime, bytes));
        let builder = match identity {
            Some(identity) => builder.identity(Arc::clone(&identity.get().inner)),
            None => builder,
        };
        let builder = builder.signing(signing_of(signing)?);
        let inner = with_options(builder, suite, padding, compression)?.build().map_err(raised)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The suite it seals with.
    #[getter]
    fn suite(&self) -> &'static str {
        self.inner.suite().name()
    }

    /// Seals a message.
    #[pyo3(signature = (plaintext, *, context=None, message_id=None))]
    fn seal(
        &self,
        py: Python<'_>,
        plaintext: Octets<'_>,
        context: Option<&Bound<'_, Context>>,
        message_id: Option<Cow<'_, str>>,
    ) -> PyResult<String> {
        let (context, plaintext) = (context_of(context), plaintext.as_bytes());
        let sealed = py.detach(|| match message_id.as_deref() {
            Some(id) => self.inner.seal_for_with_id(&context, id, plaintext),
            None => self.inner.seal_for(&context, plaintext),
        });
        sealed.map(|sealed| sealed.envelope).map_err(raised)
    }

    /// Seals a message larger than a line, in parts.
    #[pyo3(signature = (plaintext, part_bytes, *, context=None, message_id=None))]
    fn seal_parts(
        &self,
        py: Python<'_>,
        plaintext: Octets<'_>,
        part_bytes: usize,
        context: Option<&Bound<'_, Context>>,
        message_id: Option<Cow<'_, str>>,
    ) -> PyResult<Vec<String>> {
        let (context, plaintext) = (context_of(context), plaintext.as_bytes());
        let sealed = py.detach(|| {
            let parts = self.inner.seal_parts(&context, message_id.as_deref(), plaintext, part_bytes)?;
            parts.map(|part| part.map(|sealed| sealed.envelope)).collect::<cipher_client::Result<Vec<_>>>()
        });
        sealed.map_err(raised)
    }

    /// Seals a file into another one, in constant memory; its message id.
    #[pyo3(signature = (source, target, *, context=None, message_id=None))]
    fn seal_file(
        &self,
        py: Python<'_>,
        source: PathBuf,
        target: PathBuf,
        context: Option<&Bound<'_, Context>>,
        message_id: Option<Cow<'_, str>>,
    ) -> PyResult<String> {
        let context = context_of(context);
        let sealed = py.detach(|| self.inner.seal_file(&context, message_id.as_deref(), source, target));
        sealed.map_err(raised)
    }

    /// Forgets the session key.
    fn rotate(&self) {
        self.inner.rotate();
    }
}

fn context_of(context: Option<&Bound<'_, Context>>) -> crypto::Context {
    context.map_or_else(crypto::Context::default, |context| context.get().inner.clone())
}

fn session(messages: u64, Seconds(lifetime): Seconds, bytes: u64) -> SessionPolicy {
    match messages {
        1 => SessionPolicy::PerMessage,
        _ => SessionPolicy::Reuse { messages, lifetime, bytes },
    }
}

fn signing_of(name: &str) -> PyResult<Signing> {
    match name {
        "session" => Ok(Signing::Session),
        "message" => Ok(Signing::EveryMessage),
        _ => Err(PyValueError::new_err(r#"signing is "session" or "message""#)),
    }
}

fn with_options(
    builder: SealerBuilder,
    suite: Option<&str>,
    padding: Option<&str>,
    compression: Option<&str>,
) -> PyResult<SealerBuilder> {
    let builder = match suite {
        Some(name) => builder.suite(suite_of(name)?),
        None => builder,
    };
    let builder = match padding {
        None => builder,
        Some("padme") => builder.padding(Padding::Padme),
        Some(_) => return Err(PyValueError::new_err(r#"padding is None or "padme""#)),
    };
    match compression {
        None => Ok(builder),
        Some("zstd") => Ok(builder.compression(Compression::Zstd)),
        Some(_) => Err(PyValueError::new_err(r#"compression is None or "zstd""#)),
    }
}

/// A suite by its name on the wire.
pub(crate) fn suite_of(name: &str) -> PyResult<crypto::Suite> {
    crypto::Suite::from_name(name).ok_or_else(|| PyValueError::new_err(r#"a suite is "1", "2r", "2x" or "2pq""#))
}

const NO_RECIPIENT: &str = "a recipient is a PublicKey or a Recipient; PublicKey.from_file reads one";

/// One key or several, each of them vouched for by somebody.
fn all_of(recipients: &Bound<'_, PyAny>) -> PyResult<Vec<trust::Recipient>> {
    match one_of(recipients)? {
        Some(recipient) => Ok(vec![recipient]),
        None => {
            let wrong = || PyTypeError::new_err(NO_RECIPIENT);
            let each = recipients.try_iter().map_err(|_| wrong())?;
            each.map(|item| one_of(&item?)?.ok_or_else(wrong)).collect()
        }
    }
}

fn one_of(given: &Bound<'_, PyAny>) -> PyResult<Option<trust::Recipient>> {
    if given.is_instance_of::<UnverifiedRecipient>() {
        return Err(PyTypeError::new_err(UNVERIFIED));
    }
    if let Ok(recipient) = given.cast::<Recipient>() {
        return Ok(Some(recipient.get().inner.clone()));
    }
    let key = given.cast::<PublicKey>().ok();
    Ok(key.map(|key| trust::Recipient::from_own_source(key.get().inner.clone())))
}

const UNVERIFIED: &str = "nobody vouches for this key, a directory only repeats what it was told; compare its kid by \
     another way and call verify(kid), or take it through Pins";
