use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use ciphermq_broker::BrokerOptions;
use ciphermq_protocol::Durability;

use crate::limits;

/// What a [`Server`](crate::Server) is told at its start. `ServerConfig::default()` is what the documentation states.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; only a loopback address is accepted. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where messages are kept.
    pub store: Store,
    /// How queues behave.
    pub broker: BrokerOptions,
    /// Bytes of the longest request line, LF included.
    pub line_bytes_max: usize,
    /// Milliseconds between a reply and the next push in legacy mode.
    pub legacy_pause_ms: u64,
    /// Milliseconds without progress after which a connection that does not read is closed.
    pub slow_reader_ms: u64,
    /// Connections served at a time; further ones wait in the listen queue.
    pub connections_max: usize,
    /// Threads that serve connections; `None`: the runtime that [`Server::run`](crate::Server::run) is called in.
    pub threads: Option<NonZeroUsize>,
}

/// Where messages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory: what the broker holds ends with the process.
    Memory,
    /// On disk: what was acknowledged outlives the process, however it ends.
    Directory(DirectoryStore),
}

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryStore {
    /// Where it is; made if it is not there.
    pub path: PathBuf,
    /// Bytes its files may take; `None`: what the disk has.
    pub bytes_max: Option<u64>,
}

/// What the journal calls a durability.
pub fn journal_durability(asked: Durability) -> ciphermq_journal::Durability {
    match asked {
        Durability::Sync => ciphermq_journal::Durability::Synced,
        Durability::Interval { ms } => ciphermq_journal::Durability::Within(ms),
        Durability::None => ciphermq_journal::Durability::Written,
    }
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5672),
            store: Store::Memory,
            broker: BrokerOptions::default(),
            line_bytes_max: ciphermq_protocol::limits::LINE_BYTES_DEFAULT,
            legacy_pause_ms: limits::LEGACY_PAUSE_MS_DEFAULT,
            slow_reader_ms: limits::SLOW_READER_MS,
            connections_max: limits::CONNECTIONS_DEFAULT,
            threads: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_address_is_the_documented_one() {
        assert_eq!(ServerConfig::default().listen.to_string(), limits::LISTEN_DEFAULT);
    }
}
