//! Suite 2 from outside: what comes back, for whom, and what is noticed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use cipher_client::ErrorKind;
use cipher_client::crypto::{
    Compression, Context, ContextPolicy, ENVELOPE_BYTES_MAX, Envelope, Identity, KeyKind, Keyset, OpenPolicy, Opened,
    Opener, Padding, PrivateKey, Sealer, SealerBuilder, Sender, SessionPolicy, Signing, Suite, SuiteSet, open, seal,
};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};
use proptest::prelude::*;

static KEYS: LazyLock<Vec<(Suite, PrivateKey)>> = LazyLock::new(|| {
    let key = |kind| PrivateKey::generate_kind(kind).unwrap();
    vec![
        (Suite::TwoRsa, key(KeyKind::Rsa)),
        (Suite::TwoX25519, key(KeyKind::X25519)),
        (Suite::TwoXWing, key(KeyKind::XWing)),
    ]
});

fn x25519() -> PrivateKey {
    PrivateKey::generate_kind(KeyKind::X25519).unwrap()
}

fn builder<'a>(keys: impl IntoIterator<Item = &'a PrivateKey>) -> SealerBuilder {
    Sealer::builder(keys.into_iter().map(|key| Recipient::from_own_source(key.public_key())))
}

fn sealer(suite: Suite, key: &PrivateKey) -> Sealer {
    builder([key]).suite(suite).build().unwrap()
}

fn opener(key: &PrivateKey) -> Opener {
    Opener::new(key, OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() }).unwrap()
}

fn kind<T: std::fmt::Debug>(outcome: cipher_client::Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind().clone()
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn every_suite_and_length_returns_whole_and_in_pieces() {
    let context = Context::new("orders", "eu").content_type("text/plain");
    for (suite, key) in &*KEYS {
        let (sealer, opener) = (sealer(*suite, key), opener(key));
        assert_eq!(sealer.suite(), *suite);
        for len in [0, 1, 2, 16_383, 16_384, 16_385, 32_768, 100_000, 1 << 20] {
            let text = text(len);
            let sealed = sealer.seal_for(&context, &text).unwrap();
            let mut streamed = Vec::new();
            let mut writer = sealer.seal_writer(&context, Some("streamed"), &mut streamed).unwrap();
            for piece in text.chunks(10_007) {
                writer.write_all(piece).unwrap();
            }
            assert_eq!(writer.finish().unwrap().0, "streamed");
            let streamed = String::from_utf8(streamed).unwrap();
            for envelope in [&sealed.envelope, &streamed] {
                let opened = opener.open(envelope).unwrap();
                assert!(opened.plaintext == text, "{suite} {len}");
                assert_eq!((opened.suite, opened.sender), (*suite, Sender::Unsigned));
                assert_eq!(opened.context.as_ref(), Some(&context));
                assert_eq!(opened.message_id, Envelope::parse(envelope).unwrap().message_id());
                let mut reader = opener.open_reader(envelope).unwrap();
                let mut read = Vec::new();
                reader.read_to_end(&mut read).unwrap();
                assert!(read == text, "{suite} {len} in pieces");
                assert_eq!(reader.message().uniqueness, opened.uniqueness);
            }
        }
    }
}

#[test]
fn a_rsa_key_keeps_to_suite_1_unless_it_is_asked() {
    let rsa = &KEYS[0].1;
    let one = Sealer::new(&rsa.public_key(), SessionPolicy::default()).unwrap();
    assert_eq!(one.suite(), Suite::One);
    assert_eq!(open(&seal(b"text", &rsa.public_key(), None).unwrap(), rsa).unwrap().suite, Suite::One);
    let context = Context::new("orders", "eu");
    let opened = open(&one.seal_for(&context, b"text").unwrap().envelope, rsa).unwrap();
    assert_eq!((opened.context, opened.sequence, opened.sent_at), (None, None, None));
    let x25519 = &KEYS[1].1;
    assert_eq!(open(&seal(b"text", &x25519.public_key(), Some("m")).unwrap(), x25519).unwrap().suite, Suite::TwoX25519);
    let asked = |suite| builder([rsa]).suite(suite).build().map(|sealer| sealer.suite());
    assert_eq!(asked(Suite::TwoRsa).unwrap(), Suite::TwoRsa);
    assert!(matches!(kind(asked(Suite::TwoXWing)), ErrorKind::Option { .. }));
    for builder in [builder([rsa]).padding(Padding::Padme), builder([rsa]).compression(Compression::Zstd)] {
        assert!(matches!(kind(builder.build().map(drop)), ErrorKind::Option { .. }), "suite 1 has none of that");
    }
}

#[test]
fn each_of_many_recipients_opens_and_nobody_else() {
    for (kind_of_key, counts) in [(KeyKind::X25519, &[1, 2, 64][..]), (KeyKind::XWing, &[2, 5]), (KeyKind::Rsa, &[2])] {
        for count in counts {
            let keys: Vec<_> = (0..*count).map(|_| PrivateKey::generate_kind(kind_of_key).unwrap()).collect();
            let sealer = builder(&keys).build().unwrap();
            let sealed = [sealer.seal(b"to all").unwrap(), sealer.seal(b"to all").unwrap()];
            for key in &keys {
                for sealed in &sealed {
                    assert_eq!(open(&sealed.envelope, key).unwrap().plaintext, b"to all");
                }
            }
            let stranger = PrivateKey::generate_kind(kind_of_key).unwrap();
            assert_eq!(kind(open(&sealed[0].envelope, &stranger)), ErrorKind::Decrypt);
        }
    }
}

#[test]
fn bad_lists_of_recipients_are_refused() {
    let keys: Vec<_> = (0..65).map(|_| x25519()).collect();
    let bad = [
        builder(&keys),
        builder(&[]),
        builder([&keys[0], &keys[1], &keys[0]]),
        builder([&KEYS[1].1, &KEYS[2].1]),
        builder([&KEYS[0].1, &KEYS[1].1]),
    ];
    for (n, builder) in bad.into_iter().enumerate() {
        let outcome = builder.build().map(drop);
        assert!(matches!(kind(outcome), ErrorKind::Option { option: "recipients", .. }), "case {n}");
    }
    assert!(builder(&keys[..64]).build().is_ok());
    let twice = Opener::with_keys(&[&keys[0], &keys[0]], OpenPolicy::default()).map(drop);
    assert!(matches!(kind(twice), ErrorKind::Option { option: "keys", .. }));
}

/// Every byte of every member, the JSON round them included.
#[test]
fn every_altered_byte_is_noticed() {
    let others: Vec<_> = (0..2).map(|_| x25519()).collect();
    let context = Context::new("orders", "eu").content_type("text/plain");
    let mut cases = Vec::new();
    for (suite, key) in &KEYS[1..] {
        let sealed = sealer(*suite, key).seal_for_with_id(&context, "m-1", b"the goods are on the dock").unwrap();
        cases.push((sealed.envelope, key));
    }
    let many = builder([&others[0], &others[1], &KEYS[1].1]).build().unwrap();
    cases.push((many.seal_for_with_id(&context, "m-1", b"the goods are on the dock").unwrap().envelope, &KEYS[1].1));
    for (envelope, key) in cases {
        let opener = opener(key);
        let good = opener.open(&envelope).unwrap();
        for at in 0..envelope.len() {
            for bit in [1, 2, 4, 0x20] {
                let mut bytes = envelope.clone().into_bytes();
                bytes[at] ^= bit;
                let Ok(altered) = String::from_utf8(bytes) else { continue };
                if let Ok(opened) = opener.open(&altered) {
                    // A wrap for somebody else, which this receiver does not use and nobody signed.
                    let (first, rest) = altered.split_once("\"nonce\"").unwrap();
                    let is_foreign = |text: &str| text.contains("enc_session_key");
                    assert!(is_foreign(first) || rest.contains("\"wraps\""), "byte {at}: {altered}");
                    assert_eq!(opened, good);
                    assert!(envelope.contains("wraps"), "byte {at} of {envelope}");
                }
                if let Ok(mut reader) = opener.open_reader(&altered) {
                    let mut text = Vec::new();
                    if reader.read_to_end(&mut text).is_ok() {
                        assert!(envelope.contains("wraps") && text == good.plaintext, "byte {at} in pieces");
                    }
                }
            }
        }
    }
}

fn require(identity: &Identity) -> SenderPolicy {
    let senders = Arc::new(Senders::in_memory());
    senders.add("alice", identity.sender_key().clone()).unwrap();
    SenderPolicy::require_signed(senders)
}

#[test]
fn a_signature_says_who_sealed_for_one_and_for_many() {
    let (alice, mallory) = (Arc::new(Identity::generate().unwrap()), Arc::new(Identity::generate().unwrap()));
    let (keyset, other) = (Keyset::new(x25519()), x25519());
    for recipients in [vec![keyset.primary()], vec![keyset.primary(), &other]] {
        let sealer = |identity: Option<&Arc<Identity>>| {
            let builder = builder(recipients.iter().copied());
            match identity {
                Some(identity) => builder.identity(Arc::clone(identity)),
                None => builder,
            }
            .build()
            .unwrap()
        };
        let opener = Opener::builder(&keyset).senders(require(&alice)).build().unwrap();
        let (of_alice, of_mallory) = (sealer(Some(&alice)), sealer(Some(&mallory)));
        for n in 0..3 {
            let sealed = of_alice.seal(&[n]).unwrap();
            let opened = opener.open(&sealed.envelope).unwrap();
            assert_eq!((opened.plaintext, opened.sender), (vec![n], Sender::Signed(*alice.kid())));
            let mut read = Vec::new();
            opener.open_reader(&sealed.envelope).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, [n]);
        }
        for bad in [of_mallory.seal(b"text").unwrap(), sealer(None).seal(b"text").unwrap()] {
            assert!(matches!(kind(opener.open(&bad.envelope)), ErrorKind::Untrusted { .. }));
            assert!(matches!(kind(opener.open_reader(&bad.envelope)), ErrorKind::Untrusted { .. }));
        }
        let not_looked_at = Opener::builder(&keyset).build().unwrap();
        assert_eq!(not_looked_at.open(&of_mallory.seal(b"text").unwrap().envelope).unwrap().sender, Sender::Unsigned);
    }
}

/// With a signature over the message the wraps of others are covered as well.
#[test]
fn every_altered_byte_of_a_signed_message_is_noticed() {
    let alice = Arc::new(Identity::generate().unwrap());
    let (keyset, other) = (Keyset::new(x25519()), x25519());
    for recipients in [vec![keyset.primary()], vec![keyset.primary(), &other]] {
        let sealer = builder(recipients).identity(Arc::clone(&alice)).build().unwrap();
        let envelope = sealer.seal_with_id("m-1", b"the goods are on the dock").unwrap().envelope;
        let policy = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
        let opener = Opener::builder(&keyset).policy(policy).senders(require(&alice)).build().unwrap();
        opener.open(&envelope).unwrap();
        for at in 0..envelope.len() {
            let mut bytes = envelope.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(altered) = String::from_utf8(bytes) else { continue };
            assert!(opener.open(&altered).is_err(), "byte {at}: {altered}");
        }
    }
}

#[test]
fn no_piece_of_one_message_fits_another() {
    let key = &KEYS[1].1;
    let (sealer, opener) = (sealer(Suite::TwoX25519, key), opener(key));
    let context = Context::new("orders", "eu");
    let [a, b] = [b"first", b"other"].map(|text| sealer.seal_for(&context, text).unwrap().envelope);
    sealer.rotate();
    let c = sealer.seal_for(&context, b"third").unwrap().envelope;
    let parse = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap();
    for other in [&b, &c] {
        let (a, other) = (parse(&a), parse(other));
        for member in ["message_id", "enc_session_key", "hdr", "ciphertext"] {
            if a[member] == other[member] {
                continue;
            }
            let mut mixed = a.clone();
            mixed[member] = other[member].clone();
            let mixed = serde_json::to_string(&mixed).unwrap();
            assert!(opener.open(&mixed).is_err(), "{member}");
        }
    }
}

#[test]
fn what_does_not_have_its_form_is_named_before_a_key_is_touched() {
    let key = &KEYS[1].1;
    let opener = opener(key);
    let good = sealer(Suite::TwoX25519, key).seal_with_id("m-1", b"text").unwrap().envelope;
    let altered = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut members = serde_json::from_str(&good).unwrap();
        change(&mut members);
        kind(opener.open(&serde_json::to_string(&members).unwrap()))
    };
    let set = |name: &'static str, value: serde_json::Value| {
        altered(&|members| drop(members.insert(name.into(), value.clone())))
    };
    for name in ["suite", "hdr"] {
        assert_eq!(
            altered(&|members| drop(members.remove(name))),
            ErrorKind::Malformed { part: name, fault: "missing" }
        );
        assert_eq!(set(name, 1.into()), ErrorKind::Malformed { part: name, fault: "not a string" });
    }
    assert!(matches!(set("v", 3.into()), ErrorKind::Unsupported { .. }));
    assert!(matches!(set("suite", "2pq".into()), ErrorKind::Malformed { part: "suite", .. }));
    assert!(matches!(set("message_id", "m-2".into()), ErrorKind::Malformed { part: "message_id", .. }));
    assert!(matches!(set("nonce", "AAAA".into()), ErrorKind::Malformed { part: "nonce", .. }));
    assert!(matches!(set("tag", "AAAA".into()), ErrorKind::Malformed { part: "tag", .. }));
    assert!(matches!(set("hdr", "AAAA".into()), ErrorKind::Unsupported { .. }));
    assert!(matches!(set("hdr", "A".repeat(8000).into()), ErrorKind::Malformed { part: "hdr", .. }));
    assert!(matches!(set("enc_session_key", "AAAA".into()), ErrorKind::Malformed { part: "enc_session_key", .. }));
    let long = "A".repeat(4000);
    assert!(matches!(set("enc_session_key", long.into()), ErrorKind::Malformed { part: "enc_session_key", .. }));
    for wraps in [serde_json::json!(["AAAA"]), serde_json::json!([1]), serde_json::json!("AAAA"), serde_json::json!({})]
    {
        assert!(matches!(set("wraps", wraps), ErrorKind::Malformed { part: "wraps", .. }));
    }
    assert_eq!(opener.stats().unwraps, 0);
    // Foreign members are nobody's business, and order does not matter.
    let mut members: serde_json::Map<_, _> = serde_json::from_str(&good).unwrap();
    members.insert("zz".into(), serde_json::json!({"a": [1]}));
    assert_eq!(opener.open(&serde_json::to_string_pretty(&members).unwrap()).unwrap().plaintext, b"text");
}

#[test]
fn a_message_for_somewhere_else_is_noticed() {
    let key = x25519();
    let keyset = Keyset::new(key);
    let sealed = builder([keyset.primary()]).build().unwrap();
    let bound = sealed.seal_for(&Context::new("orders", "eu"), b"text").unwrap().envelope;
    let free = sealed.seal(b"text").unwrap().envelope;
    let open = |policy, envelope: &str, exchange: &str, key: &str| {
        let opener = Opener::builder(&keyset).expect(policy).build().unwrap();
        opener.open_for(envelope, &Context::new(exchange, key))
    };
    assert!(open(ContextPolicy::Strict, &bound, "orders", "eu").is_ok());
    for (exchange, key) in [("orders", "us"), ("refunds", "eu"), ("", "")] {
        assert!(matches!(kind(open(ContextPolicy::Strict, &bound, exchange, key)), ErrorKind::Misdirected { .. }));
        assert!(open(ContextPolicy::Warn, &bound, exchange, key).is_ok());
        assert!(open(ContextPolicy::Off, &bound, exchange, key).is_ok());
        assert!(open(ContextPolicy::Strict, &free, exchange, key).is_ok());
    }
    let long = "x".repeat(256);
    assert!(matches!(kind(sealed.seal_for(&Context::new(long, ""), b"")), ErrorKind::TooLarge { .. }));
}

#[test]
fn only_the_suites_that_are_asked_for_are_opened() {
    let keys: Vec<_> = [KeyKind::Rsa, KeyKind::X25519].map(|kind| PrivateKey::generate_kind(kind).unwrap()).into();
    let envelopes = [
        (Suite::One, seal(b"text", &keys[0].public_key(), None).unwrap()),
        (Suite::TwoRsa, sealer(Suite::TwoRsa, &keys[0]).seal(b"text").unwrap().envelope),
        (Suite::TwoX25519, seal(b"text", &keys[1].public_key(), None).unwrap()),
    ];
    let mut keys = keys.into_iter();
    let keyset = Keyset::new(keys.next().unwrap()).with_retired(keys.next().unwrap()).unwrap();
    for (taken, _) in &envelopes {
        let opener = Opener::builder(&keyset).suites(SuiteSet::of([*taken])).build().unwrap();
        for (suite, envelope) in &envelopes {
            let opened = opener.open(envelope);
            match suite == taken {
                true => assert_eq!(opened.unwrap().suite, *suite),
                false => assert!(matches!(kind(opened), ErrorKind::Unsupported { .. })),
            }
        }
    }
}

#[test]
fn messages_of_a_session_are_numbered_and_unwrapped_once() {
    let key = x25519();
    let (sealer, opener) = (sealer(Suite::TwoX25519, &key), opener(&key));
    let mut numbers = Vec::new();
    for n in 0..2002 {
        let opened = opener.open(&sealer.seal(b"text").unwrap().envelope).unwrap();
        numbers.push(opened.sequence.unwrap());
        assert_eq!(opener.stats().unwraps, n / 1000 + 1);
        let age = opened.sent_at.unwrap().elapsed().unwrap_or_default();
        assert!(age.as_secs() < 600, "{age:?}");
    }
    // The numbers run on over session keys: the lost tail of one shows as a gap.
    assert!(numbers.iter().all(|sequence| sequence.session == numbers[0].session));
    assert!(numbers.iter().zip(0..).all(|(sequence, number)| sequence.number == number));
}

#[test]
fn failures_are_remembered_and_use_up_the_budget() {
    let (key, stranger) = (x25519(), x25519());
    let opener = Opener::new(&key, OpenPolicy { failures: 2, ..OpenPolicy::default() }).unwrap();
    // Sealed for somebody else, and readdressed.
    let forged = || {
        let sealer = builder([&stranger]).session(SessionPolicy::PerMessage).build().unwrap();
        let sealed = sealer.seal(b"text").unwrap().envelope;
        let mut members: serde_json::Map<_, _> = serde_json::from_str(&sealed).unwrap();
        let good = builder([&key]).build().unwrap().seal(b"text").unwrap();
        let good: serde_json::Map<_, _> = serde_json::from_str(&good.envelope).unwrap();
        for member in ["hdr", "message_id", "ciphertext"] {
            members[member] = good[member].clone();
        }
        serde_json::to_string(&members).unwrap()
    };
    let first = forged();
    for _ in 0..5 {
        assert_eq!(kind(opener.open(&first)), ErrorKind::Decrypt);
    }
    assert_eq!(opener.stats().unwraps, 1, "a failure is not tried again");
    assert_eq!(kind(opener.open(&forged())), ErrorKind::Decrypt);
    assert_eq!(kind(opener.open(&forged())), ErrorKind::Throttled);
    assert_eq!(opener.stats().unwraps, 2);
}

#[test]
fn padded_lengths_tell_little_and_the_text_returns() {
    let key = &KEYS[1].1;
    for compression in [Compression::Off, Compression::Zstd] {
        let sealer = builder([key]).padding(Padding::Padme).compression(compression).build().unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        for len in (0..3000).step_by(7).chain([16_383, 16_384, 100_000]) {
            let text: Vec<u8> = (0..len).map(|n: u64| (n * n % 253) as u8).collect();
            let sealed = sealer.seal_with_id("m", &text).unwrap();
            lengths.insert(sealed.envelope.len());
            assert!(open(&sealed.envelope, key).unwrap().plaintext == text, "{len}");
            let mut read = Vec::new();
            opener(key).open_reader(&sealed.envelope).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == text, "{len} in pieces");
        }
        assert!(lengths.len() < 120, "{} lengths", lengths.len());
    }
    let sealer = builder([key]).padding(Padding::Padme).build().unwrap();
    for len in [0, 1, 16_383, 16_384, 20_000, 16_384 * 3 - 1] {
        let mut envelope = Vec::new();
        let mut writer = sealer.seal_writer(&Context::default(), Some("m"), &mut envelope).unwrap();
        writer.write_all(&text(len)).unwrap();
        writer.finish().unwrap();
        let envelope = String::from_utf8(envelope).unwrap();
        assert_eq!(envelope.len(), sealer.seal_with_id("m", &text(len)).unwrap().envelope.len());
        assert!(open(&envelope, key).unwrap().plaintext == text(len), "{len}");
    }
}

#[test]
fn compressed_texts_are_short_and_return() {
    let key = &KEYS[1].1;
    let text = b"the goods are on the dock; ".repeat(2000);
    let sealer = builder([key]).compression(Compression::Zstd).build().unwrap();
    let sealed = sealer.seal(&text).unwrap();
    assert!(sealed.envelope.len() < text.len() / 10, "{}", sealed.envelope.len());
    assert!(open(&sealed.envelope, key).unwrap().plaintext == text);
}

/// Once a session is less than every message, so it is no answer to being asked for that.
#[test]
fn a_signature_for_every_message_is_refused_where_there_would_be_one_a_session() {
    let build = |keys: &[&PrivateKey], signing| {
        let identity = Arc::new(Identity::generate().unwrap());
        builder(keys.iter().copied()).identity(identity).signing(signing).build().map(drop)
    };
    let (one, other) = (x25519(), x25519());
    let refused = build(&[&one], Signing::EveryMessage);
    assert!(matches!(kind(refused), ErrorKind::Option { option: "signing", .. }));
    build(&[&one], Signing::Session).unwrap();
    build(&[&one, &other], Signing::EveryMessage).unwrap();
}

#[test]
fn a_signature_for_every_message_needs_somebody_who_signs() {
    for (_, key) in KEYS.iter() {
        let refused = builder([key]).signing(Signing::EveryMessage).build().map(drop);
        assert!(matches!(kind(refused), ErrorKind::Option { option: "signing", reason: "needs an identity" }));
    }
}

#[test]
fn the_largest_text_returns_and_a_longer_one_is_refused() {
    let key = &KEYS[1].1;
    let sealer = sealer(Suite::TwoX25519, key);
    let largest = (ENVELOPE_BYTES_MAX - 2000) / 4 * 3 / 16_400 * 16_384;
    let text = text(largest);
    let sealed = sealer.seal(&text).unwrap();
    assert!(sealed.envelope.len() <= ENVELOPE_BYTES_MAX);
    assert!(open(&sealed.envelope, key).unwrap().plaintext == text);
    assert!(matches!(kind(sealer.seal(&vec![0; largest + 40_000])), ErrorKind::TooLarge { .. }));
    let mut writer = sealer.seal_writer(&Context::default(), None, std::io::sink()).unwrap();
    writer.write_all(&text).unwrap();
    assert!(writer.write_all(&[0; 40_000]).is_err());
}

#[test]
fn a_stream_that_breaks_off_is_no_envelope() {
    let key = &KEYS[1].1;
    let mut envelope = Vec::new();
    let sealer = sealer(Suite::TwoX25519, key);
    let mut writer = sealer.seal_writer(&Context::default(), None, &mut envelope).unwrap();
    writer.write_all(&text(50_000)).unwrap();
    drop(writer);
    let begun = String::from_utf8(envelope).unwrap();
    assert!(begun.len() > 40_000);
    for ended in [begun.clone(), format!("{begun}\"}}")] {
        assert!(opener(key).open(&ended).is_err());
        if let Ok(mut reader) = opener(key).open_reader(&ended) {
            assert!(reader.read_to_end(&mut Vec::new()).is_err());
            assert!(reader.read(&mut [0; 10]).is_err(), "and goes on failing");
        }
    }
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let writer = sealer.seal_writer(&Context::default(), None, Full).unwrap();
    assert_eq!(kind(writer.finish().map(drop)), ErrorKind::Stream);
    let suite_1 = seal(b"text", &KEYS[0].1.public_key(), None).unwrap();
    assert!(matches!(kind(opener(&KEYS[0].1).open_reader(&suite_1)), ErrorKind::Unsupported { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_text_and_context_returns(
        text in prop::collection::vec(any::<u8>(), 0..40_000),
        (exchange, routing_key, content_type) in ("\\PC{0,60}", "\\PC{0,60}", "\\PC{0,60}"),
        is_padded in any::<bool>(),
        is_compressed in any::<bool>(),
        which in 1..3usize,
    ) {
        let (suite, key) = &KEYS[which];
        let padding = if is_padded { Padding::Padme } else { Padding::Off };
        let compression = if is_compressed { Compression::Zstd } else { Compression::Off };
        let sealer = builder([key]).suite(*suite).padding(padding).compression(compression).build().unwrap();
        let context = Context::new(exchange, routing_key).content_type(content_type);
        let opened: Opened = open(&sealer.seal_for(&context, &text).unwrap().envelope, key).unwrap();
        prop_assert!(opened.plaintext == text);
        prop_assert_eq!(opened.context, Some(context).filter(|context| !context.is_empty()));
    }

    #[test]
    fn foreign_pieces_of_json_never_panic(at in any::<prop::sample::Index>(), piece in "\\PC{0,20}", cut in 0..40usize) {
        let (_, key) = &KEYS[1];
        let sealed = seal(b"text", &key.public_key(), None).unwrap();
        let at = at.index(sealed.len());
        let end = sealed.len().min(at + cut);
        let altered = format!("{}{piece}{}", &sealed[..at], &sealed[end..]);
        drop(open(&altered, key));
    }
}
