//! Strict standard base64: padded, no foreign characters, one form for each value.

use std::sync::LazyLock;

use ::base64::Engine;
use ::base64::engine::GeneralPurposeConfig;

use crate::error::{Error, Result};

/// The standard alphabet with the fastest instructions of this processor.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static ENGINE: LazyLock<::base64::engine::Simd> =
    LazyLock::new(|| ::base64::engine::Simd::standard(GeneralPurposeConfig::new()));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static ENGINE: LazyLock<::base64::engine::GeneralPurpose> =
    LazyLock::new(|| ::base64::engine::GeneralPurpose::new(&::base64::alphabet::STANDARD, GeneralPurposeConfig::new()));

/// Length of `bytes` bytes as text.
pub(crate) const fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Appends `bytes` as text.
pub(crate) fn append(text: &mut Vec<u8>, bytes: &[u8]) {
    let start = text.len();
    text.resize(start + encoded_len(bytes.len()), 0);
    ENGINE.encode_slice(bytes, &mut text[start..]).expect("the tail was resized to the encoded length");
}

/// `bytes` as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    append(&mut text, bytes);
    String::from_utf8(text).expect("base64 is ASCII")
}

/// Decodes into a new buffer; `part` names the member in the error.
pub(crate) fn decode(part: &'static str, text: &str) -> Result<Vec<u8>> {
    let mut bytes = vec![0; text.len().div_ceil(4) * 3];
    let len = decode_into(part, text, &mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Decodes into `bytes` and says how many were used.
pub(crate) fn decode_into(part: &'static str, text: &str, bytes: &mut [u8]) -> Result<usize> {
    ENGINE
        .decode_slice(text, bytes)
        .map_err(|_| Error::malformed(part, "not padded standard base64 of a fitting length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_read() {
        let long = "QUFB".repeat(100);
        for good in ["", "QQ==", "QUE=", "QUFB", &long] {
            let bytes = decode("tag", good).unwrap();
            let mut text = Vec::new();
            append(&mut text, &bytes);
            assert_eq!(text, good.as_bytes());
        }
        let with_dash = format!("{long}-_8=");
        let with_break = format!("{long}\n");
        for bad in [
            "Q",
            "QQ",
            "QQ=",
            "QQ===",
            "QR==",
            "QUF=",
            "QUF",
            "Q UE=",
            "QUE=\n",
            "=",
            "====",
            "-_8=",
            "QQ==QUE=",
            &with_dash,
            &with_break,
        ] {
            assert!(decode("tag", bad).is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn a_short_target_is_an_error_and_no_panic() {
        assert!(decode_into("tag", "QUFBQQ==", &mut [0; 3]).is_err());
    }
}
