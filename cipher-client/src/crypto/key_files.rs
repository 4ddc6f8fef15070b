//! Key files: who may read them, and that none is ever overwritten.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::identity::Identity;
use super::keys::{PrivateKey, encrypted, pem};
use super::passphrase::Passphrase;
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Name of the private key's file, as the originals have it.
pub const PRIVATE_KEY_FILE: &str = "receiver_private.pem";
/// Name of the public key's file, as the originals have it.
pub const PUBLIC_KEY_FILE: &str = "receiver_public.pem";

/// Name of the file of an identity's private half.
pub const IDENTITY_FILE: &str = "sender_private.pem";
/// Name of the file of its public half.
pub const SENDER_KEY_FILE: &str = "sender_public.pem";

/// Longest key file that is read.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// How private key files are read.
#[derive(Default)]
pub struct KeyFileOptions {
    strict: bool,
    passphrase: Option<Passphrase>,
}

impl KeyFileOptions {
    /// Refuses files that others than their owner can read, instead of warning.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// Opens encrypted files with this passphrase; others are read as they are.
    #[must_use]
    pub fn with_passphrase(self, passphrase: Passphrase) -> Self {
        Self { passphrase: Some(passphrase), ..self }
    }

    /// The passphrase, if there is one.
    pub fn passphrase(&self) -> Option<&Passphrase> {
        self.passphrase.as_ref()
    }

    /// The same, for a file that is written next.
    #[must_use]
    pub fn into_passphrase(self) -> Option<Passphrase> {
        self.passphrase
    }

    pub(super) fn exposed(&self) -> Exposed {
        if self.strict { Exposed::Refuse } else { Exposed::Warn }
    }
}

/// What becomes of a secret that others than its owner can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposed {
    Warn,
    Refuse,
}

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
    write_pair(dir.as_ref(), key, None)
}

/// As [`write_key_pair`], the private key under a passphrase.
///
/// # Errors
///
/// As [`write_key_pair`].
pub fn write_encrypted_key_pair(
    dir: impl AsRef<Path>,
    key: &PrivateKey,
    passphrase: &Passphrase,
) -> Result<KeyPairPaths> {
    write_pair(dir.as_ref(), key, Some(passphrase))
}

/// Writes `sender_private.pem` and `sender_public.pem` as [`write_key_pair`]
/// writes the keys of a receiver, the private one under a passphrase if there is
/// one.
///
/// # Errors
///
/// As [`write_key_pair`].
pub fn write_identity(
    dir: impl AsRef<Path>,
    identity: &Identity,
    passphrase: Option<&Passphrase>,
) -> Result<KeyPairPaths> {
    let private = match passphrase {
        Some(passphrase) => Zeroizing::new(identity.to_encrypted_pem(passphrase)?),
        None => identity.to_pem()?,
    };
    let public = identity.sender_key().to_pem()?;
    write_texts(dir.as_ref(), (IDENTITY_FILE, &private), (SENDER_KEY_FILE, &public))
}

fn write_pair(dir: &Path, key: &PrivateKey, passphrase: Option<&Passphrase>) -> Result<KeyPairPaths> {
    let private = private_text(key, passphrase)?;
    let public = key.public_key().to_pem()?;
    write_texts(dir, (PRIVATE_KEY_FILE, &private), (PUBLIC_KEY_FILE, &public))
}

fn write_texts(dir: &Path, private: (&str, &str), public: (&str, &str)) -> Result<KeyPairPaths> {
    let paths = KeyPairPaths { private: dir.join(private.0), public: dir.join(public.0) };
    fs::create_dir_all(dir).map_err(|fault| Error::io("cannot make the folder", dir, fault))?;
    // Looked at before anything is written: half a pair would be a new private
    // key beside an old public one.
    for path in [&paths.private, &paths.public] {
        if path.exists() {
            let why = io::Error::new(io::ErrorKind::AlreadyExists, "there is a key already; choose another folder");
            return Err(Error::io("not overwritten", path, why));
        }
    }
    write_new(&paths.private, 0o600, private.1.as_bytes())?;
    write_new(&paths.public, 0o644, public.1.as_bytes())?;
    files::sync_parent(&paths.public).map_err(|fault| Error::io("cannot be synced", dir, fault))?;
    Ok(paths)
}

/// Writes a private key file anew: the same key under another passphrase, or
/// under none. The file is replaced in one step, after what was written has
/// been read back; its mode is 0600 then.
///
/// # Errors
///
/// As [`PrivateKey::from_file_with`], of which the key may also be one that
/// signs; the file is as it was.
pub fn change_passphrase(path: impl AsRef<Path>, read: &KeyFileOptions, new: Option<&Passphrase>) -> Result<()> {
    let path = path.as_ref();
    let pkcs8 = pem::private_der(&read_secret(path, read.exposed())?, read.passphrase())?;
    let text = match new {
        Some(passphrase) => Zeroizing::new(encrypted::to_pem(&pkcs8, passphrase)?),
        None => pem::private_text(&pkcs8)?,
    };
    if pem::private_der(text.as_bytes(), new)? != pkcs8 {
        return Err(Error::key("was not written as it was read"));
    }
    // In the same folder: a rename does not go from one disk to another.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    write_new(beside, 0o600, text.as_bytes())?;
    fs::rename(beside, path).map_err(|fault| Error::io("cannot be replaced", path, fault))?;
    files::sync_parent(path).map_err(|fault| Error::io("cannot be synced", path, fault))
}

/// Reads a key file into a buffer that is wiped.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    read_open(path, open(path)?)
}

/// Reads a file with a secret in it into a buffer that is wiped.
pub(super) fn read_secret(path: &Path, exposed: Exposed) -> Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    // Looked at through the open file: what has the name may change meanwhile.
    let metadata = file.metadata().map_err(|fault| Error::io("cannot be read", path, fault))?;
    check_exposed(path, &metadata, exposed, "can be read by others than its owner; chmod 600 it")?;
    read_open(path, file)
}

fn check_exposed(path: &Path, file: &Metadata, exposed: Exposed, reason: &'static str) -> Result<()> {
    if is_exposed(file) {
        let path = path.display();
        match exposed {
            Exposed::Warn => tracing::warn!(%path, "{reason}"),
            Exposed::Refuse => return Err(ErrorKind::File { reason, path: path.to_string() }.into()),
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|fault| Error::io("cannot be read", path, fault))
}

fn read_open(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>> {
    // As large as it can get from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    let read = file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|fault| Error::io("cannot be read", path, fault))?;
    if text.len() as u64 > KEY_FILE_BYTES_MAX {
        let path = path.display().to_string();
        return Err(ErrorKind::File { reason: "too long for a key", path }.into());
    }
    Ok(text)
}

#[cfg(unix)]
fn is_exposed(file: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_exposed(_: &Metadata) -> bool {
    false
}

/// Creates the file of a private key, encrypted if there is a passphrase.
pub(super) fn write_private(path: &Path, key: &PrivateKey, passphrase: Option<&Passphrase>) -> Result<()> {
    write_new(path, 0o600, private_text(key, passphrase)?.as_bytes())
}

fn private_text(key: &PrivateKey, passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>> {
    match passphrase {
        Some(passphrase) => key.to_encrypted_pem(passphrase).map(Zeroizing::new),
        None => key.to_pem(),
    }
}

/// Looks at who may list and change a directory of keys.
pub(super) fn check_dir(dir: &Path, exposed: Exposed) -> Result<()> {
    let file = fs::metadata(dir).map_err(|fault| Error::io("cannot be read", dir, fault))?;
    check_exposed(dir, &file, exposed, "others than its owner can use it; chmod 700 it")
}

/// Creates, writes and syncs; what was begun and failed is removed again.
pub(super) fn write_new(path: &Path, mode: u32, text: &[u8]) -> Result<()> {
    let mut file = files::create_new(path, mode).map_err(|fault| Error::io("cannot be created", path, fault))?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(|fault| {
        let _ = fs::remove_file(path);
        Error::io("cannot be written", path, fault)
    })
}
