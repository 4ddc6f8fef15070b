use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciphermq_journal::{Doorbell, Health, Journal, Simulation};

use crate::event::{Event, Record, Topology, Verdict};
use crate::link::Link;
use crate::model::ConnectionId;
use crate::shared::Shared;
use crate::state::{Committer, State};
use crate::{BrokerOptions, QueueOptions, QueueSettings, Timestamp, limits};

/// The broker: state behind a journal. Cheap to clone; all clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    last_connection: Arc<AtomicU64>,
}

impl Broker {
    /// A broker whose journal lives in memory: what it holds ends with the process.
    pub fn in_memory(options: BrokerOptions, now: Timestamp) -> Broker {
        Broker::start(options, now, Journal::memory)
    }

    /// A broker whose journal is slow or fails, for tests of front-ends.
    pub fn simulated(options: BrokerOptions, now: Timestamp, simulation: Simulation) -> Broker {
        Broker::start(options, now, |owner| Journal::simulated(owner, simulation))
    }

    /// Lets a journal that waits to be told write what waits.
    pub fn write_journal(&self) {
        self.shared.journal.write_waiting();
    }

    fn start(options: BrokerOptions, now: Timestamp, journal: impl FnOnce(Committer) -> Journal<Record>) -> Broker {
        let state = Arc::new(State::new(options));
        let journal = journal(Committer(Arc::clone(&state)));
        let broker = Broker { shared: Arc::new(Shared::new(state, journal)), last_connection: Arc::default() };
        broker.declare_default_topology(now);
        broker
    }

    fn declare_default_topology(&self, now: Timestamp) {
        let (exchange, queue) = (Arc::from(limits::DEFAULT_EXCHANGE), Arc::from(limits::DEFAULT_QUEUE));
        let options = &self.shared.state.options;
        let asked = QueueOptions::default();
        let settings = QueueSettings::decide(limits::DEFAULT_QUEUE, &asked, options);
        let changes = [
            Topology::DeclareExchange { name: Arc::clone(&exchange) },
            Topology::DeclareQueue { name: Arc::clone(&queue), options: asked, settings },
            Topology::Bind { exchange, queue, key: Arc::from(limits::DEFAULT_KEY) },
        ];
        self.shared.record(now, changes.map(|change| Event::Topology(change, Arc::new(Verdict::default()))));
    }

    /// A new connection. `bell` rings when the connection has something to look at.
    pub fn connect(&self, bell: Arc<Doorbell>) -> Link {
        let id = ConnectionId(self.last_connection.fetch_add(1, Ordering::Relaxed) + 1);
        Link::new(Arc::clone(&self.shared), id, bell)
    }

    /// When [`Broker::handle_timeout`] has something to do. Ask again after [`Broker::timer_bell`] rang.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.shared.state.timers.next()
    }

    /// Rings when [`Broker::poll_timeout`] has become earlier.
    pub fn timer_bell(&self) -> &Arc<Doorbell> {
        self.shared.state.timers.bell()
    }

    /// Ends the leases that ran out and the delays that are over.
    pub fn handle_timeout(&self, now: Timestamp) {
        let mut moves = Vec::new();
        for id in self.shared.state.timers.take_due(now) {
            let Some(queue) = self.shared.state.registry.queue_by_id(id) else { continue };
            let tried = queue.handle_timeout(now);
            moves.extend(tried.into_iter().filter_map(|tried| Event::tried(&queue, tried)));
        }
        self.shared.record(now, moves);
    }

    /// Whether the journal works.
    pub fn health(&self) -> Health {
        self.shared.journal.health()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("journal", &self.shared.journal).finish_non_exhaustive()
    }
}
