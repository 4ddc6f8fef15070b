//! What a receiver has already taken: the last step to "exactly once".
//!
//! "Exactly once" is at-least-once delivery plus idempotent publish plus durable
//! dedupe at the receiver. This is the third part. The broker delivers a message
//! again when it did not see the acknowledgement, and somebody who carries a
//! message can send it twice, also under another id; a [`DedupeWindow`] knows
//! both by the message id and by the nonce and tag of the sealing.
//!
//! What it comes down to depends on the order of three steps: noting the message
//! here, doing the work, acknowledging to the broker.
//!
//! - *Note, work, acknowledge* ([`DedupeWindow::check_and_insert`] before the
//!   work): a crash between the first two steps loses the message for the work.
//! - *Look, work, note, acknowledge* ([`DedupeWindow::contains`], then
//!   [`DedupeWindow::insert`]): a crash between work and note does the work twice.
//!
//! Both are closed only by work that is noted in one step with its effect, as in
//! one transaction of a database.
//!
//! ```
//! use std::time::SystemTime;
//! use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Freshness};
//!
//! # fn main() -> Result<(), cipher_client::Error> {
//! let mut window = DedupeWindow::in_memory(DedupeOptions::default())?;
//! let (id, uniqueness, now) = ("order-17", [7; 32], SystemTime::now());
//! assert_eq!(window.check_and_insert(id, &uniqueness, now)?, Freshness::Fresh);
//! assert_eq!(window.check_and_insert(id, &uniqueness, now)?, Freshness::Duplicate);
//! # Ok(())
//! # }
//! ```

mod file;
mod index;
mod record;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::file::RecordFiles;
pub use self::file::{Durability, Recovery};
use self::index::Index;
use self::record::{Record, Salt};
use crate::error::{Error, ErrorKind, Result};

/// Whether a message was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Freshness {
    /// Not seen, and now noted.
    Fresh,
    /// Its id, or its nonce and tag, were seen before.
    Duplicate,
}

/// The bounds of a [`DedupeWindow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupeOptions {
    /// Messages remembered; the oldest makes room. 1,000,000, which take about
    /// 48 MB of memory and 32 to 64 MB of file.
    pub entries: usize,
    /// How long one is remembered. 24 hours.
    pub window: Duration,
    /// When a note is on disk. Of no meaning without a file.
    pub durability: Durability,
}

impl Default for DedupeOptions {
    fn default() -> Self {
        Self { entries: 1_000_000, window: Duration::from_secs(24 * 60 * 60), durability: Durability::default() }
    }
}

impl DedupeOptions {
    fn check(self) -> Result<()> {
        if !(1..=ENTRIES_MAX).contains(&self.entries) {
            let reason = "1 to 100000000";
            return Err(ErrorKind::Option { option: "entries", reason }.into());
        }
        Ok(())
    }

    fn window_secs(self) -> u32 {
        u32::try_from(self.window.as_secs()).unwrap_or(u32::MAX)
    }
}

/// Largest `entries`: 4.8 GB of memory.
const ENTRIES_MAX: usize = 100_000_000;

/// Remembers messages by id and by nonce and tag, within bounds.
///
/// One process at a time may use a file.
pub struct DedupeWindow {
    salt: Salt,
    window_secs: u32,
    index: Index,
    files: Option<RecordFiles>,
    recovery: Recovery,
}

impl DedupeWindow {
    /// A window that ends with the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`], [`ErrorKind::Random`].
    pub fn in_memory(options: DedupeOptions) -> Result<Self> {
        options.check()?;
        let index = Index::new(options.entries);
        let (salt, window_secs) = (Salt::random()?, options.window_secs());
        Ok(Self { salt, window_secs, index, files: None, recovery: Recovery::default() })
    }

    /// A window kept in the file `path`, mode 0600, and an older one beside it
    /// named `path` + `.old`. What a crash cut off at its end is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`], [`ErrorKind::Io`], [`ErrorKind::File`] if one of
    /// the files is something else: it is left as it is.
    pub fn open(path: impl AsRef<Path>, options: DedupeOptions, now: SystemTime) -> Result<Self> {
        options.check()?;
        let (mut index, window_secs) = (Index::new(options.entries), options.window_secs());
        let now = unix_secs(now);
        let (files, recovery) = RecordFiles::open(path.as_ref(), options, |record| {
            if !record.is_expired(window_secs, now) {
                index.insert(record);
            }
        })?;
        Ok(Self { salt: files.salt(), window_secs, index, files: Some(files), recovery })
    }

    /// Looks for a message and notes it if it is new. On `Fresh` the note is in
    /// the file, so that what is handed over now is not handed over again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: not noted, and not to be handed over.
    pub fn check_and_insert(&mut self, message_id: &str, uniqueness: &[u8; 32], now: SystemTime) -> Result<Freshness> {
        let record = self.salt.record(message_id, uniqueness, unix_secs(now));
        if self.index.contains(&record, self.window_secs) {
            return Ok(Freshness::Duplicate);
        }
        self.note(record)?;
        Ok(Freshness::Fresh)
    }

    /// Whether a message was noted, by its id or by its nonce and tag.
    pub fn contains(&self, message_id: &str, uniqueness: &[u8; 32], now: SystemTime) -> bool {
        let record = self.salt.record(message_id, uniqueness, unix_secs(now));
        self.index.contains(&record, self.window_secs)
    }

    /// Notes a message; in the file, if there is one, when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: not noted.
    pub fn insert(&mut self, message_id: &str, uniqueness: &[u8; 32], now: SystemTime) -> Result<()> {
        let record = self.salt.record(message_id, uniqueness, unix_secs(now));
        if self.index.contains(&record, self.window_secs) {
            return Ok(());
        }
        self.note(record)
    }

    /// Waits until all notes are on disk, whatever the durability.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn sync(&mut self) -> Result<()> {
        match &mut self.files {
            Some(files) => files.sync(),
            None => Ok(()),
        }
    }

    /// Messages remembered, those past their time and not yet dropped included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was found when the file was opened.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    fn note(&mut self, record: Record) -> Result<()> {
        if let Some(files) = &mut self.files {
            files.append(&record)?;
        }
        self.index.drop_expired(self.window_secs, record.seen);
        self.index.insert(record);
        Ok(())
    }
}

/// Seconds since 1970, as records keep them: until 2106.
fn unix_secs(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// An error about a file that is not what its name promises.
fn not_ours(path: &Path, reason: &'static str) -> Error {
    ErrorKind::File { reason, path: path.display().to_string() }.into()
}
