use std::time::{SystemTime, UNIX_EPOCH};

use ciphermq_broker::Timestamp;
use tokio::time::{Duration, Instant};

/// The process's clock: wall-clock time at the start, and from then on the monotonic clock, so that time never goes
/// back under a lease. A wall clock that is set while the process runs shows after the next start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), started_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX) }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.started_ms.saturating_add(self.uptime_ms()))
    }

    /// The instant at which `now` will say `at`, for sleeping.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.started + Duration::from_millis(at.0.saturating_sub(self.started_ms))
    }

    /// Milliseconds since the start.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
