//! Exchanges, bindings, queues and delivery.
//!
//! What is here: the [`Broker`], one [`Link`] for each connection, and the rules of a message's life.
//! What is not: sockets, protocols, files, clocks, async. Time comes in as [`Timestamp`]; a connection is
//! woken through its [`Doorbell`](ciphermq_journal::Doorbell).
//!
//! Invariants:
//! - Only a record of the journal adds a message to a queue or removes one, when it is committed or read back. What depends
//!   on more than the log is decided before a record is written (`state/commit.rs`), so that replay decides nothing.
//! - A message is visible to consumers only after the journal has committed it.
//! - DashMap guards never leave `registry.rs`; one queue lock at a time, and no other lock but the leaf lock of
//!   an outbox is taken under it.
//! - The broker never looks inside an envelope.

mod broker;
mod budget;
mod codec;
mod connection;
mod dedupe;
mod directory;
mod error;
mod event;
mod exchange;
mod history;
pub mod inspect;
pub mod limits;
mod link;
mod loader;
mod message;
mod model;
mod options;
mod outbox;
mod queue;
mod registry;
mod ring;
mod sessions;
mod shared;
mod snapshot;
mod state;
mod stats;
mod timers;
mod window;

pub use broker::{Broker, Recovered};
pub use directory::{Announcement, AnnouncementView, DirectoryFigures, KeyHistory};
pub use error::Error;
pub use link::{Link, Publish, Returned, Settle};
pub use message::{DeadLetter, Message, Reason};
pub use model::{ConnectionId, Timestamp};
pub use options::{BrokerOptions, QueueOptions, QueueSettings};
pub use outbox::{Delivery, Notice};
pub use sessions::SessionId;
pub use snapshot::{BindingView, CopyView, ExchangeView, QueueView, Status};
pub use stats::StatsView;
