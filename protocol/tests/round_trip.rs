//! What one side writes the other reads, and it means the same.

mod common;

use ciphermq_protocol::limits::{
    ATTEMPTS_MAX, DELAY_MS_MAX, DURABILITY_INTERVAL_MS_MAX, KEY_HISTORY_LIMIT_MAX, LEASE_MS_MAX, LIST_LIMIT_MAX,
    PREFETCH_MAX,
};
use ciphermq_protocol::{
    Code, Command, DeadLetter, Delivery, Dialect, Durability, Envelope, HelloReply, IfNotEmpty, MessageId, Name, Page,
    Push, QueueOptions, Reason, Reply, ServerLine, parse_batch,
};
use common::{config, envelope, id, name, token};
use proptest::option::of;
use proptest::prelude::*;

/// Texts and numbers enough for any command: which of them it uses is its own matter.
#[derive(Clone, Debug)]
struct Parts {
    names: [String; 3],
    maybe_name: Option<String>,
    id: String,
    token: Option<String>,
    json: String,
    lease_ms: Option<u64>,
    delay_ms: Option<u64>,
    attempts: Option<u32>,
    count: Option<u64>,
    durability: Option<Durability>,
    prefetch: u32,
    limit: u32,
    number: u64,
}

fn parts() -> impl Strategy<Value = Parts> {
    let texts = ([name(), name(), name()], of(name()), id(), of(token()), envelope());
    let options =
        (of(1..=LEASE_MS_MAX), of(0..=DELAY_MS_MAX), of(0..=ATTEMPTS_MAX), of(any::<u64>()), of(durability()));
    let numbers = (1..=PREFETCH_MAX, 1..=LIST_LIMIT_MAX, any::<u64>());
    (texts, options, numbers).prop_map(|(texts, options, numbers)| {
        let (names, maybe_name, id, token, json) = texts;
        let (lease_ms, delay_ms, attempts, count, durability) = options;
        let (prefetch, limit, number) = numbers;
        Parts {
            names,
            maybe_name,
            id,
            token,
            json,
            lease_ms,
            delay_ms,
            attempts,
            count,
            durability,
            prefetch,
            limit,
            number,
        }
    })
}

fn durability() -> impl Strategy<Value = Durability> {
    let interval = (1..=DURABILITY_INTERVAL_MS_MAX).prop_map(|ms| Durability::Interval { ms });
    prop_oneof![Just(Durability::Sync), Just(Durability::None), interval]
}

/// One of every command of modern mode.
fn commands(parts: &Parts) -> Vec<Command<'_>> {
    let [a, b, c] = parts.names.each_ref().map(|name| Name::parse(name).expect("the strategy makes legal names"));
    let maybe = parts.maybe_name.as_deref().map(|name| Name::parse(name).expect("the strategy makes legal names"));
    let page = Page { after: maybe, limit: parts.limit };
    let (id, token, lease_ms) = (parts.id.as_str(), parts.token.as_deref(), parts.lease_ms);
    let options = QueueOptions {
        lease_ms,
        max_attempts: parts.attempts,
        dead_letter: maybe,
        max_messages: parts.count,
        max_bytes: parts.count,
        durability: parts.durability,
    };
    vec![
        Command::Hello { name: maybe, session: token },
        Command::DeclareQueue { queue: a, options },
        Command::DeclareExchange { exchange: a },
        Command::Bind { exchange: a, queue: b, key: c },
        Command::Unbind { exchange: a, queue: b, key: c },
        Command::DeleteQueue { queue: a, if_not_empty: IfNotEmpty::Refuse },
        Command::DeleteQueue { queue: a, if_not_empty: IfNotEmpty::Delete },
        Command::DeleteExchange { exchange: a },
        Command::Purge { queue: a },
        Command::Publish { exchange: a, key: b, envelope: &parts.json },
        Command::PublishBatch { exchange: a, key: b, envelopes: &parts.json },
        Command::Consume { queue: a, prefetch: parts.prefetch },
        Command::Cancel { queue: a },
        Command::Fetch { queue: a, lease_ms },
        Command::Ack { id, queue: maybe },
        Command::Nack { id, queue: maybe, delay_ms: parts.delay_ms },
        Command::Release { id, queue: maybe },
        Command::Reject { id, queue: maybe },
        Command::Touch { id, queue: maybe, lease_ms },
        Command::Status { id },
        Command::Resend { id },
        Command::AnnounceKey { client: a, announcement: id },
        Command::LookupKey { client: a },
        Command::KeyHistory { client: a, from: u64::from(parts.limit), limit: 1 + parts.limit % KEY_HISTORY_LIMIT_MAX },
        Command::RegisterPublicKey { key: id },
        Command::GetPublicKey { client: a },
        Command::RegisterKey { client: a, key: id },
        Command::GetKey { client: a },
        Command::ListQueues { page },
        Command::ListExchanges { page },
        Command::ListBindings { exchange: Some(b), page },
        Command::Stats,
        Command::ResetStats,
        Command::Ping { text: token },
        Command::Help { command: token },
        Command::Quit,
    ]
}

/// One of every line a server sends.
fn server_lines(parts: &Parts) -> Vec<ServerLine<'_>> {
    let [a, b, c] = parts.names.each_ref().map(String::as_str);
    let (id, json) = (parts.id.as_str(), parts.json.as_str());
    let delivery = |dead_letter| Delivery {
        id,
        queue: a,
        attempt: parts.prefetch,
        exchange: b,
        key: c,
        published_ms: parts.number,
        dead_letter,
        envelope: json,
    };
    let hello = HelloReply {
        server: "ciphermq/0.1.0",
        session: a,
        lease_ms: parts.number,
        max_line: 1,
        max_pending: 2,
        max_prefetch: 3,
    };
    let mut lines: Vec<_> = [Reason::Rejected, Reason::Attempts, Reason::TooLong]
        .map(|reason| ServerLine::Push(Push::Message(delivery(Some(DeadLetter { from: b, reason })))))
        .into();
    lines.extend(Code::ALL.map(|code| ServerLine::Reply(Reply::Error { code, text: json })));
    lines.extend(Code::ALL.map(|code| ServerLine::Push(Push::Closing { code, text: "good bye" })));
    lines.push(ServerLine::Push(Push::Message(delivery(None))));
    lines.push(ServerLine::Push(Push::Cancelled { queue: a, reason: "deleted" }));
    let replies = [
        Reply::Hello(hello),
        Reply::QueueDeclared,
        Reply::ExchangeDeclared,
        Reply::QueueBound,
        Reply::QueueUnbound,
        Reply::QueueDeleted,
        Reply::ExchangeDeleted,
        Reply::Purged(parts.number),
        Reply::Ack(id),
        Reply::AckConfirmed(id),
        Reply::NackConfirmed(id),
        Reply::ReleaseConfirmed(id),
        Reply::RejectConfirmed(id),
        Reply::TouchConfirmed(id),
        Reply::Subscribed,
        Reply::ConsumerCancelled,
        Reply::Fetched(delivery(None)),
        Reply::NoMessages,
        Reply::Status(json),
        Reply::ResendRequested,
        Reply::KeyAnnounced,
        Reply::Key(json),
        Reply::Keys(json),
        Reply::KeyRegistered,
        Reply::PublicKey(id),
        Reply::Queues(json),
        Reply::Exchanges(json),
        Reply::Bindings(json),
        Reply::Stats(json),
        Reply::StatsReset,
        Reply::Pong(parts.token.as_deref()),
        Reply::Help("quit: ends the connection"),
        Reply::Bye,
        Reply::Error { code: Code::Other, text: "TEAPOT short and stout" },
    ];
    lines.extend(replies.map(ServerLine::Reply));
    lines
}

fn written(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n'), "one line");
    out
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn the_server_reads_every_command_the_client_writes(parts in parts()) {
        for command in commands(&parts) {
            let line = written(|out| command.encode(out));
            prop_assert_eq!(Command::parse(&line, Dialect::Modern), Ok(command));
        }
    }

    #[test]
    fn the_client_reads_every_line_the_server_writes(parts in parts()) {
        for sent in server_lines(&parts) {
            let line = written(|out| sent.encode(out));
            prop_assert_eq!(ServerLine::parse(&line), Ok(sent));
        }
    }

    #[test]
    fn an_envelope_keeps_its_text_and_takes_an_id_in_its_place(text in envelope(), new_id in id()) {
        let parsed = Envelope::parse(&text).unwrap();
        prop_assert_eq!(parsed.text(), &text);
        let new_id = MessageId::parse(&new_id).unwrap();
        let with_id = parsed.with_id(new_id);
        let again = Envelope::parse(&with_id).unwrap();
        prop_assert_eq!(again.id(), Some(parsed.id().unwrap_or(new_id)));
        if parsed.id().is_none() {
            prop_assert_eq!(with_id.replacen(&format!("\"message_id\": \"{new_id}\""), "\"message_id\": \"\"", 1), text);
        }
    }

    #[test]
    fn a_batch_keeps_the_text_of_each_envelope(texts in prop::collection::vec(envelope(), 1..20)) {
        let array = format!("[ {} ]", texts.join(" , "));
        let batch = parse_batch(&array).unwrap();
        prop_assert_eq!(batch.iter().map(Envelope::text).collect::<Vec<_>>(), texts);
    }

    #[test]
    fn arbitrary_bytes_never_break_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        ciphermq_protocol::fuzzing::text_command(&bytes);
        ciphermq_protocol::fuzzing::text_stream(&bytes);
        ciphermq_protocol::fuzzing::text_reply(&bytes);
        ciphermq_protocol::fuzzing::envelope(&bytes);
        ciphermq_protocol::fuzzing::names(&bytes);
    }

    #[test]
    fn a_changed_byte_never_breaks_a_promise(parts in parts(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let change = |mut line: Vec<u8>| {
            let at = at.index(line.len());
            line[at] = byte;
            line
        };
        for command in commands(&parts) {
            ciphermq_protocol::fuzzing::text_command(&change(written(|out| command.encode(out))));
        }
        for sent in server_lines(&parts) {
            ciphermq_protocol::fuzzing::text_reply(&change(written(|out| sent.encode(out))));
        }
        ciphermq_protocol::fuzzing::envelope(&change(parts.json.clone().into_bytes()));
    }
}
