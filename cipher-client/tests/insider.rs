//! What somebody who opens messages, or has got a session key, cannot do with
//! what he knows: forged with an implementation of its own (`forge`), which each
//! test first shows to make messages that do open.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

mod forge;

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::{Arc, LazyLock};

use cipher_client::ErrorKind;
use cipher_client::crypto::{
    Context, Identity, KeyKind, Keyset, OpenPolicy, Opened, Opener, PrivateKey, Sealer, Sender, open,
};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};
use serde_json::{Value, json};

use forge::{member, sign, suite1, suite2};

const TEXT: &[u8] = b"the goods are on the dock";
const LIE: &[u8] = b"the goods are at the bottom of the sea";

/// Alice sends; Bob and Carol receive; Bob sends as well, under his own name.
struct Cast {
    alice: Arc<Identity>,
    bob_signs: Arc<Identity>,
    bob: PrivateKey,
    carol: PrivateKey,
}

static RSA: LazyLock<Cast> = LazyLock::new(|| cast(KeyKind::Rsa));
static X25519: LazyLock<Cast> = LazyLock::new(|| cast(KeyKind::X25519));

fn cast(kind: KeyKind) -> Cast {
    let [alice, bob_signs] = [(); 2].map(|()| Arc::new(Identity::generate().unwrap()));
    let [bob, carol] = [(); 2].map(|()| PrivateKey::generate_kind(kind).unwrap());
    Cast { alice, bob_signs, bob, carol }
}

impl Cast {
    /// A message from Alice.
    fn sealed_to(&self, to: &[&PrivateKey]) -> Value {
        let to = to.iter().map(|key| Recipient::from_own_source(key.public_key()));
        let sealer = Sealer::builder(to).identity(self.alice.clone()).build().unwrap();
        let sealed = sealer.seal_for_with_id(&Context::new("e", "k"), "m-1", TEXT).unwrap();
        serde_json::from_str(&sealed.envelope).unwrap()
    }

    /// Both senders are known.
    fn senders(&self) -> Arc<Senders> {
        let senders = Senders::in_memory();
        senders.add("alice", self.alice.sender_key().clone()).unwrap();
        senders.add("bob", self.bob_signs.sender_key().clone()).unwrap();
        Arc::new(senders)
    }

    fn carols(&self) -> Opener {
        opener(&self.carol, SenderPolicy::require_signed(self.senders()))
    }
}

fn opener(key: &PrivateKey, policy: SenderPolicy) -> Opener {
    let again = PrivateKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
    let bounds = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
    Opener::builder(&Keyset::new(again)).policy(bounds).senders(policy).build().unwrap()
}

fn try_open(opener: &Opener, envelope: &Value) -> Result<Opened, ErrorKind> {
    opener.open(&envelope.to_string()).map_err(|error| error.kind().clone())
}

fn is_untrusted(outcome: Result<Opened, ErrorKind>) -> bool {
    matches!(outcome, Err(ErrorKind::Untrusted { .. }))
}

/// Bob has the content key of a message to him and Carol, and everything else
/// that Alice put into it.
#[test]
fn one_of_many_recipients_cannot_forge_for_the_others() {
    let cast = &*X25519;
    let genuine = cast.sealed_to(&[&cast.bob, &cast.carol]);
    let carol = cast.carols();
    assert_eq!(try_open(&carol, &genuine).unwrap().sender, Sender::Signed(*cast.alice.kid()));

    // He can do it under his own name: that is what the keys are for.
    let mut own = suite2::Forged::like(&genuine, &cast.bob, LIE);
    own.header.sender = Some(*cast.bob_signs.kid());
    let opened = try_open(&carol, &own.signed_by(&cast.bob_signs)).unwrap();
    assert_eq!((opened.plaintext.as_slice(), opened.sender), (LIE, Sender::Signed(*cast.bob_signs.kid())));

    // In hers, with her signature of the genuine one, and with his.
    let alices: [u8; 64] = member(&genuine, "sig").try_into().unwrap();
    let forged = suite2::Forged::like(&genuine, &cast.bob, LIE);
    assert_eq!(try_open(&carol, &forged.with_signature(Some(&alices))), Err(ErrorKind::Decrypt));
    assert_eq!(try_open(&carol, &forged.signed_by(&cast.bob_signs)), Err(ErrorKind::Decrypt));
    // As if it were to Carol alone, where a session signature would do.
    let mut alone = suite2::Forged::like(&genuine, &cast.bob, LIE);
    alone.header.recipients = vec![*cast.carol.kid()];
    alone.wraps = vec![suite2::wrap(&cast.carol.public_key(), &alone.content_key)];
    for signature in [alices, sign(&cast.bob_signs, &alone.header.statement(&alone.wraps[0]))] {
        assert_eq!(try_open(&carol, &alone.with_signature(Some(&signature))), Err(ErrorKind::Decrypt));
    }
    // Unsigned.
    let mut unsigned = suite2::Forged::like(&genuine, &cast.bob, LIE);
    unsigned.header.sender = None;
    assert!(is_untrusted(try_open(&carol, &unsigned.with_signature(None))));
    assert!(try_open(&carol, &genuine).is_ok());
}

/// A message in a file is read twice, first for the digest that Alice signed. Bob
/// puts his own in its place in between.
#[test]
fn a_file_that_changes_between_check_and_use_is_refused_at_its_end() {
    let cast = &*X25519;
    let to = [&cast.bob, &cast.carol].map(|key| Recipient::from_own_source(key.public_key()));
    let sealer = Sealer::builder(to).identity(cast.alice.clone()).build().unwrap();
    // Long enough that the end of the file is looked for behind the payload's beginning.
    let (truth, lie) = (TEXT.repeat(20), b"the goods are in the dock".repeat(20));
    let text = sealer.seal_with_id("m-1", &truth).unwrap().envelope;
    let genuine: Value = serde_json::from_str(&text).unwrap();
    let forged = suite2::Forged::like(&genuine, &cast.bob, &lie).with_signature(None);
    let changed = text.replace(genuine["ciphertext"].as_str().unwrap(), forged["ciphertext"].as_str().unwrap());
    assert!(changed != text && changed.len() == text.len());
    let carol = cast.carols();
    for (then, is_good) in [(&text, true), (&changed, false)] {
        let file = Switched::new(&text, then);
        let mut reader = carol.open_stream(file, None).unwrap();
        let mut read = Vec::new();
        let outcome = reader.read_to_end(&mut read);
        match is_good {
            true => assert_eq!((outcome.unwrap(), &read), (truth.len(), &truth)),
            false => assert!(outcome.is_err() && read != lie, "what was not signed was given out"),
        }
    }
    // From the beginning, it is a wrong signature.
    assert!(carol.open_stream(Switched::new(&changed, &changed), None).is_err());
}

/// A file that is another one when its payload is read again.
struct Switched {
    file: Cursor<Vec<u8>>,
    then: Option<Vec<u8>>,
    payload: u64,
    passes: u32,
}

impl Switched {
    fn new(first: &str, then: &str) -> Self {
        const OPEN: &str = r#""ciphertext":""#;
        let payload = (first.find(OPEN).unwrap() + OPEN.len()) as u64;
        Self { file: Cursor::new(first.into()), then: Some(then.into()), payload, passes: 0 }
    }
}

impl Read for Switched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Switched {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = self.file.seek(to)?;
        self.passes += u32::from(at == self.payload);
        if self.passes == 2
            && let Some(then) = self.then.take()
        {
            self.file = Cursor::new(then);
            self.file.seek(SeekFrom::Start(at))?;
        }
        Ok(at)
    }
}

/// Bob seals what Alice wrote to him anew, for Carol, as from Alice.
#[test]
fn a_message_is_not_forwarded_as_if_from_its_sender() {
    let cast = &*X25519;
    let to_bob = cast.sealed_to(&[&cast.bob]);
    let carol = cast.carols();
    let alices: [u8; 64] = member(&to_bob, "sig").try_into().unwrap();
    let mut passed_on = suite2::Forged::like(&to_bob, &cast.bob, TEXT);
    passed_on.header.recipients = vec![*cast.carol.kid()];
    passed_on.wraps = vec![suite2::wrap(&cast.carol.public_key(), &passed_on.content_key)];
    assert_eq!(try_open(&carol, &passed_on.with_signature(Some(&alices))), Err(ErrorKind::Decrypt));
    // The header of the genuine one, with a wrap that Carol can open.
    let mut readdressed = to_bob.clone();
    readdressed["enc_session_key"] = json!(forge::encode(&passed_on.wraps[0]));
    assert_eq!(try_open(&carol, &readdressed), Err(ErrorKind::Decrypt), "her key is not in the header");
    // As from himself he may.
    passed_on.header.sender = Some(*cast.bob_signs.kid());
    let opened = try_open(&carol, &passed_on.signed_by(&cast.bob_signs)).unwrap();
    assert_eq!(opened.sender, Sender::Signed(*cast.bob_signs.kid()));
}

#[test]
fn nor_is_one_of_suite_1() {
    let cast = &*RSA;
    let to_bob = cast.sealed_to(&[&cast.bob]);
    let carol = cast.carols();
    let alices: [u8; 64] = member(&to_bob["x"], "sig").try_into().unwrap();
    let key = suite1::session_key(&cast.bob, &to_bob);
    let to_carol = |sender: &Identity| {
        let forged = suite1::Forged::new(&cast.carol.public_key(), sender.kid(), TEXT);
        suite1::Forged { session_key: key, wrapped: suite1::wrap(&cast.carol.public_key(), &key), ..forged }
    };
    assert_eq!(try_open(&carol, &to_carol(&cast.alice).with_signature(&alices)), Err(ErrorKind::Decrypt));
    assert_eq!(try_open(&carol, &to_carol(&cast.alice).signed_by(&cast.bob_signs)), Err(ErrorKind::Decrypt));
    // Her statement as it stands, which names Bob's key.
    let mut rewrapped = to_bob.clone();
    rewrapped["enc_session_key"] = json!(forge::encode(&suite1::wrap(&cast.carol.public_key(), &key)));
    assert_eq!(try_open(&carol, &rewrapped), Err(ErrorKind::Decrypt));
    rewrapped["x"]["kid"] = json!(cast.carol.kid().to_string());
    assert_eq!(try_open(&carol, &rewrapped), Err(ErrorKind::Decrypt));
    let opened = try_open(&carol, &to_carol(&cast.bob_signs).signed_by(&cast.bob_signs)).unwrap();
    assert_eq!((opened.plaintext.as_slice(), opened.sender), (TEXT, Sender::Signed(*cast.bob_signs.kid())));
}

/// Whoever finds a session key of Alice's later on can make messages of its
/// time, and no others. Those a receiver with `max_age` takes no more.
#[test]
fn a_stolen_session_key_is_good_for_its_time_only() {
    let minute = 60_000;
    for suite in 1..=2 {
        let cast = if suite == 1 { &*RSA } else { &*X25519 };
        let genuine = cast.sealed_to(&[&cast.carol]);
        // At what is left of its minute, at its end, and after it.
        for (later, is_good) in [(0, true), (minute, true), (minute + 1, false), (10 * minute, false)] {
            let forged = if suite == 1 {
                later_of_suite_1(cast, &genuine, later)
            } else {
                later_of_suite_2(cast, &genuine, later)
            };
            let outcome = try_open(&cast.carols(), &forged);
            match is_good {
                true => assert_eq!(outcome.unwrap().plaintext, LIE, "suite {suite}"),
                false => assert_eq!(outcome, Err(ErrorKind::Decrypt), "suite {suite}, {later} ms later"),
            }
        }
    }
}

fn later_of_suite_1(cast: &Cast, genuine: &Value, later_ms: u64) -> Value {
    let session = member(&genuine["x"], "session");
    let number = |at: usize| u64::from_be_bytes(session[at..at + 8].try_into().unwrap());
    let forged = suite1::Forged {
        session_key: suite1::session_key(&cast.carol, genuine),
        wrapped: member(genuine, "enc_session_key"),
        stream: session[..16].try_into().unwrap(),
        started_ms: number(16),
        lifetime_ms: number(24),
        sent_ms: number(16) + later_ms,
        ..suite1::Forged::new(&cast.carol.public_key(), cast.alice.kid(), LIE)
    };
    forged.with_signature(&member(&genuine["x"], "sig").try_into().unwrap())
}

fn later_of_suite_2(cast: &Cast, genuine: &Value, later_ms: u64) -> Value {
    let mut forged = suite2::Forged::like(genuine, &cast.carol, LIE);
    forged.header.sent_ms = forged.header.started_ms + later_ms;
    forged.with_signature(Some(&member(genuine, "sig").try_into().unwrap()))
}

/// A session of Alice's in which another stream, time or suite is claimed.
#[test]
fn what_a_session_signature_says_cannot_be_changed() {
    let cast = &*X25519;
    let genuine = cast.sealed_to(&[&cast.carol]);
    let signature: [u8; 64] = member(&genuine, "sig").try_into().unwrap();
    let changes: [fn(&mut suite2::Forged); 5] = [
        |forged| forged.header.session = [4; 16],
        |forged| forged.header.started_ms += 1,
        |forged| forged.header.lifetime_ms = u64::MAX,
        |forged| forged.wraps = vec![suite2::wrap(&X25519.carol.public_key(), &forged.content_key)],
        |forged| forged.header.sender = Some(*X25519.bob_signs.kid()),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut forged = suite2::Forged::like(&genuine, &cast.carol, LIE);
        change(&mut forged);
        forged.header.sent_ms = forged.header.started_ms;
        let outcome = try_open(&cast.carols(), &forged.with_signature(Some(&signature)));
        assert_eq!(outcome, Err(ErrorKind::Decrypt), "change {n}");
    }
}

/// What is signed as one thing is no signature of another.
#[test]
fn a_signature_of_one_kind_is_none_of_another() {
    let cast = &*X25519;
    let (carol, both) = (cast.carol.public_key(), [&cast.bob.public_key(), &cast.carol.public_key()]);
    let one = suite2::Forged::new(&[&carol], Some(cast.alice.kid()), TEXT);
    let many = suite2::Forged::new(&both, Some(cast.alice.kid()), TEXT);
    let opener = cast.carols();
    assert!(try_open(&opener, &one.signed_by(&cast.alice)).is_ok());
    assert!(try_open(&opener, &many.signed_by(&cast.alice)).is_ok());
    let as_message = sign(&cast.alice, &one.message_statement());
    let as_session = sign(&cast.alice, &many.header.statement(&many.wraps[0]));
    let relabelled = [&b"cipher/1"[..], &one.header.statement(&one.wraps[0])[8..]].concat();
    for envelope in [
        one.with_signature(Some(&as_message)),
        many.with_signature(Some(&as_session)),
        one.with_signature(Some(&sign(&cast.alice, &relabelled))),
    ] {
        let opener = cast.carols();
        assert_eq!(try_open(&opener, &envelope), Err(ErrorKind::Decrypt));
    }
}

/// S and S + L are the same number to a lenient reader.
#[test]
fn a_signature_has_one_form() {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let cast = &*X25519;
    let forged = suite2::Forged::new(&[&cast.carol.public_key()], Some(cast.alice.kid()), TEXT);
    let good = sign(&cast.alice, &forged.header.statement(&forged.wraps[0]));
    let mut other = good;
    let mut carry = 0;
    for (byte, add) in other[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    assert!(try_open(&cast.carols(), &forged.with_signature(Some(&good))).is_ok());
    assert_eq!(try_open(&cast.carols(), &forged.with_signature(Some(&other))), Err(ErrorKind::Decrypt));
}

/// AES-GCM alone opens one ciphertext to two texts under two keys; a payload of
/// suite 2 says which key it is for.
#[test]
fn a_payload_is_for_one_key_and_one_header() {
    let cast = &*X25519;
    let sealed = suite2::Forged::new(&[&cast.carol.public_key()], None, TEXT).with_signature(None);
    assert_eq!(open(&sealed.to_string(), &cast.carol).unwrap().plaintext, TEXT);
    let mut other_key = suite2::Forged::new(&[&cast.carol.public_key()], None, TEXT);
    other_key.wraps = vec![suite2::wrap(&cast.carol.public_key(), &[8; 32])];
    let mut mixed = other_key.with_signature(None);
    mixed["ciphertext"] = sealed["ciphertext"].clone();
    let kind = |envelope: &Value| open(&envelope.to_string(), &cast.carol).unwrap_err().kind().clone();
    assert_eq!(kind(&mixed), ErrorKind::Decrypt);
    // Every tag is right, and what the payload says of its key is not.
    let mut uncommitted = sealed.clone();
    let mut payload = member(&sealed, "ciphertext");
    payload[24] ^= 1;
    uncommitted["ciphertext"] = json!(forge::encode(&payload));
    assert_eq!(kind(&uncommitted), ErrorKind::Decrypt);
    let mut other_header = suite2::Forged::new(&[&cast.carol.public_key()], None, TEXT);
    other_header.header.number = 1;
    let mut mixed = sealed.clone();
    mixed["hdr"] = other_header.with_signature(None)["hdr"].clone();
    assert_eq!(kind(&mixed), ErrorKind::Decrypt);
}
