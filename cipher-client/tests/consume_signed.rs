//! Messages that come again, where senders sign.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a script that fails ends its test")]

mod fake_broker;

use std::sync::{Arc, Mutex};

use cipher_client::ConsumeOptions;
use cipher_client::crypto::{Context, Identity, KeyKind, Keyset, Opener, PrivateKey, Sealer, Sender};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};

use fake_broker::{FakeBroker, within};

/// Who can only send unsigned messages cannot keep out a message of somebody
/// who signs by sending its id first.
#[tokio::test]
async fn the_same_id_from_another_sender_is_another_message() {
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    let public = key.public_key();
    let to = || [Recipient::from_own_source(public.clone())];
    let (context, identity) = (Context::new("e", "k"), Arc::new(Identity::generate().unwrap()));
    let ann = Sealer::builder(to()).identity(identity.clone()).build().unwrap();
    let nobody = Sealer::builder(to()).build().unwrap();
    let sealed = |sealer: &Sealer| sealer.seal_for_with_id(&context, "d-1", b"hello").unwrap().envelope;

    let keys = Keyset::new(key);
    let known = Arc::new(Senders::in_memory());
    known.add("ann", identity.sender_key().clone()).unwrap();
    let opener = Opener::builder(&keys).senders(SenderPolicy::allow_unsigned(known).mixed());
    let window = DedupeWindow::in_memory(DedupeOptions::default()).unwrap();
    let options = ConsumeOptions::new().dedupe(Arc::new(Mutex::new(window)));

    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let (consumer, ()) = within(async {
        tokio::join!(client.consume("q", opener.build().unwrap(), options), async {
            peer.expect("consume q prefetch=256").await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    let mut consumer = consumer.unwrap();

    peer.deliver_envelope("d-1", 1, &sealed(&nobody)).await;
    let in_hand = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(in_hand.sender(), Sender::Unsigned);
    peer.deliver_envelope("d-1", 1, &sealed(&ann)).await;
    let signed = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(signed.sender(), Sender::Signed(*identity.kid()));
    for delivery in [in_hand, signed] {
        drop(delivery.ack_later().unwrap());
        peer.expect("ack d-1 queue=q").await;
    }

    for sealer in [&ann, &nobody] {
        peer.deliver_envelope("d-1", 2, &sealed(sealer)).await;
    }
    let other = nobody.seal_for_with_id(&context, "d-2", b"hello").unwrap().envelope;
    peer.deliver_envelope("d-2", 1, &other).await;
    assert_eq!(within(consumer.next()).await.unwrap().unwrap().message_id(), "d-2");
    assert_eq!(consumer.stats().duplicates, 2);
}
