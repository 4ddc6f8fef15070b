//! Compression: zstd, and what keeps a small message from becoming a large one.

use std::io::Read;

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Whether a sealer compresses what it seals.
///
/// The length of what was compressed can be seen, and tells something of its
/// content: who can put text of his choice into the same message as a secret,
/// and watch lengths, can find out the secret (CRIME, BREACH). Leave it off for
/// such messages. Padding makes it harder and not impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Sealed as it is.
    #[default]
    Off,
    /// zstd, where it makes the message shorter.
    Zstd,
}

/// Longest text that comes out of a compressed message.
pub const EXPANDED_BYTES_MAX: usize = 64 << 20;
/// How many times longer than the compressed message it may be, beyond 64 KiB.
pub const EXPANSION_RATIO_MAX: usize = 256;
/// A text as short as this may be expanded from anything.
const EXPANDED_ANYWAY: usize = 64 << 10;
/// Most memory that a frame may ask for to look back.
const WINDOW_MAX: u64 = 8 << 20;

/// The compressed text, if that is worth while and will be expanded again.
pub(super) fn compress(text: &[u8]) -> Option<Vec<u8>> {
    let compressed = compress_to_vec(text, CompressionLevel::Fastest);
    (compressed.len() < text.len() && text.len() <= most(compressed.len())).then_some(compressed)
}

/// Compresses a text that comes in pieces, so that it will be expanded again.
///
/// ```text
/// frame header (6) | block | block | … | empty last block (3)
/// ```
///
/// Each block is compressed by itself, so no more than one of them is in
/// memory. One that gets no shorter is stored as it is.
pub(super) struct Compressor {
    block: Zeroizing<Vec<u8>>,
    is_begun: bool,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self { block: Zeroizing::new(Vec::with_capacity(BLOCK_LEN)), is_begun: false }
    }

    /// Appends to `out` what can be put out.
    pub(super) fn push(&mut self, mut text: &[u8], out: &mut Vec<u8>) {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(text.len().min(BLOCK_LEN - self.block.len()));
            self.block.extend_from_slice(piece);
            text = rest;
            if self.block.len() == BLOCK_LEN {
                self.put_out(out);
            }
        }
    }

    /// Appends the rest.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        self.put_out(out);
        out.extend(LAST_BLOCK);
    }

    fn put_out(&mut self, out: &mut Vec<u8>) {
        if !self.is_begun {
            out.extend(FRAME_HEADER);
            self.is_begun = true;
        }
        put_blocks(&self.block, out);
        self.block.clear();
    }
}

/// Blocks of at most 128 KiB, a window of as much, no checksum, no length: RFC 8878.
const FRAME_HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
const BLOCK_LEN: usize = 128 << 10;
const BLOCK_HEADER_LEN: usize = 3;
const LAST_BLOCK: [u8; BLOCK_HEADER_LEN] = [1, 0, 0];

/// Appends a text as blocks, none of them the last.
fn put_blocks(text: &[u8], out: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    match blocks_of(text) {
        Some(blocks) if text.len() <= blocks.len() * EXPANSION_RATIO_MAX => out.extend(blocks),
        Some(_) => {
            // Stored in part, for nobody would expand so much out of so little.
            let (stored, rest) = text.split_at(text.len().div_ceil(EXPANSION_RATIO_MAX));
            put_stored(stored, out);
            match blocks_of(rest) {
                Some(blocks) => out.extend(blocks),
                None => put_stored(rest, out),
            }
        }
        None => put_stored(text, out),
    }
}

fn put_stored(text: &[u8], out: &mut Vec<u8>) {
    if !text.is_empty() {
        let header = (text.len() as u32) << 3;
        out.extend(&header.to_le_bytes()[..BLOCK_HEADER_LEN]);
        out.extend_from_slice(text);
    }
}

/// The blocks of a text, taken out of a frame of their own; `None` if that is no
/// shorter, or not made as it was when this was written. Blocks of one frame can
/// stand in another: a frame's first block refers to nothing before it, and the
/// encoder writes every distance in full.
fn blocks_of(text: &[u8]) -> Option<Vec<u8>> {
    let frame = compress_to_vec(text, CompressionLevel::Fastest);
    let mut rest = frame.strip_prefix(&FRAME_HEADER)?;
    let mut blocks = Vec::with_capacity(rest.len());
    loop {
        let (header, behind) = rest.split_first_chunk::<BLOCK_HEADER_LEN>()?;
        let [low, middle, high] = *header;
        let fields = u32::from_le_bytes([low, middle, high, 0]);
        let (is_last, kind, size) = (fields & 1 == 1, fields >> 1 & 3, (fields >> 3) as usize);
        // One that repeats a byte has that byte only.
        let (content, behind) = behind.split_at_checked(if kind == 1 { 1 } else { size })?;
        if size > 0 {
            blocks.extend([low & !1, middle, high]);
            blocks.extend_from_slice(content);
        }
        rest = behind;
        if is_last {
            break;
        }
    }
    (rest.is_empty() && blocks.len() < text.len()).then_some(blocks)
}

/// Most bytes that `len` compressed ones may become.
fn most(len: usize) -> usize {
    len.saturating_mul(EXPANSION_RATIO_MAX).clamp(EXPANDED_ANYWAY, EXPANDED_BYTES_MAX)
}

/// What was compressed, within the limits.
pub(super) fn expand(compressed: &[u8]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    Expander::new(compressed, compressed.len())?.read_to_end(&mut text).map_err(fault)?;
    Ok(text)
}

/// Reads what was compressed, within the limits; nothing may follow it.
pub(super) struct Expander<R: Read> {
    frame: StreamingDecoder<R, FrameDecoder>,
    left: usize,
    most: usize,
}

impl<R: Read> Expander<R> {
    /// `compressed_len` is the length of all that can be read from `compressed`.
    pub(super) fn new(compressed: R, compressed_len: usize) -> Result<Self> {
        let most = most(compressed_len);
        let frame = StreamingDecoder::new_with_max_window_size(compressed, WINDOW_MAX).map_err(|_| broken())?;
        if frame.decoder.content_size() > most as u64 {
            return Err(too_large(most));
        }
        Ok(Self { frame, left: most, most })
    }

    fn end(&mut self) -> std::io::Result<usize> {
        match self.frame.get_mut().read(&mut [0])? {
            0 => Ok(0),
            _ => Err(std::io::Error::other(broken())),
        }
    }
}

impl<R: Read> Read for Expander<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // One byte more than is left would be too many: it is asked for, to know.
        let room = buffer.len().min(self.left.saturating_add(1));
        match self.frame.read(&mut buffer[..room])? {
            0 => self.end(),
            len if len > self.left => Err(std::io::Error::other(too_large(self.most))),
            len => {
                self.left -= len;
                Ok(len)
            }
        }
    }
}

/// The error of this crate inside of one of reading.
pub(super) fn fault(fault: std::io::Error) -> Error {
    match fault.into_inner().map(|inner| inner.downcast::<Error>()) {
        Some(Ok(error)) => *error,
        _ => broken(),
    }
}

fn too_large(max: usize) -> Error {
    Error::new(ErrorKind::TooLarge { what: "compressed text", bytes: max + 1, max })
}

fn broken() -> Error {
    Error::malformed("ciphertext", "not compressed as the header says")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame of one block that repeats one byte, by hand: RFC 8878.
    fn bomb(blocks: usize, content_size: Option<u64>) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd];
        match content_size {
            // Single segment would make the window as large; so a window of 1 KiB and a size of 8 bytes.
            Some(size) => {
                frame.extend([0b1100_0000, 0]);
                frame.extend(size.to_le_bytes());
            }
            None => frame.extend([0, 0x38]),
        }
        for block in 0..blocks {
            let is_last = u32::from(block + 1 == blocks);
            let header = is_last | 1 << 1 | 128 << 10 << 3;
            frame.extend(&header.to_le_bytes()[..3]);
            frame.push(b'a');
        }
        frame
    }

    #[test]
    fn a_small_message_does_not_become_a_large_one() {
        assert_eq!(expand(&bomb(1, None)[..]).map(|text| text.len()).ok(), None, "13 bytes, 128 KiB");
        let long = bomb(100_000, None);
        assert!(long.len() < 500_000);
        let error = expand(&long).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{error}");
        let error = expand(&bomb(1, Some(1 << 40))).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "announced: {error}");
    }

    #[test]
    fn what_is_no_frame_or_more_than_one_is_refused() {
        let good = compress(&[b'a'; 1000]).unwrap();
        assert_eq!(expand(&good).unwrap(), [b'a'; 1000]);
        for end in 0..good.len() {
            assert!(expand(&good[..end]).is_err(), "cut at {end}");
        }
        for bad in [&b""[..], b"text", &[&good[..], b"x"].concat(), &[&good[..], &good].concat()] {
            assert!(expand(bad).is_err());
        }
        // A window of 3 TiB.
        assert!(expand(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 0x03, 0, 0, b'a']).is_err());
    }

    #[test]
    fn what_would_not_be_expanded_is_not_compressed() {
        assert!(compress(&vec![0; 10 << 20]).is_none(), "ten million zeros");
        assert!(compress(b"short").is_none());
    }

    fn in_pieces(text: &[u8], piece: usize) -> Vec<u8> {
        let (mut compressor, mut out) = (Compressor::new(), Vec::new());
        text.chunks(piece).for_each(|piece| compressor.push(piece, &mut out));
        compressor.finish(&mut out);
        out
    }

    #[test]
    fn what_comes_in_pieces_is_compressed_as_well_and_returns() {
        let words: Vec<u8> = (0..60_000u32).flat_map(|n| format!("{} goods, ", n * n % 977).into_bytes()).collect();
        let noise: Vec<u8> =
            (0..BLOCK_LEN as u64 * 2).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let mixed = [&words[..], &noise, &[0; 300_000], &words].concat();
        for (text, at_most) in
            [(&words[..], words.len() / 2), (&noise, noise.len() + 20), (&mixed, mixed.len() * 3 / 4)]
        {
            for piece in [1000, BLOCK_LEN, text.len()] {
                let compressed = in_pieces(text, piece);
                assert!(compressed.len() <= at_most, "{} of {}", compressed.len(), text.len());
                assert!(expand(&compressed).unwrap() == text);
            }
        }
    }

    #[test]
    fn a_stream_of_anything_stays_within_what_will_be_expanded() {
        for len in [0, 1, 255, 256, 257, 65_536, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 5 << 20] {
            let zeros = vec![0; len];
            let compressed = in_pieces(&zeros, 50_000);
            assert!(expand(&compressed).unwrap() == zeros, "{len}");
            assert!(len < 5 << 20 || compressed.len() < len / 200, "{}", compressed.len());
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_in_pieces_returns(
            text in prop::collection::vec(0..4u8, 0..300_000),
            piece in 1..200_000usize,
        ) {
            let compressed = in_pieces(&text, piece);
            prop_assert!(expand(&compressed).unwrap() == text);
        }

        #[test]
        fn what_was_compressed_returns(text in prop::collection::vec(0..4u8, 0..20_000)) {
            if let Some(compressed) = compress(&text) {
                prop_assert!(compressed.len() < text.len());
                prop_assert!(expand(&compressed).unwrap() == text);
            }
        }

        #[test]
        fn altered_bytes_end_in_a_text_or_an_error(
            text in prop::collection::vec(0..4u8, 100..2000),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            if let Some(mut compressed) = compress(&text) {
                let at = at.index(compressed.len());
                compressed[at] = byte;
                drop(expand(&compressed));
            }
        }
    }
}
