//! What goes wrong with keys goes wrong in one way, and early. Keys of zeros: tests/key_kinds.rs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

mod fake_broker;
mod support;

use std::collections::BTreeMap;
use std::error::Error as _;

use cipher_client::crypto::{Envelope, Keyset, OpenPolicy, Opener, PrivateKey, seal};
use cipher_client::{Client, ConsumeOptions, Consumer, Error, ErrorKind, OnUndecryptable};
use serde_json::Value;

use fake_broker::{FakeBroker, Peer, within};
use support::{cases, field, private_key};

const TEXT: &[u8] = b"the goods are on the dock";

fn kind<T>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.err().expect("it is refused").kind().clone()
}

#[test]
fn a_fresh_key_opens_nothing_that_was_sealed_before() {
    let (key, fresh) = (private_key("rsa2048"), PrivateKey::generate(2048).unwrap());
    let envelope = seal(TEXT, &key.public_key(), None).unwrap();
    assert_eq!(kind(cipher_client::crypto::open(&envelope, &fresh)), ErrorKind::Decrypt);
    // Nor does it lead to another answer beside the right one.
    let both = Opener::with_keys(&[&fresh, &key], OpenPolicy::default()).unwrap();
    assert_eq!(both.open(&envelope).unwrap().plaintext, TEXT);
    assert_eq!(kind(Opener::new(&fresh, OpenPolicy::default()).unwrap().open(&envelope)), ErrorKind::Decrypt);
}

/// The same key twice is a mistake of the program: the retired one was meant to be another.
#[test]
fn the_same_key_twice_is_refused() {
    let key = || private_key("rsa2048");
    assert!(matches!(kind(Keyset::new(key()).with_retired(key())), ErrorKind::Option { option: "keys", .. }));
}

/// An attacker who sees what a consumer does with a message must learn nothing but that it did not open: neither from what
/// the caller is told nor from what the broker hears.
#[tokio::test]
async fn a_consumer_behaves_alike_whatever_keeps_a_message_from_opening() {
    let cases: Vec<Value> = cases("invalid.json").into_iter().filter(is_a_line_that_does_not_decrypt).collect();
    assert!(cases.len() > 40, "{}", cases.len());
    for policy in [OnUndecryptable::Yield, OnUndecryptable::Reject] {
        let mut behaviours = BTreeMap::new();
        for case in &cases {
            let seen = behaviour(field(case, "envelope"), policy).await;
            behaviours.entry(seen).or_insert_with(Vec::new).push(field(case, "id").to_owned());
        }
        assert_eq!(behaviours.len(), 1, "{behaviours:#?}");
    }
}

fn is_a_line_that_does_not_decrypt(case: &Value) -> bool {
    case["expect"] == "decrypt" && !field(case, "envelope").contains('\n')
}

/// All that can be seen of a consumer that gets an envelope that does not open, and then a good one.
async fn behaviour(envelope: &str, policy: OnUndecryptable) -> Vec<String> {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = private_key("rsa2048");
    let mut consumer = consume(&client, &mut peer, &key, policy).await;
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
                seen.push(format!("{} {}", message.message_id(), message.envelope().len()));
                drop(message);
            }
        }
    };
    assert_eq!(good.plaintext(), TEXT);
    let acked = good.ack_later().unwrap();
    loop {
        let line = peer.line().await;
        seen.push(line.clone());
        if line == "ack good queue=q" {
            break;
        }
    }
    drop(acked);
    seen.push(format!("{:?}", consumer.stats()));
    let length = envelope.len().to_string();
    seen.into_iter().map(|line| line.replace(&id, "<id>").replace(&length, "<length>")).collect()
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
