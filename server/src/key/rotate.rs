//! `key rotate` and `key prune`.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use cipher_client::crypto::{KeyKind, Keyset, PRIVATE_KEY_FILE};

use super::at;
use super::passphrase::options_for;
use crate::cli::{Fault, KeyPrune, KeyRotate, KeySuite, KeyUse, Status};
use crate::keygen::{bits_of, generate};

/// `ciphermq key rotate`.
pub(super) fn rotate(options: &KeyRotate) -> Result<Status, Fault> {
    let mut keyset = open(&options.dir, &options.key_use)?;
    let old = keyset.primary();
    let suite = options.suite.unwrap_or(suite_of(old.kind()));
    // A larger RSA key is not followed by a smaller one.
    let bits = options.bits.or((suite == KeySuite::One && old.kind() == KeyKind::Rsa).then(|| old.bits()));
    let retired = *old.kid();
    let new = generate(suite, bits_of(suite, bits)?)?;
    let fingerprint = new.fingerprint().to_owned();
    keyset.rotate(new).map_err(Fault::runtime)?;
    let public = Keyset::list(&options.dir).map_err(Fault::runtime)?.swap_remove(0).public;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "primary key  {fingerprint}\npublic key   {}\nretired key  {retired}", public.display())
        .map_err(Fault::runtime)?;
    Ok(Status::Success)
}

/// `ciphermq key prune`.
pub(super) fn prune(options: &KeyPrune) -> Result<Status, Fault> {
    const DAY_S: u64 = 86_400;
    let mut keyset = open(&options.dir, &options.key_use)?;
    let deleted = keyset.prune(Duration::from_secs(options.retention * DAY_S)).map_err(Fault::runtime)?;
    let mut stdout = io::stdout().lock();
    deleted.iter().try_for_each(|kid| writeln!(stdout, "deleted  {kid}")).map_err(Fault::runtime)?;
    if deleted.is_empty() {
        eprintln!(
            "ciphermq: no key of {} was retired {} days ago or earlier",
            options.dir.display(),
            options.retention
        );
    }
    Ok(Status::Success)
}

fn open(dir: &Path, access: &KeyUse) -> Result<Keyset, Fault> {
    if !Keyset::is_at(dir) {
        return Err(Fault::runtime(format!("{}: holds no keyset; begin one with `{}`", dir.display(), beginning(dir))));
    }
    Keyset::open_with(dir, options_for(dir, &access.passphrase, access.exposed())?).map_err(|fault| at(dir, fault))
}

/// How to begin a keyset, with the key that is there if there is one.
fn beginning(dir: &Path) -> String {
    match Some(dir.join(PRIVATE_KEY_FILE)).filter(|key| key.is_file()) {
        Some(key) => format!("ciphermq keygen --keyset --import {} --out DIR", key.display()),
        None => format!("ciphermq keygen --keyset --out {}", dir.display()),
    }
}

fn suite_of(kind: KeyKind) -> KeySuite {
    match kind {
        KeyKind::Rsa => KeySuite::One,
        KeyKind::X25519 => KeySuite::TwoX25519,
        _ => KeySuite::TwoXWing,
    }
}
