//! Reading and writing at a place, without a position that is shared.

use std::fs::File;
use std::io;

/// What failed, and at which byte of the file.
#[derive(Debug, thiserror::Error)]
#[error("at byte {at}: {fault}")]
pub(super) struct At {
    at: u64,
    #[source]
    fault: io::Error,
}

/// Fills `bytes` from `at` on as far as the file goes; says how much was read.
pub(super) fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> Result<usize, At> {
    let mut len = 0;
    while len < bytes.len() {
        let at = at + len as u64;
        match faults::room(at, &mut bytes[len..]).and_then(|bytes| read_some(file, bytes, at)) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(At { at, fault }),
        }
    }
    Ok(len)
}

/// Writes all of `bytes`, or a part of them and an error.
pub(super) fn write_all(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let fitting = faults::fitting(bytes);
    write_whole(file, fitting, at)?;
    if fitting.len() < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

#[cfg(not(test))]
mod faults {
    pub(super) fn room(_: u64, bytes: &mut [u8]) -> std::io::Result<&mut [u8]> {
        Ok(bytes)
    }

    pub(super) fn fitting(bytes: &[u8]) -> &[u8] {
        bytes
    }
}

#[cfg(unix)]
fn read_some(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, at)
}

#[cfg(unix)]
fn write_whole(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn read_some(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, at)
}

#[cfg(windows)]
fn write_whole(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => (bytes, at) = (&bytes[written..], at + written as u64),
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// A disk with a sector that cannot be read, or without room; for this thread.
#[cfg(test)]
pub(super) mod faults {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::ops::Range;

    thread_local! {
        static UNREADABLE: RefCell<Range<u64>> = const { RefCell::new(0..0) };
        static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(crate) fn set_unreadable(bytes: Range<u64>) {
        UNREADABLE.set(bytes);
    }

    /// Bytes that can be written before the disk is full.
    pub(in crate::dedupe) fn set_room(bytes: usize) {
        ROOM.set(bytes);
    }

    pub(super) fn room(at: u64, bytes: &mut [u8]) -> io::Result<&mut [u8]> {
        UNREADABLE.with_borrow(|bad| match bad.contains(&at) {
            true => Err(io::Error::from_raw_os_error(5)),
            false if bad.is_empty() || at >= bad.end => Ok(&mut *bytes),
            false => {
                let len = usize::try_from(bad.start - at).map_or(bytes.len(), |len| len.min(bytes.len()));
                Ok(&mut bytes[..len])
            }
        })
    }

    pub(super) fn fitting(bytes: &[u8]) -> &[u8] {
        let (fitting, _) = bytes.split_at(ROOM.get().min(bytes.len()));
        ROOM.set(ROOM.get().saturating_sub(fitting.len()));
        fitting
    }
}
