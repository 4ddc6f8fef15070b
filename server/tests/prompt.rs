//! Passphrases typed at a terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use support::{PATIENCE, ciphermq, wait};

/// A terminal: what we type into, and what a program has as its own.
struct Terminal {
    keyboard: File,
    screen: File,
}

impl Terminal {
    fn new() -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let screen = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        Terminal { keyboard: File::from(keyboard), screen: File::from(screen) }
    }

    fn run(&self, arguments: &[&str]) -> Child {
        let side = || Stdio::from(self.screen.try_clone().unwrap());
        ciphermq().args(arguments).stdin(side()).stderr(side()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Reads what is shown, up to this text.
    fn shows(&mut self, expected: &str) -> String {
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains(expected) {
            let mut ready = [PollFd::new(&self.keyboard, PollFlags::IN)];
            let patience = PATIENCE.try_into().unwrap();
            assert_eq!(poll(&mut ready, Some(&patience)).unwrap(), 1, "{expected:?} was not shown");
            let mut some = [0; 256];
            let len = self.keyboard.read(&mut some).unwrap();
            shown.extend_from_slice(&some[..len]);
        }
        String::from_utf8(shown).unwrap()
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn is_as_before(&self) -> bool {
        tcgetattr(&self.screen).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

#[test]
fn a_passphrase_is_asked_for_twice_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let mut terminal = Terminal::new();
    let mut child = terminal.run(&["keygen", "--suite", "2x", "--out", out, "--encrypt"]);
    let mut shown = terminal.shows("New passphrase of the private key: ");
    terminal.type_in("horsf\x7fe\n");
    shown += &terminal.shows("The same again: ");
    terminal.type_in("horse\n");
    assert!(wait(&mut child).success());
    assert!(!shown.contains("hors"), "{shown}");
    assert!(terminal.is_as_before());

    let private = format!("{out}/receiver_private.pem");
    let mut child = terminal.run(&["key", "fingerprint", &private]);
    let shown = terminal.shows("receiver_private.pem: ");
    assert!(!shown.contains("hors"), "{shown}");
    terminal.type_in("horse\n");
    assert!(wait(&mut child).success());
}

#[test]
fn an_interrupt_leaves_the_terminal_as_it_was_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("key");
    let mut terminal = Terminal::new();
    let mut child = terminal.run(&["keygen", "--suite", "2x", "--out", out.to_str().unwrap(), "--encrypt"]);
    terminal.shows("New passphrase of the private key: ");
    terminal.type_in("hors\x03");
    terminal.shows("interrupted");
    assert_eq!(wait(&mut child).code(), Some(1));
    assert!(terminal.is_as_before());
    assert!(!out.exists());
}

#[test]
fn two_passphrases_that_differ_are_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("key");
    let mut terminal = Terminal::new();
    let mut child = terminal.run(&["keygen", "--suite", "2x", "--out", out.to_str().unwrap(), "--encrypt"]);
    terminal.shows("New passphrase of the private key: ");
    terminal.type_in("horse\n");
    terminal.shows("The same again: ");
    terminal.type_in("house\n");
    terminal.shows("the two passphrases differ");
    assert_eq!(wait(&mut child).code(), Some(2));
    assert!(!out.exists());
}

#[test]
fn an_empty_passphrase_is_told_before_it_is_typed_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("key");
    let mut terminal = Terminal::new();
    let mut child = terminal.run(&["keygen", "--suite", "2x", "--out", out.to_str().unwrap(), "--encrypt"]);
    terminal.shows("New passphrase of the private key: ");
    terminal.type_in("\n");
    terminal.shows("an empty passphrase protects nothing");
    assert_eq!(wait(&mut child).code(), Some(2));
    assert!(!out.exists());
}
