//! What a broker, a stranger and a recipient cannot do to signed messages of suite 1.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::ErrorKind;
use cipher_client::crypto::{
    Context, Identity, KeyKind, Keyset, OpenPolicy, Opened, Opener, Order, PrivateKey, Sealer, SealerBuilder, Sender,
    SessionPolicy, Signing, Suite,
};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};
use serde_json::{Value, json};

const TEXT: &[u8] = b"the goods are on the dock";
const BOTH: [Signing; 2] = [Signing::Session, Signing::EveryMessage];

static PEM: LazyLock<[String; 2]> =
    LazyLock::new(|| [(); 2].map(|()| PrivateKey::generate(2048).unwrap().to_pem().unwrap().to_string()));
static ALICE: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::generate().unwrap()));
static MALLORY: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::generate().unwrap()));

fn key(n: usize) -> PrivateKey {
    PrivateKey::from_pem(&PEM[n]).unwrap()
}

fn builder(n: usize) -> SealerBuilder {
    Sealer::builder([Recipient::from_own_source(key(n).public_key())])
}

fn sealer(identity: &Arc<Identity>, signing: Signing) -> Sealer {
    builder(0).identity(identity.clone()).signing(signing).build().unwrap()
}

fn context() -> Context {
    Context::new("orders", "eu.new").content_type("text/plain")
}

fn seal(sealer: &Sealer) -> Value {
    serde_json::from_str(&sealer.seal_for(&context(), TEXT).unwrap().envelope).unwrap()
}

/// Alice is known, and nobody else.
fn senders() -> Arc<Senders> {
    let senders = Senders::in_memory();
    senders.add("alice", ALICE.sender_key().clone()).unwrap();
    Arc::new(senders)
}

fn opener_with(n: usize, policy: SenderPolicy) -> Opener {
    let bounds = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
    Opener::builder(&Keyset::new(key(n))).policy(bounds).senders(policy).build().unwrap()
}

fn opener() -> Opener {
    opener_with(0, SenderPolicy::require_signed(senders()))
}

fn open(opener: &Opener, envelope: &Value) -> Result<Opened, ErrorKind> {
    opener.open(&envelope.to_string()).map_err(|error| error.kind().clone())
}

fn is_untrusted(outcome: Result<Opened, ErrorKind>) -> bool {
    matches!(outcome, Err(ErrorKind::Untrusted { .. }))
}

/// With another value under a path such as `x/ctx/exchange`.
fn with(envelope: &Value, path: &str, value: Value) -> Value {
    let mut envelope = envelope.clone();
    *envelope.pointer_mut(&format!("/{path}")).unwrap_or_else(|| panic!("no {path}")) = value;
    envelope
}

#[test]
fn a_signed_message_says_who_when_where_and_which() {
    for signing in BOTH {
        let (sealer, opener) = (sealer(&ALICE, signing), opener());
        let before = SystemTime::now() - Duration::from_millis(1);
        for number in 0..3 {
            let opened = open(&opener, &seal(&sealer)).unwrap();
            assert_eq!((opened.plaintext.as_slice(), opened.suite), (TEXT, Suite::One));
            assert_eq!(opened.sender, Sender::Signed(*ALICE.kid()));
            assert_eq!(opened.context, Some(context()));
            assert!(opened.sent_at.is_some_and(|at| at >= before && at <= SystemTime::now()));
            assert_eq!(opened.sequence.unwrap().number, number);
        }
        let stats = opener.stats();
        assert_eq!((stats.unwraps, stats.missing, stats.repeated), (1, 0, 0));
    }
}

/// The originals and any other reader find the five members they know.
#[test]
fn who_knows_no_senders_opens_it_all_the_same() {
    let envelope = seal(&sealer(&ALICE, Signing::Session));
    let opened = open(&opener_with(0, SenderPolicy::default()), &envelope).unwrap();
    assert_eq!((opened.plaintext.as_slice(), opened.sender, opened.context), (TEXT, Sender::Unsigned, None));
    let text = envelope.to_string();
    assert_eq!(cipher_client::crypto::open(&text, &key(0)).unwrap().plaintext, TEXT);
    let nonsense = with(&envelope, "x", json!("not for you"));
    assert!(open(&opener_with(0, SenderPolicy::default()), &nonsense).is_ok());
    assert!(matches!(open(&opener(), &nonsense), Err(ErrorKind::Malformed { .. })));
}

/// Each character of the envelope, exchanged for another one.
#[test]
fn every_byte_is_covered() {
    for signing in BOTH {
        let sealer = sealer(&ALICE, signing);
        let good = sealer.seal_for_with_id(&context(), "m-1", b"text").unwrap().envelope;
        let opener = opener();
        let opened = opener.open(&good).unwrap();
        for at in 0..good.len() {
            for with in ['A', '1'] {
                let mut bytes = good.clone().into_bytes();
                if bytes[at] == with as u8 {
                    continue;
                }
                bytes[at] = with as u8;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(opener.open(&changed).is_err(), "at {at}: {}", &changed[at.saturating_sub(9)..=at]);
            }
        }
        assert_eq!(opener.open(&good).unwrap().plaintext, opened.plaintext);
    }
}

#[test]
fn nothing_beside_the_text_can_be_exchanged() {
    for signing in BOTH {
        let (sealer, opener) = (sealer(&ALICE, signing), opener());
        let (one, other) = (seal(&sealer), seal(&sealer));
        assert!(open(&opener, &one).is_ok());
        let changed = [
            ("message_id", json!("another")),
            ("x/seq", json!(7)),
            ("x/ts", json!(one["x"]["ts"].as_u64().unwrap() + 1)),
            ("x/ctx/exchange", json!("refunds")),
            ("x/ctx/routing_key", json!("eu.old")),
            ("x/ctx/content_type", json!("text/html")),
            ("x/ctx", json!({"exchange": "orders", "routing_key": "eu.new"})),
            ("x/session", json!("A".repeat(43) + "=")),
        ];
        let exchanged = ["message_id", "nonce", "tag", "ciphertext", "x", "x/mac"];
        let exchanged = exchanged.map(|path| (path, other.pointer(&format!("/{path}")).unwrap().clone()));
        for (path, value) in changed.into_iter().chain(exchanged) {
            if other.pointer(&format!("/{path}")) == one.pointer(&format!("/{path}")) && value == one[path] {
                continue;
            }
            assert_eq!(open(&opener, &with(&one, path, value)), Err(ErrorKind::Decrypt), "{path}");
        }
        assert!(open(&opener, &other).is_ok());
    }
}

#[test]
fn a_message_says_where_it_was_meant_to_go() {
    let opener = opener();
    let envelope = seal(&sealer(&ALICE, Signing::Session)).to_string();
    assert!(opener.open_for(&envelope, &Context::new("orders", "eu.new")).is_ok());
    for (exchange, key) in [("orders", "us.new"), ("refunds", "eu.new")] {
        let error = opener.open_for(&envelope, &Context::new(exchange, key)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Misdirected { .. }));
    }
}

#[test]
fn a_made_up_message_is_never_signed() {
    let unsigned = seal(&builder(0).build().unwrap());
    let by_a_stranger = seal(&sealer(&MALLORY, Signing::Session));
    let required = opener();
    assert!(is_untrusted(open(&required, &unsigned)));
    assert!(is_untrusted(open(&required, &by_a_stranger)));
    let allowed = opener_with(0, SenderPolicy::allow_unsigned(senders()));
    assert_eq!(open(&allowed, &unsigned).unwrap().sender, Sender::Unsigned);
    let opened = open(&allowed, &by_a_stranger).unwrap();
    assert_eq!((opened.sender, opened.context), (Sender::Unknown(*MALLORY.kid()), None));
    // In Alice's name, with a signature that is not hers.
    for path in ["x/skid", "x/sig"] {
        let of_alice = seal(&sealer(&ALICE, Signing::Session));
        let forged = with(&by_a_stranger, path, of_alice.pointer(&format!("/{path}")).unwrap().clone());
        assert!(matches!(open(&required, &forged), Err(ErrorKind::Decrypt | ErrorKind::Untrusted { .. })), "{path}");
    }
}

#[test]
fn a_signature_taken_off_is_no_silent_downgrade() {
    let sealer = sealer(&ALICE, Signing::Session);
    let strip = |mut envelope: Value| {
        envelope.as_object_mut().unwrap().remove("x");
        envelope
    };
    assert!(is_untrusted(open(&opener(), &strip(seal(&sealer)))));
    let allowed = opener_with(0, SenderPolicy::allow_unsigned(senders()));
    assert!(open(&allowed, &strip(seal(&sealer))).is_ok(), "nothing is known of anybody yet");
    assert!(open(&allowed, &seal(&sealer)).is_ok());
    assert!(is_untrusted(open(&allowed, &strip(seal(&sealer)))));
    sealer.rotate();
    assert!(is_untrusted(open(&allowed, &strip(seal(&sealer)))), "nor under a new session key");
    let mixed = opener_with(0, SenderPolicy::allow_unsigned(senders()).mixed());
    assert!(open(&mixed, &seal(&sealer)).is_ok());
    assert!(is_untrusted(open(&mixed, &strip(seal(&sealer)))), "who signs a session key signs all of it");
    sealer.rotate();
    assert_eq!(open(&mixed, &strip(seal(&sealer))).unwrap().sender, Sender::Unsigned);
}

/// Mallory is a sender in good standing, and puts his own signature where
/// Alice's was.
/// Guessing at RSA blocks costs the same budget when a stranger signs the guesses.
#[test]
fn guesses_that_a_stranger_signed_are_numbered_like_others() {
    let (mine, theirs) = (sealer(&ALICE, Signing::Session), sealer(&MALLORY, Signing::Session));
    let policy = OpenPolicy { failures: 3, failure_forgiven_after: Duration::from_secs(3600), ..OpenPolicy::default() };
    let senders = SenderPolicy::allow_unsigned(senders());
    let opener = Opener::builder(&Keyset::new(key(0))).policy(policy).senders(senders).build().unwrap();
    let guess = |n: u8| with(&seal(&theirs), "enc_session_key", json!(STANDARD.encode([n; 256])));
    for n in 0..3 {
        assert_eq!(open(&opener, &guess(n)).unwrap_err(), ErrorKind::Decrypt);
    }
    assert_eq!(open(&opener, &guess(3)).unwrap_err(), ErrorKind::Throttled);
    assert_eq!(open(&opener, &seal(&mine)).unwrap_err(), ErrorKind::Throttled);
    assert_eq!(opener.stats().unwraps, 3);
}

#[test]
fn nobody_can_sign_for_a_session_key_he_does_not_have() {
    let senders = senders();
    senders.add("mallory", MALLORY.sender_key().clone()).unwrap();
    let opener = opener_with(0, SenderPolicy::require_signed(senders));
    for signing in BOTH {
        let of_alice = seal(&sealer(&ALICE, signing));
        let mut stolen = seal(&sealer(&MALLORY, signing));
        assert!(open(&opener, &stolen).is_ok());
        let x = stolen["x"].take();
        // His x on her message: his signature is over his own wrapped key.
        assert_eq!(open(&opener, &with(&of_alice, "x", x.clone())), Err(ErrorKind::Decrypt));
        for path in ["x/mac", "x/sig", "x/session"] {
            let value = of_alice.pointer(&format!("/{path}")).unwrap().clone();
            assert_eq!(open(&opener, &with(&with(&of_alice, "x", x.clone()), path, value)), Err(ErrorKind::Decrypt));
        }
        assert_eq!(open(&opener, &with(&of_alice, "x/skid", x["skid"].clone())), Err(ErrorKind::Decrypt));
        assert!(open(&opener, &of_alice).is_ok());
    }
}

/// The recipient wraps the session key anew for a third one: the statement
/// that Alice signed names him, not the other.
#[test]
fn a_recipient_cannot_pass_on_a_session() {
    let to_bob = seal(&sealer(&ALICE, Signing::Session));
    let carol = opener_with(1, SenderPolicy::require_signed(senders()));
    assert_eq!(open(&carol, &to_bob), Err(ErrorKind::Decrypt));
    let from_bob = seal(&builder(1).identity(MALLORY.clone()).build().unwrap());
    let mut passed_on = from_bob.clone();
    passed_on["x"] = to_bob["x"].clone();
    assert_eq!(open(&carol, &passed_on), Err(ErrorKind::Decrypt));
    passed_on["x"]["kid"] = from_bob["x"]["kid"].clone();
    assert_eq!(open(&carol, &passed_on), Err(ErrorKind::Decrypt));
}

/// What a session signature covers is the same for all its messages, so it
/// cannot say anything of one of them; the other one changes with each.
#[test]
fn only_a_signature_of_each_message_convinces_others() {
    for (signing, is_shared) in [(Signing::Session, true), (Signing::EveryMessage, false)] {
        let sealer = sealer(&ALICE, signing);
        let (one, other) = (seal(&sealer), seal(&sealer));
        assert_eq!(one["x"]["sig"] == other["x"]["sig"], is_shared);
        assert_eq!(one["x"]["session"], other["x"]["session"]);
        assert_ne!(one["x"]["mac"], other["x"]["mac"]);
    }
}

#[test]
fn a_replay_is_reported() {
    let (sealer, opener) = (sealer(&ALICE, Signing::Session), opener());
    let envelope = seal(&sealer);
    assert_eq!(open(&opener, &envelope).unwrap().order, Order::First);
    assert_eq!(open(&opener, &seal(&sealer)).unwrap().order, Order::Next);
    let again = open(&opener, &envelope).unwrap();
    assert_eq!((again.order, opener.stats().repeated), (Order::Repeat, 1));
}

#[test]
fn what_is_held_back_is_missed() {
    for session in [SessionPolicy::default(), SessionPolicy::PerMessage] {
        let sealer = builder(0).identity(ALICE.clone()).session(session).build().unwrap();
        let opener = opener();
        let mut all: Vec<_> = (0..3).map(|_| seal(&sealer)).collect();
        // The last ones of a session key are missed by the first of the next.
        sealer.rotate();
        all.push(seal(&sealer));
        assert_eq!(open(&opener, &all[0]).unwrap().order, Order::First);
        assert_eq!(open(&opener, &all[3]).unwrap().order, Order::Gap { missing: 2 });
        assert_eq!(open(&opener, &all[1]).unwrap().order, Order::Late);
        let stats = opener.stats();
        assert_eq!((stats.missing, stats.late), (2, 1));
    }
}

#[test]
fn order_is_told_in_suite_2_as_well() {
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    let to = [Recipient::from_own_source(key.public_key())];
    let sealer = Sealer::builder(to).identity(ALICE.clone()).build().unwrap();
    let opener = Opener::builder(&Keyset::new(key)).senders(SenderPolicy::require_signed(senders())).build().unwrap();
    let all: Vec<_> = (0..4).map(|_| seal(&sealer)).collect();
    let orders = [0, 2, 1, 1, 3].map(|n: usize| open(&opener, &all[n]).unwrap().order);
    assert_eq!(orders, [Order::First, Order::Gap { missing: 1 }, Order::Late, Order::Repeat, Order::Next]);
    assert_eq!(open(&opener, &all[0]).unwrap().sender, Sender::Signed(*ALICE.kid()));
}

#[test]
fn a_sender_that_is_no_longer_known_is_not_believed_even_within_a_session() {
    let senders = senders();
    let opener = opener_with(0, SenderPolicy::require_signed(senders.clone()));
    let sealer = sealer(&ALICE, Signing::Session);
    assert!(open(&opener, &seal(&sealer)).is_ok());
    assert!(open(&opener, &seal(&sealer)).is_ok());
    senders.remove(ALICE.kid()).unwrap();
    assert!(is_untrusted(open(&opener, &seal(&sealer))));
    senders.add("alice", ALICE.sender_key().clone()).unwrap();
    assert!(open(&opener, &seal(&sealer)).is_ok());
}

#[test]
fn a_context_that_nobody_would_read_is_not_sealed() {
    let sealer = sealer(&ALICE, Signing::Session);
    let long = "x".repeat(256);
    for context in [Context::new(long.as_str(), ""), Context::new("", long.as_str())] {
        let error = sealer.seal_for(&context, TEXT).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
    }
    let odd = Context::new("a \"b\" \\c", "größe\u{1}\n").content_type("a\tb");
    let opened = opener().open(&sealer.seal_for(&odd, TEXT).unwrap().envelope).unwrap();
    assert_eq!(opened.context, Some(odd));
}
