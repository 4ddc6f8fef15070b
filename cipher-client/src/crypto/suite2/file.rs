//! Whole files, sealed and opened in constant memory.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::source::own_fault;
use crate::crypto::context::Context;
use crate::crypto::open::Opener;
use crate::crypto::opened::Opened;
use crate::crypto::seal::Sealer;
use crate::crypto::suite::random;
use crate::error::{Error, Result};
use crate::files::{create_new, sync_parent};

impl Sealer {
    /// Seals the file `from` into an envelope in the file `to`; gives its message
    /// id. Memory does not grow with the file ([`SealWriter`](super::stream::SealWriter)).
    ///
    /// `to` is there when it is whole and on disk, with mode 0600, in place of
    /// what was there; when this fails nothing has changed.
    ///
    /// # Errors
    ///
    /// As [`Sealer::seal_writer`]; [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge)
    /// for a file that does not fit into one envelope;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn seal_file(
        &self,
        context: &Context,
        id: Option<&str>,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
    ) -> Result<String> {
        let mut plain = open(from.as_ref())?;
        replace(to.as_ref(), |file| {
            let mut writer = self.seal_writer(context, id, file)?;
            copy(&mut plain, &mut writer, from.as_ref())?;
            writer.finish().map(|(id, _)| id)
        })
    }
}

impl Opener {
    /// Opens the envelope in the file `from` into the file `to`, in constant
    /// memory; gives what is known of the message beside its text. `delivered` is
    /// compared as by [`Opener::open_for`].
    ///
    /// `to` is there when all of the text is authenticated and on disk, with mode
    /// 0600, in place of what was there; when this fails nothing has changed.
    ///
    /// # Errors
    ///
    /// As [`Opener::open_stream`]; [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn open_file(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        delivered: Option<&Context>,
    ) -> Result<Opened> {
        let sealed = open(from.as_ref())?;
        replace(to.as_ref(), |file| {
            let mut reader = self.open_stream(sealed, delivered)?;
            copy(&mut reader, file, from.as_ref())?;
            Ok(reader.into_message())
        })
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|fault| Error::io("cannot open", path, fault))
}

fn copy(from: &mut impl io::Read, to: &mut impl Write, path: &Path) -> Result<()> {
    let copied = io::copy(from, to).map(drop);
    copied.map_err(|fault| own_fault(fault).unwrap_or_else(|fault| Error::io("cannot copy", path, fault)))
}

/// Puts what `write` makes in the place of `path`, once it is whole and on disk.
fn replace<T>(path: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}", u64::from_be_bytes(random()?)));
    let unfinished = path.with_file_name(name);
    let io = |operation| move |fault| Error::io(operation, path, fault);
    let mut file = create_new(&unfinished, 0o600).map_err(io("cannot create"))?;
    let written = write(&mut file).and_then(|made| {
        file.sync_all().map_err(io("cannot write"))?;
        std::fs::rename(&unfinished, path).map_err(io("cannot create"))?;
        Ok(made)
    });
    match written {
        Ok(made) => {
            sync_parent(path).map_err(io("cannot write"))?;
            Ok(made)
        }
        Err(error) => {
            // The first fault is the one to be told.
            drop(std::fs::remove_file(&unfinished));
            Err(error)
        }
    }
}
