//! What opens an encrypted key file.

use std::path::Path;

use zeroize::Zeroizing;

use super::key_files::{self, Exposed};
use crate::error::{Error, ErrorKind, Result};

/// A passphrase, wiped when dropped. It comes from a file, an environment
/// variable or a prompt; nowhere is there a way to give it as an argument of a
/// program, which every user of the machine could read.
///
/// Like a key it cannot be shown, copied or compared by accident:
///
/// ```compile_fail,E0277
/// # let passphrase = cipher_client::crypto::Passphrase::new("correct horse").unwrap();
/// println!("{passphrase:?}");
/// ```
/// ```compile_fail,E0599
/// # let passphrase = cipher_client::crypto::Passphrase::new("correct horse").unwrap();
/// let copy = passphrase.clone();
/// ```
/// ```compile_fail,E0277
/// # let passphrase = cipher_client::crypto::Passphrase::new("correct horse").unwrap();
/// serde_json::to_string(&passphrase);
/// ```
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// Longest passphrase in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

impl Passphrase {
    /// Takes the bytes over; they are wiped when this is dropped. OpenSSL and
    /// others hand on what was typed as UTF-8.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for an empty one and for more than 1,024 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = Zeroizing::new(bytes.into());
        if !(1..=PASSPHRASE_BYTES_MAX).contains(&bytes.len()) {
            return Err(ErrorKind::Option { option: "passphrase", reason: "1 to 1024 bytes" }.into());
        }
        Ok(Self(bytes))
    }

    /// The first line of a file, without its end. A file that others than its
    /// owner can read is taken, with a warning in the log.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`], and as [`Passphrase::new`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(path.as_ref(), Exposed::Warn)
    }

    /// As [`Passphrase::from_file`], and a file that others can read is refused.
    ///
    /// # Errors
    ///
    /// As [`Passphrase::from_file`].
    pub fn from_file_strict(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(path.as_ref(), Exposed::Refuse)
    }

    fn read(path: &Path, exposed: Exposed) -> Result<Self> {
        let text = key_files::read_secret(path, exposed)?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
        Self::new(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|fault| {
            let path = path.display().to_string();
            Error::with_source(ErrorKind::File { reason: "the first line is no passphrase", path }, fault)
        })
    }

    /// The value of an environment variable. Child processes inherit it, and
    /// the same user can read it in `/proc`; a file of mode 0600 is better.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] if it is not set, and as [`Passphrase::new`].
    pub fn from_env(name: &str) -> Result<Self> {
        match std::env::var_os(name) {
            Some(value) => Self::new(value.into_encoded_bytes()),
            None => {
                Err(ErrorKind::Option { option: "passphrase", reason: "the environment variable is not set" }.into())
            }
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
