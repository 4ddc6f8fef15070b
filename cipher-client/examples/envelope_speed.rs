//! How many messages a second are sealed and opened, on one thread and on all
//! cores, everything included: random bytes, encryption, base64, JSON.
//!
//! ```text
//! cargo run --release -p cipher-client --example envelope_speed [--features aws-lc]
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use cipher_client::Result;
use cipher_client::crypto::{Context, KeyKind, OpenPolicy, Opener, PrivateKey, Sealer, SessionPolicy, Suite};
use cipher_client::trust::Recipient;

const SIZES: [(&str, usize); 4] = [("256 B", 256), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("1 MiB", 1 << 20)];
/// Long enough to pass through many sessions.
const WINDOW: Duration = Duration::from_millis(700);
/// Messages opened in one round: as many as share a session key by default.
const ROUND: usize = 1000;
/// Most bytes of envelopes kept for a round.
const ROUND_BYTES: usize = 64 << 20;
/// Messages between two looks at the clock.
const BATCH: u64 = 16;

fn main() -> Result<()> {
    let rsa = if cfg!(feature = "aws-lc") { "AWS-LC" } else { "the crate rsa" };
    println!("messages a second, one thread unless said otherwise; RSA-2048 by {rsa}");
    println!("reused: sessions of 1,000 messages (the default); fresh: a key for each message;");
    println!("kept: the session key has been unwrapped before");
    for suite in [Suite::One, Suite::TwoRsa, Suite::TwoX25519, Suite::TwoXWing] {
        table(suite)?;
    }
    Ok(())
}

fn table(suite: Suite) -> Result<()> {
    let key = PrivateKey::generate_kind(match suite {
        Suite::TwoX25519 => KeyKind::X25519,
        Suite::TwoXWing => KeyKind::XWing,
        _ => KeyKind::Rsa,
    })?;
    let sealer =
        |session| Sealer::builder([Recipient::from_own_source(key.public_key())]).suite(suite).session(session).build();
    println!();
    println!(
        "{:>8}{:>14}{:>14}{:>14}{:>14}{:>14}",
        format!("suite {suite}"),
        "seal reused",
        "seal fresh",
        "open kept",
        "open reused",
        "open fresh"
    );
    for (name, size) in SIZES {
        let text = vec![0x61; size];
        let reuse = sealer(SessionPolicy::default())?;
        let fresh = sealer(SessionPolicy::PerMessage)?;
        println!(
            "{name:>8}{:>14.0}{:>14.0}{:>14.0}{:>14.0}{:>14.0}",
            seals(&reuse, &text)?,
            seals(&fresh, &text)?,
            opens(&key, &reuse, &text, |_| ())?,
            opens(&key, &reuse, &text, Opener::forget)?,
            opens(&key, &fresh, &text, Opener::forget)?,
        );
    }
    let fresh = sealer(SessionPolicy::PerMessage)?;
    for threads in 1..=std::thread::available_parallelism().map_or(1, usize::from) {
        println!("{:>78}", format!("1 KiB on {threads} thread(s): {:.0}", opens_on(threads, &key, &fresh)?));
    }
    Ok(())
}

fn seals(sealer: &Sealer, text: &[u8]) -> Result<f64> {
    let start = Instant::now();
    let mut count = 0;
    let context = Context::new("default_exchange", "default_key");
    while start.elapsed() < WINDOW {
        for _ in 0..BATCH {
            black_box(sealer.seal_for(&context, black_box(text))?);
        }
        count += BATCH;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Opens rounds of messages, `before` each of which the opener is prepared.
fn opens(key: &PrivateKey, sealer: &Sealer, text: &[u8], before: fn(&Opener)) -> Result<f64> {
    let opener = Opener::new(key, OpenPolicy::default())?;
    sealer.rotate();
    let round = ROUND.min(ROUND_BYTES / text.len());
    let context = Context::new("default_exchange", "default_key");
    let envelopes: Result<Vec<_>> = (0..round).map(|_| sealer.seal_for(&context, text)).collect();
    let envelopes = envelopes?;
    let (mut count, mut spent) = (0, Duration::ZERO);
    opener.open(&envelopes[0].envelope)?;
    while spent < WINDOW {
        before(&opener);
        let start = Instant::now();
        for sealed in &envelopes {
            black_box(opener.open_for(black_box(&sealed.envelope), &context)?);
            count += 1;
        }
        spent += start.elapsed();
    }
    Ok(f64::from(count) / spent.as_secs_f64())
}

/// Opens messages with a session key each, as original clients send them, on several threads.
fn opens_on(threads: usize, key: &PrivateKey, fresh: &Sealer) -> Result<f64> {
    let opener = Opener::new(key, OpenPolicy::default())?;
    let envelopes: Result<Vec<_>> = (0..ROUND * threads).map(|_| fresh.seal(&[0x61; 1024])).collect();
    let envelopes = envelopes?;
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < WINDOW {
        opener.forget();
        std::thread::scope(|scope| {
            let threads: Vec<_> = envelopes
                .chunks(ROUND)
                .map(|some| scope.spawn(|| some.iter().try_for_each(|sealed| opener.open(&sealed.envelope).map(drop))))
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("opening does not panic"))
        })?;
        rounds += 1;
    }
    Ok((rounds * envelopes.len()) as f64 / start.elapsed().as_secs_f64())
}
