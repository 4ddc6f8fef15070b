//! What can be wrong with a request, its stable code, and its text in both modes.

use std::borrow::Cow;
use std::fmt;

use crate::limits::{ECHO_BYTES_MAX, PING_BYTES_MAX, VERSION};
use crate::name::{BadId, NameKind};

/// The stable word of an error or of a `Closing:` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// No such command.
    UnknownCommand,
    /// An argument is missing.
    MissingArgument,
    /// An argument too many, or not a number, or out of range.
    BadArgument,
    /// An unknown, repeated or unreadable option.
    BadOption,
    /// A name or key against the rules.
    BadName,
    /// A message id against the rules.
    BadId,
    /// No valid envelope.
    BadEnvelope,
    /// No valid announcement of a key.
    BadAnnouncement,
    /// An announcement its identity has not signed.
    BadSignature,
    /// An unsigned key that is no base64, empty or too long.
    BadKey,
    /// The line is not UTF-8.
    BadUtf8,
    /// `hello` with another version.
    BadVersion,
    /// Longer than `max_line`.
    LineTooLong,
    /// No such exchange, queue, binding, subscription, message, announcement.
    NotFound,
    /// No queue bound with that key.
    NoRoute,
    /// This connection holds no lease on that id.
    NotLeased,
    /// Not possible here.
    NotAllowed,
    /// The queue holds messages.
    NotEmpty,
    /// Exists with other options.
    Conflict,
    /// The bound of a queue is reached.
    QueueFull,
    /// The broker's store limit is reached.
    StoreFull,
    /// The disk has no room for it.
    DiskFull,
    /// A stated maximum is reached.
    Limit,
    /// The journal failed.
    Storage,
    /// The server is stopping.
    ShuttingDown,
    /// Another connection took over the session of this one.
    TakenOver,
    /// The client did not read what was sent to it.
    SlowReader,
    /// A word this version does not know, from a newer server. The error's text holds it.
    Other,
}

impl Code {
    /// Every code this version knows.
    pub const ALL: [Self; 27] = [
        Self::UnknownCommand,
        Self::MissingArgument,
        Self::BadArgument,
        Self::BadOption,
        Self::BadName,
        Self::BadId,
        Self::BadEnvelope,
        Self::BadAnnouncement,
        Self::BadSignature,
        Self::BadKey,
        Self::BadUtf8,
        Self::BadVersion,
        Self::LineTooLong,
        Self::NotFound,
        Self::NoRoute,
        Self::NotLeased,
        Self::NotAllowed,
        Self::NotEmpty,
        Self::Conflict,
        Self::QueueFull,
        Self::StoreFull,
        Self::DiskFull,
        Self::Limit,
        Self::Storage,
        Self::ShuttingDown,
        Self::TakenOver,
        Self::SlowReader,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownCommand => "UNKNOWN_COMMAND",
            Self::MissingArgument => "MISSING_ARGUMENT",
            Self::BadArgument => "BAD_ARGUMENT",
            Self::BadOption => "BAD_OPTION",
            Self::BadName => "BAD_NAME",
            Self::BadId => "BAD_ID",
            Self::BadEnvelope => "BAD_ENVELOPE",
            Self::BadAnnouncement => "BAD_ANNOUNCEMENT",
            Self::BadSignature => "BAD_SIGNATURE",
            Self::BadKey => "BAD_KEY",
            Self::BadUtf8 => "BAD_UTF8",
            Self::BadVersion => "BAD_VERSION",
            Self::LineTooLong => "LINE_TOO_LONG",
            Self::NotFound => "NOT_FOUND",
            Self::NoRoute => "NO_ROUTE",
            Self::NotLeased => "NOT_LEASED",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotEmpty => "NOT_EMPTY",
            Self::Conflict => "CONFLICT",
            Self::QueueFull => "QUEUE_FULL",
            Self::StoreFull => "STORE_FULL",
            Self::DiskFull => "DISK_FULL",
            Self::Limit => "LIMIT",
            Self::Storage => "STORAGE",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::TakenOver => "TAKEN_OVER",
            Self::SlowReader => "SLOW_READER",
            Self::Other => "OTHER",
        }
    }

    /// The code a word stands for, if this version knows it.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with a request line. `Display` is the text after the code in modern mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError<'a> {
    /// The line is not UTF-8.
    #[error("the line is not UTF-8")]
    BadUtf8,
    /// No command of this name in this mode.
    #[error("'{}'; try help", Echo(.verb))]
    UnknownCommand {
        /// The first word of the line.
        verb: &'a str,
    },
    /// The line ends too early.
    #[error("{argument}")]
    MissingArgument {
        /// The command.
        verb: &'a str,
        /// What should have come next.
        argument: &'static str,
    },
    /// A token no argument or option is left for.
    #[error("unexpected '{}'", Echo(.token))]
    Unexpected {
        /// The token.
        token: &'a str,
    },
    /// Two spaces in a row, or one at the end.
    #[error("tokens are separated by single spaces")]
    Spacing,
    /// The text of `ping` is too long or holds control characters.
    #[error("the text of ping is at most {PING_BYTES_MAX} bytes without spaces and control characters")]
    BadPing,
    /// Something is wrong with an option.
    #[error("{0}")]
    BadOption(BadOption<'a>),
    /// A name or key against the rules.
    #[error("{}", .kind.rule())]
    BadName {
        /// What it should have named.
        kind: NameKind,
        /// The text that is no name.
        name: &'a str,
    },
    /// A message id against the rules.
    #[error("{}", BadId)]
    BadId {
        /// The text that is no id.
        id: &'a str,
    },
    /// `hello` asks for a version we do not speak.
    #[error("this server speaks version {VERSION}")]
    BadVersion {
        /// The version asked for.
        version: &'a str,
    },
}

impl ParseError<'_> {
    /// The stable code of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::BadUtf8 => Code::BadUtf8,
            Self::UnknownCommand { .. } => Code::UnknownCommand,
            Self::MissingArgument { .. } => Code::MissingArgument,
            Self::Unexpected { .. } | Self::Spacing | Self::BadPing => Code::BadArgument,
            Self::BadOption(_) => Code::BadOption,
            Self::BadName { .. } => Code::BadName,
            Self::BadId { .. } => Code::BadId,
            Self::BadVersion { .. } => Code::BadVersion,
        }
    }

    /// The whole reply of legacy mode, without LF: the originals' own text where they have one.
    ///
    /// An error in `hello` keeps its modern form: only clients that know it send `hello`.
    pub fn legacy_text(&self) -> Cow<'static, str> {
        match self {
            Self::BadUtf8 => "Error: Invalid UTF-8".into(),
            Self::UnknownCommand { .. } => "Unknown command".into(),
            Self::MissingArgument { verb: "declare_queue" | "consume" | "fetch", .. } => "Missing queue name".into(),
            Self::MissingArgument { verb: "declare_exchange", .. } => "Missing exchange name".into(),
            Self::MissingArgument { verb: "ack" | "resend", .. } => "Missing message ID".into(),
            Self::MissingArgument { verb: "register_public_key", .. } => "Missing public key".into(),
            Self::MissingArgument { verb: "register_key", .. } => "Missing client ID or public key".into(),
            Self::MissingArgument { verb: "get_public_key" | "get_key", .. } => "Missing client ID".into(),
            Self::MissingArgument { verb: "bind" | "publish" | "publish_batch", .. } => "Missing parameters".into(),
            Self::BadName { kind, name } if *kind != NameKind::Client => {
                format!("Error: Invalid name '{}'", Echo(name)).into()
            }
            in_hello => format!("Error: {} {in_hello}", in_hello.code()).into(),
        }
    }
}

/// What is wrong with a `name=value` token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadOption<'a> {
    /// The command has no such option.
    #[error("unknown option '{}'", Echo(.name))]
    Unknown {
        /// Its name.
        name: &'a str,
    },
    /// It was given before.
    #[error("option '{name}' stands twice")]
    Repeated {
        /// Its name.
        name: &'a str,
    },
    /// Not a number, or out of range.
    #[error("{name} is a number from {min} to {max}")]
    Number {
        /// Its name.
        name: &'a str,
        /// Lowest value.
        min: u64,
        /// Highest value.
        max: u64,
    },
    /// Not one of the words it can be.
    #[error("{name} is {expected}")]
    Word {
        /// Its name.
        name: &'a str,
        /// What it can be.
        expected: &'static str,
    },
}

/// Text of a peer made fit to repeat: cut to [`ECHO_BYTES_MAX`], everything but printable ASCII escaped.
///
/// ```
/// # use ciphermq_protocol::Echo;
/// assert_eq!(Echo("a\tü").to_string(), "a\\t\\u{fc}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Echo<'a>(pub &'a str);

impl fmt::Display for Echo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = cut(self.0, ECHO_BYTES_MAX);
        for char in cut.chars() {
            match char {
                ' '..='~' => fmt::Write::write_char(f, char)?,
                _ => fmt::Display::fmt(&char.escape_default(), f)?,
            }
        }
        if cut.len() < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}

/// The longest beginning of `text` of at most `bytes_max` bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
