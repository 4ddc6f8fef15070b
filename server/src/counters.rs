use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What the process counts beside the broker: connections, and how long requests take.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    connected: AtomicU64,
    /// Memory of all input buffers.
    input_bytes: AtomicUsize,
    commands: [CommandTime; Verb::ALL.len()],
}

#[derive(Debug, Default)]
struct CommandTime {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// The commands times are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `publish`
    Publish,
    /// `publish_batch`
    PublishBatch,
    /// `consume`
    Consume,
    /// `fetch`
    Fetch,
    /// `ack`
    Ack,
    /// `nack`, `release`, `reject`, `touch`
    Settle,
    /// Declarations, bindings, deletions.
    Topology,
    /// Everything else, unreadable requests included.
    Other,
}

/// How often a command came and how long it took, all together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandTimes {
    /// Its name.
    pub(crate) verb: &'static str,
    /// Requests.
    pub(crate) count: u64,
    /// Seconds spent on them.
    pub(crate) seconds: f64,
}

impl Verb {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Verb; 8] = [
        Verb::Publish,
        Verb::PublishBatch,
        Verb::Consume,
        Verb::Fetch,
        Verb::Ack,
        Verb::Settle,
        Verb::Topology,
        Verb::Other,
    ];

    fn name(self) -> &'static str {
        match self {
            Verb::Publish => "publish",
            Verb::PublishBatch => "publish_batch",
            Verb::Consume => "consume",
            Verb::Fetch => "fetch",
            Verb::Ack => "ack",
            Verb::Settle => "settle",
            Verb::Topology => "topology",
            Verb::Other => "other",
        }
    }
}

/// Requests of one read, by command: the clock is asked once a read, not once a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally([u32; Verb::ALL.len()]);

impl Tally {
    pub(crate) fn count(&mut self, verb: Verb) {
        self.0[verb as usize] += 1;
    }
}

/// One open connection.
pub(crate) struct ConnectedGuard(Arc<Counters>);

/// The input memory of one connection, given back when it ends.
pub(crate) struct InputClaim {
    counters: Arc<Counters>,
    bytes: usize,
}

impl InputClaim {
    /// The connection holds this much now; returns what all hold together.
    pub(crate) fn set(&mut self, bytes: usize) -> usize {
        let total = &self.counters.input_bytes;
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes >= before {
            total.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before)
        } else {
            total.fetch_sub(before - bytes, Ordering::Relaxed) - (before - bytes)
        }
    }
}

impl Drop for InputClaim {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Drop for ConnectedGuard {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// Open connections.
    pub(crate) fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as the guard lives, also when its task ends by a panic.
    pub(crate) fn connected_guard(self: &Arc<Counters>) -> ConnectedGuard {
        self.connected.fetch_add(1, Ordering::Relaxed);
        ConnectedGuard(Arc::clone(self))
    }

    /// A connection's share of the input memory, nothing yet.
    pub(crate) fn input_claim(self: &Arc<Counters>) -> InputClaim {
        InputClaim { counters: Arc::clone(self), bytes: 0 }
    }

    /// Shares the time of one read among its requests.
    pub(crate) fn record(&self, tally: Tally, elapsed: Duration) {
        let total: u32 = tally.0.iter().sum();
        let Some(each) = elapsed.checked_div(total) else { return };
        for (times, count) in self.commands.iter().zip(tally.0).filter(|(_, count)| *count > 0) {
            times.count.fetch_add(u64::from(count), Ordering::Relaxed);
            let nanos = u64::try_from((each * count).as_nanos()).unwrap_or(u64::MAX);
            times.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Times of the commands that were used.
    pub(crate) fn command_times(&self) -> Vec<CommandTimes> {
        let times = Verb::ALL.iter().zip(&self.commands).map(|(verb, times)| CommandTimes {
            verb: verb.name(),
            count: times.count.load(Ordering::Relaxed),
            seconds: Duration::from_nanos(times.nanos.load(Ordering::Relaxed)).as_secs_f64(),
        });
        times.filter(|times| times.count > 0).collect()
    }

    /// Times start at zero.
    pub(crate) fn reset_times(&self) {
        for times in &self.commands {
            times.count.store(0, Ordering::Relaxed);
            times.nanos.store(0, Ordering::Relaxed);
        }
    }
}
