//! Large texts, a chunk at a time.

use std::fmt;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::compress::{Compression, Compressor, EXPANDED_BYTES_MAX, Expander};
use super::open::{Opening, Unlocked, read_header};
use super::padding::{MARK, Padding, Unpadding, bytes_behind};
use super::payload::{CHUNK_LEN, Chunks, Commitment, PREFIX_LEN, SEALED_CHUNK_LEN, TAG_LEN, is_sealed_len};
use super::seal::{Body, Message, Request, Sealing};
use super::source::{Source, not_base64, of_stream};
use crate::crypto::base64;
use crate::crypto::envelope::{ENVELOPE_BYTES_MAX, Envelope, Second};
use crate::crypto::open::Opener;
use crate::crypto::opened::Opened;
use crate::error::{Error, ErrorKind, Result};

/// Seals what is written into it. Holds one chunk of 16 KiB, whatever the
/// length, and a block of 128 KiB where it compresses.
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
    compressor: Option<(Compressor, Vec<u8>)>,
    /// Of what was written.
    plain_len: usize,
}

impl<'a, W: Write> SealWriter<'a, W> {
    pub(in crate::crypto) fn new(sealing: &'a Sealing, request: Request<'_>, out: W) -> Result<Self> {
        let is_padded = sealing.padding == Padding::Padme;
        // Whether it gets shorter is not known when that has to be said.
        let is_compressed = sealing.compression == Compression::Zstd;
        // How much will come is not known, so the session is charged the most.
        let body = Body { text: [][..].into(), counted_len: ENVELOPE_BYTES_MAX as u64, is_padded, is_compressed };
        let begun = sealing.begin(request, &body)?;
        let frame_len = begun.written_len(0)?;
        let mut json = Vec::with_capacity(JSON_CHUNK_LEN);
        let message = begun.open(&mut json);
        let pending = Vec::with_capacity(CHUNK_LEN);
        let compressor = is_compressed.then(|| (Compressor::new(), Vec::new()));
        let text_len_max = longest_text(frame_len, ENVELOPE_BYTES_MAX);
        Ok(Self { sealing, message, out, json, pending, text_len: 0, text_len_max, compressor, plain_len: 0 })
    }

    /// Writes the rest of the envelope; gives its message id and the writer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] with padding or compression; those of the writer,
    /// as [`ErrorKind::Stream`].
    pub fn finish(mut self) -> Result<(String, W)> {
        if let Some((compressor, mut out)) = self.compressor.take() {
            compressor.finish(&mut out);
            self.push(&out).map_err(of_stream)?;
        }
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

    /// Takes a text as it was written.
    fn take(&mut self, text: &[u8]) -> io::Result<()> {
        let Some((compressor, out)) = &mut self.compressor else { return self.push(text) };
        // A receiver would not expand more than that.
        self.plain_len = within(self.plain_len, text.len(), EXPANDED_BYTES_MAX)?;
        compressor.push(text, out);
        let out = std::mem::take(out);
        let pushed = self.push(&out);
        if let Some((_, kept)) = &mut self.compressor {
            *kept = out;
            kept.clear();
        }
        pushed
    }

    fn push(&mut self, mut text: &[u8]) -> io::Result<()> {
        self.text_len = within(self.text_len, text.len(), self.text_len_max)?;
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
        self.take(text).map(|()| text.len())
    }

    /// Puts out whole chunks only: a shorter one would be the last.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A chunk as text, and what stands round it.
const JSON_CHUNK_LEN: usize = base64::encoded_len(SEALED_CHUNK_LEN) + (8 << 10);
const ZEROS: [u8; 1024] = [0; 1024];

/// The longest text that fits beside a frame of this length into `len_max`.
pub(in crate::crypto) fn longest_text(frame_len: usize, len_max: usize) -> usize {
    let payload = len_max.saturating_sub(frame_len) / 4 * 3;
    payload.saturating_sub(payload / SEALED_CHUNK_LEN * TAG_LEN + 2 * TAG_LEN)
}

/// `len` and `more`, which must not be over `max` together.
fn within(len: usize, more: usize, max: usize) -> io::Result<usize> {
    let bytes = len.saturating_add(more);
    match bytes <= max {
        true => Ok(bytes),
        false => Err(io::Error::other(Error::new(ErrorKind::TooLarge { what: "plaintext", bytes, max }))),
    }
}

/// Reads the text of an envelope, opened by [`Opener::open_reader`] or
/// [`Opener::open_stream`].
///
/// Who sealed it was checked before anything can be read, and so was the header.
/// The text is checked a chunk at a time: what was read is what the sender
/// sealed, from its beginning on. That it is all of it is known when `read` has
/// given 0 bytes; and if a file was read while somebody changed it, only then that
/// a message to several is the sender's and not another recipient's. From then on
/// [`message`](Self::message) says what the number of the message tells
/// ([`Order`](crate::crypto::Order)), as a message counts as received when it was
/// received whole.
pub struct OpenReader<'a> {
    opened: Opened,
    text: Text<'a>,
    opener: &'a Opener,
    is_settled: bool,
}

enum Text<'a> {
    Plain(Box<Pieces<'a>>),
    Compressed(Box<Expander<Pieces<'a>>>),
}

impl<'a> OpenReader<'a> {
    pub(in crate::crypto) fn new(
        opener: &'a Opener,
        opening: &Opening<'_>,
        envelope: &Envelope<'_>,
        second: &Second<'_>,
        hdr: &[u8],
        source: Source<'a>,
    ) -> Result<Self> {
        let header = read_header(envelope, second, hdr)?;
        let mut sealed = Sealed::new(source)?;
        let unlocked = opening.unlock(envelope, second, header, hdr, || sealed.digest())?;
        let begun = sealed.begin(&unlocked, hdr);
        let (chunks, commitment) = opening.settle(&unlocked, begun)?;
        let len = sealed.text_len();
        let unpadding = unlocked.header.is_padded.then(Unpadding::default);
        let pieces = Pieces { sealed, chunks, unpadding, ready: Zeroizing::default(), taken: 0, state: State::Open };
        let text = match unlocked.header.is_compressed {
            true => Text::Compressed(Box::new(Expander::new(pieces, len)?)),
            false => Text::Plain(Box::new(pieces)),
        };
        Ok(Self { opened: unlocked.into_opened(Vec::new(), commitment), text, opener, is_settled: false })
    }

    /// What is known of the message beside its text, which is empty here.
    pub fn message(&self) -> &Opened {
        &self.opened
    }

    /// What is known of the message, when it was read to its end.
    pub(in crate::crypto) fn into_message(self) -> Opened {
        self.opened
    }
}

impl Read for OpenReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = match &mut self.text {
            Text::Plain(pieces) => pieces.read(buffer),
            Text::Compressed(expander) => expander.read(buffer),
        };
        let is_over = !matches!(outcome, Ok(1..)) && !buffer.is_empty();
        if is_over && !self.is_settled {
            self.is_settled = true;
            self.opener.was_read(&mut self.opened, outcome.is_ok());
        }
        outcome
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
    text: Source<'a>,
    at: usize,
    /// Decoded, and not yet taken: a chunk and at most two bytes. Opened in place.
    bytes: Zeroizing<Vec<u8>>,
    /// Of the chunk that was taken last.
    used: usize,
    len: usize,
    /// What the sender signed, and what was read since. A file may have changed
    /// in between, and each of several recipients can seal chunks.
    signed: Option<([u8; 64], Sha512)>,
}

impl<'a> Sealed<'a> {
    fn new(mut text: Source<'a>) -> Result<Self> {
        let end = text.len();
        let fill = text.piece(end.saturating_sub(2), end)?.bytes().rev().take_while(|byte| *byte == b'=').count();
        let len = (end / 4 * 3).saturating_sub(fill);
        if !is_sealed_len(len) {
            return Err(ErrorKind::Decrypt.into());
        }
        // As large as it gets from the start: growing would leave copies behind.
        let bytes = Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_LEN + 8));
        Ok(Self { text, at: 0, bytes, used: 0, len, signed: None })
    }

    /// Checks the commitment.
    fn begin(&mut self, unlocked: &Unlocked<'_>, hdr: &[u8]) -> Result<(Chunks, Commitment)> {
        self.fill(PREFIX_LEN)?;
        let prefix = self.bytes.first_chunk().ok_or(ErrorKind::Decrypt)?;
        let begun = unlocked.secret.key().commit(prefix, hdr)?;
        self.used = PREFIX_LEN;
        Ok(begun)
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
        if self.used < SEALED_CHUNK_LEN {
            self.check_signed()?;
        }
        let text = chunks.decrypt(&mut self.bytes[..self.used])?;
        Ok((text, self.used < SEALED_CHUNK_LEN))
    }

    /// Has `len` bytes ready behind those used, or all that are left.
    fn fill(&mut self, len: usize) -> Result<()> {
        self.bytes.drain(..self.used);
        self.used = 0;
        let start = self.bytes.len();
        let groups = len.saturating_sub(start).div_ceil(3);
        let (all, end) = (self.text.len(), self.text.len().min(self.at + groups * 4));
        let piece = self.text.piece(self.at, end)?;
        let whole = piece.len().div_ceil(4) * 3;
        self.bytes.resize(start + whole, 0);
        let decoded = base64::decode_into("ciphertext", piece, &mut self.bytes[start..])?;
        // Padding stands at the end of all of it and nowhere else.
        if decoded != whole && end != all {
            return Err(not_base64());
        }
        self.bytes.truncate(start + decoded);
        self.at = end;
        if let Some((_, read)) = &mut self.signed {
            read.update(&self.bytes[start..]);
        }
        Ok(())
    }

    /// Whether what was read is what was signed: asked at its end.
    fn check_signed(&mut self) -> Result<()> {
        let Some((signed, read)) = self.signed.take() else { return Ok(()) };
        match read.finalize()[..] == signed {
            true => Ok(()),
            false => Err(ErrorKind::Decrypt.into()),
        }
    }

    /// The digest that the sender has signed; begins anew afterwards.
    fn digest(&mut self) -> Result<[u8; 64]> {
        let mut digest = Sha512::new();
        loop {
            self.fill(CHUNK_LEN)?;
            digest.update(&self.bytes);
            self.used = self.bytes.len();
            if self.used == 0 {
                self.at = 0;
                let digest = digest.finalize().into();
                self.signed = self.text.may_change().then(|| (digest, Sha512::new()));
                return Ok(digest);
            }
        }
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
            let longest = longest_text(frame, ENVELOPE_BYTES_MAX);
            assert!(written(longest) <= ENVELOPE_BYTES_MAX, "{frame}");
            assert!(written(longest + 200) > ENVELOPE_BYTES_MAX, "{frame}");
        }
    }
}
