//! What happens when nothing happens: deadlines, waits and silence, on a
//! paused clock.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::backoff::BackoffOptions;
use crate::client::Client;
use crate::{Error, ErrorKind};

const SEED: u64 = 42;

/// Hands the other end of each connection to the test, which may refuse it.
struct Memory {
    attempts: mpsc::UnboundedSender<(Instant, DuplexStream)>,
}

impl Connect for Memory {
    type Io = DuplexStream;

    async fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(1 << 16);
        match self.attempts.send((Instant::now(), theirs)) {
            Ok(()) => Ok(ours),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

struct Broker {
    attempts: mpsc::UnboundedReceiver<(Instant, DuplexStream)>,
}

impl Broker {
    async fn greet(&mut self) -> BufReader<DuplexStream> {
        let (_, stream) = self.attempts.recv().await.expect("the client is there");
        let mut peer = BufReader::new(stream);
        line(&mut peer).await;
        say(&mut peer, "Hello 1 server=f session=s lease=1 max_line=1048576 max_pending=1 max_prefetch=9").await;
        peer
    }
}

async fn line(peer: &mut BufReader<DuplexStream>) -> String {
    let mut line = String::new();
    peer.read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}

async fn say(peer: &mut BufReader<DuplexStream>, text: &str) {
    peer.write_all(format!("{text}\n").as_bytes()).await.unwrap();
}

fn options() -> ConnectOptions {
    ConnectOptions::new("memory:1").request_timeout(Duration::from_secs(30))
}

async fn client(options: ConnectOptions) -> (Client, Broker, BufReader<DuplexStream>) {
    let (attempts, received) = mpsc::unbounded_channel();
    let mut broker = Broker { attempts: received };
    let starting = start(Memory { attempts }, options, StdRng::seed_from_u64(SEED));
    let (shared, peer) = tokio::join!(starting, broker.greet());
    (Client::new(shared.unwrap()), broker, peer)
}

async fn publish(client: &Client, id: &str) -> crate::Confirm {
    client.publish_raw("e", "k", "{}", id).await.unwrap()
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.unwrap_err().kind().clone()
}

#[tokio::test(start_paused = true)]
async fn a_publish_without_an_answer_has_an_unknown_outcome_at_its_deadline() {
    let (client, _broker, mut peer) = client(options().idle_ping(Duration::from_secs(600))).await;
    let begun = Instant::now();
    let confirm = publish(&client, "m-1").await;
    let (late, question) = tokio::join!(confirm, client.ping());
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(kind(late), ErrorKind::OutcomeUnknown);
    assert_eq!(kind(question), ErrorKind::Timeout);
    // The late answers are not taken for those of the next request.
    let next = publish(&client, "m-2").await;
    for _ in 0..3 {
        line(&mut peer).await;
    }
    say(&mut peer, "ACK m-1\nPong\nACK m-2").await;
    assert_eq!(next.await.unwrap().message_id(), "m-2");
}

#[tokio::test(start_paused = true)]
async fn an_expired_publish_is_not_sent_again() {
    let (client, mut broker, mut peer) = client(options().idle_ping(Duration::from_secs(600))).await;
    assert_eq!(kind(publish(&client, "m-1").await.await), ErrorKind::OutcomeUnknown);
    line(&mut peer).await;
    drop(peer);
    let mut peer = broker.greet().await;
    let next = publish(&client, "m-2").await;
    assert_eq!(line(&mut peer).await, "publish e k {}");
    say(&mut peer, "ACK m-2").await;
    next.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_was_never_sent_times_out() {
    let (client, broker, peer) = client(options()).await;
    drop((broker, peer));
    while client.is_connected() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    assert_eq!(kind(publish(&client, "m-1").await.await), ErrorKind::Timeout);
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_window_has_a_deadline() {
    let (client, _broker, _peer) = client(options().window(1).idle_ping(Duration::from_secs(600))).await;
    let _first = publish(&client, "m-1").await;
    assert_eq!(kind(client.publish_raw("e", "k", "{}", "m-2").await), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn attempts_come_after_the_waits_of_the_seed() {
    println!("seed {SEED}");
    let limits = BackoffOptions::default();
    let (_client, mut broker, peer) = client(options().backoff(limits.clone())).await;
    let (mut expected, mut rng) = (Backoff::new(limits), StdRng::seed_from_u64(SEED));
    drop(peer);
    let mut last = Instant::now();
    for _ in 0..12 {
        let wait = expected.next(&mut rng).unwrap();
        let (at, refused) = broker.attempts.recv().await.unwrap();
        let waited = at - last;
        // A timer of tokio counts whole milliseconds, rounded up.
        assert!(waited >= wait && waited <= wait + Duration::from_millis(2), "{waited:?} for {wait:?}");
        last = at;
        drop(refused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_asked_for_a_sign_of_life_and_then_left() {
    let (client, mut broker, mut peer) = client(options().idle_ping(Duration::from_secs(10))).await;
    let begun = Instant::now();
    assert_eq!(line(&mut peer).await, "ping");
    assert_eq!(begun.elapsed().as_secs(), 10);
    say(&mut peer, "Pong").await;
    assert_eq!(line(&mut peer).await, "ping");
    assert_eq!(begun.elapsed().as_secs(), 20);
    // No answer this time.
    let _next = broker.greet().await;
    assert!((30..31).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    while client.reconnects() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn close_does_not_wait_longer_than_a_request() {
    let (client, _broker, mut peer) = client(options().idle_ping(Duration::from_secs(600))).await;
    let confirm = publish(&client, "m-1").await;
    let begun = Instant::now();
    let (closed, outcome, ()) = tokio::join!(client.close(), confirm, async {
        assert_eq!(line(&mut peer).await, "publish e k {}");
        assert_eq!(line(&mut peer).await, "quit");
        drop(peer);
    });
    closed.unwrap();
    assert_eq!(kind(outcome), ErrorKind::OutcomeUnknown);
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_greets_is_given_up() {
    let (attempts, _kept) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let outcome = start(Memory { attempts }, options(), StdRng::seed_from_u64(SEED)).await;
    assert_eq!(kind(outcome), ErrorKind::Connection);
    assert_eq!(begun.elapsed().as_secs(), 5);
}
