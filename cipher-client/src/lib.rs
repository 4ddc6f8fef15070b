//! CipherMQ client with end-to-end encryption.
//!
//! A [`Client`] is one connection to a broker, kept up by a task of its own. A
//! [`Publisher`] seals messages for the holder of a key, a [`Consumer`] opens
//! them; the broker in between stores the sealed form and cannot read it.
//!
//! ```no_run
//! use cipher_client::crypto::PrivateKey;
//! use cipher_client::{Client, ConnectOptions, ConsumeOptions};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), cipher_client::Error> {
//!     let client = Client::connect(ConnectOptions::new("127.0.0.1:5672")).await?;
//!     let key = PrivateKey::generate(2048)?;
//!
//!     let publisher = client.publisher("default_exchange", "default_key", key.public_key())?;
//!     let confirm = publisher.publish("the goods are on the dock").await?;
//!     println!("stored: {}", confirm.await?.message_id());
//!
//!     let mut consumer = client.consume("default_queue", &key, ConsumeOptions::new()).await?;
//!     if let Some(delivery) = consumer.next().await {
//!         let delivery = delivery?;
//!         println!("{}", String::from_utf8_lossy(delivery.plaintext()));
//!         delivery.ack().await?;
//!     }
//!     drop(consumer);
//!     client.close().await
//! }
//! ```
//!
//! # What to rely on
//!
//! - A [`Confirm`] that succeeds means: the broker has stored the message.
//! - A lost connection is made again, with growing pauses. Publishes without
//!   confirmation are sent again with the same id, which the broker stores once;
//!   consumers go on.
//! - Every call ends: with its answer, or with an error at its deadline. Where it
//!   may have happened all the same, the error is [`ErrorKind::OutcomeUnknown`].
//! - A message is delivered at least once, and again when it was not
//!   acknowledged. With [`ConsumeOptions::dedupe`] one that was acknowledged is
//!   not handed over again. See [`dedupe`] for what "exactly once" comes down to.
//! - Memory is bounded: by the window of a client and the prefetch of a consumer.
//!
//! # Layers
//!
//! [`crypto`] seals and opens without any connection; [`trust`] decides whose keys
//! to believe. The methods named `raw`
//! ([`Client::publish_raw`], [`Client::consume_raw`]) carry envelopes that are
//! sealed and opened elsewhere. What this crate does not do: logins, TLS, and
//! the old dialect of the protocol.

mod alarm;
mod answer;
mod backoff;
mod client;
mod collecting;
mod connection;
mod consumer;
pub mod crypto;
pub mod dedupe;
mod delivery;
mod directory;
mod error;
mod fault;
mod files;
mod incoming;
mod line;
mod link;
mod options;
mod publisher;
mod raw_consumer;
mod repeats;
mod request;
mod resolve;
mod shared;
mod slots;
mod state;
mod subscription;
mod topology;
pub mod trust;

pub use backoff::BackoffOptions;
pub use ciphermq_protocol::{Code, Durability};
pub use client::Client;
pub use consumer::{ConsumeOptions, Consumer, ConsumerStats, IntoOpener, OnUndecryptable};
pub use delivery::{Delivery, RawDelivery, Settled, Undecryptable, Unopened};
pub use directory::{KeyHistory, KeyInfo};
pub use error::{Error, ErrorKind, Result};
pub use options::{ConnectOptions, MAX_LINE_DEFAULT, WINDOW_MAX};
pub use publisher::{Ack, BatchConfirm, Confirm, IntoSealer, Publisher};
pub use raw_consumer::RawConsumer;
pub use topology::{BindingInfo, CopyStatus, ExchangeInfo, MessageStatus, QueueInfo, QueueOptions};
