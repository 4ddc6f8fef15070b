use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::child::ServerProcess;

/// Where the brokers that a bench starts keep their messages.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In memory.
    Memory,
    /// In fresh directories below this one, removed when they are done with.
    Below(PathBuf),
}

/// A directory that is removed with its handle.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

/// A broker and what it keeps.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) server: ServerProcess,
    /// Removed after the process has ended: fields are dropped in order.
    _scratch: Option<Scratch>,
}

/// Flags of every broker that is measured: large enough for any run.
const FLAGS: [&str; 7] = ["serve", "--listen", "127.0.0.1:0", "--store-max-bytes", "1TiB", "--log", "error"];

impl Place {
    /// What the brokers' messages are kept in, for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Place::Memory => "in memory, nothing is synced".to_owned(),
            Place::Below(dir) => {
                let kind = if is_in_memory(dir) { " (a file system in MEMORY: syncs cost nothing there)" } else { "" };
                format!("in {}{kind}, synced before each answer", dir.display())
            }
        }
    }

    /// A fresh broker.
    pub(super) fn broker(&self) -> io::Result<Stored> {
        match self {
            Place::Memory => {
                let server = ServerProcess::start(&[&FLAGS[..], &["--memory"]].concat())?;
                Ok(Stored { server, _scratch: None })
            }
            Place::Below(dir) => {
                let scratch = Scratch::below(dir)?;
                let server = broker_in(scratch.path())?;
                Ok(Stored { server, _scratch: Some(scratch) })
            }
        }
    }
}

/// A broker that keeps its messages in `dir`, with what is there already.
pub(super) fn broker_in(dir: &Path) -> io::Result<ServerProcess> {
    let dir = dir.to_str().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a directory that is not UTF-8"))?;
    ServerProcess::start(&[&FLAGS[..], &["--data-dir", dir]].concat())
}

impl Scratch {
    /// A new directory below `dir`.
    pub(super) fn below(dir: &Path) -> io::Result<Scratch> {
        for number in 0_u32.. {
            let path = dir.join(format!("ciphermq-bench-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes of all files in it.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        bytes_in(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over lies in a temporary directory.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn bytes_in(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bytes_in(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

/// Whether files there live in memory.
#[allow(clippy::unnecessary_cast, reason = "the type of f_type differs between platforms")]
fn is_in_memory(dir: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    rustix::fs::statfs(dir).is_ok_and(|fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&(fs.f_type as i64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_directories_are_their_own_and_go_with_their_handle() {
        let below = std::env::temp_dir();
        let (one, two) = (Scratch::below(&below).unwrap(), Scratch::below(&below).unwrap());
        assert_ne!(one.path(), two.path());
        fs::create_dir(one.path().join("sub")).unwrap();
        fs::write(one.path().join("sub/file"), [0; 100]).unwrap();
        fs::write(one.path().join("file"), [0; 10]).unwrap();
        assert_eq!((one.bytes().unwrap(), two.bytes().unwrap()), (110, 0));
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }
}
