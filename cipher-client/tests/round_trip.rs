//! What was sealed opens to the same bytes, for every kind of text.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod support;

use std::sync::LazyLock;

use cipher_client::ErrorKind;
use cipher_client::crypto::{Envelope, OpenPolicy, Opener, PrivateKey, Sealer, SessionPolicy, open, seal};
use proptest::prelude::*;

use support::private_key;

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| private_key("rsa2048"));

fn assert_returns(text: &[u8]) {
    let envelope = seal(text, &KEY.public_key(), None).unwrap();
    let opened = open(&envelope, &KEY).unwrap();
    assert!(opened.plaintext == text, "{} bytes came back changed", text.len());
    assert_eq!(opened.message_id, Envelope::parse(&envelope).unwrap().message_id());
}

#[test]
fn every_size_of_the_contract_returns() {
    for size in [0, 1, 30, 1 << 10, 64 << 10, 1 << 20] {
        assert_returns(&vec![0xa5; size]);
    }
    assert_returns("Grüße, 世界, سلام, 🚀".as_bytes());
    assert_returns(b"\0");
    assert_returns(b"before\0after");
    assert_returns(&[0xff, 0xfe, 0x80]);
}

#[test]
fn the_largest_text_returns_and_one_byte_more_is_refused() {
    let sealer = Sealer::new(&KEY.public_key(), SessionPolicy::default()).unwrap();
    let opener = Opener::new(&KEY, OpenPolicy::default()).unwrap();
    // 64 MiB less the 502 bytes round a text of RSA-2048, in groups of 3 for 4.
    let largest = ((64 << 20) - 502) / 4 * 3;
    let sealed = sealer.seal(&vec![7; largest]).unwrap();
    assert!(opener.open(&sealed.envelope).unwrap().plaintext == vec![7; largest]);
    let error = sealer.seal(&vec![7; largest + 1]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
}

#[test]
fn the_envelope_has_the_originals_members_in_their_order() {
    let envelope = seal(b"text", &KEY.public_key(), Some("order-17")).unwrap();
    let names = ["message_id", "enc_session_key", "nonce", "tag", "ciphertext"];
    let places: Vec<_> = names.iter().map(|name| envelope.find(&format!("\"{name}\":\"")).unwrap()).collect();
    assert!(places.is_sorted());
    assert!(envelope.starts_with(r#"{"message_id":"order-17","enc_session_key":""#));
    let json: serde_json::Value = serde_json::from_str(&envelope).unwrap();
    let lens = names.map(|name| json[name].as_str().unwrap().len());
    assert_eq!(lens, [8, 344, 24, 24, 8]);
    assert_eq!(json.as_object().unwrap().len(), 5);
}

/// Figures that docs/encryption.md and the originals' limits rest on.
#[test]
fn the_fixed_part_of_an_envelope_is_502_bytes() {
    let envelope = seal(&[0; 256], &KEY.public_key(), None).unwrap();
    assert_eq!(envelope.len(), 502 + 344);
}

#[test]
fn a_key_that_was_made_here_works() {
    let key = PrivateKey::generate(2048).unwrap();
    assert_eq!((key.bits(), key.public_key().bits()), (2048, 2048));
    let again = PrivateKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
    let envelope = seal(b"text", &key.public_key(), None).unwrap();
    assert_eq!(open(&envelope, &again).unwrap().plaintext, b"text");
}

#[test]
fn sealers_and_openers_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Sealer>();
    shared::<Opener>();
    shared::<PrivateKey>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_and_id_return(text in prop::collection::vec(any::<u8>(), 0..3000), id in "[!#-\\[\\]-z|-~]{1,60}") {
        let envelope = seal(&text, &KEY.public_key(), Some(&id)).unwrap();
        let opened = open(&envelope, &KEY).unwrap();
        prop_assert_eq!((opened.message_id, opened.plaintext), (id, text));
        let json: serde_json::Value = serde_json::from_str(&envelope).unwrap();
        prop_assert_eq!(json.as_object().unwrap().len(), 5);
    }
}
