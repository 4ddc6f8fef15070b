//! A directory that keeps something back, or says nothing of use. One that shows
//! another key: server/tests/rotation.rs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a script that fails ends its test")]

mod fake_broker;

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{Context, Identity, KeyKind, PrivateKey, Sealer, Suite};
use cipher_client::trust::{Announcement, PinMode, Pins, Recipient};
use cipher_client::{Error, ErrorKind};

use fake_broker::{FakeBroker, within};

const TEXT: &[u8] = b"the goods are on the dock";

/// For suite 1, and for suite 2.
fn keys() -> [PrivateKey; 2] {
    [KeyKind::Rsa, KeyKind::X25519].map(|kind| PrivateKey::generate_kind(kind).unwrap())
}

fn kind<T>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.err().expect("it is refused").kind().clone()
}

/// A directory that keeps back that there is a new key wins time only until the
/// old one ends, also against a sender that has resolved it long ago.
#[test]
fn a_key_that_has_ended_is_sealed_to_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let pins = Pins::open(dir.path().join("pins"), PinMode::Tofu).unwrap();
    let at = |secs: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    for key in keys() {
        let me = Identity::generate().unwrap();
        let public = key.public_key();
        let announced = Announcement::of("billing", Some(&public)).not_after(at(1_700_000_000)).sign(&me).unwrap();
        pins.take("billing", &[announced]).unwrap();
        // Resolved while it was good.
        let recipient = pins.recipient("billing", at(1_600_000_000)).unwrap();
        let good = Recipient::from_own_source(public.clone()).until(SystemTime::now() + Duration::from_secs(3600));
        let other = Recipient::from_own_source(PrivateKey::generate_kind(key.kind()).unwrap().public_key());
        for (recipients, is_sealed) in
            [(vec![good.clone()], true), (vec![recipient.clone()], false), (vec![other, recipient.clone()], false)]
        {
            let sealer = Sealer::builder(recipients).build().unwrap();
            let context = Context::default();
            let mut outcomes = vec![
                sealer.seal(TEXT).map(drop),
                sealer.seal_with_id("m", TEXT).map(drop),
                sealer.seal_for(&context, TEXT).map(drop),
            ];
            if sealer.suite() != Suite::One {
                outcomes.push(sealer.seal_writer(&context, None, Vec::new()).map(drop));
                outcomes.push(sealer.seal_parts(&context, None, TEXT, 10).map(drop));
            }
            for outcome in outcomes {
                match is_sealed {
                    true => outcome.unwrap(),
                    false => assert!(matches!(kind(outcome), ErrorKind::Untrusted { .. })),
                }
            }
        }
        pins.forget("billing").unwrap();
    }
}

/// A publisher made of a recipient that was resolved keeps to its end as well.
#[tokio::test]
async fn nor_by_a_publisher() {
    let broker = FakeBroker::start().await;
    let (client, _peer) = broker.client().await;
    let ended = Recipient::from_own_source(keys()[1].public_key()).until(SystemTime::now());
    let publisher = client.publisher("e", "k", ended).unwrap();
    assert!(matches!(kind(publisher.publish(TEXT).await), ErrorKind::Untrusted { .. }));
    assert!(matches!(kind(publisher.publish_batch([TEXT, TEXT]).await), ErrorKind::Untrusted { .. }));
}

/// A directory that says there is no such name, or answers with what is none.
#[tokio::test]
async fn a_directory_that_says_nothing_of_use_gives_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let pins = Pins::open(dir.path().join("pins"), PinMode::Tofu).unwrap();
    let broker = FakeBroker::start().await;
    let (client, mut peer) = broker.client().await;
    let of_another =
        Announcement::of("refunds", Some(&keys()[1].public_key())).sign(&Identity::generate().unwrap()).unwrap();
    let answers = [
        "Error: NOT_FOUND nothing was announced".to_owned(),
        key_answer(of_another.as_bytes()),
        key_answer(b"no announcement"),
        "Key: {}".to_owned(),
    ];
    for answer in answers {
        let (found, ()) = within(async {
            tokio::join!(client.resolve("billing", &pins, SystemTime::now()), async {
                peer.expect("lookup_key billing").await;
                peer.say(&answer).await;
            })
        })
        .await;
        let kind = kind(found);
        let is_refused = matches!(kind, ErrorKind::Untrusted { .. } | ErrorKind::Protocol { .. });
        assert!(is_refused, "{answer}: {kind:?}");
        assert!(pins.look("billing").unwrap().is_none(), "nothing is pinned");
    }
}

fn key_answer(announcement: &[u8]) -> String {
    let announcement = STANDARD.encode(announcement);
    format!(r#"Key: {{"client_id":"billing","seq":1,"announced":1700,"announcement":"{announcement}"}}"#)
}
