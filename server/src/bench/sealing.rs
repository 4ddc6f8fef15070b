use std::hint::black_box;
use std::io::{self, Error};
use std::time::{Duration, Instant};

use cipher_client::crypto::{OpenPolicy, Opener, PrivateKey, Sealer, SessionPolicy};

use super::report::Row;

/// Envelopes opened in turn: as many as share a session key.
const ENVELOPES: usize = 1000;
/// Messages between two looks at the clock.
const BATCH: u64 = 16;

/// Messages sealed and opened per second on one thread, session keys used again as by default.
pub(super) fn rows(key: &PrivateKey, plaintext_bytes: usize, time: Duration) -> io::Result<[Row; 2]> {
    let sealer = Sealer::new(&key.public_key(), SessionPolicy::default()).map_err(Error::other)?;
    let opener = Opener::new(key, OpenPolicy::default()).map_err(Error::other)?;
    let plaintext = vec![b'm'; plaintext_bytes];
    let seal = |_| sealer.seal(&plaintext).map_err(Error::other);
    let envelopes = (0..ENVELOPES).map(seal).collect::<io::Result<Vec<_>>>()?;
    let mut envelopes_in_turn = envelopes.iter().cycle();
    let sealed = repeat(time, || sealer.seal(black_box(&plaintext)).map(|sealed| drop(black_box(sealed))))?;
    let opened = repeat(time, || match envelopes_in_turn.next() {
        Some(sealed) => opener.open(black_box(&sealed.envelope)).map(|opened| drop(black_box(opened))),
        None => Ok(()),
    })?;
    let line_bytes = envelopes.first().map_or(0, |sealed| sealed.envelope.len());
    let row = |mode, (messages, messages_per_second)| Row {
        mode,
        plaintext_bytes,
        line_bytes,
        connections: 0,
        window: 0,
        messages,
        messages_per_second,
        broker_cpu_us: None,
        latency: None,
    };
    Ok([row("seal", sealed), row("open", opened)])
}

/// How often `one` was done, and how often in a second.
fn repeat(time: Duration, mut one: impl FnMut() -> cipher_client::Result<()>) -> io::Result<(u64, f64)> {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        for _ in 0..BATCH {
            one().map_err(Error::other)?;
        }
        count += BATCH;
    }
    Ok((count, count as f64 / start.elapsed().as_secs_f64()))
}
