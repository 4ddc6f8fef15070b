//! Vectors made by another implementation (tests/vectors/envelope-v2, Python `cryptography`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{
    Collected, Context, Keyset, OpenPolicy, Opened, Opener, PartCollector, PartLimits, PrivateKey, Sender, SenderKey,
};
use cipher_client::trust::{SenderPolicy, Senders};
use cipher_client::{Error, ErrorKind, Result};
use serde_json::Value;

fn vectors(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/envelope-v2");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap();
    assert_eq!(vectors["format"], "ciphermq-envelope-vectors-2");
    vectors
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))
}

/// The keys and senders of all vectors.
struct Known(Value);

impl Known {
    fn key(&self, name: &str) -> PrivateKey {
        PrivateKey::from_pem(text(&self.0["keys"][name], "pkcs8")).unwrap()
    }

    fn senders(&self, case: &Value) -> SenderPolicy {
        let Some(names) = case["senders"]["known"].as_array() else { return SenderPolicy::default() };
        let senders = Arc::new(Senders::in_memory());
        for name in names {
            let name = name.as_str().unwrap();
            senders.add(name, SenderKey::from_pem(text(&self.0["senders"][name], "spki")).unwrap()).unwrap();
        }
        match case["senders"]["require"] == true {
            true => SenderPolicy::require_signed(senders),
            false => SenderPolicy::allow_unsigned(senders),
        }
    }

    fn opener(&self, case: &Value) -> Opener {
        let mut keys = case["keys"].as_array().unwrap().iter().map(|name| self.key(name.as_str().unwrap()));
        let mut keyset = Keyset::new(keys.next().unwrap());
        for key in keys {
            keyset = keyset.with_retired(key).unwrap();
        }
        // No failure here may be put down to the failures before it.
        let policy = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
        Opener::builder(&keyset).policy(policy).senders(self.senders(case)).build().unwrap()
    }

    fn open(&self, case: &Value) -> Result<Opened> {
        let (opener, envelope) = (self.opener(case), text(case, "envelope"));
        match case["delivered"].as_array() {
            None => opener.open(envelope),
            Some(place) => {
                opener.open_for(envelope, &Context::new(place[0].as_str().unwrap(), place[1].as_str().unwrap()))
            }
        }
    }
}

fn assert_opened(opened: &Opened, expected: &Value, id: &str) {
    let Some(expected) = expected.as_object() else { return };
    for (name, expected) in expected {
        match (name.as_str(), expected) {
            ("suite", suite) => assert_eq!(opened.suite.name(), suite, "{id}"),
            ("sender", Value::Null) => assert_eq!(opened.sender, Sender::Unsigned, "{id}"),
            ("sender", Value::String(kid)) => assert_eq!(opened.sender, Sender::Signed(kid.parse().unwrap()), "{id}"),
            ("sender", kid) => {
                assert_eq!(opened.sender, Sender::Unknown(kid[1].as_str().unwrap().parse().unwrap()), "{id}");
            }
            ("context", context) => {
                let [exchange, key, content] = [0, 1, 2].map(|n| context[n].as_str().unwrap());
                assert_eq!(opened.context, Some(Context::new(exchange, key).content_type(content)), "{id}");
            }
            ("sent_ms", ms) => {
                let sent = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.as_u64().unwrap());
                assert_eq!(opened.sent_at, Some(sent), "{id}");
            }
            (other, value) => assert_other(opened, other, value, id),
        }
    }
}

fn assert_other(opened: &Opened, name: &str, value: &Value, id: &str) {
    let sequence = opened.sequence.unwrap();
    match name {
        "part" => assert_eq!(opened.part.is_some(), !value.is_null(), "{id}"),
        "session" => assert_eq!(hex(&sequence.session), value.as_str().unwrap(), "{id}"),
        "number" => assert_eq!(Some(sequence.number), value.as_u64(), "{id}"),
        name => panic!("{id}: {name} is not compared"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn word(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Decrypt => "decrypt".into(),
        ErrorKind::Unsupported { .. } => "unsupported".into(),
        ErrorKind::Malformed { part, .. } => format!("malformed:{part}"),
        ErrorKind::TooLarge { .. } => "too_large".into(),
        ErrorKind::Misdirected { .. } => "misdirected".into(),
        ErrorKind::Untrusted { .. } => "untrusted".into(),
        other => panic!("{other}"),
    }
}

#[test]
fn every_valid_envelope_opens_to_its_plaintext_whole_and_in_pieces() {
    let known = Known(vectors("keys.json"));
    let vectors = vectors("valid.json");
    let cases = vectors["envelopes"].as_array().unwrap();
    for case in cases {
        let id = text(case, "id");
        let opened = known.open(case).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(STANDARD.encode(&opened.plaintext), case["plaintext"]["b64"], "{id}");
        assert_opened(&opened, &case["opened"], id);
        let opener = known.opener(case);
        let mut reader = opener.open_reader(text(case, "envelope")).unwrap_or_else(|error| panic!("{id}: {error}"));
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
        assert_eq!(read, opened.plaintext, "{id}");
    }
    assert!(cases.len() >= 60);
}

#[test]
fn every_invalid_envelope_fails_as_its_vector_says() {
    let known = Known(vectors("keys.json"));
    let vectors = vectors("invalid.json");
    let cases = vectors["envelopes"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let id = text(case, "id");
        let found = match known.open(case) {
            Ok(_) => "opened".into(),
            Err(error) => word(&error),
        };
        if found != text(case, "expect") {
            wrong.push(format!("{id}: {found}, not {}", text(case, "expect")));
        }
        if case["delivered"].is_null() {
            let opener = known.opener(case);
            let read = opener
                .open_reader(text(case, "envelope"))
                .map(|mut reader| std::io::Read::read_to_end(&mut reader, &mut Vec::new()));
            assert!(!matches!(read, Ok(Ok(_))), "{id} was opened in pieces");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases.len() >= 250);
}

#[test]
fn parts_come_together_as_their_vectors_say() {
    let known = Known(vectors("keys.json"));
    let vectors = vectors("parts.json");
    let opener = Opener::new(&known.key(text(&vectors, "key")), OpenPolicy::default()).unwrap();
    for case in vectors["messages"].as_array().unwrap() {
        let id = text(case, "id");
        let mut collector = PartCollector::new(PartLimits::default());
        let (mut whole, mut refused) = (None, None);
        for envelope in case["envelopes"].as_array().unwrap() {
            let opened = opener.open(envelope.as_str().unwrap()).unwrap();
            match collector.add(opened, (), Instant::now()) {
                Ok(Collected::Whole { message, .. }) => whole = Some(message),
                Ok(_) => {}
                Err(error) => refused = Some(word(&error.error)),
            }
        }
        match case["expect"].as_str() {
            None => {
                let whole = whole.unwrap_or_else(|| panic!("{id}: not whole, {refused:?}"));
                assert_eq!(whole.message_id, text(case, "message_id"), "{id}");
                assert_eq!(STANDARD.encode(&whole.plaintext), case["plaintext"]["b64"], "{id}");
            }
            Some("incomplete") => assert!(whole.is_none() && refused.is_none(), "{id}"),
            Some(expected) => {
                assert!(whole.is_none(), "{id}");
                assert_eq!(refused.as_deref(), Some(expected), "{id}");
            }
        }
    }
}
