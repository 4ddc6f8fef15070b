//! Small files that must be whole, the writer's alone, and last.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, Locked};

/// Held while a file is read, changed and written; other processes wait.
pub(super) struct Lock(#[expect(dead_code, reason = "unlocks when dropped")] Locked);

impl Lock {
    /// Waits for the lock that `path` stands for, within bounds; the file stays.
    pub(super) fn take(path: &Path) -> Result<Self> {
        Self::take_within(path, LOCK_WAIT_MAX)
    }

    fn take_within(path: &Path, wait_max: Duration) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|fault| Error::io("cannot be opened", path, fault))?;
        Locked::within(file, wait_max).map(Self).map_err(|fault| match fault {
            TryLockError::WouldBlock => damaged(path, HELD),
            TryLockError::Error(fault) => Error::io("cannot be locked", path, fault),
        })
    }
}

/// How long the lock is waited for. Who holds it reads and writes a small file;
/// one that was stopped in the middle of it must not stop the others for ever.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
const HELD: &str = "locked by another process for 10 seconds; find it (fuser names it) and end it, or try again";

/// Reads a file of at most `bytes_max`. `None`: there is none. A file that others
/// than its owner can change is refused: what it says decides who is believed.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Option<String>> {
    let fault = |fault| Error::io("cannot be read", path, fault);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    if is_writable_by_others(&file.metadata().map_err(fault)?) {
        return Err(damaged(path, "can be written by others than its owner; chmod 600 it"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > bytes_max {
        return Err(damaged(path, "longer than it can be"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| damaged(path, "not text"))
}

/// Puts a new file of mode 0600 in place of `path`: after a crash it is the old
/// one or the new one, whole. To be called with the lock held.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let replaced = remove_if_there(&new).and_then(|()| {
        let mut file = files::create_new(&new, 0o600)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        files::sync_parent(path)
    });
    replaced.map_err(|fault| Error::io("cannot be written", path, fault))
}

/// Removes a file, for good.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = remove_if_there(path).and_then(|()| files::sync_parent(path));
    removed.map_err(|fault| Error::io("cannot be removed", path, fault))
}

/// Makes a folder of mode 0700 if there is none. One that others than its owner
/// can change is refused: they could put another file in the place of any.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|fault| Error::io("cannot make the folder", path, fault))?;
    let folder = fs::metadata(path).map_err(|fault| Error::io("cannot be read", path, fault))?;
    match is_writable_by_others(&folder) {
        true => Err(damaged(path, "can be changed by others than its owner; chmod 700 it")),
        false => Ok(()),
    }
}

pub(super) fn damaged(path: &Path, reason: &'static str) -> Error {
    ErrorKind::File { reason, path: path.display().to_string() }.into()
}

/// The name of the lock of `path`.
pub(super) fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn is_writable_by_others(file: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.permissions().mode() & 0o022 != 0
}

#[cfg(not(unix))]
fn is_writable_by_others(_: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(read(&path, 10).unwrap(), None);
        // What a crash left behind is no hindrance.
        fs::write(path.with_extension("new"), "half").unwrap();
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(read(&path, 3).unwrap().as_deref(), Some("two"));
        assert!(read(&path, 2).is_err());
        assert!(!path.with_extension("new").exists());
        remove(&path).unwrap();
        assert_eq!(read(&path, 10).unwrap(), None);
    }

    #[test]
    fn a_lock_is_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path).unwrap();
        let error = Lock::take_within(&path, Duration::ZERO).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::File { reason: HELD, .. }), "{error}");
        let waits = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path).map(drop)
        });
        drop(held);
        waits.join().unwrap().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, "text").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path, 10).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::File { .. }), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path, 10).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_change_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for (mode, is_used) in [(0o770, false), (0o707, false), (0o1777, false), (0o755, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let made = make_dir(&path);
            assert_eq!(made.is_ok(), is_used, "{mode:o}");
            assert!(made.err().is_none_or(|error| matches!(error.kind(), ErrorKind::File { .. })));
        }
    }
}
