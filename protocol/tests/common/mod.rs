//! Generators for the property tests, and the seed they start from.

#![allow(dead_code, reason = "each test file uses its part")]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The same cases in every run, unless `PROPTEST_RNG_SEED` names another seed.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x0c19_4e12);
    println!("PROPTEST_RNG_SEED={seed}");
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() }
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => "[A-Za-z0-9._:/-]{1,20}",
        1 => "[A-Za-z0-9._:/-]{240,251}",
    ]
}

pub(crate) fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => "[!#-\\[\\]-z|-~]{1,40}",
        1 => "[!#-\\[\\]-z|-~]{255}",
    ]
}

pub(crate) fn token() -> impl Strategy<Value = String> {
    "[!-~]{1,64}"
}

/// A valid envelope: members in any order, some white space, perhaps more members, escapes.
pub(crate) fn envelope() -> impl Strategy<Value = String> {
    let member = |name: &'static str| {
        prop_oneof!["[A-Za-z0-9+/]{0,60}", Just("a\\/b".to_owned()), Just("grüß \\u00fc".to_owned())]
            .prop_map(move |value| format!("\"{name}\":\"{value}\""))
    };
    let id = prop_oneof![id(), Just(String::new()), Just("\\u0041-1".to_owned())];
    let members = (
        id.prop_map(|id| format!("\"message_id\": \"{id}\"")),
        member("enc_session_key"),
        member("nonce"),
        member("ciphertext"),
        proptest::option::of(member("tag")),
        proptest::option::of(Just("\"note\": {\"a\": [1, -2.5, true, null, \"{}\"]}".to_owned())),
    );
    members
        .prop_map(|(a, b, c, d, e, f)| {
            [Some(a), Some(b), Some(c), Some(d), e, f].into_iter().flatten().collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(|members| format!("{{{}}}", members.join(", ")))
}
