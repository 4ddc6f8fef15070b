//! The JSON of a suite 2 envelope, written piece by piece.
//!
//! ```text
//! {"message_id":"…","enc_session_key":"…","nonce":"","tag":"","v":2,"suite":"2x","hdr":"…",
//!  ["wraps":["…",…],]["sig":"…",]"ciphertext":"…"[,"sig":"…"]}
//! ```
//!
//! What a receiver needs to begin stands before the ciphertext, so both sides
//! can work through it without having all of it twice.

use sha2::{Digest, Sha512};

use super::payload::{CHUNK_LEN, Chunks, Commitment, PREFIX_LEN, Salt, TAG_LEN};
use super::sign::SIGNATURE_LEN;
use crate::crypto::base64;
use crate::crypto::opened::Suite;
use crate::error::Result;

/// What is alike in all messages of a session.
pub(super) struct Frame {
    before_header: String,
    after_header: String,
}

impl Frame {
    /// `signature` is that of the session.
    pub(super) fn new(suite: Suite, wraps: &[Vec<u8>], signature: Option<&[u8; SIGNATURE_LEN]>) -> Self {
        let (first, rest) = wraps.split_first().expect("a message has a recipient");
        let first = text_of(first);
        let before_header =
            format!(r#"","enc_session_key":"{first}","nonce":"","tag":"","v":2,"suite":"{suite}","hdr":""#);
        let mut after_header = String::from("\"");
        if !rest.is_empty() {
            let texts: Vec<_> = rest.iter().map(|wrap| format!("\"{}\"", text_of(wrap))).collect();
            after_header += &format!(r#","wraps":[{}]"#, texts.join(","));
        }
        if let Some(signature) = signature {
            after_header += &format!(r#","sig":"{}""#, text_of(signature));
        }
        after_header += r#","ciphertext":""#;
        Self { before_header, after_header }
    }

    /// Length of an envelope with a payload of `payload_len`.
    pub(super) fn written_len(&self, id_len: usize, header_len: usize, payload_len: usize) -> usize {
        let frame = OPEN.len() + self.before_header.len() + self.after_header.len() + CLOSE_SIGNED_LEN;
        frame + id_len + base64::encoded_len(header_len) + base64::encoded_len(payload_len)
    }

    /// Writes what stands before the payload.
    pub(super) fn open(&self, json: &mut Vec<u8>, message_id: &str, header: &[u8]) {
        json.extend_from_slice(OPEN);
        json.extend_from_slice(message_id.as_bytes());
        json.extend_from_slice(self.before_header.as_bytes());
        base64::append(json, header);
        json.extend_from_slice(self.after_header.as_bytes());
    }
}

const OPEN: &[u8] = br#"{"message_id":""#;
const OPEN_SIGNATURE: &[u8] = br#"","sig":""#;
const CLOSE: &[u8] = br#""}"#;
const CLOSE_SIGNED_LEN: usize = OPEN_SIGNATURE.len() + base64::encoded_len(SIGNATURE_LEN) + CLOSE.len();

/// Writes what stands behind the payload; `signature` is that of the message.
pub(super) fn close(json: &mut Vec<u8>, signature: Option<&[u8; SIGNATURE_LEN]>) {
    if let Some(signature) = signature {
        json.extend_from_slice(OPEN_SIGNATURE);
        base64::append(json, signature);
    }
    json.extend_from_slice(CLOSE);
}

/// A payload on its way into base64, a chunk at a time.
pub(super) struct PayloadText {
    /// Fewer than three bytes between two chunks.
    block: Vec<u8>,
    digest: Option<Sha512>,
}

impl PayloadText {
    /// `text_len` is how much comes at most; `is_digested` if a digest is asked for in the end.
    pub(super) fn new(salt: &Salt, commitment: &Commitment, text_len: usize, is_digested: bool) -> Self {
        let mut block = Vec::with_capacity(PREFIX_LEN + text_len.min(CHUNK_LEN) + TAG_LEN + 2);
        block.extend_from_slice(salt);
        block.extend_from_slice(commitment);
        let digest = is_digested.then(|| Sha512::new_with_prefix(&block));
        Self { block, digest }
    }

    /// Encrypts the next chunk and appends what of it fills groups of three.
    pub(super) fn push(&mut self, json: &mut Vec<u8>, chunks: &mut Chunks, text: &[u8]) -> Result<()> {
        let start = self.block.len();
        self.block.extend_from_slice(text);
        let tag = chunks.encrypt(&mut self.block[start..])?;
        self.block.extend_from_slice(&tag);
        if let Some(digest) = &mut self.digest {
            digest.update(&self.block[start..]);
        }
        let whole = self.block.len() / 3 * 3;
        base64::append(json, &self.block[..whole]);
        self.block.copy_within(whole.., 0);
        self.block.truncate(self.block.len() - whole);
        Ok(())
    }

    /// Appends the rest; gives the digest of the payload, if it was asked for.
    pub(super) fn finish(self, json: &mut Vec<u8>) -> Option<[u8; 64]> {
        base64::append(json, &self.block);
        self.digest.map(|digest| digest.finalize().into())
    }
}

fn text_of(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    base64::append(&mut text, bytes);
    String::from_utf8(text).expect("base64 is ASCII")
}
