//! `key rewrap`: another passphrase round a key, another key round messages.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use cipher_client::crypto::{
    Keyset, Opener, PRIVATE_KEY_FILE, Passphrase, PemKind, Sealer, SessionPolicy, change_passphrase,
};

use super::passphrase::{self, Exposed, options_for};
use super::{at, files};
use crate::cli::{self, Fault, KeyRewrap, Status};

/// Longest envelope, and a line end.
const LINE_BYTES_MAX: u64 = cipher_client::crypto::ENVELOPE_BYTES_MAX as u64 + 2;

/// `ciphermq key rewrap`.
pub(super) fn run(options: &KeyRewrap) -> Result<Status, Fault> {
    if options.envelope { envelopes(options) } else { files(options) }
}

fn files(options: &KeyRewrap) -> Result<Status, Fault> {
    // What is no private key is told before anybody is asked for a passphrase.
    let mut status = Status::Success;
    let mut keys = Vec::new();
    for path in &options.paths {
        match private(path) {
            Ok(files) => keys.push((path, files)),
            Err(fault) => status = failed(&fault),
        }
    }
    let Some((first, _)) = keys.first() else { return Ok(status) };
    let new = new_passphrase(options, first)?;
    for (path, files) in keys {
        // Asked for once: the keys of a keyset have one passphrase.
        let read = options_for(path, &options.passphrase, Exposed::Warn)?;
        for file in files {
            match change_passphrase(&file, &read, new.as_ref()).map_err(|fault| at(&file, fault)) {
                Ok(()) => writeln!(io::stdout(), "{}", file.display()).map_err(Fault::runtime)?,
                Err(fault) => status = failed(&fault),
            }
        }
    }
    Ok(status)
}

/// The private keys that are meant: those of a keyset, or one.
fn private(path: &Path) -> Result<Vec<PathBuf>, Fault> {
    if Keyset::is_at(path) {
        let keys = Keyset::list(path).map_err(Fault::runtime)?;
        return Ok(keys.into_iter().map(|key| key.private).collect());
    }
    match files::form(path, PRIVATE_KEY_FILE)? {
        PemKind::Public => Err(Fault::runtime(format!("{}: a public key has no passphrase", path.display()))),
        PemKind::Private | PemKind::EncryptedPrivate => Ok(vec![path.to_owned()]),
    }
}

fn failed(fault: &Fault) -> Status {
    eprintln!("ciphermq: {}", cli::one_line(fault.error.as_ref()));
    Status::Failure
}

fn new_passphrase(options: &KeyRewrap, first: &Path) -> Result<Option<Passphrase>, Fault> {
    const FLAGS: &str = "--new-passphrase-file, --new-passphrase-env or --decrypt";
    match (&options.new_passphrase_file, &options.new_passphrase_env) {
        _ if options.decrypt => Ok(None),
        (Some(path), _) => passphrase::from_file(path, Exposed::Warn).map(Some),
        (None, Some(name)) => passphrase::from_env(name).map(Some),
        (None, None) => passphrase::ask_new(&first.display().to_string(), FLAGS).map(Some),
    }
}

/// Seals each line of stdin anew. A line that does not open is told, with its number, and is not printed.
fn envelopes(options: &KeyRewrap) -> Result<Status, Fault> {
    let [from] = &options.paths[..] else {
        return Err(Fault::usage("--envelope takes one PATH: what opens the envelopes"));
    };
    let (opener, sealer) = old_and_new(from, options)?;
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut status = Status::Success;
    for number in 1_u64.. {
        let Some(line) = line(&mut stdin).map_err(Fault::runtime)? else { break };
        match rewrap(&opener, &sealer, line.trim()) {
            Ok(envelope) => writeln!(stdout, "{envelope}").map_err(Fault::runtime)?,
            Err(fault) => {
                eprintln!("ciphermq: line {number}: {}", cli::one_line(fault.as_ref()));
                status = Status::Failure;
            }
        }
    }
    Ok(status)
}

fn old_and_new(from: &Path, options: &KeyRewrap) -> Result<(Opener, Sealer), Fault> {
    let keyset = files::opening(from, &options.passphrase, Exposed::Warn)?;
    let to = match &options.to {
        Some(path) => files::recipient(path)?,
        None if from.is_dir() => keyset.primary().public_key(),
        None => return Err(Fault::usage("--envelope with a key file needs --to: the public key to seal for")),
    };
    let opener = Opener::builder(&keyset).build().map_err(Fault::runtime)?;
    let sealer = Sealer::new(&to, SessionPolicy::default()).map_err(Fault::runtime)?;
    Ok((opener, sealer))
}

/// With the same id, and bound to what it was bound to.
fn rewrap(opener: &Opener, sealer: &Sealer, envelope: &str) -> Result<String, Box<dyn Error>> {
    let opened = opener.open(envelope)?;
    if opened.part.is_some() {
        return Err("a part of a larger message: receive it whole and send it again".into());
    }
    let context = opened.context.unwrap_or_default();
    Ok(sealer.seal_for_with_id(&context, &opened.message_id, &opened.plaintext)?.envelope)
}

/// The next line, `None` at the end of the input.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::Read::take(&mut *input, LINE_BYTES_MAX).read_line(&mut line)?;
    if read as u64 == LINE_BYTES_MAX && !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of input is longer than an envelope can be"));
    }
    Ok((read > 0).then_some(line))
}
