//! Bounds and defaults of the process, with their reasons. Bounds of the wire are in `ciphermq-protocol`, those
//! of queues in `ciphermq-broker`.

use std::time::Duration;

/// Where the broker listens unless told otherwise: the loopback endpoint of the original.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:5672";

/// Connections served at a time; further ones wait, unaccepted, in the listen queue.
pub const CONNECTIONS_DEFAULT: usize = 20_000;

/// Connections the kernel holds before they are accepted: a burst of reconnecting clients.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Pause between a reply and the next push in legacy mode: the 0.2.0 receiver takes one line per read.
pub const LEGACY_PAUSE_MS_DEFAULT: u64 = 5;

/// Highest legacy pause: a longer one would only look like a stuck broker.
pub const LEGACY_PAUSE_MS_MAX: u64 = 10_000;

/// A connection that takes nothing of what waits for it for so long is closed.
pub const SLOW_READER_MS: u64 = 60_000;

/// How long a shutdown waits for the connections to say good-bye.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Silence after which the kernel asks whether the peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Unanswered questions after which the connection is dead.
pub const KEEPALIVE_RETRIES: u32 = 4;

/// First pause after a failed accept, doubled up to [`ACCEPT_PAUSE_MAX`] while it keeps failing.
pub const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);

/// Longest pause after a failed accept.
pub const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Open files the process needs beside its connections.
pub const OPEN_FILES_RESERVED: u64 = 64;

/// Lowest `--disk-max-bytes`: four segments of the smallest size, one of them kept for settling.
pub const DISK_BYTES_MIN: u64 = 16 << 20;

/// Memory for lines that are still arriving, over all connections: beyond it a connection whose line has outgrown an
/// ordinary read is closed. Without it every connection could hold a line of the maximum that never ends.
pub const INPUT_BYTES_TOTAL_MAX: usize = 1 << 30;
