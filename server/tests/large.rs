//! Messages larger than a line, through a broker: whole, once, or not at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cipher_client::crypto::{
    Context, Identity, KeyKind, Keyset, OpenPolicy, Opener, Order, PartLimits, PrivateKey, Sealer, Sender,
};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};
use cipher_client::{
    Client, ConnectOptions, ConsumeOptions, Consumer, Delivery, ErrorKind, OnUndecryptable, Publisher,
};
use ciphermq_server::{Server, ServerConfig};
use tokio::sync::oneshot;
use tokio::time::timeout;

const EXCHANGE: &str = "default_exchange";
const KEY: &str = "default_key";
const QUEUE: &str = "default_queue";
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    address: String,
    key: PrivateKey,
    _stop: oneshot::Sender<()>,
}

impl Place {
    async fn new() -> Self {
        let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
        let server = Server::bind(config).unwrap();
        let address = server.local_addr().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async { server.run(async { drop(stopped.await) }).await.unwrap() });
        Self { address, key: PrivateKey::generate_kind(KeyKind::X25519).unwrap(), _stop: stop }
    }

    async fn client(&self) -> Client {
        Client::connect(ConnectOptions::new(&self.address)).await.unwrap()
    }

    async fn publisher(&self) -> Publisher {
        self.client().await.publisher(EXCHANGE, KEY, self.key.public_key()).unwrap()
    }

    async fn consumer(&self, options: ConsumeOptions) -> Consumer {
        self.client().await.consume(QUEUE, &self.key, options).await.unwrap()
    }

    async fn is_empty(&self) -> bool {
        let queues = self.client().await.list_queues().await.unwrap();
        queues.iter().all(|queue| queue.ready + queue.leased + queue.delayed == 0)
    }
}

async fn next(consumer: &mut Consumer) -> cipher_client::Result<Delivery> {
    timeout(PATIENCE, consumer.next()).await.expect("nothing came").unwrap()
}

fn text(seed: u8, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ seed).collect()
}

fn limits(messages: usize, age: Duration) -> PartLimits {
    PartLimits { messages, age, ..PartLimits::default() }
}

/// More parts than the prefetch: those that wait are held beyond it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_many_parts_comes_whole_and_is_acknowledged_with_all_of_them() {
    let place = Place::new().await;
    let (publisher, large) = (place.publisher().await, text(1, 3 << 20));
    let mut consumer = place.consumer(ConsumeOptions::new().prefetch(3)).await;
    for id in ["scan-1", "scan-2"] {
        let ack = publisher.publish_large(Some(id), large.len() as u64, &large[..]).await.unwrap();
        assert_eq!(ack.message_id(), id);
    }
    publisher.publish("short").await.unwrap().await.unwrap();
    for id in ["scan-1", "scan-2"] {
        let delivery = next(&mut consumer).await.unwrap();
        assert_eq!((delivery.message_id(), delivery.parts(), delivery.opened().part), (id, 48, None));
        assert!(delivery.plaintext() == large);
        assert!(!place.is_empty().await);
        delivery.ack().await.unwrap();
    }
    let short = next(&mut consumer).await.unwrap();
    assert_eq!((short.plaintext(), short.parts()), (&b"short"[..], 1));
    short.ack().await.unwrap();
    assert!(place.is_empty().await);
}

/// Part by part of each in turn: the order that is worst for a consumer.
async fn publish_interleaved(place: &Place, texts: &[Vec<u8>]) {
    let (client, context) = (place.client().await, Context::new(EXCHANGE, KEY));
    let sealer = Sealer::new(&place.key.public_key(), Default::default()).unwrap();
    let mut all: Vec<_> = texts.iter().map(|text| sealer.seal_parts(&context, None, text, 10_000).unwrap()).collect();
    let mut left = true;
    while left {
        left = false;
        for parts in &mut all {
            if let Some(part) = parts.next() {
                let part = part.unwrap();
                client.publish_raw(EXCHANGE, KEY, &part.envelope, &part.message_id).await.unwrap().await.unwrap();
                left = true;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_several_messages_between_each_other_are_kept_apart() {
    let mut texts: Vec<_> = (0..4).map(|n| text(n, 200_000 + usize::from(n))).collect();
    // Where one at a time has room, the parts of the others are put back without a loss.
    for messages in [16, 1] {
        let place = Place::new().await;
        publish_interleaved(&place, &texts).await;
        let mut consumer = place.consumer(ConsumeOptions::new().prefetch(2).parts(limits(messages, PATIENCE))).await;
        let mut came = Vec::new();
        while came.len() < texts.len() {
            let mut delivery = next(&mut consumer).await.unwrap();
            assert_eq!(delivery.attempt(), 1);
            came.push(delivery.take_plaintext());
            delivery.ack().await.unwrap();
        }
        came.sort();
        texts.sort();
        assert!(came == texts);
        assert!(place.is_empty().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_a_directory_is_read_from_there_and_leaves_nothing() {
    let (place, dir) = (Place::new().await, tempfile::tempdir().unwrap());
    let large = text(2, 1 << 20);
    place.publisher().await.publish_large(None, large.len() as u64, &large[..]).await.unwrap();
    let mut consumer = place.consumer(ConsumeOptions::new().spool(dir.path())).await;
    let delivery = next(&mut consumer).await.unwrap();
    assert!(delivery.plaintext().is_empty());
    let spooled = delivery.spooled().unwrap().clone();
    delivery.ack().await.unwrap();
    let mut read = Vec::new();
    spooled.reader().read_to_end(&mut read).unwrap();
    assert!(read == large && spooled.len() == large.len() as u64);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(place.is_empty().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_part_is_told_and_what_came_goes_back() {
    for policy in [OnUndecryptable::Yield, OnUndecryptable::Reject] {
        let place = Place::new().await;
        let (client, context) = (place.client().await, Context::new(EXCHANGE, KEY));
        let sealer = Sealer::new(&place.key.public_key(), Default::default()).unwrap();
        for (n, part) in sealer.seal_parts(&context, Some("scan"), &text(3, 5000), 1000).unwrap().enumerate() {
            let part = part.unwrap();
            if n != 2 && n != 3 {
                client.publish_raw(EXCHANGE, KEY, &part.envelope, &part.message_id).await.unwrap().await.unwrap();
            }
        }
        let options = ConsumeOptions::new().parts(limits(16, Duration::from_millis(200))).on_undecryptable(policy);
        let mut consumer = place.consumer(options).await;
        let counts = || async {
            let queues = client.list_queues().await.unwrap();
            let count =
                |name: &str| queues.iter().find(|queue| queue.queue == name).map(|one| (one.ready, one.delayed));
            (count(QUEUE).unwrap(), count("default_queue.dlq").unwrap_or_default())
        };
        if policy == OnUndecryptable::Yield {
            let error = next(&mut consumer).await.unwrap_err();
            let expected = ErrorKind::Incomplete { message_id: "scan".into(), missing: 2, count: 5 };
            assert_eq!(*error.kind(), expected, "{error}");
            // An attempt is used up, and they stay away for a while.
            until(|| async { counts().await == ((0, 3), (0, 0)) }).await;
        } else {
            tokio::select! {
                item = consumer.next() => panic!("nothing is told: {item:?}"),
                () = until(|| async { counts().await == ((0, 0), (3, 0)) }) => {}
            }
        }
    }
}

async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    timeout(PATIENCE, async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it did not come true");
}

/// A sender that was cut off does not know what arrived; it begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_try_with_the_same_id_arrives_whole() {
    let place = Place::new().await;
    let (client, context, large) = (place.client().await, Context::new(EXCHANGE, KEY), text(4, 300_000));
    let sealer = Sealer::new(&place.key.public_key(), Default::default()).unwrap();
    for part in sealer.seal_parts(&context, Some("scan"), &large, 65_536).unwrap().take(3) {
        let part = part.unwrap();
        client.publish_raw(EXCHANGE, KEY, &part.envelope, &part.message_id).await.unwrap().await.unwrap();
    }
    let publisher = place.publisher().await;
    publisher.publish_large(Some("scan"), large.len() as u64, &large[..]).await.unwrap();
    let mut consumer = place.consumer(ConsumeOptions::new()).await;
    let delivery = next(&mut consumer).await.unwrap();
    assert!(delivery.message_id() == "scan" && delivery.plaintext() == large);
    delivery.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_not_given_out_again_in_parts_or_whole() {
    let (place, large) = (Place::new().await, text(5, 300_000));
    let window = Arc::new(Mutex::new(DedupeWindow::in_memory(DedupeOptions::default()).unwrap()));
    let options = || ConsumeOptions::new().dedupe(Arc::clone(&window));
    let publisher = place.publisher().await;
    publisher.publish_large(Some("scan"), large.len() as u64, &large[..]).await.unwrap();
    let mut consumer = place.consumer(options()).await;
    // Given back, it comes again, with dedupe as well.
    for _ in 0..2 {
        next(&mut consumer).await.unwrap().nack(None).await.unwrap();
    }
    next(&mut consumer).await.unwrap().ack().await.unwrap();
    // The sender did not hear that, and sends it anew; the consumer is another one.
    publisher.publish_large(Some("scan"), large.len() as u64, &large[..]).await.unwrap();
    drop(consumer);
    let mut consumer = place.consumer(options()).await;
    publisher.publish("last").await.unwrap().await.unwrap();
    let last = next(&mut consumer).await.unwrap();
    assert_eq!((last.plaintext(), consumer.stats().duplicates), (&b"last"[..], 5), "each of its parts");
    last.ack().await.unwrap();
    until(|| place.is_empty()).await;
}

/// Its connection ends with half of the message in hand.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_consumer_that_is_gone_come_to_the_next() {
    let (place, large) = (Place::new().await, text(6, 300_000));
    let (client, context) = (place.client().await, Context::new(EXCHANGE, KEY));
    let sealer = Sealer::new(&place.key.public_key(), Default::default()).unwrap();
    let parts: Vec<_> = sealer.seal_parts(&context, Some("scan"), &large, 65_536).unwrap().collect();
    let (first, rest) = parts.split_at(3);
    let publish = async |parts: &[cipher_client::Result<cipher_client::crypto::Sealed>]| {
        for part in parts {
            let part = part.as_ref().unwrap();
            client.publish_raw(EXCHANGE, KEY, &part.envelope, &part.message_id).await.unwrap().await.unwrap();
        }
    };
    publish(first).await;
    let mut consumer = place.consumer(ConsumeOptions::new()).await;
    let leased = async || client.list_queues().await.unwrap().iter().map(|queue| queue.leased).sum::<u64>();
    assert!(timeout(Duration::from_millis(50), consumer.next()).await.is_err());
    until(|| async { leased().await == 3 }).await;
    drop(consumer);
    until(|| async { leased().await == 0 }).await;
    let mut consumer = place.consumer(ConsumeOptions::new()).await;
    publish(rest).await;
    let delivery = next(&mut consumer).await.unwrap();
    assert!(delivery.plaintext() == large);
    delivery.ack().await.unwrap();
    assert!(place.is_empty().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_was_altered_is_told_and_makes_nothing_whole() {
    let (place, large) = (Place::new().await, text(7, 30_000));
    let (client, context) = (place.client().await, Context::new(EXCHANGE, KEY));
    let sealer = Sealer::new(&place.key.public_key(), Default::default()).unwrap();
    for (n, part) in sealer.seal_parts(&context, Some("scan"), &large, 10_000).unwrap().enumerate() {
        let mut part = part.unwrap();
        if n == 1 {
            let at = part.envelope.len() / 2;
            let other = if part.envelope.as_bytes()[at] == b'A' { "B" } else { "A" };
            part.envelope.replace_range(at..=at, other);
        }
        client.publish_raw(EXCHANGE, KEY, &part.envelope, &part.message_id).await.unwrap().await.unwrap();
    }
    let mut consumer = place.consumer(ConsumeOptions::new().parts(limits(16, Duration::from_secs(1)))).await;
    let error = next(&mut consumer).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Decrypt);
    error.into_undecryptable().unwrap().reject().await.unwrap();
    let error = next(&mut consumer).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Incomplete { missing: 1, count: 3, .. }), "{error}");
}

/// A large message has one number, like any other of its sender.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_message_in_parts_has_its_sender_and_its_place() {
    let place = Place::new().await;
    let me = Arc::new(Identity::generate().unwrap());
    let known = Arc::new(Senders::in_memory());
    known.add("me", me.sender_key().clone()).unwrap();
    let keys = Keyset::new(PrivateKey::from_pem(&*place.key.to_pem().unwrap()).unwrap());
    let opener = Opener::builder(&keys).senders(SenderPolicy::require_signed(known)).build().unwrap();
    let to = [Recipient::from_own_source(place.key.public_key())];
    let sealer = Sealer::builder(to).identity(Arc::clone(&me)).build().unwrap();
    let publisher = place.client().await.publisher(EXCHANGE, KEY, sealer).unwrap();
    publisher.publish("one").await.unwrap().await.unwrap();
    let large = text(8, 200_000);
    publisher.publish_large(None, large.len() as u64, &large[..]).await.unwrap();
    publisher.publish("three").await.unwrap().await.unwrap();
    let mut consumer = place.client().await.consume(QUEUE, opener, ConsumeOptions::new()).await.unwrap();
    for expected in [Order::First, Order::Next, Order::Next] {
        let delivery = next(&mut consumer).await.unwrap();
        assert_eq!((delivery.opened().order, delivery.sender()), (expected, Sender::Signed(*me.kid())));
        delivery.ack().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_another_length_makes_no_message() {
    let place = Place::new().await;
    let publisher = place.publisher().await;
    for bytes in [99_999, 100_001] {
        let error = publisher.publish_large(None, bytes, &text(9, 100_000)[..]).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Stream, "{error}");
    }
    let mut consumer = place.consumer(ConsumeOptions::new().parts(limits(16, Duration::from_millis(200)))).await;
    for _ in 0..2 {
        let error = next(&mut consumer).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Incomplete { missing: 1, count: 2, .. }), "{error}");
    }
    let rsa = PrivateKey::generate(2048).unwrap();
    let original = place.client().await.publisher(EXCHANGE, KEY, rsa.public_key()).unwrap();
    let error = original.publish_large(None, 4, &b"text"[..]).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Option { option: "suite", .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_bounds_is_told_at_its_first_part() {
    let (place, large) = (Place::new().await, text(10, 300_000));
    place.publisher().await.publish_large(None, large.len() as u64, &large[..]).await.unwrap();
    let options = ConsumeOptions::new().parts(PartLimits { bytes: 200_000, ..PartLimits::default() });
    let mut consumer = place.consumer(options).await;
    for _ in 0..5 {
        let error = next(&mut consumer).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { bytes: 300_000, max: 200_000, .. }), "{error}");
        let part = error.into_undecryptable().unwrap();
        let envelope = part.envelope().to_owned();
        assert!(Opener::new(&place.key, OpenPolicy::default()).unwrap().open(&envelope).unwrap().part.is_some());
        part.reject().await.unwrap();
    }
}
