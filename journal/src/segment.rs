use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::io::Errno;

use crate::frame::Checks;
use crate::{DiskFile, Position};

/// A file that is part of the log.
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) checks: Checks,
    pub(crate) len: u64,
}

impl Segment {
    pub(crate) fn base(&self) -> u64 {
        self.checks.base
    }

    /// The base of the segment behind this one. No position is ever given out twice, so it is the end of the file that counts,
    /// not that of its frames.
    pub(crate) fn next_base(&self) -> u64 {
        self.base() + self.len
    }
}

/// A file that is not part of the log and may become a segment. What is in it means nothing.
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
}

/// The segments entries may be read from. Whoever reads holds on to a segment only while reading: a file nobody holds on to can be used again.
#[derive(Default)]
pub(crate) struct Segments(RwLock<BTreeMap<u64, Arc<Segment>>>);

impl Segments {
    pub(crate) fn insert(&self, segment: &Arc<Segment>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(segment.base(), Arc::clone(segment));
    }

    pub(crate) fn remove(&self, base: u64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&base);
    }

    /// The segment in which `position` lies.
    pub(crate) fn at(&self, position: Position) -> Option<Arc<Segment>> {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (_, segment) = segments.range(..=position.0).next_back()?;
        (position.0 < segment.next_base()).then(|| Arc::clone(segment))
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
}

/// The name of the segment with this base.
pub(crate) fn segment_name(base: u64) -> String {
    format!("{base:016x}.log")
}

/// The base of the segment with this name; `None` for all other files.
pub(crate) fn segment_base(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    let base = u64::from_str_radix(digits, 16).ok()?;
    // A sign, or capitals, make another name of it.
    (segment_name(base) == name).then_some(base)
}

pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number}.log")
}

/// The number of the spare with this name; `None` for all other files.
pub(crate) fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.strip_suffix(".log")?.parse().ok()
}

/// What failed, and where.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) doing: &'static str,
    pub(crate) name: String,
    pub(crate) source: io::Error,
}

impl Failure {
    pub(crate) fn new(doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure { doing, name: name.to_owned(), source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { doing, name, source } = self;
        write!(f, "{doing} {name}: {source}")
    }
}

impl From<Failure> for crate::OpenError {
    fn from(Failure { doing, name, source }: Failure) -> crate::OpenError {
        crate::OpenError::Io { doing, name, source }
    }
}

/// Whether there is no room for another file now: the disk, or somebody's share of it, is full, or so many files are open that
/// there can be no further one.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    let is_full =
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
    let too_many_files = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    is_full || too_many_files.contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        assert_eq!(segment_name(0x1000), "0000000000001000.log");
        assert_eq!(segment_base("0000000000001000.log"), Some(0x1000));
        for other in ["1000.log", "000000000000100G.log", "00000000000010AB.log", "+000000000001000.log", "LOCK"] {
            assert_eq!(segment_base(other), None, "{other}");
        }
        assert_eq!(spare_number(&spare_name(12)), Some(12));
        assert_eq!(spare_number("0000000000001000.log"), None);
    }

    #[test]
    fn too_many_open_files_are_no_failure_of_the_disk() {
        assert!(is_no_room(&Errno::MFILE.into()) && is_no_room(&Errno::NOSPC.into()));
        assert!(!is_no_room(&Errno::IO.into()));
    }
}
