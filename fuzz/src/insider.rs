//! Messages of suite 2 from somebody who can seal, and seals what no sealer would.

use std::io::Read;
use std::sync::LazyLock;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{EXPANDED_BYTES_MAX, EXPANSION_RATIO_MAX, OpenPolicy, Opener, PrivateKey};
use hkdf::Hkdf;
use serde_json::{Value, json};
use sha2::Sha512;

use super::edits::{Program, edit};

/// Whatever is sealed, compressed texts and padding included: it opens within the limits to what was sealed, or not at
/// all. Whole and in pieces alike.
pub fn insider(input: &[u8]) {
    static SENDERS: LazyLock<Vec<Sender>> = LazyLock::new(senders);
    let mut program = Program::new(input);
    let sender = &SENDERS[program.below(SENDERS.len())];
    let mut header = sender.header.clone();
    header[FLAGS_AT] = program.byte() & 0x0f;
    (0..program.steps()).for_each(|_| edit(&mut header, &mut program));
    let text = match usize::from(program.byte()).checked_sub(OWN_TEXT) {
        Some(seed) => {
            let mut text = SEEDS[seed % SEEDS.len()].to_vec();
            (0..program.steps()).for_each(|_| edit(&mut text, &mut program));
            text
        }
        None => program.rest().to_vec(),
    };
    sender.check(&header, &text);
}

/// Who can seal to one of the vectors' keys: one session key of his is known.
struct Sender {
    opener: Opener,
    members: Value,
    header: Vec<u8>,
    content_key: Vec<u8>,
}

impl Sender {
    fn check(&self, header: &[u8], text: &[u8]) {
        let mut members = self.members.clone();
        members["hdr"] = json!(STANDARD.encode(header));
        members["ciphertext"] = json!(STANDARD.encode(seal(&self.content_key, header, text)));
        let envelope = members.to_string();
        let whole = self.opener.open(&envelope).ok().map(|opened| opened.plaintext);
        if let Some(plaintext) = &whole {
            check_text(header, text, plaintext);
        }
        let pieces = self.opener.open_reader(&envelope).ok().and_then(|mut reader| {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).is_ok().then_some(text)
        });
        assert!(pieces == whole, "whole and in pieces: {envelope}");
    }
}

fn check_text(header: &[u8], sealed: &[u8], opened: &[u8]) {
    let most = (sealed.len() * EXPANSION_RATIO_MAX).clamp(EXPANDED_ANYWAY, EXPANDED_BYTES_MAX);
    assert!(opened.len() <= most, "{} bytes out of {}", opened.len(), sealed.len());
    match header[FLAGS_AT] & !PART {
        0 => assert!(opened == sealed),
        PADDED => {
            let padding = sealed.strip_prefix(opened).expect("the text with its padding");
            assert!(padding[0] == 0x80 && padding[1..].iter().all(|byte| *byte == 0));
        }
        _ => {}
    }
}

const FLAGS_AT: usize = 2;
const PADDED: u8 = 1;
const PART: u8 = 4;
/// What a short text may become.
const EXPANDED_ANYWAY: usize = 64 << 10;

/// Of what an input begins with, the bytes that mean: the text follows.
const OWN_TEXT: usize = 128;
/// Good frames of zstd's own: they have what our compression does not write.
const SEEDS: [&[u8]; 4] = [
    include_bytes!("../seeds/fast.zst"),
    include_bytes!("../seeds/best.zst"),
    include_bytes!("../seeds/checked.zst"),
    include_bytes!("../seeds/zeros.zst"),
];

fn senders() -> Vec<Sender> {
    let file = |text| serde_json::from_str::<Value>(text).expect("vectors are JSON");
    let cases = file(include_str!("../../tests/vectors/envelope-v2/large.json"));
    let keys = file(include_str!("../../tests/vectors/envelope-v2/keys.json"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let sender = |case: &Value| {
        let key = &keys["keys"][case["keys"][0].as_str().expect("a name")];
        let key = PrivateKey::from_pem(text(&key["pkcs8"])).expect("a key");
        let policy = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
        Sender {
            opener: Opener::new(&key, policy).expect("good options"),
            members: case["members"].clone(),
            header: STANDARD.decode(text(&case["members"]["hdr"])).expect("base64"),
            content_key: unhex(&text(&case["content_key_hex"])),
        }
    };
    let cases = cases["envelopes"].as_array().expect("cases");
    cases.iter().filter(|case| case["plaintext"]["size"] == 16383).map(sender).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// C2SP chunked encryption, with a salt that is always the same: every text has its own header or does no harm here.
fn seal(content_key: &[u8], header: &[u8], text: &[u8]) -> Vec<u8> {
    let salt = [7; 24];
    let mut prk = [0; 64];
    prk[..content_key.len()].copy_from_slice(content_key);
    let (mut derived, info) = ([0; 76], b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0");
    let hkdf = Hkdf::<Sha512>::from_prk(&prk).expect("as long as the hash");
    hkdf.expand_multi_info(&[info, &salt, header], &mut derived).expect("two blocks");
    let cipher = Aes256Gcm::new_from_slice(&derived[..32]).expect("a key");
    let base = derived[32..44].iter().fold(0u128, |all, byte| all << 8 | u128::from(*byte));
    let mut payload = [&salt[..], &derived[44..76]].concat();
    for count in 0..=text.len() / CHUNK {
        let mut chunk = text[count * CHUNK..text.len().min((count + 1) * CHUNK)].to_vec();
        let nonce = (base ^ count as u128).to_be_bytes();
        let nonce = Nonce::try_from(&nonce[4..]).expect("12 bytes");
        let tag = cipher.encrypt_inout_detached(&nonce, &[], (&mut chunk[..]).into()).expect("short enough");
        payload.extend(chunk);
        payload.extend(tag);
    }
    payload
}

const CHUNK: usize = 16 << 10;
