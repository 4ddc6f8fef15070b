use std::sync::Arc;

use ciphermq_journal::{Position, Space};

use super::State;
use crate::event::{Change, Topology};
use crate::model::{ExchangeId, QueueId};
use crate::queue::{Queue, Removed};
use crate::{Error, QueueOptions, QueueSettings, Timestamp, limits};

impl State {
    /// Whether a change can be made, and whether there is anything to change. Asked on the way in, for a quick answer,
    /// and again when its turn in the log comes, which decides.
    pub(crate) fn check(&self, change: &Topology) -> Result<bool, Error> {
        let registry = &self.registry;
        let no_exchange = |name: &str| Error::NoExchange(name.to_owned());
        let no_queue = |name: &str| Error::NoQueue(name.to_owned());
        match change {
            Topology::DeclareQueue { name, options, settings } => match registry.queue(name) {
                Some(queue) => match queue.settings().conflict(options) {
                    Some(has) => Err(Error::Conflict { queue: name.to_string(), has }),
                    None => Ok(false),
                },
                None if registry.queue_count() >= limits::QUEUES_MAX => Err(Error::Limit("100000 queues")),
                None => self.check_dead_letters(name, settings).map(|()| true),
            },
            Topology::DeclareExchange { name } => match registry.exchange(name) {
                Some(_) => Ok(false),
                None if registry.exchange_count() >= limits::EXCHANGES_MAX => Err(Error::Limit("100000 exchanges")),
                None => Ok(true),
            },
            Topology::Bind { exchange, queue, key } => {
                let found = registry.exchange(exchange).ok_or_else(|| no_exchange(exchange))?;
                let bound = registry.queue(queue).ok_or_else(|| no_queue(queue))?;
                if found.is_bound(key, &bound) {
                    return Ok(false);
                }
                if found.route(key).is_some_and(|route| route.queues.len() >= limits::QUEUES_PER_MESSAGE_MAX) {
                    return Err(Error::Limit("1000 queues behind one key"));
                }
                let is_room = registry.binding_count() < limits::BINDINGS_MAX;
                if is_room { Ok(true) } else { Err(Error::Limit("1000000 bindings")) }
            }
            Topology::Unbind { exchange, queue, key } => {
                let found = registry.exchange(exchange).ok_or_else(|| no_exchange(exchange))?;
                let bound = registry.queue(queue).ok_or_else(|| no_queue(queue))?;
                if (&**exchange, &**queue, &**key) == DEFAULT_BINDING {
                    return Err(DEFAULT_STAYS);
                }
                if found.is_bound(key, &bound) {
                    return Ok(true);
                }
                let [exchange, queue, key] = [exchange, queue, key].map(|name| name.to_string());
                Err(Error::NoBinding { exchange, queue, key })
            }
            Topology::DeleteQueue { name, force } => {
                let queue = registry.queue(name).ok_or_else(|| no_queue(name))?;
                match queue.messages() {
                    _ if **name == *limits::DEFAULT_QUEUE => Err(DEFAULT_STAYS),
                    messages if messages > 0 && !force => Err(not_empty(name, messages)),
                    _ => Ok(true),
                }
            }
            Topology::DeleteExchange { name } => match registry.exchange(name) {
                None => Err(no_exchange(name)),
                Some(_) if **name == *limits::DEFAULT_EXCHANGE => Err(DEFAULT_STAYS),
                Some(_) => Ok(true),
            },
            Topology::Purge { name, .. } => registry.queue(name).map(|_| true).ok_or_else(|| no_queue(name)),
            Topology::Key(entry) => self.directory().check(entry),
        }
    }

    /// What becomes of a change now that everything before it is committed; `None` if nothing is to be changed.
    pub(super) fn decide(&self, asked: &Topology, now: Timestamp) -> Result<Option<Change>, Error> {
        if !self.check(asked)? {
            return Ok(None);
        }
        let registry = &self.registry;
        let exchange = |name: &str| registry.exchange(name).map(|found| found.id());
        let queue = |name: &str| registry.queue(name).map(|found| found.id());
        Ok(match asked {
            Topology::DeclareQueue { name, settings, .. } => {
                let (id, name, settings) = (registry.next_queue_id(), Arc::clone(name), settings.clone());
                Some(Change::DeclareQueue { id, name, settings })
            }
            Topology::DeclareExchange { name } => {
                Some(Change::DeclareExchange { id: registry.next_exchange_id(), name: Arc::clone(name) })
            }
            Topology::Bind { exchange: to, queue: bound, key } => exchange(to)
                .zip(queue(bound))
                .map(|(exchange, queue)| Change::Bind { exchange, bindings: vec![(queue, Box::from(&**key))] }),
            Topology::Unbind { exchange: from, queue: bound, key } => exchange(from)
                .zip(queue(bound))
                .map(|(exchange, queue)| Change::Unbind { exchange, queue, key: Box::from(&**key) }),
            Topology::DeleteQueue { name, force } => self.decide_deletion(name, *force)?,
            Topology::DeleteExchange { name } => exchange(name).map(|id| Change::DeleteExchange { id }),
            Topology::Purge { name, stay_max } => self.decide_purge(name, *stay_max, now)?,
            Topology::Key(entry) => Some(Change::Key { entry: entry.clone(), at: now }),
        })
    }

    /// Closed first: from then on no publish gets room in it, so none is answered `ACK` and lost.
    fn decide_deletion(&self, name: &str, force: bool) -> Result<Option<Change>, Error> {
        let Some(queue) = self.registry.queue(name) else { return Ok(None) };
        queue.close(force).map_err(|messages| not_empty(name, messages))?;
        Ok(Some(Change::DeleteQueue { id: queue.id() }))
    }

    /// From then on nobody can lease what goes.
    fn decide_purge(&self, name: &str, stay_max: usize, now: Timestamp) -> Result<Option<Change>, Error> {
        let Some(queue) = self.registry.queue(name) else { return Ok(None) };
        let counts = queue.counts();
        if counts.ready + counts.delayed == 0 {
            return Ok(None);
        }
        let stay = queue.condemn();
        if stay.len() > stay_max {
            queue.restore_condemned(now);
            return Err(TOO_MANY_LEASED);
        }
        Ok(Some(Change::Purge { id: queue.id(), stay }))
    }

    /// A change is in the log. Returns how many messages a purge removed.
    pub(super) fn commit_change(&self, position: Position, change: &Change, space: &mut Space) -> u64 {
        let Change::Purge { id, .. } = change else {
            self.apply(position, change, space);
            return 0;
        };
        let Some(queue) = self.registry.queue_by_id(*id) else { return 0 };
        self.removed(queue.remove_condemned(|at| space.release(at.location, at.share())))
    }

    /// A change the log tells of; checkpoints tell it again and again.
    pub(super) fn replay_change(&self, position: Position, change: &Change, space: &mut Space) {
        let registry = &self.registry;
        match change {
            Change::DeclareQueue { id, .. } if registry.queue_by_id(*id).is_some() => {}
            Change::DeclareExchange { id, .. } if registry.exchange_by_id(*id).is_some() => {}
            Change::DeclareQueue { name, .. } => {
                // The record of its deletion is lost.
                if let Some(before) = registry.queue(name) {
                    self.apply(position, &Change::DeleteQueue { id: before.id() }, space);
                }
                self.apply(position, change, space);
            }
            Change::DeclareExchange { name, .. } => {
                if let Some(before) = registry.exchange(name) {
                    self.apply(position, &Change::DeleteExchange { id: before.id() }, space);
                }
                self.apply(position, change, space);
            }
            Change::Purge { id, stay } => {
                if let Some(queue) = registry.queue_by_id(*id) {
                    self.removed(queue.remove_except(stay, |at| space.release(at.location, at.share())));
                }
            }
            _ => self.apply(position, change, space),
        }
    }

    fn apply(&self, position: Position, change: &Change, space: &mut Space) {
        let registry = &self.registry;
        match change {
            Change::DeclareQueue { id, name, settings } => self.declare_queue(*id, name, settings),
            Change::DeclareExchange { id, name } => {
                registry.reserve_ids(QueueId(0), *id);
                registry.insert_exchange(*id, name);
            }
            Change::Bind { exchange, bindings } => {
                bindings.iter().for_each(|(queue, key)| registry.bind(*exchange, *queue, key));
            }
            Change::Unbind { exchange, queue, key } => registry.unbind(*exchange, *queue, key),
            Change::DeleteQueue { id } => {
                if let Some(queue) = registry.queue_by_id(*id) {
                    registry.remove_queue(&queue);
                    self.removed(queue.delete(|at| space.release(at.location, at.share())));
                }
            }
            Change::DeleteExchange { id } => registry.remove_exchange(*id),
            Change::Key { entry, at } => self.directory().apply(entry, *at, position, space),
            // Has two ways of its own, above.
            Change::Purge { .. } => {}
        }
    }

    fn declare_queue(&self, id: QueueId, name: &Arc<str>, settings: &QueueSettings) {
        self.registry.reserve_ids(id, ExchangeId(0));
        let (timers, stats, budget) = (&self.timers, &self.stats, &self.budget);
        let (name, settings) = (Arc::clone(name), settings.clone());
        let queue = Queue::new(id, name, settings, Arc::clone(timers), Arc::clone(stats), Arc::clone(budget));
        self.registry.insert_queue(&Arc::new(queue));
    }

    fn removed(&self, removed: Removed) -> u64 {
        self.count_removed(removed.messages, removed.bytes);
        removed.messages
    }

    /// What is always there, in a log that has just begun.
    pub(super) fn declare_default_topology(&self) {
        let (registry, space) = (&self.registry, &mut Space::uncounted());
        let name = |name: &str| -> Arc<str> { Arc::from(name) };
        if registry.exchange(limits::DEFAULT_EXCHANGE).is_none() {
            let id = registry.next_exchange_id();
            self.apply(Position(0), &Change::DeclareExchange { id, name: name(limits::DEFAULT_EXCHANGE) }, space);
        }
        if registry.queue(limits::DEFAULT_QUEUE).is_none() {
            let settings = QueueSettings::decide(limits::DEFAULT_QUEUE, &QueueOptions::default(), &self.options);
            let id = registry.next_queue_id();
            self.apply(Position(0), &Change::DeclareQueue { id, name: name(limits::DEFAULT_QUEUE), settings }, space);
        }
        let (exchange, queue) = (registry.exchange(limits::DEFAULT_EXCHANGE), registry.queue(limits::DEFAULT_QUEUE));
        if let Some((exchange, queue)) = exchange.zip(queue) {
            registry.bind(exchange.id(), queue.id(), limits::DEFAULT_KEY);
        }
    }

    /// A message nobody can process must come to rest: the way from one dead-letter queue to the next ends.
    fn check_dead_letters(&self, name: &str, settings: &QueueSettings) -> Result<(), Error> {
        let mut next = settings.dead_letter.clone();
        for step in 0..limits::DEAD_LETTER_CHAIN_MAX {
            let Some(at) = next else { return Ok(()) };
            if *at == *name {
                return Err(Error::NotAllowed(match step {
                    0 => "a queue cannot be its own dead-letter queue",
                    _ => "dead-letter queues must not form a circle",
                }));
            }
            next = self.registry.queue(&at).and_then(|queue| queue.settings().dead_letter.clone());
        }
        Err(Error::Limit("16 dead-letter queues behind one another"))
    }
}

fn not_empty(queue: &str, messages: u64) -> Error {
    Error::NotEmpty { queue: queue.to_owned(), messages }
}

const DEFAULT_BINDING: (&str, &str, &str) = (limits::DEFAULT_EXCHANGE, limits::DEFAULT_QUEUE, limits::DEFAULT_KEY);
const DEFAULT_STAYS: Error = Error::NotAllowed("the default topology stays");
const TOO_MANY_LEASED: Error = Error::Limit("too many leased messages to purge around them");
