//! How a client ends.

#![allow(clippy::unwrap_used, reason = "a script that fails ends its test")]

mod fake_broker;

use cipher_client::{Client, ErrorKind};

use fake_broker::{FakeBroker, envelope, is_ready, publish_line, within};

async fn publish(client: &Client, id: &str) -> cipher_client::Confirm {
    within(client.publish_raw("e", "k", &envelope(id), id)).await.unwrap()
}

#[tokio::test]
async fn close_waits_for_confirmations_and_says_quit() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let clone = client.clone();
    let confirm = publish(&client, "m-1").await;
    let mut closing = Box::pin(client.close());
    assert!(!is_ready(closing.as_mut()));
    assert_eq!(*within(clone.ping()).await.unwrap_err().kind(), ErrorKind::Closed);
    peer.expect(&publish_line("m-1")).await;
    peer.say("ACK m-1").await;
    let (closed, ()) = within(async { tokio::join!(closing, peer.expect_quit()) }).await;
    closed.unwrap();
    within(confirm).await.unwrap();
}

#[tokio::test]
async fn the_last_handle_to_go_ends_the_connection_after_its_publishes() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let confirm = publish(&client, "m-1").await;
    drop(client);
    peer.expect(&publish_line("m-1")).await;
    peer.say("ACK m-1").await;
    within(confirm).await.unwrap();
    peer.expect_quit().await;
}

#[tokio::test]
async fn a_delivery_in_hand_keeps_the_connection() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let (consumer, ()) = within(async {
        tokio::join!(client.consume_raw("q", 1), async {
            peer.expect("consume q prefetch=1").await;
            peer.say("Subscribed to queue").await;
            peer.deliver("d-1", 1).await;
        })
    })
    .await;
    let mut consumer = consumer.unwrap();
    let delivery = within(consumer.next()).await.unwrap().unwrap();
    drop((client, consumer));
    peer.expect("cancel q").await;
    peer.say("Consumer cancelled").await;
    let acked = delivery.ack_later().unwrap();
    peer.expect("ack d-1 queue=q").await;
    peer.say("ACK_CONFIRMED d-1").await;
    within(acked).await.unwrap();
    peer.expect_quit().await;
}

#[tokio::test]
async fn close_ends_consumers_and_gives_their_messages_back() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let (consumer, ()) = within(async {
        tokio::join!(client.consume_raw("q", 2), async {
            peer.expect("consume q prefetch=2").await;
            peer.say("Subscribed to queue").await;
            peer.deliver("d-1", 1).await;
        })
    })
    .await;
    let mut consumer = consumer.unwrap();
    while consumer.buffered() == 0 {
        tokio::task::yield_now().await;
    }
    let script = async {
        peer.expect("cancel q").await;
        peer.expect("release d-1 queue=q").await;
        peer.say("Consumer cancelled\nRELEASE_CONFIRMED d-1").await;
        peer.expect_quit().await;
    };
    let (closed, (), end) = within(async { tokio::join!(client.close(), script, consumer.next()) }).await;
    closed.unwrap();
    assert!(end.is_none());
}

#[tokio::test]
async fn close_without_a_connection_ends_at_once_when_nothing_waits() {
    let broker = FakeBroker::start().await;
    let (client, peer) = broker.client().await;
    broker.stop();
    drop(peer);
    while client.is_connected() {
        tokio::task::yield_now().await;
    }
    within(client.close()).await.unwrap();
}

#[test]
fn a_runtime_that_goes_away_leaves_nobody_waiting() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (client, confirm, peer) = first.block_on(async {
        let broker = FakeBroker::start().await;
        let (client, peer) = broker.client().await;
        let confirm = publish(&client, "m-1").await;
        (client, confirm, peer)
    });
    drop(first);
    runtime().block_on(async {
        assert!(within(confirm).await.is_err());
        assert_eq!(*within(client.ping()).await.unwrap_err().kind(), ErrorKind::Connection);
    });
    drop(peer);
}
