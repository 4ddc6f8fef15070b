//! Conversations about messages that come in parts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a script that fails ends its test")]

mod fake_broker;

use std::sync::{Arc, Mutex};

use cipher_client::crypto::{Context, KeyKind, PrivateKey, Sealed, Sealer};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow};
use cipher_client::{Client, ConsumeOptions, Consumer, ErrorKind};

use fake_broker::{FakeBroker, Peer, within};

const TEXT: &[u8] = b"page one, page two, the end";

fn parts(key: &PrivateKey) -> Vec<Sealed> {
    let sealer = Sealer::new(&key.public_key(), Default::default()).unwrap();
    let parts = sealer.seal_parts(&Context::new("e", "k"), Some("scan"), TEXT, 10).unwrap();
    parts.map(Result::unwrap).collect()
}

fn key() -> PrivateKey {
    PrivateKey::generate_kind(KeyKind::X25519).unwrap()
}

async fn subscribe(
    client: &Client,
    peer: &mut Peer,
    key: &PrivateKey,
    prefetch: u32,
    options: ConsumeOptions,
) -> Consumer {
    let (consumer, ()) = within(async {
        tokio::join!(client.consume("q", key, options.prefetch(prefetch)), async {
            peer.expect(&format!("consume q prefetch={prefetch}")).await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    consumer.unwrap()
}

/// A part is leased for as long as the others may take, and the caller after them.
async fn deliver(peer: &mut Peer, part: &Sealed, attempt: u32) {
    peer.deliver_envelope(&part.message_id, attempt, &part.envelope).await;
    peer.expect(&format!("touch {} queue=q lease=1200000", part.message_id)).await;
    peer.say(&format!("TOUCH_CONFIRMED {}", part.message_id)).await;
}

async fn acked(peer: &mut Peer, parts: &[Sealed]) {
    for part in parts {
        peer.expect(&format!("ack {} queue=q", part.message_id)).await;
        peer.say(&format!("ACK_CONFIRMED {}", part.message_id)).await;
    }
}

#[tokio::test]
async fn parts_that_wait_are_paid_for_beyond_the_prefetch() {
    let (broker, key) = (FakeBroker::start().await, key());
    let (client, mut peer) = broker.client().await;
    let parts = parts(&key);
    let mut consumer = subscribe(&client, &mut peer, &key, 2, ConsumeOptions::new()).await;
    let (delivery, ()) = within(async {
        tokio::join!(consumer.next(), async {
            deliver(&mut peer, &parts[2], 1).await;
            peer.expect("consume q prefetch=4").await;
            peer.say("Subscribed to queue").await;
            deliver(&mut peer, &parts[0], 1).await;
            deliver(&mut peer, &parts[1], 1).await;
        })
    })
    .await;
    let delivery = delivery.unwrap().unwrap();
    assert_eq!((delivery.plaintext(), delivery.message_id(), delivery.parts()), (TEXT, "scan", 3));
    let (outcome, ()) = within(async { tokio::join!(delivery.ack(), acked(&mut peer, &parts)) }).await;
    outcome.unwrap();
    // Nothing is held any more.
    let asked = async {
        peer.expect("consume q prefetch=2").await;
        peer.say("Subscribed to queue").await;
    };
    within(async {
        tokio::select! {
            item = consumer.next() => panic!("{item:?}"),
            () = asked => {}
        }
    })
    .await;
}

/// The broker takes the leases back with the connection, and delivers anew.
#[tokio::test]
async fn a_lost_connection_half_way_is_made_up_for() {
    for with_dedupe in [false, true] {
        let (broker, key) = (FakeBroker::start().await, key());
        let (client, mut peer) = broker.client().await;
        let parts = parts(&key);
        let mut options = ConsumeOptions::new();
        if with_dedupe {
            options = options.dedupe(Arc::new(Mutex::new(DedupeWindow::in_memory(DedupeOptions::default()).unwrap())));
        }
        let mut consumer = subscribe(&client, &mut peer, &key, 2, options).await;
        let (delivery, mut peer) = within(async {
            tokio::join!(consumer.next(), async {
                deliver(&mut peer, &parts[0], 1).await;
                peer.expect("consume q prefetch=4").await;
                peer.say("Subscribed to queue").await;
                deliver(&mut peer, &parts[1], 1).await;
                drop(peer);
                let (mut peer, _) = broker.greet("s2").await;
                peer.expect("consume q prefetch=4").await;
                peer.say("Subscribed to queue").await;
                for part in &parts {
                    deliver(&mut peer, part, 1).await;
                }
                peer
            })
        })
        .await;
        let delivery = delivery.unwrap().unwrap();
        assert_eq!(delivery.plaintext(), TEXT);
        let (outcome, ()) = within(async { tokio::join!(delivery.ack(), acked(&mut peer, &parts)) }).await;
        outcome.unwrap();
    }
}

/// Without a window, nothing would put the rest together with what is acknowledged.
#[tokio::test]
async fn of_a_message_whose_leases_are_lost_no_part_is_acknowledged() {
    let (broker, key) = (FakeBroker::start().await, key());
    let (client, mut peer) = broker.client().await;
    let parts = parts(&key);
    let mut consumer = subscribe(&client, &mut peer, &key, 3, ConsumeOptions::new()).await;
    let (delivery, ()) = within(async {
        tokio::join!(consumer.next(), async {
            for part in &parts {
                peer.deliver_envelope(&part.message_id, 1, &part.envelope).await;
            }
            for part in &parts {
                peer.expect(&format!("touch {} queue=q lease=1200000", part.message_id)).await;
            }
        })
    })
    .await;
    let delivery = delivery.unwrap().unwrap();
    drop(peer);
    let (mut peer, _) = within(broker.greet("s2")).await;
    peer.expect("consume q prefetch=3").await;
    let error = within(delivery.ack()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::LeaseLost);
    drop(consumer);
    peer.expect("cancel q").await;
}

#[tokio::test]
async fn a_message_in_parts_is_given_back_and_extended_with_all_of_them() {
    let (broker, key) = (FakeBroker::start().await, key());
    let (client, mut peer) = broker.client().await;
    let parts = parts(&key);
    let mut consumer = subscribe(&client, &mut peer, &key, 3, ConsumeOptions::new()).await;
    for word in ["nack", "release", "reject", "dropped"] {
        let (delivery, ()) = within(async {
            tokio::join!(consumer.next(), async {
                for part in &parts {
                    peer.deliver_envelope(&part.message_id, 1, &part.envelope).await;
                }
                for part in &parts {
                    peer.expect(&format!("touch {} queue=q lease=1200000", part.message_id)).await;
                    peer.say(&format!("TOUCH_CONFIRMED {}", part.message_id)).await;
                }
            })
        })
        .await;
        let delivery = delivery.unwrap().unwrap();
        let mut order = parts.iter().collect::<Vec<_>>();
        order.rotate_left(1);
        let (touched, ()) = within(async {
            tokio::join!(delivery.touch(), async {
                for part in &order {
                    peer.expect(&format!("touch {} queue=q", part.message_id)).await;
                    peer.say(&format!("TOUCH_CONFIRMED {}", part.message_id)).await;
                }
            })
        })
        .await;
        touched.unwrap();
        let settle = async {
            match word {
                "nack" => delivery.nack(None).await,
                "release" => delivery.release().await,
                "reject" => delivery.reject().await,
                _ => {
                    drop(delivery);
                    Ok(())
                }
            }
        };
        let (settled, ()) = within(async {
            tokio::join!(settle, async {
                let word = if word == "dropped" { "release" } else { word };
                for part in &parts {
                    peer.expect(&format!("{word} {} queue=q", part.message_id)).await;
                    peer.say(&format!("{}_CONFIRMED {}", word.to_uppercase(), part.message_id)).await;
                }
            })
        })
        .await;
        settled.unwrap();
    }
}
