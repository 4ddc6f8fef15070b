//! The client's side of [`Command`]: values to lines.

use super::command::{Command, IfNotEmpty, Page, QueueOptions};
use super::write::{display, field, number_field, text};
use crate::limits::VERSION;
use crate::name::Name;

impl Command<'_> {
    /// Appends the request, LF included, in its modern form, so that `parse` gives the same command again.
    ///
    /// `BindEitherWay` and an `Ack` of an illegal id exist in legacy mode only. Raw text (`envelope`, `envelopes`, `id`,
    /// `session`, `text`, `command`, `announcement`) must hold no line end; an [`Envelope`](crate::Envelope) and a
    /// [`MessageId`](crate::MessageId) never do.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Publish { exchange, key, envelope } => {
                words(out, "publish", &[exchange.as_str(), key.as_str(), envelope])
            }
            Self::PublishBatch { exchange, key, envelopes } => {
                words(out, "publish_batch", &[exchange.as_str(), key.as_str(), envelopes]);
            }
            Self::Ack { id, queue } => settle(out, "ack", id, queue),
            Self::Nack { id, queue, delay_ms } => {
                settle(out, "nack", id, queue);
                number_option(out, "delay", delay_ms);
            }
            Self::Release { id, queue } => settle(out, "release", id, queue),
            Self::Reject { id, queue } => settle(out, "reject", id, queue),
            Self::Touch { id, queue, lease_ms } => {
                settle(out, "touch", id, queue);
                number_option(out, "lease", lease_ms);
            }
            Self::Fetch { queue, lease_ms } => {
                words(out, "fetch", &[queue.as_str()]);
                number_option(out, "lease", lease_ms);
            }
            Self::Consume { queue, prefetch } => {
                words(out, "consume", &[queue.as_str()]);
                number_field(out, "prefetch", u64::from(prefetch));
            }
            Self::Cancel { queue } => words(out, "cancel", &[queue.as_str()]),
            Self::Hello { name, session } => {
                words(out, "hello", &[VERSION]);
                name_option(out, "name", name);
                if let Some(session) = session {
                    field(out, "session", session);
                }
            }
            Self::DeclareQueue { queue, options } => {
                words(out, "declare_queue", &[queue.as_str()]);
                queue_options(out, options);
            }
            Self::DeclareExchange { exchange } => words(out, "declare_exchange", &[exchange.as_str()]),
            Self::Bind { exchange: a, queue: b, key } | Self::BindEitherWay { first: a, second: b, key } => {
                words(out, "bind", &[a.as_str(), b.as_str(), key.as_str()]);
            }
            Self::Unbind { exchange, queue, key } => {
                words(out, "unbind", &[exchange.as_str(), queue.as_str(), key.as_str()]);
            }
            Self::DeleteQueue { queue, if_not_empty } => {
                words(out, "delete_queue", &[queue.as_str()]);
                if if_not_empty == IfNotEmpty::Delete {
                    field(out, "force", "yes");
                }
            }
            Self::DeleteExchange { exchange } => words(out, "delete_exchange", &[exchange.as_str()]),
            Self::Purge { queue } => words(out, "purge", &[queue.as_str()]),
            Self::Status { id } => words(out, "status", &[id]),
            Self::Resend { id } => words(out, "resend", &[id]),
            Self::AnnounceKey { client, announcement } => words(out, "announce_key", &[client.as_str(), announcement]),
            Self::LookupKey { client } => words(out, "lookup_key", &[client.as_str()]),
            Self::KeyHistory { client, from, limit } => {
                words(out, "key_history", &[client.as_str()]);
                number_field(out, "from", from);
                number_field(out, "limit", u64::from(limit));
            }
            Self::RegisterPublicKey { key } => words(out, "register_public_key", &[key]),
            Self::GetPublicKey { client } => words(out, "get_public_key", &[client.as_str()]),
            Self::RegisterKey { client, key } => words(out, "register_key", &[client.as_str(), key]),
            Self::GetKey { client } => words(out, "get_key", &[client.as_str()]),
            Self::ListQueues { page } => listing(out, "list_queues", None, page),
            Self::ListExchanges { page } => listing(out, "list_exchanges", None, page),
            Self::ListBindings { exchange, page } => listing(out, "list_bindings", exchange, page),
            Self::Stats => words(out, "stats", &[]),
            Self::ResetStats => words(out, "reset_stats", &[]),
            Self::Ping { text } => words(out, "ping", text.as_slice()),
            Self::Help { command } => words(out, "help", command.as_slice()),
            Self::Quit => words(out, "quit", &[]),
        }
        out.push(b'\n');
    }
}

fn words(out: &mut Vec<u8>, verb: &str, arguments: &[&str]) {
    text(out, verb);
    for argument in arguments {
        out.push(b' ');
        text(out, argument);
    }
}

fn settle(out: &mut Vec<u8>, verb: &str, id: &str, queue: Option<Name<'_>>) {
    words(out, verb, &[id]);
    name_option(out, "queue", queue);
}

fn queue_options(out: &mut Vec<u8>, options: QueueOptions<'_>) {
    number_option(out, "lease", options.lease_ms);
    number_option(out, "max_attempts", options.max_attempts.map(u64::from));
    name_option(out, "dead_letter", options.dead_letter);
    number_option(out, "max_messages", options.max_messages);
    number_option(out, "max_bytes", options.max_bytes);
    if let Some(durability) = options.durability {
        display(out, &format_args!(" durability={durability}"));
    }
}

fn listing(out: &mut Vec<u8>, verb: &str, exchange: Option<Name<'_>>, page: Page<'_>) {
    words(out, verb, &[]);
    name_option(out, "exchange", exchange);
    name_option(out, "after", page.after);
    number_field(out, "limit", u64::from(page.limit));
}

fn name_option(out: &mut Vec<u8>, name: &str, value: Option<Name<'_>>) {
    if let Some(value) = value {
        field(out, name, value.as_str());
    }
}

fn number_option(out: &mut Vec<u8>, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        number_field(out, name, value);
    }
}
