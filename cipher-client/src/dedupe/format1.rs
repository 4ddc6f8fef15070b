//! Reading the files of version 0.1 up to November 2026, to take them over.
//!
//! ```text
//! 0          8        24       32        64
//! | CMQSEEN1 | salt   | check  | record  | record  | …
//! record: | id hash (12) | uniq. hash (12) | seen u32 | check (4) |
//! ```
//!
//! A full file became `.old`, in place of the one that was, and a new one was
//! begun. The hashes are those of today's records of unsigned messages.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Recovery;
use super::record::{RECORD_LEN, Record, SALT_LEN, Salt, prefix};
use crate::error::{Error, Result};

pub(super) const MAGIC: &[u8; 8] = b"CMQSEEN1";
/// Ending of the name of the file before this one.
pub(super) const OLD: &str = ".old";

/// The salt, if `path` is such a file and its header is good.
pub(super) fn salt(path: &Path) -> Option<Salt> {
    read_salt(&mut File::open(path).ok()?)
}

/// Gives on the good records of the file, the oldest first. One that is not
/// there has none.
pub(super) fn for_each(
    path: &Path,
    salt: Salt,
    recovery: &mut Recovery,
    mut found: impl FnMut(&Record) -> Result<()>,
) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(fault) => return Err(Error::io("cannot be opened", path, fault)),
    };
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut damaged = 0;
    let mut header = [0; HEADER_LEN];
    let len = read_up_to(&mut reader, &mut header).map_err(|fault| Error::io("cannot be read", path, fault))?;
    recovery.cut_bytes += if len < HEADER_LEN { len as u64 } else { 0 };
    loop {
        let mut bytes = [0; RECORD_LEN];
        let len = read_up_to(&mut reader, &mut bytes).map_err(|fault| Error::io("cannot be read", path, fault))?;
        if len < RECORD_LEN {
            // Damaged ones at the very end are what a crash left.
            recovery.cut_bytes += damaged * RECORD_LEN as u64 + len as u64;
            return Ok(());
        }
        match decode(&bytes, salt) {
            Some(record) => {
                found(&record)?;
                recovery.records += 1;
                recovery.converted += 1;
                recovery.damaged += std::mem::take(&mut damaged);
            }
            None => damaged += 1,
        }
    }
}

const HEADER_LEN: usize = 32;
const READ_BYTES: usize = 256 << 10;
const HASH_LEN: usize = 12;
const SEEN_AT: usize = 2 * HASH_LEN;
const CHECK_AT: usize = SEEN_AT + 4;

fn read_salt(file: &mut impl Read) -> Option<Salt> {
    let mut bytes = [0; HEADER_LEN];
    file.read_exact(&mut bytes).ok()?;
    let (covered, check) = bytes.split_at(MAGIC.len() + SALT_LEN);
    let is_good = bytes.starts_with(MAGIC) && Sha256::digest(covered).starts_with(check);
    is_good.then(|| Salt(prefix(&covered[MAGIC.len()..])))
}

fn decode(bytes: &[u8; RECORD_LEN], salt: Salt) -> Option<Record> {
    let (covered, check) = bytes.split_at(CHECK_AT);
    let record = Record {
        id: prefix(covered),
        uniqueness: prefix(&covered[HASH_LEN..]),
        seen: u32::from_le_bytes(prefix(&covered[SEEN_AT..])),
    };
    salt.hash(b'c', &[], covered).starts_with(check).then_some(record)
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
