use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::{Disk, DiskFile};

/// A directory of the file system, for one process at a time.
///
/// ```text
/// <dir>/LOCK      locked while a process has the directory open; holds its process id
/// <dir>/log/      the files of [`Disk`]
/// <dir>/aside/    what was kept by [`Disk::keep_aside`]
/// ```
///
/// Only the user the process runs as can read any of it.
#[derive(Debug)]
pub struct FileDisk {
    log: PathBuf,
    aside: PathBuf,
    access: Access,
    /// The lock ends when this is closed, however the process ends. Who only looks takes none.
    lock: Option<File>,
    /// The directory `log`, open: its names must be synced even when no further file can be opened.
    names: Option<File>,
}

/// What may be done with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Write,
    Look,
}

impl FileDisk {
    /// Opens the directory, making it if it is not there, and locks it.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`], naming the directory and the process, if another process has it open; otherwise as the
    /// system says.
    pub fn open(dir: &Path) -> io::Result<FileDisk> {
        let (log, aside) = (dir.join("log"), dir.join("aside"));
        make_dir(dir).map_err(|error| about("make", dir, &error))?;
        let mut options = new_file_options();
        options.create(true);
        let lock = lock(dir, &options)?;
        write_process_id(&lock).map_err(|error| about("write", &dir.join("LOCK"), &error))?;
        for sub in [&log, &aside] {
            make_dir(sub).map_err(|error| about("make", sub, &error))?;
        }
        // A process that died here may have made them without this.
        sync_dir(dir).map_err(|error| about("sync", dir, &error))?;
        let names = File::open(&log).map_err(|error| about("open", &log, &error))?;
        Ok(FileDisk { log, aside, access: Access::Write, lock: Some(lock), names: Some(names) })
    }

    /// Opens the directory for reading, also beside a process that writes to it: takes no lock and makes nothing. Whatever would change it fails with [`ErrorKind::ReadOnlyFilesystem`], but for
    /// [`Disk::keep_aside`], which only tells whether it would.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the directory is not there; otherwise as the system says.
    pub fn open_to_look(dir: &Path) -> io::Result<FileDisk> {
        let log = dir.join("log");
        log.read_dir().map_err(|error| about("read", &log, &error))?;
        Ok(FileDisk { log, aside: dir.join("aside"), access: Access::Look, lock: None, names: None })
    }

    fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Look => Err(io::Error::new(ErrorKind::ReadOnlyFilesystem, "opened only to be looked at")),
        }
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // Nobody shall be told of a process that is long gone; if this fails, somebody is.
            let _ = lock.set_len(0);
        }
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.log.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is not UTF-8 is none of ours.
                names.extend(entry.file_name().to_str().map(str::to_owned));
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(self.access == Access::Write).open(self.log.join(name))?;
        Ok(Arc::new(LogFile(file)))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.writable()?;
        let path = self.log.join(name);
        let file = new_file_options().create_new(true).open(&path)?;
        match fill(&file, &path, len) {
            Ok(()) => Ok(Arc::new(LogFile(file))),
            Err(error) => {
                // The first error tells more than one of removing would.
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writable()?;
        std::fs::rename(self.log.join(from), self.log.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        std::fs::remove_file(self.log.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.writable()?;
        self.names.as_ref().map_or(Ok(()), File::sync_all)
    }

    fn keep_aside(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let path = self.aside.join(name);
        let is_kept = path.try_exists()?;
        if self.access == Access::Look || is_kept {
            return Ok(!is_kept);
        }
        // One name for all: an unfinished copy is overwritten by the next.
        let unfinished = self.aside.join(UNFINISHED);
        let mut file = new_file_options().create(true).truncate(true).open(&unfinished)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        match written.and_then(|()| std::fs::rename(&unfinished, &path)) {
            Ok(()) => sync_dir(&self.aside).map(|()| true),
            Err(error) => {
                let _ = std::fs::remove_file(&unfinished);
                Err(error)
            }
        }
    }
}

struct LogFile(File);

impl DiskFile for LogFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.0.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Writes `len` zeros and syncs them.
///
/// The space is asked for first, in one piece: a full disk says so before megabytes are written, and the file is not in pieces.
fn fill(file: &File, path: &Path, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, len).map_err(io::Error::from) {
        Err(error) if !is_unsupported(&error) => return Err(error),
        _ => {}
    }
    // Past the page cache if the file system can: the pages are of no use to anybody, and the writer's sync of another
    // file does not wait behind them.
    match fill_directly(path, len) {
        Err(error) if is_unsupported(&error) => write_zeros(file, len)?,
        filled => filled?,
    }
    file.sync_all()
}

fn fill_directly(path: &Path, len: u64) -> io::Result<()> {
    if !len.is_multiple_of(DIRECT_ALIGN as u64) {
        return Err(ErrorKind::Unsupported.into());
    }
    // Linux's flags are small positive numbers.
    let flags = OFlags::DIRECT.bits() as i32;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    write_zeros(&file, len)
}

fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    // Direct writes want memory at a multiple of the block size.
    let zeros = vec![0; FILL_BYTES + DIRECT_ALIGN];
    let start = zeros.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
    let zeros = &zeros[start..start + FILL_BYTES];
    let mut offset = 0;
    while offset < len {
        let part = zeros.len().min(usize::try_from(len - offset).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

/// How file systems say that they have no direct writes or cannot allocate in advance.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
}

fn new_file_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes a directory that outlives a power failure, with all above it.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    make_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn lock(dir: &Path, options: &OpenOptions) -> io::Result<File> {
    let path = dir.join("LOCK");
    let file = options.open(&path).map_err(|error| about("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(about("lock", &path, &error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The error is the lock; whose it is, is an extra.
            let _ = file.take(PROCESS_ID_LEN_MAX).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                id => format!("process {id}"),
            };
            Err(io::Error::new(ErrorKind::ResourceBusy, format!("{} is in use by {holder}", dir.display())))
        }
    }
}

fn write_process_id(mut lock: &File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all(format!("{}\n", std::process::id()).as_bytes())
}

/// The same kind of error, with what was being done to which file.
fn about(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}

/// Direct writes begin, end and lie in memory at multiples of this, which no disk's block size exceeds.
const DIRECT_ALIGN: usize = 4096;

/// Zeros written by one call: large enough that the disk, not the call, is what takes time.
const FILL_BYTES: usize = 1 << 20;

/// A process id and a line end.
const PROCESS_ID_LEN_MAX: u64 = 32;

const UNFINISHED: &str = "unfinished";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn opened() -> (tempfile::TempDir, FileDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(&dir.path().join("a/b")).unwrap();
        (dir, disk)
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_written_is_read_back_under_the_new_name() {
        let (_dir, disk) = opened();
        for len in [1, 4096, 3 * 4096 + 17, 3 << 20] {
            let file = disk.create("one", len).unwrap();
            assert_eq!(file.len().unwrap(), len);
            let mut all = vec![1; len as usize + 1];
            assert_eq!(file.read_at(0, &mut all).unwrap(), len as usize);
            assert!(all[..len as usize].iter().all(|byte| *byte == 0));
            file.write_at(0, b"x").unwrap();
            file.sync().unwrap();
            disk.rename("one", "two").unwrap();
            disk.sync_names().unwrap();
            assert_eq!(disk.list().unwrap(), ["two"]);
            let mut first = [0];
            disk.open("two").unwrap().read_at(0, &mut first).unwrap();
            assert_eq!(&first, b"x");
            disk.remove("two").unwrap();
            file.read_at(0, &mut first).unwrap();
            assert_eq!(&first, b"x", "who has it open still reads it");
        }
    }

    #[test]
    fn a_file_of_that_name_is_never_overwritten() {
        let (_dir, disk) = opened();
        disk.create("one", 4096).unwrap().write_at(0, b"x").unwrap();
        assert_eq!(disk.create("one", 4096).err().unwrap().kind(), ErrorKind::AlreadyExists);
        let mut first = [0];
        disk.open("one").unwrap().read_at(0, &mut first).unwrap();
        assert_eq!(&first, b"x");
    }

    #[test]
    fn nothing_is_left_of_a_file_that_does_not_fit() {
        let (_dir, disk) = opened();
        let error = disk.create("huge", 1 << 50).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::FileTooLarge), "{error}");
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn the_second_to_open_is_told_who_was_first() {
        let (dir, disk) = opened();
        let path = dir.path().join("a/b");
        let error = FileDisk::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        let text = error.to_string();
        assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        drop(disk);
        FileDisk::open(&path).unwrap();
    }

    #[test]
    fn looking_changes_nothing_and_keeps_nobody_out() {
        let (dir, disk) = opened();
        disk.create("one", 4096).unwrap();
        let looking = FileDisk::open_to_look(&dir.path().join("a/b")).unwrap();
        assert_eq!(looking.list().unwrap(), ["one"]);
        assert!(looking.open("one").unwrap().write_at(0, b"x").is_err());
        let refused = [looking.create("two", 1).err(), looking.rename("one", "two").err(), looking.remove("one").err()];
        assert!(refused.into_iter().all(|error| error.unwrap().kind() == ErrorKind::ReadOnlyFilesystem));
        looking.keep_aside("three", b"x").unwrap();
        drop(disk);
        FileDisk::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(dir.path().join("a/b/aside").read_dir().unwrap().count(), 0);
        assert_eq!(
            FileDisk::open_to_look(&dir.path().join("nothing")).unwrap_err().kind(),
            ErrorKind::NotFound,
            "a directory that is not there is not made"
        );
    }

    #[test]
    fn what_is_kept_aside_stays_as_it_was_first() {
        let (dir, disk) = opened();
        assert!(disk.keep_aside("cut", b"first").unwrap());
        assert!(!disk.keep_aside("cut", b"second").unwrap());
        assert!(disk.keep_aside("other", b"third").unwrap());
        let aside = dir.path().join("a/b/aside");
        assert_eq!(std::fs::read(aside.join("cut")).unwrap(), b"first");
        assert_eq!(aside.read_dir().unwrap().count(), 2, "no unfinished copy is left");
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn nobody_else_can_read_any_of_it() {
        let (dir, disk) = opened();
        disk.create("one", 4096).unwrap();
        disk.keep_aside("cut", b"x").unwrap();
        let root = dir.path().join("a/b");
        for sub in ["", "log", "aside"] {
            assert_eq!(mode(&root.join(sub)), 0o700, "{sub}");
        }
        for file in ["LOCK", "log/one", "aside/cut"] {
            assert_eq!(mode(&root.join(file)), 0o600, "{file}");
        }
    }
}
