use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{State, in_store};
use crate::event::{Topology, Verdict};
use crate::queue::Queue;
use crate::{Error, QueueSettings, limits};

impl State {
    /// Whether a change can be made, and whether there is anything to change. Asked on the way in, for a quick answer,
    /// and again at the commit, which decides.
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
            Topology::Purge { name } => registry.queue(name).map(|_| true).ok_or_else(|| no_queue(name)),
        }
    }

    pub(super) fn commit_topology(&self, change: Topology, verdict: &Verdict) {
        let done = match self.check(&change) {
            Ok(true) => self.apply(change, verdict),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            verdict.refuse(error);
        }
    }

    fn apply(&self, change: Topology, verdict: &Verdict) -> Result<(), Error> {
        match change {
            Topology::DeclareQueue { name, settings, .. } => drop(self.declare_queue(&name, settings)),
            Topology::DeclareExchange { name } => self.registry.insert_exchange(&name),
            Topology::Bind { exchange, queue, key } => self.registry.bind(&exchange, &queue, &key),
            Topology::Unbind { exchange, queue, key } => self.registry.unbind(&exchange, &queue, &key),
            Topology::DeleteQueue { name, force } => self.delete_queue(&name, force)?,
            Topology::DeleteExchange { name } => self.registry.remove_exchange(&name),
            Topology::Purge { name } => {
                if let Some(queue) = self.registry.queue(&name) {
                    queue.condemn();
                    let removed = queue.remove_condemned(drop);
                    self.store_bytes.fetch_sub(in_store(removed.messages, removed.bytes), Ordering::Relaxed);
                    verdict.set_purged(removed.messages);
                }
            }
        }
        Ok(())
    }

    pub(super) fn declare_queue(&self, name: &Arc<str>, settings: QueueSettings) -> Arc<Queue> {
        let id = self.registry.next_queue_id();
        let (timers, stats, budget) = (&self.timers, &self.stats, &self.budget);
        let queue =
            Queue::new(id, Arc::clone(name), settings, Arc::clone(timers), Arc::clone(stats), Arc::clone(budget));
        let queue = Arc::new(queue);
        self.registry.insert_queue(&queue);
        queue
    }

    /// Closed first: from then on no publish gets room in it, so none is answered `ACK` and lost.
    fn delete_queue(&self, name: &str, force: bool) -> Result<(), Error> {
        let Some(queue) = self.registry.queue(name) else { return Ok(()) };
        queue.close(force).map_err(|messages| not_empty(name, messages))?;
        self.registry.remove_queue(&queue);
        let removed = queue.delete(drop);
        self.store_bytes.fetch_sub(in_store(removed.messages, removed.bytes), Ordering::Relaxed);
        Ok(())
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
