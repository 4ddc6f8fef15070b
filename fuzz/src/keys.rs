//! Key files of all kinds, damaged or made up.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::ErrorKind;
use cipher_client::crypto::{Identity, Passphrase, PemKind, PrivateKey, PublicKey, SenderKey, open, seal};
use serde_json::Value;

use super::edits::{Program, edit};

/// Whatever is in a key file: it is refused, or it is a key that works and is written as it was read.
pub fn keys(input: &[u8]) {
    static GOOD: LazyLock<Vec<String>> = LazyLock::new(good_keys);
    let mut program = Program::new(input);
    let mut text = GOOD[program.below(GOOD.len())].clone();
    for _ in 0..program.steps() {
        text = match (program.byte() % 8, der(&text)) {
            (0..7, Some((label, mut der))) => {
                edit(&mut der, &mut program);
                pem(&label, &der)
            }
            _ => {
                let mut bytes = text.into_bytes();
                edit(&mut bytes, &mut program);
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
    }
    check(&text);
}

fn check(text: &str) {
    let _ = PemKind::of(text);
    if let Ok(key) = PublicKey::from_pem(text) {
        let again = PublicKey::from_pem(key.to_pem().expect("what was read can be written"));
        assert_eq!(again.expect("what was written can be read"), key);
        let _ = seal(TEXT, &key, None);
    }
    let passphrase = Passphrase::new("secret").expect("a passphrase");
    for key in [PrivateKey::from_pem(text), PrivateKey::from_encrypted_pem(text, &passphrase)].into_iter().flatten() {
        let pem = key.to_pem().expect("what was read can be written");
        assert_eq!(PrivateKey::from_pem(pem.as_bytes()).expect("what was written can be read").kid(), key.kid());
        check_works(&key);
    }
    if let Ok(key) = Identity::from_pem(text) {
        let pem = key.to_pem().expect("what was read can be written");
        assert_eq!(Identity::from_pem(pem.as_bytes()).expect("what was written can be read").kid(), key.kid());
    }
    if let Ok(key) = SenderKey::from_pem(text) {
        let again = SenderKey::from_pem(key.to_pem().expect("what was read can be written"));
        assert_eq!(again.expect("what was written can be read").kid(), key.kid());
    }
}

/// A private key opens what is sealed to its public half.
fn check_works(key: &PrivateKey) {
    match seal(TEXT, &key.public_key(), None) {
        Ok(envelope) => assert_eq!(open(&envelope, key).expect("opens what was sealed to it").plaintext, TEXT),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::KeyTooSmall { .. }), "{error}"),
    }
}

const TEXT: &[u8] = b"the goods are on the dock";

fn good_keys() -> Vec<String> {
    let files = [
        include_str!("../../tests/vectors/envelope-v1/keys.json"),
        include_str!("../../tests/vectors/envelope-v2/keys.json"),
    ];
    let mut all: Vec<String> = ENCRYPTED.iter().map(|&text| text.to_owned()).collect();
    for file in files.iter().map(|file| serde_json::from_str::<Value>(file).expect("vectors are JSON")) {
        let groups = ["keys", "senders"].into_iter().filter_map(|group| file[group].as_object());
        let forms = groups.flat_map(|group| group.values());
        let texts =
            forms.flat_map(|forms| ["pkcs8", "pkcs1", "spki"].into_iter().filter_map(|form| forms[form].as_str()));
        all.extend(texts.map(str::to_owned));
    }
    all
}

/// Under the passphrase `secret`, at little cost.
const ENCRYPTED: [&str; 3] = [
    include_str!("../seeds/x25519-scrypt.pem"),
    include_str!("../../cipher-client/tests/keys/x25519-one-round.pem"),
    include_str!("../../cipher-client/tests/keys/x25519-3des.pem"),
];

fn der(text: &str) -> Option<(String, Vec<u8>)> {
    let label = text.strip_prefix("-----BEGIN ")?.split_once("-----")?.0.to_owned();
    let lines: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    Some((label, STANDARD.decode(lines).ok()?))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
