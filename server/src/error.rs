use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can be reached from other machines, and there is neither TLS nor login on this endpoint.
    #[error(
        "refusing to listen on {0}: this endpoint has neither TLS nor login, so only this machine may reach it; \
         listen on 127.0.0.1 or [::1], and let other machines in through an SSH tunnel or a TLS proxy"
    )]
    NotLoopback(SocketAddr),
    /// The address is in use, not permitted or not there.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The data directory is in use, not permitted, or its disk fails.
    #[error("cannot use the data directory {}", path.display())]
    Data {
        /// The directory asked for.
        path: PathBuf,
        /// What the journal or the system says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The listening socket could not be handed to the runtime.
    #[error("cannot accept connections")]
    Accept(#[source] io::Error),
    /// A thread that was to serve connections did not start.
    #[error("cannot start a thread for connections; ask for fewer, or raise the limits of this process")]
    Thread(#[source] io::Error),
}
