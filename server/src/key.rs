//! `ciphermq key`: looking at keys, changing them and their passphrases.

pub(crate) mod files;
pub(crate) mod passphrase;
mod rewrap;
mod rotate;
mod show;

use std::io;
use std::path::Path;

use crate::cli::{self, Fault, KeyCommand, Status};
use crate::logging;

pub(crate) fn run(command: &KeyCommand) -> Result<Status, Fault> {
    // A key file that others can read is warned of there.
    logging::start("warn").map_err(Fault::runtime)?;
    match command {
        KeyCommand::Show(options) => to_a_reader(show::show(options)),
        KeyCommand::Fingerprint(options) => to_a_reader(show::fingerprint(options)),
        KeyCommand::Rotate(options) => rotate::rotate(options),
        KeyCommand::Prune(options) => rotate::prune(options),
        KeyCommand::Rewrap(options) => rewrap::run(options),
    }
}

/// Whoever closes the pipe has seen enough.
fn to_a_reader(shown: Result<Status, Fault>) -> Result<Status, Fault> {
    shown.or_else(|fault| match fault.error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Status::Success),
        _ => Err(fault),
    })
}

/// Names the file, unless the error does.
pub(crate) fn at(path: &Path, fault: cipher_client::Error) -> Fault {
    use cipher_client::ErrorKind::{File, Io};
    match fault.kind() {
        Io { .. } | File { .. } => Fault::runtime(fault),
        _ => Fault::runtime(format!("{}: {}", path.display(), cli::one_line(&fault))),
    }
}
