//! [`Server`] as a library: nothing global, nothing left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::net::TcpStream;
use std::time::Duration;

use ciphermq_server::{DirectoryStore, Error, Server, ServerConfig, Store};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream as AsyncStream;
use tokio::sync::oneshot;

fn config() -> ServerConfig {
    ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() }
}

async fn ask(stream: &mut BufReader<AsyncStream>, line: &str) -> String {
    stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    hear(stream).await
}

async fn hear(stream: &mut BufReader<AsyncStream>) -> String {
    let mut reply = String::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_line(&mut reply)).await.unwrap().unwrap();
    reply.trim_end().to_owned()
}

#[tokio::test]
async fn servers_of_one_process_share_nothing() {
    let (one, two) = (Server::bind(config()).unwrap(), Server::bind(config()).unwrap());
    assert_ne!(one.local_addr(), two.local_addr());
    let addresses = [one.local_addr(), two.local_addr()];
    let (stop_one, stopped_one) = oneshot::channel::<()>();
    let (stop_two, stopped_two) = oneshot::channel::<()>();
    let one = tokio::spawn(one.run(async { drop(stopped_one.await) }));
    let two = tokio::spawn(two.run(async { drop(stopped_two.await) }));

    let mut streams = Vec::new();
    for address in addresses {
        let mut stream = BufReader::new(AsyncStream::connect(address).await.unwrap());
        assert!(ask(&mut stream, "hello 1").await.starts_with("Hello 1 "));
        streams.push(stream);
    }
    assert_eq!(ask(&mut streams[0], "declare_queue only-here").await, "Queue declared");
    assert_eq!(ask(&mut streams[0], "purge only-here").await, "Purged 0");
    assert!(ask(&mut streams[1], "purge only-here").await.starts_with("Error: NOT_FOUND"));

    drop(stop_one);
    one.await.unwrap().unwrap();
    assert!(hear(&mut streams[0]).await.starts_with("Closing: SHUTTING_DOWN"));
    assert_eq!(ask(&mut streams[1], "ping").await, "Pong", "the other goes on");
    drop(stop_two);
    two.await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_a_running_server_ends_its_connections_and_frees_its_port() {
    let server = Server::bind(config()).unwrap();
    let address = server.local_addr();
    let running = tokio::spawn(server.run(std::future::pending()));
    let mut stream = BufReader::new(AsyncStream::connect(address).await.unwrap());
    assert!(ask(&mut stream, "hello 1").await.starts_with("Hello 1 "));
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(hear(&mut stream).await, "", "closed");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn clients_may_connect_before_the_server_runs() {
    let server = Server::bind(config()).unwrap();
    let early = TcpStream::connect(server.local_addr()).unwrap();
    early.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let running = tokio::spawn(server.run(std::future::pending()));
        let mut early = BufReader::new(AsyncStream::from_std(early).unwrap());
        assert!(ask(&mut early, "hello 1").await.starts_with("Hello 1 "));
        running.abort();
    });
}

#[test]
fn an_address_others_can_reach_is_refused() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let config = ServerConfig { listen: address.parse().unwrap(), ..ServerConfig::default() };
        assert!(matches!(Server::bind(config), Err(Error::NotLoopback(_))), "{address}");
    }
}

fn on_disk(path: &std::path::Path) -> ServerConfig {
    ServerConfig { store: Store::Directory(DirectoryStore { path: path.to_owned(), bytes_max: None }), ..config() }
}

#[tokio::test]
async fn a_server_that_ends_or_is_dropped_frees_its_directory_and_the_next_one_knows_everything() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let server = Server::bind(on_disk(data.path())).unwrap();
        assert!(matches!(Server::bind(on_disk(data.path())), Err(Error::Data { .. })), "one at a time");
        assert_eq!(server.recovered().unwrap().messages, round);
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async { drop(stopped.await) }));
        let mut stream = BufReader::new(AsyncStream::connect(address).await.unwrap());
        let line = format!(
            r#"publish default_exchange default_key {{"message_id":"{round}","enc_session_key":"","nonce":"","tag":"","ciphertext":""}}"#
        );
        assert_eq!(ask(&mut stream, &line).await, format!("ACK {round}"));
        if round % 2 == 0 {
            drop(stop);
            running.await.unwrap().unwrap();
        } else {
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
        }
        assert_eq!(hear(&mut stream).await, "", "closed");
    }
}
