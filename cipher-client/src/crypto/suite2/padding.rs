//! Padding: which lengths remain to be seen.
//!
//! Behind the text stand 0x80 and zeros (ISO/IEC 7816-4) up to a length of the
//! Padmé scheme (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files
//! and Communication with PURBs", 2019): of a length of *n* bits only the upper
//! ones vary, about log2 *n* of them. It costs at most 12 %, less the longer the
//! text, and of lengths up to 48 MiB some 600 remain.

use crate::error::{Error, Result};

/// Whether a sealer hides the length of what it seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// The envelope shows the length to the byte.
    #[default]
    Off,
    /// Padded to one of few lengths, at most 12 % longer.
    Padme,
}

/// What ends the text.
pub(super) const MARK: u8 = 0x80;

/// How many bytes to put behind a text of `len`: the mark and zeros.
pub(super) fn bytes_behind(len: usize) -> usize {
    padme(len + 1) - len
}

/// The least length of the scheme that is not under `len`.
fn padme(len: usize) -> usize {
    let mask = mask_of(len);
    (len + mask) & !mask
}

/// The bits that a length of this size does not have.
fn mask_of(len: usize) -> usize {
    if len < 2 {
        return 0;
    }
    let exponent = len.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    (1usize << exponent.saturating_sub(kept_bits)) - 1
}

/// The longest text that is no longer than `padded` with its padding.
pub(in crate::crypto) fn longest_unpadded(padded: usize) -> usize {
    // A length of the scheme: what is cut off has no bits left that it may not have.
    (padded & !mask_of(padded)).saturating_sub(1)
}

/// Appends the padding.
pub(super) fn pad(text: &mut Vec<u8>) {
    let padded = text.len() + bytes_behind(text.len());
    text.push(MARK);
    text.resize(padded, 0);
}

/// Takes the padding off.
pub(super) fn unpad(text: &mut Vec<u8>) -> Result<()> {
    let mark = text.iter().rposition(|byte| *byte != 0).filter(|at| text[*at] == MARK);
    text.truncate(mark.ok_or_else(broken)?);
    Ok(())
}

/// Takes the padding off a text that comes in pieces.
#[derive(Default)]
pub(super) struct Unpadding {
    /// A mark, and how many zeros behind it: padding, unless more follows.
    held: Option<usize>,
}

impl Unpadding {
    /// Appends to `out` what of `piece`, and of what was held back, is text.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(last) = piece.iter().rposition(|byte| *byte != 0) else {
            match &mut self.held {
                Some(zeros) => *zeros += piece.len(),
                None => out.extend_from_slice(piece),
            }
            return;
        };
        self.release(out);
        if piece[last] == MARK {
            out.extend_from_slice(&piece[..last]);
            self.held = Some(piece.len() - last - 1);
        } else {
            out.extend_from_slice(piece);
        }
    }

    /// The text is over: what is held was the padding.
    pub(super) fn finish(&self) -> Result<()> {
        self.held.map(drop).ok_or_else(broken)
    }

    /// What was held was text after all.
    fn release(&mut self, out: &mut Vec<u8>) {
        if let Some(zeros) = self.held.take() {
            out.push(MARK);
            out.resize(out.len() + zeros, 0);
        }
    }
}

fn broken() -> Error {
    Error::malformed("ciphertext", "no padding where the header says so")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lengths_are_those_of_the_scheme() {
        // Computed with the definition of the paper.
        let expected =
            [(0, 0), (1, 1), (2, 2), (9, 10), (17, 18), (100, 104), (1000, 1024), (1025, 1088), (1 << 20, 1 << 20)];
        for (len, padded) in expected {
            assert_eq!(padme(len), padded, "{len}");
        }
        for len in (1..200_000).chain((1 << 24)..(1 << 24) + 1000) {
            let padded = padme(len);
            assert!(padded >= len && (padded - len) * 100 <= len * 12, "{len} -> {padded}");
            assert_eq!(padme(padded), padded, "{len}");
        }
    }

    #[test]
    fn the_longest_text_for_a_length_fits_and_one_more_does_not() {
        for padded in (1..70_000).chain((1 << 24)..(1 << 24) + 1000) {
            let longest = longest_unpadded(padded);
            assert!(longest + bytes_behind(longest) <= padded, "{padded}");
            assert!(longest + 1 + bytes_behind(longest + 1) > padded, "{padded}");
        }
    }

    #[test]
    fn few_lengths_remain() {
        let lengths: std::collections::BTreeSet<_> = (0..1 << 20).map(padme).collect();
        assert!(lengths.len() < 400, "{}", lengths.len());
    }

    #[test]
    fn a_text_without_padding_is_refused() {
        for text in [&b""[..], b"\0", b"\0\0\0", b"text", b"text\0\0", b"\x80\0\x01"] {
            assert!(unpad(&mut text.to_vec()).is_err(), "{text:?}");
            let mut unpadding = Unpadding::default();
            unpadding.push(text, &mut Vec::new());
            assert!(unpadding.finish().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_padded_text_returns_whole_and_in_pieces(
            text in prop::collection::vec(prop::sample::select(vec![0, 0, 0, 0x80, 1]), 0..300),
            cuts in prop::collection::vec(1..40usize, 1..400),
        ) {
            let mut padded = text.clone();
            pad(&mut padded);
            prop_assert_eq!(padded.len(), padme(text.len() + 1));
            let (mut unpadding, mut out, mut rest) = (Unpadding::default(), Vec::new(), &padded[..]);
            for cut in cuts.into_iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                unpadding.push(piece, &mut out);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            unpadding.finish().unwrap();
            prop_assert_eq!(&out, &text);
            unpad(&mut padded).unwrap();
            prop_assert_eq!(padded, text);
        }
    }
}
