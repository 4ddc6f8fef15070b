//! The CipherMQ text protocol: bytes to values and back.
//!
//! `docs/protocol.md` is the contract; this crate is its only implementation, for both sides.
//!
//! | to | look at |
//! | --- | --- |
//! | cut a byte stream into lines | [`Decoder`] |
//! | read or write a request | [`Command`], errors in [`ParseError`] |
//! | look into an envelope | [`Envelope`] |
//! | read or write what a server sends | [`ServerLine`], [`Reply`], [`Push`]; old texts in [`text::legacy`] |
//! | check a name or an id | [`Name`], [`MessageId`] |
//! | read or write a key announcement | [`Announcement`], [`SignedAnnouncement`] |
//! | know a bound | [`limits`] |
//!
//! What is not here: sockets, clocks, threads, randomness, an async runtime. Nothing allocates by a size a peer
//! claims; every buffer grows with bytes that have arrived, up to a constant of [`limits`].

mod announcement;
pub mod fuzzing;
pub mod limits;
mod name;
pub mod text;

pub use announcement::{Announcement, BadAnnouncement, SignedAnnouncement};
pub use name::{BadId, BadName, MessageId, Name, NameKind};
pub use text::command::{Command, IfNotEmpty, Page, QueueOptions};
pub use text::decoder::{Decoder, LineTooLong};
pub use text::durability::{BadDurability, Durability};
pub use text::envelope::{BadEnvelope, Envelope, parse_batch};
pub use text::error::{BadOption, Code, Echo, ParseError};
pub use text::fields::Dialect;
pub use text::reply::{BadServerLine, DeadLetter, Delivery, HelloReply, Push, Reason, Reply, ServerLine};
