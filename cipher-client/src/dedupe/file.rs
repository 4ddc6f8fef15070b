//! The records on disk: a file that is appended to, and the one before it.
//!
//! ```text
//! 0          8        24       32        64
//! | CMQSEEN1 | salt   | check  | record  | record  | …
//! ```
//!
//! A file holds as many records as the window; then it becomes `.old`, in place
//! of the one that was, and a new one is begun. Both together hold the window.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::record::{RECORD_LEN, Record, SALT_LEN, Salt};
use super::{DedupeOptions, not_ours};
use crate::error::{Error, Result};
use crate::files;

/// When a note is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Handed to the system: a note survives the end of the process, not a
    /// loss of power.
    #[default]
    Written,
    /// Synced with every note: survives a loss of power, and takes as long as
    /// the disk does.
    Synced,
}

/// What was found when a window's files were opened.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Notes read, those past their time included.
    pub records: u64,
    /// Notes that are damaged and were passed over.
    pub damaged: u64,
    /// Bytes cut off the end: a note that a crash left incomplete.
    pub cut_bytes: u64,
}

/// The file that is appended to, and where the one before it is.
pub(super) struct RecordFiles {
    path: PathBuf,
    file: File,
    salt: Salt,
    /// Records in `file`, damaged ones included.
    count: u64,
    count_max: u64,
    durability: Durability,
    /// A write failed and may have left part of a record behind the last one.
    is_torn: bool,
}

impl RecordFiles {
    /// Opens or begins the files at `path` and gives each record to `found`,
    /// the oldest first.
    pub(super) fn open(path: &Path, options: DedupeOptions, mut found: impl FnMut(Record)) -> Result<(Self, Recovery)> {
        remove_if_there(&beside(path, NEW))?;
        let mut recovery = Recovery::default();
        let old = read_if_there(&beside(path, OLD), &mut recovery, &mut found)?;
        let current = read_if_there(path, &mut recovery, &mut found)?;
        let (file, salt, len) = match (current, old) {
            (Some(current), Some(old)) if current.salt != old.salt => {
                return Err(not_ours(path, "not of one window with the .old file beside it"));
            }
            (Some(current), _) => (current.file, current.salt, current.len),
            // A crash came between the two steps of a turn, or it is the first start.
            (None, Some(old)) => (begin(path, old.salt)?, old.salt, HEADER_LEN),
            (None, None) => {
                let salt = Salt::random()?;
                (begin(path, salt)?, salt, HEADER_LEN)
            }
        };
        let count = (len - HEADER_LEN) / RECORD_LEN as u64;
        let count_max = options.entries as u64;
        let path = path.to_owned();
        let mut files = Self { path, file, salt, count, count_max, durability: options.durability, is_torn: true };
        files.cut_torn_tail()?;
        Ok((files, recovery))
    }

    pub(super) fn salt(&self) -> Salt {
        self.salt
    }

    /// Adds a record. After an error it is not there.
    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        if self.is_torn {
            self.cut_torn_tail()?;
        }
        if self.count >= self.count_max {
            self.turn()?;
        }
        self.is_torn = true;
        self.write(&self.salt.encode(record)).map_err(|fault| Error::io("cannot be written", &self.path, fault))?;
        self.is_torn = false;
        self.count += 1;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|fault| Error::io("cannot be synced", &self.path, fault))
    }

    fn write(&mut self, record: &[u8; RECORD_LEN]) -> io::Result<()> {
        self.file.write_all(record)?;
        match self.durability {
            Durability::Written => Ok(()),
            Durability::Synced => self.file.sync_data(),
        }
    }

    /// Puts the end of the file behind the last whole record.
    fn cut_torn_tail(&mut self) -> Result<()> {
        let len = HEADER_LEN + self.count * RECORD_LEN as u64;
        let cut = self.file.set_len(len).and_then(|()| self.file.seek(SeekFrom::Start(len)));
        cut.map_err(|fault| Error::io("cannot be cut to its last whole record", &self.path, fault))?;
        self.is_torn = false;
        Ok(())
    }

    /// Makes the full file the old one and begins another. A turn that failed
    /// half way is taken up where it stopped.
    fn turn(&mut self) -> Result<()> {
        self.sync()?;
        match fs::rename(&self.path, beside(&self.path, OLD)) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("cannot be renamed to .old", &self.path, fault));
            }
            _ => self.file = begin(&self.path, self.salt)?,
        }
        self.count = 0;
        Ok(())
    }
}

/// Ending of the name of the file before this one.
const OLD: &str = ".old";
/// Ending of the name of a file whose header is not yet on disk.
const NEW: &str = ".new";

const MAGIC: &[u8; 8] = b"CMQSEEN1";
const HEADER_LEN: u64 = 32;
const CHECK_AT: usize = MAGIC.len() + SALT_LEN;

/// A file as far as it is good.
struct Found {
    file: File,
    salt: Salt,
    /// Up to the end of the last good record.
    len: u64,
}

/// Begins a file under `path`; the name appears when the header is on disk.
fn begin(path: &Path, salt: Salt) -> Result<File> {
    let new = beside(path, NEW);
    remove_if_there(&new)?;
    let begin = || {
        let mut file = files::create_new(&new, 0o600)?;
        file.write_all(&header(salt))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        files::sync_parent(path)?;
        Ok(file)
    };
    begin().map_err(|fault| Error::io("cannot be begun", path, fault))
}

fn read_if_there(path: &Path, recovery: &mut Recovery, found: &mut impl FnMut(Record)) -> Result<Option<Found>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(Error::io("cannot be opened", path, fault)),
    };
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let salt = read_header(&mut reader, path)?;
    let len =
        read_records(&mut reader, salt, recovery, found).map_err(|fault| Error::io("cannot be read", path, fault))?;
    Ok(Some(Found { file: reader.into_inner(), salt, len }))
}

const READ_BYTES: usize = 256 << 10;

fn read_header(reader: &mut impl Read, path: &Path) -> Result<Salt> {
    let mut bytes = [0; HEADER_LEN as usize];
    reader.read_exact(&mut bytes).map_err(|_| not_ours(path, NOT_A_WINDOW))?;
    let salt = bytes[MAGIC.len()..CHECK_AT].try_into().map(Salt);
    match salt {
        Ok(salt) if header(salt) == bytes => Ok(salt),
        _ => Err(not_ours(path, NOT_A_WINDOW)),
    }
}

const NOT_A_WINDOW: &str = "not a file of seen messages, or its first 32 bytes are damaged";

/// Gives the good records on and says where the last one ends.
fn read_records(
    reader: &mut impl Read,
    salt: Salt,
    recovery: &mut Recovery,
    found: &mut impl FnMut(Record),
) -> io::Result<u64> {
    let (mut at, mut good_end, mut damaged) = (HEADER_LEN, HEADER_LEN, 0);
    loop {
        let mut bytes = [0; RECORD_LEN];
        let read = read_up_to(reader, &mut bytes)?;
        at += read as u64;
        if read < RECORD_LEN {
            // Damaged ones at the very end are what a crash left.
            recovery.cut_bytes += at - good_end;
            return Ok(good_end);
        }
        match salt.decode(&bytes) {
            Some(record) => {
                found(record);
                good_end = at;
                recovery.records += 1;
                recovery.damaged += damaged;
                damaged = 0;
            }
            None => damaged += 1,
        }
    }
}

/// Fills `bytes` unless the end comes first; says how much was read.
fn read_up_to(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match reader.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(len)
}

fn header(salt: Salt) -> [u8; HEADER_LEN as usize] {
    let mut bytes = [0; HEADER_LEN as usize];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[MAGIC.len()..CHECK_AT].copy_from_slice(&salt.0);
    let check = Sha256::digest(&bytes[..CHECK_AT]);
    let room = bytes.len() - CHECK_AT;
    bytes[CHECK_AT..].copy_from_slice(&check[..room]);
    bytes
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot be removed", path, fault)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT_OF_TESTS: Salt = Salt([9; SALT_LEN]);

    fn record(n: u8) -> Record {
        SALT_OF_TESTS.record("id", &[n; 32], 1)
    }

    /// A disk that takes part of a record and then fails, and later works again.
    #[test]
    fn what_a_failed_write_left_is_cut_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        drop(begin(&path, SALT_OF_TESTS).unwrap());
        let (mut files, _) = RecordFiles::open(&path, DedupeOptions::default(), |_| ()).unwrap();
        files.append(&record(1)).unwrap();

        let mut writable = std::mem::replace(&mut files.file, File::open(&path).unwrap());
        assert!(files.append(&record(2)).is_err(), "the handle is read-only");
        writable.write_all(&[0xff; RECORD_LEN / 2]).unwrap();
        files.file = writable;
        files.append(&record(3)).unwrap();

        let mut found = Vec::new();
        let (_, recovery) = RecordFiles::open(&path, DedupeOptions::default(), |record| found.push(record)).unwrap();
        assert_eq!(found, [record(1), record(3)]);
        assert_eq!(recovery, Recovery { records: 2, ..Recovery::default() });
    }
}
