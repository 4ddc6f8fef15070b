//! A broker that does what a test's script says, over loopback.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a script that fails ends its test")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cipher_client::{BackoffOptions, Client, Code, ConnectOptions, Error, ErrorKind};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A step of a script that takes longer has gone wrong.
const STEP: Duration = Duration::from_secs(20);

pub struct FakeBroker {
    listener: TcpListener,
}

impl FakeBroker {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// Options for a client of this broker that comes back at once.
    pub fn options(&self) -> ConnectOptions {
        let millisecond = Duration::from_millis(1);
        ConnectOptions::new(self.listener.local_addr().unwrap().to_string())
            .backoff(BackoffOptions::default().initial(millisecond).max(millisecond * 5))
    }

    pub async fn accept(&self) -> Peer {
        let (stream, _) = timeout(STEP, self.listener.accept()).await.expect("no connection").unwrap();
        Peer::new(stream)
    }

    /// Accepts, and answers `hello`; returns that line too.
    pub async fn greet(&self, session: &str) -> (Peer, String) {
        self.greet_with(session, 1 << 20).await
    }

    pub async fn greet_with(&self, session: &str, max_line: usize) -> (Peer, String) {
        let mut peer = self.accept().await;
        let hello = peer.line().await;
        peer.say(&format!(
            "Hello 1 server=fake/1 session={session} lease=30000 max_line={max_line} max_pending=1024 max_prefetch=65535"
        ))
        .await;
        (peer, hello)
    }

    pub async fn client(&self) -> (Client, Peer) {
        self.client_with(self.options()).await
    }

    pub async fn client_with(&self, options: ConnectOptions) -> (Client, Peer) {
        let (client, (peer, _)) = tokio::join!(Client::connect(options), self.greet("s1"));
        (client.unwrap(), peer)
    }

    /// Nobody can connect any more.
    pub fn stop(self) {}
}

pub struct Peer {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(STEP, self.reader.read_line(&mut line)).await.expect("no line came").unwrap();
        assert!(line.ends_with('\n'), "cut off or ended: {line:?}");
        line.pop();
        line
    }

    pub async fn expect(&mut self, line: &str) {
        assert_eq!(self.line().await, line);
    }

    /// Lines, each ended by LF.
    pub async fn say(&mut self, lines: &str) {
        self.send(format!("{lines}\n").as_bytes()).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    /// The client has nothing more to say and has closed.
    pub async fn expect_end(&mut self) {
        let mut rest = String::new();
        timeout(STEP, self.reader.read_to_string(&mut rest)).await.expect("not closed").unwrap();
        assert_eq!(rest, "");
    }

    pub async fn expect_quit(mut self) {
        self.expect("quit").await;
        self.say("Bye").await;
    }

    /// A delivery of `envelope(id)` to the queue `q`.
    pub async fn deliver(&mut self, id: &str, attempt: u32) {
        self.deliver_envelope(id, attempt, &envelope(id)).await;
    }

    pub async fn deliver_envelope(&mut self, id: &str, attempt: u32, envelope: &str) {
        self.say(&format!("Message: {id} queue=q attempt={attempt} exchange=e key=k published=1700 {envelope}")).await;
    }
}

pub fn envelope(id: &str) -> String {
    format!(r#"{{"message_id":"{id}","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"d"}}"#)
}

pub fn publish_line(id: &str) -> String {
    format!("publish e k {}", envelope(id))
}

/// Polls once: whether it is ready now.
pub fn is_ready(future: impl Future) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(pin!(future).poll(&mut cx), Poll::Ready(_))
}

pub fn refusal(error: &Error) -> Option<Code> {
    match error.kind() {
        ErrorKind::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

/// A test's script with an end in sight.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(STEP, future).await.expect("nothing happened")
}
