//! Every bound of the broker, with its reason. Bounds of the wire are in `ciphermq-protocol`.

/// Bytes of a name, key or message id.
pub const NAME_BYTES_MAX: usize = 255;
/// Queues of one broker: bounds the registry and `list_queues`.
pub const QUEUES_MAX: usize = 100_000;
/// Exchanges of one broker.
pub const EXCHANGES_MAX: usize = 100_000;
/// Bindings of one broker, over all exchanges.
pub const BINDINGS_MAX: usize = 1_000_000;
/// Queues one publish may reach: bounds the work one request can cause.
pub const QUEUES_PER_MESSAGE_MAX: usize = 1_000;
/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;
/// Acknowledged messages `status` remembers.
pub const HISTORY_MAX: usize = 100_000;
/// Queues listed by `stats`: keeps the answer one line of bounded length.
pub const STATS_QUEUES_MAX: usize = 1_000;
/// Leases a connection may hold through `fetch`, which spends no credit.
pub const FETCHED_MAX: usize = 65_535;

/// Client ids in the directory of keys.
pub const CLIENTS_MAX: usize = 100_000;
/// Announcements kept of one client: the oldest goes when one more comes. A key changed each month for five years.
pub const ANNOUNCEMENTS_PER_CLIENT_MAX: usize = 64;
/// Bytes of one announcement or unsigned key. Not below what any door takes.
pub const KEY_BYTES_MAX: usize = 4_096;
/// Bytes of the whole directory, which is kept in memory: 1.3 KB and a few versions for each of the client ids.
pub const DIRECTORY_BYTES_MAX: u64 = 256 << 20;
/// What each entry of the directory counts for besides its bytes.
pub const DIRECTORY_ENTRY_OVERHEAD_BYTES: u64 = 256;

/// Queues a message can pass through on its way from one dead-letter queue to the next.
pub const DEAD_LETTER_CHAIN_MAX: usize = 16;
/// What each message in a queue counts for against the store's limit besides its text: its entry in the queue, the
/// heads of its allocation and what collections keep free. Without it small messages would take several times the limit.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 192;
/// Bytes of a message's text: exchange, key, id and envelope. Above every door's longest line; entries of queues keep the
/// length in 27 bits.
pub const TEXT_BYTES_MAX: u64 = (1 << 27) - 1;
/// What a record takes in the log besides its text: its frame, numbers, padding. Estimated, for the count of what is of
/// use in a segment: without it a segment full of small messages would look nearly empty.
pub const RECORD_OVERHEAD_BYTES: u64 = 96;
/// Bytes of the records of one batch of publishes, which a crash keeps or loses together.
pub const BATCH_BYTES_MAX: usize = 256 << 20;
/// Message ids in one record of the log.
pub const IDS_PER_RECORD_MAX: usize = 1_000;
/// Bindings of one exchange in one record of the log.
pub const BINDINGS_PER_RECORD_MAX: usize = 1_000;
/// Leased messages a queue may have when it is purged: the record of a purge lists them.
pub const PURGE_STAY_MAX: usize = 262_144;
/// Bytes of messages waiting in one outbox that have not left memory: what is beyond is read back when it is taken.
pub const OUTBOX_BYTES_MAX: u64 = 1 << 20;
/// How long a message that could not be read back rests before it is tried again.
pub const UNREADABLE_RETRY_MS: u64 = 1_000;

/// Default lease of a delivery.
pub const LEASE_MS_DEFAULT: u64 = 30_000;
/// Default number of deliveries before a message is dead-lettered.
pub const MAX_ATTEMPTS_DEFAULT: u32 = 20;
/// Default bound on the bytes of stored messages.
pub const STORE_BYTES_DEFAULT: u64 = 4 << 30;
/// Default bound on the bytes of messages kept in memory by a broker that can read them back from its log.
pub const RESIDENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Default time a message id is remembered.
pub const DEDUPE_WINDOW_MS_DEFAULT: u64 = 24 * 60 * 60 * 1000;
/// Default number of message ids remembered.
pub const DEDUPE_IDS_DEFAULT: usize = 10_000_000;

/// The topology that is always there.
pub const DEFAULT_EXCHANGE: &str = "default_exchange";
/// See [`DEFAULT_EXCHANGE`].
pub const DEFAULT_QUEUE: &str = "default_queue";
/// See [`DEFAULT_EXCHANGE`].
pub const DEFAULT_KEY: &str = "default_key";
/// What a queue's own dead-letter queue is called: its name and this.
pub const DEAD_LETTER_SUFFIX: &str = ".dlq";
