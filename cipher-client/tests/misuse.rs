//! What goes wrong with keys goes wrong in one way, and early. Keys of zeros: tests/key_kinds.rs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

mod fake_broker;
mod support;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::Path;
use std::sync::LazyLock;

use cipher_client::crypto::{Envelope, KeyKind, Keyset, OpenPolicy, Opener, PrivateKey, Sealer, seal};
use cipher_client::trust::Recipient;
use cipher_client::{Client, ConsumeOptions, Consumer, Error, ErrorKind, OnUndecryptable};
use serde_json::Value;

use fake_broker::{FakeBroker, Peer, within};
use support::{cases, field, private_key};

const TEXT: &[u8] = b"the goods are on the dock";

fn fault<T>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.err().expect("it is refused").kind().clone()
}

const KINDS: [KeyKind; 3] = [KeyKind::Rsa, KeyKind::X25519, KeyKind::XWing];

#[test]
fn a_fresh_key_opens_nothing_that_was_sealed_before() {
    for kind in KINDS {
        let [key, fresh] = [(); 2].map(|()| PrivateKey::generate_kind(kind).unwrap());
        let envelope = seal(TEXT, &key.public_key(), None).unwrap();
        assert_eq!(fault(cipher_client::crypto::open(&envelope, &fresh)), ErrorKind::Decrypt);
        // Nor does it stand in the way of the right one.
        let both = Opener::with_keys(&[&fresh, &key], OpenPolicy::default()).unwrap();
        assert_eq!(both.open(&envelope).unwrap().plaintext, TEXT);
        let another = KINDS.into_iter().find(|other| *other != kind).unwrap();
        let of_another_kind = PrivateKey::generate_kind(another).unwrap();
        assert_eq!(fault(cipher_client::crypto::open(&envelope, &of_another_kind)), ErrorKind::Decrypt);
    }
}

/// The same key twice is a mistake of the program: one of them was meant to be another.
#[test]
fn the_same_key_twice_is_refused() {
    for kind in KINDS {
        let key = PrivateKey::generate_kind(kind).unwrap();
        let again = || PrivateKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
        let recipient = || Recipient::from_own_source(again().public_key());
        assert!(matches!(fault(Keyset::new(again()).with_retired(again())), ErrorKind::Option { option: "keys", .. }));
        let opener = Opener::with_keys(&[&key, &again()], OpenPolicy::default());
        assert!(matches!(fault(opener), ErrorKind::Option { option: "keys", .. }));
        let sealer = Sealer::builder([recipient(), recipient()]).build();
        assert!(matches!(fault(sealer), ErrorKind::Option { .. }));
    }
}

/// An attacker who sees what a consumer does with a message must learn nothing but that it did not open: neither from what
/// the caller is told nor from what the broker hears.
#[tokio::test]
async fn a_consumer_behaves_alike_whatever_keeps_a_message_from_opening() {
    let cases = undecryptable();
    assert!(cases.len() > 100, "{}", cases.len());
    for policy in [OnUndecryptable::Yield, OnUndecryptable::Reject] {
        let mut behaviours = BTreeMap::new();
        for (name, key, envelope) in &cases {
            let seen = behaviour(envelope, &private(key), policy).await;
            behaviours.entry(seen).or_insert_with(Vec::new).push(name);
        }
        assert_eq!(behaviours.len(), 1, "{behaviours:#?}");
    }
}

/// Every vector of both suites that is an envelope and does not open, with the key of its recipient.
fn undecryptable() -> Vec<(String, String, String)> {
    let first = cases("invalid.json").into_iter().map(|case| ("rsa2048".to_owned(), case));
    let second = suite_2("invalid.json")["envelopes"].as_array().unwrap().clone().into_iter();
    // A signature is judged by the keys of senders, which are another test's.
    let second = second.filter(|case| case.get("senders").is_none());
    let second = second.map(|case| (case["keys"][0].as_str().unwrap().to_owned(), case));
    let decrypt = first.chain(second).filter(|(_, case)| case["expect"] == "decrypt");
    let lines = decrypt.filter(|(_, case)| !field(case, "envelope").contains('\n'));
    lines.map(|(key, case)| (field(&case, "id").to_owned(), key, field(&case, "envelope").to_owned())).collect()
}

fn suite_2(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/envelope-v2");
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

fn private(key: &str) -> PrivateKey {
    static KEYS: LazyLock<Value> = LazyLock::new(|| suite_2("keys.json"));
    match KEYS["keys"].get(key) {
        Some(of_suite_2) => PrivateKey::from_pem(field(of_suite_2, "pkcs8")).unwrap(),
        None => private_key(key),
    }
}

/// All that can be seen of a consumer that gets an envelope that does not open, and then a good one.
async fn behaviour(envelope: &str, key: &PrivateKey, policy: OnUndecryptable) -> Vec<String> {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = consume(&client, &mut peer, key, policy).await;
    let id = Envelope::parse(envelope).unwrap().message_id().to_owned();
    peer.deliver_envelope(&id, 1, envelope).await;
    peer.deliver_envelope("good", 1, &seal(TEXT, &key.public_key(), Some("good")).unwrap()).await;
    let mut seen = Vec::new();
    let good = loop {
        match within(consumer.next()).await.unwrap() {
            Ok(delivery) => break delivery,
            Err(error) => {
                seen.push(format!("{:?} {error} {:?}", error.kind(), error.source().map(ToString::to_string)));
                let message = error.into_undecryptable().unwrap();
                assert_eq!((message.message_id(), message.envelope()), (&*id, envelope));
            }
        }
    };
    assert_eq!(good.plaintext(), TEXT);
    let acked = good.ack_later().unwrap();
    while seen.last().is_none_or(|line| line != "ack good queue=q") {
        seen.push(peer.line().await.replace(&id, "<id>"));
    }
    drop(acked);
    seen.push(format!("{:?}", consumer.stats()));
    seen
}

async fn consume(client: &Client, peer: &mut Peer, key: &PrivateKey, policy: OnUndecryptable) -> Consumer {
    let options = ConsumeOptions::new().on_undecryptable(policy);
    let (consumer, ()) = within(async {
        tokio::join!(client.consume("q", key, options), async {
            peer.expect("consume q prefetch=256").await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    consumer.unwrap()
}
