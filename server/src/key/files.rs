//! Keys as commands name them: a file, or the directory of a keyset.

use std::path::Path;

use cipher_client::ErrorKind;
use cipher_client::crypto::{
    IDENTITY_FILE, Identity, KeyFileOptions, KeyKind, Keyset, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE, PemKind, PrivateKey,
    PublicKey, RSA_BITS_MIN, SENDER_KEY_FILE, SenderKey,
};

use super::at;
use super::passphrase::{Exposed, options_for};
use crate::cli::{Fault, PassphraseFrom};

/// The keys that open: all of a keyset, or the one of a file.
pub(crate) fn opening(path: &Path, passphrase: &PassphraseFrom, exposed: Exposed) -> Result<Keyset, Fault> {
    if Keyset::is_at(path) {
        return Keyset::open_with(path, options_for(path, passphrase, exposed)?).map_err(|fault| at(path, fault));
    }
    let read = private(path, passphrase, exposed)?;
    PrivateKey::from_file_with(path, &read).map(Keyset::from).map_err(|fault| at(path, fault))
}

/// How to read the private key of a file.
pub(crate) fn private(path: &Path, passphrase: &PassphraseFrom, exposed: Exposed) -> Result<KeyFileOptions, Fault> {
    private_half(path, PRIVATE_KEY_FILE)?;
    options_for(path, passphrase, exposed)
}

/// The key to seal to: the one of a file, or the primary one of a keyset, for which no passphrase is needed.
pub(crate) fn recipient(path: &Path) -> Result<PublicKey, Fault> {
    let mut path = path.to_owned();
    if Keyset::is_at(&path) {
        path = Keyset::list(&path).map_err(Fault::runtime)?.swap_remove(0).public;
    }
    public_half(&path, PUBLIC_KEY_FILE)?;
    let key = PublicKey::from_file(&path).map_err(|fault| at(&path, fault))?;
    match key.kind() {
        KeyKind::Rsa if key.bits() < RSA_BITS_MIN => Err(too_small(&path, key.bits())),
        _ => Ok(key),
    }
}

/// The key to sign with.
pub(crate) fn identity(path: &Path, passphrase: &PassphraseFrom, exposed: Exposed) -> Result<Identity, Fault> {
    private_half(path, IDENTITY_FILE)?;
    let identity = Identity::from_file_with(path, &options_for(path, passphrase, exposed)?);
    identity.map_err(|fault| no_signing_key(path, fault))
}

/// The key that a sender signs with, as its receivers have it.
pub(crate) fn sender(path: &Path) -> Result<SenderKey, Fault> {
    public_half(path, SENDER_KEY_FILE)?;
    SenderKey::from_file(path).map_err(|fault| no_signing_key(path, fault))
}

fn private_half(path: &Path, usual: &str) -> Result<(), Fault> {
    match form(path, usual)? {
        PemKind::Public => Err(other_half(path, "a public key", "the private one")),
        PemKind::Private | PemKind::EncryptedPrivate => Ok(()),
    }
}

fn public_half(path: &Path, usual: &str) -> Result<(), Fault> {
    match form(path, usual)? {
        PemKind::Public => Ok(()),
        PemKind::Private | PemKind::EncryptedPrivate => Err(other_half(path, "a private key", "the public one")),
    }
}

/// Which half a file holds; of a directory, which file in it may have been meant.
pub(super) fn form(path: &Path, usual: &str) -> Result<PemKind, Fault> {
    if !path.is_dir() {
        return PemKind::of_file(path).map_err(|fault| at(path, fault));
    }
    let (shown, usual) = (path.display(), path.join(usual));
    let next = match usual.is_file() {
        true => format!("did you mean {}?", usual.display()),
        false => "name a PEM file".to_owned(),
    };
    Err(Fault::runtime(format!("{shown}: a directory that holds no keyset; {next}")))
}

fn too_small(path: &Path, bits: usize) -> Fault {
    let path = path.display();
    let next = "ask for a new one, made with `ciphermq keygen`";
    Fault::runtime(format!("{path}: an RSA key of {bits} bits is below the least size of {RSA_BITS_MIN}; {next}"))
}

fn no_signing_key(path: &Path, fault: cipher_client::Error) -> Fault {
    match fault.kind() {
        ErrorKind::Key { .. } => {
            let next = "`ciphermq keygen --suite sign` makes a pair";
            Fault::runtime(format!("{}: not a key that signs (Ed25519); {next}", path.display()))
        }
        _ => at(path, fault),
    }
}

fn other_half(path: &Path, is: &str, needed: &str) -> Fault {
    Fault::runtime(format!("{}: this is {is}, {needed} is needed", path.display()))
}
