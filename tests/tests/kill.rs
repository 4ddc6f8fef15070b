//! The process is killed at any moment, and keeps what it said.

use std::path::Path;
use std::time::Duration;

use system_tests::torture::{self, Torture};
use system_tests::{Server, envelope};

/// Rounds, unless `CIPHERMQ_ROUNDS` says otherwise (`make torture ROUNDS=…`).
const ROUNDS: u32 = 30;

/// Rounds with one directory. What is remembered against duplicates grows with them, and every start reads it.
const ROUNDS_A_DIRECTORY: u32 = 300;

/// The longest a broker may take to be there again.
const START_MAX: Duration = Duration::from_millis(500);

/// How many times longer when it is not optimised and other tests run beside it: 160 ms on a quiet machine.
const START_PATIENCE: u32 = if cfg!(debug_assertions) { 4 } else { 1 };

#[test]
fn kill_9_at_any_moment_loses_invents_and_brings_back_nothing() {
    let rounds = torture::number("CIPHERMQ_ROUNDS", ROUNDS);
    let (seed, mut left) = (torture::seed(), rounds);
    for directory in 0.. {
        if left == 0 {
            return;
        }
        let rounds = left.min(ROUNDS_A_DIRECTORY);
        left -= rounds;
        println!("CIPHERMQ_SEED={} is the seed of the next {rounds} rounds", seed + directory);
        torture(seed + directory, rounds);
    }
}

fn torture(seed: u64, rounds: u32) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let outcome = Torture { seed, rounds, directory: data.clone(), flags: flags() }.run();
    let longest = outcome.starts.iter().max().copied().unwrap_or_default();
    let sum: Duration = outcome.starts.iter().sum();
    let average = sum / outcome.starts.len() as u32;
    println!("{} starts, {average:?} on average, {longest:?} at most", outcome.starts.len());
    assert!(outcome.counts.published > 0 && outcome.counts.gone == outcome.counts.published);
    assert!(longest <= START_MAX * START_PATIENCE, "a start took {longest:?}");
    let verified = Server::run(&["verify", path(&data)]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

// K-07
#[test]
fn a_message_acknowledged_before_kill_9_is_delivered_after_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::on_disk(directory.path(), &[]);
    // As the 0.2.0 clients talk.
    let mut sender = server.connect();
    sender.ask(&format!("publish default_exchange default_key {}", envelope("7d1f")), "ACK 7d1f");
    server.kill();

    let server = Server::on_disk(directory.path(), &[]);
    let mut receiver = server.connect();
    receiver.ask("consume default_queue", "Subscribed to queue");
    receiver.expect(&format!("Message: 7d1f {}", envelope("7d1f")));
    receiver.ask("ack 7d1f", "ACK_CONFIRMED 7d1f");
    server.kill();

    let server = Server::on_disk(directory.path(), &[]);
    server.connect().ask("fetch default_queue", "No messages");
}

/// What `CIPHERMQ_TORTURE_FLAGS` adds for the broker.
fn flags() -> Vec<String> {
    let flags = std::env::var("CIPHERMQ_TORTURE_FLAGS").unwrap_or_default();
    flags.split_whitespace().map(str::to_owned).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}
