//! Files that must not be readable by others, and names that must last.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Creates a file that does not exist, never readable by more than `mode` says.
pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)
}

/// A file that other processes are kept from, by its lock, until this is dropped.
///
/// It is given back by word: closing would leave it with a process that was
/// forked meanwhile, which has the file open too, for as long as that lives. Not
/// for what a child inherits and drops: it would give back the parent's.
pub(crate) struct Locked(File);

impl Locked {
    /// Waits for the others, so long and no longer.
    pub(crate) fn within(file: File, wait_max: Duration) -> Result<Self, TryLockError> {
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if start.elapsed() < wait_max => thread::sleep(LOCK_PAUSE),
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Does not wait.
    pub(crate) fn now(file: File) -> Result<Self, TryLockError> {
        file.try_lock().map(|()| Self(file))
    }
}

/// Between two looks at a lock that others hold.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

impl Drop for Locked {
    fn drop(&mut self) {
        // What is not given back here ends with the file.
        let _ = self.0.unlock();
    }
}

/// Makes names created or renamed beside `path` last.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(dir) = path.parent() {
        File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a fork leaves with the child is what `try_clone` makes.
    #[test]
    fn a_lock_is_given_back_though_a_child_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = || File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        let file = open();
        let inherited = file.try_clone().unwrap();
        let held = Locked::now(file).unwrap();
        assert!(matches!(Locked::now(open()), Err(TryLockError::WouldBlock)));
        drop(held);
        drop(Locked::now(open()).unwrap());
        drop(Locked::within(open(), Duration::ZERO).unwrap());
        drop(inherited);
    }
}
