use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciphermq_journal::{Disk, Doorbell, Figures, Health, Journal, JournalOptions, OpenError, Report, Simulation};

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

/// What a log told when it was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What was read, and what was found damaged.
    pub log: Report,
    /// Queues there are now.
    pub queues: usize,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Message ids remembered against duplicates.
    pub ids: usize,
}

impl Broker {
    /// A broker whose journal is on `disk`: it begins with what the log there tells. A log that is empty begins with the
    /// default topology.
    ///
    /// # Errors
    /// As [`OpenError`] says; never because of damage, which is reported.
    pub fn open(
        options: BrokerOptions,
        now: Timestamp,
        disk: Arc<dyn Disk>,
        journal: JournalOptions,
    ) -> Result<(Broker, Recovered), OpenError> {
        Broker::recover(options, now, |owner| Journal::open(disk, journal, owner))
    }

    /// Like [`Broker::open`], without threads: the journal works when [`Broker::write_journal`] is called, and does the same
    /// each time.
    ///
    /// # Errors
    /// As [`Broker::open`].
    pub fn open_stepped(
        options: BrokerOptions,
        now: Timestamp,
        disk: Arc<dyn Disk>,
        journal: JournalOptions,
    ) -> Result<(Broker, Recovered), OpenError> {
        Broker::recover(options, now, |owner| Journal::open_stepped(disk, journal, owner))
    }

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

    /// Everything submitted is on disk when this returns; nothing is accepted from then on.
    pub fn close(&self) {
        self.shared.journal.close();
    }

    fn recover(
        options: BrokerOptions,
        now: Timestamp,
        open: impl FnOnce(Committer) -> Result<(Journal<Record>, Report), OpenError>,
    ) -> Result<(Broker, Recovered), OpenError> {
        let state = Arc::new(State::logged(options));
        let (journal, log) = open(Committer::new(Arc::clone(&state), now))?;
        let queues = state.registry.queues();
        let recovered = Recovered {
            log,
            queues: queues.len(),
            messages: queues.iter().map(|queue| queue.messages()).sum(),
            bytes: queues.iter().map(|queue| queue.bytes()).sum(),
            ids: state.dedupe().len(),
        };
        Ok((Broker::with(state, journal), recovered))
    }

    fn start(options: BrokerOptions, now: Timestamp, journal: impl FnOnce(Committer) -> Journal<Record>) -> Broker {
        let state = Arc::new(State::new(options));
        let journal = journal(Committer::new(Arc::clone(&state), now));
        let broker = Broker::with(state, journal);
        broker.declare_default_topology(now);
        broker
    }

    fn with(state: Arc<State>, journal: Journal<Record>) -> Broker {
        Broker { shared: Arc::new(Shared::new(state, journal)), last_connection: Arc::default() }
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
        let asked = changes.map(|change| Event::Ask(Box::new(change), Arc::new(Verdict::default())));
        self.shared.record(asked.map(|event| Record::new(now, event)).into());
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
        let mut all = Vec::new();
        for id in self.shared.state.timers.take_due(now) {
            let Some(queue) = self.shared.state.registry.queue_by_id(id) else { continue };
            let tried = queue.handle_timeout(now);
            all.extend(tried.into_iter().map(|tried| (Arc::clone(&queue), tried)));
        }
        self.shared.record_tried(now, all);
    }

    /// Whether the journal works, and has room.
    pub fn health(&self) -> Health {
        self.shared.journal.health()
    }

    /// What failed and where, once the journal has.
    pub fn journal_failure(&self) -> Option<String> {
        self.shared.journal.failure()
    }

    /// How the log stands, in numbers.
    pub fn journal_figures(&self) -> Figures {
        self.shared.journal.figures()
    }

    /// Rings `bell` at every change of [`Broker::health`].
    pub fn watch_health(&self, bell: &Arc<Doorbell>) {
        self.shared.journal.watch(bell);
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("journal", &self.shared.journal).finish_non_exhaustive()
    }
}
