//! Vectors of signed messages of suite 1 (tests/vectors/envelope-v1/signed.json),
//! and of keys and large messages of suite 2; made with Python's `cryptography`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{Context, KeyKind, Keyset, Opened, Opener, PrivateKey, PublicKey, Sender, SenderKey};
use cipher_client::trust::{SenderPolicy, Senders};
use cipher_client::{Error, ErrorKind};
use hkdf::Hkdf;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

#[test]
fn every_signed_message_of_suite_1_opens_or_fails_as_its_vector_says() {
    let folder = Folder::new("envelope-v1");
    let cases = folder.cases("signed.json");
    for case in &cases {
        if case["result"] == "invalid" { folder.fails(case) } else { folder.opens(case) }
    }
    assert!(cases.len() >= 70, "{}", cases.len());
}

/// Their payload is made here from what the vector tells, must be the one that
/// the other implementation made, and then opens.
#[test]
fn large_messages_open_to_their_text() {
    let folder = Folder::new("envelope-v2");
    for case in folder.cases("large.json") {
        let text = expand(&case["plaintext"]);
        let hdr = STANDARD.decode(field(&case["members"], "hdr")).unwrap();
        let payload =
            seal_payload(&unhex(field(&case, "content_key_hex")), &unhex(field(&case, "salt_hex")), &hdr, &text);
        assert_eq!(hex(&Sha256::digest(&payload)), field(&case, "ciphertext_sha256"), "{}", case["id"]);
        let mut members = case["members"].clone();
        members["ciphertext"] = json!(STANDARD.encode(payload));
        let opened = folder.opener(&case).open(&members.to_string()).unwrap();
        assert!(opened.plaintext == text, "{}", case["id"]);
    }
}

#[test]
fn keys_of_all_kinds_are_read_and_have_the_same_name() {
    let folder = Folder::new("envelope-v2");
    let mut kinds = 0;
    for (name, forms) in folder.keys["keys"].as_object().unwrap() {
        let (public, private) = (PublicKey::from_pem(field(forms, "spki")).unwrap(), folder.private(name));
        let kind = match field(forms, "kind") {
            "rsa" => KeyKind::Rsa,
            "x25519" => KeyKind::X25519,
            _ => KeyKind::XWing,
        };
        assert_eq!((public.kind(), public.fingerprint()), (kind, field(forms, "fingerprint")), "{name}");
        assert_eq!(private.public_key(), public, "{name}");
        assert_eq!(public.to_pem().unwrap().trim_end(), field(forms, "spki").trim_end(), "{name}");
        assert_eq!(private.to_pem().unwrap().trim_end(), field(forms, "pkcs8").trim_end(), "{name}");
        kinds += 1;
    }
    for forms in folder.keys["senders"].as_object().unwrap().values() {
        let sender = SenderKey::from_pem(field(forms, "spki")).unwrap();
        assert_eq!(sender.kid().to_string(), field(forms, "fingerprint"));
    }
    assert!(kinds >= 9);
}

/// The vectors of one folder.
struct Folder {
    name: &'static str,
    keys: Value,
}

impl Folder {
    fn new(name: &'static str) -> Self {
        let mut folder = Self { name, keys: Value::Null };
        folder.keys = folder.file("keys.json");
        folder
    }

    fn file(&self, name: &str) -> Value {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
        serde_json::from_str(&std::fs::read_to_string(vectors.join(self.name).join(name)).unwrap()).unwrap()
    }

    fn cases(&self, name: &str) -> Vec<Value> {
        let mut content = self.file(name);
        let senders = match content["senders"].take() {
            Value::Null => self.keys["senders"].clone(),
            own => own,
        };
        let cases = content["envelopes"].take();
        let with_keys = |mut case: Value| {
            case["sender_keys"] = senders.clone();
            case
        };
        match cases {
            Value::Array(cases) => cases.into_iter().map(with_keys).collect(),
            other => panic!("{other}"),
        }
    }

    fn private(&self, name: &str) -> PrivateKey {
        PrivateKey::from_pem(field(&self.keys["keys"][name], "pkcs8")).unwrap()
    }

    /// One of its own for each message: no failure is put down to those before.
    fn opener(&self, case: &Value) -> Opener {
        let mut keys = case["keys"].as_array().unwrap().iter().map(|name| self.private(name.as_str().unwrap()));
        let mut keyset = Keyset::new(keys.next().unwrap());
        for key in keys {
            keyset = keyset.with_retired(key).unwrap();
        }
        Opener::builder(&keyset).senders(policy(case)).build().unwrap()
    }

    fn open(&self, case: &Value) -> Result<Opened, Error> {
        let (opener, envelope) = (self.opener(case), field(case, "envelope"));
        match case["delivered"].as_array() {
            Some(to) => opener.open_for(envelope, &Context::new(to[0].as_str().unwrap(), to[1].as_str().unwrap())),
            None => opener.open(envelope),
        }
    }

    fn opens(&self, case: &Value) {
        let id = field(case, "id");
        let opened = self.open(case).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(STANDARD.encode(&opened.plaintext), case["plaintext"]["b64"], "{id}");
        for (name, value) in case["opened"].as_object().into_iter().flatten() {
            assert_eq!(&found(&opened, name), value, "{id}: {name}");
        }
    }

    fn fails(&self, case: &Value) {
        let id = field(case, "id");
        let error = self.open(case).err().unwrap_or_else(|| panic!("{id}: was opened"));
        assert_eq!(kind_of(&error), field(case, "expect"), "{id}: {error}");
    }
}

fn policy(case: &Value) -> SenderPolicy {
    let Some(known) = case["senders"]["known"].as_array() else { return SenderPolicy::default() };
    let senders = Senders::in_memory();
    for name in known.iter().map(|name| name.as_str().unwrap()) {
        senders.add(name, SenderKey::from_pem(field(&case["sender_keys"][name], "spki")).unwrap()).unwrap();
    }
    match case["senders"]["require"] == true {
        true => SenderPolicy::require_signed(Arc::new(senders)),
        false => SenderPolicy::allow_unsigned(Arc::new(senders)),
    }
}

/// What an opening told, as the vectors write it.
fn found(opened: &Opened, name: &str) -> Value {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    match name {
        "suite" => json!(opened.suite.name()),
        "sender" => match opened.sender {
            Sender::Signed(kid) => json!(kid.to_string()),
            Sender::Unknown(kid) => json!(["unknown", kid.to_string()]),
            Sender::Unsigned => Value::Null,
        },
        "context" => opened.context.as_ref().map_or(Value::Null, |bound| {
            json!([bound.exchange, bound.routing_key, bound.content_type.as_deref().unwrap_or_default()])
        }),
        "sent_ms" => json!(opened.sent_at.map(since).as_ref().map(Duration::as_millis)),
        "session" => json!(opened.sequence.map(|sequence| hex(&sequence.session))),
        "number" => json!(opened.sequence.map(|sequence| sequence.number)),
        "part" => json!(opened.part.map(|part| part.index)),
        other => panic!("{other}"),
    }
}

fn kind_of(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Decrypt => "decrypt".to_owned(),
        ErrorKind::Unsupported { .. } => "unsupported".to_owned(),
        ErrorKind::Malformed { part, .. } => format!("malformed:{part}"),
        ErrorKind::TooLarge { .. } => "too_large".to_owned(),
        ErrorKind::Untrusted { .. } => "untrusted".to_owned(),
        ErrorKind::Misdirected { .. } => "misdirected".to_owned(),
        other => panic!("{other}"),
    }
}

/// C2SP chunked encryption once more, to compare with.
fn seal_payload(content_key: &[u8], salt: &[u8], hdr: &[u8], text: &[u8]) -> Vec<u8> {
    let mut prk = [0; 64];
    prk[..content_key.len()].copy_from_slice(content_key);
    let (mut derived, info) = ([0; 76], b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0");
    Hkdf::<Sha512>::from_prk(&prk).unwrap().expand_multi_info(&[info, salt, hdr], &mut derived).unwrap();
    let cipher = Aes256Gcm::new_from_slice(&derived[..32]).unwrap();
    let base = u128::from_be_bytes([&[0; 4], &derived[32..44]].concat().try_into().unwrap());
    let mut payload = [salt, &derived[44..76]].concat();
    for count in 0..=text.len() / 16384 {
        let mut chunk = text[count * 16384..text.len().min((count + 1) * 16384)].to_vec();
        let nonce = (base ^ count as u128).to_be_bytes();
        let nonce = Nonce::try_from(&nonce[4..]).unwrap();
        let tag = cipher.encrypt_inout_detached(&nonce, &[], (&mut chunk[..]).into()).unwrap();
        payload.extend(chunk);
        payload.extend(tag);
    }
    payload
}

/// By the rule "byte i is i mod 251".
fn expand(plaintext: &Value) -> Vec<u8> {
    let size = plaintext["size"].as_u64().unwrap();
    let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
    assert_eq!(hex(&Sha256::digest(&bytes)), plaintext["sha256"]);
    bytes
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is missing in {}", value["id"]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
