//! CipherMQ client with end-to-end encryption.
//!
//! [`crypto`] seals a text for the holder of a key and opens it again; the
//! broker in between carries the sealed form and cannot read it. `dedupe`
//! remembers what a receiver has already taken, so that a message delivered
//! twice is handed over once.
//!
//! ```
//! use cipher_client::crypto::{PrivateKey, open, seal};
//!
//! # fn main() -> Result<(), cipher_client::Error> {
//! let receiver = PrivateKey::generate(2048)?;
//! let envelope = seal(b"the goods are on the dock", &receiver.public_key(), None)?;
//! let opened = open(&envelope, &receiver)?;
//! assert_eq!(opened.plaintext, b"the goods are on the dock");
//! # Ok(())
//! # }
//! ```

pub mod crypto;

mod error;

pub use error::{Error, ErrorKind, Result};
