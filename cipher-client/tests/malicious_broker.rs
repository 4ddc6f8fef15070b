//! A broker that does what it likes with messages on their way: what a consumer
//! then hands over, and what the broker learns.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a script that fails ends its test")]

mod fake_broker;
mod forge;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use cipher_client::crypto::{
    Context, Identity, KeyKind, Keyset, OpenPolicy, Opener, OpenerBuilder, PrivateKey, Sealer, SealerBuilder, Sender,
    SessionPolicy, Suite, open,
};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};
use cipher_client::{Client, ConsumeOptions, Consumer, Delivery, Error, ErrorKind, OnUndecryptable};
use serde_json::{Value, json};

use fake_broker::{FakeBroker, Peer, within};
use forge::{now_ms, suite1, suite2};

const TEXT: &[u8] = b"the goods are on the dock";

static RSA: LazyLock<String> = LazyLock::new(|| pem(KeyKind::Rsa));
static X25519: LazyLock<String> = LazyLock::new(|| pem(KeyKind::X25519));
static ALICE: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::generate().unwrap()));

fn pem(kind: KeyKind) -> String {
    PrivateKey::generate_kind(kind).unwrap().to_pem().unwrap().to_string()
}

/// The receiver's key in suite 1, and in suite 2.
fn keys() -> [PrivateKey; 2] {
    [&RSA, &X25519].map(|pem| PrivateKey::from_pem(&**pem).unwrap())
}

fn builder(key: &PrivateKey) -> SealerBuilder {
    Sealer::builder([Recipient::from_own_source(key.public_key())])
}

fn signing(key: &PrivateKey) -> Sealer {
    builder(key).identity(ALICE.clone()).build().unwrap()
}

/// Sealed for where the deliveries of this file say they were published.
fn seal(sealer: &Sealer, id: &str) -> Value {
    let sealed = sealer.seal_for_with_id(&Context::new("e", "k"), id, TEXT).unwrap();
    serde_json::from_str(&sealed.envelope).unwrap()
}

/// Alice is known, and nobody else.
fn senders() -> Arc<Senders> {
    let senders = Senders::in_memory();
    senders.add("alice", ALICE.sender_key().clone()).unwrap();
    Arc::new(senders)
}

fn keyset() -> Keyset {
    let [rsa, x25519] = keys();
    Keyset::new(x25519).with_retired(rsa).unwrap()
}

fn opener(policy: SenderPolicy) -> Opener {
    opener_with(policy, |builder| builder)
}

fn opener_with(policy: SenderPolicy, with: impl FnOnce(OpenerBuilder<'_>) -> OpenerBuilder<'_>) -> Opener {
    let bounds = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
    with(Opener::builder(&keyset()).policy(bounds).senders(policy)).build().unwrap()
}

fn required() -> SenderPolicy {
    SenderPolicy::require_signed(senders())
}

fn mixed() -> SenderPolicy {
    SenderPolicy::allow_unsigned(senders()).mixed()
}

fn kind<T>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.err().expect("it is refused").kind().clone()
}

fn without(envelope: &Value, name: &str) -> Value {
    let mut envelope = envelope.clone();
    envelope.as_object_mut().unwrap().remove(name).unwrap();
    envelope
}

fn with(envelope: &Value, name: &str, value: Value) -> Value {
    let mut envelope = envelope.clone();
    envelope[name] = value;
    envelope
}

/// A consumer, and the broker it talks to.
struct Stage {
    _broker: FakeBroker,
    peer: Peer,
    _client: Client,
    consumer: Consumer,
}

impl Stage {
    async fn new(opener: Opener, options: ConsumeOptions) -> Self {
        let broker = FakeBroker::start().await;
        let (client, mut peer) = broker.client().await;
        let (consumer, ()) = within(async {
            tokio::join!(client.consume("q", opener, options), async {
                peer.expect("consume q prefetch=256").await;
                peer.say("Subscribed to queue").await;
            })
        })
        .await;
        Self { _broker: broker, peer, _client: client, consumer: consumer.unwrap() }
    }

    /// One that recognises repetitions.
    async fn remembering(opener: Opener) -> Self {
        let window = DedupeWindow::in_memory(DedupeOptions::default()).unwrap();
        Self::new(opener, ConsumeOptions::new().dedupe(Arc::new(Mutex::new(window)))).await
    }

    async fn deliver(&mut self, id: &str, envelope: &Value) {
        self.peer.deliver_envelope(id, 1, &envelope.to_string()).await;
    }

    async fn next(&mut self) -> Result<Delivery, Error> {
        within(self.consumer.next()).await.unwrap()
    }

    /// What is handed over next is this message, from Alice; it is acknowledged.
    async fn expect_signed(&mut self, id: &str) {
        let delivery = self.next().await.unwrap();
        assert_eq!((delivery.message_id(), delivery.plaintext()), (id, TEXT));
        assert_eq!(delivery.sender(), Sender::Signed(*ALICE.kid()));
        self.ack(delivery).await;
    }

    async fn ack(&mut self, delivery: Delivery) {
        let ack = format!("ack {} queue=q", delivery.message_id());
        drop(delivery.ack_later().unwrap());
        self.peer.expect(&ack).await;
    }
}

/// Looked for as it is, and as base64 has it at each of three offsets.
#[tokio::test]
async fn the_broker_sees_no_piece_of_the_text() {
    let marker = "marker-of-the-text".repeat(3);
    for key in keys() {
        for identity in [None, Some(ALICE.clone())] {
            let sealer = match identity {
                Some(identity) => builder(&key).identity(identity).build().unwrap(),
                None => builder(&key).build().unwrap(),
            };
            let broker = FakeBroker::start().await;
            let (client, mut peer) = broker.client().await;
            let publisher = client.publisher("e", "k", sealer).unwrap();
            let (confirm, line) = tokio::join!(publisher.publish(&marker), peer.line());
            drop(confirm.unwrap());
            assert!(line.starts_with("publish e k {"), "{line}");
            for piece in pieces(marker.as_bytes()) {
                assert!(!line.contains(&piece), "{piece}");
            }
            let envelope = &line["publish e k ".len()..];
            assert_eq!(open(envelope, &key).unwrap().plaintext, marker.as_bytes());
        }
    }
}

/// What would show that a text stands in another one.
fn pieces(text: &[u8]) -> Vec<String> {
    let in_base64 = (0..3).map(|skip| {
        let encoded = forge::encode(&text[skip..skip + (text.len() - skip) / 3 * 3]);
        encoded[..16].to_owned()
    });
    let hex = text[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    in_base64.chain([String::from_utf8(text[..8].to_vec()).unwrap(), hex]).collect()
}

/// Everything a broker can make of one message and another: refused, each time
/// with the same word to the broker; and then the message itself, untouched, is
/// still handed over. A forgery uses up no id and no sealing.
#[tokio::test]
async fn a_forgery_is_put_away_and_keeps_nothing_out() {
    for key in keys() {
        let sealer = signing(&key);
        let (genuine, other) = (seal(&sealer, "m-1"), seal(&sealer, "m-2"));
        sealer.rotate();
        let next_session = seal(&sealer, "m-3");
        let options = ConsumeOptions::new().on_undecryptable(OnUndecryptable::Reject);
        let window = Arc::new(Mutex::new(DedupeWindow::in_memory(DedupeOptions::default()).unwrap()));
        let mut stage = Stage::new(opener(required()), options.dedupe(window.clone())).await;

        let mut forged = vec![with(&genuine, "message_id", json!("m-9"))];
        for from in [&other, &next_session] {
            for (name, value) in from.as_object().unwrap().iter().filter(|(name, value)| genuine[*name] != **value) {
                forged.push(with(&genuine, name, value.clone()));
            }
        }
        for name in ["x", "sig", "hdr", "v", "suite"] {
            if genuine.get(name).is_some() {
                forged.push(without(&genuine, name));
            }
        }
        forged.push(seal(&builder(&key).build().unwrap(), "m-1"));
        let stranger = Arc::new(Identity::generate().unwrap());
        forged.push(seal(&builder(&key).identity(stranger).build().unwrap(), "m-1"));
        assert!(forged.len() >= 10, "{}", forged.len());
        for (n, envelope) in forged.iter().enumerate() {
            let id = envelope["message_id"].as_str().unwrap().to_owned();
            stage.deliver(&id, envelope).await;
            // It is looked at when somebody asks for the next one, who is left waiting.
            let heard = tokio::select! {
                _ = stage.consumer.next() => panic!("forgery {n} was handed over: {envelope}"),
                line = stage.peer.line() => line,
            };
            assert_eq!(heard, format!("reject {id} queue=q"), "forgery {n}: {envelope}");
        }
        assert!(window.lock().unwrap().is_empty());
        stage.deliver("m-1", &genuine).await;
        stage.expect_signed("m-1").await;
        assert_eq!(stage.consumer.stats().duplicates, 0);
    }
}

/// The broker settles by the id it delivers under, so another one would have the
/// consumer acknowledge what it has not seen.
#[tokio::test]
async fn a_message_delivered_under_another_id_is_refused() {
    for key in keys() {
        for sealer in [signing(&key), builder(&key).build().unwrap()] {
            let envelope = seal(&sealer, "m-1");
            let mut stage = Stage::remembering(opener(mixed())).await;
            for id in ["m-2", "m-11", "M-1"] {
                stage.deliver(id, &envelope).await;
                assert!(matches!(kind(stage.next().await), ErrorKind::Malformed { part: "message_id", .. }), "{id}");
            }
            stage.deliver("m-1", &envelope).await;
            assert_eq!(stage.next().await.unwrap().plaintext(), TEXT);
        }
    }
}

#[tokio::test]
async fn a_replay_is_acknowledged_and_not_handed_over() {
    for key in keys() {
        let sealer = signing(&key);
        let (one, other) = (seal(&sealer, "m-1"), seal(&sealer, "m-2"));
        let mut stage = Stage::remembering(opener(required())).await;
        stage.deliver("m-1", &one).await;
        stage.expect_signed("m-1").await;
        for _ in 0..3 {
            stage.deliver("m-1", &one).await;
        }
        // Sealed again under the same id, by the sender: the same message.
        sealer.rotate();
        stage.deliver("m-1", &seal(&sealer, "m-1")).await;
        stage.deliver("m-2", &other).await;
        let delivery = stage.next().await.unwrap();
        assert_eq!((delivery.message_id(), stage.consumer.stats().duplicates), ("m-2", 4));
        for _ in 0..4 {
            stage.peer.expect("ack m-1 queue=q").await;
        }
        stage.ack(delivery).await;
    }
}

/// After a restart of the receiver, and over another connection.
#[tokio::test]
async fn a_replay_is_recognised_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sealer = signing(&keys()[1]);
    let (one, other) = (seal(&sealer, "m-1"), seal(&sealer, "m-2"));
    for is_first in [true, false] {
        let window = DedupeWindow::open(dir.path().join("seen"), DedupeOptions::default(), SystemTime::now()).unwrap();
        let options = ConsumeOptions::new().dedupe(Arc::new(Mutex::new(window)));
        let mut stage = Stage::new(opener(required()), options).await;
        stage.deliver("m-1", &one).await;
        if is_first {
            stage.expect_signed("m-1").await;
        } else {
            stage.deliver("m-2", &other).await;
            assert_eq!(stage.next().await.unwrap().message_id(), "m-2");
        }
        assert_eq!(stage.consumer.stats().duplicates, u64::from(!is_first));
    }
}

/// A replay that comes when the window has forgotten the message is too old.
#[test]
fn a_replay_from_before_the_window_is_too_old() {
    let hour = Duration::from_secs(3600);
    let opener = |policy: SenderPolicy| opener(policy);
    for (age_ms, is_taken) in [(0, true), (50 * 60_000, true), (61 * 60_000, false), (86_400_000, false)] {
        for envelope in sealed_at(now_ms() - age_ms) {
            let taken = opener(required().max_age(hour)).open(&envelope);
            assert!(opener(required()).open(&envelope).is_ok(), "without an end to their age");
            match is_taken {
                true => assert_eq!(taken.unwrap().sender, Sender::Signed(*ALICE.kid())),
                false => assert!(matches!(kind(taken), ErrorKind::Untrusted { .. }), "{age_ms}"),
            }
        }
    }
    for envelope in sealed_at(now_ms() + 86_400_000) {
        assert!(matches!(kind(opener(required().max_age(hour)).open(&envelope)), ErrorKind::Untrusted { .. }));
    }
}

/// From Alice, in each suite.
fn sealed_at(ms: u64) -> [String; 2] {
    let [rsa, x25519] = keys();
    let one = suite1::Forged::new(&rsa.public_key(), ALICE.kid(), TEXT).sealed_at(ms).signed_by(&ALICE);
    let two = suite2::Forged::new(&[&x25519.public_key()], Some(ALICE.kid()), TEXT).sealed_at(ms).signed_by(&ALICE);
    [one, two].map(|envelope| envelope.to_string())
}

/// A broker that moves a message says on delivery what the receiver wants to
/// hear. So the receiver has to know where its messages come from.
#[tokio::test]
async fn a_broker_that_re_routes_and_lies_about_it_is_found_out() {
    for key in keys() {
        let sealer = signing(&key);
        let sealed = |exchange: &str, key: &str| {
            sealer.seal_for_with_id(&Context::new(exchange, key), "m-1", TEXT).unwrap().envelope
        };
        let places = || [Context::new("orders", "eu"), Context::new("orders", "us")];
        let opener = opener_with(required(), |builder| builder.only_for(places()));
        let mut stage = Stage::new(opener, ConsumeOptions::new()).await;
        let unbound = sealer.seal_with_id("m-1", TEXT).unwrap().envelope;
        let elsewhere = [("refunds", "eu"), ("orders", "asia"), ("eu", "orders")];
        for (exchange, key) in elsewhere {
            let envelope = sealed(exchange, key);
            for (says, of) in [(exchange, key), ("orders", "eu")] {
                stage.peer.say(&delivery("m-1", says, of, &envelope)).await;
                assert!(matches!(kind(stage.next().await), ErrorKind::Misdirected { .. }), "{exchange} {key}");
            }
        }
        stage.peer.say(&delivery("m-1", "orders", "eu", &unbound)).await;
        assert!(matches!(kind(stage.next().await), ErrorKind::Misdirected { .. }), "bound to nothing");
        stage.peer.say(&delivery("m-1", "orders", "us", &sealed("orders", "eu"))).await;
        assert!(matches!(kind(stage.next().await), ErrorKind::Misdirected { .. }), "not what the broker says");
        for key in ["eu", "us"] {
            stage.peer.say(&delivery("m-1", "orders", key, &sealed("orders", key))).await;
            assert_eq!(stage.next().await.unwrap().plaintext(), TEXT);
            stage.peer.expect("release m-1 queue=q").await;
        }
    }
}

fn delivery(id: &str, exchange: &str, key: &str, envelope: &str) -> String {
    format!("Message: {id} queue=q attempt=1 exchange={exchange} key={key} published=1700 {envelope}")
}

/// Every call that opens, also with `expect` off.
#[test]
fn a_place_is_asked_for_by_every_call() {
    use cipher_client::crypto::ContextPolicy;
    let sealed = seal(&signing(&keys()[1]), "m-1").to_string();
    for (place, is_taken) in [(Context::new("e", "k"), true), (Context::new("e", "j"), false)] {
        let opener = opener_with(required(), |builder| builder.expect(ContextPolicy::Off).only_for([place.clone()]));
        assert_eq!(opener.open(&sealed).is_ok(), is_taken);
        assert_eq!(opener.open_for(&sealed, &place).is_ok(), is_taken);
        assert_eq!(opener.open_reader(&sealed).is_ok(), is_taken);
    }
}

/// The broker shows a message without its signature first, so that the true one
/// comes as a copy of it. In hand or done with, it is no reason to leave out the
/// signed one; but the other way round it is.
#[tokio::test]
async fn a_copy_without_its_signature_keeps_the_signed_message_from_nobody() {
    let key = &keys()[0];
    let sealer = signing(key);
    let (one, other) = (seal(&sealer, "m-1"), seal(&sealer, "m-2"));
    let mut stage = Stage::remembering(opener(mixed())).await;
    stage.deliver("m-8", &with(&without(&one, "x"), "message_id", json!("m-8"))).await;
    let stripped = stage.next().await.unwrap();
    assert_eq!(stripped.sender(), Sender::Unsigned);
    stage.deliver("m-1", &one).await;
    stage.expect_signed("m-1").await;
    stage.ack(stripped).await;
    // Its session is known to be signed by now, so this one needs a new opener to be taken at all.
    let mut stage = Stage::remembering(opener(mixed())).await;
    stage.deliver("m-9", &with(&without(&other, "x"), "message_id", json!("m-9"))).await;
    let stripped = stage.next().await.unwrap();
    stage.ack(stripped).await;
    stage.deliver("m-2", &other).await;
    stage.expect_signed("m-2").await;
    assert_eq!(stage.consumer.stats().duplicates, 0);
}

/// Nonce and tag are no hash: whoever knows his own session key can make a
/// message that has those of another.
#[tokio::test]
async fn a_made_up_message_with_the_sealing_of_a_signed_one_keeps_it_from_nobody() {
    let key = &keys()[0];
    let genuine = seal(&signing(key), "m-1");
    let forged = suite1::with_sealing_of(&genuine, &key.public_key(), "m-9");
    let mut stage = Stage::remembering(opener(mixed())).await;
    stage.deliver("m-9", &forged).await;
    let made_up = stage.next().await.unwrap();
    assert_eq!(made_up.sender(), Sender::Unsigned);
    stage.ack(made_up).await;
    stage.deliver("m-1", &genuine).await;
    stage.expect_signed("m-1").await;
}

/// Who signs is remembered of the source, so it does not help to make the
/// receiver forget the session.
#[test]
fn a_flood_of_session_keys_does_not_make_a_signature_optional() {
    let key = &keys()[0];
    let sealer = signing(key);
    let few = OpenPolicy { cached_keys: 2, failures: u32::MAX, ..OpenPolicy::default() };
    let opener = opener_with(SenderPolicy::allow_unsigned(senders()), |builder| builder.policy(few));
    opener.open(&seal(&sealer, "m-1").to_string()).unwrap();
    let others = Sealer::builder([Recipient::from_own_source(key.public_key())]).identity(ALICE.clone());
    let others = others.session(SessionPolicy::PerMessage).build().unwrap();
    for n in 0..5 {
        opener.open(&seal(&others, &format!("flood-{n}")).to_string()).unwrap();
    }
    let stripped = without(&seal(&sealer, "m-2"), "x").to_string();
    assert!(matches!(kind(opener.open(&stripped)), ErrorKind::Untrusted { .. }));
}

/// `x` of a stranger does not let a broker try RSA blocks as often as it likes.
#[test]
fn a_flood_of_blocks_costs_a_bounded_number_of_unwraps_signed_or_not() {
    let key = &keys()[0];
    let bounds = OpenPolicy { failures: 3, failure_forgiven_after: Duration::from_secs(3600), ..OpenPolicy::default() };
    let stranger = Identity::generate().unwrap();
    let block = |n: u8| suite1::Forged {
        wrapped: vec![n; 256],
        ..suite1::Forged::new(&key.public_key(), stranger.kid(), TEXT)
    };
    for is_signed in [true, false] {
        let opener = opener_with(mixed(), |builder| builder.policy(bounds));
        let forged = |n: u8| {
            let envelope = block(n).signed_by(&stranger);
            if is_signed { envelope.to_string() } else { without(&envelope, "x").to_string() }
        };
        let outcomes: Vec<_> = (1..=20).map(|n| kind(opener.open(&forged(n)))).collect();
        assert_eq!(outcomes[..3], [ErrorKind::Decrypt, ErrorKind::Decrypt, ErrorKind::Decrypt]);
        assert!(outcomes[3..].iter().all(|kind| *kind == ErrorKind::Throttled), "{outcomes:?}");
        assert_eq!(opener.stats().unwraps, 3, "signed: {is_signed}");
    }
    // Where signatures are required no block of a stranger is touched at all.
    let opener = opener_with(required(), |builder| builder.policy(bounds));
    for n in 1..=20 {
        assert!(matches!(kind(opener.open(&block(n).signed_by(&stranger).to_string())), ErrorKind::Untrusted { .. }));
    }
    assert_eq!(opener.stats().unwraps, 0);
}

/// The broker leads Alice back to suite 1, which has no commitment and no
/// protection against quantum computers, though she is known to do better.
#[test]
fn a_sender_is_not_led_back_to_a_weaker_suite() {
    let [rsa, _] = keys();
    let known = senders();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    known.expect_suite(ALICE.kid(), Suite::TwoX25519, hour_ago).unwrap();
    let weaker = seal(&signing(&rsa), "m-1").to_string();
    assert!(matches!(
        kind(opener(SenderPolicy::require_signed(known.clone())).open(&weaker)),
        ErrorKind::Untrusted { .. }
    ));
    assert!(opener(SenderPolicy::require_signed(known).allow_lower_suites()).open(&weaker).is_ok());
}
