//! How long one publish line takes from bytes to a checked envelope.
//!
//! `cargo run --release -p ciphermq-protocol --example parse_speed`

use std::hint::black_box;
use std::time::Instant;

use ciphermq_protocol::{Command, Decoder, Dialect, Envelope};

const LINES: usize = 400_000;

fn main() {
    let ciphertext = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZn".repeat(33);
    let line = publish_line(&ciphertext[..1368]);
    println!("publish line of {} bytes", line.len());
    let stream = line.repeat(LINES / 100);
    for _ in 0..3 {
        time("decode", || decode(&stream, |_| ()));
        time("decode + command", || decode(&stream, |line| drop(black_box(Command::parse(line, Dialect::Modern)))));
        time("decode + command + envelope", || decode(&stream, whole));
    }
}

fn publish_line(ciphertext: &str) -> Vec<u8> {
    format!(
        "publish default_exchange default_key {{\"message_id\":\"0b0f1c8e-6a3f-4b1c-9d57-0a1b2c3d4e5f\",\
         \"enc_session_key\":\"{}\",\"nonce\":\"{}\",\"tag\":\"{}\",\"ciphertext\":\"{ciphertext}\"}}\n",
        "A".repeat(344),
        "B".repeat(24),
        "C".repeat(24),
    )
    .into_bytes()
}

fn whole(line: &[u8]) {
    if let Ok(Command::Publish { envelope, .. }) = Command::parse(line, Dialect::Modern) {
        let envelope = Envelope::parse(envelope).expect("the line above holds a valid envelope");
        black_box(envelope.message_id());
    }
}

fn decode(stream: &[u8], mut line: impl FnMut(&[u8])) {
    let mut decoder = Decoder::new(1 << 20);
    for _ in 0..100 {
        let mut rest = stream;
        while !rest.is_empty() {
            let spare = decoder.spare();
            let count = spare.len().min(rest.len());
            spare[..count].copy_from_slice(&rest[..count]);
            decoder.advance(count);
            rest = &rest[count..];
            while let Ok(Some(found)) = decoder.next_line() {
                line(black_box(found));
            }
        }
    }
}

fn time(what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    println!("{what:30} {:6.0} ns a line", start.elapsed().as_nanos() as f64 / LINES as f64);
}
