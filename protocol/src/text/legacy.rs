//! Replies of legacy mode where they differ from [`Reply`](super::reply::Reply): the originals' own texts.
//!
//! What is equal in both modes (`ACK`, `ACK_CONFIRMED`, `Queue declared`, `Subscribed to queue`, …) is written with `Reply`.

use std::fmt;

use super::envelope::BadEnvelope;
use super::error::{Echo, ParseError};
use super::write::{display, text};

/// A line of legacy mode.
#[derive(Debug)]
#[non_exhaustive]
pub enum LegacyReply<'a> {
    /// A delivery, pushed or fetched: `Message: <id> <envelope>`.
    Message {
        /// The message's id.
        id: &'a str,
        /// Its envelope.
        envelope: &'a str,
    },
    /// `Error: <text>`.
    Error(LegacyError<'a>),
    /// The line of one envelope of a batch: `Error: <text> for message <id>`.
    BatchError {
        /// What went wrong.
        error: LegacyError<'a>,
        /// The message's id.
        id: &'a str,
    },
    /// `Invalid message format: <detail>`.
    BadEnvelope(&'a BadEnvelope),
    /// `Invalid batch format: <detail>`.
    BadBatch(&'a BadEnvelope),
    /// `get_public_key` of a client id without an unsigned key: `Public key not found`.
    PublicKeyNotFound,
    /// The same of `get_key`: `No public key found`.
    NoPublicKey,
    /// `register_public_key` did not: `Error: Failed to save public key: <reason>`.
    KeyNotSaved(&'a str),
    /// `register_key` did not: `Error registering key: <reason>`.
    KeyNotRegistered(&'a str),
    /// `resend` of a message another connection holds: `Unauthorized resend request`.
    UnauthorizedResend,
    /// `resend` of a message there is not: `Message ID not found`.
    MessageIdNotFound,
    /// `resend` that cannot be done now: `Error retrieving message metadata`.
    NoMetadata,
    /// The request could not be read; see [`ParseError::legacy_text`].
    BadRequest(&'a ParseError<'a>),
}

impl LegacyReply<'_> {
    /// Appends the line, LF included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message { id, envelope } => {
                text(out, "Message: ");
                text(out, id);
                out.push(b' ');
                text(out, envelope);
            }
            Self::Error(error) => display(out, &format_args!("Error: {error}")),
            Self::BatchError { error, id } => display(out, &format_args!("Error: {error} for message {id}")),
            Self::BadEnvelope(error) => display(out, &format_args!("Invalid message format: {error}")),
            Self::BadBatch(error) => display(out, &format_args!("Invalid batch format: {error}")),
            Self::PublicKeyNotFound => text(out, "Public key not found"),
            Self::NoPublicKey => text(out, "No public key found"),
            Self::KeyNotSaved(reason) => display(out, &format_args!("Error: Failed to save public key: {reason}")),
            Self::KeyNotRegistered(reason) => display(out, &format_args!("Error registering key: {reason}")),
            Self::UnauthorizedResend => text(out, "Unauthorized resend request"),
            Self::MessageIdNotFound => text(out, "Message ID not found"),
            Self::NoMetadata => text(out, "Error retrieving message metadata"),
            Self::BadRequest(error) => text(out, &error.legacy_text()),
        }
        out.push(b'\n');
    }

    /// Bytes of the line of a delivery, LF included, to compare with
    /// [`LEGACY_PUSH_BYTES_MAX`](crate::limits::LEGACY_PUSH_BYTES_MAX).
    pub fn message_bytes(id: &str, envelope: &str) -> usize {
        "Message: ".len() + id.len() + " ".len() + envelope.len() + "\n".len()
    }
}

/// What stands after `Error: ` in legacy mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LegacyError<'a> {
    /// No such exchange.
    ExchangeNotFound(&'a str),
    /// No queue is bound with this key.
    NoBinding(&'a str),
    /// A bound of this queue is reached.
    QueueFull(&'a str),
    /// The broker's store limit is reached.
    StoreFull,
    /// The disk has no room for it.
    DiskFull,
    /// The journal failed.
    StorageFailure,
    /// The server is stopping.
    ShuttingDown,
    /// A stated maximum is reached; the text says which.
    LimitReached(&'a str),
    /// A name against the rules.
    InvalidName(&'a str),
    /// Longer than `max_line`; the connection is closed.
    LineTooLong,
}

impl fmt::Display for LegacyError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExchangeNotFound(exchange) => write!(f, "Exchange '{exchange}' not found"),
            Self::NoBinding(key) => write!(f, "No binding found for routing key '{key}'"),
            Self::QueueFull(queue) => write!(f, "Queue '{queue}' is full"),
            Self::StoreFull => f.write_str("Store is full"),
            Self::DiskFull => f.write_str("Disk is full"),
            Self::StorageFailure => f.write_str("Storage failure"),
            Self::ShuttingDown => f.write_str("Server is shutting down"),
            Self::LimitReached(what) => write!(f, "Limit reached: {what}"),
            Self::InvalidName(name) => write!(f, "Invalid name '{}'", Echo(name)),
            Self::LineTooLong => f.write_str("Line too long"),
        }
    }
}
