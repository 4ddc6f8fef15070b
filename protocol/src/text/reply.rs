//! What a server sends: the server writes it, the client reads it.

use std::fmt;

use super::envelope::one_line;
use super::error::Code;
use super::fields::{Field, decimal, split_space};
use super::write::{display, field, number, number_field, text};
use crate::limits::VERSION;

/// Any line a server sends in modern mode.
///
/// ```
/// # use ciphermq_protocol::{Reply, ServerLine};
/// assert_eq!(ServerLine::parse(b"ACK 7d1f")?, ServerLine::Reply(Reply::Ack("7d1f")));
/// # Ok::<(), ciphermq_protocol::BadServerLine>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerLine<'a> {
    /// The answer to the oldest request that has none yet.
    Reply(Reply<'a>),
    /// Sent without a request.
    Push(Push<'a>),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "docs/protocol.md section 5 has the line of each; strings of JSON go through unread")]
pub enum Reply<'a> {
    Hello(HelloReply<'a>),
    QueueDeclared,
    ExchangeDeclared,
    QueueBound,
    QueueUnbound,
    QueueDeleted,
    ExchangeDeleted,
    Purged(u64),
    Ack(&'a str),
    AckConfirmed(&'a str),
    NackConfirmed(&'a str),
    ReleaseConfirmed(&'a str),
    RejectConfirmed(&'a str),
    TouchConfirmed(&'a str),
    Subscribed,
    ConsumerCancelled,
    Fetched(Delivery<'a>),
    NoMessages,
    Status(&'a str),
    ResendRequested,
    KeyAnnounced,
    Key(&'a str),
    Keys(&'a str),
    KeyRegistered,
    PublicKey(&'a str),
    Queues(&'a str),
    Exchanges(&'a str),
    Bindings(&'a str),
    Stats(&'a str),
    StatsReset,
    Pong(Option<&'a str>),
    Help(&'a str),
    Bye,
    /// With [`Code::Other`], `text` is everything after `Error: `.
    Error {
        code: Code,
        text: &'a str,
    },
}

/// A line sent without a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Push<'a> {
    /// A delivery to a subscription.
    Message(Delivery<'a>),
    /// A subscription is over.
    Cancelled {
        /// The queue that was consumed.
        queue: &'a str,
        /// Why, in a word: `deleted`.
        reason: &'a str,
    },
    /// The server is about to close this connection.
    Closing {
        /// Why. With [`Code::Other`], `text` is everything after `Closing: `.
        code: Code,
        /// Why, for people.
        text: &'a str,
    },
}

/// What the server says of itself after `hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloReply<'a> {
    /// Name and version of the server: `ciphermq/0.1.0`.
    pub server: &'a str,
    /// The session, to be named when the client comes back.
    pub session: &'a str,
    /// The broker's lease.
    pub lease_ms: u64,
    /// Bytes of the longest line it reads, LF included.
    pub max_line: u64,
    /// Requests it reads ahead of its replies.
    pub max_pending: u64,
    /// Highest credit of a subscription.
    pub max_prefetch: u64,
}

/// A message leased to this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The message's id.
    pub id: &'a str,
    /// The queue it came from.
    pub queue: &'a str,
    /// Which delivery this is, counting those that used up an attempt.
    pub attempt: u32,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The key it was published with.
    pub key: &'a str,
    /// When the broker took it, in milliseconds since 1970.
    pub published_ms: u64,
    /// Set in a dead-letter queue.
    pub dead_letter: Option<DeadLetter<'a>>,
    /// The envelope, byte for byte as published.
    pub envelope: &'a str,
}

/// Where a dead-lettered message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The queue it was in.
    pub from: &'a str,
    /// Why it left.
    pub reason: Reason,
}

/// Why a message was moved to a dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A consumer rejected it.
    Rejected,
    /// It was delivered as often as its queue allows.
    Attempts,
    /// Its line is longer than a legacy receiver can read.
    TooLong,
    /// A word this version does not know.
    Unknown,
}

impl Reason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Attempts => "attempts",
            Self::TooLong => "too-long",
            Self::Unknown => "unknown",
        }
    }

    fn parse(word: &str) -> Self {
        [Self::Rejected, Self::Attempts, Self::TooLong]
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .unwrap_or(Self::Unknown)
    }
}

impl<'a> ServerLine<'a> {
    /// Reads one line, as [`Decoder::next_line`](crate::Decoder::next_line) gives it.
    ///
    /// # Errors
    /// [`BadServerLine`] when this is no line of the protocol.
    pub fn parse(line: &'a [u8]) -> Result<Self, BadServerLine> {
        let line = std::str::from_utf8(line).map_err(|_| BadServerLine("not UTF-8"))?;
        let (word, rest) = split_space(line);
        let rest = rest.unwrap_or_default();
        let reply = match (word, rest) {
            ("Message:", rest) => return Ok(Self::Push(Push::Message(Delivery::parse(rest)?))),
            ("Cancelled:", rest) => return Ok(Self::Push(parse_cancelled(rest)?)),
            ("Closing:", rest) => {
                let (code, text) = parse_code(rest);
                return Ok(Self::Push(Push::Closing { code, text }));
            }
            ("ACK", id) => Reply::Ack(parse_id(id)?),
            ("ACK_CONFIRMED", id) => Reply::AckConfirmed(parse_id(id)?),
            ("NACK_CONFIRMED", id) => Reply::NackConfirmed(parse_id(id)?),
            ("RELEASE_CONFIRMED", id) => Reply::ReleaseConfirmed(parse_id(id)?),
            ("REJECT_CONFIRMED", id) => Reply::RejectConfirmed(parse_id(id)?),
            ("TOUCH_CONFIRMED", id) => Reply::TouchConfirmed(parse_id(id)?),
            ("Error:", rest) => {
                let (code, text) = parse_code(rest);
                Reply::Error { code, text }
            }
            ("Fetched:", rest) => Reply::Fetched(Delivery::parse(rest)?),
            ("No", "messages") => Reply::NoMessages,
            ("Hello", rest) => Reply::Hello(HelloReply::parse(rest)?),
            ("Subscribed", "to queue") => Reply::Subscribed,
            ("Consumer", "cancelled") => Reply::ConsumerCancelled,
            ("Queue", "declared") => Reply::QueueDeclared,
            ("Queue", "bound") => Reply::QueueBound,
            ("Queue", "unbound") => Reply::QueueUnbound,
            ("Queue", "deleted") => Reply::QueueDeleted,
            ("Exchange", "declared") => Reply::ExchangeDeclared,
            ("Exchange", "deleted") => Reply::ExchangeDeleted,
            ("Purged", count) => Reply::Purged(decimal(count).ok_or(BadServerLine("Purged without a number"))?),
            ("Status:", json) => Reply::Status(json),
            ("Resend", "requested") => Reply::ResendRequested,
            ("Key", "announced") => Reply::KeyAnnounced,
            ("Key:", json) => Reply::Key(json),
            ("Keys:", json) => Reply::Keys(json),
            ("Public", "key registered") => Reply::KeyRegistered,
            ("Public", rest) => Reply::PublicKey(rest.strip_prefix("key: ").ok_or(BadServerLine("unknown reply"))?),
            ("Queues:", json) => Reply::Queues(json),
            ("Exchanges:", json) => Reply::Exchanges(json),
            ("Bindings:", json) => Reply::Bindings(json),
            ("Stats:", json) => Reply::Stats(json),
            ("Stats", "reset") => Reply::StatsReset,
            ("Pong", "") => Reply::Pong(None),
            ("Pong", text) => Reply::Pong(Some(text)),
            ("Help:", text) => Reply::Help(text),
            ("Bye", "") => Reply::Bye,
            _ => return Err(BadServerLine("unknown reply")),
        };
        Ok(Self::Reply(reply))
    }

    /// Appends the line, LF included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Reply(reply) => reply.encode(out),
            Self::Push(push) => push.encode(out),
        }
    }
}

impl Reply<'_> {
    /// Appends the line, LF included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ack(id) => word_and(out, "ACK ", id),
            Self::AckConfirmed(id) => word_and(out, "ACK_CONFIRMED ", id),
            Self::NackConfirmed(id) => word_and(out, "NACK_CONFIRMED ", id),
            Self::ReleaseConfirmed(id) => word_and(out, "RELEASE_CONFIRMED ", id),
            Self::RejectConfirmed(id) => word_and(out, "REJECT_CONFIRMED ", id),
            Self::TouchConfirmed(id) => word_and(out, "TOUCH_CONFIRMED ", id),
            Self::Fetched(delivery) => {
                text(out, "Fetched: ");
                delivery.encode(out);
            }
            Self::Hello(hello) => hello.encode(out),
            Self::QueueDeclared => text(out, "Queue declared"),
            Self::ExchangeDeclared => text(out, "Exchange declared"),
            Self::QueueBound => text(out, "Queue bound"),
            Self::QueueUnbound => text(out, "Queue unbound"),
            Self::QueueDeleted => text(out, "Queue deleted"),
            Self::ExchangeDeleted => text(out, "Exchange deleted"),
            Self::Purged(count) => {
                text(out, "Purged ");
                number(out, *count);
            }
            Self::Subscribed => text(out, "Subscribed to queue"),
            Self::ConsumerCancelled => text(out, "Consumer cancelled"),
            Self::NoMessages => text(out, "No messages"),
            Self::Status(json) => word_and(out, "Status: ", json),
            Self::ResendRequested => text(out, "Resend requested"),
            Self::KeyAnnounced => text(out, "Key announced"),
            Self::Key(json) => word_and(out, "Key: ", json),
            Self::Keys(json) => word_and(out, "Keys: ", json),
            Self::KeyRegistered => text(out, "Public key registered"),
            Self::PublicKey(key) => word_and(out, "Public key: ", key),
            Self::Queues(json) => word_and(out, "Queues: ", json),
            Self::Exchanges(json) => word_and(out, "Exchanges: ", json),
            Self::Bindings(json) => word_and(out, "Bindings: ", json),
            Self::Stats(json) => word_and(out, "Stats: ", json),
            Self::StatsReset => text(out, "Stats reset"),
            Self::Pong(None) => text(out, "Pong"),
            Self::Pong(Some(echo)) => word_and(out, "Pong ", echo),
            Self::Help(help) => word_and(out, "Help: ", help),
            Self::Bye => text(out, "Bye"),
            Self::Error { code, text } => coded(out, "Error:", *code, text),
        }
        out.push(b'\n');
    }

    /// Appends an error whose text is put together on the spot: `Error: <CODE> <text>` and LF.
    ///
    /// ```
    /// # use ciphermq_protocol::{Code, Reply};
    /// let mut out = Vec::new();
    /// Reply::encode_error(&mut out, Code::NotFound, &format_args!("queue '{}'", "jobs"));
    /// assert_eq!(out, b"Error: NOT_FOUND queue 'jobs'\n");
    /// ```
    pub fn encode_error(out: &mut Vec<u8>, code: Code, text: &dyn fmt::Display) {
        Reply::Error { code, text: &text.to_string() }.encode(out);
    }
}

impl Push<'_> {
    /// Appends the line, LF included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(delivery) => {
                text(out, "Message: ");
                delivery.encode(out);
            }
            Self::Cancelled { queue, reason } => {
                word_and(out, "Cancelled: ", queue);
                out.push(b' ');
                text(out, reason);
            }
            Self::Closing { code, text } => coded(out, "Closing:", *code, text),
        }
        out.push(b'\n');
    }
}

impl<'a> Delivery<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(DELIVERY_FIELDS_BYTES + self.envelope.len());
        text(out, self.id);
        field(out, "queue", self.queue);
        number_field(out, "attempt", u64::from(self.attempt));
        field(out, "exchange", self.exchange);
        field(out, "key", self.key);
        number_field(out, "published", self.published_ms);
        if let Some(dead_letter) = self.dead_letter {
            field(out, "from", dead_letter.from);
            field(out, "reason", dead_letter.reason.as_str());
        }
        out.push(b' ');
        text(out, self.envelope);
    }

    /// Fields end at the first token that starts with `{`; an id may hold a brace.
    fn parse(text: &'a str) -> Result<Self, BadServerLine> {
        let (id, rest) = split_space(text);
        let mut rest = rest.ok_or(NO_ENVELOPE)?;
        let mut named = DeliveryFields::default();
        while !rest.starts_with('{') {
            let (token, after) = split_space(rest);
            named.set(Field::split(token).ok_or(BadServerLine("a delivery's field is no field"))?);
            rest = after.ok_or(NO_ENVELOPE)?;
        }
        named.delivery(parse_id(id)?, rest).ok_or(BadServerLine("a delivery's field is missing or no number"))
    }
}

/// Room for a delivery's fields in most cases; a hint, names may be longer.
const DELIVERY_FIELDS_BYTES: usize = 192;

const NO_ENVELOPE: BadServerLine = BadServerLine("a delivery without an envelope");

#[derive(Default)]
struct DeliveryFields<'a> {
    queue: Option<&'a str>,
    attempt: Option<u32>,
    exchange: Option<&'a str>,
    key: Option<&'a str>,
    published_ms: Option<u64>,
    from: Option<&'a str>,
    reason: Option<Reason>,
}

impl<'a> DeliveryFields<'a> {
    fn set(&mut self, Field { name, value }: Field<'a>) {
        match name {
            "queue" => self.queue = Some(value),
            "attempt" => self.attempt = decimal(value).and_then(|attempt| attempt.try_into().ok()),
            "exchange" => self.exchange = Some(value),
            "key" => self.key = Some(value),
            "published" => self.published_ms = decimal(value),
            "from" => self.from = Some(value),
            "reason" => self.reason = Some(Reason::parse(value)),
            _ => {}
        }
    }

    fn delivery(self, id: &'a str, envelope: &'a str) -> Option<Delivery<'a>> {
        Some(Delivery {
            id,
            queue: self.queue?,
            attempt: self.attempt?,
            exchange: self.exchange?,
            key: self.key?,
            published_ms: self.published_ms?,
            dead_letter: self.from.zip(self.reason).map(|(from, reason)| DeadLetter { from, reason }),
            envelope,
        })
    }
}

impl<'a> HelloReply<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        word_and(out, "Hello ", VERSION);
        field(out, "server", self.server);
        field(out, "session", self.session);
        number_field(out, "lease", self.lease_ms);
        number_field(out, "max_line", self.max_line);
        number_field(out, "max_pending", self.max_pending);
        number_field(out, "max_prefetch", self.max_prefetch);
    }

    fn parse(text: &'a str) -> Result<Self, BadServerLine> {
        let mut tokens = text.split(' ');
        if tokens.next() != Some(VERSION) {
            return Err(BadServerLine("another protocol version"));
        }
        let (mut server, mut session) = (None, None);
        let (mut lease_ms, mut max_line, mut max_pending, mut max_prefetch) = (None, None, None, None);
        for Field { name, value } in tokens.filter_map(Field::split) {
            match name {
                "server" => server = Some(value),
                "session" => session = Some(value),
                "lease" => lease_ms = decimal(value),
                "max_line" => max_line = decimal(value),
                "max_pending" => max_pending = decimal(value),
                "max_prefetch" => max_prefetch = decimal(value),
                _ => {}
            }
        }
        const MISSING: BadServerLine = BadServerLine("a field of Hello is missing or no number");
        Ok(Self {
            server: server.ok_or(MISSING)?,
            session: session.ok_or(MISSING)?,
            lease_ms: lease_ms.ok_or(MISSING)?,
            max_line: max_line.ok_or(MISSING)?,
            max_pending: max_pending.ok_or(MISSING)?,
            max_prefetch: max_prefetch.ok_or(MISSING)?,
        })
    }
}

/// A line that is not in the protocol: the peer is no CipherMQ server, or a stranger stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line of the protocol: {0}")]
pub struct BadServerLine(&'static str);

fn parse_id(id: &str) -> Result<&str, BadServerLine> {
    if id.is_empty() || id.contains(' ') { Err(BadServerLine("not one id")) } else { Ok(id) }
}

fn parse_cancelled(rest: &str) -> Result<Push<'_>, BadServerLine> {
    match split_space(rest) {
        (queue, Some(reason)) if !queue.is_empty() => Ok(Push::Cancelled { queue, reason }),
        _ => Err(BadServerLine("Cancelled without a queue and a reason")),
    }
}

fn parse_code(rest: &str) -> (Code, &str) {
    let (word, text) = split_space(rest);
    match Code::parse(word) {
        Some(code) => (code, text.unwrap_or_default()),
        None => (Code::Other, rest),
    }
}

fn word_and(out: &mut Vec<u8>, word: &str, rest: &str) {
    text(out, word);
    text(out, rest);
}

fn coded(out: &mut Vec<u8>, word: &str, code: Code, reason: &str) {
    let reason = one_line(reason);
    match code {
        Code::Other => display(out, &format_args!("{word} {reason}")),
        _ => display(out, &format_args!("{word} {code} {reason}")),
    }
}
