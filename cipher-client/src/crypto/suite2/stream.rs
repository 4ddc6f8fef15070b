//! Large texts, a chunk at a time.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::compress::{Compression, Expander};
use super::open::{Opening, Unlocked, read_header};
use super::padding::{MARK, Padding, Unpadding, bytes_behind};
use super::payload::{CHUNK_LEN, Chunks, Commitment, PREFIX_LEN, SEALED_CHUNK_LEN, TAG_LEN, is_sealed_len};
use super::seal::{Body, Message, Request, Sealing};
use crate::crypto::base64;
use crate::crypto::envelope::{ENVELOPE_BYTES_MAX, Envelope, Second};
use crate::crypto::opened::Opened;
use crate::error::{Error, ErrorKind, Result};

/// Seals what is written into it. Holds one chunk of 16 KiB, whatever the length.
///
/// What it has put out is no envelope until [`finish`](Self::finish) has
/// returned: a part of one does not open.
///
/// ```
/// use std::io::{Read, Write};
/// use cipher_client::crypto::{Context, KeyKind, OpenPolicy, Opener, PrivateKey, Sealer, SessionPolicy};
///
/// let key = PrivateKey::generate_kind(KeyKind::X25519)?;
/// let sealer = Sealer::new(&key.public_key(), SessionPolicy::default())?;
/// let mut envelope = Vec::new();
/// let mut writer = sealer.seal_writer(&Context::new("scans", "eu"), None, &mut envelope)?;
/// writer.write_all(b"page one, ")?;
/// writer.write_all(b"page two")?;
/// writer.finish()?;
///
/// let envelope = String::from_utf8(envelope)?;
/// let opener = Opener::new(&key, OpenPolicy::default())?;
/// let mut text = String::new();
/// opener.open_reader(&envelope)?.read_to_string(&mut text)?;
/// assert_eq!(text, "page one, page two");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an envelope is whole only after `finish`"]
pub struct SealWriter<'a, W: Write> {
    sealing: &'a Sealing,
    message: Message,
    out: W,
    /// Text on its way out.
    json: Vec<u8>,
    /// Of the next chunk.
    pending: Vec<u8>,
    text_len: usize,
    text_len_max: usize,
}

impl<'a, W: Write> SealWriter<'a, W> {
    pub(in crate::crypto) fn new(sealing: &'a Sealing, request: Request<'_>, out: W) -> Result<Self> {
        if sealing.compression != Compression::Off {
            let reason = "not for streams; compress what is written";
            return Err(ErrorKind::Option { option: "compression", reason }.into());
        }
        let is_padded = sealing.padding == Padding::Padme;
        // How much will come is not known, so the session is charged the most.
        let body =
            Body { text: [][..].into(), counted_len: ENVELOPE_BYTES_MAX as u64, is_padded, is_compressed: false };
        let begun = sealing.begin(request, &body)?;
        let frame_len = begun.written_len(0)?;
        let mut json = Vec::with_capacity(JSON_CHUNK_LEN);
        let message = begun.open(&mut json);
        let pending = Vec::with_capacity(CHUNK_LEN);
        Ok(Self { sealing, message, out, json, pending, text_len: 0, text_len_max: longest_text(frame_len) })
    }

    /// Writes the rest of the envelope; gives its message id and the writer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] with padding; those of the writer, as
    /// [`ErrorKind::Stream`].
    pub fn finish(mut self) -> Result<(String, W)> {
        if self.sealing.padding == Padding::Padme {
            let mut left = bytes_behind(self.text_len);
            self.push(&[MARK]).map_err(of_stream)?;
            left -= 1;
            while left > 0 {
                let zeros = &ZEROS[..left.min(ZEROS.len())];
                self.push(zeros).map_err(of_stream)?;
                left -= zeros.len();
            }
        }
        self.message.push(&mut self.json, &self.pending)?;
        let message_id = self.message.finish(&mut self.json, self.sealing.identity.as_deref());
        let written = self.out.write_all(&self.json).and_then(|()| self.out.flush());
        written.map_err(of_stream)?;
        Ok((message_id, self.out))
    }

    fn push(&mut self, mut text: &[u8]) -> io::Result<()> {
        if text.len() > self.text_len_max - self.text_len {
            let bytes = self.text_len.saturating_add(text.len());
            let error = Error::new(ErrorKind::TooLarge { what: "plaintext", bytes, max: self.text_len_max });
            return Err(io::Error::other(error));
        }
        self.text_len += text.len();
        while !text.is_empty() {
            let (piece, rest) = text.split_at(text.len().min(CHUNK_LEN - self.pending.len()));
            self.pending.extend_from_slice(piece);
            text = rest;
            if self.pending.len() == CHUNK_LEN {
                self.message.push(&mut self.json, &self.pending).map_err(io::Error::other)?;
                self.pending.clear();
                self.out.write_all(&self.json)?;
                self.json.clear();
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for SealWriter<'_, W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text).map(|()| text.len())
    }

    /// Puts out whole chunks only: a shorter one would be the last.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A chunk as text, and what stands round it.
const JSON_CHUNK_LEN: usize = base64::encoded_len(SEALED_CHUNK_LEN) + (8 << 10);
const ZEROS: [u8; 1024] = [0; 1024];

/// The longest text that fits beside a frame of this length.
fn longest_text(frame_len: usize) -> usize {
    let payload = (ENVELOPE_BYTES_MAX - frame_len) / 4 * 3;
    payload - payload / SEALED_CHUNK_LEN * TAG_LEN - 2 * TAG_LEN
}

/// Reads the text of an envelope, opened by [`crate::crypto::Opener::open_reader`].
pub struct OpenReader<'a> {
    opened: Opened,
    text: Text<'a>,
}

enum Text<'a> {
    Plain(Box<Pieces<'a>>),
    Compressed(Box<Expander<Pieces<'a>>>),
}

impl<'a> OpenReader<'a> {
    pub(in crate::crypto) fn new(
        opening: &Opening<'_>,
        envelope: &Envelope<'a>,
        second: &Second<'_>,
        hdr: &[u8],
    ) -> Result<Self> {
        let header = read_header(envelope, second, hdr)?;
        let digest = || Sealed::new(envelope.ciphertext_text())?.digest();
        let unlocked = opening.unlock(envelope, second, header, hdr, digest)?;
        let begun = Sealed::new(envelope.ciphertext_text()).and_then(|sealed| sealed.begin(&unlocked, hdr));
        let (sealed, chunks, commitment) = opening.settle(&unlocked, begun)?;
        let len = sealed.text_len();
        let unpadding = unlocked.header.is_padded.then(Unpadding::default);
        let pieces = Pieces { sealed, chunks, unpadding, ready: Zeroizing::default(), taken: 0, state: State::Open };
        let text = match unlocked.header.is_compressed {
            true => Text::Compressed(Box::new(Expander::new(pieces, len)?)),
            false => Text::Plain(Box::new(pieces)),
        };
        Ok(Self { opened: unlocked.into_opened(Vec::new(), commitment), text })
    }

    /// What is known of the message beside its text, which is empty here.
    pub fn message(&self) -> &Opened {
        &self.opened
    }
}

impl Read for OpenReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.text {
            Text::Plain(pieces) => pieces.read(buffer),
            Text::Compressed(expander) => expander.read(buffer),
        }
    }
}

impl fmt::Debug for OpenReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenReader").field("message", &self.opened).finish_non_exhaustive()
    }
}

/// Opened chunks, without their padding.
struct Pieces<'a> {
    sealed: Sealed<'a>,
    chunks: Chunks,
    unpadding: Option<Unpadding>,
    ready: Zeroizing<Vec<u8>>,
    taken: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Over,
    Failed,
}

impl Pieces<'_> {
    /// Opens the next chunk.
    fn next(&mut self) -> Result<()> {
        // Unless it goes well.
        self.state = State::Failed;
        self.ready.clear();
        self.taken = 0;
        let (text, is_last) = self.sealed.chunk(&mut self.chunks)?;
        match &mut self.unpadding {
            Some(unpadding) => unpadding.push(text, &mut self.ready),
            None => self.ready.extend_from_slice(text),
        }
        if let (Some(unpadding), true) = (&self.unpadding, is_last) {
            unpadding.finish()?;
        }
        self.state = if is_last { State::Over } else { State::Open };
        Ok(())
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() {
            match self.state {
                State::Open => self.next().map_err(io::Error::other)?,
                State::Over => return Ok(0),
                State::Failed => return Err(io::Error::other(Error::new(ErrorKind::Decrypt))),
            }
        }
        let len = buffer.len().min(self.ready.len() - self.taken);
        buffer[..len].copy_from_slice(&self.ready[self.taken..self.taken + len]);
        self.taken += len;
        Ok(len)
    }
}

/// A payload as base64, decoded as it is needed.
struct Sealed<'a> {
    text: Cow<'a, str>,
    at: usize,
    /// Decoded, and not yet taken: a chunk and at most two bytes.
    bytes: Vec<u8>,
    /// Of the chunk that was taken last.
    used: usize,
    len: usize,
}

impl<'a> Sealed<'a> {
    fn new(text: Cow<'a, str>) -> Result<Self> {
        let fill = text.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
        let len = (text.len() / 4 * 3).saturating_sub(fill);
        if !is_sealed_len(len) {
            return Err(ErrorKind::Decrypt.into());
        }
        Ok(Self { text, at: 0, bytes: Vec::new(), used: 0, len })
    }

    /// Checks the commitment.
    fn begin(mut self, unlocked: &Unlocked<'_>, hdr: &[u8]) -> Result<(Self, Chunks, Commitment)> {
        self.fill(PREFIX_LEN)?;
        let prefix = self.bytes.first_chunk().ok_or(ErrorKind::Decrypt)?;
        let (chunks, commitment) = unlocked.secret.key().commit(prefix, hdr)?;
        self.used = PREFIX_LEN;
        Ok((self, chunks, commitment))
    }

    /// Length of the text inside.
    fn text_len(&self) -> usize {
        let chunks = self.len - PREFIX_LEN;
        chunks - chunks.div_ceil(SEALED_CHUNK_LEN) * TAG_LEN
    }

    /// The next chunk, opened, and whether it is the last.
    fn chunk(&mut self, chunks: &mut Chunks) -> Result<(&[u8], bool)> {
        self.fill(SEALED_CHUNK_LEN)?;
        self.used = self.bytes.len().min(SEALED_CHUNK_LEN);
        let text = chunks.decrypt(&mut self.bytes[..self.used])?;
        Ok((text, self.used < SEALED_CHUNK_LEN))
    }

    /// Has `len` bytes ready behind those used, or all that are left.
    fn fill(&mut self, len: usize) -> Result<()> {
        self.bytes.copy_within(self.used.., 0);
        self.bytes.truncate(self.bytes.len() - self.used);
        self.used = 0;
        let start = self.bytes.len();
        let groups = len.saturating_sub(start).div_ceil(3);
        let end = self.text.len().min(self.at + groups * 4);
        let piece = self.text.get(self.at..end).ok_or_else(not_base64)?;
        let whole = piece.len().div_ceil(4) * 3;
        self.bytes.resize(start + whole, 0);
        let decoded = base64::decode_into("ciphertext", piece, &mut self.bytes[start..])?;
        // Padding stands at the end of all of it and nowhere else.
        if decoded != whole && end != self.text.len() {
            return Err(not_base64());
        }
        self.bytes.truncate(start + decoded);
        self.at = end;
        Ok(())
    }

    /// The digest that the sender has signed.
    fn digest(mut self) -> Result<[u8; 64]> {
        let mut digest = Sha512::new();
        loop {
            self.fill(CHUNK_LEN)?;
            if self.bytes.is_empty() {
                return Ok(digest.finalize().into());
            }
            digest.update(&self.bytes);
            self.used = self.bytes.len();
        }
    }
}

fn not_base64() -> Error {
    Error::malformed("ciphertext", "not padded standard base64 of a fitting length")
}

fn of_stream(fault: io::Error) -> Error {
    match fault.downcast::<Error>() {
        Ok(error) => error,
        Err(fault) => Error::with_source(ErrorKind::Stream, fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_text_fits_and_hardly_more() {
        use crate::crypto::suite2::payload::sealed_len;
        for frame in [600, 601, 4_000, 100_000] {
            let written =
                |text_len| frame - base64::encoded_len(sealed_len(0)) + base64::encoded_len(sealed_len(text_len));
            let longest = longest_text(frame);
            assert!(written(longest) <= ENVELOPE_BYTES_MAX, "{frame}");
            assert!(written(longest + 200) > ENVELOPE_BYTES_MAX, "{frame}");
        }
    }
}
