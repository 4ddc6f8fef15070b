//! Messages per second of the raw layer: published, and taken out again. Without
//! an address only published, to a thread that acknowledges and does nothing else.
//! `cargo run --release -p cipher-client --example raw_speed [host:port]`
#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Instant;

use cipher_client::{Client, ConnectOptions};

const MESSAGES: usize = 200_000;
const ENVELOPE_BYTES: usize = 1_900;

fn main() {
    let broker = std::env::args().nth(1);
    let address = broker.clone().unwrap_or_else(acknowledging_thread);
    for (name, mut builder) in [
        ("one thread", tokio::runtime::Builder::new_current_thread()),
        ("two workers", tokio::runtime::Builder::new_multi_thread()),
    ] {
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        for window in [1, 256, 4096] {
            let messages = if window == 1 { MESSAGES / 20 } else { MESSAGES };
            let took =
                runtime.block_on(async { tokio::spawn(publish(address.clone(), window, messages)).await.unwrap() });
            println!("{name}, window {window}: {:.0} publishes/s", messages as f64 / took);
            if let Some(broker) = broker.clone() {
                let taking = take_out(broker, window as u32, messages);
                let took = runtime.block_on(async { tokio::spawn(taking).await.unwrap() });
                println!("{name}, prefetch {window}: {:.0} deliveries and acks/s", messages as f64 / took);
            }
        }
    }
}

async fn publish(address: String, window: usize, messages: usize) -> f64 {
    let client = Client::connect(ConnectOptions::new(address).window(window)).await.unwrap();
    let start = Instant::now();
    // The broker remembers ids: those of this round must be new.
    let round = uuid::Uuid::new_v4().simple();
    let mut confirms = VecDeque::with_capacity(window);
    for number in 0..messages {
        let id = format!("{round}-{number}");
        let body = "x".repeat(ENVELOPE_BYTES);
        let text =
            format!(r#"{{"message_id":"{id}","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"{body}"}}"#);
        if confirms.len() == window {
            let oldest: cipher_client::Confirm = confirms.pop_front().unwrap();
            oldest.await.unwrap();
        }
        confirms.push_back(client.publish_raw("default_exchange", "default_key", &text, &id).await.unwrap());
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
    start.elapsed().as_secs_f64()
}

async fn take_out(address: String, prefetch: u32, messages: usize) -> f64 {
    let client = Client::connect(ConnectOptions::new(address)).await.unwrap();
    let start = Instant::now();
    let mut consumer = client.consume_raw("default_queue", prefetch).await.unwrap();
    let mut last = None;
    for _ in 0..messages {
        last = Some(consumer.next().await.unwrap().unwrap().ack_later().unwrap());
    }
    last.unwrap().await.unwrap();
    start.elapsed().as_secs_f64()
}

fn acknowledging_thread() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut reader = BufReader::with_capacity(1 << 17, stream.try_clone().unwrap());
            let hello = "Hello 1 server=ack/1 session=s lease=1 max_line=1048576 max_pending=1 max_prefetch=1\n";
            stream.write_all(hello.as_bytes()).unwrap();
            let (mut line, mut out) = (Vec::new(), Vec::new());
            while reader.read_until(b'\n', &mut line).unwrap() > 0 {
                if let Some(at) = line.windows(13).position(|part| part == b"message_id\":\"") {
                    let id = &line[at + 13..];
                    out.extend_from_slice(b"ACK ");
                    out.extend_from_slice(&id[..id.iter().position(|byte| *byte == b'"').unwrap()]);
                    out.push(b'\n');
                }
                line.clear();
                if reader.buffer().is_empty() {
                    stream.write_all(&out).unwrap();
                    out.clear();
                }
            }
        }
    });
    address
}
