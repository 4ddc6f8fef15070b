//! Conversations about publishing.

#![allow(clippy::unwrap_used, reason = "a script that fails ends its test")]

mod fake_broker;

use cipher_client::crypto::{PrivateKey, open};
use cipher_client::{Client, Code, ErrorKind};

use fake_broker::{FakeBroker, envelope, is_ready, publish_line, refusal, within};

async fn publish(client: &Client, id: &str) -> cipher_client::Confirm {
    within(client.publish_raw("e", "k", &envelope(id), id)).await.unwrap()
}

#[tokio::test]
async fn publishes_do_not_wait_for_each_other() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let one = publish(&client, "m-1").await;
    let two = publish(&client, "m-2").await;
    peer.expect(&publish_line("m-1")).await;
    peer.expect(&publish_line("m-2")).await;
    peer.say("ACK m-1\nACK m-2").await;
    // Asked for in the other order, each has its own answer.
    assert_eq!(within(two).await.unwrap().message_id(), "m-2");
    assert_eq!(within(one).await.unwrap().message_id(), "m-1");
}

#[tokio::test]
async fn replies_may_come_in_any_pieces() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let confirms = [publish(&client, "m-1").await, publish(&client, "m-2").await];
    for piece in [&b"A"[..], b"CK m", b"-1\r", b"\nACK m-2\n"] {
        peer.send(piece).await;
    }
    for confirm in confirms {
        within(confirm).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_tells_the_code_of_the_broker() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let refused = publish(&client, "m-1").await;
    let stored = publish(&client, "m-2").await;
    peer.say("Error: NO_ROUTE no queue is bound\nACK m-2").await;
    let error = within(refused).await.unwrap_err();
    assert_eq!(refusal(&error), Some(Code::NoRoute));
    assert!(error.to_string().contains("no queue is bound"), "{error}");
    within(stored).await.unwrap();
}

#[tokio::test]
async fn a_full_window_makes_the_next_publish_wait() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client_with(broker.options().window(2)).await;
    let _one = publish(&client, "m-1").await;
    let _two = publish(&client, "m-2").await;
    let text = envelope("m-3");
    let mut third = Box::pin(client.publish_raw("e", "k", &text, "m-3"));
    assert!(!is_ready(third.as_mut()));
    peer.expect(&publish_line("m-1")).await;
    peer.expect(&publish_line("m-2")).await;
    peer.say("ACK m-1").await;
    let third = within(third).await.unwrap();
    peer.expect(&publish_line("m-3")).await;
    peer.say("ACK m-2\nACK m-3").await;
    within(third).await.unwrap();
}

#[tokio::test]
async fn bytes_under_way_are_bounded_and_one_publish_always_passes() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client_with(broker.options().max_in_flight_bytes(10)).await;
    let first = publish(&client, "m-1").await;
    let text = envelope("m-2");
    let mut second = Box::pin(client.publish_raw("e", "k", &text, "m-2"));
    assert!(!is_ready(second.as_mut()));
    peer.say("ACK m-1").await;
    within(first).await.unwrap();
    within(second).await.unwrap().message_id();
}

#[tokio::test]
async fn a_dropped_confirm_does_not_take_the_message_back() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    drop(publish(&client, "m-1").await);
    let second = publish(&client, "m-2").await;
    peer.expect(&publish_line("m-1")).await;
    peer.expect(&publish_line("m-2")).await;
    peer.say("ACK m-1\nACK m-2").await;
    assert_eq!(within(second).await.unwrap().message_id(), "m-2");
}

#[tokio::test]
async fn the_acknowledgement_of_another_message_is_not_believed() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let confirm = publish(&client, "m-1").await;
    peer.say("ACK m-7").await;
    let error = within(confirm).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_line_the_broker_would_not_read_is_not_sent() {
    let broker = FakeBroker::start().await;
    let (client, (mut peer, _)) = tokio::join!(Client::connect(broker.options()), broker.greet_with("s1", 4096));
    let client = client.unwrap();
    let long = envelope("m-1").replace("\"d\"", &format!("\"{}\"", "d".repeat(4096)));
    let error = within(client.publish_raw("e", "k", &long, "m-1")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { max: 4096, .. }), "{error}");
    let _confirm = publish(&client, "m-2").await;
    peer.expect(&publish_line("m-2")).await;
}

#[tokio::test]
async fn text_that_would_break_the_line_is_not_sent() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    for (exchange, key, text, id) in [
        ("e e", "k", envelope("m"), "m"),
        ("e", "k\n", envelope("m"), "m"),
        ("e", "k", envelope("m"), "m m"),
        ("e", "k", "{}\npurge q".to_owned(), "m"),
        ("e", "k", "purge q".to_owned(), "m"),
    ] {
        assert!(within(client.publish_raw(exchange, key, &text, id)).await.is_err(), "{text}");
    }
    let _confirm = publish(&client, "m-2").await;
    peer.expect(&publish_line("m-2")).await;
}

#[tokio::test]
async fn a_batch_is_one_request_and_as_many_answers() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let ids = ["b-1", "b-2", "b-3"];
    let messages = ids.map(|id| (envelope(id), id));
    let batch = within(client.publish_batch_raw("e", "k", messages)).await.unwrap();
    let after = publish(&client, "m-1").await;
    let array = ids.map(envelope).join(",");
    peer.expect(&format!("publish_batch e k [{array}]")).await;
    peer.expect(&publish_line("m-1")).await;
    peer.say("ACK b-1\nACK b-2").await;
    peer.say("ACK b-3\nACK m-1").await;
    let acks = within(batch.all()).await.unwrap();
    assert_eq!(acks.iter().map(|ack| ack.message_id()).collect::<Vec<_>>(), ids);
    within(after).await.unwrap();
}

#[tokio::test]
async fn a_refused_batch_has_one_answer() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let batch = within(client.publish_batch_raw("e", "k", ["b-1", "b-2"].map(|id| (envelope(id), id)))).await.unwrap();
    let after = publish(&client, "m-1").await;
    peer.say("Error: QUEUE_FULL queue 'q' is full\nACK m-1").await;
    assert_eq!(refusal(&within(batch.all()).await.unwrap_err()), Some(Code::QueueFull));
    within(after).await.unwrap();
}

#[tokio::test]
async fn a_batch_is_cut_at_the_window() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client_with(broker.options().window(2)).await;
    let sending = tokio::spawn(async move {
        let messages = ["b-1", "b-2", "b-3"].map(|id| (envelope(id), id));
        client.publish_batch_raw("e", "k", messages).await.unwrap().all().await
    });
    peer.expect(&format!("publish_batch e k [{},{}]", envelope("b-1"), envelope("b-2"))).await;
    peer.say("ACK b-1\nACK b-2").await;
    peer.expect(&format!("publish_batch e k [{}]", envelope("b-3"))).await;
    peer.say("ACK b-3").await;
    assert_eq!(within(sending).await.unwrap().unwrap().len(), 3);
}

#[tokio::test]
async fn a_publisher_seals_for_its_recipient() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let key = PrivateKey::generate(2048).unwrap();
    let publisher = client.publisher("e", "k", key.public_key()).unwrap();
    let confirm = within(publisher.publish_with_id("m-1", "hello")).await.unwrap();
    let line = peer.line().await;
    let envelope = line.strip_prefix("publish e k ").unwrap();
    let opened = open(envelope, &key).unwrap();
    assert_eq!((opened.message_id.as_str(), opened.plaintext.as_slice()), ("m-1", &b"hello"[..]));
    peer.say("ACK m-1").await;
    within(confirm).await.unwrap();

    let batch = within(publisher.publish_batch(["one", "two"])).await.unwrap();
    let line = peer.line().await;
    assert!(line.starts_with("publish_batch e k [{"), "{line}");
    drop(batch);
}
