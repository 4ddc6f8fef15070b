//! A keyset's directory: mode 0700, a manifest, two files for each key.
//!
//! ```text
//! keyset                    which keys there are (manifest.rs)
//! key-<id>.pem              a private key, PKCS#8, 0600
//! key-<id>.public.pem       its public half, SPKI, 0644
//! lock                      held while the directory is changed
//! ```
//!
//! A key file is written and synced before the manifest names it, and removed
//! after the manifest has given it up. So a crash leaves at most a file that
//! nothing names, never a name without its file.

use std::fs::{self, File, TryLockError};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{Line, Manifest};
use super::not_a_keyset;
use crate::crypto::key_files::{self, Exposed, KeyFileOptions};
use crate::crypto::keys::PrivateKey;
use crate::crypto::kid::Kid;
use crate::crypto::passphrase::Passphrase;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, Locked};

pub(super) struct Home {
    dir: PathBuf,
    options: KeyFileOptions,
    /// As last read or written.
    manifest: Manifest,
}

impl Home {
    pub(super) fn create(
        dir: &Path,
        key: &PrivateKey,
        passphrase: Option<Passphrase>,
        now: SystemTime,
    ) -> Result<Self> {
        make_private_dir(dir)?;
        let _lock = lock(dir)?;
        if Manifest::path(dir).exists() {
            return Err(not_a_keyset(dir, "holds a keyset already"));
        }
        let options = match passphrase {
            Some(passphrase) => KeyFileOptions::default().with_passphrase(passphrase),
            None => KeyFileOptions::default(),
        };
        let home = Self { dir: dir.to_owned(), options, manifest: Manifest::new(*key.kid(), key.kind(), now) };
        home.write_key(key)?;
        home.manifest.write(dir)?;
        files::sync_parent(dir).map_err(|fault| Error::io("cannot be synced", dir, fault))?;
        Ok(home)
    }

    pub(super) fn open(dir: &Path, options: KeyFileOptions) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        key_files::check_dir(dir, options.exposed())?;
        Ok(Self { dir: dir.to_owned(), options, manifest })
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the manifest again; what it was before, if it is another one now.
    pub(super) fn reread(&mut self) -> Result<Option<Manifest>> {
        let now = Manifest::read(&self.dir)?;
        key_files::check_dir(&self.dir, self.options.exposed())?;
        Ok((now != self.manifest).then(|| std::mem::replace(&mut self.manifest, now)))
    }

    pub(super) fn put_back(&mut self, manifest: Manifest) {
        self.manifest = manifest;
    }

    /// Reads a key that the manifest names. A file may have been put in its
    /// place, and encryption with a passphrase does not notice changes: the id does.
    pub(super) fn read_key(&self, line: &Line) -> Result<PrivateKey> {
        let path = private_path(&self.dir, &line.kid);
        let key = PrivateKey::from_file_with(&path, &self.options).map_err(|fault| in_file(&path, fault))?;
        if *key.kid() != line.kid {
            return Err(not_a_keyset(&path, "another key than the keyset says"));
        }
        Ok(key)
    }

    pub(super) fn rotate(&mut self, key: &PrivateKey, now: SystemTime) -> Result<()> {
        let _lock = self.lock()?;
        self.write_key(key)?;
        let manifest = self.manifest.rotated(*key.kid(), key.kind(), now);
        if let Err(fault) = manifest.write(&self.dir) {
            self.take_back(key.kid());
            return Err(fault);
        }
        self.manifest = manifest;
        Ok(())
    }

    pub(super) fn delete(&mut self, kids: &[Kid]) -> Result<()> {
        let _lock = self.lock()?;
        if !kids.is_empty() {
            let manifest = self.manifest.with_deleted(kids);
            manifest.write(&self.dir)?;
            self.manifest = manifest;
        }
        self.remove_deleted()
    }

    /// Removes what the manifest has given up, then its lines.
    fn remove_deleted(&mut self) -> Result<()> {
        if self.manifest.deleted().next().is_none() {
            return Ok(());
        }
        for Line { kid, .. } in self.manifest.deleted() {
            wipe(&private_path(&self.dir, kid))?;
            remove(&public_path(&self.dir, kid))?;
        }
        files::sync_parent(&Manifest::path(&self.dir))
            .map_err(|fault| Error::io("cannot be synced", &self.dir, fault))?;
        let manifest = self.manifest.without_deleted();
        manifest.write(&self.dir)?;
        self.manifest = manifest;
        Ok(())
    }

    /// Locks the directory, if it is as it was when it was opened.
    fn lock(&self) -> Result<Locked> {
        let lock = lock(&self.dir)?;
        if Manifest::read(&self.dir)? != self.manifest {
            return Err(not_a_keyset(&self.dir, "changed by another program meanwhile, open it again"));
        }
        Ok(lock)
    }

    fn write_key(&self, key: &PrivateKey) -> Result<()> {
        let private = private_path(&self.dir, key.kid());
        let public = public_path(&self.dir, key.kid());
        // Left by a crash: the same public half, so nothing is lost.
        remove(&public)?;
        key_files::write_private(&private, key, self.options.passphrase())?;
        key_files::write_new(&public, 0o644, key.public_key().to_pem()?.as_bytes())?;
        files::sync_parent(&public).map_err(|fault| Error::io("cannot be synced", &self.dir, fault))
    }

    /// After a manifest that was not written: a private key that nothing names
    /// must not lie about. If the new manifest is there all the same, it stays.
    fn take_back(&self, kid: &Kid) {
        if Manifest::read(&self.dir).is_ok_and(|manifest| manifest == self.manifest) {
            let removed = wipe(&private_path(&self.dir, kid)).and_then(|()| remove(&public_path(&self.dir, kid)));
            if let Err(fault) = removed {
                tracing::warn!(%fault, %kid, "a key that is not in use could not be removed");
            }
        }
    }
}

pub(super) fn private_path(dir: &Path, kid: &Kid) -> PathBuf {
    dir.join(format!("key-{}.pem", bare(kid)))
}

pub(super) fn public_path(dir: &Path, kid: &Kid) -> PathBuf {
    dir.join(format!("key-{}.public.pem", bare(kid)))
}

fn bare(kid: &Kid) -> String {
    kid.to_string().split_off("sha256:".len())
}

fn make_private_dir(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|fault| Error::io("cannot make the folder", dir, fault))?;
    // One that was there may have any mode. An empty one is ours now; what is in another is not ours to hide.
    let is_empty = fs::read_dir(dir).map(|mut files| files.next().is_none());
    match is_empty.map_err(|fault| Error::io("cannot be read", dir, fault))? {
        true => set_private(dir).map_err(|fault| Error::io("cannot be made private", dir, fault)),
        false => key_files::check_dir(dir, Exposed::Refuse),
    }
}

#[cfg(unix)]
fn set_private(dir: &Path) -> std::io::Result<()> {
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

#[cfg(not(unix))]
fn set_private(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn lock(dir: &Path) -> Result<Locked> {
    let path = dir.join(LOCK);
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(|fault| Error::io("cannot be opened", &path, fault))?;
    match Locked::now(file) {
        Ok(locked) => Ok(locked),
        Err(TryLockError::WouldBlock) => Err(not_a_keyset(dir, "another program is changing it, try again")),
        Err(TryLockError::Error(fault)) => Err(Error::io("cannot be locked", &path, fault)),
    }
}

/// Overwrites and removes a file, if it is there.
fn wipe(path: &Path) -> Result<()> {
    let overwrite = |mut file: File| {
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(0))?;
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), len), &mut file)?;
        file.flush()?;
        file.sync_all()
    };
    match File::options().write(true).open(path).and_then(overwrite) {
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome.map_err(|fault| Error::io("cannot be overwritten", path, fault))?,
    }
    remove(path)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot be removed", path, fault)),
        _ => Ok(()),
    }
}

/// Which of several keys it is about; what a program decides on stays as it is.
fn in_file(path: &Path, fault: Error) -> Error {
    let reason = match fault.kind() {
        ErrorKind::Key { reason } => reason,
        _ => return fault,
    };
    not_a_keyset(path, reason)
}

const LOCK: &str = "lock";
