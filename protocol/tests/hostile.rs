//! Bad input: each fault has its reply, in both modes, of one short line.

use ciphermq_protocol::limits::{BATCH_MESSAGES_MAX, ERROR_BYTES_MAX, JSON_DEPTH_MAX};
use ciphermq_protocol::text::legacy::{LegacyError, LegacyReply};
use ciphermq_protocol::{Code, Command, Dialect, Echo, Envelope, LineTooLong, Reply, ServerLine, parse_batch};

const ENVELOPE: &str = r#"{"message_id":"m-1","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"d"}"#;

#[test]
fn every_fault_of_a_modern_line_is_named() {
    let long = "n".repeat(256);
    let no_room = "n".repeat(252);
    let cases: &[(&[u8], &str)] = &[
        (b"", "UNKNOWN_COMMAND ''; try help"),
        (b"frobnicate", "UNKNOWN_COMMAND 'frobnicate'; try help"),
        (b"PING", "UNKNOWN_COMMAND 'PING'; try help"),
        (b"\0\x1b[2J", "UNKNOWN_COMMAND '\\u{0}\\u{1b}[2J'; try help"),
        (b"declare_queue \xff", "BAD_UTF8 the line is not UTF-8"),
        (b"declare_queue a\0b", "BAD_NAME a queue name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (b"declare_queue bad*name", "BAD_NAME a queue name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (b"declare_exchange #", "BAD_NAME an exchange name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (b"bind e q k*", "BAD_NAME a routing key is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (b"hello 1 name=%", "BAD_NAME a client name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (b"declare_queue", "MISSING_ARGUMENT queue"),
        (b"declare_exchange", "MISSING_ARGUMENT exchange"),
        (b"publish default_exchange", "MISSING_ARGUMENT key"),
        (b"publish e k", "MISSING_ARGUMENT envelope"),
        (b"publish e k ", "MISSING_ARGUMENT envelope"),
        (b"publish_batch e k", "MISSING_ARGUMENT envelopes"),
        (b"bind e q", "MISSING_ARGUMENT key"),
        (b"ack", "MISSING_ARGUMENT id"),
        (b"hello", "MISSING_ARGUMENT version"),
        (b"hello 2", "BAD_VERSION this server speaks version 1"),
        (b"hello 01", "BAD_VERSION this server speaks version 1"),
        (b"cancel default_queue now", "BAD_ARGUMENT unexpected 'now'"),
        (b"quit now", "BAD_ARGUMENT unexpected 'now'"),
        (b"quit ", "BAD_ARGUMENT tokens are separated by single spaces"),
        (b"fetch  q", "BAD_ARGUMENT tokens are separated by single spaces"),
        (b"publish e k  {}", "BAD_ARGUMENT tokens are separated by single spaces"),
        (b"ping a\x07", "BAD_ARGUMENT the text of ping is at most 64 bytes without spaces and control characters"),
        (b"consume default_queue prefetch=0", "BAD_OPTION prefetch is a number from 1 to 65535"),
        (b"consume q prefetch=65536", "BAD_OPTION prefetch is a number from 1 to 65535"),
        (b"consume q prefetch=+1", "BAD_OPTION prefetch is a number from 1 to 65535"),
        (b"consume q prefetch=", "BAD_OPTION prefetch is a number from 1 to 65535"),
        (b"consume default_queue colour=red", "BAD_OPTION unknown option 'colour'"),
        (b"consume q prefetch=1 prefetch=1", "BAD_OPTION option 'prefetch' stands twice"),
        (b"delete_queue q force=no", "BAD_OPTION force is yes, or left out"),
        (b"cancel q force=yes", "BAD_OPTION unknown option 'force'"),
        (b"announce_key c", "MISSING_ARGUMENT announcement"),
        (b"announce_key c AAAA now", "BAD_ARGUMENT unexpected 'now'"),
        (b"announce_key c AAAA seq=1", "BAD_OPTION unknown option 'seq'"),
        (b"lookup_key c*", "BAD_NAME a client id is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (b"lookup_key c d", "BAD_ARGUMENT unexpected 'd'"),
        (b"key_history c from=0", "BAD_OPTION from is a number from 1 to 9007199254740991"),
        (b"key_history c from=9007199254740992", "BAD_OPTION from is a number from 1 to 9007199254740991"),
        (b"key_history c limit=33", "BAD_OPTION limit is a number from 1 to 32"),
        (b"register_key c", "MISSING_ARGUMENT public_key"),
        (b"register_public_key AAAA AAAA", "BAD_ARGUMENT unexpected 'AAAA'"),
        (b"resend", "MISSING_ARGUMENT id"),
        (b"publish e k ttl=5 {}", "BAD_OPTION unknown option 'ttl'"),
        (b"nack m delay=31536000001", "BAD_OPTION delay is a number from 0 to 31536000000"),
        (b"touch m lease=86400001", "BAD_OPTION lease is a number from 1 to 86400000"),
        (b"fetch q lease=000000000000000000001", "BAD_OPTION lease is a number from 1 to 86400000"),
        (b"list_queues limit=10001", "BAD_OPTION limit is a number from 1 to 10000"),
        (
            b"declare_queue q durability=fsync",
            "BAD_OPTION durability is sync, none, or interval:<ms> with 1 to 60000 ms",
        ),
        (
            b"declare_queue q max_bytes=18446744073709551616",
            "BAD_OPTION max_bytes is a number from 0 to 18446744073709551615",
        ),
        (b"ack \"m\"", "BAD_ID a message id is 1 to 255 bytes of printable ASCII without space, \", \\ and {"),
        (b"status m\xc3\xbc", "BAD_ID a message id is 1 to 255 bytes of printable ASCII without space, \", \\ and {"),
        (&[b"fetch ", long.as_bytes()].concat(), "BAD_NAME a queue name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (
            &[b"declare_queue ", no_room.as_bytes()].concat(),
            "BAD_NAME a queue name without dead_letter= is 1 to 251 bytes of A-Z a-z 0-9 . _ - : /",
        ),
    ];
    for (line, expected) in cases {
        let error = Command::parse(line, Dialect::Modern).expect_err(expected);
        assert_eq!(format!("{} {error}", error.code()), *expected, "{}", line.escape_ascii());
    }
    let with_dlq = format!("declare_queue {no_room} dead_letter=dead");
    assert!(Command::parse(with_dlq.as_bytes(), Dialect::Modern).is_ok());
}

#[test]
fn every_fault_of_a_legacy_line_has_the_originals_text() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "Unknown command"),
        (b"   ", "Unknown command"),
        (b"frobnicate", "Unknown command"),
        (b"ping", "Unknown command"),
        (b"quit", "Unknown command"),
        (b"cancel q", "Unknown command"),
        (b"declare_queue", "Missing queue name"),
        (b"declare_queue \t ", "Missing queue name"),
        (b"consume", "Missing queue name"),
        (b"fetch", "Missing queue name"),
        (b"declare_exchange", "Missing exchange name"),
        (b"bind a b", "Missing parameters"),
        (b"bind", "Missing parameters"),
        (b"publish", "Missing parameters"),
        (b"publish e", "Missing parameters"),
        (b"publish e k", "Missing parameters"),
        (b"publish e k  ", "Missing parameters"),
        (b"publish_batch e k", "Missing parameters"),
        (b"ack", "Missing message ID"),
        (b"resend", "Missing message ID"),
        (b"register_public_key", "Missing public key"),
        (b"register_key", "Missing client ID or public key"),
        (b"register_key a", "Missing client ID or public key"),
        (b"register_key a*b c", "Error: Invalid name 'a*b'"),
        (b"get_key", "Missing client ID"),
        (b"get_public_key ", "Missing client ID"),
        (b"announce_key a b", "Unknown command"),
        (b"declare_queue \xff", "Error: Invalid UTF-8"),
        (b"declare_queue a*b", "Error: Invalid name 'a*b'"),
        (b"declare_queue a\0b", "Error: Invalid name 'a\\u{0}b'"),
        (b"hello", "Error: MISSING_ARGUMENT version"),
        (b"hello 2", "Error: BAD_VERSION this server speaks version 1"),
        (b"hello 1 colour=red", "Error: BAD_OPTION unknown option 'colour'"),
        (b"hello 1 name=%", "Error: BAD_NAME a client name is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /"),
        (b"hello 1 now", "Error: BAD_ARGUMENT unexpected 'now'"),
    ];
    for (line, expected) in cases {
        let error = Command::parse(line, Dialect::Legacy).expect_err(expected);
        assert_eq!(error.legacy_text(), *expected, "{}", line.escape_ascii());
        let mut out = Vec::new();
        LegacyReply::BadRequest(&error).encode(&mut out);
        assert_eq!(out, format!("{expected}\n").into_bytes());
    }
}

#[test]
fn legacy_lines_are_read_as_the_originals_read_them() {
    let parse = |line: &'static str| format!("{:?}", Command::parse(line.as_bytes(), Dialect::Legacy).unwrap());
    assert_eq!(parse(" \tconsume   jobs  and more "), parse("consume jobs"));
    assert_eq!(parse("publish e  k   {\"a\": 1}  "), parse("publish e k {\"a\": 1}"));
    assert_eq!(parse("stats now"), parse("stats"));
    assert_eq!(parse("ack \"strange\\id\" x"), r#"Ack { id: "\"strange\\id\"", queue: None }"#);
    assert_eq!(parse("bind a b k"), r#"BindEitherWay { first: Name("a"), second: Name("b"), key: Name("k") }"#);
    assert_eq!(parse(" hello 1 name=x "), r#"Hello { name: Some(Name("x")), session: None }"#);
}

#[test]
fn every_fault_of_an_envelope_is_named() {
    let replaced = |from: &str, to: &str| ENVELOPE.replacen(from, to, 1);
    let member = |text: &str| format!("{},{text}}}", &ENVELOPE[..ENVELOPE.len() - 1]);
    let extra: String = (0..1025).map(|number| format!(",\"x{number}\":0")).collect();
    let id_rule = "a message id is 1 to 255 bytes of printable ASCII without space, \", \\ and {";
    let cases = [
        (String::new(), "EOF while parsing a value"),
        ("nonsense".into(), "expected ident"),
        ("5".into(), "invalid type: integer `5`, expected an envelope"),
        ("[]".into(), "invalid type: sequence, expected an envelope"),
        (format!("\"{}\"", "x".repeat(100_000)), "invalid type: string, expected an envelope"),
        (r#"{"message_id":"m-3"}"#.into(), "missing field `enc_session_key` at line 1 column 20"),
        (replaced("message_id", "id"), "missing field `message_id`"),
        (replaced("nonce", "once"), "missing field `nonce`"),
        (replaced("ciphertext", "text"), "missing field `ciphertext`"),
        (replaced("\"a\"", "5"), "invalid type: integer `5`, expected a string"),
        (replaced("\"m-1\"", "[\"m-1\"]"), "invalid type: sequence, expected a string"),
        (replaced("\"d\"", "null"), "invalid type: null, expected a string"),
        (replaced("\"c\"", "null"), "invalid type: null, expected a string"),
        (replaced("\"c\"", "{}"), "invalid type: map, expected a string"),
        (member("\"nonce\":\"x\""), "duplicate field `nonce`"),
        (member("\"tag\":\"x\""), "duplicate field `tag`"),
        (member("\"message\\u005fid\":\"x\""), "duplicate field `message_id`"),
        (member("\"note\":1,\"note\":2"), "duplicate field `note`"),
        (member(&extra[1..]), "more than 1024 additional members"),
        (format!("{ENVELOPE}{ENVELOPE}"), "trailing characters"),
        (ENVELOPE[..ENVELOPE.len() - 1].into(), "EOF while parsing an object"),
        ("{".repeat(100_000), "key must be a string"),
        (member(&format!("\"deep\":{}", "[".repeat(100_000))), "recursion limit exceeded"),
        (
            member(&format!("\"deep\":{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000))),
            "recursion limit exceeded",
        ),
        (replaced("m-1", "m\0"), "control character"),
        (replaced("m-1", "\\ud800"), "unexpected end of hex escape"),
        (replaced(",", ",\r"), "line break in the envelope"),
        (replaced(",", ",\n"), "line break in the envelope"),
        (replaced("m-1", "\\u0000"), id_rule),
        (replaced("m-1", "m 1"), id_rule),
        (replaced("m-1", "\\\""), id_rule),
        (replaced("m-1", "grün"), id_rule),
        (replaced("m-1", &"m".repeat(256)), id_rule),
    ];
    for (text, expected) in cases {
        let error = Envelope::parse(&text).expect_err(expected);
        let shown = error.to_string();
        assert!(shown.contains(expected), "{shown:?} instead of {expected:?}");
        assert!(shown.len() <= ERROR_BYTES_MAX && !shown.contains(char::is_control), "{shown:?}");
        assert_eq!(error.code(), if expected == id_rule { Code::BadId } else { Code::BadEnvelope });
    }
}

#[test]
fn nesting_is_allowed_up_to_the_limit_and_no_deeper() {
    let nested = |depth: usize| {
        let inner = depth - 1;
        format!("{},\"x\":{}{}}}", &ENVELOPE[..ENVELOPE.len() - 1], "[".repeat(inner), "]".repeat(inner))
    };
    assert!(Envelope::parse(&nested(JSON_DEPTH_MAX - 1)).is_ok());
    assert!(Envelope::parse(&nested(JSON_DEPTH_MAX)).is_err());
}

#[test]
fn a_batch_is_valid_as_a_whole_or_not_at_all() {
    let array = |count: usize| format!("[{}]", vec![ENVELOPE; count].join(","));
    assert_eq!(parse_batch(&array(BATCH_MESSAGES_MAX)).unwrap().len(), BATCH_MESSAGES_MAX);
    let cases = [
        (array(BATCH_MESSAGES_MAX + 1), "more than 1000 envelopes"),
        ("[]".into(), "an empty array"),
        ("nonsense".into(), "expected ident"),
        (format!("\"{}\"", "x".repeat(100_000)), "invalid type: string, expected an array of envelopes"),
        (ENVELOPE.into(), "invalid type: map, expected an array of envelopes"),
        (format!("[{ENVELOPE},{{}}]"), "envelope 2: missing field `message_id`"),
        (format!("[{ENVELOPE},5]"), "envelope 2: invalid type: integer `5`"),
        (format!("[{ENVELOPE}]]"), "trailing characters"),
        (format!("[{ENVELOPE}"), "EOF while parsing a list"),
        ("[".repeat(100_000), "EOF while parsing a list"),
    ];
    for (text, expected) in cases {
        let shown = parse_batch(&text).expect_err(expected).to_string();
        assert!(shown.contains(expected), "{shown:?} instead of {expected:?}");
    }
    assert_eq!(parse_batch(&format!("[{}]", ENVELOPE.replace("m-1", "m 1"))).unwrap_err().code(), Code::BadId);
}

#[test]
fn what_a_peer_sent_is_repeated_escaped_and_cut() {
    assert_eq!(Echo("a\r\nb\u{1b}ü").to_string(), "a\\r\\nb\\u{1b}\\u{fc}");
    assert_eq!(Echo(&"x".repeat(64)).to_string(), "x".repeat(64));
    assert_eq!(Echo(&"x".repeat(65)).to_string(), format!("{}...", "x".repeat(64)));
    assert_eq!(Echo(&"ü".repeat(33)).to_string(), format!("{}...", "\\u{fc}".repeat(32)));
    let mut out = Vec::new();
    Reply::encode_error(&mut out, Code::Storage, &"two\nlines");
    assert_eq!(out, b"Error: STORAGE two?lines\n");
}

#[test]
fn a_line_too_long_says_how_long_it_may_be() {
    assert_eq!(LineTooLong { max: 4096 }.to_string(), "a line has at most 4096 bytes");
}

#[test]
fn legacy_errors_have_the_texts_of_the_contract() {
    let cases = [
        (LegacyError::ExchangeNotFound("e"), "Error: Exchange 'e' not found\n"),
        (LegacyError::NoBinding("k"), "Error: No binding found for routing key 'k'\n"),
        (LegacyError::QueueFull("q"), "Error: Queue 'q' is full\n"),
        (LegacyError::StoreFull, "Error: Store is full\n"),
        (LegacyError::DiskFull, "Error: Disk is full\n"),
        (LegacyError::StorageFailure, "Error: Storage failure\n"),
        (LegacyError::ShuttingDown, "Error: Server is shutting down\n"),
        (LegacyError::LimitReached("queues"), "Error: Limit reached: queues\n"),
        (LegacyError::InvalidName("a b"), "Error: Invalid name 'a b'\n"),
        (LegacyError::LineTooLong, "Error: Line too long\n"),
    ];
    for (error, expected) in cases {
        let mut out = Vec::new();
        LegacyReply::Error(error).encode(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
    let bad = Envelope::parse("{}").unwrap_err();
    let mut out = Vec::new();
    LegacyReply::BatchError { error: LegacyError::ExchangeNotFound("e"), id: "m-1" }.encode(&mut out);
    LegacyReply::BadEnvelope(&bad).encode(&mut out);
    LegacyReply::BadBatch(&bad).encode(&mut out);
    LegacyReply::Message { id: "m-1", envelope: "{}" }.encode(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "Error: Exchange 'e' not found for message m-1\n\
         Invalid message format: missing field `message_id` at line 1 column 2\n\
         Invalid batch format: missing field `message_id` at line 1 column 2\n\
         Message: m-1 {}\n"
    );
    assert_eq!(LegacyReply::message_bytes("m-1", "{}"), "Message: m-1 {}\n".len());
}

#[test]
fn a_client_refuses_what_is_no_line_of_the_protocol() {
    for line in [
        &b""[..],
        b"Guten Tag",
        b"ACK",
        b"ACK two words",
        b"ACK \xff",
        b"Purged many",
        b"Hello 2 server=x",
        b"Hello 1 server=x",
        b"Message: m",
        b"Message: m queue=q",
        b"Message: m {}",
        b"Message: m nonsense {}",
        b"Message: m queue=q attempt=4294967296 exchange=e key=k published=1 {}",
        b"Fetched:  queue=q attempt=1 exchange=e key=k published=1 {}",
        b"Cancelled: q",
    ] {
        assert!(ServerLine::parse(line).is_err(), "{}", line.escape_ascii());
    }
}
