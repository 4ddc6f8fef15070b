//! Where the base64 of a payload comes from: a text at hand, or a file.

use std::borrow::Cow;
use std::io::{Read, Seek, SeekFrom};

use crate::crypto::envelope::{ENVELOPE_BYTES_MAX, check_len};
use crate::error::{Error, ErrorKind, Result};

/// What a file can do, and a buffer.
pub(in crate::crypto) trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// The base64 of a payload.
pub(in crate::crypto) enum Source<'a> {
    Text(Cow<'a, str>),
    Stream(Part<'a>),
}

/// A stretch of a stream.
pub(in crate::crypto) struct Part<'a> {
    input: Box<dyn ReadSeek + 'a>,
    start: u64,
    len: usize,
    /// What was read last.
    piece: Vec<u8>,
}

impl Source<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Stream(part) => part.len,
        }
    }

    /// Whether the same place may hold something else when it is read again.
    pub(super) fn may_change(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// The bytes from `at` to `end`, which is not behind the end of all.
    pub(super) fn piece(&mut self, at: usize, end: usize) -> Result<&str> {
        match self {
            Self::Text(text) => text.get(at..end).ok_or_else(not_base64),
            Self::Stream(part) => part.read(at, end),
        }
    }
}

impl Part<'_> {
    fn read(&mut self, at: usize, end: usize) -> Result<&str> {
        self.piece.resize(end - at, 0);
        self.input.seek(SeekFrom::Start(self.start + at as u64)).map_err(of_stream)?;
        self.input.read_exact(&mut self.piece).map_err(of_stream)?;
        std::str::from_utf8(&self.piece).map_err(|_| not_base64())
    }
}

/// Finds the payload in an envelope as a sealer writes it. Gives the envelope
/// without it, as text, and the payload.
pub(in crate::crypto) fn split<'a>(mut input: impl ReadSeek + 'a) -> Result<(String, Source<'a>)> {
    let total = input.seek(SeekFrom::End(0)).map_err(of_stream)?;
    check_len(usize::try_from(total).unwrap_or(usize::MAX))?;
    let head = read_from(&mut input, 0, HEAD_MAX.min(total))?;
    let start = find(&head, OPEN).ok_or_else(out_of_order)? + OPEN.len();
    let tail_at = total.saturating_sub(TAIL_MAX).max(start as u64);
    let tail = read_from(&mut input, tail_at, total - tail_at)?;
    let end = tail.iter().position(|byte| *byte == b'"').ok_or_else(out_of_order)?;
    let json = String::from_utf8([&head[..start], &tail[end..]].concat());
    let json = json.map_err(|_| Error::malformed("envelope", "not UTF-8"))?;
    let len = tail_at as usize + end - start;
    let part = Part { input: Box::new(input), start: start as u64, len, piece: Vec::new() };
    Ok((json, Source::Stream(part)))
}

/// All that stands before the payload: 64 wraps and the header are less.
const HEAD_MAX: u64 = 256 << 10;
/// All that stands behind it: a signature, and the end of a line.
const TAIL_MAX: u64 = 256;
const OPEN: &[u8] = br#""ciphertext":""#;
const _: () = assert!(HEAD_MAX < ENVELOPE_BYTES_MAX as u64);

fn read_from(input: &mut impl ReadSeek, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    input.seek(SeekFrom::Start(at)).map_err(of_stream)?;
    input.read_exact(&mut bytes).map_err(of_stream)?;
    Ok(bytes)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

fn out_of_order() -> Error {
    Error::malformed("ciphertext", "not where a sealer writes it; open the envelope as a whole")
}

pub(super) fn not_base64() -> Error {
    Error::malformed("ciphertext", "not padded standard base64 of a fitting length")
}

/// An error of this crate that went through one of reading or writing, or that.
pub(super) fn own_fault(fault: std::io::Error) -> Result<Error, std::io::Error> {
    fault.downcast::<Error>()
}

pub(super) fn of_stream(fault: std::io::Error) -> Error {
    own_fault(fault).unwrap_or_else(|fault| Error::with_source(ErrorKind::Stream, fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn payload_of(json: &str) -> Result<(String, String)> {
        let (head, mut source) = split(Cursor::new(json.as_bytes()))?;
        let len = source.len();
        Ok((head, source.piece(0, len)?.to_owned()))
    }

    #[test]
    fn the_payload_is_taken_out_and_the_rest_stays() {
        for tail in ["\"}", "\"}\n", "\",\"sig\":\"c2ln\"}\r\n"] {
            let (head, payload) = payload_of(&format!("{{\"a\":\"b\",\"ciphertext\":\"abcd{tail}")).unwrap();
            assert_eq!(head, format!("{{\"a\":\"b\",\"ciphertext\":\"{tail}"));
            assert_eq!(payload, "abcd");
        }
    }

    #[test]
    fn an_envelope_in_another_order_is_refused_or_no_base64() {
        let long = "x".repeat(1000);
        for json in ["", "{}", "{\"ciphertext\": \"abcd\"}", "{\"ciphertext\":\"abcd"] {
            assert!(payload_of(json).is_err(), "{json}");
        }
        let (_, payload) = payload_of(&format!("{{\"ciphertext\":\"abcd\",\"more\":\"{long}\"}}")).unwrap();
        assert!(payload.contains('"'), "decoding refuses that");
    }
}
