//! Changing the key of a receiver under load, and a directory that lies.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use cipher_client::crypto::{Identity, Kid, OpenPolicy, Opener, PrivateKey};
use cipher_client::trust::{Announcement, PinMode, Pins};
use cipher_client::{Client, ConnectOptions, ErrorKind};
use ciphermq_server::{Server, ServerConfig};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

const NAME: &str = "billing";
const QUEUE: &str = "default_queue";
const SENDERS: usize = 2;
const ROTATIONS: usize = 2;
/// After so many messages a sender asks for the key again.
const RESOLVE_EVERY: usize = 10;
/// Messages in the queue at most.
const BACKLOG: usize = 16;

struct Running {
    address: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start() -> Running {
    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
    let server = Server::bind(config).unwrap();
    let address = server.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async { server.run(async { drop(stopped.await) }).await.map_err(std::io::Error::other) });
    Running { address, stop, task }
}

impl Running {
    async fn client(&self) -> Client {
        Client::connect(ConnectOptions::new(&self.address)).await.unwrap()
    }

    async fn end(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate(2048).unwrap()
}

fn opener(keys: &[&PrivateKey]) -> Arc<Opener> {
    Arc::new(Opener::with_keys(keys, OpenPolicy::default()).unwrap())
}

/// What the senders tell of themselves.
struct Load {
    stop: AtomicBool,
    sent: AtomicUsize,
    /// For messages on their way, so that the receiver keeps up.
    room: Semaphore,
    /// The key each of them seals to.
    seals_to: Mutex<[Option<Kid>; SENDERS]>,
}

impl Load {
    fn new() -> Self {
        let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { stop, sent, room: Semaphore::new(BACKLOG), seals_to: Mutex::new([None; SENDERS]) }
    }

    fn all_seal_to(&self, kid: &Kid) -> bool {
        self.seals_to.lock().unwrap().iter().all(|one| one.as_ref() == Some(kid))
    }
}

/// Publishes until it is told to stop, each message confirmed before the next.
async fn send(client: Client, load: Arc<Load>, me: usize, pins: Pins) -> usize {
    let mut publisher = None;
    let mut count = 0;
    while !load.stop.load(Ordering::Acquire) {
        if count % RESOLVE_EVERY == 0 {
            let recipient = client.resolve(NAME, &pins, SystemTime::now()).await.unwrap();
            publisher = Some(client.publisher("default_exchange", "default_key", recipient.key()).unwrap());
            load.seals_to.lock().unwrap()[me] = Some(*recipient.kid());
        }
        load.room.acquire().await.unwrap().forget();
        let confirm = publisher.as_ref().unwrap().publish(format!("{me}-{count}")).await.unwrap();
        confirm.await.unwrap();
        load.sent.fetch_add(1, Ordering::AcqRel);
        count += 1;
    }
    count
}

/// Takes messages until `enough`, and panics at one that does not open.
async fn receive(
    (client, load): (&Client, &Load),
    opener: &Arc<Opener>,
    got: &mut HashSet<String>,
    enough: impl Fn(usize) -> bool,
) {
    while !enough(got.len()) {
        match client.fetch(QUEUE, opener).await.unwrap() {
            Some(delivery) => {
                let text = String::from_utf8(delivery.plaintext().to_vec()).unwrap();
                delivery.ack().await.unwrap();
                load.room.add_permits(1);
                assert!(got.insert(text), "a message came twice");
            }
            None => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_changed_under_load_and_nothing_is_lost_or_unreadable() {
    let (server, dir) = (start().await, tempfile::tempdir().unwrap());
    let (billing, client) = (Identity::generate().unwrap(), server.client().await);
    let mut current = key();
    let mut announced = Announcement::of(NAME, Some(&current.public_key())).sign(&billing).unwrap();
    client.announce(&announced).await.unwrap();

    let load = Arc::new(Load::new());
    let mut senders = Vec::new();
    for me in 0..SENDERS {
        let pins = Pins::open(dir.path().join(me.to_string()), PinMode::Tofu).unwrap();
        senders.push(tokio::spawn(send(server.client().await, load.clone(), me, pins)));
    }
    let mut got = HashSet::new();
    for _ in 0..ROTATIONS {
        let before = got.len();
        receive((&client, &load), &opener(&[&current]), &mut got, |count| count >= before + 40).await;
        // Opens with both before anybody can seal to the new one.
        let next = key();
        let both = opener(&[&next, &current]);
        announced = Announcement::of(NAME, Some(&next.public_key())).after(&announced).sign(&billing).unwrap();
        client.announce(&announced).await.unwrap();
        receive((&client, &load), &both, &mut got, |_| load.all_seal_to(next.public_key().kid())).await;
        // One message of each may be on its way to the old key; then there is none in the queue.
        let last_to_old = load.sent.load(Ordering::Acquire) + SENDERS;
        receive((&client, &load), &both, &mut got, |count| count >= last_to_old).await;
        // The old key is gone: dropped, and so wiped.
        current = next;
        let before = got.len();
        receive((&client, &load), &opener(&[&current]), &mut got, |count| count >= before + 20).await;
    }
    load.stop.store(true, Ordering::Release);
    load.room.add_permits(SENDERS);
    let mut sent = 0;
    for sender in senders {
        sent += sender.await.unwrap();
    }
    receive((&client, &load), &opener(&[&current]), &mut got, |count| count >= sent).await;
    assert!(client.fetch(QUEUE, &opener(&[&current])).await.unwrap().is_none());
    assert_eq!(got.len(), sent);
    for me in 0..SENDERS {
        let mine = got.iter().filter(|text| text.starts_with(&format!("{me}-"))).count();
        assert!((0..mine).all(|n| got.contains(&format!("{me}-{n}"))), "a message of {me} is missing");
    }
    server.end().await;
}

#[tokio::test]
async fn a_broker_that_swaps_a_key_stops_sealing() {
    let (honest, lying, dir) = (start().await, start().await, tempfile::tempdir().unwrap());
    let (billing, liar) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (key, swapped) = (key(), key());
    let announce = |key: &PrivateKey, by: &Identity| Announcement::of(NAME, Some(&key.public_key())).sign(by).unwrap();
    honest.client().await.announce(&announce(&key, &billing)).await.unwrap();
    lying.client().await.announce(&announce(&swapped, &liar)).await.unwrap();

    let (now, pins) = (SystemTime::now(), Pins::open(dir.path(), PinMode::Tofu).unwrap());
    let (good, bad) = (honest.client().await, lying.client().await);
    assert_eq!(good.resolve(NAME, &pins, now).await.unwrap().kid(), key.public_key().kid());
    for _ in 0..2 {
        let error = bad.resolve(NAME, &pins, now).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::KeyChanged { client_id, .. } if client_id == NAME), "{error}");
    }
    assert_eq!(good.resolve(NAME, &pins, now).await.unwrap().kid(), key.public_key().kid(), "the lie left no trace");
    // Whoever knows nothing yet believes the liar, unless he was told to be strict.
    let elsewhere = |mode| Pins::open(dir.path().join(format!("{mode:?}")), mode).unwrap();
    assert!(bad.resolve(NAME, &elsewhere(PinMode::Tofu), now).await.is_ok());
    let strict = elsewhere(PinMode::Strict);
    let error = bad.resolve(NAME, &strict, now).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Untrusted { .. }));
    strict.pin(NAME, billing.kid()).unwrap();
    assert!(matches!(bad.resolve(NAME, &strict, now).await.unwrap_err().kind(), ErrorKind::KeyChanged { .. }));
    assert!(good.resolve(NAME, &strict, now).await.is_ok());
    let error = good.resolve("nobody", &pins, now).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Untrusted { .. }));
    honest.end().await;
    lying.end().await;
}

/// More announcements than one part of the history, and a change of identity
/// among them: followed link by link by a client that was away.
#[tokio::test]
async fn who_was_away_follows_the_history_to_the_heir() {
    let (server, dir) = (start().await, tempfile::tempdir().unwrap());
    let (old, new) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (client, key) = (server.client().await, key().public_key());
    let pins = Pins::open(dir.path(), PinMode::Tofu).unwrap();
    let mut last = Announcement::of(NAME, None).sign(&old).unwrap();
    client.announce(&last).await.unwrap();
    assert_eq!(client.resolve_sender(NAME, &pins).await.unwrap().kid(), old.kid());
    for n in 2..=45 {
        let next = Announcement::of(NAME, Some(&key)).after(&last);
        last = match n {
            20 => next.successor(new.sender_key()).sign(&old).unwrap(),
            21.. => next.sign(&new).unwrap(),
            _ => next.sign(&old).unwrap(),
        };
        client.announce(&last).await.unwrap();
    }
    let found = client.resolve(NAME, &pins, SystemTime::now()).await.unwrap();
    assert_eq!(found.kid(), key.kid());
    assert_eq!(client.resolve_sender(NAME, &pins).await.unwrap().kid(), new.kid());
    server.end().await;
}
