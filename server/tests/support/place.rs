//! Keys in a directory, and commands that name them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{ciphermq, run, text};

/// A directory, and commands that name files in it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file with a passphrase.
    pub(crate) fn passphrase(&self, words: &str) -> String {
        let path = self.path(&format!("passphrase-{words}"));
        fs::write(&path, format!("{words}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn keygen(&self, name: &str, flags: &[&str]) -> String {
        let out = self.path(name);
        good(&run(&[&["keygen", "--out", &out], flags].concat()));
        out
    }
}

/// What was printed by a command that succeeded.
pub(crate) fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// What a command that failed said.
pub(crate) fn bad(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
    text(&output.stderr).to_owned()
}

pub(crate) fn with_input(arguments: &[&str], input: &str) -> Output {
    let mut command = ciphermq();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The rows of `key show --json`.
pub(crate) fn show(path: &str) -> Vec<Value> {
    let told = good(&run(&["key", "show", "--json", path]));
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn fingerprint(path: &str) -> String {
    let told = good(&run(&["key", "fingerprint", path]));
    told.split_whitespace().next().unwrap().to_owned()
}

/// What `chmod` does.
pub(crate) fn set_mode(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
