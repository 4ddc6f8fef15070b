//! What a message id may be: it travels as one word of a protocol line and
//! inside JSON without escapes.

use ciphermq_protocol::MessageId;

use crate::error::{ErrorKind, Result};

/// Longest message id.
pub(super) const MESSAGE_ID_BYTES_MAX: usize = 255;

/// Length of an id made here.
const UUID_LEN: usize = 36;

/// Checks an id given by a caller: what is sealed here must pass every broker.
pub(super) fn check(id: &str) -> Result<()> {
    let reason = "is 1 to 255 bytes of printable ASCII without space, \", \\ and {";
    MessageId::parse(id).map(|_| ()).map_err(|_| ErrorKind::MessageId { reason }.into())
}

/// The first rule that the id of a received envelope breaks. Wider than [`check`]: the originals, and other transports,
/// may have chosen it.
pub(super) fn fault(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        return Some("empty");
    }
    if id.len() > MESSAGE_ID_BYTES_MAX {
        return Some("longer than 255 bytes");
    }
    // Nearly all are ASCII. Looked at without a branch for each byte, so many at a time.
    let is_plain = id.bytes().fold(true, |is_plain, byte| is_plain & !is_forbidden_ascii(byte));
    if !is_plain && id.chars().any(is_forbidden) {
        return Some("holds a space, a control character, a quote or a backslash");
    }
    None
}

/// A version 4 UUID from 16 random bytes.
pub(super) fn from_random(random: [u8; 16]) -> String {
    let mut text = [0; UUID_LEN];
    let id = uuid::Builder::from_random_bytes(random).into_uuid();
    id.hyphenated().encode_lower(&mut text).to_owned()
}

/// Of ASCII: everything but what is printed, without quote and backslash.
fn is_forbidden_ascii(byte: u8) -> bool {
    !(0x21..=0x7e).contains(&byte) | (byte == b'"') | (byte == b'\\')
}

fn is_forbidden(c: char) -> bool {
    match u8::try_from(c) {
        Ok(byte) if byte.is_ascii() => is_forbidden_ascii(byte),
        _ => c.is_control() || c.is_whitespace(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_break_a_line_or_the_json_are_refused() {
        let longest = "x".repeat(255);
        for good in ["a", "order-17:é", "6f1c", &longest, "*#/."] {
            assert_eq!(fault(good), None, "{good:?}");
        }
        let long = "x".repeat(256);
        for bad in ["", " ", "a b", "a\n", "a\u{0}", "a\"", "a\\", "\u{2028}", "\u{85}", "\u{a0}", &long] {
            assert!(fault(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn made_ids_are_version_4_uuids() {
        assert_eq!(from_random([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(from_random([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
