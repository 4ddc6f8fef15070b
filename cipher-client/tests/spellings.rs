//! One text, one message: no spelling of an envelope, and no mixture of suites,
//! is read by one reader as this and by another as that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use cipher_client::crypto::{Context, Identity, KeyKind, Keyset, OpenPolicy, Opener, PrivateKey, Sealer, Suite};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};
use proptest::prelude::*;
use serde_json::{Value, json};

const TEXT: &[u8] = b"the goods are on the dock";

static ALICE: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::generate().unwrap()));
/// The receiver's key in suite 1, and in suite 2.
static KEYS: LazyLock<[PrivateKey; 2]> =
    LazyLock::new(|| [KeyKind::Rsa, KeyKind::X25519].map(|kind| PrivateKey::generate_kind(kind).unwrap()));

/// From Alice, in each suite.
fn seal(id: &str) -> [String; 2] {
    KEYS.each_ref().map(|key| {
        let to = [Recipient::from_own_source(key.public_key())];
        let sealer = Sealer::builder(to).identity(ALICE.clone()).build().unwrap();
        sealer.seal_for_with_id(&Context::new("e", "k"), id, TEXT).unwrap().envelope
    })
}

fn sealed(id: &str) -> [Value; 2] {
    seal(id).map(|text| serde_json::from_str(&text).unwrap())
}

/// With both keys; Alice is known, and nobody else.
fn opener() -> Opener {
    let senders = Senders::in_memory();
    senders.add("alice", ALICE.sender_key().clone()).unwrap();
    let [rsa, x25519] = KEYS.each_ref().map(|key| PrivateKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap());
    let keys = Keyset::new(x25519).with_retired(rsa).unwrap();
    let bounds = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
    Opener::builder(&keys).policy(bounds).senders(SenderPolicy::require_signed(Arc::new(senders))).build().unwrap()
}

fn with(envelope: &Value, name: &str, value: Value) -> Value {
    let mut envelope = envelope.clone();
    envelope[name] = value;
    envelope
}

fn without(envelope: &Value, name: &str) -> Value {
    let mut envelope = envelope.clone();
    envelope.as_object_mut().unwrap().remove(name).unwrap();
    envelope
}

/// The members of one suite do not pass for those of another.
#[test]
fn suites_do_not_mix() {
    let [one, two] = sealed("m-1");
    let opener = opener();
    for version in [json!(1), json!("2"), json!(null), json!(2.0), json!([2]), json!(3), json!(true)] {
        assert!(opener.open(&with(&two, "v", version.clone()).to_string()).is_err(), "{version}");
        let marked = opener.open(&with(&one, "v", version.clone()).to_string());
        // Foreign members are nobody's business in suite 1, unless they say it is another.
        assert_eq!(marked.is_err(), version == json!(3), "{version}");
    }
    assert!(opener.open(&with(&one, "v", json!(2)).to_string()).is_err());
    assert!(opener.open(&without(&two, "v").to_string()).is_err());
    for suite in ["1", "2r", "2pq", "2X", "2", ""] {
        assert!(opener.open(&with(&two, "suite", json!(suite)).to_string()).is_err(), "{suite}");
    }
    // The one inside the other: read as the suite it says, and nothing else of it counts.
    let mut both = one.as_object().unwrap().clone();
    both.extend(two.as_object().unwrap().clone());
    let opened = opener.open(&Value::from(both).to_string()).unwrap();
    assert_eq!(opened.suite, Suite::TwoX25519);
}

/// Two readers must not find two messages in one text: the broker could show one
/// to the check and the other to the program.
#[test]
fn a_member_that_is_there_twice_is_refused_in_any_spelling() {
    let opener = opener();
    for (one, other) in sealed("m-1").into_iter().zip(sealed("m-2")) {
        for (name, value) in other.as_object().unwrap() {
            let escaped = format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]);
            for spelling in [name, &escaped] {
                let member = format!("\"{spelling}\":{value}");
                let text = one.to_string();
                let first = format!("{{{member},{}", &text[1..]);
                let last = format!("{},{member}}}", &text[..text.len() - 1]);
                for twice in [first, last] {
                    assert!(opener.open(&twice).is_err(), "{name}");
                }
            }
            let mut upper = one.clone();
            upper[name.to_uppercase()] = value.clone();
            assert!(opener.open(&upper.to_string()).is_ok(), "another name is another member");
        }
    }
}

/// Base64 has one spelling for each value, JSON has many: none of those changes
/// what is opened.
#[test]
fn another_spelling_is_refused_or_is_the_same_message() {
    let opener = opener();
    for envelope in sealed("m-1") {
        for (name, value) in envelope.as_object().unwrap().iter().filter(|(_, value)| value.is_string()) {
            if name == "message_id" || name == "suite" {
                continue;
            }
            let text = value.as_str().unwrap();
            let url = text.replace('+', "-").replace('/', "_");
            let mut spellings = BTreeSet::from([format!("{text}\n"), format!(" {text}"), format!("{text}="), url]);
            spellings.insert(text.trim_end_matches('=').to_owned());
            spellings.insert(with_spare_bits(text));
            for spelling in spellings.iter().filter(|spelling| *spelling != text) {
                let changed = with(&envelope, name, json!(spelling)).to_string();
                assert!(opener.open(&changed).is_err(), "{name}: {spelling}");
            }
        }
        let escaped: String = envelope.to_string().replace('/', "\\/");
        let spaced = serde_json::to_string_pretty(&envelope).unwrap();
        for same in [escaped, spaced] {
            assert_eq!(opener.open(&same).unwrap().plaintext, TEXT);
        }
    }
}

/// The last character before the padding with a bit set that says nothing.
fn with_spare_bits(text: &str) -> String {
    let fill = text.len() - text.trim_end_matches('=').len();
    if fill == 0 {
        return text.to_owned();
    }
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = text.as_bytes().to_vec();
    let at = bytes.len() - fill - 1;
    let digit = alphabet.iter().position(|letter| *letter == bytes[at]).unwrap();
    bytes[at] = alphabet[digit | 1];
    String::from_utf8(bytes).unwrap()
}

/// What senders write is read by a quick reader, all else by one of JSON at large:
/// the same text with a line break in front. What one of them takes, the other
/// takes alike.
fn read_by_both(text: &str) -> (bool, bool) {
    static OPENER: LazyLock<Opener> = LazyLock::new(opener);
    let at_large = text.replacen('{', "{\n", 1);
    let [quick, full] = [text, &at_large].map(|text| OPENER.open(text).map(|opened| (opened.message_id, opened.suite)));
    if let (Ok(quick), Ok(full)) = (&quick, &full) {
        assert_eq!(quick, full);
    }
    (quick.is_ok(), full.is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Changes where JSON has its joints.
    #[test]
    fn the_two_readers_of_json_agree(
        which in 0..2usize,
        joint in any::<prop::sample::Index>(),
        cut in 0..3usize,
        piece in prop::sample::select(vec![
            "", " ", "\n", "\t", "\0", "\"", "\\", "\\\"", "\\u0041", "\\/", ",", ":", "{", "}", "[", "]", "0", "null", "A", "=",
            r#""v":2,"#, r#""v":1,"#, r#""x":{},"#, r#""sig":"","#, r#""wraps":[],"#, r#""wraps":[""],"#, r#""message_id":"m-1","#,
        ]),
    ) {
        static SEALED: LazyLock<[String; 2]> = LazyLock::new(|| seal("m-1"));
        let sealed = &SEALED[which];
        let is_joint = |byte: &u8| b"{}[]:,\"".contains(byte);
        let joints: Vec<_> = (0..sealed.len()).filter(|at| is_joint(&sealed.as_bytes()[*at])).collect();
        let at = joints[joint.index(joints.len())] + cut % 2;
        let changed = format!("{}{piece}{}", &sealed[..at], &sealed[(at + cut).min(sealed.len())..]);
        let (quick, full) = read_by_both(&changed);
        prop_assert_eq!(quick, full, "{}", changed);
    }
}
