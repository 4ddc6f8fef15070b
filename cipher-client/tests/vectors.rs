//! Vectors made by another implementation (tests/vectors/envelope-v1, pycryptodome).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

mod support;

use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes128;
use aes_gcm::{AesGcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::ErrorKind;
use cipher_client::crypto::{OpenPolicy, Opener, PrivateKey, PublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use support::{cases, field, private_key, vectors};

#[test]
fn every_valid_envelope_opens_to_its_plaintext() {
    let cases = cases("valid.json");
    for case in &cases {
        let id = field(case, "id");
        let mut key = private_key(field(case, "key"));
        if case["result"] == "acceptable" {
            key = key.allow_legacy_rsa();
        }
        let opened = cipher_client::crypto::open(field(case, "envelope"), &key);
        let opened = opened.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(STANDARD.encode(opened.plaintext), case["plaintext"]["b64"], "{id}");
    }
    assert!(cases.len() >= 40);
}

#[test]
fn every_invalid_envelope_fails_as_its_vector_says() {
    let cases = cases("invalid.json");
    // No failure here may be put down to the failures before it.
    let policy = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
    let key = private_key("rsa2048");
    let opener = Opener::new(&key, policy).unwrap();
    for case in &cases {
        let (id, envelope) = (field(case, "id"), field(case, "envelope"));
        let outcome = match field(case, "key") {
            "rsa2048" => opener.open(envelope),
            other => cipher_client::crypto::open(envelope, &private_key(other)),
        };
        let error = outcome.err().unwrap_or_else(|| panic!("{id}: was opened"));
        let found = match error.kind() {
            ErrorKind::Decrypt => "decrypt".to_owned(),
            ErrorKind::Unsupported { .. } => "unsupported".to_owned(),
            ErrorKind::Malformed { part, .. } => format!("malformed:{part}"),
            ErrorKind::KeyTooSmall { .. } => "key_too_small".to_owned(),
            other => panic!("{id}: {other}"),
        };
        assert_eq!(found, field(case, "expect"), "{id}");
    }
    assert!(cases.len() >= 140);
}

/// Their ciphertext is made here from what the vector tells, must be the one
/// that the other implementation made, and then opens.
#[test]
fn large_envelopes_open_to_their_plaintext() {
    for case in cases("large.json") {
        let id = field(&case, "id");
        let plaintext = expand(&case["plaintext"]);
        let (ciphertext, tag) = encrypt(&case, &plaintext);
        assert_eq!(hex(&Sha256::digest(&ciphertext)), case["ciphertext_sha256"], "{id}");
        let mut members = case["members"].clone();
        assert_eq!(STANDARD.encode(tag), members["tag"], "{id}");
        members["ciphertext"] = json!(STANDARD.encode(ciphertext));
        let key = private_key(field(&case, "key"));
        let opened = cipher_client::crypto::open(&members.to_string(), &key).unwrap();
        assert!(opened.plaintext == plaintext, "{id}");
    }
}

#[test]
fn keys_are_read_from_every_form_and_have_the_same_name() {
    let keys = &vectors("keys.json")["keys"];
    for (name, forms) in keys.as_object().unwrap() {
        let public = PublicKey::from_pem(field(forms, "spki")).unwrap();
        assert_eq!(public.fingerprint(), field(forms, "fingerprint"), "{name}");
        assert_eq!(public.to_pem().unwrap().trim_end(), field(forms, "spki"), "{name}");
        for form in ["pkcs1", "pkcs8"] {
            let key = PrivateKey::from_pem(field(forms, form)).unwrap();
            assert_eq!(key.fingerprint(), field(forms, "fingerprint"), "{name} {form}");
            assert_eq!(key.public_key(), public, "{name} {form}");
        }
    }
}

/// By the rule "byte i is i mod 251".
fn expand(plaintext: &Value) -> Vec<u8> {
    let size = plaintext["size"].as_u64().unwrap();
    let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
    assert_eq!(hex(&Sha256::digest(&bytes)), plaintext["sha256"]);
    bytes
}

fn encrypt(case: &Value, plaintext: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = unhex(field(case, "session_key_hex"));
    let nonce = STANDARD.decode(field(&case["members"], "nonce")).unwrap();
    let cipher = AesGcm::<Aes128, U16>::new_from_slice(&key).unwrap();
    let mut text = plaintext.to_vec();
    let nonce = Nonce::<U16>::try_from(&nonce[..]).unwrap();
    let tag = cipher.encrypt_inout_detached(&nonce, &[], (&mut text[..]).into()).unwrap();
    (text, tag.to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
