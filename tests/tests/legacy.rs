//! Legacy mode: what the original 0.2.0 and 1.0.0 clients rely on (docs/protocol.md section 8).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use system_tests::{DEADLINE, Server, Wire, envelope, envelope_of, poll_until, scripts, workspace};

/// Long enough for a push that should not come, 10 times the default pause.
const SILENCE: Duration = Duration::from_millis(50);

#[test]
fn the_golden_conversations_hold_byte_for_byte() {
    let text = fs::read_to_string(workspace().join("tests/golden/legacy.txt")).expect("the golden file");
    for (flags, conversation) in scripts("legacy.txt", &text) {
        eprintln!("-- {}", conversation.title);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        conversation.run(&Server::with(&flags));
    }
}

#[test]
fn a_fresh_connection_hears_nothing_until_it_asks() {
    let server = Server::start();
    let mut wire = server.connect();
    wire.expect_nothing_for(SILENCE);
    wire.ask("fetch default_queue", "No messages");
    wire.expect_nothing_for(SILENCE);
}

// K-10
#[test]
fn requests_may_be_merged_split_and_ended_by_crlf() {
    let server = Server::start();
    let mut wire = server.connect();
    wire.send_bytes(b"ack a\nack b\n");
    wire.expect("ACK_CONFIRMED a");
    wire.expect("ACK_CONFIRMED b");

    let line = format!("publish default_exchange default_key {}\n", envelope("split"));
    for piece in line.as_bytes().chunks(line.len().div_ceil(10)) {
        wire.send_bytes(piece);
        thread::yield_now();
    }
    wire.expect("ACK split");

    wire.send_bytes(b"ack c\r\nfetch default_queue\r\n");
    wire.expect("ACK_CONFIRMED c");
    wire.expect(&format!("Message: split {}", envelope("split")));
}

// K-10
#[test]
fn a_line_of_exactly_the_limit_is_served() {
    const LINE_BYTES_MAX: usize = 1024 * 1024;
    let server = Server::start();
    let mut wire = server.connect();
    let head = "publish default_exchange default_key ";
    let body = envelope_of("big", LINE_BYTES_MAX - head.len() - envelope_of("big", 0).len() - 1);
    assert_eq!(head.len() + body.len() + 1, LINE_BYTES_MAX);
    wire.ask(&format!("{head}{body}"), "ACK big");
    assert_eq!(wire.ask("fetch default_queue", "Message: {rest}"), format!("Message: big {body}"));
}

// K-13
#[test]
fn a_fetched_message_comes_back_when_its_lease_has_run_out() {
    let server = Server::with(&["--lease-ms", "300"]);
    let mut wire = server.connect();
    wire.ask(&publish("1"), "ACK 1");
    wire.ask("fetch default_queue", "Message: 1 {json}");
    wire.ask("fetch default_queue", "No messages");
    poll_until("the lease to run out", || {
        wire.send("fetch default_queue");
        wire.line() == format!("Message: 1 {}", envelope("1"))
    });
}

#[test]
fn a_push_waits_for_its_pause_and_never_shares_a_read_with_a_reply() {
    let pause = Duration::from_millis(200);
    let server = Server::with(&["--legacy-pause-ms", "200"]);
    let mut wire = server.connect();
    wire.ask(&publish("1"), "ACK 1");
    wire.ask(&publish("2"), "ACK 2");

    // What a client that takes each read for one line would see.
    wire.send("consume default_queue");
    assert_eq!(wire.read_once(), "Subscribed to queue\n");
    let replied = Instant::now();
    assert_eq!(wire.read_once(), format!("Message: 1 {}\n", envelope("1")));
    assert!(replied.elapsed() >= pause / 2, "pushed {:?} after the reply", replied.elapsed());

    wire.send("ack 1");
    assert_eq!(wire.read_once(), "ACK_CONFIRMED 1\n");
    let replied = Instant::now();
    assert_eq!(wire.read_once(), format!("Message: 2 {}\n", envelope("2")));
    assert!(replied.elapsed() >= pause / 2, "pushed {:?} after the reply", replied.elapsed());
}

#[test]
fn one_push_is_outstanding_until_it_is_acknowledged() {
    let server = Server::start();
    let mut wire = server.connect();
    for id in ["1", "2", "3"] {
        wire.ask(&publish(id), &format!("ACK {id}"));
    }
    wire.ask("consume default_queue", "Subscribed to queue");
    for id in ["1", "2", "3"] {
        wire.expect(&format!("Message: {id} {{json}}"));
        wire.expect_nothing_for(SILENCE);
        wire.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"));
    }
    wire.expect_nothing_for(SILENCE);
}

#[test]
fn replies_to_a_batch_leave_in_one_write() {
    let server = Server::start();
    let mut wire = server.connect();
    let ids: Vec<String> = (0..5).map(|n| format!("batch-{n}")).collect();
    let items: Vec<String> = ids.iter().map(|id| envelope(id)).collect();
    wire.send(&format!("publish_batch default_exchange default_key [{}]", items.join(", ")));
    let replies: String = ids.iter().map(|id| format!("ACK {id}\n")).collect();
    assert_eq!(wire.read_once(), replies);
}

// K-09: what a receiver with the wrong key looks like to the broker: it never acknowledges one of the messages.
#[test]
fn a_message_nobody_acknowledges_lets_others_pass_and_ends_in_the_dead_letter_queue() {
    let server = Server::with(&["--lease-ms", "300"]);
    let mut admin = server.connect_modern();
    admin.ask("declare_queue work max_attempts=2", "Queue declared");
    admin.ask("bind default_exchange work w", "Queue bound");
    let mut wire = server.connect();
    for id in ["poison", "good-1", "good-2"] {
        wire.ask(&format!("publish default_exchange w {}", envelope(id)), &format!("ACK {id}"));
    }

    wire.ask("consume work", "Subscribed to queue");
    let mut pushes: BTreeMap<String, u32> = BTreeMap::new();
    while !(pushes.get("poison") == Some(&2) && pushes.len() == 3) {
        let line = wire.line();
        let id = line.split(' ').nth(1).expect("a push").to_owned();
        *pushes.entry(id.clone()).or_default() += 1;
        if id != "poison" {
            wire.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"));
        }
    }
    assert_eq!(pushes["good-1"], 1);
    assert_eq!(pushes["good-2"], 1);
    poll_until("the poison to be moved", || {
        admin.send("fetch work.dlq");
        admin.line().contains(" from=work reason=attempts ")
    });
    wire.expect_nothing_else();
}

#[test]
fn a_push_no_original_can_read_is_dead_lettered_as_too_long() {
    let server = Server::start();
    let mut wire = server.connect();
    let push_bytes = |body: &str, id: &str| format!("Message: {id} {body}\n").len();
    let longest = envelope_of("longest", 65_535 - push_bytes(&envelope_of("longest", 0), "longest"));
    let too_long = envelope_of("too-big", 65_536 - push_bytes(&envelope_of("too-big", 0), "too-big"));
    wire.ask(&format!("publish default_exchange default_key {too_long}"), "ACK too-big");
    wire.ask(&format!("publish default_exchange default_key {longest}"), "ACK longest");
    wire.ask("consume default_queue", "Subscribed to queue");
    assert_eq!(wire.line(), format!("Message: longest {longest}"));
    // Answered when what this connection has moved is on disk.
    wire.ask("fetch default_queue", "No messages");
    let mut modern = server.connect_modern();
    let dead =
        modern.ask("fetch default_queue.dlq", "Fetched: too-big {fields} from=default_queue reason=too-long {json}");
    assert!(dead.ends_with(&too_long), "the envelope changed");
}

// K-08
#[test]
fn a_vanished_receivers_message_goes_to_the_next_one_at_once() {
    let server = Server::start();
    let mut first = server.connect();
    let mut second = server.connect();
    first.ask(&publish("1"), "ACK 1");
    first.ask("consume default_queue", "Subscribed to queue");
    first.expect("Message: 1 {json}");
    second.ask("consume default_queue", "Subscribed to queue");
    let vanished = Instant::now();
    first.reset_after("ac");
    second.expect("Message: 1 {json}");
    assert!(vanished.elapsed() < DEADLINE, "that is a third of the lease");
    second.ask("ack 1", "ACK_CONFIRMED 1");
}

// K-14
#[test]
fn two_receivers_share_one_queue_and_nothing_arrives_twice() {
    const MESSAGES: usize = 100;
    let server = Server::start();
    let mut publisher = server.connect();
    for n in 0..MESSAGES {
        publisher.ask(&publish(&format!("m-{n}")), &format!("ACK m-{n}"));
    }
    let receivers = [server.connect(), server.connect()].map(|mut wire| {
        thread::spawn(move || {
            wire.ask("consume default_queue", "Subscribed to queue");
            receive_until(&mut wire, "end")
        })
    });
    poll_until("all to be acknowledged", || {
        let row = server.queue("default_queue");
        row["ready"] == 0 && row["leased"] == 0
    });
    // One end for each: a receiver that has taken one takes no other.
    for n in 0..receivers.len() {
        publisher.ask(&publish(&format!("end-{n}")), &format!("ACK end-{n}"));
    }
    let shares = receivers.map(|receiver| receiver.join().expect("a receiver failed"));
    let mut all: Vec<&String> = shares.iter().flatten().collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), MESSAGES, "shares: {:?}", shares.each_ref().map(Vec::len));
    assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), MESSAGES);
    assert!(shares.iter().all(|share| share.len() > MESSAGES / 4), "one of them got nearly all");
}

/// Acknowledges what comes until an id starts with `end`; that one stays leased.
fn receive_until(wire: &mut Wire, end: &str) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let line = wire.expect("Message: {id} {json}");
        let id = line.split(' ').nth(1).expect("a push").to_owned();
        if id.starts_with(end) {
            return ids;
        }
        wire.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"));
        ids.push(id);
    }
}

// K-06
#[test]
fn a_lost_ack_is_answered_again_and_the_message_stored_once() {
    let server = Server::start();
    let proxy = Proxy::dropping_the_first_reply(server.address());
    let mut first = Wire::connect(proxy.address);
    first.send(&publish("1"));
    poll_until("the message to be stored", || server.queue("default_queue")["ready"] == 1);
    first.expect_nothing_for(SILENCE);
    first.close();

    let mut second = Wire::connect(proxy.address);
    second.ask(&publish("1"), "ACK 1");
    second.ask("fetch default_queue", "Message: 1 {json}");
    second.ask("fetch default_queue", "No messages");
    assert_eq!(server.stat("duplicates"), 1);
}

/// Passes bytes between clients and a broker, but for the first thing the broker says.
struct Proxy {
    address: SocketAddr,
}

impl Proxy {
    fn dropping_the_first_reply(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            let mut drop_reply = true;
            for client in listener.incoming().map_while(Result::ok) {
                let up = TcpStream::connect(broker).expect("the broker accepts");
                let (client_up, up_writer) = (client.try_clone().expect("a socket"), up.try_clone().expect("a socket"));
                thread::spawn(move || pass(client_up, up_writer, false));
                let dropping = std::mem::take(&mut drop_reply);
                thread::spawn(move || pass(up, client, dropping));
            }
        });
        Self { address }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut drop_first: bool) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !std::mem::take(&mut drop_first) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn stats_have_the_members_of_the_original_with_right_numbers() {
    let server = Server::start();
    let mut wire = server.connect();
    for id in ["1", "2", "3"] {
        wire.ask(&publish(id), &format!("ACK {id}"));
    }
    wire.ask("fetch default_queue", "Message: 1 {json}");
    wire.expect_nothing_for(SILENCE);
    wire.ask("ack 1", "ACK_CONFIRMED 1");
    wire.ask("fetch default_queue", "Message: 2 {json}");
    let line = wire.ask("stats", "Stats: {json}");
    let stats: serde_json::Value = serde_json::from_str(&line["Stats: ".len()..]).expect("JSON");
    assert_eq!(stats["queues"], serde_json::json!([["default_queue", 2]]));
    assert_eq!(stats["message_status_counts"], serde_json::json!({"sent": 1, "delivered": 1, "acknowledged": 1}));
    assert_eq!(stats["total_exchanges"], 1);
    assert_eq!(stats["total_bindings"], 1);
    assert_eq!(stats["connected_clients"], 1);
    assert!(stats["consumers"].is_array());
    let times = stats["request_times_avg_seconds"].as_array().expect("an array");
    let publishes = times.iter().find(|row| row[0] == "publish").expect("publish was asked");
    assert_eq!(publishes[2], 3, "{publishes}");
    // One acknowledged message, which was held for the silence; the broker's clock counts milliseconds.
    for average in ["avg_publish_to_ack_seconds", "avg_delivery_to_ack_seconds"] {
        let seconds = stats[average].as_f64().expect("a number");
        assert!(seconds >= 0.9 * SILENCE.as_secs_f64(), "{average} is {seconds}");
    }
}

#[test]
fn reset_stats_forgets_counters_and_nothing_else() {
    let server = Server::start();
    let mut wire = server.connect();
    wire.ask(&publish("1"), "ACK 1");
    wire.ask("reset_stats", "Stats reset");
    assert_eq!(server.stat("published"), 0);
    wire.ask(&publish("1"), "ACK 1");
    assert_eq!(server.stat("duplicates"), 1, "the id was forgotten");
    wire.ask("fetch default_queue", "Message: 1 {json}");
    wire.ask("fetch default_queue", "No messages");
}

fn publish(id: &str) -> String {
    format!("publish default_exchange default_key {}", envelope(id))
}
