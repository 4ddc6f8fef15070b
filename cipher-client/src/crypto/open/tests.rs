//! Opening, with a given time and process.

use super::first::uniqueness;
use super::*;
use crate::crypto::envelope::Parts;
use crate::crypto::process::Pid;
use crate::crypto::suite;
use crate::crypto::{Sealer, SessionPolicy, base64};

const TEXT: &[u8] = b"the goods are on the dock";

fn key() -> PrivateKey {
    PrivateKey::generate(2048).unwrap()
}

fn seal(key: &PrivateKey) -> String {
    Sealer::new(&key.public_key(), SessionPolicy::PerMessage).unwrap().seal(TEXT).unwrap().envelope
}

/// An envelope whose session key does not unwrap; each `n` has another.
fn forged(n: u8) -> String {
    let mut block = Vec::new();
    base64::append(&mut block, &[n; 256]);
    let block = String::from_utf8(block).unwrap();
    crate::crypto::envelope::write("m", &block, &suite::Nonce::Long([0; 16]), &[0; 16], b"x", None)
}

fn small(failures: u32) -> OpenPolicy {
    OpenPolicy { cached_keys: 4, cached_for: Duration::from_secs(100), failures, ..OpenPolicy::default() }
}

fn opener(keys: &[&PrivateKey], policy: OpenPolicy, moment: Moment) -> Opener {
    Opener::of(keys.to_vec()).policy(policy).build_at(moment)
}

fn later(moment: Moment, secs: u64) -> Moment {
    Moment { now: moment.now + Duration::from_secs(secs), ..moment }
}

fn kind(outcome: Result<Opened>) -> ErrorKind {
    outcome.unwrap_err().kind().clone()
}

#[test]
fn a_session_key_is_unwrapped_once_until_its_time_is_over() {
    let (key, start) = (key(), Moment::current());
    let sealer = Sealer::new(&key.public_key(), SessionPolicy::default()).unwrap();
    let opener = opener(&[&key], small(64), start);
    let open = |secs| {
        let opened = opener.open_at(&sealer.seal(TEXT).unwrap().envelope, None, later(start, secs)).unwrap();
        assert_eq!(opened.plaintext, TEXT);
        opener.stats().unwraps
    };
    assert_eq!([open(0), open(1), open(99)], [1, 1, 1]);
    assert_eq!([open(100), open(150)], [2, 2]);
    opener.forget();
    assert_eq!(open(150), 3);
}

#[test]
fn the_key_unused_longest_makes_room() {
    let (key, start) = (key(), Moment::current());
    let opener = opener(&[&key], small(64), start);
    let envelopes: Vec<_> = (0..5).map(|_| seal(&key)).collect();
    let mut unwraps = |n: usize| {
        opener.open_at(&envelopes[n], None, start).unwrap();
        opener.stats().unwraps
    };
    assert_eq!([0, 1, 2, 3, 0].map(&mut unwraps), [1, 2, 3, 4, 4]);
    assert_eq!(unwraps(4), 5, "takes the place of 1");
    assert_eq!([0, 2, 3, 4].map(&mut unwraps), [5, 5, 5, 5]);
    assert_eq!(unwraps(1), 6);
}

#[test]
fn a_failed_unwrap_is_not_tried_again() {
    let (key, start) = (key(), Moment::current());
    let opener = opener(&[&key], small(64), start);
    for _ in 0..200 {
        assert_eq!(kind(opener.open_at(&forged(1), None, start)), ErrorKind::Decrypt);
    }
    assert_eq!(opener.stats(), OpenerStats { failed: 200, unwraps: 1, ..OpenerStats::default() });
}

#[test]
fn failures_use_up_the_budget_and_time_restores_it() {
    let (key, start) = (key(), Moment::current());
    let opener = opener(&[&key], small(3), start);
    let good = seal(&key);
    for n in 0..3 {
        assert_eq!(kind(opener.open_at(&forged(n), None, start)), ErrorKind::Decrypt);
    }
    assert_eq!(kind(opener.open_at(&forged(3), None, start)), ErrorKind::Throttled);
    assert_eq!(kind(opener.open_at(&good, None, start)), ErrorKind::Throttled);
    assert_eq!(opener.stats().unwraps, 3, "refused without an unwrap");
    let one_second = later(start, 1);
    assert_eq!(opener.open_at(&good, None, one_second).unwrap().plaintext, TEXT);
    assert_eq!(kind(opener.open_at(&forged(4), None, one_second)), ErrorKind::Decrypt);
    assert_eq!(kind(opener.open_at(&forged(5), None, one_second)), ErrorKind::Throttled);
    assert_eq!(opener.open_at(&good, None, one_second).unwrap().plaintext, TEXT, "known keys go on");
    for n in 6..9 {
        assert_eq!(kind(opener.open_at(&forged(n), None, later(start, 60))), ErrorKind::Decrypt);
    }
    assert_eq!(
        kind(opener.open_at(&forged(9), None, later(start, 60))),
        ErrorKind::Throttled,
        "no more than 3 are saved up"
    );
}

#[test]
fn messages_that_open_cost_no_budget() {
    let (key, start) = (key(), Moment::current());
    let opener = opener(&[&key], small(1), start);
    for _ in 0..5 {
        opener.open_at(&seal(&key), None, start).unwrap();
    }
    assert_eq!(opener.stats(), OpenerStats { opened: 5, unwraps: 5, ..OpenerStats::default() });
}

/// A message altered under a session key not seen before costs an unwrap as
/// well, so it counts as a failure.
#[test]
fn a_bad_tag_after_an_unwrap_costs_budget() {
    let (key, start) = (key(), Moment::current());
    let opener = opener(&[&key], small(1), start);
    let bad = seal(&key).replace(r#""ciphertext":""#, r#""ciphertext":"AAAA"#);
    assert_eq!(kind(opener.open_at(&bad, None, start)), ErrorKind::Decrypt);
    assert_eq!(kind(opener.open_at(&seal(&key), None, start)), ErrorKind::Throttled);
}

#[test]
fn several_keys_open_what_was_sealed_to_any_of_them() {
    let (old, new, start) = (key(), key(), Moment::current());
    let opener = opener(&[&new, &old], small(1), start);
    for _ in 0..2 {
        for key in [&old, &new] {
            assert_eq!(opener.open_at(&seal(key), None, start).unwrap().plaintext, TEXT);
        }
    }
    assert_eq!(kind(opener.open_at(&forged(0), None, start)), ErrorKind::Decrypt, "an old key is no failure");
}

#[test]
fn a_forked_child_goes_on_with_the_keys_it_knows() {
    let (key, start) = (key(), Moment::current());
    let opener = opener(&[&key], small(1), start);
    let envelope = seal(&key);
    opener.open_at(&envelope, None, start).unwrap();
    opener.open_at(&envelope, None, Moment { pid: Pid::child(), ..start }).unwrap();
    assert_eq!(opener.stats().unwraps, 1);
}

#[test]
fn uniqueness_is_nonce_and_tag() {
    let key = key();
    let one = open(&seal(&key), &key).unwrap();
    let other = open(&seal(&key), &key).unwrap();
    assert_ne!(one.uniqueness, other.uniqueness);
    let parts =
        Parts { wrapped: Vec::new(), nonce: suite::Nonce::Short([1; 12]), tag: [2; 16], ciphertext: Vec::new() };
    let expected = [&[1; 12][..], &[0; 4], &[2; 16]].concat();
    assert_eq!(uniqueness(&parts)[..], expected);
}

#[test]
fn limits_outside_their_range_are_refused() {
    let key = key();
    let policies = [
        OpenPolicy { cached_keys: 0, ..OpenPolicy::default() },
        OpenPolicy { cached_keys: CACHED_KEYS_MAX + 1, ..OpenPolicy::default() },
        OpenPolicy { failures: 0, ..OpenPolicy::default() },
    ];
    for policy in policies {
        assert!(matches!(Opener::new(&key, policy).err().unwrap().kind(), ErrorKind::Option { .. }));
    }
    for keys in [vec![], vec![&key; KEYS_MAX + 1]] {
        let error = Opener::with_keys(&keys, OpenPolicy::default()).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Option { option: "keys", .. }));
    }
}
