use std::io;
use std::sync::Arc;

mod file;
#[cfg(any(test, feature = "simulation"))]
mod memory;

pub use file::FileDisk;
#[cfg(any(test, feature = "simulation"))]
pub use memory::{Call, CallKind, Crash, MemoryDisk, Stop, Times, Unsynced};

/// A directory of files: all the journal asks of an operating system.
///
/// Names are plain file names. What is not synced may be lost, in whole or in part, when power fails; a process that is killed
/// loses nothing it has written.
pub trait Disk: Send + Sync + 'static {
    /// The names of all files, in no order.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a file of `len` bytes, all of them written and synced: writing into it later needs no space. The name is durable
    /// after [`Disk::sync_names`]. A file of that name must not be there.
    ///
    /// # Errors
    /// As the system says; nothing of the file is left then, unless the process dies.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file; durable after [`Disk::sync_names`].
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; durable after [`Disk::sync_names`]. Whoever has it open can still read it.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_names(&self) -> io::Result<()>;

    /// Keeps `bytes` beside the files, for a human: nothing here ever reads them again. Returns when they are on disk. What was
    /// kept under this name before stays as it is, and the answer is false; a name is there with all its bytes or not at all.
    ///
    /// # Errors
    /// As the system says; nothing is kept then.
    fn keep_aside(&self, name: &str, bytes: &[u8]) -> io::Result<bool>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// As the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at `offset` until `into` is full or the file ends; how many bytes it read.
    ///
    /// # Errors
    /// As the system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the system says; any part of it may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was written is on disk.
    ///
    /// # Errors
    /// As the system says. After an error nobody knows what is on disk.
    fn sync(&self) -> io::Result<()>;
}
