use std::io::{self, Write as _};

use cipher_client::crypto::{PrivateKey, write_key_pair};

use crate::cli::{Fault, Keygen, Status};

/// `ciphermq keygen`: a new key pair in two files.
pub(crate) fn run(options: &Keygen) -> Result<Status, Fault> {
    let key = PrivateKey::generate(options.bits).map_err(Fault::runtime)?;
    let paths = write_key_pair(&options.out, &key).map_err(Fault::runtime)?;
    let (private, public) = (paths.private.display(), paths.public.display());
    let fingerprint = key.fingerprint();
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "private key  {private}\npublic key   {public}\nfingerprint  {fingerprint}")
        .map_err(Fault::runtime)?;
    Ok(Status::Success)
}
