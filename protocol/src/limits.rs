//! Every bound and default of the protocol, in one place, with its reason.

/// Bytes of the longest line, LF included, unless the broker is told otherwise: 500 times a usual message.
pub const LINE_BYTES_DEFAULT: usize = 1024 * 1024;

/// Lowest `--max-line`: two names, an id and an envelope around an RSA-2048 key still fit.
pub const LINE_BYTES_MIN: usize = 4 * 1024;

/// Highest `--max-line`: a connection may hold this much for a line that never ends.
pub const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes a decoder starts with: most connections are idle, and 10,000 of them must stay small.
pub const INPUT_BYTES_INITIAL: usize = 4 * 1024;

/// Bytes one read asks for at most; a busy decoder grows to this and stays there.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of an exchange, queue or client name and of a routing key.
pub const NAME_BYTES_MAX: usize = 255;

/// What the broker appends to a queue's name to name its dead-letter queue.
pub const DEAD_LETTER_SUFFIX: &str = ".dlq";

/// Bytes of a queue name declared without `dead_letter=`: room for [`DEAD_LETTER_SUFFIX`].
pub const QUEUE_NAME_BYTES_MAX: usize = NAME_BYTES_MAX - DEAD_LETTER_SUFFIX.len();

/// Bytes of a message id.
pub const ID_BYTES_MAX: usize = 255;

/// Bytes of a session token a client may show; the broker's own have 32.
pub const SESSION_BYTES_MAX: usize = 255;

/// Digits of a number: as many as `u64::MAX` has.
pub const NUMBER_DIGITS_MAX: usize = 20;

/// Unsettled deliveries of a subscription when `prefetch=` is left out: hides a round trip, stays under 1 MiB.
pub const PREFETCH_DEFAULT: u32 = 256;

/// Highest `prefetch=`.
pub const PREFETCH_MAX: u32 = 65_535;

/// Credit in legacy mode: the 0.2.0 receiver expects one line per read.
pub const PREFETCH_LEGACY: u32 = 1;

/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: usize = 1024;

/// Envelopes in one `publish_batch`.
pub const BATCH_MESSAGES_MAX: usize = 1000;

/// Lease of a delivery when neither queue nor request says otherwise.
pub const LEASE_MS_DEFAULT: u64 = 30_000;

/// Longest lease: a day.
pub const LEASE_MS_MAX: u64 = 86_400_000;

/// Longest `nack delay=`: 365 days.
pub const DELAY_MS_MAX: u64 = 31_536_000_000;

/// Deliveries of a message before it moves to the dead-letter queue, unless the queue says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 20;

/// Highest `max_attempts=`.
pub const ATTEMPTS_MAX: u32 = 65_535;

/// Longest `durability=interval:`: a minute of acknowledged messages is as much as anybody should be asked to lose.
pub const DURABILITY_INTERVAL_MS_MAX: u32 = 60_000;

/// Requests of a connection waiting for their reply; then the server stops reading it.
pub const PENDING_REPLIES_MAX: usize = 1024;

/// Bytes, LF included, of the longest push in legacy mode: the 1.0.0 receiver cannot read a line of 65,536.
pub const LEGACY_PUSH_BYTES_MAX: usize = 65_535;

/// Rows of a listing when `limit=` is left out.
pub const LIST_LIMIT_DEFAULT: u32 = 1000;

/// Highest `limit=`.
pub const LIST_LIMIT_MAX: u32 = 10_000;

/// Bytes of a key announcement, before base64: one for the longest key there is (X-Wing, 1,240 bytes of SPKI) three times over.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 4096;

/// Highest number of an announcement: what JSON readers take for a number without rounding it.
pub const ANNOUNCEMENT_SEQ_MAX: u64 = (1 << 53) - 1;

/// Announcements in one answer to `key_history`, when `limit=` is left out and at most: 32 of the longest are 176 KiB of line.
pub const KEY_HISTORY_LIMIT_MAX: u32 = 32;

/// Bytes of an unsigned key (`register_key`), before base64: an RSA-16384 key in PEM still fits.
pub const UNSIGNED_KEY_BYTES_MAX: usize = 4096;

/// Bytes of the text of `ping`.
pub const PING_BYTES_MAX: usize = 64;

/// Bytes of peer text repeated in an error, so that replies and log lines stay short.
pub const ECHO_BYTES_MAX: usize = 64;

/// Bytes of an error's text: the longest of our own texts with two full names in it.
pub const ERROR_BYTES_MAX: usize = 1024;

/// Members of an envelope beside the five known ones: bounds the work of finding one that stands twice.
pub const EXTRA_MEMBERS_MAX: usize = 1024;

/// Nesting of an envelope; `serde_json` refuses more.
pub const JSON_DEPTH_MAX: usize = 128;

/// The protocol version `hello` names.
pub const VERSION: &str = "1";

/// The exchange that is always there.
pub const DEFAULT_EXCHANGE: &str = "default_exchange";

/// The queue that is always there.
pub const DEFAULT_QUEUE: &str = "default_queue";

/// The key that binds [`DEFAULT_QUEUE`] to [`DEFAULT_EXCHANGE`].
pub const DEFAULT_KEY: &str = "default_key";
