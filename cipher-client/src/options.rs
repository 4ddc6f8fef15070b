//! How a client connects, waits and gives up.

use std::time::Duration;

use ciphermq_protocol::Name;

use crate::backoff::BackoffOptions;
use crate::{Error, ErrorKind, Result};

/// The longest reply line accepted: a delivery of the longest line a broker
/// can be told to take, and what stands before its envelope.
pub const MAX_LINE_DEFAULT: usize = (64 << 20) + (64 << 10);

/// Upper limit of [`ConnectOptions::window`].
pub const WINDOW_MAX: usize = 65_536;

/// How to reach a broker and how long to wait for it.
///
/// ```
/// use cipher_client::ConnectOptions;
/// use std::time::Duration;
///
/// let options = ConnectOptions::new("127.0.0.1:5672")
///     .name("billing-worker")
///     .request_timeout(Duration::from_secs(10))
///     .window(1024);
/// ```
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    pub(crate) address: String,
    pub(crate) name: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) idle_ping: Duration,
    pub(crate) window: usize,
    pub(crate) max_in_flight_bytes: usize,
    pub(crate) max_line: usize,
    pub(crate) backoff: BackoffOptions,
}

impl ConnectOptions {
    /// Options for the broker at `address`, which is `host:port` (an IPv6
    /// address in brackets).
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            name: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            idle_ping: Duration::from_secs(15),
            window: 256,
            max_in_flight_bytes: 64 << 20,
            max_line: MAX_LINE_DEFAULT,
            backoff: BackoffOptions::default(),
        }
    }

    /// Name shown in the broker's log and statistics.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long one attempt to connect may take, `hello` included (5 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long every call waits for its answer, reconnects included (30 s).
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// A connection silent for this long is asked for a sign of life (15 s);
    /// when none comes within the same time again it is given up.
    pub fn idle_ping(mut self, after: Duration) -> Self {
        self.idle_ping = after;
        self
    }

    /// How many publishes may be unconfirmed at a time (256, 1 to
    /// [`WINDOW_MAX`]); the next one waits.
    pub fn window(mut self, publishes: usize) -> Self {
        self.window = publishes;
        self
    }

    /// How many bytes of unconfirmed publishes are kept (64 MiB); the next
    /// publish waits. One publish is always let through, whatever its size.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.max_in_flight_bytes = bytes;
        self
    }

    /// The longest line accepted from the broker
    /// ([`MAX_LINE_DEFAULT`]); a longer one ends the connection.
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }

    /// How long to wait between attempts to connect again.
    pub fn backoff(mut self, backoff: BackoffOptions) -> Self {
        self.backoff = backoff;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let rules = [
            ("address", "is host:port", is_host_port(&self.address)),
            ("name", "is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /", {
                self.name.as_deref().is_none_or(|name| Name::parse(name).is_ok())
            }),
            ("window", "is 1 to 65536", (1..=WINDOW_MAX).contains(&self.window)),
            ("max_in_flight_bytes", "is 1 to 4294967295", {
                self.max_in_flight_bytes > 0 && u32::try_from(self.max_in_flight_bytes).is_ok()
            }),
            ("max_line", "is at least 4096", self.max_line >= 4096),
            ("request_timeout", "is longer than nothing", !self.request_timeout.is_zero()),
            ("connect_timeout", "is longer than nothing", !self.connect_timeout.is_zero()),
            ("idle_ping", "is longer than nothing", !self.idle_ping.is_zero()),
            ("backoff", "has 0 < initial <= max", self.backoff.is_sound()),
        ];
        match rules.into_iter().find(|(_, _, holds)| !holds) {
            None => Ok(()),
            Some((option, reason, _)) => Err(Error::new(ErrorKind::Option { option, reason })),
        }
    }
}

fn is_host_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_accepted() {
        for address in ["127.0.0.1:5672", "[::1]:5672", "broker.example:1"] {
            ConnectOptions::new(address).check().unwrap();
        }
    }

    #[test]
    fn each_option_outside_its_range_is_named() {
        let good = || ConnectOptions::new("h:1");
        let bad = [
            ("address", ConnectOptions::new("h")),
            ("address", ConnectOptions::new(":1")),
            ("address", ConnectOptions::new("h:70000")),
            ("name", good().name("two words")),
            ("window", good().window(0)),
            ("window", good().window(WINDOW_MAX + 1)),
            ("max_in_flight_bytes", good().max_in_flight_bytes(0)),
            ("max_in_flight_bytes", good().max_in_flight_bytes(1 << 32)),
            ("max_line", good().max_line(10)),
            ("request_timeout", good().request_timeout(Duration::ZERO)),
            ("connect_timeout", good().connect_timeout(Duration::ZERO)),
            ("idle_ping", good().idle_ping(Duration::ZERO)),
            ("backoff", good().backoff(BackoffOptions::default().initial(Duration::ZERO))),
        ];
        for (name, options) in bad {
            let error = options.check().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Option { option, .. } if *option == name), "{name}: {error}");
        }
    }
}
