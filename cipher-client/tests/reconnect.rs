//! What survives a lost connection, and what does not.

#![allow(clippy::unwrap_used, reason = "a script that fails ends its test")]

mod fake_broker;

use std::time::Duration;

use cipher_client::{BackoffOptions, Client, Code, ErrorKind, QueueOptions};

use fake_broker::{FakeBroker, Peer, envelope, publish_line, refusal, within};

async fn publish(client: &Client, id: &str) -> cipher_client::Confirm {
    within(client.publish_raw("e", "k", &envelope(id), id)).await.unwrap()
}

/// A client whose request `expected` is on the wire.
async fn asked(peer: &mut Peer, expected: &str) {
    peer.expect(expected).await;
}

#[tokio::test]
async fn unconfirmed_publishes_are_sent_again_in_order_with_the_same_id() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let mut confirms = Vec::new();
    for id in ["m-1", "m-2", "m-3"] {
        confirms.push(publish(&client, id).await);
        peer.expect(&publish_line(id)).await;
    }
    peer.say("ACK m-1").await;
    within(confirms.remove(0)).await.unwrap();
    drop(peer);

    let (mut peer, hello) = broker.greet("s2").await;
    assert_eq!(hello, "hello 1 session=s1");
    peer.expect(&publish_line("m-2")).await;
    peer.expect(&publish_line("m-3")).await;
    let fourth = publish(&client, "m-4").await;
    peer.expect(&publish_line("m-4")).await;
    peer.say("ACK m-2\nACK m-3\nACK m-4").await;
    for (confirm, id) in confirms.into_iter().zip(["m-2", "m-3"]) {
        assert_eq!(within(confirm).await.unwrap().message_id(), id);
    }
    within(fourth).await.unwrap();
    assert_eq!(client.reconnects(), 1);
}

#[tokio::test]
async fn a_batch_that_was_confirmed_in_part_is_sent_again_whole() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let batch = within(client.publish_batch_raw("e", "k", ["b-1", "b-2"].map(|id| (envelope(id), id)))).await.unwrap();
    let line = peer.line().await;
    peer.say("ACK b-1").await;
    let marker = client.ping();
    let script = async {
        peer.expect("ping").await;
        drop(peer);
        let (mut peer, _) = broker.greet("s2").await;
        peer.expect(&line).await;
        peer.expect("ping").await;
        peer.say("ACK b-1\nACK b-2\nPong").await;
        peer
    };
    let (marker, _peer) = within(async { tokio::join!(marker, script) }).await;
    marker.unwrap();
    assert_eq!(within(batch.all()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn consumers_come_back_with_their_credit_before_publishes_are_sent_again() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let script = async {
        for line in ["consume q prefetch=7", "consume r prefetch=256"] {
            peer.expect(line).await;
            peer.say("Subscribed to queue").await;
        }
    };
    let (consumers, ()) = within(async {
        tokio::join!(async { (client.consume_raw("q", 7).await, client.consume_raw("r", 256).await) }, script)
    })
    .await;
    let (mut of_q, of_r) = (consumers.0.unwrap(), consumers.1.unwrap());
    let (changed, ()) = within(async {
        tokio::join!(of_q.set_prefetch(9), async {
            peer.expect("consume q prefetch=9").await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    changed.unwrap();
    let confirm = publish(&client, "m-1").await;
    peer.expect(&publish_line("m-1")).await;
    drop(peer);

    let (mut peer, _) = broker.greet("s2").await;
    peer.expect("consume q prefetch=9").await;
    peer.expect("consume r prefetch=256").await;
    peer.expect(&publish_line("m-1")).await;
    peer.say("Subscribed to queue\nSubscribed to queue\nACK m-1").await;
    peer.deliver("d-1", 1).await;
    within(confirm).await.unwrap();
    let delivery = within(of_q.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message_id(), "d-1");
    drop(of_r);
}

#[tokio::test]
async fn a_consumer_whose_queue_is_gone_after_a_reconnect_says_so_and_ends() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let (consumer, ()) = within(async {
        tokio::join!(client.consume_raw("q", 1), async {
            peer.expect("consume q prefetch=1").await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    drop(peer);
    let (mut peer, _) = broker.greet("s2").await;
    peer.expect("consume q prefetch=1").await;
    peer.say("Error: NOT_FOUND queue 'q'").await;
    let mut consumer = consumer.unwrap();
    let error = within(consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(refusal(&error), Some(Code::NotFound));
    assert!(within(consumer.next()).await.is_none());
}

#[tokio::test]
async fn settles_under_way_and_leases_of_a_lost_connection_are_lost() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let (consumer, ()) = within(async {
        tokio::join!(client.consume_raw("q", 5), async {
            peer.expect("consume q prefetch=5").await;
            peer.say("Subscribed to queue").await;
            for id in ["d-1", "d-2", "d-3"] {
                peer.deliver(id, 1).await;
            }
        })
    })
    .await;
    let mut consumer = consumer.unwrap();
    let first = within(consumer.next()).await.unwrap().unwrap();
    let second = within(consumer.next()).await.unwrap().unwrap();
    let under_way = first.ack_later().unwrap();
    peer.expect("ack d-1 queue=q").await;
    drop(peer);
    let lost = within(under_way).await.unwrap_err();
    assert_eq!(*lost.kind(), ErrorKind::LeaseLost);

    let (mut peer, _) = broker.greet("s2").await;
    peer.expect("consume q prefetch=5").await;
    peer.say("Subscribed to queue").await;
    peer.deliver("d-2", 2).await;
    // d-3 waited in the buffer of the old connection: its lease is gone as well.
    let again = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!((again.message_id(), again.attempt()), ("d-2", 2));
    assert_eq!(*within(second.ack()).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let acked = again.ack_later().unwrap();
    peer.expect("ack d-2 queue=q").await;
    peer.say("ACK_CONFIRMED d-2").await;
    within(acked).await.unwrap();
}

#[tokio::test]
async fn what_can_be_asked_twice_is_asked_again_and_the_rest_is_unknown() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let options = QueueOptions::new();
    let asking = async {
        tokio::join!(
            client.declare_queue("q", &options),
            client.purge("q"),
            client.list_exchanges(),
            client.delete_exchange("e"),
            client.bind("e", "q", "k"),
        )
    };
    let script = async {
        let first = ["declare_queue q", "purge q", "list_exchanges limit=10000", "delete_exchange e", "bind e q k"];
        for line in first {
            asked(&mut peer, line).await;
        }
        drop(peer);
        let (mut peer, _) = broker.greet("s2").await;
        for line in ["declare_queue q", "list_exchanges limit=10000", "bind e q k"] {
            asked(&mut peer, line).await;
        }
        peer.say("Queue declared\nExchanges: []\nQueue bound").await;
        peer
    };
    let ((declared, purged, listed, deleted, bound), _peer) =
        within(Box::pin(async { tokio::join!(asking, script) })).await;
    declared.unwrap();
    assert!(listed.unwrap().is_empty());
    bound.unwrap();
    assert_eq!(*purged.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(*deleted.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
}

#[tokio::test]
async fn what_was_never_sent_waits_for_the_next_connection() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let gone = within(async {
        let (gone, ()) = tokio::join!(client.purge("gone"), async {
            peer.expect("purge gone").await;
            drop(peer);
        });
        gone
    })
    .await;
    // The loss is known: from here on there is no connection.
    assert_eq!(*gone.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    let (purged, _peer) = within(async {
        tokio::join!(client.purge("q"), async {
            let (mut peer, _) = broker.greet("s2").await;
            peer.expect("purge q").await;
            peer.say("Purged 3").await;
            peer
        })
    })
    .await;
    assert_eq!(purged.unwrap(), 3);
}

#[tokio::test]
async fn half_a_line_at_the_end_of_a_connection_means_nothing() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let confirm = publish(&client, "m-1").await;
    peer.expect(&publish_line("m-1")).await;
    peer.send(b"ACK m-1").await;
    drop(peer);
    let (mut peer, _) = broker.greet("s2").await;
    peer.expect(&publish_line("m-1")).await;
    peer.say("ACK m-1").await;
    within(confirm).await.unwrap();
}

#[tokio::test]
async fn garbage_ends_the_connection_and_costs_no_publish() {
    for garbage in [&b"WHAT\n"[..], b"\xff\xfe\n", b"\n", b"Pong\n", b"Message: nonsense\n"] {
        let broker = FakeBroker::start().await;
        let (client, mut peer) = broker.client().await;
        let script = async {
            peer.expect("purge q").await;
            let confirm = publish(&client, "m-1").await;
            peer.expect(&publish_line("m-1")).await;
            peer.send(garbage).await;
            let (mut next, _) = broker.greet("s2").await;
            peer.expect_end().await;
            next.expect(&publish_line("m-1")).await;
            next.say("ACK m-1").await;
            within(confirm).await.unwrap();
            next
        };
        let (purged, _peer) = within(async { tokio::join!(client.purge("q"), script) }).await;
        let error = purged.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Protocol { .. }), "{garbage:?}: {error}");
    }
}

#[tokio::test]
async fn a_line_that_never_ends_ends_the_connection() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client_with(broker.options().max_line(4096)).await;
    let confirm = publish(&client, "m-1").await;
    peer.send(&[b'x'; 4096]).await;
    let (mut peer, _) = broker.greet("s2").await;
    peer.expect(&publish_line("m-1")).await;
    peer.say("ACK m-1").await;
    within(confirm).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_stops_gets_its_refused_publishes_again_when_it_is_back() {
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let confirms = [publish(&client, "m-1").await, publish(&client, "m-2").await];
    peer.expect(&publish_line("m-1")).await;
    peer.expect(&publish_line("m-2")).await;
    peer.say("Error: SHUTTING_DOWN the server is stopping\nClosing: SHUTTING_DOWN the server is stopping").await;
    let (mut peer, _) = broker.greet("s2").await;
    peer.expect(&publish_line("m-1")).await;
    peer.expect(&publish_line("m-2")).await;
    peer.say("ACK m-1\nACK m-2").await;
    for confirm in confirms {
        within(confirm).await.unwrap();
    }
}

#[tokio::test]
async fn a_session_that_was_taken_over_is_not_taken_back() {
    let broker = FakeBroker::start().await;
    let (_client, mut peer) = broker.client_with(broker.options().name("worker")).await;
    peer.say("Closing: TAKEN_OVER another connection").await;
    let (_peer, hello) = broker.greet("s2").await;
    assert_eq!(hello, "hello 1 name=worker");
}

#[tokio::test]
async fn attempts_used_up_close_the_client_and_tell_everybody() {
    let broker = FakeBroker::start().await;
    let attempts = BackoffOptions::default().initial(Duration::from_millis(1)).max_attempts(3);
    let (client, mut peer) = broker.client_with(broker.options().backoff(attempts)).await;
    let (consumer, ()) = within(async {
        tokio::join!(client.consume_raw("q", 1), async {
            peer.expect("consume q prefetch=1").await;
            peer.say("Subscribed to queue").await;
        })
    })
    .await;
    let confirm = publish(&client, "m-1").await;
    peer.expect(&publish_line("m-1")).await;
    broker.stop();
    drop(peer);
    assert_eq!(*within(confirm).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(*within(client.ping()).await.unwrap_err().kind(), ErrorKind::Connection);
    let mut consumer = consumer.unwrap();
    assert_eq!(*within(consumer.next()).await.unwrap().unwrap_err().kind(), ErrorKind::Connection);
    assert!(within(consumer.next()).await.is_none());
    assert_eq!(*within(client.close()).await.unwrap_err().kind(), ErrorKind::Connection);
}

#[tokio::test]
async fn connecting_to_what_is_no_broker_says_so() {
    let broker = FakeBroker::start().await;
    for (answer, expected) in [
        ("Unknown command", None),
        ("HTTP/1.1 400 Bad Request", None),
        ("Error: BAD_VERSION no", Some(Code::BadVersion)),
    ] {
        let script = async {
            let mut peer = broker.accept().await;
            peer.expect("hello 1").await;
            peer.say(answer).await;
        };
        let (client, ()) = within(async { tokio::join!(Client::connect(broker.options()), script) }).await;
        let error = client.unwrap_err();
        match expected {
            Some(code) => assert_eq!(refusal(&error), Some(code)),
            None => assert!(matches!(error.kind(), ErrorKind::Protocol { .. }), "{error}"),
        }
    }
    let options = broker.options();
    broker.stop();
    assert_eq!(*within(Client::connect(options)).await.unwrap_err().kind(), ErrorKind::Connection);
}
