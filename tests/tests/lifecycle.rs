//! Messages, connections and the process from beginning to end, in modern mode.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use system_tests::{DEADLINE, Server, Wire, envelope, poll_until};

/// The broker's clock counts milliseconds, so a time may end one early.
const TICK: Duration = Duration::from_millis(1);

/// Members the broker does not know, in no usual order, with odd spacing and escapes.
const STRANGE: &str = r#"{"zeta":  {"deep":[1, 2.50,-0e1,"\u00e9\/"]}, "ciphertext":"d","nonce":"b" ,"enc_session_key":"a","message_id":"odd", "note":"ü ☂"}"#;

#[test]
fn sigterm_says_good_bye_to_modern_clients_and_ends_the_process() {
    let mut server = Server::start();
    let mut modern = server.connect_modern();
    let mut legacy = server.connect();
    modern.ask("consume default_queue", "Subscribed to queue");
    legacy.ask("consume default_queue", "Subscribed to queue");
    server.terminate();
    modern.expect("Closing: SHUTTING_DOWN {text}");
    modern.expect_closed();
    legacy.expect_closed();
    assert!(server.wait().success(), "a stop that was asked for is no failure");
    assert!(TcpStream::connect(server.address()).is_err(), "it still listens");
}

#[test]
fn requests_sent_before_sigterm_have_an_answer_or_a_known_unknown_outcome() {
    let mut server = Server::start();
    let mut wire = server.connect_modern();
    let asked: String = (0..100).map(|n| format!("{}\n", publish(&n.to_string()))).collect();
    wire.send_bytes(asked.as_bytes());
    wire.expect("ACK 0");
    server.terminate();
    let mut next = 1;
    loop {
        let line = wire.line();
        if line.starts_with("Closing: SHUTTING_DOWN ") {
            break;
        }
        assert!(line == format!("ACK {next}") || line.starts_with("Error: SHUTTING_DOWN"), "{line}");
        next += 1;
    }
    wire.expect_closed();
    assert!(server.wait().success());
}

/// A connection that always has something to read must hear of the end all the same.
#[test]
fn a_client_that_floods_does_not_delay_the_end() {
    let mut server = Server::start();
    let wire = server.connect_modern();
    wire.stream().set_read_timeout(None).expect("none is allowed");
    let (mut writer, mut reader) =
        (wire.stream().try_clone().expect("a handle"), wire.stream().try_clone().expect("a handle"));
    let chunk = b"ping\n".repeat(10_000);
    let flood = std::thread::spawn(move || while writer.write_all(&chunk).is_ok() {});
    let drain = std::thread::spawn(move || {
        let mut replies = vec![0; 1 << 16];
        while reader.read(&mut replies).is_ok_and(|count| count > 0) {}
    });
    poll_until("the flood to arrive", || server.stat("request_times_avg_seconds")[0][2].as_u64() > Some(100_000));
    let told = Instant::now();
    server.terminate();
    assert!(server.wait().success());
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "it took {:?}, as if the connection had to be cut",
        told.elapsed()
    );
    flood.join().expect("it ends when the connection does");
    drain.join().expect("it ends when the connection does");
}

#[test]
fn a_session_shown_again_takes_the_leases_of_the_old_connection_back() {
    let server = Server::start();
    let mut old = server.connect();
    let session = old.hello();
    old.ask(&publish("1"), "ACK 1");
    old.ask("consume default_queue prefetch=1", "Subscribed to queue");
    old.expect("Message: 1 {rest}");

    let mut new = server.connect();
    new.ask(&format!("hello 1 session={session}"), &format!("Hello 1 {{a}} session={session} {{b}}"));
    // The lease was back before the reply: no waiting here.
    new.ask("fetch default_queue", "Fetched: 1 queue=default_queue attempt=2 {rest}");
    old.expect("Closing: TAKEN_OVER {text}");
    old.expect_closed();
    new.ask("ack 1", "ACK_CONFIRMED 1");
}

#[test]
fn an_unknown_session_gets_a_new_one() {
    let server = Server::start();
    let unknown = "0123456789abcdef0123456789abcdef";
    let mut wire = server.connect();
    let line = wire.ask(&format!("hello 1 session={unknown}"), "Hello 1 {fields}");
    assert!(!line.contains(unknown), "{line}");
    wire.ask("ping", "Pong");
}

#[test]
fn nack_uses_up_an_attempt_and_release_does_not() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    wire.ask(&publish("1"), "ACK 1");
    wire.ask("fetch default_queue", "Fetched: 1 queue=default_queue attempt=1 {rest}");
    wire.ask("release 1", "RELEASE_CONFIRMED 1");
    wire.ask("fetch default_queue", "Fetched: 1 queue=default_queue attempt=1 {rest}");
    wire.ask("nack 1", "NACK_CONFIRMED 1");
    wire.ask("fetch default_queue", "Fetched: 1 queue=default_queue attempt=2 {rest}");
    wire.ask("ack 1", "ACK_CONFIRMED 1");
}

#[test]
fn the_last_attempt_ends_in_the_dead_letter_queue_and_only_ack_or_purge_empties_it() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    wire.ask("declare_queue work max_attempts=2 dead_letter=graveyard", "Queue declared");
    wire.ask("bind default_exchange work w", "Queue bound");
    wire.ask(&format!("publish default_exchange w {}", envelope("1")), "ACK 1");
    wire.ask("consume work", "Subscribed to queue");
    for attempt in 1..=2 {
        wire.expect(&format!("Message: 1 queue=work attempt={attempt} {{rest}}"));
        wire.ask("nack 1", "NACK_CONFIRMED 1");
    }
    wire.ask("fetch graveyard", "Fetched: 1 queue=graveyard attempt=1 {fields} from=work reason=attempts {json}");
    wire.ask("reject 1", "Error: NOT_ALLOWED {text}");
    wire.ask("ack 1", "ACK_CONFIRMED 1");
    wire.ask("fetch graveyard", "No messages");
}

#[test]
fn a_delayed_message_comes_back_after_its_delay_and_not_before() {
    let delay = Duration::from_millis(400);
    let server = Server::start();
    let mut wire = server.connect_modern();
    for id in ["1", "2"] {
        wire.ask(&publish(id), &format!("ACK {id}"));
    }
    wire.ask("consume default_queue prefetch=1", "Subscribed to queue");
    wire.expect("Message: 1 {rest}");
    let asked = Instant::now();
    wire.ask("nack 1 delay=400", "NACK_CONFIRMED 1");
    wire.expect("Message: 2 {rest}");
    wire.ask("ack 2", "ACK_CONFIRMED 2");
    assert_eq!(server.queue("default_queue")["delayed"], 1);
    wire.expect("Message: 1 queue=default_queue attempt=2 {rest}");
    assert!(asked.elapsed() + TICK >= delay, "after {:?}", asked.elapsed());
}

#[test]
fn touch_keeps_a_lease_that_would_have_run_out() {
    let lease = Duration::from_millis(500);
    let server = Server::with(&["--lease-ms", "500"]);
    let mut worker = server.connect_modern();
    let mut clock = server.connect_modern();
    for id in ["kept", "clock"] {
        worker.ask(&publish(id), &format!("ACK {id}"));
    }
    worker.ask("fetch default_queue", "Fetched: kept {rest}");
    worker.ask("touch kept lease=60000", "TOUCH_CONFIRMED kept");
    // Another message with the usual lease, taken later, tells when the time is over.
    let taken = Instant::now();
    clock.ask("fetch default_queue", "Fetched: clock {rest}");
    clock.ask("consume default_queue", "Subscribed to queue");
    clock.expect("Message: clock queue=default_queue attempt=2 {rest}");
    assert!(taken.elapsed() + TICK >= lease, "after {:?}", taken.elapsed());
    worker.ask("ack kept", "ACK_CONFIRMED kept");
}

#[test]
fn a_lease_that_has_run_out_can_no_longer_be_settled() {
    let server = Server::with(&["--lease-ms", "300"]);
    let mut slow = server.connect_modern();
    let mut next = server.connect_modern();
    slow.ask(&publish("1"), "ACK 1");
    slow.ask("fetch default_queue", "Fetched: 1 {rest}");
    next.ask("consume default_queue", "Subscribed to queue");
    next.expect("Message: 1 queue=default_queue attempt=2 {rest}");
    slow.ask("ack 1", "Error: NOT_LEASED this connection holds no lease on '1'");
    next.ask("ack 1", "ACK_CONFIRMED 1");
}

#[test]
fn consumers_of_one_queue_take_turns_within_their_credit() {
    let server = Server::start();
    let mut publisher = server.connect_modern();
    let mut wide = server.connect_modern();
    let mut narrow = server.connect_modern();
    wide.ask("consume default_queue prefetch=10", "Subscribed to queue");
    narrow.ask("consume default_queue prefetch=2", "Subscribed to queue");
    for n in 0..8 {
        publisher.ask(&publish(&n.to_string()), &format!("ACK {n}"));
    }
    let narrow_ids: Vec<String> = (0..2).map(|_| id_of(&narrow.line())).collect();
    let wide_ids: Vec<String> = (0..6).map(|_| id_of(&wide.line())).collect();
    narrow.expect_nothing_else();
    wide.expect_nothing_else();
    let mut turns = [wide_ids[..2].to_vec(), narrow_ids].concat();
    turns.sort();
    assert_eq!(turns, ["0", "1", "2", "3"], "the first four were dealt in turn");
    assert_eq!(wide_ids[2..], ["4", "5", "6", "7"], "the rest went where there was credit");
}

#[test]
fn credit_changes_at_once_and_takes_nothing_back() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    for n in 0..6 {
        wire.ask(&publish(&n.to_string()), &format!("ACK {n}"));
    }
    wire.ask("consume default_queue prefetch=1", "Subscribed to queue");
    wire.expect("Message: 0 {rest}");
    wire.ask("consume default_queue prefetch=3", "Subscribed to queue");
    wire.expect("Message: 1 {rest}");
    wire.expect("Message: 2 {rest}");
    wire.ask("consume default_queue prefetch=1", "Subscribed to queue");
    for id in ["0", "1"] {
        wire.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"));
    }
    wire.expect_nothing_else();
    wire.ask("ack 2", "ACK_CONFIRMED 2");
    wire.expect("Message: 3 {rest}");
    wire.ask("cancel default_queue", "Consumer cancelled");
    wire.ask("ack 3", "ACK_CONFIRMED 3");
    wire.expect_nothing_else();
    wire.ask("fetch default_queue", "Fetched: 4 {rest}");
}

#[test]
fn the_envelope_arrives_byte_for_byte_through_redelivery_and_dead_lettering() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    let arrives = |wire: &mut Wire, queue: &str| {
        let line = wire.ask(&format!("fetch {queue}"), "Fetched: odd {rest}");
        assert_eq!(&line[line.find('{').expect("an envelope")..], STRANGE);
    };
    wire.ask(&format!("publish default_exchange default_key {STRANGE}"), "ACK odd");
    arrives(&mut wire, "default_queue");
    wire.ask("nack odd", "NACK_CONFIRMED odd");
    arrives(&mut wire, "default_queue");
    wire.ask("quit", "Bye");
    wire.expect_closed();

    let mut wire = server.connect_modern();
    arrives(&mut wire, "default_queue");
    wire.ask("reject odd", "REJECT_CONFIRMED odd");
    arrives(&mut wire, "default_queue.dlq");
    let mut legacy = server.connect();
    wire.ask("release odd", "RELEASE_CONFIRMED odd");
    assert_eq!(legacy.ask("fetch default_queue.dlq", "Message: odd {json}"), format!("Message: odd {STRANGE}"));
}

#[test]
fn a_lost_connection_gives_back_all_its_leases_in_order_and_counts_only_the_oldest() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    for n in 0..4 {
        wire.ask(&publish(&n.to_string()), &format!("ACK {n}"));
    }
    wire.ask("consume default_queue prefetch=3", "Subscribed to queue");
    for n in 0..3 {
        wire.expect(&format!("Message: {n} queue=default_queue attempt=1 {{rest}}"));
    }
    wire.close();
    poll_until("the leases to be back", || server.queue("default_queue")["ready"] == 4);
    let mut next = server.connect_modern();
    for (id, attempt) in [("0", 2), ("1", 1), ("2", 1), ("3", 1)] {
        next.ask("fetch default_queue", &format!("Fetched: {id} queue=default_queue attempt={attempt} {{rest}}"));
    }
}

#[test]
fn a_deleted_queue_cancels_its_consumers() {
    let server = Server::start();
    let mut admin = server.connect_modern();
    let mut consumer = server.connect_modern();
    admin.ask("declare_queue work", "Queue declared");
    admin.ask("bind default_exchange work w", "Queue bound");
    consumer.ask("consume work", "Subscribed to queue");
    admin.ask(&format!("publish default_exchange w {}", envelope("1")), "ACK 1");
    consumer.expect("Message: 1 {rest}");
    admin.ask("delete_queue work", "Error: NOT_EMPTY queue 'work' holds 1 message; add force=yes to delete them");
    admin.ask("delete_queue work force=yes", "Queue deleted");
    consumer.expect("Cancelled: work deleted");
    consumer.ask("ack 1", "Error: NOT_LEASED this connection holds no lease on '1'");
    consumer.ask("consume work", "Error: NOT_FOUND queue 'work'");
    admin.ask(&format!("publish default_exchange w {}", envelope("2")), "Error: NO_ROUTE {text}");
}

#[test]
fn several_bindings_store_a_copy_in_each_queue_and_each_is_settled_on_its_own() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    for queue in ["left", "right"] {
        wire.ask(&format!("declare_queue {queue}"), "Queue declared");
        wire.ask(&format!("bind default_exchange {queue} both"), "Queue bound");
    }
    wire.ask(&format!("publish default_exchange both {}", envelope("1")), "ACK 1");
    wire.ask("fetch left", "Fetched: 1 queue=left {rest}");
    wire.ask("fetch right", "Fetched: 1 queue=right {rest}");
    wire.ask("ack 1 queue=right", "ACK_CONFIRMED 1");
    wire.ask("nack 1", "NACK_CONFIRMED 1");
    wire.ask("fetch right", "No messages");
    wire.ask("fetch left", "Fetched: 1 queue=left attempt=2 {rest}");
    wire.ask("ack 1", "ACK_CONFIRMED 1");
}

#[test]
fn the_same_id_to_another_exchange_is_another_message() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    wire.ask("declare_exchange other", "Exchange declared");
    wire.ask("bind other default_queue k", "Queue bound");
    wire.ask(&publish("1"), "ACK 1");
    wire.ask(&format!("publish other k {}", envelope("1")), "ACK 1");
    wire.ask("fetch default_queue", "Fetched: 1 queue=default_queue attempt=1 exchange=default_exchange {rest}");
    wire.ask("fetch default_queue", "Fetched: 1 queue=default_queue attempt=1 exchange=other {rest}");
    wire.ask("ack 1", "ACK_CONFIRMED 1");
    wire.ask("ack 1", "ACK_CONFIRMED 1");
    wire.ask("ack 1", "Error: NOT_LEASED {text}");
}

#[test]
fn a_second_broker_on_the_same_address_ends_with_a_message() {
    let server = Server::start();
    let output = Server::run(&["serve", "--memory", "--listen", &server.address().to_string()]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&server.address().to_string()), "names the address: {text}");
    assert!(!text.contains("panicked"), "{text}");
    server.assert_serves();
}

#[test]
fn an_address_that_is_not_loopback_is_refused_with_what_to_do() {
    let output = Server::run(&["serve", "--memory", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("0.0.0.0"), "{text}");
    assert!(output.stdout.is_empty(), "it never said ready");
}

#[test]
fn the_protocol_needs_no_client() {
    // As netcat would: plain bytes out, plain bytes in, end of input ends the conversation.
    let server = Server::start();
    let mut socket = TcpStream::connect(server.address()).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    socket.write_all(format!("{}\nfetch default_queue\nack 1\n", publish("1")).as_bytes()).expect("taken");
    socket.shutdown(std::net::Shutdown::Write).expect("connected");
    let mut heard = String::new();
    socket.read_to_string(&mut heard).expect("answered and closed");
    assert_eq!(heard, format!("ACK 1\nMessage: 1 {}\nACK_CONFIRMED 1\n", envelope("1")));
}

fn publish(id: &str) -> String {
    format!("publish default_exchange default_key {}", envelope(id))
}

fn id_of(push: &str) -> String {
    push.strip_prefix("Message: ").and_then(|rest| rest.split(' ').next()).expect("a push").to_owned()
}
