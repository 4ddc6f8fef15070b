/// Why the broker refused a request. Nothing stored was changed.
///
/// Exhaustive on purpose: every front-end must have an answer for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No exchange of that name.
    #[error("exchange '{0}'")]
    NoExchange(String),
    /// No queue of that name.
    #[error("queue '{0}'")]
    NoQueue(String),
    /// The queue is not bound to the exchange with that key.
    #[error("binding of queue '{queue}' to exchange '{exchange}' with key '{key}'")]
    NoBinding {
        /// Exchange asked for.
        exchange: String,
        /// Queue asked for.
        queue: String,
        /// Routing key asked for.
        key: String,
    },
    /// The connection does not consume that queue.
    #[error("no subscription to queue '{0}'")]
    NoSubscription(String),
    /// Nothing is known of that message.
    #[error("message '{0}'")]
    NoMessage(String),
    /// Nothing was announced under that client id.
    #[error("announcement of '{0}'")]
    NoAnnouncement(String),
    /// There is no unsigned key under that client id.
    #[error("unsigned key of '{0}'")]
    NoUnsignedKey(String),
    /// The newest announcement is signed by somebody else, and names no such successor.
    #[error("'{0}' is announced by another identity")]
    OtherIdentity(String),
    /// The newest announcement has that number or a higher one.
    #[error("'{client}' has announced seq={last}")]
    OldAnnouncement {
        /// Client id announced.
        client: String,
        /// Number of its newest announcement.
        last: u64,
    },
    /// An unsigned key cannot take the place of an announcement.
    #[error("'{0}' has a signed announcement, which an unsigned key cannot replace")]
    Announced(String),
    /// Another connection holds the message.
    #[error("message '{0}' is delivered to another connection")]
    LeasedElsewhere(String),
    /// No queue is bound with that key.
    #[error("no queue is bound to exchange '{exchange}' with key '{key}'")]
    NoRoute {
        /// Exchange published to.
        exchange: String,
        /// Routing key published with.
        key: String,
    },
    /// The connection holds no lease on that id.
    #[error("this connection holds no lease on '{0}'")]
    NotLeased(String),
    /// A limit of a target queue is reached.
    #[error("queue '{0}' is full")]
    QueueFull(String),
    /// The broker's limit on stored bytes is reached.
    #[error("the store holds its maximum; consume, or raise --store-max-bytes")]
    StoreFull,
    /// The disk has no room for another message.
    #[error("the disk is full; messages can be consumed and acknowledged")]
    DiskFull,
    /// The queue exists with other options.
    #[error("queue '{queue}' has {has}")]
    Conflict {
        /// Queue declared.
        queue: String,
        /// The option that differs, as the queue has it.
        has: String,
    },
    /// The queue holds messages and deletion was not forced.
    #[error("queue '{queue}' holds {messages} message{}; add force=yes to delete them", if *.messages == 1 { "" } else { "s" })]
    NotEmpty {
        /// Queue to delete.
        queue: String,
        /// Messages it holds, leased ones included.
        messages: u64,
    },
    /// Not possible here; the text says why.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// A named bound is reached.
    #[error("{0}")]
    Limit(&'static str),
    /// The disk failed to read a message back.
    #[error("message '{0}' cannot be read back now and is in its queue again")]
    Unreadable(String),
    /// The journal failed.
    #[error(transparent)]
    Storage(#[from] ciphermq_journal::Unavailable),
}
