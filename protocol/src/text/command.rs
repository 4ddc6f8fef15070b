//! Requests: one line to one [`Command`]. The way back is in `request.rs`.

use super::durability::{self, Durability};
use super::error::ParseError;
use super::fields::{Dialect, Fields};
use super::keys;
use crate::limits::{
    ATTEMPTS_MAX, DELAY_MS_MAX, LEASE_MS_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, PING_BYTES_MAX, PREFETCH_DEFAULT,
    PREFETCH_LEGACY, PREFETCH_MAX, SESSION_BYTES_MAX, VERSION,
};
use crate::name::{Name, NameKind};

/// A request, borrowed from its line.
///
/// ```
/// # use ciphermq_protocol::{Command, Dialect};
/// let command = Command::parse(b"fetch jobs lease=5000", Dialect::Modern)?;
/// assert!(matches!(command, Command::Fetch { lease_ms: Some(5000), .. }));
/// # Ok::<(), ciphermq_protocol::ParseError<'static>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "docs/protocol.md section 5 has each command with its arguments under the same names")]
pub enum Command<'a> {
    Hello {
        name: Option<Name<'a>>,
        session: Option<&'a str>,
    },
    DeclareQueue {
        queue: Name<'a>,
        options: QueueOptions<'a>,
    },
    DeclareExchange {
        exchange: Name<'a>,
    },
    Bind {
        exchange: Name<'a>,
        queue: Name<'a>,
        key: Name<'a>,
    },
    /// `bind` in legacy mode: which of the two is the exchange shows in what is declared.
    BindEitherWay {
        first: Name<'a>,
        second: Name<'a>,
        key: Name<'a>,
    },
    Unbind {
        exchange: Name<'a>,
        queue: Name<'a>,
        key: Name<'a>,
    },
    DeleteQueue {
        queue: Name<'a>,
        if_not_empty: IfNotEmpty,
    },
    DeleteExchange {
        exchange: Name<'a>,
    },
    Purge {
        queue: Name<'a>,
    },
    /// `envelope` is not looked into yet: [`Envelope::parse`](crate::Envelope::parse) does.
    Publish {
        exchange: Name<'a>,
        key: Name<'a>,
        envelope: &'a str,
    },
    /// `envelopes` is not looked into yet: [`parse_batch`](crate::parse_batch) does.
    PublishBatch {
        exchange: Name<'a>,
        key: Name<'a>,
        envelopes: &'a str,
    },
    /// `prefetch` has its default when the line does not say.
    Consume {
        queue: Name<'a>,
        prefetch: u32,
    },
    Cancel {
        queue: Name<'a>,
    },
    Fetch {
        queue: Name<'a>,
        lease_ms: Option<u64>,
    },
    /// `id` is legal in modern mode, any token in legacy mode.
    Ack {
        id: &'a str,
        queue: Option<Name<'a>>,
    },
    Nack {
        id: &'a str,
        queue: Option<Name<'a>>,
        delay_ms: Option<u64>,
    },
    Release {
        id: &'a str,
        queue: Option<Name<'a>>,
    },
    Reject {
        id: &'a str,
        queue: Option<Name<'a>>,
    },
    Touch {
        id: &'a str,
        queue: Option<Name<'a>>,
        lease_ms: Option<u64>,
    },
    Status {
        id: &'a str,
    },
    /// Makes the message ready again: the originals' command.
    Resend {
        id: &'a str,
    },
    /// `announcement` is base64 and not looked into yet: [`SignedAnnouncement::parse`](crate::SignedAnnouncement::parse) reads
    /// what it decodes to.
    AnnounceKey {
        client: Name<'a>,
        announcement: &'a str,
    },
    LookupKey {
        client: Name<'a>,
    },
    /// Announcements from the one numbered `from` on.
    KeyHistory {
        client: Name<'a>,
        from: u64,
        limit: u32,
    },
    /// The originals' unsigned keys, for whom the connection says it is. `key` is base64 and not looked into yet.
    RegisterPublicKey {
        key: &'a str,
    },
    GetPublicKey {
        client: Name<'a>,
    },
    /// The same with the client id said each time, as the originals did before.
    RegisterKey {
        client: Name<'a>,
        key: &'a str,
    },
    GetKey {
        client: Name<'a>,
    },
    ListQueues {
        page: Page<'a>,
    },
    ListExchanges {
        page: Page<'a>,
    },
    ListBindings {
        exchange: Option<Name<'a>>,
        page: Page<'a>,
    },
    Stats,
    ResetStats,
    Ping {
        text: Option<&'a str>,
    },
    Help {
        command: Option<&'a str>,
    },
    Quit,
}

/// What `declare_queue` asks for; `None` was not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueOptions<'a> {
    /// Lease of a delivery.
    pub lease_ms: Option<u64>,
    /// Deliveries of a message before it moves to the dead-letter queue; 0 is without limit.
    pub max_attempts: Option<u32>,
    /// Where rejected and worn-out messages go.
    pub dead_letter: Option<Name<'a>>,
    /// Messages held before publishes are refused; 0 is without limit.
    pub max_messages: Option<u64>,
    /// Envelope bytes held before publishes are refused; 0 is without limit.
    pub max_bytes: Option<u64>,
    /// What the ACK of a message waits for.
    pub durability: Option<Durability>,
}

/// What `delete_queue` does to a queue that holds messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfNotEmpty {
    /// Refuses.
    Refuse,
    /// Deletes them with it.
    Delete,
}

/// Which rows of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Rows behind this name only.
    pub after: Option<Name<'a>>,
    /// At most so many.
    pub limit: u32,
}

impl Default for Page<'_> {
    fn default() -> Self {
        Self { after: None, limit: LIST_LIMIT_DEFAULT }
    }
}

impl<'a> Command<'a> {
    /// Reads one line, as [`Decoder::next_line`](crate::Decoder::next_line) gives it.
    ///
    /// # Errors
    /// [`ParseError`] naming the exact fault. In legacy mode only the originals' commands and `hello` are known.
    pub fn parse(line: &'a [u8], dialect: Dialect) -> Result<Self, ParseError<'a>> {
        let line = std::str::from_utf8(line).map_err(|_| ParseError::BadUtf8)?;
        match dialect {
            Dialect::Legacy => legacy(line),
            Dialect::Modern => modern(line),
        }
    }
}

fn legacy(line: &str) -> Result<Command<'_>, ParseError<'_>> {
    let mut fields = Fields::new(line, Dialect::Legacy);
    let fields = &mut fields;
    match fields.verb() {
        "publish" => publish(fields),
        "ack" => Ok(Command::Ack { id: fields.id()?, queue: None }),
        "consume" => Ok(Command::Consume { queue: queue(fields)?, prefetch: PREFETCH_LEGACY }),
        "fetch" => Ok(Command::Fetch { queue: queue(fields)?, lease_ms: None }),
        "publish_batch" => publish_batch(fields),
        "declare_queue" => declare_queue(fields),
        "declare_exchange" => Ok(Command::DeclareExchange { exchange: exchange(fields)? }),
        "bind" => bind_either_way(fields),
        "stats" => Ok(Command::Stats),
        "reset_stats" => Ok(Command::ResetStats),
        "resend" => Ok(Command::Resend { id: fields.id()? }),
        "register_public_key" => Ok(Command::RegisterPublicKey { key: fields.required("public_key")? }),
        "get_public_key" => Ok(Command::GetPublicKey { client: keys::client(fields)? }),
        "register_key" => keys::register_key(fields),
        "get_key" => Ok(Command::GetKey { client: keys::client(fields)? }),
        "hello" => modern(line.trim_ascii()),
        verb => Err(ParseError::UnknownCommand { verb }),
    }
}

fn modern(line: &str) -> Result<Command<'_>, ParseError<'_>> {
    let mut fields = Fields::new(line, Dialect::Modern);
    let fields = &mut fields;
    match fields.verb() {
        "publish" => publish(fields),
        "ack" => settle(fields).map(|(id, queue)| Command::Ack { id, queue }),
        "nack" => nack(fields),
        "release" => settle(fields).map(|(id, queue)| Command::Release { id, queue }),
        "reject" => settle(fields).map(|(id, queue)| Command::Reject { id, queue }),
        "touch" => touch(fields),
        "fetch" => fetch(fields),
        "publish_batch" => publish_batch(fields),
        "consume" => consume(fields),
        "cancel" => last(Command::Cancel { queue: queue(fields)? }, fields),
        "hello" => hello(fields),
        "declare_queue" => declare_queue(fields),
        "declare_exchange" => last(Command::DeclareExchange { exchange: exchange(fields)? }, fields),
        "bind" => binding(fields).map(|(exchange, queue, key)| Command::Bind { exchange, queue, key }),
        "unbind" => binding(fields).map(|(exchange, queue, key)| Command::Unbind { exchange, queue, key }),
        "delete_queue" => delete_queue(fields),
        "delete_exchange" => last(Command::DeleteExchange { exchange: exchange(fields)? }, fields),
        "purge" => last(Command::Purge { queue: queue(fields)? }, fields),
        "status" => last(Command::Status { id: fields.id()? }, fields),
        "resend" => last(Command::Resend { id: fields.id()? }, fields),
        "announce_key" => keys::announce_key(fields),
        "lookup_key" => last(Command::LookupKey { client: keys::client(fields)? }, fields),
        "key_history" => keys::key_history(fields),
        "register_public_key" => last(Command::RegisterPublicKey { key: fields.required("public_key")? }, fields),
        "get_public_key" => last(Command::GetPublicKey { client: keys::client(fields)? }, fields),
        "register_key" => last(keys::register_key(fields)?, fields),
        "get_key" => last(Command::GetKey { client: keys::client(fields)? }, fields),
        "list_queues" => page(fields, NameKind::Queue).map(|page| Command::ListQueues { page }),
        "list_exchanges" => page(fields, NameKind::Exchange).map(|page| Command::ListExchanges { page }),
        "list_bindings" => list_bindings(fields),
        "stats" => last(Command::Stats, fields),
        "reset_stats" => last(Command::ResetStats, fields),
        "ping" => ping(fields),
        "help" => last(Command::Help { command: fields.token()? }, fields),
        "quit" => last(Command::Quit, fields),
        verb => Err(ParseError::UnknownCommand { verb }),
    }
}

fn last<'a>(command: Command<'a>, fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    fields.finish()?;
    Ok(command)
}

fn exchange<'a>(fields: &mut Fields<'a>) -> Result<Name<'a>, ParseError<'a>> {
    fields.name(NameKind::Exchange, "exchange")
}

fn queue<'a>(fields: &mut Fields<'a>) -> Result<Name<'a>, ParseError<'a>> {
    fields.name(NameKind::Queue, "queue")
}

fn key<'a>(fields: &mut Fields<'a>) -> Result<Name<'a>, ParseError<'a>> {
    fields.name(NameKind::Key, "key")
}

fn publish<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    Ok(Command::Publish { exchange: exchange(fields)?, key: key(fields)?, envelope: fields.json("envelope")? })
}

fn publish_batch<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    Ok(Command::PublishBatch { exchange: exchange(fields)?, key: key(fields)?, envelopes: fields.json("envelopes")? })
}

fn hello<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let version = fields.required("version")?;
    if version != VERSION {
        return Err(ParseError::BadVersion { version });
    }
    let (mut name, mut session) = (None, None);
    while let Some(option) = fields.option()? {
        match option.name {
            "name" => option.store(&mut name, option.to_name(NameKind::Client)?)?,
            "session" if is_session(option.value) => option.store(&mut session, option.value)?,
            "session" => return Err(option.expected("1 to 255 bytes of printable ASCII")),
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::Hello { name, session })
}

fn is_session(value: &str) -> bool {
    (1..=SESSION_BYTES_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn declare_queue<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let queue = queue(fields)?;
    let mut options = QueueOptions::default();
    while let Some(option) = fields.option()? {
        match option.name {
            "lease" => option.store(&mut options.lease_ms, option.number(1..=LEASE_MS_MAX)?)?,
            "max_attempts" => option.store(&mut options.max_attempts, option.number(0..=u64::from(ATTEMPTS_MAX))?)?,
            "dead_letter" => option.store(&mut options.dead_letter, option.to_name(NameKind::Queue)?)?,
            "max_messages" => option.store(&mut options.max_messages, option.number(0..=u64::MAX)?)?,
            "max_bytes" => option.store(&mut options.max_bytes, option.number(0..=u64::MAX)?)?,
            "durability" => {
                let asked = Durability::parse(option.value).map_err(|_| option.expected(durability::EXPECTED))?;
                option.store(&mut options.durability, asked)?;
            }
            _ => return Err(option.unknown()),
        }
    }
    if options.dead_letter.is_none() && !queue.has_dead_letter_room() {
        return Err(ParseError::BadName { kind: NameKind::QueueWithDlq, name: queue.as_str() });
    }
    Ok(Command::DeclareQueue { queue, options })
}

fn bind_either_way<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let first = fields.name(NameKind::Exchange, "exchange")?;
    let second = fields.name(NameKind::Queue, "queue")?;
    Ok(Command::BindEitherWay { first, second, key: key(fields)? })
}

fn binding<'a>(fields: &mut Fields<'a>) -> Result<(Name<'a>, Name<'a>, Name<'a>), ParseError<'a>> {
    let binding = (exchange(fields)?, queue(fields)?, key(fields)?);
    fields.finish()?;
    Ok(binding)
}

fn delete_queue<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let queue = queue(fields)?;
    let mut force = None;
    while let Some(option) = fields.option()? {
        match (option.name, option.value) {
            ("force", "yes") => option.store(&mut force, IfNotEmpty::Delete)?,
            ("force", _) => return Err(option.expected("yes, or left out")),
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::DeleteQueue { queue, if_not_empty: force.unwrap_or(IfNotEmpty::Refuse) })
}

fn consume<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let queue = queue(fields)?;
    let mut prefetch = None;
    while let Some(option) = fields.option()? {
        match option.name {
            "prefetch" => option.store(&mut prefetch, option.number(1..=u64::from(PREFETCH_MAX))?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::Consume { queue, prefetch: prefetch.unwrap_or(PREFETCH_DEFAULT) })
}

fn fetch<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let queue = queue(fields)?;
    let mut lease_ms = None;
    while let Some(option) = fields.option()? {
        match option.name {
            "lease" => option.store(&mut lease_ms, option.number(1..=LEASE_MS_MAX)?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::Fetch { queue, lease_ms })
}

fn settle<'a>(fields: &mut Fields<'a>) -> Result<(&'a str, Option<Name<'a>>), ParseError<'a>> {
    let id = fields.id()?;
    let mut queue = None;
    while let Some(option) = fields.option()? {
        match option.name {
            "queue" => option.store(&mut queue, option.to_name(NameKind::Queue)?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok((id, queue))
}

fn nack<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let id = fields.id()?;
    let (mut queue, mut delay_ms) = (None, None);
    while let Some(option) = fields.option()? {
        match option.name {
            "queue" => option.store(&mut queue, option.to_name(NameKind::Queue)?)?,
            "delay" => option.store(&mut delay_ms, option.number(0..=DELAY_MS_MAX)?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::Nack { id, queue, delay_ms })
}

fn touch<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let id = fields.id()?;
    let (mut queue, mut lease_ms) = (None, None);
    while let Some(option) = fields.option()? {
        match option.name {
            "queue" => option.store(&mut queue, option.to_name(NameKind::Queue)?)?,
            "lease" => option.store(&mut lease_ms, option.number(1..=LEASE_MS_MAX)?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::Touch { id, queue, lease_ms })
}

fn page<'a>(fields: &mut Fields<'a>, kind: NameKind) -> Result<Page<'a>, ParseError<'a>> {
    let (mut after, mut limit) = (None, None);
    while let Some(option) = fields.option()? {
        match option.name {
            "after" => option.store(&mut after, option.to_name(kind)?)?,
            "limit" => option.store(&mut limit, option.number(1..=u64::from(LIST_LIMIT_MAX))?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok(Page { after, limit: limit.unwrap_or(LIST_LIMIT_DEFAULT) })
}

fn list_bindings<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let (mut exchange, mut after, mut limit) = (None, None, None);
    while let Some(option) = fields.option()? {
        match option.name {
            "exchange" => option.store(&mut exchange, option.to_name(NameKind::Exchange)?)?,
            "after" => option.store(&mut after, option.to_name(NameKind::Exchange)?)?,
            "limit" => option.store(&mut limit, option.number(1..=u64::from(LIST_LIMIT_MAX))?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::ListBindings { exchange, page: Page { after, limit: limit.unwrap_or(LIST_LIMIT_DEFAULT) } })
}

fn ping<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let text = fields.token()?;
    if text.is_some_and(|text| text.len() > PING_BYTES_MAX || text.chars().any(char::is_control)) {
        return Err(ParseError::BadPing);
    }
    last(Command::Ping { text }, fields)
}
