//! What a client may get wrong: each has its defined reply, and the broker serves on as before.

use std::thread;

use system_tests::{Server, Wire, envelope, envelope_of};

/// A line of the default limit and one byte.
const TOO_LONG: usize = 1024 * 1024 + 1;

const RULE_QUEUE: &str = "a queue name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /";

/// Asks each line in modern mode; the broker must serve on after each of them.
fn refused_in_modern_mode(cases: &[(&str, &str)]) {
    let server = Server::start();
    let mut wire = server.connect_modern();
    for (line, reply) in cases {
        wire.ask(line, reply);
        server.assert_serves();
    }
    wire.expect_nothing_else();
}

/// Asks each line in legacy mode; the broker must serve on after each of them.
fn refused_in_legacy_mode(cases: &[(&str, &str)]) {
    let server = Server::start();
    let mut wire = server.connect();
    for (line, reply) in cases {
        wire.ask(line, reply);
        server.assert_serves();
    }
    wire.expect_nothing_else();
}

#[test]
fn a_line_too_long_is_refused_and_its_connection_closed() {
    let server = Server::start();
    for (greeting, reply) in [("ack 1", "Error: Line too long"), ("hello 1", "Error: LINE_TOO_LONG {text}")] {
        // With its end, without one, and with more behind it.
        for tail in ["\n", "", "\nack 2\n"] {
            let mut wire = server.connect();
            wire.send(greeting);
            wire.line();
            wire.send_bytes(format!("{}{tail}", "x".repeat(TOO_LONG)).as_bytes());
            wire.expect(reply);
            wire.expect_closed();
            server.assert_serves();
        }
    }
}

#[test]
fn a_line_that_is_not_utf8_is_refused() {
    let server = Server::start();
    for (mode, reply) in [("ack 1", "Error: Invalid UTF-8"), ("hello 1", "Error: BAD_UTF8 the line is not UTF-8")] {
        let mut wire = server.connect();
        wire.send(mode);
        wire.line();
        for bytes in [&b"\xff\n"[..], b"ping \xc3\x28\n", b"ack \xed\xa0\x80\n", b"\xf8\x88\x80\x80\x80\n"] {
            wire.send_bytes(bytes);
            wire.expect(reply);
        }
        // A character that is split over segments is none of these.
        wire.send_bytes(b"fetch \xc3");
        wire.send_bytes(b"\xbc\n");
        wire.expect("Error: {name_is_bad}");
        wire.expect_nothing_else();
        server.assert_serves();
    }
}

#[test]
fn nul_is_an_ordinary_wrong_byte() {
    refused_in_modern_mode(&[
        ("\0", r"Error: UNKNOWN_COMMAND '\u{0}'; try help"),
        ("ping\0", r"Error: UNKNOWN_COMMAND 'ping\u{0}'; try help"),
        ("declare_queue a\0b", &format!("Error: BAD_NAME {RULE_QUEUE}")),
        ("ack a\0b", "Error: BAD_ID {rule}"),
        (&publish("{\"message_id\":\"a\0b\"}"), "Error: BAD_ENVELOPE {detail}"),
        (
            &publish(r#"{"message_id":"a\u0000b","enc_session_key":"a","nonce":"b","ciphertext":"d"}"#),
            "Error: BAD_ID {rule}",
        ),
    ]);
    refused_in_legacy_mode(&[
        ("\0", "Unknown command"),
        ("declare_queue a\0b", r"Error: Invalid name 'a\u{0}b'"),
        (&publish("{\"message_id\":\"a\0b\"}"), "Invalid message format: {detail}"),
    ]);
}

#[test]
fn unknown_commands_are_named_as_such() {
    refused_in_modern_mode(&[
        ("frobnicate", "Error: UNKNOWN_COMMAND 'frobnicate'; try help"),
        ("", "Error: UNKNOWN_COMMAND ''; try help"),
        ("PING", "Error: UNKNOWN_COMMAND 'PING'; try help"),
        (" ping", "Error: UNKNOWN_COMMAND ''; try help"),
        (&"x".repeat(1000), &format!("Error: UNKNOWN_COMMAND '{}...'; try help", "x".repeat(64))),
    ]);
    refused_in_legacy_mode(&[("frobnicate", "Unknown command"), ("", "Unknown command"), ("PING", "Unknown command")]);
}

#[test]
fn missing_and_extra_arguments_are_named() {
    refused_in_modern_mode(&[
        ("declare_queue", "Error: MISSING_ARGUMENT queue"),
        ("declare_exchange", "Error: MISSING_ARGUMENT exchange"),
        ("bind default_exchange", "Error: MISSING_ARGUMENT queue"),
        ("bind default_exchange default_queue", "Error: MISSING_ARGUMENT key"),
        ("publish", "Error: MISSING_ARGUMENT exchange"),
        ("publish default_exchange", "Error: MISSING_ARGUMENT key"),
        ("publish default_exchange default_key", "Error: MISSING_ARGUMENT envelope"),
        ("publish_batch default_exchange default_key", "Error: MISSING_ARGUMENT envelopes"),
        ("consume", "Error: MISSING_ARGUMENT queue"),
        ("ack", "Error: MISSING_ARGUMENT id"),
        ("declare_exchange shop too-much", "Error: BAD_ARGUMENT unexpected 'too-much'"),
        ("ack 1 2", "Error: BAD_ARGUMENT unexpected '2'"),
        ("stats now", "Error: BAD_ARGUMENT unexpected 'now'"),
        ("quit now", "Error: BAD_ARGUMENT unexpected 'now'"),
        ("declare_queue  two-spaces", "Error: BAD_ARGUMENT tokens are separated by single spaces"),
        ("declare_queue q lease=0", "Error: BAD_OPTION lease is a number from 1 to 86400000"),
        ("declare_queue q lease=-1", "Error: BAD_OPTION lease is a number from 1 to 86400000"),
        ("declare_queue q lease=99999999999999999999999", "Error: BAD_OPTION lease is a number from 1 to 86400000"),
        ("declare_queue q lease=1 lease=1", "Error: BAD_OPTION option 'lease' stands twice"),
        ("declare_queue q colour=red", "Error: BAD_OPTION unknown option 'colour'"),
        ("delete_queue q force=maybe", "Error: BAD_OPTION force is {expected}"),
        ("hello", "Error: {already_sent_or_missing}"),
    ]);
}

#[test]
fn bad_names_are_refused_where_they_would_be_made_and_where_they_are_used() {
    let long = "q".repeat(256);
    let reserved = "q".repeat(252);
    refused_in_modern_mode(&[
        ("declare_queue bad*name", &format!("Error: BAD_NAME {RULE_QUEUE}")),
        ("declare_queue bad#name", &format!("Error: BAD_NAME {RULE_QUEUE}")),
        ("declare_queue ü", &format!("Error: BAD_NAME {RULE_QUEUE}")),
        (&format!("declare_queue {long}"), "Error: BAD_NAME {rule}"),
        (&format!("declare_queue {reserved}"), "Error: BAD_NAME {rule}"),
        ("declare_exchange a\"b", "Error: BAD_NAME {rule}"),
        ("bind default_exchange default_queue bad*key", "Error: BAD_NAME {rule}"),
        ("consume bad*name", "Error: BAD_NAME {rule}"),
        (&format!("fetch {long}"), "Error: BAD_NAME {rule}"),
        (&format!("ack {}", "i".repeat(256)), "Error: BAD_ID {rule}"),
        ("ack ü", "Error: BAD_ID {rule}"),
    ]);
    let server = Server::start();
    let mut wire = server.connect_modern();
    wire.ask(&format!("declare_queue {} dead_letter=dead", "q".repeat(255)), "Queue declared");
    wire.ask(&format!("declare_queue {}", "q".repeat(251)), "Queue declared");
}

#[test]
fn envelopes_that_are_not_json_miss_members_or_have_wrong_types_are_refused() {
    let cases = [
        ("nonsense", "{detail}"),
        ("{", "EOF while parsing{where}"),
        (r#"{"message_id":"1"} trailing"#, "{detail}"),
        (r#"["message_id"]"#, "{detail}"),
        ("null", "{detail}"),
        ("\"text\"", "{detail}"),
        ("{}", "missing field `message_id`{where}"),
        (r#"{"message_id":"1"}"#, "missing field `enc_session_key`{where}"),
        (r#"{"message_id":"1","enc_session_key":"a"}"#, "missing field `nonce`{where}"),
        (r#"{"message_id":"1","enc_session_key":"a","nonce":"b"}"#, "missing field `ciphertext`{where}"),
        (r#"{"message_id":1,"enc_session_key":"a","nonce":"b","ciphertext":"d"}"#, "invalid type: integer `1`{where}"),
        (r#"{"message_id":"1","enc_session_key":null,"nonce":"b","ciphertext":"d"}"#, "invalid type: null{where}"),
        (r#"{"message_id":"1","enc_session_key":"a","nonce":["b"],"ciphertext":"d"}"#, "invalid type: sequence{where}"),
        (
            r#"{"message_id":"1","enc_session_key":"a","nonce":"b","ciphertext":"d","tag":{}}"#,
            "invalid type: map{where}",
        ),
        (
            r#"{"message_id":"1","message_id":"2","enc_session_key":"a","nonce":"b","ciphertext":"d"}"#,
            "duplicate field `message_id`{where}",
        ),
        (
            r#"{"message_id":"1","enc_session_key":"a","nonce":"b","ciphertext":"d","x":1,"x":1}"#,
            "duplicate field `x`{where}",
        ),
        (r#"{"message_id":"1","enc_session_key":"a","nonce":"b","ciphertext":"\ud800"}"#, "{detail}"),
    ];
    let publishes = cases.map(|(json, _)| publish(json));
    let modern = cases.map(|(_, detail)| format!("Error: BAD_ENVELOPE {detail}"));
    let legacy = cases.map(|(_, detail)| format!("Invalid message format: {detail}"));
    refused_in_modern_mode(&pairs(&publishes, &modern));
    refused_in_legacy_mode(&pairs(&publishes, &legacy));
}

#[test]
fn json_nested_100_000_deep_is_refused_and_harms_nobody() {
    let deep = ["[", r#"{"a":"#].map(|open| {
        publish(&format!(
            r#"{{"message_id":"1","enc_session_key":"a","nonce":"b","ciphertext":"d","x":{}"#,
            open.repeat(100_000)
        ))
    });
    let batch = format!("publish_batch default_exchange default_key {}", "[".repeat(100_000));
    refused_in_modern_mode(&[
        (&deep[0], "Error: BAD_ENVELOPE recursion limit exceeded{where}"),
        (&deep[1], "Error: BAD_ENVELOPE recursion limit exceeded{where}"),
        (&batch, "Error: BAD_ENVELOPE {detail}"),
    ]);
    refused_in_legacy_mode(&[
        (&deep[0], "Invalid message format: recursion limit exceeded{where}"),
        (&batch, "Invalid batch format: {detail}"),
    ]);
}

#[test]
fn unknown_queues_and_exchanges_are_named() {
    let bad_publish = format!("publish nowhere k {}", envelope("1"));
    refused_in_modern_mode(&[
        (&bad_publish, "Error: NOT_FOUND exchange 'nowhere'"),
        (
            &publish_to("nobody", "1"),
            "Error: NO_ROUTE no queue is bound to exchange 'default_exchange' with key 'nobody'",
        ),
        ("consume nowhere", "Error: NOT_FOUND queue 'nowhere'"),
        ("fetch nowhere", "Error: NOT_FOUND queue 'nowhere'"),
        ("purge nowhere", "Error: NOT_FOUND queue 'nowhere'"),
        ("delete_queue nowhere", "Error: NOT_FOUND queue 'nowhere'"),
        ("delete_exchange nowhere", "Error: NOT_FOUND exchange 'nowhere'"),
        ("bind nowhere default_queue k", "Error: NOT_FOUND exchange 'nowhere'"),
        ("unbind default_exchange default_queue k", "Error: NOT_FOUND {text}"),
        ("unbind default_exchange default_queue default_key", "Error: NOT_ALLOWED {text}"),
        ("help frobnicate", "Error: NOT_FOUND {text}"),
    ]);
}

#[test]
fn consuming_twice_sets_the_credit_and_delivers_nothing_twice() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    for id in ["1", "2"] {
        wire.ask(&publish(&envelope(id)), &format!("ACK {id}"));
    }
    wire.ask("consume default_queue prefetch=1", "Subscribed to queue");
    wire.expect("Message: 1 {rest}");
    wire.ask("consume default_queue prefetch=2", "Subscribed to queue");
    wire.expect("Message: 2 {rest}");
    wire.expect_nothing_else();
    assert_eq!(server.queue("default_queue")["consumers"], 1);

    let mut legacy = server.connect();
    legacy.ask("consume default_queue", "Subscribed to queue");
    legacy.ask("consume default_queue", "Subscribed to queue");
    assert_eq!(server.queue("default_queue")["consumers"], 2);
    wire.ask(&publish(&envelope("3")), "ACK 3");
    legacy.expect("Message: 3 {rest}");
    legacy.expect_nothing_else();
    server.assert_serves();
}

#[test]
fn ids_that_are_foreign_unknown_or_settled_cannot_be_settled_in_modern_mode() {
    let server = Server::start();
    let mut holder = server.connect_modern();
    let mut other = server.connect_modern();
    holder.ask(&publish(&envelope("1")), "ACK 1");
    holder.ask("fetch default_queue", "Fetched: 1 {rest}");
    for verb in ["ack", "nack", "release", "reject", "touch"] {
        other.ask(&format!("{verb} 1"), "Error: NOT_LEASED this connection holds no lease on '1'");
        other.ask(&format!("{verb} never-seen"), "Error: NOT_LEASED this connection holds no lease on 'never-seen'");
        holder.ask(&format!("{verb} 1 queue=elsewhere"), "Error: NOT_LEASED this connection holds no lease on '1'");
    }
    holder.ask("ack 1", "ACK_CONFIRMED 1");
    for verb in ["ack", "nack", "release", "reject", "touch"] {
        holder.ask(&format!("{verb} 1"), "Error: NOT_LEASED this connection holds no lease on '1'");
    }
    server.assert_serves();
}

#[test]
fn a_half_closed_connection_gets_the_replies_it_asked_for() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    wire.send(&publish(&envelope("1")));
    wire.send_bytes(b"fetch default_queue\nping half");
    wire.half_close();
    wire.expect("ACK 1");
    wire.expect("Fetched: 1 {rest}");
    wire.expect_closed();
    // The line without an end was never asked, and the lease is back.
    server.connect_modern().ask("fetch default_queue", "Fetched: 1 {rest}");
    server.assert_serves();
}

/// The end of input is seen while most of it still waits for the bound on open replies.
#[test]
fn all_that_was_sent_before_a_half_close_is_answered() {
    const REQUESTS: usize = 9000;
    let server = Server::start();
    let mut wire = server.connect_modern();
    let requests: String = (0..REQUESTS).map(|n| format!("{}\n", publish(&envelope(&n.to_string())))).collect();
    wire.send_bytes(requests.as_bytes());
    wire.half_close();
    (0..REQUESTS).for_each(|n| drop(wire.expect(&format!("ACK {n}"))));
    wire.expect_closed();
    server.assert_serves();
}

#[test]
fn a_reset_in_mid_line_costs_only_that_line() {
    let server = Server::start();
    let mut publisher = server.connect();
    publisher.ask(&publish(&envelope("1")), "ACK 1");
    for partial in ["publish default_exchange default_key {\"message_id\":\"2\",", "fetch default_que"] {
        let consumer = server.connect();
        consumer.reset_after(partial);
        server.assert_serves();
    }
    publisher.ask("fetch default_queue", "Message: 1 {json}");
    publisher.ask("fetch default_queue", "No messages");
}

#[test]
fn ten_thousand_requests_in_one_write_are_all_answered_in_order() {
    const REQUESTS: usize = 10_000;
    let server = Server::start();
    for (mode, reply) in [("ack 1", "ACK_CONFIRMED "), ("hello 1", "Pong ")] {
        let mut wire = server.connect();
        wire.send(mode);
        wire.line();
        let verb = if mode == "hello 1" { "ping" } else { "ack" };
        let requests: String = (0..REQUESTS).map(|n| format!("{verb} {n}\n")).collect();
        // The replies are read meanwhile: a client that does not read is another test.
        let writer = wire.stream().try_clone().expect("a socket");
        let writing = thread::spawn(move || std::io::Write::write_all(&mut &writer, requests.as_bytes()));
        for n in 0..REQUESTS {
            assert_eq!(wire.line(), format!("{reply}{n}"));
        }
        writing.join().expect("the writer runs").expect("all is taken");
        wire.expect_nothing_else();
    }
    server.assert_serves();
}

#[test]
fn ten_thousand_publishes_in_one_write_are_all_stored() {
    const REQUESTS: usize = 10_000;
    let server = Server::start();
    let mut wire = server.connect();
    let requests: String = (0..REQUESTS).map(|n| format!("{}\n", publish(&envelope(&n.to_string())))).collect();
    let writer = wire.stream().try_clone().expect("a socket");
    let writing = thread::spawn(move || std::io::Write::write_all(&mut &writer, requests.as_bytes()));
    for n in 0..REQUESTS {
        assert_eq!(wire.line(), format!("ACK {n}"));
    }
    writing.join().expect("the writer runs").expect("all is taken");
    assert_eq!(server.queue("default_queue")["ready"], REQUESTS);
    server.assert_serves();
}

#[test]
fn hello_is_refused_twice_and_behind_a_subscription() {
    let server = Server::start();
    let mut wire = server.connect();
    wire.ask("hello 2", "Error: BAD_VERSION this server speaks version 1");
    wire.ask("ping", "Unknown command");
    wire.ask("consume default_queue", "Subscribed to queue");
    wire.ask("hello 1", "Error: NOT_ALLOWED {text}");
    wire.ask("ping", "Unknown command");
    let mut modern = server.connect_modern();
    modern.ask("hello 1", "Error: NOT_ALLOWED hello was already sent");
    modern.ask("ping", "Pong");
    server.assert_serves();
}

#[test]
fn a_batch_with_one_bad_envelope_stores_nothing() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    let batch = |items: &[String]| format!("publish_batch default_exchange default_key [{}]", items.join(","));
    let missing = r#"{"message_id":"2"}"#.to_owned();
    wire.ask(&batch(&[envelope("1"), missing]), "Error: BAD_ENVELOPE envelope 2: missing field{where}");
    wire.ask(&batch(&[]), "Error: BAD_ENVELOPE {detail}");
    wire.ask(&format!("publish_batch default_exchange default_key {}", envelope("1")), "Error: BAD_ENVELOPE {detail}");
    wire.ask("fetch default_queue", "No messages");
    server.assert_serves();
}

#[test]
fn an_envelope_of_many_members_is_bounded() {
    let server = Server::start();
    let mut wire: Wire = server.connect_modern();
    let members = |n: usize| (0..n).map(|n| format!(r#","x{n}":{n}"#)).collect::<String>();
    let with = |id: &str, n: usize| envelope(id).replace('}', &format!("{}}}", members(n)));
    wire.ask(&publish(&with("1", 1000)), "ACK 1");
    wire.ask(&publish(&with("2", 50_000)), "Error: BAD_ENVELOPE more than {rest}");
    wire.ask(&publish(&envelope_of("3", 1000)), "ACK 3");
    server.assert_serves();
}

fn publish(envelope: &str) -> String {
    format!("publish default_exchange default_key {envelope}")
}

fn publish_to(key: &str, id: &str) -> String {
    format!("publish default_exchange {key} {}", envelope(id))
}

fn pairs<'a>(lines: &'a [String], replies: &'a [String]) -> Vec<(&'a str, &'a str)> {
    lines.iter().map(String::as_str).zip(replies.iter().map(String::as_str)).collect()
}
