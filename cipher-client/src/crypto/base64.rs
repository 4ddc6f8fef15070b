//! Strict standard base64: padded, no foreign characters, one form for each value.

use ::base64::alphabet::STANDARD;
use ::base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use ::base64::{DecodeSliceError, Engine};

use crate::error::{Error, Result};

/// Length of `bytes` bytes as text.
pub(crate) const fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Appends `bytes` as text.
pub(crate) fn append(text: &mut Vec<u8>, bytes: &[u8]) {
    let start = text.len();
    text.resize(start + encoded_len(bytes.len()), 0);
    encode(bytes, &mut text[start..]);
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
    decode_slice(text, bytes).map_err(|_| Error::malformed(part, "not padded standard base64 of a fitting length"))
}

/// Works everywhere, and always.
static PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new());

/// With the fastest instructions of this processor.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn fast() -> Option<&'static ::base64::engine::Simd> {
    use super::process::Once;
    use ::base64::engine::Simd;
    static FAST: Once<Simd> = Once::new();
    FAST.get_or_make(|| Simd::standard(GeneralPurposeConfig::new()))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fast() -> Option<&'static GeneralPurpose> {
    None
}

fn encode(bytes: &[u8], text: &mut [u8]) {
    let written = match fast() {
        Some(engine) => engine.encode_slice(bytes, text),
        None => PLAIN.encode_slice(bytes, text),
    };
    written.expect("the tail was resized to the encoded length");
}

fn decode_slice(text: &str, bytes: &mut [u8]) -> std::result::Result<usize, DecodeSliceError> {
    match fast() {
        Some(engine) => engine.decode_slice(text, bytes),
        None => PLAIN.decode_slice(text, bytes),
    }
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
            assert_eq!(PLAIN.decode(good).unwrap(), bytes);
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
            assert!(decode("tag", bad).is_err() && PLAIN.decode(bad).is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn a_short_target_is_an_error_and_no_panic() {
        assert!(decode_into("tag", "QUFBQQ==", &mut [0; 3]).is_err());
    }
}
