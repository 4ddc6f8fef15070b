//! A file for the parts of one message, which nobody else finds.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::crypto::suite::random;
use crate::error::{Error, Result};
use crate::files::create_new;

/// Parts on their way to being a message. The file has no name: it ends with
/// the process at the latest, however that ends.
pub(super) struct Spool {
    file: File,
    len: u64,
}

/// Where a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    at: u64,
    len: usize,
}

impl Spool {
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let name = u128::from_be_bytes(random()?);
        let path = dir.join(format!("ciphermq-{name:032x}"));
        let file = create_new(&path, 0o600).map_err(|fault| Error::io("cannot make a file for parts", &path, fault))?;
        // Windows does not let go of a name in use; elsewhere nothing is ever written under it.
        std::fs::remove_file(&path).map_err(|fault| Error::io("cannot make a file for parts", &path, fault))?;
        Ok(Self { file, len: 0 })
    }

    /// Appends a part.
    pub(super) fn put(&mut self, dir: &Path, text: &[u8]) -> Result<Piece> {
        let at = self.len;
        write_all_at(&self.file, text, at)
            .map_err(|fault| Error::io("cannot write to a file for parts", dir, fault))?;
        self.len += text.len() as u64;
        Ok(Piece { at, len: text.len() })
    }

    pub(super) fn into_text(self, pieces: Vec<Piece>) -> SpooledText {
        let len = pieces.iter().map(|piece| piece.len as u64).sum();
        SpooledText { file: Arc::new(self.file), pieces: pieces.into(), len }
    }
}

/// The text of a large message, in a file that has no name.
///
/// The room on disk is given back with the last clone.
#[derive(Clone)]
pub struct SpooledText {
    file: Arc<File>,
    pieces: Arc<[Piece]>,
    len: u64,
}

impl SpooledText {
    /// How long it is.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads it from its beginning.
    pub fn reader(&self) -> SpooledReader {
        SpooledReader { text: self.clone(), piece: 0, at: 0 }
    }
}

impl fmt::Debug for SpooledText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpooledText").field("len", &self.len).finish_non_exhaustive()
    }
}

impl PartialEq for SpooledText {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }
}

impl Eq for SpooledText {}

/// Reads a [`SpooledText`].
#[derive(Debug)]
pub struct SpooledReader {
    text: SpooledText,
    piece: usize,
    /// Read of that piece.
    at: usize,
}

impl Read for SpooledReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.text.pieces.get(self.piece) else { return Ok(0) };
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.at == piece.len {
            (self.piece, self.at) = (self.piece + 1, 0);
            return self.read(buffer);
        }
        let room = buffer.len().min(piece.len - self.at);
        match read_at(&self.text.file, &mut buffer[..room], piece.at + self.at as u64)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.at += read;
                Ok(read)
            }
        }
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, at)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, at)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => (bytes, at) = (&bytes[written..], at + written as u64),
        }
    }
    Ok(())
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, at)
}
