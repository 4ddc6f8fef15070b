//! The CipherMQ process as a library: sockets, sessions and the timer around a [`ciphermq_broker::Broker`].
//!
//! [`Server`] is the only place where the parts meet. It keeps nothing global, so that one process can run
//! several servers side by side, as tests and the Python fixture do.
//!
//! What is not here: queues and delivery (`ciphermq-broker`), the wire format (`ciphermq-protocol`), and the
//! command line, logging set-up and signals, which belong to the binary.
//!
//! ```
//! use ciphermq_server::{Server, ServerConfig};
//! use tokio::sync::oneshot;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ServerConfig { listen: "127.0.0.1:0".parse()?, ..ServerConfig::default() };
//! let server = Server::bind(config)?;
//! println!("CipherMQ ready on {}", server.local_addr());
//!
//! let (stop, stopped) = oneshot::channel::<()>();
//! let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
//! let running = runtime.spawn(server.run(async { drop(stopped.await) }));
//! drop(stop);
//! runtime.block_on(running)??;
//! # Ok(())
//! # }
//! ```

mod announcement;
mod base64;
mod clock;
mod config;
mod connection;
mod counters;
mod error;
pub mod limits;
mod listener;
mod server;
mod session;
#[cfg(test)]
mod testing;
mod timers;
mod workers;

pub use ciphermq_broker::Recovered;
pub use config::{DirectoryStore, ServerConfig, Store, journal_durability};
pub use error::Error;
pub use server::Server;
