//! The lines a client sends, checked so that no text of a caller can make two.

use std::sync::Arc;

use ciphermq_protocol::{Command, MessageId, Name};

use crate::{Error, ErrorKind, Result};

/// A queue's name, checked once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct QueueName(Arc<str>);

impl QueueName {
    pub(crate) fn parse(queue: &str) -> Result<Self> {
        name("queue", queue).map(|name| Self(name.as_str().into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn name(&self) -> Name<'_> {
        Name::parse(&self.0).expect("checked when it was made")
    }
}

impl From<Name<'_>> for QueueName {
    fn from(name: Name<'_>) -> Self {
        Self(name.as_str().into())
    }
}

impl std::borrow::Borrow<str> for QueueName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// `text` as the name of an `option` of the caller.
pub(crate) fn name<'a>(option: &'static str, text: &'a str) -> Result<Name<'a>> {
    let reason = "is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /";
    Name::parse(text).map_err(|_| Error::new(ErrorKind::Option { option, reason }))
}

pub(crate) fn message_id(text: &str) -> Result<&str> {
    let reason = "is 1 to 255 bytes of printable ASCII without space, \", \\ and {";
    match MessageId::parse(text) {
        Ok(id) => Ok(id.as_str()),
        Err(_) => Err(Error::new(ErrorKind::MessageId { reason })),
    }
}

/// An envelope that stays on its line.
pub(crate) fn envelope(text: &str) -> Result<&str> {
    let fault = if !text.starts_with('{') {
        "does not start with {"
    } else if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some() {
        "holds a line break"
    } else {
        return Ok(text);
    };
    Err(Error::malformed("envelope", fault))
}

pub(crate) fn encode(command: &Command<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(128);
    command.encode(&mut line);
    line
}

/// Whole milliseconds; the broker refuses what is beyond its limits.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn publish(exchange: Name<'_>, key: Name<'_>, envelope: &str) -> Vec<u8> {
    let names = exchange.as_str().len() + key.as_str().len();
    let mut line = Vec::with_capacity("publish   \n".len() + names + envelope.len());
    Command::Publish { exchange, key, envelope }.encode(&mut line);
    line
}

pub(crate) fn consume(queue: &QueueName, prefetch: u32) -> Vec<u8> {
    encode(&Command::Consume { queue: queue.name(), prefetch })
}

pub(crate) fn cancel(queue: &QueueName) -> Vec<u8> {
    encode(&Command::Cancel { queue: queue.name() })
}

pub(crate) fn release(id: &str, queue: &QueueName) -> Vec<u8> {
    encode(&Command::Release { id, queue: Some(queue.name()) })
}

pub(crate) fn ping() -> Vec<u8> {
    encode(&Command::Ping { text: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_caller_makes_a_second_line() {
        for text in ["{}\nquit", "{}\rquit", "quit", ""] {
            assert!(envelope(text).is_err(), "{text:?}");
        }
        for text in ["a\nquit", "a b", "", "a#"] {
            assert!(name("queue", text).is_err(), "{text:?}");
            assert!(message_id("a\nb").is_err());
        }
        assert!(envelope("{\"a\":\"b\"}").is_ok());
    }

    #[test]
    fn a_publish_line_fits_what_was_reserved_for_it() {
        let (exchange, key) = (Name::parse("e").unwrap(), Name::parse("key").unwrap());
        let line = publish(exchange, key, "{}");
        assert_eq!(line, b"publish e key {}\n");
        assert_eq!(line.len(), line.capacity());
    }
}
