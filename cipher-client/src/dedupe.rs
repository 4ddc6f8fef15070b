//! What a receiver has already taken: the last step to "exactly once".
//!
//! "Exactly once" is at-least-once delivery plus idempotent publish plus durable
//! dedupe at the receiver. This is the third part. The broker delivers a message
//! again when it did not see the acknowledgement, and somebody who carries a
//! message can send it twice, also under another id; a [`DedupeWindow`] knows
//! both by the sender's message id and by what is unique to the sealing.
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
//! use cipher_client::crypto::Kid;
//! use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Freshness, MessageKey};
//!
//! # fn main() -> Result<(), cipher_client::Error> {
//! let mut window = DedupeWindow::in_memory(DedupeOptions::default())?;
//! let (id, uniqueness, now) = ("order-17", [7; 32], SystemTime::now());
//! assert_eq!(window.check_and_insert(id, &uniqueness, now)?, Freshness::Fresh);
//! assert_eq!(window.check_and_insert(id, &uniqueness, now)?, Freshness::Duplicate);
//!
//! // Another sender's message may have the same id.
//! let sender = Kid::from_bytes([1; 32]);
//! let key = MessageKey::new(id, &[8; 32]).signed_by(&sender);
//! assert_eq!(window.check_and_insert_key(&key, now)?, Freshness::Fresh);
//! # Ok(())
//! # }
//! ```

mod filter;
mod format1;
mod in_hand;
mod open;
mod places;
mod positioned;
mod recent;
mod record;
mod ring;
mod shape;
mod shared;
mod store;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::in_hand::SealingsInHand;
#[cfg(test)]
pub(crate) use self::positioned::faults::set_unreadable;
use self::recent::Recent;
use self::record::{Salt, Trait};
use self::shape::Shape;
use self::shared::SharedStore;
use crate::crypto::{Kid, Sender};
use crate::error::{Error, ErrorKind, Result};

/// Whether a message was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Freshness {
    /// Not seen, and now noted.
    Fresh,
    /// Its id was seen before from its sender, or, if it is not signed, its
    /// sealing was.
    Duplicate,
}

/// What a message is recognised by.
///
/// Ask with it when the message is authenticated, not before: who can put ids
/// into the window keeps out the messages that have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageKey<'a> {
    sender: Option<&'a Kid>,
    message_id: &'a str,
    uniqueness: &'a [u8; 32],
}

impl<'a> MessageKey<'a> {
    /// An unsigned message: its id, and the nonce and tag, or the commitment,
    /// of its sealing ([`Opened::uniqueness`](crate::crypto::Opened)).
    pub fn new(message_id: &'a str, uniqueness: &'a [u8; 32]) -> Self {
        Self { sender: None, message_id, uniqueness }
    }

    /// The same message, its signature by this key verified. Ids of different
    /// senders, and of unsigned messages, are different ids.
    pub fn signed_by(self, kid: &'a Kid) -> Self {
        Self { sender: Some(kid), ..self }
    }

    /// The same message, from this sender as an opening found it. One whose
    /// signature could not be verified counts as unsigned.
    pub fn sent_by(self, sender: &'a Sender) -> Self {
        match sender {
            Sender::Signed(kid) => self.signed_by(kid),
            Sender::Unsigned | Sender::Unknown(_) => self,
        }
    }
}

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
    /// Bytes of a note that a crash left incomplete.
    pub cut_bytes: u64,
    /// Notes taken over from files of the format before this one.
    pub converted: u64,
    /// One of the two copies of the header was damaged, and written anew.
    pub header_repaired: bool,
    /// Both were: the file got another name, which ends in `.damaged` and a
    /// number, and the window began empty.
    pub set_aside: bool,
}

/// The bounds of a [`DedupeWindow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupeOptions {
    /// Messages remembered; the oldest makes room. 1,000,000. In a file each
    /// takes 38 bytes of disk and 5 of memory, without a file 48 of memory.
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

/// Largest `entries`: 3.8 GB of file, or 4.8 GB of memory without one.
const ENTRIES_MAX: usize = 100_000_000;

/// Remembers messages by sender and id and by their sealing, within bounds.
///
/// A file is used by one process at a time. Windows that one process opens on
/// the same file are one, with the `entries` of the first. A child of `fork` has
/// none: what it asks of a window of its parent is an [`ErrorKind::File`].
pub struct DedupeWindow {
    salt: Salt,
    options: DedupeOptions,
    kept: Kept,
}

enum Kept {
    InMemory(Recent),
    InFile(SharedStore),
}

impl DedupeWindow {
    /// A window that ends with the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`], [`ErrorKind::Random`].
    pub fn in_memory(options: DedupeOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { salt: Salt::random()?, options, kept: Kept::InMemory(Recent::new(options.entries)) })
    }

    /// A window kept in the file `path`, mode 0600, with an index beside it
    /// named `path` + `.index`. Damage costs the damaged notes, and
    /// [`recovery`](Self::recovery) tells. Files of the format before are
    /// taken over, and so is one of another size.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`]; [`ErrorKind::Io`], also for a part of the file that
    /// the disk does not give: the window does not open without it, since what it
    /// forgets would be taken again. [`ErrorKind::File`] if the file is something
    /// else, and is left as it is, or if another process uses it.
    pub fn open(path: impl AsRef<Path>, options: DedupeOptions, now: SystemTime) -> Result<Self> {
        options.check()?;
        let store = SharedStore::open(path.as_ref(), Shape::of(options.entries as u64))?;
        let salt = {
            let mut store = store.lock()?;
            while store.forget(options.window_secs(), unix_secs(now)) {}
            store.salt()
        };
        Ok(Self { salt, options, kept: Kept::InFile(store) })
    }

    /// Looks for an unsigned message and notes it if it is new. On `Fresh` the
    /// note is in the file, so that what is handed over now is not handed over
    /// again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: not noted, and not to be handed over.
    pub fn check_and_insert(&mut self, message_id: &str, uniqueness: &[u8; 32], now: SystemTime) -> Result<Freshness> {
        self.check_and_insert_key(&MessageKey::new(message_id, uniqueness), now)
    }

    /// As [`check_and_insert`](Self::check_and_insert), for any sender.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check_and_insert_key(&mut self, key: &MessageKey<'_>, now: SystemTime) -> Result<Freshness> {
        let (record, traits) = (self.salt.record(key, unix_secs(now)), Trait::of(key));
        let window_secs = self.options.window_secs();
        match &mut self.kept {
            Kept::InMemory(recent) => {
                if recent.contains(&record, traits, |known, _| !known.is_expired(window_secs, record.seen)) {
                    return Ok(Freshness::Duplicate);
                }
                recent.drop_expired(window_secs, record.seen);
                recent.insert(record);
            }
            Kept::InFile(store) => {
                let mut store = store.lock()?;
                if store.contains(&record, traits, window_secs)? {
                    return Ok(Freshness::Duplicate);
                }
                store.insert(&record, window_secs, self.options.durability)?;
            }
        }
        Ok(Freshness::Fresh)
    }

    /// Whether an unsigned message was noted, by its id or by its sealing. One
    /// that cannot be looked up because the disk fails counts as not noted;
    /// noting it fails then.
    pub fn contains(&self, message_id: &str, uniqueness: &[u8; 32], now: SystemTime) -> bool {
        self.contains_key(&MessageKey::new(message_id, uniqueness), now).unwrap_or(false)
    }

    /// Whether a message was noted, for any sender.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: not known.
    pub fn contains_key(&self, key: &MessageKey<'_>, now: SystemTime) -> Result<bool> {
        let (record, traits) = (self.salt.record(key, unix_secs(now)), Trait::of(key));
        let window_secs = self.options.window_secs();
        match &self.kept {
            Kept::InMemory(recent) => {
                Ok(recent.contains(&record, traits, |known, _| !known.is_expired(window_secs, record.seen)))
            }
            Kept::InFile(store) => store.lock()?.contains(&record, traits, window_secs),
        }
    }

    /// Notes an unsigned message; in the file, if there is one, when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: not noted.
    pub fn insert(&mut self, message_id: &str, uniqueness: &[u8; 32], now: SystemTime) -> Result<()> {
        self.insert_key(&MessageKey::new(message_id, uniqueness), now)
    }

    /// As [`insert`](Self::insert), for any sender.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn insert_key(&mut self, key: &MessageKey<'_>, now: SystemTime) -> Result<()> {
        self.check_and_insert_key(key, now).map(|_| ())
    }

    /// Waits until all notes are on disk, whatever the durability.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn sync(&mut self) -> Result<()> {
        match &self.kept {
            Kept::InMemory(_) => Ok(()),
            Kept::InFile(store) => store.lock()?.sync(),
        }
    }

    /// Messages remembered, those past their time and not yet dropped included.
    pub fn len(&self) -> usize {
        match &self.kept {
            Kept::InMemory(recent) => recent.len(),
            Kept::InFile(store) => store.lock().map_or(0, |store| store.len()),
        }
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was found when the file was opened.
    pub fn recovery(&self) -> Recovery {
        match &self.kept {
            Kept::InMemory(_) => Recovery::default(),
            Kept::InFile(store) => store.recovery(),
        }
    }
}

/// Seconds since 1970, as records keep them: until 2106.
fn unix_secs(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
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
