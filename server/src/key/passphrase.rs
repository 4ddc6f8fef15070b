//! Where passphrases come from: a file, an environment variable, the terminal.

use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use cipher_client::crypto::{KeyFileOptions, PASSPHRASE_BYTES_MAX, Passphrase, PemKind};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::cli::{Fault, KeyUse, PassphraseFrom};

/// What becomes of files with secrets that others than their owner can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposed {
    /// Where a key is looked at, or put right.
    Warn,
    /// Where it is used.
    Refuse,
}

impl KeyUse {
    pub(crate) fn exposed(&self) -> Exposed {
        if self.allow_exposed_key { Exposed::Warn } else { Exposed::Refuse }
    }
}

/// How to read the private key in `path`; the passphrase is asked for if the key needs one that no flag gives.
pub(crate) fn options_for(path: &Path, from: &PassphraseFrom, exposed: Exposed) -> Result<KeyFileOptions, Fault> {
    let options = match exposed {
        Exposed::Warn => KeyFileOptions::default(),
        Exposed::Refuse => KeyFileOptions::default().strict(),
    };
    match given(from, exposed)? {
        Some(passphrase) => Ok(options.with_passphrase(passphrase)),
        None if is_encrypted(path) => {
            let passphrase =
                ask(&format!("Passphrase of {}", path.display()), "--passphrase-file or --passphrase-env")?;
            Ok(options.with_passphrase(passphrase))
        }
        None => Ok(options),
    }
}

/// The passphrase that the flags name.
pub(crate) fn given(from: &PassphraseFrom, exposed: Exposed) -> Result<Option<Passphrase>, Fault> {
    match (&from.passphrase_file, &from.passphrase_env) {
        (Some(path), _) => from_file(path, exposed).map(Some),
        (None, Some(name)) => from_env(name).map(Some),
        (None, None) => Ok(None),
    }
}

pub(crate) fn from_file(path: &Path, exposed: Exposed) -> Result<Passphrase, Fault> {
    let read = match exposed {
        Exposed::Warn => Passphrase::from_file(path),
        Exposed::Refuse => Passphrase::from_file_strict(path),
    };
    read.map_err(Fault::runtime)
}

pub(crate) fn from_env(name: &str) -> Result<Passphrase, Fault> {
    if std::env::var_os(name).is_none() {
        return Err(Fault::usage(format!("environment variable {name} is not set")));
    }
    Passphrase::from_env(name).map_err(|fault| Fault::usage(format!("environment variable {name}: {fault}")))
}

/// A new passphrase, asked for twice.
pub(crate) fn ask_new(whose: &str, flags: &str) -> Result<Passphrase, Fault> {
    let first = read_hidden(&format!("New passphrase of {whose}: "), flags)?;
    if first.is_empty() {
        return Err(Fault::usage("an empty passphrase protects nothing, nothing was written"));
    }
    let second = read_hidden("The same again: ", flags)?;
    if first != second {
        return Err(Fault::usage("the two passphrases differ, nothing was written"));
    }
    passphrase(first)
}

fn ask(prompt: &str, flags: &str) -> Result<Passphrase, Fault> {
    passphrase(read_hidden(&format!("{prompt}: "), flags)?)
}

fn passphrase(mut typed: Zeroizing<Vec<u8>>) -> Result<Passphrase, Fault> {
    Passphrase::new(std::mem::take(&mut *typed)).map_err(Fault::usage)
}

/// Whether a file, or a key of a keyset, needs a passphrase. What cannot be read is told by whoever reads it next.
fn is_encrypted(path: &Path) -> bool {
    let file = cipher_client::crypto::Keyset::list(path).ok().and_then(|keys| keys.into_iter().next());
    let path = file.map_or_else(|| path.to_owned(), |key| key.private);
    PemKind::of_file(path).is_ok_and(|kind| kind == PemKind::EncryptedPrivate)
}

/// A line from the terminal, not shown while it is typed.
fn read_hidden(prompt: &str, flags: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Fault::usage(format!("a passphrase is needed: give {flags}, or run this at a terminal")));
    }
    // Asked after the terminal has stopped showing what is typed.
    let typed = Hidden::new(stdin.as_fd()).and_then(|_hidden| {
        eprint!("{prompt}");
        read_line(&mut stdin.lock())
    });
    eprintln!();
    typed.map_err(|fault| match fault.kind() {
        io::ErrorKind::Interrupted => Fault::runtime("interrupted"),
        _ => Fault::runtime(fault),
    })
}

/// Reads what is typed, byte by byte: the terminal is not in line mode, so that an interrupt comes here as well and the
/// terminal is put right before the program ends.
fn read_line(terminal: &mut impl io::BufRead) -> io::Result<Zeroizing<Vec<u8>>> {
    // As large as it can get: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX + 1));
    for byte in terminal.bytes() {
        match byte? {
            b'\n' | b'\r' => return Ok(line),
            INTERRUPT => return Err(io::ErrorKind::Interrupted.into()),
            END if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            END => return Ok(line),
            KILL => line.clear(),
            BACKSPACE | DELETE => erase(&mut line),
            byte if line.len() < PASSPHRASE_BYTES_MAX + 1 => line.push(byte),
            _ => {}
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Takes the last character back, which may be several bytes of UTF-8.
fn erase(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// A terminal that shows nothing, until this is dropped.
struct Hidden<'fd> {
    terminal: std::os::fd::BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> Hidden<'fd> {
    fn new(terminal: std::os::fd::BorrowedFd<'fd>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Result<Vec<u8>, io::ErrorKind> {
        read_line(&mut &bytes[..]).map(|line| line.to_vec()).map_err(|fault| fault.kind())
    }

    #[test]
    fn a_typed_line_can_be_corrected() {
        assert_eq!(typed(b"secret\nrest"), Ok(b"secret".to_vec()));
        assert_eq!(typed(b"secrex\x7ft\r"), Ok(b"secret".to_vec()));
        assert_eq!(typed("gr\u{fc}\u{df}\x08\x08u\n".as_bytes()), Ok(b"gru".to_vec()));
        assert_eq!(typed(b"wrong\x15right\n"), Ok(b"right".to_vec()));
        assert_eq!(typed(b"\x7f\x7fa\n"), Ok(b"a".to_vec()));
        assert_eq!(typed(b"abc\x04"), Ok(b"abc".to_vec()));
    }

    #[test]
    fn an_interrupt_and_an_end_are_no_passphrase() {
        assert_eq!(typed(b"abc\x03\n"), Err(io::ErrorKind::Interrupted));
        assert_eq!(typed(b"\x04"), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(typed(b"abc"), Err(io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn a_long_line_does_not_grow_for_ever() {
        let mut line = vec![b'x'; 1 << 20];
        line.push(b'\n');
        assert_eq!(typed(&line).unwrap().len(), PASSPHRASE_BYTES_MAX + 1);
    }
}
