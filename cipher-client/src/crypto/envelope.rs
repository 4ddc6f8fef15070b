//! The JSON form of a sealed message: five members of text, and more in suite 2.
//!
//! ```text
//! {"message_id":"…","enc_session_key":"…","nonce":"…","tag":"…","ciphertext":"…"}
//!               id         RSA block        16 bytes  16 bytes     as long as the plaintext
//! ```

mod json;

use std::borrow::Cow;

use json::Member;

use super::base64;
use super::signed::X;
use super::suite::{Nonce, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};

/// Longest envelope that is made or read.
pub const ENVELOPE_BYTES_MAX: usize = 64 << 20;

/// RSA block of the largest key.
const WRAPPED_BYTES_MAX: usize = super::keys::RSA_BITS_MAX / 8;
/// What CipherMQ 1.3 and later wrap a session key into: a sealed box of X25519.
const SEALED_BOX_BYTES: usize = 80;

/// Longest nonce that is told apart from nonsense: GCM takes any length, we two.
const NONCE_BYTES_READ: usize = 48;

/// A parsed envelope: nothing in it is authenticated yet, and it has no way to
/// the plaintext but [`super::Opener::open`].
#[derive(Debug)]
pub struct Envelope<'a> {
    message_id: Cow<'a, str>,
    enc_session_key: Cow<'a, str>,
    nonce: Cow<'a, str>,
    tag: Cow<'a, str>,
    ciphertext: Cow<'a, str>,
    x: Option<X<'a>>,
    second: Option<Second<'a>>,
}

/// What an envelope of suite 2 has beside the five members.
#[derive(Debug)]
pub(super) struct Second<'a> {
    pub(super) suite: Cow<'a, str>,
    pub(super) header: Cow<'a, str>,
    pub(super) signature: Option<Cow<'a, str>>,
    /// Those of the second recipient and further ones.
    pub(super) more_wraps: Vec<Cow<'a, str>>,
}

impl<'a> Envelope<'a> {
    /// Reads the JSON. Members other than the five are ignored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`], [`ErrorKind::Malformed`] with the member at
    /// fault, [`ErrorKind::Unsupported`] for the later dialects of the same names.
    pub fn parse(json: &'a str) -> Result<Self> {
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(too_large(json.len()));
        }
        json::read(json)
    }

    /// The id the message claims to have: nothing is authenticated yet.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// The member `x` of suite 1, if there is one.
    pub(super) fn x(&self) -> Option<&X<'a>> {
        self.x.as_ref()
    }

    /// The members of suite 2, if it is one of that.
    pub(super) fn second(&self) -> Option<&Second<'a>> {
        self.second.as_ref()
    }

    /// In suite 2 nonce and tag are part of the ciphertext.
    pub(super) fn check_no_nonce_and_tag(&self) -> Result<()> {
        for (member, text) in [(Member::Nonce, &self.nonce), (Member::Tag, &self.tag)] {
            if !text.is_empty() {
                return Err(Error::malformed(member.name(), "not empty in suite 2"));
            }
        }
        Ok(())
    }

    /// The text of the wrap for recipient `place` of the header.
    pub(super) fn wrap_text(&self, place: usize) -> Option<&str> {
        match place.checked_sub(1) {
            None => Some(&self.enc_session_key),
            Some(place) => self.second.as_ref()?.more_wraps.get(place).map(Cow::as_ref),
        }
    }

    /// The text of the payload, not copied unless it was written with escapes.
    pub(super) fn ciphertext_text(&self) -> Cow<'a, str> {
        self.ciphertext.clone()
    }

    /// The decoded members.
    pub(super) fn decode(&self) -> Result<Parts> {
        Ok(Parts { wrapped: self.wrapped()?, nonce: self.nonce()?, tag: self.tag()?, ciphertext: self.ciphertext()? })
    }

    /// The decoded text, once more: an attempt to decrypt uses it up.
    pub(super) fn ciphertext(&self) -> Result<Vec<u8>> {
        base64::decode(Member::Ciphertext.name(), &self.ciphertext)
    }

    fn wrapped(&self) -> Result<Vec<u8>> {
        let part = Member::EncSessionKey.name();
        if self.enc_session_key.len() > base64::encoded_len(WRAPPED_BYTES_MAX) {
            return Err(Error::malformed(part, "longer than the block of the largest RSA key"));
        }
        let wrapped = base64::decode(part, &self.enc_session_key)?;
        if wrapped.len() == SEALED_BOX_BYTES {
            return Err(unsupported("enc_session_key is a sealed box of CipherMQ 1.3 or later"));
        }
        Ok(wrapped)
    }

    fn nonce(&self) -> Result<Nonce> {
        let mut bytes = [0; NONCE_BYTES_READ];
        let len = base64::decode_into(Member::Nonce.name(), &self.nonce, &mut bytes)?;
        Nonce::new(&bytes[..len]).ok_or(unsupported("a nonce of neither 12 nor 16 bytes"))
    }

    fn tag(&self) -> Result<[u8; TAG_LEN]> {
        let part = Member::Tag.name();
        let mut bytes = [0; 18];
        let len = base64::decode_into(part, &self.tag, &mut bytes)?;
        bytes[..len].try_into().map_err(|_| Error::malformed(part, "not 16 bytes"))
    }
}

/// The decoded members of an envelope.
pub(super) struct Parts {
    pub(super) wrapped: Vec<u8>,
    pub(super) nonce: Nonce,
    pub(super) tag: [u8; TAG_LEN],
    pub(super) ciphertext: Vec<u8>,
}

/// Length of the envelope that [`write`] makes.
pub(super) fn written_len(id_len: usize, wrapped_text_len: usize, ciphertext_len: usize) -> usize {
    FIXED_LEN + id_len + wrapped_text_len + base64::encoded_len(ciphertext_len)
}

/// Refuses a text whose envelope would be too long.
pub(super) fn check_len(bytes: usize) -> Result<()> {
    if bytes > ENVELOPE_BYTES_MAX {
        return Err(too_large(bytes));
    }
    Ok(())
}

/// Writes the JSON. `message_id` has been checked to need no escape, and
/// base64 needs none; `x` is JSON.
pub(super) fn write(
    message_id: &str,
    wrapped_text: &str,
    nonce: &Nonce,
    tag: &[u8; TAG_LEN],
    ciphertext: &[u8],
    x: Option<&str>,
) -> String {
    let len = written_len(message_id.len(), wrapped_text.len(), ciphertext.len());
    let x_len = x.map_or(0, |x| OPEN_X.len() + x.len());
    let mut json = Vec::with_capacity(len + x_len);
    json.extend_from_slice(OPEN_MESSAGE_ID);
    json.extend_from_slice(message_id.as_bytes());
    json.extend_from_slice(OPEN_ENC_SESSION_KEY);
    json.extend_from_slice(wrapped_text.as_bytes());
    json.extend_from_slice(OPEN_NONCE);
    base64::append(&mut json, nonce.as_bytes());
    json.extend_from_slice(OPEN_TAG);
    base64::append(&mut json, tag);
    json.extend_from_slice(OPEN_CIPHERTEXT);
    base64::append(&mut json, ciphertext);
    json.extend_from_slice(CLOSE);
    if let Some(x) = x {
        json.pop();
        json.extend_from_slice(OPEN_X);
        json.extend_from_slice(x.as_bytes());
        json.push(b'}');
    }
    String::from_utf8(json).expect("made of strings and base64")
}

/// What stands between the values, in the order of the originals.
const OPEN_MESSAGE_ID: &[u8] = br#"{"message_id":""#;
const OPEN_ENC_SESSION_KEY: &[u8] = br#"","enc_session_key":""#;
const OPEN_NONCE: &[u8] = br#"","nonce":""#;
const OPEN_TAG: &[u8] = br#"","tag":""#;
const OPEN_CIPHERTEXT: &[u8] = br#"","ciphertext":""#;
const CLOSE: &[u8] = br#""}"#;
const OPEN_X: &[u8] = br#","x":"#;

const FIXED_LEN: usize = OPEN_MESSAGE_ID.len()
    + OPEN_ENC_SESSION_KEY.len()
    + OPEN_NONCE.len()
    + base64::encoded_len(super::suite::NONCE_LEN)
    + OPEN_TAG.len()
    + base64::encoded_len(TAG_LEN)
    + OPEN_CIPHERTEXT.len()
    + CLOSE.len();

fn too_large(bytes: usize) -> Error {
    Error::new(ErrorKind::TooLarge { what: "envelope", bytes, max: ENVELOPE_BYTES_MAX })
}

fn not_an_envelope() -> ErrorKind {
    ErrorKind::Malformed { part: "envelope", fault: "not a JSON object" }
}

fn unsupported(what: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported { what })
}

#[cfg(test)]
mod tests;
