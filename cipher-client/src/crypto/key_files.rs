//! Key files: who may read them, and that none is ever overwritten.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::keys::PrivateKey;
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Name of the private key's file, as the originals have it.
pub const PRIVATE_KEY_FILE: &str = "receiver_private.pem";
/// Name of the public key's file, as the originals have it.
pub const PUBLIC_KEY_FILE: &str = "receiver_public.pem";

/// Longest key file that is read.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Where a key pair was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPairPaths {
    /// PKCS#8, readable by the owner only.
    pub private: PathBuf,
    /// SPKI, readable by all.
    pub public: PathBuf,
}

/// Writes `receiver_private.pem` (PKCS#8, mode 0600) and `receiver_public.pem`
/// (SPKI, mode 0644) into `dir`, which is made if need be.
///
/// PKCS#8 rather than the originals' PKCS#1: it is what OpenSSL writes, names its
/// algorithm, and their `import_key` reads both. Both files are on disk before
/// this returns.
///
/// # Errors
///
/// [`ErrorKind::Io`]; a file that exists is left as it is.
pub fn write_key_pair(dir: impl AsRef<Path>, key: &PrivateKey) -> Result<KeyPairPaths> {
    let dir = dir.as_ref();
    let private = dir.join(PRIVATE_KEY_FILE);
    let public = dir.join(PUBLIC_KEY_FILE);
    fs::create_dir_all(dir).map_err(|fault| Error::io("cannot make the folder", dir, fault))?;
    // Looked at before anything is written: half a pair would be a new private
    // key beside an old public one.
    if public.exists() {
        return Err(Error::io("not overwritten", &public, std::io::ErrorKind::AlreadyExists.into()));
    }
    write_new(&private, 0o600, key.to_pem()?.as_bytes())?;
    write_new(&public, 0o644, key.public_key().to_pem()?.as_bytes())?;
    files::sync_parent(&public).map_err(|fault| Error::io("cannot be synced", dir, fault))?;
    Ok(KeyPairPaths { private, public })
}

/// Reads a key file into a buffer that is wiped.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let fault = |fault| Error::io("cannot be read", path, fault);
    let file = File::open(path).map_err(fault)?;
    // As large as it can get from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(fault)?;
    if text.len() as u64 > KEY_FILE_BYTES_MAX {
        let path = path.display().to_string();
        return Err(ErrorKind::File { reason: "too long for a key", path }.into());
    }
    Ok(text)
}

/// Logs a warning if others than the owner can read the file.
pub(super) fn warn_if_exposed(path: &Path) {
    if is_exposed(path) {
        let path = path.display();
        tracing::warn!(%path, "private key can be read by others than its owner; chmod 600 it");
    }
}

#[cfg(unix)]
fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_exposed(_: &Path) -> bool {
    false
}

/// Creates, writes and syncs; what was begun and failed is removed again.
fn write_new(path: &Path, mode: u32, text: &[u8]) -> Result<()> {
    let mut file = files::create_new(path, mode).map_err(|fault| Error::io("cannot be created", path, fault))?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(|fault| {
        let _ = fs::remove_file(path);
        Error::io("cannot be written", path, fault)
    })
}
