//! The one table from the broker's errors to the words of the text protocol, in both modes.

use ciphermq_broker::Error;
use ciphermq_protocol::Code;
use ciphermq_protocol::text::legacy::LegacyError;

/// The stable code of modern mode; the error's `Display` is the text after it.
pub(crate) fn code(error: &Error) -> Code {
    match error {
        Error::NoExchange(_)
        | Error::NoQueue(_)
        | Error::NoBinding { .. }
        | Error::NoSubscription(_)
        | Error::NoMessage(_) => Code::NotFound,
        Error::NoRoute { .. } => Code::NoRoute,
        Error::NotLeased(_) => Code::NotLeased,
        Error::QueueFull(_) => Code::QueueFull,
        Error::StoreFull => Code::StoreFull,
        Error::DiskFull => Code::DiskFull,
        Error::Conflict { .. } => Code::Conflict,
        Error::NotEmpty { .. } => Code::NotEmpty,
        Error::NotAllowed(_) => Code::NotAllowed,
        Error::Limit(_) => Code::Limit,
        Error::Unreadable(_) | Error::Storage(_) => Code::Storage,
    }
}

/// The text of legacy mode, for those a legacy command can meet.
pub(crate) fn legacy(error: &Error) -> LegacyError<'_> {
    match error {
        Error::NoExchange(exchange) => LegacyError::ExchangeNotFound(exchange),
        Error::NoRoute { key, .. } => LegacyError::NoBinding(key),
        Error::QueueFull(queue) => LegacyError::QueueFull(queue),
        Error::StoreFull => LegacyError::StoreFull,
        Error::DiskFull => LegacyError::DiskFull,
        Error::Unreadable(_) | Error::Storage(_) => LegacyError::StorageFailure,
        Error::Limit(what) | Error::NotAllowed(what) => LegacyError::LimitReached(what),
        // Modern commands only; a legacy command that met one would be a bug, and this still one true line.
        Error::NoQueue(name)
        | Error::NoSubscription(name)
        | Error::NoMessage(name)
        | Error::NotLeased(name)
        | Error::NoBinding { queue: name, .. }
        | Error::Conflict { queue: name, .. }
        | Error::NotEmpty { queue: name, .. } => LegacyError::InvalidName(name),
    }
}
