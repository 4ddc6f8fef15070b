use std::io::{self, Write as _};
use std::path::Path;

use cipher_client::crypto::{
    Identity, KeyKind, Keyset, Passphrase, PrivateKey, RSA_BITS_MIN, write_encrypted_key_pair, write_identity,
    write_key_pair,
};

use crate::cli::{Fault, KeySuite, Keygen, Status};
use crate::key::passphrase::{self, Exposed};
use crate::key::{at, files};
use crate::logging;

/// `ciphermq keygen`: a new key, in two files or as a keyset.
pub(crate) fn run(options: &Keygen) -> Result<Status, Fault> {
    // A passphrase file that others can read is warned of there.
    logging::start("warn").map_err(Fault::runtime)?;
    if let Some(private) = &options.import {
        return import(options, private);
    }
    let bits = bits_of(options.suite, options.bits)?;
    let passphrase = new_passphrase(options)?;
    if options.suite == KeySuite::Sign && !options.keyset {
        return sign(options, passphrase.as_ref());
    }
    let key = generate(options.suite, bits)?;
    if options.keyset {
        return begin(&options.out, key, passphrase);
    }
    let paths = match passphrase {
        Some(passphrase) => write_encrypted_key_pair(&options.out, &key, &passphrase),
        None => write_key_pair(&options.out, &key),
    };
    let paths = paths.map_err(Fault::runtime)?;
    written(&paths.private, &paths.public, key.fingerprint())
}

/// A keyset that begins with a key there is, encrypted if that is or if there is a passphrase.
fn import(options: &Keygen, private: &Path) -> Result<Status, Fault> {
    let read = files::private(private, &options.passphrase, Exposed::Refuse)?;
    let key = PrivateKey::from_file_with(private, &read).map_err(|fault| at(private, fault))?;
    begin(&options.out, key, read.into_passphrase())
}

fn begin(dir: &Path, key: PrivateKey, passphrase: Option<Passphrase>) -> Result<Status, Fault> {
    let fingerprint = key.fingerprint().to_owned();
    Keyset::create(dir, key, passphrase).map_err(Fault::runtime)?;
    let entry = Keyset::list(dir).map_err(Fault::runtime)?.swap_remove(0);
    written(&entry.private, &entry.public, &fingerprint)
}

/// A key that signs.
fn sign(options: &Keygen, passphrase: Option<&Passphrase>) -> Result<Status, Fault> {
    let identity = Identity::generate().map_err(Fault::runtime)?;
    let paths = write_identity(&options.out, &identity, passphrase).map_err(Fault::runtime)?;
    written(&paths.private, &paths.public, &identity.kid().to_string())
}

fn written(private: &Path, public: &Path, fingerprint: &str) -> Result<Status, Fault> {
    let (private, public) = (private.display(), public.display());
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "private key  {private}\npublic key   {public}\nfingerprint  {fingerprint}")
        .map_err(Fault::runtime)?;
    Ok(Status::Success)
}

pub(crate) fn generate(suite: KeySuite, bits: usize) -> Result<PrivateKey, Fault> {
    let key = match suite {
        KeySuite::One => PrivateKey::generate(bits),
        KeySuite::TwoX25519 => PrivateKey::generate_kind(KeyKind::X25519),
        KeySuite::TwoXWing => PrivateKey::generate_kind(KeyKind::XWing),
        KeySuite::Sign => {
            let next = "make one with `ciphermq keygen --suite sign`, without --keyset";
            return Err(Fault::usage(format!("a signing key opens nothing and is in no keyset; {next}")));
        }
    };
    key.map_err(Fault::runtime)
}

/// From a flag, or asked for; `None` if the key is not to be encrypted.
fn new_passphrase(options: &Keygen) -> Result<Option<Passphrase>, Fault> {
    const FLAGS: &str = "--passphrase-file or --passphrase-env";
    match passphrase::given(&options.passphrase, Exposed::Refuse)? {
        None if options.encrypt => passphrase::ask_new("the private key", FLAGS).map(Some),
        given => Ok(given),
    }
}

/// The size of an RSA key; the other kinds have one size each.
pub(crate) fn bits_of(suite: KeySuite, bits: Option<usize>) -> Result<usize, Fault> {
    match (suite, bits) {
        (KeySuite::One, bits) => Ok(bits.unwrap_or(RSA_BITS_MIN)),
        (_, None) => Ok(0),
        (_, Some(_)) => Err(Fault::usage("--bits is for RSA keys (--suite 1); the keys of other suites have one size")),
    }
}
