//! Strict standard base64: padded, one form for each value.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;

/// The bytes of a text, if it is base64 of 1 to `bytes_max` bytes.
pub(crate) fn decode(text: &str, bytes_max: usize) -> Option<Vec<u8>> {
    if text.len() > bytes_max.div_ceil(3) * 4 {
        return None;
    }
    let bytes = STANDARD.decode(text).ok()?;
    (1..=bytes_max).contains(&bytes.len()).then_some(bytes)
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_text() {
        for len in 1..100usize {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 37) as u8).collect();
            assert_eq!(decode(&encode(&bytes), 100), Some(bytes));
        }
        // No padding, bits behind the end, foreign characters, another alphabet, nothing.
        for bad in ["AA", "AB==", "AAB=", "AA=A", "A A=", "AAA-", "AAA_", "\u{fc}AA", "=", "===="] {
            assert_eq!(decode(bad, 100), None, "{bad}");
        }
        assert_eq!(decode("", 100), None);
        assert_eq!((decode("AAAA", 3).is_some(), decode("AAAA", 2).is_some()), (true, false));
    }
}
