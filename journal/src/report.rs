use std::fmt;
use std::io;

/// What reading a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Good records, those of checkpoints included.
    pub records: u64,
    /// Bytes of payload in them.
    pub payload_bytes: u64,
    /// Segments read.
    pub segments: u64,
    /// Whether the log was closed in order the last time.
    pub closed: bool,
    /// Everything that was not as it was written, in log order.
    pub findings: Vec<Finding>,
    /// Why bytes of a finding could not be kept aside. They are still in their segment.
    pub aside_failed: Option<String>,
}

/// A stretch of a segment that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub segment: String,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// What is wrong.
    pub kind: FindingKind,
    /// An earlier opening has found and reported the same.
    pub known_before: bool,
}

/// What is wrong with a stretch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The end of a log whose process or machine stopped while it was written: nothing here was acknowledged. Left out.
    Torn,
    /// A record that may have been acknowledged cannot be read. It is left out, everything around it is kept.
    Damaged,
    /// One of two copies cannot be read; the other one was used. Nothing is lost.
    Copy,
    /// The padding behind a record is not zero. Nothing is lost.
    Padding,
    /// A record is whole, but its owner does not know what it means. Left out.
    Undecodable,
    /// Neither copy of a segment's header can be read: nothing in this file can. The file stays where it is.
    Header,
    /// The segment that stood in front of this one is not there.
    Missing,
}

impl FindingKind {
    /// Whether records that may have been acknowledged are lost.
    pub fn is_loss(self) -> bool {
        matches!(self, FindingKind::Damaged | FindingKind::Undecodable | FindingKind::Header | FindingKind::Missing)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FindingKind::Torn => "an unfinished write was cut",
            FindingKind::Damaged => "damaged, left out",
            FindingKind::Copy => "one of two copies is damaged, the other was used",
            FindingKind::Padding => "padding is damaged, nothing is lost",
            FindingKind::Undecodable => "not understood, left out",
            FindingKind::Header => "the segment's header is damaged, the file was not read",
            FindingKind::Missing => "the segment in front of this one is missing",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { segment, offset, len, kind, known_before } = self;
        write!(f, "{segment} at {offset}, {len} bytes: {kind}")?;
        if *known_before { f.write_str(" (reported before)") } else { Ok(()) }
    }
}

/// Why a log could not be opened. Damage is never a reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("{doing} {name}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The log was written by a newer version.
    #[error("{segment} has format version {version}; this version reads up to {known}", known = crate::FORMAT_VERSION)]
    Newer {
        /// The file.
        segment: String,
        /// Its version.
        version: u32,
    },
    /// There is no room for a segment to write into.
    #[error("the disk has no room for a segment of {bytes} bytes")]
    NoRoom {
        /// Its length.
        bytes: u64,
    },
}

/// A record or a finding, in log order; see [`scan`](crate::scan).
#[derive(Debug)]
pub enum Scanned<'a> {
    /// A good record.
    Record {
        /// The file it is in.
        segment: &'a str,
        /// Its position.
        position: crate::Position,
        /// What it is.
        kind: RecordKind,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// Something that is not as it was written.
    Finding(&'a Finding),
}

/// What a record is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An entry.
    Entry,
    /// An entry that was carried on from a dropped segment.
    Carried,
    /// An entry that opens a segment.
    Checkpoint,
}
