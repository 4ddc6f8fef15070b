//! How many signed messages of suite 1 a second are sealed and opened on one thread.
//!
//! ```text
//! cargo run --release -p cipher-client --example signed_speed
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cipher_client::Result;
use cipher_client::crypto::{Context, Identity, Keyset, Opener, PrivateKey, Sealer, Signing};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};

const SIZES: [(&str, usize); 3] = [("256 B", 256), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10)];
const WINDOW: Duration = Duration::from_millis(700);
/// As many as share a session key by default.
const ROUND: usize = 1000;

fn main() -> Result<()> {
    println!("RSA-2048, AES-128-GCM, one thread, messages a second, session keys for 1,000 messages");
    println!("{:>8}{:>12}{:>14}{:>14}{:>14}", "", "signed", "seal", "open kept", "open reused");
    for (name, size) in SIZES {
        let text = vec![0x61; size];
        for (signed, signing) in
            [("not", None), ("session", Some(Signing::Session)), ("message", Some(Signing::EveryMessage))]
        {
            let (seals, kept, reused) = measure(signing, &text)?;
            println!("{name:>8}{signed:>12}{seals:>14.0}{kept:>14.0}{reused:>14.0}");
        }
    }
    Ok(())
}

fn measure(signing: Option<Signing>, text: &[u8]) -> Result<(f64, f64, f64)> {
    let (key, me, senders) = (PrivateKey::generate(2048)?, Arc::new(Identity::generate()?), Senders::in_memory());
    senders.add("me", me.sender_key().clone())?;
    let builder = Sealer::builder([Recipient::from_own_source(key.public_key())]);
    let sealer = match signing {
        Some(signing) => builder.identity(me).signing(signing).build()?,
        None => builder.build()?,
    };
    let policy = match signing {
        Some(_) => SenderPolicy::require_signed(Arc::new(senders)),
        None => SenderPolicy::default(),
    };
    let opener = Opener::builder(&Keyset::new(key)).senders(policy).build()?;
    let context = Context::new("default_exchange", "default_key");
    sealer.rotate();
    let round: Result<Vec<_>> = (0..ROUND).map(|_| sealer.seal_for(&context, text)).collect();
    let round = round?;
    let seals = rate(|| sealer.seal_for(&context, black_box(text)).map(drop))?;
    let mut next = round.iter().cycle();
    let mut open = || opener.open(next.next().map_or("", |sealed| sealed.envelope.as_str())).map(drop);
    let kept = rate(&mut open)?;
    let mut count = 0;
    let reused = rate(|| {
        count += 1;
        if count % ROUND == 0 {
            opener.forget();
        }
        open()
    })?;
    Ok((seals, kept, reused))
}

/// Looks at the clock every 16th time.
fn rate(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < WINDOW {
        for _ in 0..16 {
            work()?;
        }
        count += 16;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
