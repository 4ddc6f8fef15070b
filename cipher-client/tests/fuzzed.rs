//! What the fuzz targets of the client promise (fuzz/src), over seeded inputs and the committed ones.
//!
//! `CIPHERMQ_SEED=<n> cargo test -p cipher-client --test fuzzed` replays one run.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

#[allow(unreachable_pub, reason = "a library of its own in fuzz/")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const SEED: u64 = 17;

#[test]
fn an_envelope_opens_to_what_was_sealed_or_not_at_all() {
    run("envelopes", 4000, fuzz::envelopes);
}

#[test]
fn whatever_a_sender_seals_stays_within_the_limits() {
    run("insider", 4000, fuzz::insider);
}

#[test]
fn a_key_file_holds_a_key_that_works_or_is_refused() {
    run("keys", 1500, fuzz::keys);
}

#[test]
fn only_announced_keys_come_out_of_a_pin_file() {
    run("pins", 1500, fuzz::pins);
}

#[test]
fn what_an_identity_signed_reads_the_same_again() {
    run("announced", 1500, fuzz::announced);
}

#[test]
fn a_damaged_window_knows_nothing_it_was_not_given() {
    run("seen", 400, fuzz::seen);
}

/// On failure the captured output ends with what was tried.
fn run(target: &str, rounds: usize, promise: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fuzz/corpus/client_{target}"));
    for input in std::fs::read_dir(corpus).unwrap() {
        let input = input.unwrap().path();
        println!("{}", input.display());
        promise(&std::fs::read(input).unwrap());
    }
    let seed = std::env::var("CIPHERMQ_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    println!("CIPHERMQ_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let mut input = vec![0; random.random_range(0..160)];
        random.fill_bytes(&mut input);
        println!("round {round}: {input:?}");
        promise(&input);
    }
}
