//! An append-only log of opaque entries, shared by every connection of a broker.
//!
//! The promise, in five lines:
//! 1. [`Journal::submit`] hands entries over and returns a [`Receipt`] at once; it never waits.
//! 2. Entries get consecutive [`Position`]s in the order of submission, across all submitters.
//! 3. Each entry is made durable, then given to [`Commit::commit`], in order of position, by one thread at a time.
//! 4. A receipt completes after the commit of its last entry; the submitter's [`Doorbell`] rings.
//! 5. After the first failure nothing is committed any more: entries go to [`Commit::refuse`], receipts fail. A panic of
//!    the owner is such a failure.
//!
//! What is not here: queues, messages, names. The log knows its entries only as `E`.
//!
//! [`Journal::open`] keeps the log on disk, [`Journal::memory`] in memory, where "durable" means "until the process ends".
//! docs/journal-format.md has the bytes, and why recovery is right.

mod append;
mod disk;
mod doorbell;
mod entry;
mod frame;
mod frames;
mod front;
mod header;
mod jobs;
mod journal;
mod judge;
mod load;
mod log;
mod memory;
mod open;
mod options;
mod reader;
mod recovery;
mod report;
mod retention;
mod room;
mod segment;
mod space;
#[cfg(test)]
mod testing;
mod turn;
mod writer;

/// The version of the format on disk that this version writes, and the newest it reads. A change of the format that this version
/// could not read raises it; a version reads all formats up to its own, and refuses newer ones. Flags of records that it does
/// not know count as damage, so a new flag raises it, too.
pub const FORMAT_VERSION: u32 = 2;

#[cfg(any(test, feature = "simulation"))]
pub use disk::{Call, CallKind, Crash, MemoryDisk, Stop, Times, Unsynced};
pub use disk::{Disk, DiskFile, FileDisk};
pub use doorbell::Doorbell;
pub use entry::{Commit, Durability, Entry, Owner, Position, Undecodable};
pub use journal::{Figures, Health, Journal, NoRoom, Pace, Receipt, Simulation, Unavailable};
pub use open::scan;
pub use options::JournalOptions;
pub use reader::{ReadError, Reader};
pub use report::{Finding, FindingKind, OpenError, RecordKind, Report, Scanned};
pub use space::Space;
