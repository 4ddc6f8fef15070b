//! The keys of one receiver: one that senders seal to, and those before it.
//!
//! A keyset makes a change of keys the normal case. [`Keyset::rotate`] puts a
//! new key in front; the one before opens what is still queued, until
//! [`Keyset::prune`] deletes it, after which nothing that was sealed to it can
//! ever be read again.

mod home;
mod manifest;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::key_files::KeyFileOptions;
use super::keys::{KeyKind, PrivateKey};
use super::kid::Kid;
use super::passphrase::Passphrase;
use crate::error::{Error, ErrorKind, Result};
use home::Home;
use manifest::Manifest;

/// Most keys of a keyset. It bounds what a message without a key id costs: an
/// unwrap with each RSA key of its size.
pub const KEYSET_KEYS_MAX: usize = 16;

/// One primary and several retired private keys, found by their [`Kid`].
///
/// In memory ([`Keyset::new`]) or in a directory ([`Keyset::create`],
/// [`Keyset::open`]); what changes the second changes the directory first.
pub struct Keyset {
    /// The primary first.
    entries: Vec<Entry>,
    home: Option<Home>,
}

struct Entry {
    key: PrivateKey,
    /// When another key took its place; `None` for the primary.
    retired: Option<SystemTime>,
}

/// A key of a keyset in a directory, as its manifest has it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysetEntry {
    /// Its name.
    pub kid: Kid,
    /// What kind of key it is.
    pub kind: KeyKind,
    /// When it became the primary.
    pub since: SystemTime,
    /// When another took its place; `None` for the primary.
    pub retired: Option<SystemTime>,
    /// The private key's file.
    pub private: PathBuf,
    /// The public key's file.
    pub public: PathBuf,
}

impl Keyset {
    /// A keyset in memory.
    pub fn new(primary: PrivateKey) -> Self {
        Self { entries: vec![Entry { key: primary, retired: None }], home: None }
    }

    /// Adds a key that opens, and that nothing is sealed to any more, to a
    /// keyset in memory. Its retirement counts from now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for a key that is there, for more than
    /// [`KEYSET_KEYS_MAX`], and for a keyset in a directory.
    pub fn with_retired(mut self, key: PrivateKey) -> Result<Self> {
        self.check_room_for(&key)?;
        if self.home.is_some() {
            let reason = "a keyset in a directory takes keys by rotate";
            return Err(ErrorKind::Option { option: "keys", reason }.into());
        }
        self.entries.insert(1, Entry { key, retired: Some(SystemTime::now()) });
        Ok(self)
    }

    /// Begins a keyset in a directory, which is made if need be and has mode 0700
    /// then; one that is there is empty, or has it. With a passphrase, its
    /// private keys are written under it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]; [`ErrorKind::File`] if there is a keyset, or if others
    /// can use the directory.
    pub fn create(dir: impl AsRef<Path>, primary: PrivateKey, passphrase: Option<Passphrase>) -> Result<Self> {
        Self::create_at(dir.as_ref(), primary, passphrase, SystemTime::now())
    }

    fn create_at(dir: &Path, key: PrivateKey, passphrase: Option<Passphrase>, now: SystemTime) -> Result<Self> {
        let home = Home::create(dir, &key, passphrase, now)?;
        Ok(Self { home: Some(home), ..Self::new(key) })
    }

    /// Opens the keyset in a directory; its keys are not encrypted. Files that
    /// others can read are taken, with a warning in the log.
    ///
    /// # Errors
    ///
    /// As [`Keyset::open_with`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, KeyFileOptions::default())
    }

    /// Opens the keyset in a directory. The passphrase is kept, for keys that
    /// [`Keyset::rotate`] writes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]; [`ErrorKind::File`] for a directory that holds no
    /// keyset or a damaged one; what [`PrivateKey::from_file_with`] says of a
    /// key, with the file named.
    pub fn open_with(dir: impl AsRef<Path>, options: KeyFileOptions) -> Result<Self> {
        let home = Home::open(dir.as_ref(), options)?;
        Ok(Self { entries: entries_of(&home)?, home: Some(home) })
    }

    /// Reads the directory again if another program has changed it, and says
    /// whether it had. An [`Opener`](super::Opener) made before does not know
    /// the new keys.
    ///
    /// # Errors
    ///
    /// As [`Keyset::open_with`]; the keyset is as it was.
    pub fn reload(&mut self) -> Result<bool> {
        let Some(home) = &mut self.home else { return Ok(false) };
        let Some(before) = home.reread()? else { return Ok(false) };
        match entries_of(home) {
            Ok(entries) => self.entries = entries,
            Err(fault) => {
                home.put_back(before);
                return Err(fault);
            }
        }
        Ok(true)
    }

    /// What a directory holds, the primary first, without opening any key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn list(dir: impl AsRef<Path>) -> Result<Vec<KeysetEntry>> {
        let dir = dir.as_ref();
        let manifest = Manifest::read(dir)?;
        let entry = |line: &manifest::Line| KeysetEntry {
            kid: line.kid,
            kind: line.kind,
            since: line.since,
            retired: line.retired,
            private: home::private_path(dir, &line.kid),
            public: home::public_path(dir, &line.kid),
        };
        Ok(manifest.live().map(entry).collect())
    }

    /// Whether a directory holds a keyset.
    pub fn is_at(dir: impl AsRef<Path>) -> bool {
        Manifest::path(dir.as_ref()).is_file()
    }

    /// The key that senders are to use.
    pub fn primary(&self) -> &PrivateKey {
        &self.entries[0].key
    }

    /// The key of this name, primary or retired.
    pub fn get(&self, kid: &Kid) -> Option<&PrivateKey> {
        self.keys().find(|key| key.kid() == kid)
    }

    /// All keys, the primary first, then as they were retired, the last first.
    pub fn keys(&self) -> impl Iterator<Item = &PrivateKey> {
        self.entries.iter().map(|entry| &entry.key)
    }

    /// When the key of this name was retired; `None` if it is the primary or
    /// not here.
    pub fn retired(&self, kid: &Kid) -> Option<SystemTime> {
        self.entries.iter().find(|entry| entry.key.kid() == kid)?.retired
    }

    /// Makes `key` the primary and retires the one that was. In a directory
    /// this happens whole or not at all, and is on disk before this returns.
    ///
    /// Give senders the new public key afterwards, so that nothing is sealed to
    /// a key that nobody holds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for a key that is there and for more than
    /// [`KEYSET_KEYS_MAX`]; [`ErrorKind::Io`]; [`ErrorKind::File`] if another
    /// program has changed the directory since.
    pub fn rotate(&mut self, key: PrivateKey) -> Result<()> {
        self.rotate_at(key, SystemTime::now())
    }

    fn rotate_at(&mut self, key: PrivateKey, now: SystemTime) -> Result<()> {
        self.check_room_for(&key)?;
        if let Some(home) = &mut self.home {
            home.rotate(&key, now)?;
        }
        self.entries[0].retired = Some(now);
        self.entries.insert(0, Entry { key, retired: None });
        Ok(())
    }

    /// Deletes the private keys retired for `retention` or longer, and names
    /// them. Take the longest time that a message can wait, dead-letter queues
    /// included: what is still sealed to such a key is lost.
    ///
    /// In a directory a file is overwritten and removed. A disk that writes
    /// elsewhere than it is told (flash, copy on write, snapshots) may keep its
    /// bytes all the same; a passphrase on the keys covers that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]; [`ErrorKind::File`] if another program has changed the
    /// directory since. What was begun is carried on by the next call.
    pub fn prune(&mut self, retention: Duration) -> Result<Vec<Kid>> {
        self.prune_at(SystemTime::now(), retention)
    }

    fn prune_at(&mut self, now: SystemTime, retention: Duration) -> Result<Vec<Kid>> {
        let is_over = |entry: &Entry| entry.retired.is_some_and(|retired| age(retired, now) >= Some(retention));
        let over: Vec<Kid> = self.entries.iter().filter(|entry| is_over(entry)).map(|entry| *entry.key.kid()).collect();
        if let Some(home) = &mut self.home {
            home.delete(&over)?;
        }
        self.entries.retain(|entry| !over.contains(entry.key.kid()));
        Ok(over)
    }

    fn check_room_for(&self, key: &PrivateKey) -> Result<()> {
        let reason = match () {
            () if self.get(key.kid()).is_some() => "this key is in the keyset",
            () if self.entries.len() >= KEYSET_KEYS_MAX => "at most 16: prune the keyset first",
            () => return Ok(()),
        };
        Err(ErrorKind::Option { option: "keys", reason }.into())
    }
}

/// Those of the manifest, each read from its file.
fn entries_of(home: &Home) -> Result<Vec<Entry>> {
    let entry = |line: &manifest::Line| Ok(Entry { key: home.read_key(line)?, retired: line.retired });
    home.manifest().live().map(entry).collect()
}

impl From<PrivateKey> for Keyset {
    fn from(key: PrivateKey) -> Self {
        Self::new(key)
    }
}

/// `None` when the clock has been set back behind `since`: nothing is deleted then.
fn age(since: SystemTime, now: SystemTime) -> Option<Duration> {
    now.duration_since(since).ok()
}

fn not_a_keyset(path: &Path, reason: &'static str) -> Error {
    ErrorKind::File { reason, path: path.display().to_string() }.into()
}

#[cfg(test)]
mod tests;
