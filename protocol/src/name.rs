//! Names and message ids that are legal by construction.

use std::fmt;

use crate::limits::{ID_BYTES_MAX, NAME_BYTES_MAX, QUEUE_NAME_BYTES_MAX};

/// The name of an exchange, queue or client, or a routing key: 1 to 255 bytes of `A-Z a-z 0-9 . _ - : /`.
///
/// ```
/// # use ciphermq_protocol::Name;
/// assert_eq!(Name::parse("orders.eu")?.as_str(), "orders.eu");
/// assert!(Name::parse("orders*").is_err());
/// # Ok::<(), ciphermq_protocol::BadName>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadName`] when it is empty, longer than 255 bytes, or holds another character.
    pub fn parse(text: &'a str) -> Result<Self, BadName> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX || !bytes.iter().all(|byte| is_name_byte(*byte)) {
            return Err(BadName);
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether `.dlq` can be appended: needed of a queue that has no `dead_letter=`.
    pub fn has_dead_letter_room(self) -> bool {
        self.0.len() <= QUEUE_NAME_BYTES_MAX
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A message id: 1 to 255 bytes of printable ASCII without space, `"`, `\` and `{`. Without `{`, the envelope of a
/// delivery is everything from the first `{` of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId<'a>(&'a str);

impl<'a> MessageId<'a> {
    /// Checks a message id.
    ///
    /// # Errors
    /// [`BadId`] when it is empty, longer than 255 bytes, or holds another character.
    pub fn parse(text: &'a str) -> Result<Self, BadId> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > ID_BYTES_MAX || !bytes.iter().all(|byte| is_id_byte(*byte)) {
            return Err(BadId);
        }
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for MessageId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What a name was meant to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameKind {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
    /// A queue declared without `dead_letter=`, which needs room for `.dlq`.
    QueueWithDlq,
    /// A routing key.
    Key,
    /// The name a client gives itself in `hello`.
    Client,
    /// The name somebody's keys are announced under.
    ClientId,
}

impl NameKind {
    /// The rule for names of this kind, as one sentence.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Exchange => "an exchange name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /",
            Self::Queue => "a queue name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /",
            Self::QueueWithDlq => "a queue name without dead_letter= is 1 to 251 bytes of A-Z a-z 0-9 . _ - : /",
            Self::Key => "a routing key is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /",
            Self::Client => "a client name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /",
            Self::ClientId => "a client id is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /",
        }
    }
}

/// The text is no legal name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /")]
pub struct BadName;

/// The text is no legal message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id is 1 to 255 bytes of printable ASCII without space, \", \\ and {{")]
pub struct BadId;

fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' | b'/')
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_only_the_bytes_of_the_contract() {
        for byte in 0..=255u8 {
            let text = char::from(byte).to_string();
            let legal = byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
            assert_eq!(Name::parse(&text).is_ok(), legal, "byte {byte:#04x}");
        }
    }

    #[test]
    fn an_id_holds_only_the_bytes_of_the_contract() {
        for byte in 0..=255u8 {
            let text = char::from(byte).to_string();
            let legal = (0x21..=0x7e).contains(&byte) && ![0x22, 0x5c, 0x7b].contains(&byte);
            assert_eq!(MessageId::parse(&text).is_ok(), legal, "byte {byte:#04x}");
        }
    }

    #[test]
    fn lengths_end_where_the_contract_says() {
        assert!(Name::parse("").is_err());
        assert!(Name::parse(&"n".repeat(255)).is_ok());
        assert!(Name::parse(&"n".repeat(256)).is_err());
        assert!(MessageId::parse("").is_err());
        assert!(MessageId::parse(&"i".repeat(255)).is_ok());
        assert!(MessageId::parse(&"i".repeat(256)).is_err());
    }

    #[test]
    fn a_name_of_251_bytes_leaves_room_for_the_suffix() {
        assert!(Name::parse(&"n".repeat(251)).unwrap().has_dead_letter_room());
        assert!(!Name::parse(&"n".repeat(252)).unwrap().has_dead_letter_room());
    }
}
