//! One arm for each command: what it asks of the broker and what it answers.

use ciphermq_broker::{Error, Publish, QueueOptions, Returned, SessionId, Settle, Timestamp};
use ciphermq_protocol::text::help;
use ciphermq_protocol::text::legacy::LegacyReply;
use ciphermq_protocol::{
    self as protocol, Code, Command, Dialect, Echo, Envelope, HelloReply, IfNotEmpty, MessageId, Name, Page,
    ParseError, Reply, parse_batch,
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::answers::{StatsAnswer, StatusAnswer, json};
use super::keys::Registration;
use super::refusal;
use super::replies::Kind;
use super::text::{Change, Mode, TextSession, Then, wire};
use crate::config::journal_durability;
use crate::counters::Verb;

/// How servers and clients of this version introduce themselves.
const SERVER: &str = concat!("ciphermq/", env!("CARGO_PKG_VERSION"));

impl TextSession {
    /// Does one request, or defers it.
    pub(super) fn request(&mut self, line: &[u8], now: Timestamp) {
        let command = match Command::parse(line, self.dialect()) {
            Ok(command) => command,
            Err(error) => return self.bad_request(&error),
        };
        match command {
            Command::Publish { exchange, key, envelope } => self.publish(exchange, key, envelope, now),
            Command::PublishBatch { exchange, key, envelopes } => self.publish_batch(exchange, key, envelopes, now),
            Command::Ack { id, queue } => self.ack(id, queue, line, now),
            Command::Nack { id, queue, delay_ms } => {
                let how = Settle::Nack { delay_ms: delay_ms.unwrap_or(0) };
                self.settle(id, queue, how, &Reply::NackConfirmed(id), now);
            }
            Command::Release { id, queue } => {
                self.settle(id, queue, Settle::Release, &Reply::ReleaseConfirmed(id), now);
            }
            Command::Reject { id, queue } => {
                let how = Settle::Reject(ciphermq_broker::Reason::Rejected);
                self.settle(id, queue, how, &Reply::RejectConfirmed(id), now);
            }
            Command::Touch { id, queue, lease_ms } => {
                self.settle(id, queue, Settle::Touch { lease_ms }, &Reply::TouchConfirmed(id), now);
            }
            // Everything else sees and changes more than one message: it waits for what came before it.
            other => {
                if self.is_turn_of(line) {
                    self.control(other, line, now);
                }
            }
        }
    }

    fn control(&mut self, command: Command<'_>, line: &[u8], now: Timestamp) {
        self.tally.count(verb(&command));
        match command {
            Command::Hello { name, session } => self.hello(name, session, now),
            Command::DeclareQueue { queue, options } => {
                let changed = self.link.declare_queue(queue.as_str(), &queue_options(options), now);
                self.changed(changed, Then::Reply(Reply::QueueDeclared), now);
            }
            Command::DeclareExchange { exchange } => {
                let changed = self.link.declare_exchange(exchange.as_str(), now);
                self.changed(changed, Then::Reply(Reply::ExchangeDeclared), now);
            }
            Command::Bind { exchange, queue, key } => {
                let changed = self.link.bind(exchange.as_str(), queue.as_str(), key.as_str(), now);
                self.changed(changed, Then::Reply(Reply::QueueBound), now);
            }
            Command::BindEitherWay { first, second, key } => self.bind_either_way(first, second, key, now),
            Command::Unbind { exchange, queue, key } => {
                let changed = self.link.unbind(exchange.as_str(), queue.as_str(), key.as_str(), now);
                self.changed(changed, Then::Reply(Reply::QueueUnbound), now);
            }
            Command::DeleteQueue { queue, if_not_empty } => {
                let changed = self.link.delete_queue(queue.as_str(), if_not_empty == IfNotEmpty::Delete, now);
                self.changed(changed, Then::Reply(Reply::QueueDeleted), now);
            }
            Command::DeleteExchange { exchange } => {
                let changed = self.link.delete_exchange(exchange.as_str(), now);
                self.changed(changed, Then::Reply(Reply::ExchangeDeleted), now);
            }
            Command::Purge { queue } => {
                let changed = self.link.purge(queue.as_str(), now);
                self.changed(changed, Then::Purged, now);
            }
            Command::Consume { queue, prefetch } => self.consume(queue, prefetch, line, now),
            Command::Cancel { queue } => match self.link.cancel(queue.as_str(), now) {
                Ok(()) => self.reply(&Reply::ConsumerCancelled),
                Err(error) => self.refuse(&error),
            },
            Command::Fetch { queue, lease_ms } => self.fetch(queue, lease_ms, now),
            Command::Status { id } => match self.link.status(id) {
                Ok(copies) => self.reply(&Reply::Status(&json(&StatusAnswer { message_id: id, copies }))),
                Err(error) => self.refuse(&error),
            },
            Command::Resend { id } => self.resend(id, now),
            Command::AnnounceKey { client, announcement } => self.announce_key(client, announcement, now),
            Command::LookupKey { client } => self.lookup_key(client),
            Command::KeyHistory { client, from, limit } => self.key_history(client, from, limit),
            Command::RegisterPublicKey { key } => self.register_key(None, key, now),
            Command::RegisterKey { client, key } => self.register_key(Some(client), key, now),
            Command::GetPublicKey { client } => self.unsigned_key(client, Registration::Own),
            Command::GetKey { client } => self.unsigned_key(client, Registration::Named),
            Command::ListQueues { page } => {
                let queues = self.link.list_queues(after(page), limit(page));
                self.reply(&Reply::Queues(&json(&queues)));
            }
            Command::ListExchanges { page } => {
                let exchanges = self.link.list_exchanges(after(page), limit(page));
                self.reply(&Reply::Exchanges(&json(&exchanges)));
            }
            Command::ListBindings { exchange, page } => {
                let bindings = self.link.list_bindings(exchange.map(Name::as_str), after(page), limit(page));
                self.reply(&Reply::Bindings(&json(&bindings)));
            }
            Command::Stats => self.reply(&Reply::Stats(&json(&StatsAnswer::new(&self.link, &self.context)))),
            Command::ResetStats => {
                self.link.reset_stats();
                self.context.counters.reset_times();
                self.reply(&Reply::StatsReset);
            }
            Command::Ping { text } => self.reply(&Reply::Pong(text)),
            Command::Help { command: None } => self.reply(&Reply::Help(&help::list())),
            Command::Help { command: Some(command) } => match help::explain(command) {
                Some(text) => self.reply(&Reply::Help(&text)),
                None => self.error(Code::NotFound, &format_args!("command '{}'", Echo(command))),
            },
            Command::Quit => {
                self.reply(&Reply::Bye);
                self.end();
            }
            // The protocol crate may learn commands before this does.
            _ => self.error(Code::UnknownCommand, &"not known to this server; try help"),
        }
    }

    fn hello(&mut self, name: Option<Name<'_>>, session: Option<&str>, now: Timestamp) {
        match self.mode {
            Mode::Modern => return self.error(Code::NotAllowed, &"hello was already sent"),
            Mode::Legacy(_) if self.link.is_consumer() => {
                return self.error(Code::NotAllowed, &"hello comes before consume");
            }
            Mode::Legacy(_) => {}
        }
        self.mode = Mode::Modern;
        self.client = name.map(|name| Box::from(name.as_str()));
        let session = self.link.open_session(session.and_then(SessionId::parse), now);
        info!(connection = self.link.id().0, name = name.map_or("", Name::as_str), ?session, "Client says hello");
        self.reply(&Reply::Hello(HelloReply {
            server: SERVER,
            session: &session.to_string(),
            lease_ms: self.link.default_lease_ms(),
            max_line: self.context.limits.max_line as u64,
            max_pending: protocol::limits::PENDING_REPLIES_MAX as u64,
            max_prefetch: u64::from(protocol::limits::PREFETCH_MAX),
        }));
    }

    fn publish(&mut self, exchange: Name<'_>, key: Name<'_>, text: &str, now: Timestamp) {
        self.tally.count(Verb::Publish);
        let envelope = match Envelope::parse(text) {
            Ok(envelope) => envelope,
            Err(error) => {
                return match self.dialect() {
                    Dialect::Legacy => self.legacy(&LegacyReply::BadEnvelope(&error)),
                    Dialect::Modern => self.error(error.code(), &error),
                };
            }
        };
        let named = Named::new(&envelope);
        let (exchange, key) = (exchange.as_str(), key.as_str());
        let publish = Publish { exchange, key, id: named.id(), envelope: named.text() };
        match self.link.publish(publish, now) {
            Ok(()) => {
                debug!(exchange, key, "Message {} published", named.id());
                self.promise(&Reply::Ack(named.id()));
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn publish_batch(&mut self, exchange: Name<'_>, key: Name<'_>, text: &str, now: Timestamp) {
        self.tally.count(Verb::PublishBatch);
        let envelopes = match parse_batch(text) {
            Ok(envelopes) => envelopes,
            Err(error) => {
                return match self.dialect() {
                    Dialect::Legacy => self.legacy(&LegacyReply::BadBatch(&error)),
                    Dialect::Modern => self.error(error.code(), &error),
                };
            }
        };
        let named: Vec<Named<'_>> = envelopes.iter().map(Named::new).collect();
        let (exchange, key) = (exchange.as_str(), key.as_str());
        let batch = named.iter().map(|named| Publish { exchange, key, id: named.id(), envelope: named.text() });
        match (self.link.publish_batch(batch, now), self.dialect()) {
            (Ok(()), _) => named.iter().for_each(|named| self.promise(&Reply::Ack(named.id()))),
            (Err(error), Dialect::Modern) => self.refuse(&error),
            (Err(error), Dialect::Legacy) => {
                for named in &named {
                    self.legacy(&LegacyReply::BatchError { error: refusal::legacy(&error), id: named.id() });
                }
            }
        }
    }

    fn ack(&mut self, id: &str, queue: Option<Name<'_>>, line: &[u8], now: Timestamp) {
        let Mode::Legacy(pace) = &mut self.mode else {
            return self.settle(id, queue, Settle::Ack, &Reply::AckConfirmed(id), now);
        };
        pace.settled(id);
        if self.link.settle(id, None, Settle::Ack, now).is_err() {
            // Every copy there is of it goes, also one published on this connection a moment ago.
            if !self.is_turn_of(line) {
                return;
            }
            self.link.ack_anywhere(id, now);
        }
        self.tally.count(Verb::Ack);
        self.promise(&Reply::AckConfirmed(id));
    }

    fn settle(&mut self, id: &str, queue: Option<Name<'_>>, how: Settle, confirmed: &Reply<'_>, now: Timestamp) {
        self.tally.count(if how == Settle::Ack { Verb::Ack } else { Verb::Settle });
        match self.link.settle(id, queue.map(Name::as_str), how, now) {
            // A message that goes back is back; that an attempt was used up is written, too, but nobody relies on it.
            Ok(()) if matches!(how, Settle::Nack { .. } | Settle::Release | Settle::Touch { .. }) => {
                self.reply(confirmed)
            }
            Ok(()) => self.promise(confirmed),
            Err(error) => self.refuse(&error),
        }
    }

    fn consume(&mut self, queue: Name<'_>, prefetch: u32, line: &[u8], now: Timestamp) {
        let name = queue.as_str();
        match self.link.subscribe(name, prefetch, now) {
            Ok(()) => {
                info!(connection = self.link.id().0, prefetch, "Consumer registered for queue {name}");
                self.reply(&Reply::Subscribed);
            }
            // The originals' receivers expect any queue to be there.
            Err(Error::NoQueue(_)) if self.dialect() == Dialect::Legacy => {
                let declared = self.link.declare_queue(name, &QueueOptions::default(), now);
                self.changed(declared, Then::Again(line.to_vec()), now);
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn fetch(&mut self, queue: Name<'_>, lease_ms: Option<u64>, now: Timestamp) {
        match (self.link.fetch(queue.as_str(), lease_ms, now), self.dialect()) {
            (Ok(Some(delivery)), Dialect::Modern) => self.reply(&Reply::Fetched(wire(&delivery))),
            (Ok(Some(delivery)), Dialect::Legacy) => {
                let message = delivery.message();
                self.legacy(&LegacyReply::Message { id: message.id(), envelope: message.envelope() });
            }
            (Ok(None), _) | (Err(Error::NoQueue(_)), Dialect::Legacy) => self.reply(&Reply::NoMessages),
            (Err(error), _) => self.refuse(&error),
        }
    }

    /// The originals changed the order of arguments between versions; what is declared tells which is meant.
    fn bind_either_way(&mut self, first: Name<'_>, second: Name<'_>, key: Name<'_>, now: Timestamp) {
        let (first, second, key) = (first.as_str(), second.as_str(), key.as_str());
        let queue_first = self.link.is_queue(first) && self.link.is_exchange(second);
        let exchange_first = self.link.is_exchange(first) && self.link.is_queue(second);
        let (exchange, queue) = if queue_first && !exchange_first { (second, first) } else { (first, second) };
        match self.link.bind(exchange, queue, key, now) {
            Err(error @ Error::Storage(_)) => self.refuse(&error),
            Err(error) => {
                // The originals cannot react to anything but success.
                warn!(connection = self.link.id().0, first, second, key, %error, "bind not done");
                self.reply(&Reply::QueueBound);
            }
            changed => self.changed(changed, Then::Reply(Reply::QueueBound), now),
        }
    }

    pub(super) fn changed(&mut self, changed: Result<Returned, Error>, then: Then, now: Timestamp) {
        match (changed, then) {
            (Ok(returned @ Returned { receipt: Some(receipt), .. }), then) => {
                self.wait_for(Change { receipt, returned, then }, now);
            }
            (Ok(_), Then::Reply(reply)) => self.reply(&reply),
            (Ok(_), Then::Purged) => self.reply(&Reply::Purged(0)),
            (Ok(_), Then::Registered(_)) => self.reply(&Reply::KeyRegistered),
            // Declared by somebody else in this moment.
            (Ok(_), Then::Again(line)) => self.request(&line, now),
            (Err(error), _) => self.refuse(&error),
        }
    }

    /// What was possible when it was asked for was not any more when its turn came.
    pub(super) fn refuse_change(&mut self, error: &Error, then: &Then) {
        match (self.dialect(), then) {
            (Dialect::Legacy, Then::Reply(reply @ Reply::QueueBound)) => {
                warn!(connection = self.link.id().0, %error, "bind not done");
                self.reply(reply);
            }
            (_, Then::Registered(how)) => self.refuse_key(*how, error),
            _ => self.refuse(error),
        }
    }

    fn bad_request(&mut self, error: &ParseError<'_>) {
        self.tally.count(Verb::Other);
        match self.dialect() {
            Dialect::Legacy => self.legacy(&LegacyReply::BadRequest(error)),
            Dialect::Modern => self.error(error.code(), error),
        }
    }

    pub(super) fn refuse(&mut self, error: &Error) {
        match self.dialect() {
            Dialect::Legacy => self.legacy(&LegacyReply::Error(refusal::legacy(error))),
            Dialect::Modern => self.error(refusal::code(error), error),
        }
    }

    pub(super) fn legacy(&mut self, reply: &LegacyReply<'_>) {
        self.replies.push(Kind::Final, self.link.collected(), |out| reply.encode(out));
    }

    pub(super) fn error(&mut self, code: Code, text: &dyn std::fmt::Display) {
        self.replies.push(Kind::Final, self.link.collected(), |out| Reply::encode_error(out, code, text));
    }
}

/// An envelope that has an id: its own, or one made for it.
enum Named<'a> {
    Own(&'a Envelope<'a>),
    Made { id: String, text: String },
}

impl<'a> Named<'a> {
    fn new(envelope: &'a Envelope<'a>) -> Named<'a> {
        if envelope.id().is_some() {
            return Named::Own(envelope);
        }
        let id = Uuid::new_v4().to_string();
        let text = MessageId::parse(&id).map_or_else(|_| envelope.text().to_owned(), |id| envelope.with_id(id));
        Named::Made { id, text }
    }

    fn id(&self) -> &str {
        match self {
            Named::Own(envelope) => envelope.message_id(),
            Named::Made { id, .. } => id,
        }
    }

    fn text(&self) -> &str {
        match self {
            Named::Own(envelope) => envelope.text(),
            Named::Made { text, .. } => text,
        }
    }
}

fn queue_options(options: protocol::QueueOptions<'_>) -> QueueOptions {
    QueueOptions {
        lease_ms: options.lease_ms,
        max_attempts: options.max_attempts,
        dead_letter: options.dead_letter.map(|name| name.as_str().into()),
        max_messages: options.max_messages,
        max_bytes: options.max_bytes,
        durability: options.durability.map(journal_durability),
    }
}

fn after(page: Page<'_>) -> Option<&str> {
    page.after.map(Name::as_str)
}

fn limit(page: Page<'_>) -> usize {
    page.limit as usize
}

fn verb(command: &Command<'_>) -> Verb {
    match command {
        Command::Consume { .. } => Verb::Consume,
        Command::Fetch { .. } => Verb::Fetch,
        Command::DeclareQueue { .. }
        | Command::DeclareExchange { .. }
        | Command::Bind { .. }
        | Command::BindEitherWay { .. }
        | Command::Unbind { .. }
        | Command::DeleteQueue { .. }
        | Command::DeleteExchange { .. }
        | Command::Purge { .. }
        | Command::AnnounceKey { .. }
        | Command::RegisterPublicKey { .. }
        | Command::RegisterKey { .. } => Verb::Topology,
        Command::Resend { .. } => Verb::Settle,
        _ => Verb::Other,
    }
}
