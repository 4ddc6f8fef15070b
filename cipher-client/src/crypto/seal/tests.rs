//! Sealing, with a given time and process.

use std::time::Duration;

use super::*;
use crate::crypto::envelope::Envelope;
use crate::crypto::process::Pid;
use crate::crypto::{KeyKind, PrivateKey, SESSION_BYTES_MAX, SESSION_MESSAGES_MAX, open};

const KIB: &[u8] = &[b'k'; 1024];

fn key() -> PrivateKey {
    PrivateKey::generate(2048).unwrap()
}

fn reuse(messages: u64, secs: u64, bytes: u64) -> SessionPolicy {
    SessionPolicy::Reuse { messages, lifetime: Duration::from_secs(secs), bytes }
}

/// The wrapped session keys of messages sealed at the given seconds.
fn sessions(sealer: &Sealer, start: Moment, seconds: &[u64]) -> Vec<Vec<u8>> {
    let seal = |second: &u64| {
        let moment = Moment { now: start.now + Duration::from_secs(*second), ..start };
        let sealed = sealer.seal_at(None, &Context::default(), KIB, moment).unwrap();
        Envelope::parse(&sealed.envelope).unwrap().decode().unwrap().wrapped
    };
    seconds.iter().map(seal).collect()
}

/// How many messages in a row have the same session key.
fn runs(sessions: &[Vec<u8>]) -> Vec<usize> {
    sessions.chunk_by(|a, b| a == b).map(<[_]>::len).collect()
}

/// A sealer that its key owns must not own the key, or the session key is never wiped.
#[test]
fn a_key_that_sealed_is_gone_when_it_is_dropped() {
    for kind in [KeyKind::Rsa, KeyKind::X25519, KeyKind::XWing] {
        let public = PrivateKey::generate_kind(kind).unwrap().public_key();
        seal(KIB, &public, None).unwrap();
        let (sealer, key) = (public.sealer.as_ref().map(Arc::downgrade).unwrap(), Arc::downgrade(&public.inner));
        drop(public);
        assert!(sealer.upgrade().is_none() && key.upgrade().is_none(), "{kind:?}");
    }
}

#[test]
fn a_session_key_ends_with_its_messages_its_time_and_its_bytes() {
    let key = key();
    let runs_with = |policy, seconds: &[u64]| {
        let sealer = Sealer::new(&key.public_key(), policy).unwrap();
        runs(&sessions(&sealer, Moment::current(), seconds))
    };
    assert_eq!(runs_with(reuse(3, 60, 1 << 30), &[0; 8]), [3, 3, 2]);
    assert_eq!(runs_with(reuse(100, 60, 1 << 30), &[0, 59, 60, 119, 120]), [2, 2, 1]);
    assert_eq!(runs_with(reuse(100, 60, 2500), &[0; 5]), [2, 2, 1]);
    assert_eq!(runs_with(reuse(100, 60, 10), &[0; 3]), [1, 1, 1]);
    assert_eq!(runs_with(reuse(1, 60, 1 << 30), &[0; 3]), [1, 1, 1]);
    assert_eq!(runs_with(SessionPolicy::PerMessage, &[0; 3]), [1, 1, 1]);
}

#[test]
fn the_default_is_a_thousand_messages() {
    let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
    assert_eq!(runs(&sessions(&sealer, Moment::current(), &[0; 2001])), [1000, 1000, 1]);
}

#[test]
fn limits_over_the_hard_ones_are_refused() {
    let key = key().public_key();
    let over = [reuse(0, 1, 1), reuse(SESSION_MESSAGES_MAX + 1, 1, 1), reuse(1, 1, 0)];
    for policy in over.into_iter().chain([reuse(1, 1, SESSION_BYTES_MAX + 1)]) {
        let error = Sealer::new(&key, policy).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Option { .. }), "{policy:?}");
    }
    assert!(Sealer::new(&key, reuse(SESSION_MESSAGES_MAX, u64::MAX, SESSION_BYTES_MAX)).is_ok());
}

#[test]
fn a_forked_child_starts_its_own_session() {
    let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
    let parent = Moment::current();
    let child = Moment { pid: Pid::child(), ..parent };
    let before = sessions(&sealer, parent, &[0, 0]);
    let after = sessions(&sealer, child, &[0, 0]);
    assert_eq!((runs(&before), runs(&after)), (vec![2], vec![2]));
    assert_ne!(before[0], after[0]);
}

#[test]
fn in_suite_2_as_well() {
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    let sealer = Sealer::new(&key.public_key(), SessionPolicy::default()).unwrap();
    let parent = Moment::current();
    let child = Moment { pid: Pid::child(), ..parent };
    let sequence = |moment| {
        let sealed = sealer.seal_at(None, &Context::default(), KIB, moment).unwrap();
        open(&sealed.envelope, &key).unwrap().sequence.unwrap()
    };
    let before = [sequence(parent), sequence(parent)];
    let after = [sequence(child), sequence(child)];
    assert_eq!(before[0].session, before[1].session);
    assert_eq!(after[0].session, after[1].session);
    assert_ne!(before[0].session, after[0].session);
    assert_eq!([before[1].number, after[1].number], [1, 1]);
}

#[test]
fn a_clock_that_is_set_back_stays_within_the_session() {
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    let recipients = [Recipient::from_own_source(key.public_key())];
    let sealer = Sealer::builder(recipients).session(reuse(100, 60, 1 << 30)).build().unwrap();
    let context = Context::default();
    let sent = |sent_ms| {
        let request = Request { sent_ms, ..request(None, &context, Moment::current()) };
        let sealed = sealer.second().unwrap().seal(request, KIB).unwrap();
        let sent = open(&sealed.envelope, &key).unwrap().sent_at.unwrap();
        sent.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()
    };
    assert_eq!([1_000_000, 1_000_500, 999_000, 1_060_001].map(sent), [1_000_000, 1_000_500, 1_000_000, 1_060_000]);
}

#[test]
fn rotate_starts_a_new_session() {
    let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
    let before = sessions(&sealer, Moment::current(), &[0]);
    sealer.rotate();
    assert_ne!(before, sessions(&sealer, Moment::current(), &[0]));
}

#[test]
fn no_two_messages_share_a_nonce_or_an_id() {
    let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
    let (mut nonces, mut ids) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for _ in 0..5000 {
        let sealed = sealer.seal(b"").unwrap();
        let nonce = Envelope::parse(&sealed.envelope).unwrap().decode().unwrap().nonce;
        assert!(nonces.insert(nonce.as_bytes().to_vec()), "a nonce came twice");
        assert!(ids.insert(sealed.message_id), "an id came twice");
    }
}

/// Each thread gets sessions that keep the limit, and none waits for ever.
#[test]
fn threads_share_a_session_within_its_limits() {
    let key = key();
    let sealer = Sealer::new(&key.public_key(), reuse(10, 60, 1 << 30)).unwrap();
    let seal = || (0..100).map(|_| sealer.seal(KIB).unwrap().envelope).collect::<Vec<_>>();
    let envelopes: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut uses = std::collections::HashMap::new();
    for envelope in &envelopes {
        *uses.entry(Envelope::parse(envelope).unwrap().decode().unwrap().wrapped).or_insert(0) += 1;
        assert_eq!(open(envelope, &key).unwrap().plaintext, KIB);
    }
    assert!(uses.values().all(|uses| *uses <= 10));
    assert!(uses.len() < 400, "no session was shared");
}

#[test]
fn the_one_call_form_reuses_the_session_of_its_key() {
    let key = key();
    let wrapped = |envelope: String| Envelope::parse(&envelope).unwrap().decode().unwrap().wrapped;
    let public = key.public_key();
    let first = wrapped(seal(KIB, &public, None).unwrap());
    assert_eq!(first, wrapped(seal(KIB, &public.clone(), Some("m-1")).unwrap()));
    assert_eq!(first, wrapped(seal(KIB, &key.public_key(), None).unwrap()));
}

#[test]
fn a_text_too_long_for_an_envelope_is_refused_before_any_work() {
    let sealer = Sealer::new(&key().public_key(), SessionPolicy::default()).unwrap();
    let error = sealer.seal(&vec![0; 50 << 20]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
}

#[test]
fn bad_ids_are_refused() {
    let key = key().public_key();
    for id in ["", "a b", "a\"b", "a\n"] {
        let error = seal(b"text", &key, Some(id)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MessageId { .. }));
    }
}
