//! The harness of the tests that run the built `ciphermq` binary and talk to it over real sockets.
//!
//! - [`Server`]: one broker process on a free port, ended with its handle.
//! - [`Wire`]: one connection; every read has a deadline, and a failure prints the conversation so far.
//! - [`torture`]: rounds of traffic, each ended by `kill -9`, and the checks of what is left.
//! - [`Conversation`]: a script in the notation of `docs/protocol.md`, run against a [`Server`].
//!
//! It fails by panicking: the only code above it are tests. There is no client library in here on purpose, the tests
//! see what netcat would see.
#![allow(clippy::panic, reason = "a harness reports by panicking")]

mod conversation;
mod pattern;
mod server;
pub mod torture;
mod wire;

use std::path::{Path, PathBuf};

pub use conversation::{Conversation, scripts, wire_blocks};
pub use pattern::Pattern;
pub use server::{Server, raise_open_files};
pub use wire::{DEADLINE, Wire, poll_until};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_path_buf()
}

/// A small valid envelope with this id.
pub fn envelope(id: &str) -> String {
    format!(r#"{{"message_id":"{id}","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"d"}}"#)
}

/// A valid envelope with this id whose ciphertext has `bytes` bytes.
pub fn envelope_of(id: &str, bytes: usize) -> String {
    let body = "d".repeat(bytes);
    format!(r#"{{"message_id":"{id}","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"{body}"}}"#)
}
