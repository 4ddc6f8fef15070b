//! CipherMQ client with end-to-end encryption.
//!
//! [`crypto`] seals a text for the holder of a key and opens it again; the
//! broker in between carries the sealed form and cannot read it. [`dedupe`]
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

mod alarm;
mod answer;
mod backoff;
mod client;
mod connection;
mod consumer;
pub mod crypto;
pub mod dedupe;
mod delivery;
mod error;
mod fault;
mod files;
mod incoming;
mod line;
mod link;
mod options;
mod publisher;
mod repeats;
mod request;
mod shared;
mod slots;
mod state;
mod subscription;
mod topology;

pub use backoff::BackoffOptions;
pub use ciphermq_protocol::Code;
pub use client::Client;
pub use consumer::{ConsumeOptions, Consumer, ConsumerStats, IntoOpener, OnUndecryptable, RawConsumer};
pub use delivery::{Delivery, RawDelivery, Sealed, Settled, Undecryptable};
pub use error::{Error, ErrorKind, Result};
pub use options::{ConnectOptions, MAX_LINE_DEFAULT, WINDOW_MAX};
pub use publisher::{Ack, BatchConfirm, Confirm, IntoSealer, Publisher};
pub use topology::{BindingInfo, CopyStatus, ExchangeInfo, MessageStatus, QueueInfo, QueueOptions};
