//! A broker that loses connections at random, and what must hold all the same.

#![allow(clippy::unwrap_used, reason = "a script that fails ends its test")]

mod fake_broker;

use std::collections::HashMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use fake_broker::{FakeBroker, Peer, envelope, within};

const MESSAGES: usize = 300;
const ROUNDS: u64 = 20;

/// Stores what comes and confirms it, and hangs up in the middle of anything;
/// returns the ids in the order of their first coming. `closed` tells that
/// nobody will connect again: the last `quit` may be lost like everything else.
async fn lossy_broker(broker: FakeBroker, mut first: Peer, seed: u64, closed: Arc<Notify>) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut stored = Vec::new();
    let mut times = HashMap::new();
    loop {
        for _ in 0..rng.random_range(0..60) {
            let line = first.line().await;
            if line == "quit" {
                break;
            }
            let id = line.split('"').nth(3).unwrap().to_owned();
            let seen = times.entry(id.clone()).or_insert(0);
            *seen += 1;
            if *seen == 1 {
                stored.push(id.clone());
            }
            match rng.random_range(0..20) {
                // Stored, and: not confirmed, confirmed by half a line, answered with garbage.
                0 => break,
                1 => {
                    first.send(format!("ACK {id}").as_bytes()).await;
                    break;
                }
                2 => {
                    first.send(b"\xff\n").await;
                    break;
                }
                _ => first.say(&format!("ACK {id}")).await,
            }
        }
        drop(first);
        first = tokio::select! {
            (next, _) = broker.greet("s") => next,
            () = closed.notified() => {
                assert!(times.values().any(|times| *times > 1), "nothing was ever sent twice");
                return stored;
            }
        };
    }
}

#[tokio::test]
async fn every_publish_is_stored_in_order_and_confirmed_once_over_a_lossy_connection() {
    for seed in 0..ROUNDS {
        println!("seed {seed}");
        let (broker, closed) = (FakeBroker::start().await, Arc::new(Notify::new()));
        let (client, peer) = broker.client_with(broker.options().window(16)).await;
        let stored = tokio::spawn(lossy_broker(broker, peer, seed, closed.clone()));
        let ids: Vec<_> = (0..MESSAGES).map(|number| format!("m-{number}")).collect();
        let mut confirms = Vec::new();
        for id in &ids {
            confirms.push(within(client.publish_raw("e", "k", &envelope(id), id)).await.unwrap());
        }
        for (confirm, id) in confirms.into_iter().zip(&ids) {
            assert_eq!(within(confirm).await.unwrap().message_id(), id);
        }
        within(client.close()).await.unwrap();
        closed.notify_one();
        assert_eq!(within(stored).await.unwrap(), ids);
    }
}
