//! Conversations about receiving and settling.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a script that fails ends its test")]

mod fake_broker;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cipher_client::crypto::{OpenPolicy, Opener, PrivateKey, seal};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow};
use cipher_client::{Client, Code, ConsumeOptions, Consumer, ErrorKind, IntoOpener, OnUndecryptable, RawConsumer};

use fake_broker::{FakeBroker, Peer, envelope, is_ready, refusal, within};

async fn subscribe(client: &Client, peer: &mut Peer, prefetch: u32) -> RawConsumer {
    let (consumer, ()) = within(async {
        tokio::join!(client.consume_raw("q", prefetch), async {
            peer.expect(&format!("consume q prefetch={prefetch}")).await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    consumer.unwrap()
}

async fn subscribe_opened(
    client: &Client,
    peer: &mut Peer,
    identity: impl IntoOpener,
    options: ConsumeOptions,
) -> Consumer {
    let (consumer, ()) = within(async {
        tokio::join!(client.consume("q", identity, options), async {
            peer.expect("consume q prefetch=256").await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    consumer.unwrap()
}

#[tokio::test]
async fn a_delivery_tells_where_it_comes_from_and_owns_its_ack() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 2).await;
    peer.deliver("d-1", 3).await;
    let delivery = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message_id(), "d-1");
    assert_eq!(delivery.attempt(), 3);
    assert_eq!(delivery.queue(), "q");
    assert_eq!(delivery.exchange(), "e");
    assert_eq!(delivery.routing_key(), "k");
    assert_eq!(delivery.published_ms(), 1700);
    assert_eq!(delivery.dead_letter(), None);
    assert_eq!(delivery.envelope(), envelope("d-1"));
    let (acked, ()) = within(async {
        tokio::join!(delivery.ack(), async {
            peer.expect("ack d-1 queue=q").await;
            peer.say("ACK_CONFIRMED d-1").await;
        })
    })
    .await;
    acked.unwrap();
}

#[tokio::test]
async fn a_dead_letter_tells_where_it_died() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 2).await;
    peer.say(&format!(
        "Message: d-1 queue=q attempt=1 exchange=e key=k published=1 later=x from=jobs reason=rejected {}",
        envelope("d-1")
    ))
    .await;
    let delivery = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.dead_letter(), Some(("jobs", "rejected")));
}

#[tokio::test]
async fn each_way_to_settle_says_what_it_means() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 10).await;
    for id in ["d-1", "d-2", "d-3", "d-4", "d-5"] {
        peer.deliver(id, 1).await;
    }
    let mut next = async || within(consumer.next()).await.unwrap().unwrap();
    let (one, two, three, four) = (next().await, next().await, next().await, next().await);
    let settling = async {
        four.touch().await?;
        tokio::try_join!(
            one.nack(None),
            two.nack(Some(Duration::from_secs(2))),
            three.release(),
            four.reject(),
            next().await.ack()
        )
    };
    let script = async {
        peer.expect("touch d-4 queue=q").await;
        peer.say("TOUCH_CONFIRMED d-4").await;
        for (line, reply) in [
            ("nack d-1 queue=q", "NACK_CONFIRMED d-1"),
            ("nack d-2 queue=q delay=2000", "NACK_CONFIRMED d-2"),
            ("release d-3 queue=q", "RELEASE_CONFIRMED d-3"),
            ("reject d-4 queue=q", "REJECT_CONFIRMED d-4"),
            ("ack d-5 queue=q", "ACK_CONFIRMED d-5"),
        ] {
            peer.expect(line).await;
            peer.say(reply).await;
        }
    };
    let (settled, ()) = within(Box::pin(async { tokio::join!(settling, script) })).await;
    settled.unwrap();
}

#[tokio::test]
async fn deliveries_between_replies_disturb_nobody() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 10).await;
    let first = within(client.publish_raw("e", "k", &envelope("m-1"), "m-1")).await.unwrap();
    let second = within(client.publish_raw("e", "k", &envelope("m-2"), "m-2")).await.unwrap();
    peer.deliver("d-1", 1).await;
    peer.say("ACK m-1").await;
    peer.deliver("d-2", 1).await;
    peer.say("ACK m-2").await;
    assert_eq!(within(first).await.unwrap().message_id(), "m-1");
    assert_eq!(within(second).await.unwrap().message_id(), "m-2");
    for id in ["d-1", "d-2"] {
        assert_eq!(within(consumer.next()).await.unwrap().unwrap().message_id(), id);
    }
}

#[tokio::test]
async fn an_unsettled_delivery_that_is_dropped_goes_back() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 1).await;
    peer.deliver("d-1", 1).await;
    drop(within(consumer.next()).await);
    peer.expect("release d-1 queue=q").await;
}

#[tokio::test]
async fn acknowledgements_do_not_wait_for_each_other() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 10).await;
    let mut settled = Vec::new();
    for id in ["d-1", "d-2", "d-3"] {
        peer.deliver(id, 1).await;
        settled.push(within(consumer.next()).await.unwrap().unwrap().ack_later().unwrap());
        peer.expect(&format!("ack {id} queue=q")).await;
    }
    peer.say("ACK_CONFIRMED d-1\nError: NOT_LEASED gone\nACK_CONFIRMED d-3").await;
    let mut outcomes = Vec::new();
    for one in settled {
        outcomes.push(within(one).await.map_err(|error| error.kind().clone()));
    }
    assert_eq!(outcomes, [Ok(()), Err(ErrorKind::LeaseLost), Ok(())]);
}

#[tokio::test]
async fn the_buffer_never_holds_more_than_the_credit() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 2).await;
    // The leases of the first two ran out, so the broker gives two more.
    for id in ["d-1", "d-2", "d-3", "d-4"] {
        peer.deliver(id, 1).await;
    }
    let (pong, ()) = within(async {
        tokio::join!(client.ping(), async {
            peer.expect("ping").await;
            peer.say("Pong").await;
        })
    })
    .await;
    pong.unwrap();
    assert_eq!((consumer.buffered(), consumer.stale()), (2, 2));
    assert_eq!(within(consumer.next()).await.unwrap().unwrap().message_id(), "d-3");
}

#[tokio::test]
async fn a_cancelled_consumer_gives_back_what_it_did_not_hand_over() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 5).await;
    for id in ["d-1", "d-2"] {
        peer.deliver(id, 1).await;
    }
    let in_hand = within(consumer.next()).await.unwrap().unwrap();
    while consumer.buffered() == 0 {
        tokio::task::yield_now().await;
    }
    let script = async {
        peer.expect("cancel q").await;
        peer.expect("release d-2 queue=q").await;
        // On its way while the cancel was.
        peer.deliver("d-3", 1).await;
        peer.say("Consumer cancelled\nRELEASE_CONFIRMED d-2").await;
        peer.expect("release d-3 queue=q").await;
        peer.say("RELEASE_CONFIRMED d-3").await;
        peer
    };
    let (closed, mut peer) = within(async { tokio::join!(consumer.close(), script) }).await;
    closed.unwrap();
    let acked = in_hand.ack_later().unwrap();
    peer.expect("ack d-1 queue=q").await;
    peer.say("ACK_CONFIRMED d-1").await;
    within(acked).await.unwrap();
    // The queue can be consumed again.
    subscribe(&client, &mut peer, 1).await;
}

#[tokio::test]
async fn a_consume_that_is_given_up_leaves_no_subscription_behind() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consuming = Box::pin(client.consume_raw("q", 1));
    assert!(!is_ready(consuming.as_mut()));
    peer.expect("consume q prefetch=1").await;
    drop(consuming);
    peer.expect("cancel q").await;
}

#[tokio::test]
async fn a_refused_consume_can_be_tried_again() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let (refused, ()) = within(async {
        tokio::join!(client.consume_raw("q", 1), async {
            peer.expect("consume q prefetch=1").await;
            peer.say("Error: NOT_FOUND queue 'q'").await;
        })
    })
    .await;
    assert_eq!(refusal(&refused.unwrap_err()), Some(Code::NotFound));
    let _first = subscribe(&client, &mut peer, 1).await;
    // One consumer a queue and client: they would share one credit.
    let second = within(client.consume_raw("q", 1)).await.unwrap_err();
    assert_eq!(refusal(&second), Some(Code::NotAllowed));
}

#[tokio::test]
async fn the_end_of_a_queue_ends_its_consumer_with_a_reason() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut consumer = subscribe(&client, &mut peer, 1).await;
    peer.say("Cancelled: q deleted").await;
    assert_eq!(refusal(&within(consumer.next()).await.unwrap().unwrap_err()), Some(Code::NotFound));
    assert!(within(consumer.next()).await.is_none());
}

#[tokio::test]
async fn a_fetched_message_is_leased_like_a_pushed_one() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let fetching = async {
        let none = client.fetch_raw("q", None).await.unwrap();
        let some = client.fetch_raw("q", Some(Duration::from_secs(5))).await.unwrap();
        (none.is_none(), some.unwrap())
    };
    let script = async {
        peer.expect("fetch q").await;
        peer.say("No messages").await;
        peer.expect("fetch q lease=5000").await;
        let fetched = envelope("d-1");
        peer.say(&format!("Fetched: d-1 queue=q attempt=1 exchange=e key=k published=1 {fetched}")).await;
    };
    let ((none, delivery), ()) = within(async { tokio::join!(fetching, script) }).await;
    assert!(none);
    drop(delivery);
    peer.expect("release d-1 queue=q").await;
}

#[tokio::test]
async fn a_fetched_message_nobody_waits_for_any_more_goes_back() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut fetching = Box::pin(client.fetch_raw("q", None));
    assert!(!is_ready(fetching.as_mut()));
    peer.expect("fetch q").await;
    drop(fetching);
    peer.say(&format!("Fetched: d-1 queue=q attempt=1 exchange=e key=k published=1 {}", envelope("d-1"))).await;
    peer.expect("release d-1 queue=q").await;
}

#[tokio::test]
async fn messages_are_opened_with_the_key() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let mut consumer = subscribe_opened(&client, &mut peer, &key, ConsumeOptions::new()).await;
    let sealed = seal(b"hello", &key.public_key(), Some("d-1")).unwrap();
    peer.deliver_envelope("d-1", 1, &sealed).await;
    let mut delivery = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.plaintext(), b"hello");
    assert_eq!(delivery.take_plaintext(), b"hello");
}

#[tokio::test]
async fn a_message_that_does_not_open_comes_with_its_error() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let mut consumer = subscribe_opened(&client, &mut peer, &key, ConsumeOptions::new()).await;
    let for_another = seal(b"hello", &PrivateKey::generate(2048).unwrap().public_key(), Some("d-2")).unwrap();
    let under_another_id = seal(b"hello", &key.public_key(), Some("d-9")).unwrap();
    for (id, text) in [("d-1", envelope("d-1")), ("d-2", for_another), ("d-3", under_another_id)] {
        peer.deliver_envelope(id, 1, &text).await;
    }
    let mut next = async || within(consumer.next()).await.unwrap().unwrap_err();
    let malformed = next().await;
    assert!(matches!(malformed.kind(), ErrorKind::Malformed { .. }), "{malformed}");
    let decrypt = next().await;
    assert_eq!(*decrypt.kind(), ErrorKind::Decrypt);
    let stolen = next().await;
    assert!(matches!(stolen.kind(), ErrorKind::Malformed { .. }), "{stolen}");

    // Dropped: its lease runs out, it does not come back at once.
    drop(malformed);
    let undecryptable = decrypt.into_undecryptable().unwrap();
    assert_eq!(undecryptable.message_id(), "d-2");
    let (rejected, ()) = within(async {
        tokio::join!(undecryptable.reject(), async {
            peer.expect("reject d-2 queue=q").await;
            peer.say("REJECT_CONFIRMED d-2").await;
        })
    })
    .await;
    rejected.unwrap();
}

#[tokio::test]
async fn undecryptable_messages_can_be_put_away_unseen() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let options = ConsumeOptions::new().on_undecryptable(OnUndecryptable::Reject);
    let mut consumer = subscribe_opened(&client, &mut peer, &key, options).await;
    peer.deliver("d-1", 1).await;
    peer.deliver_envelope("d-2", 1, &seal(b"hello", &key.public_key(), Some("d-2")).unwrap()).await;
    let delivery = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message_id(), "d-2");
    peer.expect("reject d-1 queue=q").await;
    assert_eq!(consumer.stats().rejected, 1);
}

#[tokio::test]
async fn a_message_that_was_not_tried_is_put_off_and_not_put_away() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let hour = Duration::from_secs(3600);
    let policy = OpenPolicy { failures: 1, failure_forgiven_after: hour, ..OpenPolicy::default() };
    let options = ConsumeOptions::new().on_undecryptable(OnUndecryptable::Reject);
    let opener = Opener::new(&key, policy).unwrap();
    let mut consumer = subscribe_opened(&client, &mut peer, opener, options).await;
    for id in ["d-1", "d-2"] {
        let other = PrivateKey::generate(2048).unwrap();
        peer.deliver_envelope(id, 1, &seal(b"hello", &other.public_key(), Some(id)).unwrap()).await;
    }
    let script = async {
        peer.expect("reject d-1 queue=q").await;
        peer.expect("nack d-2 queue=q delay=5000").await;
        drop(peer);
    };
    within(async {
        tokio::select! {
            _ = consumer.next() => panic!("neither is the caller's business"),
            () = script => {}
        }
    })
    .await;
    assert_eq!(consumer.stats().rejected, 1);
}

fn window() -> Arc<Mutex<DedupeWindow>> {
    Arc::new(Mutex::new(DedupeWindow::in_memory(DedupeOptions::default()).unwrap()))
}

#[tokio::test]
async fn what_was_acknowledged_is_not_handed_over_again() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let mut consumer = subscribe_opened(&client, &mut peer, &key, ConsumeOptions::new().dedupe(window())).await;
    let sealed = |id| seal(b"hello", &key.public_key(), Some(id)).unwrap();
    let first = sealed("d-1");
    peer.deliver_envelope("d-1", 1, &first).await;
    let acked = within(consumer.next()).await.unwrap().unwrap().ack_later().unwrap();
    peer.expect("ack d-1 queue=q").await;
    // The lease had run out before the ack came.
    peer.say("Error: NOT_LEASED late").await;
    assert_eq!(*within(acked).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    peer.deliver_envelope("d-1", 2, &first).await;
    // The same sealed text under another id: a copy somebody made on the way.
    peer.deliver_envelope("d-2", 1, &first.replace("d-1", "d-2")).await;
    peer.deliver_envelope("d-3", 1, &sealed("d-3")).await;
    let delivery = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message_id(), "d-3");
    peer.expect("ack d-1 queue=q").await;
    peer.expect("ack d-2 queue=q").await;
    assert_eq!(consumer.stats().duplicates, 2);
}

#[tokio::test]
async fn what_was_given_back_is_handed_over_again() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let mut consumer = subscribe_opened(&client, &mut peer, &key, ConsumeOptions::new().dedupe(window())).await;
    let sealed = seal(b"hello", &key.public_key(), Some("d-1")).unwrap();
    peer.deliver_envelope("d-1", 1, &sealed).await;
    let delivery = within(consumer.next()).await.unwrap().unwrap();
    let (nacked, ()) = within(async {
        tokio::join!(delivery.nack(None), async {
            peer.expect("nack d-1 queue=q").await;
            peer.say("NACK_CONFIRMED d-1").await;
        })
    })
    .await;
    nacked.unwrap();
    peer.deliver_envelope("d-1", 2, &sealed).await;
    let delivery = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.attempt(), 2);
    drop(delivery);
    peer.expect("release d-1 queue=q").await;
    peer.deliver_envelope("d-1", 2, &sealed).await;
    let _again = within(consumer.next()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_in_hand_that_comes_again_stays_in_hand() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let mut consumer = subscribe_opened(&client, &mut peer, &key, ConsumeOptions::new().dedupe(window())).await;
    let sealed = |id| seal(b"hello", &key.public_key(), Some(id)).unwrap();
    let first = sealed("d-1");
    peer.deliver_envelope("d-1", 1, &first).await;
    let in_hand = within(consumer.next()).await.unwrap().unwrap();
    drop(peer);
    let (mut peer, _) = broker.greet("s2").await;
    peer.expect("consume q prefetch=256").await;
    peer.say("Subscribed to queue").await;
    peer.deliver_envelope("d-1", 2, &first).await;
    peer.deliver_envelope("d-2", 1, &sealed("d-2")).await;
    let other = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(other.message_id(), "d-2");
    assert_eq!(consumer.stats().repeated, 1);
    // Neither released nor acknowledged by the client: its holder decides.
    let acked = in_hand.ack_later().unwrap();
    peer.expect("ack d-1 queue=q").await;
    peer.say("ACK_CONFIRMED d-1").await;
    within(acked).await.unwrap();
}
