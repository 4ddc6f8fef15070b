//! `key show` and `key fingerprint`.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cipher_client::ErrorKind;
use cipher_client::crypto::{
    Identity, Keyset, KeysetEntry, Kid, PRIVATE_KEY_FILE, PemKind, PrivateKey, PublicKey, SenderKey,
};
use serde::Serialize;

use super::passphrase::{Exposed, options_for};
use super::{at, files};
use crate::cli::{Fault, KeyFingerprint, KeyShow, PassphraseFrom, Status};
use crate::inspect::Utc;
use crate::printable::{Printable, PrintableJson};

/// `ciphermq key show`.
pub(super) fn show(options: &KeyShow) -> Result<Status, Fault> {
    let mut stdout = io::stdout().lock();
    for path in &options.paths {
        for shown in shown(path, &options.passphrase)? {
            let written = match options.json {
                true => {
                    let line = serde_json::to_string(&shown).map_err(Fault::runtime)?;
                    writeln!(stdout, "{}", PrintableJson(&line))
                }
                false => write!(stdout, "{shown}"),
            };
            written.map_err(Fault::runtime)?;
        }
    }
    Ok(Status::Success)
}

/// `ciphermq key fingerprint`.
pub(super) fn fingerprint(options: &KeyFingerprint) -> Result<Status, Fault> {
    let mut stdout = io::stdout().lock();
    for path in &options.paths {
        let kid = match Keyset::is_at(path) {
            true => primary(path)?.kid.to_string(),
            false => read(path, &options.passphrase)?.1.kid.to_string(),
        };
        writeln!(stdout, "{kid}  {}", Printable(&path.to_string_lossy())).map_err(Fault::runtime)?;
    }
    Ok(Status::Success)
}

fn primary(dir: &Path) -> Result<KeysetEntry, Fault> {
    let keys = Keyset::list(dir).map_err(Fault::runtime)?;
    keys.into_iter().next().ok_or_else(|| Fault::runtime(format!("{}: holds no key", dir.display())))
}

/// What is told of a key.
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    kid: String,
    kind: String,
    half: &'static str,
    bits: usize,
    encrypted: bool,
    /// Of a key in a keyset: the file to give to senders.
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<PathBuf>,
    /// Of the file, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// Others than the owner can read a private key.
    exposed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired: Option<String>,
}

impl Shown {
    fn new(file: &Path, form: PemKind, key: Known) -> Shown {
        let mode = mode(file);
        let is_private = form != PemKind::Public;
        Shown {
            file: file.to_owned(),
            kid: key.kid.to_string(),
            kind: key.kind,
            half: if is_private { "private" } else { "public" },
            bits: key.bits,
            encrypted: form == PemKind::EncryptedPrivate,
            exposed: is_private && mode.is_some_and(|mode| mode & 0o077 != 0),
            public: None,
            mode: mode.map(|mode| format!("{mode:04o}")),
            status: None,
            since: None,
            retired: None,
        }
    }

    fn in_keyset(self, entry: &KeysetEntry) -> Shown {
        let status = if entry.retired.is_none() { "primary" } else { "retired" };
        let (since, retired) = (Some(utc(entry.since)), entry.retired.map(utc));
        Shown { public: Some(entry.public.clone()), status: Some(status), since, retired, ..self }
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let encrypted = if self.encrypted { ", encrypted" } else { "" };
        writeln!(f, "{}", Printable(&self.file.to_string_lossy()))?;
        writeln!(f, "  id      {}", self.kid)?;
        writeln!(f, "  kind    {} {} key, {} bits{encrypted}", self.kind, self.half, self.bits)?;
        if let Some(mode) = &self.mode {
            let advice = if self.exposed { ": others than its owner can read it; chmod 600 it" } else { "" };
            writeln!(f, "  mode    {mode}{advice}")?;
        }
        if let Some(public) = &self.public {
            writeln!(f, "  public  {}", Printable(&public.to_string_lossy()))?;
        }
        match (self.status, &self.since, &self.retired) {
            (Some(status), Some(since), None) => writeln!(f, "  status  {status} since {since}"),
            (Some(status), Some(since), Some(at)) => writeln!(f, "  status  {status} at {at}, primary since {since}"),
            _ => Ok(()),
        }
    }
}

fn shown(path: &Path, passphrase: &PassphraseFrom) -> Result<Vec<Shown>, Fault> {
    if !Keyset::is_at(path) {
        let (form, key) = read(path, passphrase)?;
        return Ok(vec![Shown::new(path, form, key)]);
    }
    let keys = Keyset::list(path).map_err(Fault::runtime)?;
    keys.iter().map(key_of_set).collect()
}

/// Told from the public half: no passphrase is needed.
fn key_of_set(entry: &KeysetEntry) -> Result<Shown, Fault> {
    let key = PublicKey::from_file(&entry.public).map_err(|fault| at(&entry.public, fault))?;
    if *key.kid() != entry.kid {
        return Err(Fault::runtime(format!("{}: another key than the keyset says", entry.public.display())));
    }
    let form = PemKind::of_file(&entry.private).map_err(|fault| at(&entry.private, fault))?;
    Ok(Shown::new(&entry.private, form, Known::from(&key)).in_keyset(entry))
}

/// What of a key is the same in both halves.
struct Known {
    kid: Kid,
    kind: String,
    bits: usize,
}

impl From<&PublicKey> for Known {
    fn from(key: &PublicKey) -> Known {
        Known { kid: *key.kid(), kind: key.kind().to_string(), bits: key.bits() }
    }
}

impl From<&SenderKey> for Known {
    fn from(key: &SenderKey) -> Known {
        Known { kid: *key.kid(), kind: "Ed25519".to_owned(), bits: 8 * key.as_bytes().len() }
    }
}

fn read(path: &Path, passphrase: &PassphraseFrom) -> Result<(PemKind, Known), Fault> {
    let form = files::form(path, PRIVATE_KEY_FILE)?;
    let known = match form {
        PemKind::Public => {
            let key = PublicKey::from_file(path).map(|key| Known::from(&key));
            key.or_else(|fault| or_signing(fault, || SenderKey::from_file(path).map(|key| Known::from(&key))))
        }
        PemKind::Private | PemKind::EncryptedPrivate => {
            let options = options_for(path, passphrase, Exposed::Warn)?;
            let identity = || Identity::from_file_with(path, &options);
            let key = PrivateKey::from_file_with(path, &options).map(|key| Known::from(&key.public_key()));
            key.or_else(|fault| or_signing(fault, || identity().map(|key| Known::from(key.sender_key()))))
        }
    };
    known.map(|known| (form, known)).map_err(|fault| at(path, fault))
}

/// A key of another kind than those that are sealed to may be one that signs; if it is not, the first fault stands.
fn or_signing(
    fault: cipher_client::Error,
    signing: impl FnOnce() -> cipher_client::Result<Known>,
) -> cipher_client::Result<Known> {
    match fault.kind() {
        ErrorKind::Key { .. } => signing().map_err(|_| fault),
        _ => Err(fault),
    }
}

fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).ok().map(|file| file.permissions().mode() & 0o7777)
}

fn utc(time: SystemTime) -> String {
    let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Utc(u64::try_from(ms).unwrap_or(u64::MAX)).to_string()
}
