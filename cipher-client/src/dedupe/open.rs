//! Finding a window's files, whatever state they are in.
//!
//! `path` is the ring of records. `path` + `.index` says where in it they are;
//! it is derived, and locked while the window is open. Other names are steps on
//! the way: `.new` is not finished, `.old` is of format 1, `.damaged` was put
//! aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::record::Salt;
use super::ring::{DATA_AT, HEADER_BLOCK, Header, MAGIC, NEW, NewRing, Ring, unreadable};
use super::shape::Shape;
use super::store::Store;
use super::{Recovery, beside, format1, positioned, remove_if_there};
use crate::error::{Error, ErrorKind, Result};

/// Opens or begins the window at `path`.
pub(super) fn open(path: &Path, shape: Shape) -> Result<(Store, Recovery)> {
    // A file that is refused gets none beside it.
    look(path)?;
    let index_path = beside(path, INDEX);
    let index = lock(&index_path)?;
    remove_if_there(&beside(path, NEW))?;
    let mut recovery = Recovery::default();
    let mut ring = match look(path)? {
        Found::Ring(ring, is_whole) => {
            if !is_whole {
                ring.repair_header()?;
                recovery.header_repaired = true;
            }
            // What the step from format 1 left, if a crash stopped it there.
            if format1::salt(&beside(path, format1::OLD)) == Some(ring.salt) {
                remove_if_there(&beside(path, format1::OLD))?;
            }
            reshaped(ring, shape)?
        }
        Found::Format1(salt) => convert(path, salt, shape, &mut recovery)?,
        Found::Nothing => NewRing::begin(path, Salt::random()?, shape)?.finish()?,
        Found::Damaged => {
            put_aside(path)?;
            recovery.set_aside = true;
            NewRing::begin(path, Salt::random()?, shape)?.finish()?
        }
    };
    ring.shape.entries = shape.entries;
    let mut found = Recovery::default();
    let store = Store::load(ring, (index, index_path), &mut found)?;
    if recovery.converted == 0 {
        recovery.records = found.records;
    }
    recovery.damaged += found.damaged;
    recovery.cut_bytes += found.cut_bytes;
    Ok((store, recovery))
}

/// The path of a window that is the same however it is written.
pub(super) fn canonical(path: &Path) -> Result<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent).map_err(|fault| Error::io("directory cannot be found", path, fault))?;
    match path.file_name() {
        Some(name) => Ok(parent.join(name)),
        None => Err(refused(path, "not the name of a file")),
    }
}

/// Ending of the name of the derived file.
const INDEX: &str = ".index";

/// What is at the path of a window.
enum Found {
    Nothing,
    /// A ring, and whether both copies of its header are good.
    Ring(Ring, bool),
    Format1(Salt),
    /// A window whose header says nothing any more.
    Damaged,
}

fn lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|fault| Error::io("cannot be opened", path, fault))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(refused(path, "in use by another process")),
        Err(TryLockError::Error(fault)) => Err(Error::io("cannot be locked", path, fault)),
    }
}

fn look(path: &Path) -> Result<Found> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            let old = format1::salt(&beside(path, format1::OLD));
            return Ok(old.map_or(Found::Nothing, Found::Format1));
        }
        Err(fault) => return Err(Error::io("cannot be opened", path, fault)),
    };
    let mut bytes = vec![0; DATA_AT as usize];
    let len = positioned::read_up_to(&file, &mut bytes, 0).map_err(|fault| unreadable(path, fault))?;
    bytes.truncate(len);
    if let Some((header, is_whole)) = Header::read(&bytes) {
        return Ok(Found::Ring(Ring::new(path, file, header), is_whole));
    }
    // Both files of a window have the same salt.
    let salt = format1::salt(path).or_else(|| format1::salt(&beside(path, format1::OLD)));
    match salt {
        None if bytes.is_empty() => Ok(Found::Nothing),
        Some(salt) if bytes.is_empty() || is_like(&bytes, format1::MAGIC) => Ok(Found::Format1(salt)),
        _ if [MAGIC, format1::MAGIC].into_iter().any(|magic| is_like(&bytes, magic)) => Ok(Found::Damaged),
        _ => Err(refused(path, "not a file of seen messages")),
    }
}

/// Whether a file begins as ours do, or did before it was damaged.
fn is_like(bytes: &[u8], magic: &[u8; 8]) -> bool {
    [0, HEADER_BLOCK as usize].into_iter().filter_map(|at| bytes.get(at..)).any(|bytes| {
        let wrong: u32 = bytes.iter().zip(magic).map(|(byte, wanted)| (byte ^ wanted).count_ones()).sum();
        bytes.len() >= magic.len() && wrong <= WRONG_BITS_MAX
    })
}

/// Flipped bits in 64 that do not make another file of ours; in foreign ones
/// half of them differ.
const WRONG_BITS_MAX: u32 = 8;

/// The ring with room for as many messages as wanted.
fn reshaped(ring: Ring, shape: Shape) -> Result<Ring> {
    if (ring.shape.segment, ring.shape.segments) == (shape.segment, shape.segments) {
        return Ok(ring);
    }
    let ends = ring.ends()?;
    let mut new = NewRing::begin(ring.path(), ring.salt, shape)?;
    ring.for_each(ends.oldest..ends.head, |_, record| record.map_or(Ok(()), |record| new.push(&record)))?;
    new.finish()
}

fn convert(path: &Path, salt: Salt, shape: Shape, recovery: &mut Recovery) -> Result<Ring> {
    let mut new = NewRing::begin(path, salt, shape)?;
    let old = beside(path, format1::OLD);
    if format1::salt(&old).is_some_and(|other| other != salt) {
        return Err(refused(path, "not of one window with the .old file beside it"));
    }
    for part in [&old, path] {
        format1::for_each(part, salt, recovery, |record| new.push(record))?;
    }
    let ring = new.finish()?;
    remove_if_there(&old)?;
    Ok(ring)
}

fn put_aside(path: &Path) -> Result<()> {
    let names = (1..=ASIDE_MAX).map(|n| beside(path, &format!(".damaged{n}")));
    let free = names.into_iter().find(|name| !name.exists());
    let to = free.ok_or_else(|| refused(path, "damaged, and too many were put aside already"))?;
    tracing::warn!(path = %path.display(), to = %to.display(), "header damaged: put aside, beginning a new window");
    fs::rename(path, &to).map_err(|fault| Error::io("cannot be put aside", path, fault))
}

const ASIDE_MAX: u32 = 100;

pub(super) fn refused(path: &Path, reason: &'static str) -> Error {
    ErrorKind::File { reason, path: path.display().to_string() }.into()
}
