//! Conversations with a session: lines and times in, lines out; no socket, no sleeping.

mod keys;

use std::sync::Arc;
use std::task::{Context, Waker};

use ciphermq_broker::{Broker, BrokerOptions, Timestamp};
use ciphermq_journal::{Doorbell, JournalOptions, MemoryDisk, Pace, Position, Simulation};
use ciphermq_protocol::Decoder;
use tokio::sync::watch;

use super::{OUTPUT_BYTES_MAX, Received, TextSession, Transmitted};
use crate::clock::Clock;
use crate::connection::{ConnectionContext, SessionLimits, StoreKind};
use crate::counters::Counters;

const START: Timestamp = Timestamp(1_000_000);
const PAUSE_MS: u64 = 5;
const MAX_LINE: usize = 1 << 20;
/// Records of the default topology.
const TOPOLOGY: u64 = 3;

struct Conversation {
    session: TextSession,
    bell: Arc<Doorbell>,
    input: Decoder,
    now: Timestamp,
}

impl Conversation {
    fn with(broker: &Broker) -> Conversation {
        let limits = SessionLimits { max_line: MAX_LINE, legacy_pause_ms: PAUSE_MS, slow_reader_ms: 60_000 };
        let (_, shutdown) = watch::channel(false);
        let (clock, store, counters) = (Clock::start(), StoreKind::Memory, Arc::new(Counters::default()));
        let context = ConnectionContext { clock, store, limits, shutdown, counters };
        let bell = Arc::new(Doorbell::new());
        let session = TextSession::new(broker.connect(Arc::clone(&bell)), Arc::new(context));
        Conversation { session, bell, input: Decoder::new(MAX_LINE), now: START }
    }

    fn modern(broker: &Broker) -> Conversation {
        let mut conversation = Conversation::with(broker);
        assert!(conversation.say("hello 1\n").starts_with("Hello 1 "));
        conversation
    }

    /// Sends text and returns what comes back at once.
    fn say(&mut self, mut text: &str) -> String {
        let mut heard = String::new();
        while !text.is_empty() {
            let spare = self.input.spare();
            let count = spare.len().min(text.len());
            spare[..count].copy_from_slice(&text.as_bytes()[..count]);
            self.input.advance(count);
            text = &text[count..];
            heard += &self.hear();
        }
        heard
    }

    /// What the session does when its bell rings or time has passed.
    fn hear(&mut self) -> String {
        let mut heard = Vec::new();
        loop {
            let received = self.session.receive(&mut self.input, self.now);
            let mut out = Vec::new();
            let transmitted = self.session.transmit(&mut out, 0, self.now);
            heard.extend(out);
            let stopped = received == Received::All || !self.session.wants_requests();
            if stopped && transmitted == Transmitted::All {
                return String::from_utf8(heard).unwrap();
            }
        }
    }

    fn has_rung(&self) -> bool {
        self.bell.poll_rung(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn wait_ms(&mut self, ms: u64) -> String {
        self.now = self.now.plus_ms(ms);
        self.hear()
    }
}

fn broker() -> Broker {
    Broker::in_memory(BrokerOptions::default(), START)
}

fn slow_broker() -> Broker {
    let simulation = Simulation { pace: Pace::WhenTold, ..Default::default() };
    let broker = Broker::simulated(BrokerOptions::default(), START, simulation);
    broker.write_journal();
    broker
}

fn envelope(id: &str) -> String {
    format!(r#"{{"message_id":"{id}","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"d"}}"#)
}

fn publish(id: &str) -> String {
    format!("publish default_exchange default_key {}\n", envelope(id))
}

#[test]
fn an_ack_waits_for_the_journal_and_so_does_the_delivery() {
    let broker = slow_broker();
    let (mut publisher, mut consumer) = (Conversation::modern(&broker), Conversation::modern(&broker));
    assert_eq!(consumer.say("consume default_queue\n"), "Subscribed to queue\n");
    assert_eq!(publisher.say(&publish("m-1")), "");
    assert_eq!(consumer.hear(), "");
    broker.write_journal();
    assert_eq!(publisher.hear(), "ACK m-1\n");
    assert!(consumer.hear().starts_with("Message: m-1 "));
    assert_eq!(consumer.say("ack m-1\n"), "");
    broker.write_journal();
    assert_eq!(consumer.hear(), "ACK_CONFIRMED m-1\n");
}

#[test]
fn while_too_much_waits_for_the_disk_nothing_more_is_taken_in() {
    const INBOX_BYTES: u64 = 16 << 10;
    let options = JournalOptions { inbox_bytes_max: INBOX_BYTES, ..JournalOptions::default() };
    let disk = Arc::new(MemoryDisk::new());
    let (broker, _) = Broker::open_stepped(BrokerOptions::default(), START, disk, options).unwrap();
    let (mut client, mut idle) = (Conversation::modern(&broker), Conversation::modern(&broker));
    let mut acks = String::new();
    for number in 0.. {
        assert_eq!(client.say(&publish(&format!("m-{number}"))), "", "the disk has not been written yet");
        acks += &format!("ACK m-{number}\n");
        assert!(acks.len() < INBOX_BYTES as usize, "{number} publishes are more than may wait");
        if !client.session.wants_requests() {
            break;
        }
    }
    assert!(!idle.session.wants_requests(), "it is the disk, not the connection");
    assert_eq!(idle.say("ping\n"), "", "not read");
    assert_eq!(client.say("ping\n"), "", "not read");
    client.has_rung();
    idle.has_rung();
    broker.write_journal();
    assert!(client.has_rung() && idle.has_rung(), "nothing else would wake them");
    assert_eq!(client.hear(), format!("{acks}Pong\n"));
    assert_eq!(idle.hear(), "Pong\n", "also who has nothing on its way to the disk");
}

#[test]
fn replies_leave_in_request_order_however_long_the_journal_takes() {
    let broker = slow_broker();
    let mut client = Conversation::modern(&broker);
    let requests = format!("{}frobnicate\n{}ack m-9\nping\n{}", publish("m-1"), publish("m-2"), publish("m-3"));
    assert_eq!(client.say(&requests), "", "nothing overtakes the first ACK");
    broker.write_journal();
    let expected = "ACK m-1\nError: UNKNOWN_COMMAND 'frobnicate'; try help\nACK m-2\n\
                    Error: NOT_LEASED this connection holds no lease on 'm-9'\n";
    assert_eq!(client.hear(), expected);
    broker.write_journal();
    assert_eq!(client.hear(), "Pong\nACK m-3\n");
}

#[test]
fn a_look_at_the_broker_sees_what_was_published_before_it_on_the_same_connection() {
    let broker = slow_broker();
    let mut client = Conversation::modern(&broker);
    assert_eq!(client.say(&format!("{}status m-1\nfetch default_queue\n", publish("m-1"))), "");
    broker.write_journal();
    let heard = client.hear();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines[0], "ACK m-1");
    assert!(lines[1].contains(r#""status":"Sent""#), "{heard}");
    assert!(lines[2].starts_with("Fetched: m-1 "), "{heard}");
}

#[test]
fn a_declaration_is_done_before_the_next_request_is_read() {
    let broker = slow_broker();
    let mut client = Conversation::modern(&broker);
    let requests = "declare_queue jobs\nbind default_exchange jobs job\nlist_bindings\n";
    assert_eq!(client.say(requests), "");
    broker.write_journal();
    assert_eq!(client.hear(), "Queue declared\n");
    broker.write_journal();
    let heard = client.hear();
    assert!(heard.starts_with("Queue bound\nBindings: "), "{heard}");
    assert!(heard.contains(r#""queue":"jobs","key":"job""#), "{heard}");
}

#[test]
fn after_a_journal_failure_publishes_are_refused_and_reading_goes_on() {
    let simulation = Simulation { fail_at: Some(Position(TOPOLOGY + 2)), ..Default::default() };
    let broker = Broker::simulated(BrokerOptions::default(), START, simulation);
    let mut client = Conversation::modern(&broker);
    let storage = "Error: STORAGE the journal failed earlier and accepts nothing until the broker is restarted\n";
    assert_eq!(client.say(&publish("m-1")), "ACK m-1\n");
    assert_eq!(client.say(&publish("m-2")), storage, "the record that failed");
    assert_eq!(client.say(&publish("m-3")), storage, "and every one after it");
    assert!(client.say("fetch default_queue\n").starts_with("Fetched: m-1 "));
    assert_eq!(client.say("ack m-1\n"), storage, "an ack that is not on disk is not confirmed");
    let heard = client.say("fetch default_queue\n");
    assert!(heard.starts_with("Fetched: m-1 "), "and its message is still there: {heard}");
    assert_eq!(client.say("declare_queue jobs\n"), storage);
    let mut legacy = Conversation::with(&broker);
    assert_eq!(legacy.say(&publish("m-4")), "Error: Storage failure\n");
    assert_eq!(legacy.say("ack m-4\n"), "ACK_CONFIRMED m-4\n", "nothing to journal for an id nobody has");
}

#[test]
fn legacy_pushes_come_one_at_a_time_and_apart_from_replies() {
    let broker = broker();
    let mut client = Conversation::with(&broker);
    assert_eq!(client.say(&(publish("m-1") + &publish("m-2"))), "ACK m-1\nACK m-2\n");
    assert_eq!(client.say("consume default_queue\n"), "Subscribed to queue\n");
    assert_eq!(client.wait_ms(PAUSE_MS), "", "the clock's milliseconds are cut off: one more");
    let message = |id: &str| format!("Message: {id} {}\n", envelope(id));
    assert_eq!(client.wait_ms(1), message("m-1"));
    assert_eq!(client.wait_ms(1_000), "", "one outstanding");
    assert_eq!(client.say("ack m-1\n"), "ACK_CONFIRMED m-1\n");
    assert_eq!(client.hear(), "", "the bell has rung for the next delivery, but its moment has not come");
    assert_eq!(client.session.poll_timeout(client.now), Some(client.now.plus_ms(PAUSE_MS + 1)));
    assert_eq!(client.wait_ms(PAUSE_MS + 1), message("m-2"));
}

#[test]
fn a_legacy_receiver_that_never_acks_gets_the_next_message_when_the_lease_is_over() {
    let broker = broker();
    let mut client = Conversation::with(&broker);
    client.say(&(publish("poison") + &publish("good")));
    client.say("consume default_queue\n");
    assert!(client.wait_ms(10).starts_with("Message: poison "));
    client.now = client.now.plus_ms(30_000);
    broker.handle_timeout(client.now);
    assert!(client.hear().starts_with("Message: poison "), "redelivered in its order");
    for _ in 0..19 {
        client.now = client.now.plus_ms(30_000);
        broker.handle_timeout(client.now);
        let heard = client.hear();
        if heard.starts_with("Message: good ") {
            let mut other = Conversation::modern(&broker);
            let dead = other.say("fetch default_queue.dlq\n");
            return assert!(dead.contains(" from=default_queue reason=attempts "), "{dead}");
        }
        assert!(heard.starts_with("Message: poison "), "{heard}");
    }
    panic!("the poison message was never moved away");
}

#[test]
fn a_delivery_no_original_can_read_goes_to_the_dead_letter_queue() {
    let broker = broker();
    let mut client = Conversation::with(&broker);
    let long = envelope("long").replace(r#""d""#, &format!(r#""{}""#, "d".repeat(65_536)));
    client.say(&format!("publish default_exchange default_key {long}\n"));
    client.say(&publish("short"));
    client.say("consume default_queue\n");
    assert!(client.wait_ms(10).starts_with("Message: short "), "and the next one is pushed in its place");
    let mut other = Conversation::modern(&broker);
    let dead = other.say("fetch default_queue.dlq\n");
    assert!(dead.contains(" from=default_queue reason=too-long "), "{}", &dead[..200]);
}

#[test]
fn a_session_that_is_opened_again_takes_its_leases_from_the_old_connection() {
    let broker = broker();
    let mut old = Conversation::with(&broker);
    let hello = old.say("hello 1 name=worker\n");
    let session = hello.split(' ').find_map(|field| field.strip_prefix("session=")).unwrap().to_owned();
    old.say(&publish("m-1"));
    assert!(old.say("consume default_queue\n").contains("Message: m-1 "));
    let mut new = Conversation::with(&broker);
    assert!(new.say(&format!("hello 1 session={session}\n")).contains(&session));
    assert!(old.session.is_taken_over());
    assert!(new.say("consume default_queue\n").contains("Message: m-1 "));
}

#[test]
fn ten_thousand_requests_in_one_write_are_answered_in_order() {
    let broker = slow_broker();
    let mut client = Conversation::modern(&broker);
    let ids: Vec<String> = (0..10_000).map(|number| format!("m-{number}")).collect();
    let requests: String = ids.iter().map(|id| publish(id)).collect();
    let mut heard = client.say(&requests);
    let expected: String = ids.iter().map(|id| format!("ACK {id}\n")).collect();
    while heard.len() < expected.len() {
        let before = heard.len();
        broker.write_journal();
        heard += &client.hear();
        assert!(heard.len() > before, "stuck after {} bytes", heard.len());
    }
    assert_eq!(heard, expected);
}

#[test]
fn a_backlog_above_the_output_bound_is_said_in_parts_and_the_session_knows_that_more_is_left() {
    let broker = broker();
    let mut client = Conversation::modern(&broker);
    let body = "d".repeat(100_000);
    for number in 0..30 {
        let long = envelope(&format!("m-{number}")).replace(r#""d""#, &format!(r#""{body}""#));
        client.say(&format!("publish default_exchange default_key {long}\n"));
    }
    let line = b"consume default_queue\n";
    client.input.spare()[..line.len()].copy_from_slice(line);
    client.input.advance(line.len());
    client.session.receive(&mut client.input, client.now);
    let mut out = Vec::new();
    assert_eq!(client.session.transmit(&mut out, 0, client.now), Transmitted::Part);
    assert!((OUTPUT_BYTES_MAX..OUTPUT_BYTES_MAX + 101_000).contains(&out.len()), "{}", out.len());
    let rest = client.hear();
    assert_eq!(out.iter().chain(rest.as_bytes()).filter(|byte| **byte == b'\n').count(), 31);
}

/// The bell may ring once for a reply and a delivery together: the delivery must not be forgotten behind the reply.
#[test]
fn a_legacy_delivery_that_came_together_with_a_reply_is_pushed_after_the_pause() {
    let broker = slow_broker();
    let (mut receiver, mut sender) = (Conversation::with(&broker), Conversation::with(&broker));
    receiver.say("consume default_queue\n");
    sender.say(&(publish("m-1") + &publish("m-2")));
    broker.write_journal();
    receiver.now = receiver.now.plus_ms(10);
    assert!(receiver.hear().starts_with("Message: m-1 "));
    assert_eq!(receiver.say("ack m-1\n"), "");
    broker.write_journal();
    let mut out = Vec::new();
    receiver.session.receive(&mut receiver.input, receiver.now);
    receiver.session.transmit(&mut out, 0, receiver.now);
    assert_eq!(out, b"ACK_CONFIRMED m-1\n");
    let due = receiver.session.poll_timeout(receiver.now).expect("it knows of m-2 without another bell");
    receiver.now = due;
    assert!(receiver.hear().starts_with("Message: m-2 "));
}

#[test]
fn a_legacy_delivery_never_waits_behind_another_one_using_up_its_attempts() {
    let broker = broker();
    let mut setup = Conversation::modern(&broker);
    setup.say("declare_queue q1\nbind default_exchange q1 k1\ndeclare_queue q2\nbind default_exchange q2 k2\n");
    setup.say(&publish("poison").replace("default_key", "k1"));
    let mut client = Conversation::with(&broker);
    client.say("consume q1\nconsume q2\n");
    assert!(client.wait_ms(10).starts_with("Message: poison "));
    setup.say(&publish("good").replace("default_key", "k2"));
    assert_eq!(client.wait_ms(1_000), "");
    let status = setup.say("status good\n");
    assert!(status.contains(r#""status":"Sent","attempts":0"#), "{status}");
    let mut heard = String::new();
    for _ in 0..3 {
        client.now = client.now.plus_ms(30_000);
        broker.handle_timeout(client.now);
        heard += &client.hear();
        heard += &client.wait_ms(250);
    }
    assert!(heard.contains("Message: good "), "the other queue gets its turn when the lease is over: {heard}");
}

#[test]
fn a_legacy_ack_reaches_a_message_published_just_before_it() {
    let broker = slow_broker();
    let mut client = Conversation::with(&broker);
    assert_eq!(client.say(&format!("{}ack m-1\nfetch default_queue\n", publish("m-1"))), "");
    let mut heard = String::new();
    for _ in 0..3 {
        broker.write_journal();
        heard += &client.hear();
    }
    assert_eq!(heard, "ACK m-1\nACK_CONFIRMED m-1\nNo messages\n");
}

#[test]
fn a_look_waits_for_an_open_publish_though_a_final_reply_stands_between() {
    let broker = slow_broker();
    let mut client = Conversation::modern(&broker);
    client.say(&publish("m-1"));
    client.say("frobnicate\n");
    assert_eq!(client.say("fetch default_queue\n"), "");
    broker.write_journal();
    assert!(client.hear().contains("\nFetched: m-1 "));
}

#[test]
fn replies_of_any_size_stop_at_the_output_bound() {
    let broker = broker();
    let mut client = Conversation::modern(&broker);
    let body = "d".repeat(900_000);
    for number in 0..20 {
        let long = envelope(&format!("m-{number}")).replace(r#""d""#, &format!(r#""{body}""#));
        client.say(&format!("publish default_exchange default_key {long}\n"));
    }
    let requests = "fetch default_queue\n".repeat(20);
    client.input.spare()[..requests.len()].copy_from_slice(requests.as_bytes());
    client.input.advance(requests.len());
    assert_eq!(client.session.receive(&mut client.input, client.now), Received::Part);
    assert!(client.session.replies.bytes() < OUTPUT_BYTES_MAX + 901_000);
    assert_eq!(client.hear().lines().count(), 20);
}

#[test]
fn closing_comes_after_the_replies_that_are_owed() {
    let broker = slow_broker();
    let mut client = Conversation::modern(&broker);
    assert_eq!(client.say(&publish("m-1")), "");
    client.session.end_because(ciphermq_protocol::Code::ShuttingDown, "bye");
    assert_eq!(client.hear(), "");
    assert!(!client.session.is_finished());
    broker.write_journal();
    assert_eq!(client.hear(), "ACK m-1\nClosing: SHUTTING_DOWN bye\n");
    assert!(client.session.is_finished());
}

#[test]
fn what_two_clients_ask_at_one_time_is_decided_by_the_journal() {
    let broker = slow_broker();
    let mut setup = Conversation::modern(&broker);
    setup.say("declare_queue q\n");
    broker.write_journal();
    assert_eq!(setup.hear(), "Queue declared\n");
    let (mut a, mut b, mut old) =
        (Conversation::modern(&broker), Conversation::modern(&broker), Conversation::with(&broker));
    assert_eq!(a.say("delete_queue q\n") + &b.say("bind default_exchange q k\n"), "");
    assert_eq!(old.say("bind default_exchange q k\n"), "");
    broker.write_journal();
    assert_eq!(a.hear(), "Queue deleted\n");
    assert_eq!(b.hear(), "Error: NOT_FOUND queue 'q'\n");
    assert_eq!(old.hear(), "Queue bound\n", "the originals cannot react to anything else");
    assert_eq!(setup.say("declare_queue small\nbind default_exchange small default_key\n"), "");
    broker.write_journal();
    setup.hear();
    broker.write_journal();
    setup.hear();
    assert_eq!(a.say(&publish("m-1")), "");
    let refused = b.say("delete_queue small\n");
    assert!(refused.starts_with("Error: NOT_EMPTY queue 'small' holds 1 message"), "not committed yet, and counted");
    broker.write_journal();
    assert_eq!(a.hear(), "ACK m-1\n");
}
