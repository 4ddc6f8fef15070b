//! Whatever is changed in an envelope, one error comes out and no plaintext.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

mod support;

use std::error::Error as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{Envelope, OpenPolicy, Opener, seal};
use cipher_client::{Error, ErrorKind};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use support::{cases, field, private_key};

const MEMBERS: [&str; 4] = ["enc_session_key", "nonce", "tag", "ciphertext"];
const TEXT: &[u8] = b"the goods are on the dock";

/// Throttling would hide the failure under test.
fn opener() -> Opener {
    let policy = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
    Opener::new(&private_key("rsa2048"), policy).unwrap()
}

fn envelope(text: &[u8]) -> Map<String, Value> {
    let envelope = seal(text, &private_key("rsa2048").public_key(), None).unwrap();
    serde_json::from_str(&envelope).unwrap()
}

fn with(envelope: &Map<String, Value>, member: &str, bytes: &[u8]) -> String {
    let mut changed = envelope.clone();
    changed[member] = json!(STANDARD.encode(bytes));
    Value::from(changed).to_string()
}

fn bytes(envelope: &Map<String, Value>, member: &str) -> Vec<u8> {
    STANDARD.decode(envelope[member].as_str().unwrap()).unwrap()
}

/// Everything that a caller or a log can see of the error.
fn seen(error: &Error) -> (String, String, bool) {
    assert_eq!(*error.kind(), ErrorKind::Decrypt);
    (error.to_string(), format!("{error:?}"), error.source().is_some())
}

#[test]
fn every_changed_byte_of_every_member_gives_the_one_error() {
    let (opener, envelope) = (opener(), envelope(TEXT));
    let whole = Value::from(envelope.clone()).to_string();
    assert_eq!(opener.open(&whole).unwrap().plaintext, TEXT);
    for member in MEMBERS {
        let good = bytes(&envelope, member);
        // Each byte of the key block would cost an unwrap of a millisecond.
        let step = if member == "enc_session_key" { 5 } else { 1 };
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let error = opener.open(&with(&envelope, member, &bad)).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Decrypt, "byte {at} of {member}");
        }
    }
    assert_eq!(opener.open(&whole).unwrap().plaintext, TEXT);
}

/// Whether the block did not unwrap, gave a key of a wrong length, or the tag was
/// wrong: nothing in the error tells which.
#[test]
fn all_failures_look_alike() {
    let opener = opener();
    let mut looks: Vec<_> = cases("invalid.json")
        .iter()
        .filter(|case| case["expect"] == "decrypt")
        .map(|case| seen(&opener.open(field(case, "envelope")).unwrap_err()))
        .collect();
    assert!(looks.len() > 40);
    looks.dedup();
    assert_eq!(looks.len(), 1, "{looks:?}");
    assert!(!looks[0].2, "an error with a source tells more than it may");
}

#[test]
fn members_of_two_messages_do_not_mix() {
    let (opener, one, other) = (opener(), envelope(TEXT), envelope(b"another text of 25 bytes."));
    for member in ["nonce", "tag", "ciphertext"] {
        let error = opener.open(&with(&one, member, &bytes(&other, member))).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Decrypt, "{member}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No text makes the parser or the opener panic.
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,300}") {
        if let Ok(envelope) = Envelope::parse(&text) {
            prop_assert!(!envelope.message_id().is_empty());
        }
    }

    /// As above, starting from a good envelope with a piece of it replaced.
    #[test]
    fn any_replaced_piece_is_noticed(at in 0usize..800, len in 0usize..6, piece in ".{0,4}") {
        static GOOD: std::sync::LazyLock<(Opener, String)> =
            std::sync::LazyLock::new(|| (opener(), Value::from(envelope(TEXT)).to_string()));
        let (opener, good) = &*GOOD;
        let (start, end) = (at.min(good.len()), (at + len).min(good.len()));
        let bad = format!("{}{piece}{}", &good[..start], &good[end..]);
        match opener.open(&bad) {
            // The id is the one part that is not authenticated.
            Ok(opened) => prop_assert_eq!(opened.plaintext, TEXT),
            Err(error) => {
                let kind = error.kind();
                let is_told = matches!(kind, ErrorKind::Malformed { .. } | ErrorKind::Unsupported { .. });
                prop_assert!(is_told || *kind == ErrorKind::Decrypt, "{}", kind);
            }
        }
    }
}
