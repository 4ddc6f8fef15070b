//! One error type for the crate: what failed, and what caused it.

use std::error::Error as StdError;
use std::fmt;

use crate::delivery::Undecryptable;

/// Result of the operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation: [`kind`](Error::kind) says what a program can decide
/// on, [`source`](StdError::source) what lay underneath.
///
/// An [`ErrorKind::Decrypt`] never has a source: which step of an opening
/// failed is of use to an attacker only.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// The message this is about, when it still has to be settled.
    undecryptable: Option<Box<Undecryptable>>,
}

/// The fault, as far as a caller can act on it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// The envelope breaks the format; nothing was decrypted.
    #[error("malformed envelope: {part}: {fault}")]
    Malformed {
        /// The member at fault, or `envelope`.
        part: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The envelope is well-formed, of a kind this crate does not open.
    #[error("unsupported envelope: {what}")]
    Unsupported {
        /// What marks the other kind.
        what: &'static str,
    },
    /// Longer than the stated limit.
    #[error("{what} of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// The thing measured.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The message does not open with the keys at hand: another recipient's,
    /// altered, or forged. All of these look the same on purpose.
    #[error("the message cannot be opened")]
    Decrypt,
    /// Too many messages failed to open lately, so this one was not tried.
    /// It says nothing about this message: put it back and try later.
    #[error("too many failed openings, try again later")]
    Throttled,
    /// A key cannot be read, made or used.
    #[error("key: {reason}")]
    Key {
        /// Why.
        reason: &'static str,
    },
    /// An RSA key below the least size, without the opt-in for old keys.
    #[error("an RSA key of {bits} bits is below the least size of {min}")]
    KeyTooSmall {
        /// Size of the key.
        bits: usize,
        /// Least size without opt-in.
        min: usize,
    },
    /// A message id outside the rules of [`crate::crypto::seal`].
    #[error("message id: {reason}")]
    MessageId {
        /// The rule broken.
        reason: &'static str,
    },
    /// An option outside its range.
    #[error("{option}: {reason}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its rule.
        reason: &'static str,
    },
    /// The system gave no randomness.
    #[error("the system's random source failed")]
    Random,
    /// A file could not be read or written.
    #[error("{path}: {operation}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: String,
    },
    /// A file that is not what its name promises.
    #[error("{path}: {reason}")]
    File {
        /// What is wrong with it.
        reason: &'static str,
        /// The file.
        path: String,
    },
    /// No connection, or the connection was lost.
    #[error("connection to the broker")]
    Connection,
    /// The deadline passed before anything was sent.
    #[error("deadline passed")]
    Timeout,
    /// Sent, and the answer did not come: it may or may not have happened. A
    /// publish can be repeated with the same message id without harm.
    #[error("outcome unknown: it may have happened; the same message id can safely be published again")]
    OutcomeUnknown,
    /// The lease of a delivery ended before it was settled: its time ran out,
    /// or the connection it came by is gone. The message will be delivered again.
    #[error("the lease has ended, the message will be delivered again")]
    LeaseLost,
    /// The broker said no.
    #[error("refused by the broker: {code} {text}")]
    Refused {
        /// Stable word.
        code: ciphermq_protocol::Code,
        /// For people.
        text: String,
    },
    /// The client was closed by its owner.
    #[error("closed")]
    Closed,
    /// The broker's answer breaks the protocol.
    #[error("protocol: {what}")]
    Protocol {
        /// What was not understood.
        what: &'static str,
    },
    /// A private key is encrypted and no passphrase was given.
    #[error("the key is encrypted, a passphrase is needed")]
    PassphraseNeeded,
    /// The passphrase does not open the key, or the key is damaged: the two
    /// look the same.
    #[error("the passphrase does not open the key, or the key is damaged")]
    PassphraseWrong,
    /// Nobody who is believed vouches for this key or this message.
    #[error("not trusted: {what}")]
    Untrusted {
        /// What is missing.
        what: &'static str,
    },
    /// A directory contradicts what is known of a name. Nothing is sealed to it
    /// until somebody has found out why ([`crate::trust::Pins`]).
    #[error("the key of {client_id} has changed: {what}")]
    KeyChanged {
        /// The name.
        client_id: String,
        /// How it contradicts.
        what: &'static str,
    },
    /// The message opened, and its sender meant it for somewhere else than where
    /// it came from ([`crate::crypto::ContextPolicy`]).
    #[error("misdirected: {what}")]
    Misdirected {
        /// What does not fit.
        what: &'static str,
    },
    /// The stream that is sealed into, or opened from, has failed: the source
    /// says how.
    #[error("the stream that is sealed into or opened from")]
    Stream,
    /// Parts of a message did not come in the time that they have
    /// ([`crate::crypto::PartLimits`]). Those that came went back to the queue.
    #[error("message {message_id} is incomplete: {missing} of its {count} parts did not come in time")]
    Incomplete {
        /// The id of the whole message.
        message_id: String,
        /// Parts that did not come.
        missing: u32,
        /// Parts that it has.
        count: u32,
    },
}

impl Error {
    /// The fault, for decisions.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The message a consumer could not open, to be settled by the caller;
    /// the error itself when it is about something else.
    ///
    /// # Errors
    ///
    /// This error, unchanged.
    pub fn into_undecryptable(mut self) -> Result<Undecryptable> {
        self.undecryptable.take().map(|boxed| *boxed).ok_or(self)
    }

    pub(crate) fn with_undecryptable(mut self, message: Undecryptable) -> Self {
        self.undecryptable = Some(Box::new(message));
        self
    }

    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind, source: None, undecryptable: None }
    }

    pub(crate) fn with_source(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, source: Some(source.into()), undecryptable: None }
    }

    pub(crate) fn malformed(part: &'static str, fault: &'static str) -> Self {
        Self::new(ErrorKind::Malformed { part, fault })
    }

    pub(crate) fn key(reason: &'static str) -> Self {
        Self::new(ErrorKind::Key { reason })
    }

    pub(crate) fn io(operation: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        let path = path.display().to_string();
        Self::with_source(ErrorKind::Io { operation, path }, source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}
