//! `ciphermq key`: looking at keys, changing them and their passphrases.

pub(crate) mod files;
pub(crate) mod passphrase;
mod rewrap;
mod rotate;
mod show;

use std::path::Path;

use crate::cli::{self, Fault, KeyCommand, Status};
use crate::logging;

pub(crate) fn run(command: &KeyCommand) -> Result<Status, Fault> {
    // A key file that others can read is warned of there.
    logging::start("warn").map_err(Fault::runtime)?;
    match command {
        KeyCommand::Show(options) => show::show(options),
        KeyCommand::Fingerprint(options) => show::fingerprint(options),
        KeyCommand::Rotate(options) => rotate::rotate(options),
        KeyCommand::Prune(options) => rotate::prune(options),
        KeyCommand::Rewrap(options) => rewrap::run(options),
    }
}

/// Names the file, unless the error does.
pub(crate) fn at(path: &Path, fault: cipher_client::Error) -> Fault {
    use cipher_client::ErrorKind::{File, Io};
    match fault.kind() {
        Io { .. } | File { .. } => Fault::runtime(fault),
        _ => Fault::runtime(format!("{}: {}", path.display(), cli::one_line(&fault))),
    }
}
