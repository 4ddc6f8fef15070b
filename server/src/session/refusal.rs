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
        | Error::NoMessage(_)
        | Error::NoAnnouncement(_)
        | Error::NoUnsignedKey(_) => Code::NotFound,
        Error::NoRoute { .. } => Code::NoRoute,
        Error::NotLeased(_) | Error::LeasedElsewhere(_) => Code::NotLeased,
        Error::QueueFull(_) => Code::QueueFull,
        Error::StoreFull => Code::StoreFull,
        Error::DiskFull => Code::DiskFull,
        Error::Conflict { .. } | Error::OldAnnouncement { .. } => Code::Conflict,
        Error::NotEmpty { .. } => Code::NotEmpty,
        Error::NotAllowed(_) | Error::OtherIdentity(_) | Error::Announced(_) => Code::NotAllowed,
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
        // Have texts of their own (`keys.rs`), or are of modern commands only; a legacy command that met one would be a bug, and this still one true line.
        Error::NoQueue(name)
        | Error::NoSubscription(name)
        | Error::NoMessage(name)
        | Error::NoAnnouncement(name)
        | Error::NoUnsignedKey(name)
        | Error::OtherIdentity(name)
        | Error::OldAnnouncement { client: name, .. }
        | Error::Announced(name)
        | Error::LeasedElsewhere(name)
        | Error::NotLeased(name)
        | Error::NoBinding { queue: name, .. }
        | Error::Conflict { queue: name, .. }
        | Error::NotEmpty { queue: name, .. } => LegacyError::InvalidName(name),
    }
}
