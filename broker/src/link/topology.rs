//! Changing exchanges, queues and bindings. Each change is journaled by itself and answered when it is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciphermq_journal::Receipt;
use tracing::info;

use super::{Link, check_length};
use crate::event::{Event, Record, Topology};
use crate::{Error, QueueOptions, QueueSettings, Timestamp, limits};

/// A change of the topology that was submitted, or was not necessary.
#[derive(Debug)]
#[must_use = "a change may be answered only when its receipt is complete"]
pub struct Returned {
    /// What to wait for; `None` if everything was as asked.
    pub receipt: Option<Receipt>,
    purged: Option<Arc<AtomicU64>>,
}

impl Returned {
    /// Messages removed by a purge, once the receipt is complete.
    pub fn purged(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.load(Ordering::Acquire))
    }
}

impl Link {
    /// Declares a queue.
    ///
    /// # Errors
    /// `Conflict`, `NotAllowed`, `Limit`, `Storage`.
    pub fn declare_queue(&mut self, name: &str, options: &QueueOptions, now: Timestamp) -> Result<Returned, Error> {
        check_length(name)?;
        if options.dead_letter.as_deref() == Some(name) {
            return Err(Error::NotAllowed("a queue cannot be its own dead-letter queue"));
        }
        if let Some(queue) = self.shared.state.registry.queue(name) {
            let conflict = queue.settings().conflict(options);
            return match conflict {
                Some(has) => Err(Error::Conflict { queue: name.to_owned(), has }),
                None => Ok(Returned { receipt: None, purged: None }),
            };
        }
        let settings = QueueSettings::decide(name, options, &self.shared.state.options);
        settings.dead_letter.as_deref().map_or(Ok(()), check_length)?;
        self.change(Topology::DeclareQueue { name: Arc::from(name), settings }, now)
    }

    /// Declares a direct exchange.
    ///
    /// # Errors
    /// `Limit`, `Storage`.
    pub fn declare_exchange(&mut self, name: &str, now: Timestamp) -> Result<Returned, Error> {
        check_length(name)?;
        match self.shared.state.registry.exchange(name) {
            Some(_) => Ok(Returned { receipt: None, purged: None }),
            None => self.change(Topology::DeclareExchange { name: Arc::from(name) }, now),
        }
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    /// `NoExchange`, `NoQueue`, `Limit`, `Storage`.
    pub fn bind(&mut self, exchange: &str, queue: &str, key: &str, now: Timestamp) -> Result<Returned, Error> {
        check_length(key)?;
        let registry = &self.shared.state.registry;
        let found = registry.exchange(exchange).ok_or_else(|| Error::NoExchange(exchange.to_owned()))?;
        let bound = registry.queue(queue).ok_or_else(|| Error::NoQueue(queue.to_owned()))?;
        if found.is_bound(key, &bound) {
            return Ok(Returned { receipt: None, purged: None });
        }
        if found.route(key).is_some_and(|route| route.queues.len() >= limits::QUEUES_PER_MESSAGE_MAX) {
            return Err(Error::Limit("1000 queues behind one key"));
        }
        let (exchange, queue, key) = (Arc::from(exchange), Arc::from(queue), Arc::from(key));
        self.change(Topology::Bind { exchange, queue, key }, now)
    }

    /// Whether an exchange of that name is declared.
    pub fn is_exchange(&self, name: &str) -> bool {
        self.shared.state.registry.exchange(name).is_some()
    }

    /// Whether a queue of that name is declared.
    pub fn is_queue(&self, name: &str) -> bool {
        self.shared.state.registry.queue(name).is_some()
    }

    /// Removes a binding.
    ///
    /// # Errors
    /// `NoExchange`, `NoQueue`, `NoBinding`, `NotAllowed`, `Storage`.
    pub fn unbind(&mut self, exchange: &str, queue: &str, key: &str, now: Timestamp) -> Result<Returned, Error> {
        let registry = &self.shared.state.registry;
        let found = registry.exchange(exchange).ok_or_else(|| Error::NoExchange(exchange.to_owned()))?;
        let bound = registry.queue(queue).ok_or_else(|| Error::NoQueue(queue.to_owned()))?;
        if (exchange, queue, key) == (limits::DEFAULT_EXCHANGE, limits::DEFAULT_QUEUE, limits::DEFAULT_KEY) {
            return Err(DEFAULT_STAYS);
        }
        if !found.is_bound(key, &bound) {
            let [exchange, queue, key] = [exchange, queue, key].map(str::to_owned);
            return Err(Error::NoBinding { exchange, queue, key });
        }
        let (exchange, queue, key) = (Arc::from(exchange), Arc::from(queue), Arc::from(key));
        self.change(Topology::Unbind { exchange, queue, key }, now)
    }

    /// Deletes a queue; `force` also when it holds messages.
    ///
    /// # Errors
    /// `NoQueue`, `NotEmpty`, `NotAllowed`, `Storage`.
    pub fn delete_queue(&mut self, name: &str, force: bool, now: Timestamp) -> Result<Returned, Error> {
        let queue = self.shared.state.registry.queue(name).ok_or_else(|| Error::NoQueue(name.to_owned()))?;
        if name == limits::DEFAULT_QUEUE {
            return Err(DEFAULT_STAYS);
        }
        let messages = queue.counts().total();
        if messages > 0 && !force {
            return Err(Error::NotEmpty { queue: name.to_owned(), messages });
        }
        self.change(Topology::DeleteQueue { name: Arc::from(name) }, now)
    }

    /// Deletes an exchange and its bindings.
    ///
    /// # Errors
    /// `NoExchange`, `NotAllowed`, `Storage`.
    pub fn delete_exchange(&mut self, name: &str, now: Timestamp) -> Result<Returned, Error> {
        if !self.is_exchange(name) {
            return Err(Error::NoExchange(name.to_owned()));
        }
        if name == limits::DEFAULT_EXCHANGE {
            return Err(DEFAULT_STAYS);
        }
        self.change(Topology::DeleteExchange { name: Arc::from(name) }, now)
    }

    /// Removes the ready and delayed messages of a queue.
    ///
    /// # Errors
    /// `NoQueue`, `Storage`.
    pub fn purge(&mut self, name: &str, now: Timestamp) -> Result<Returned, Error> {
        if !self.is_queue(name) {
            return Err(Error::NoQueue(name.to_owned()));
        }
        let purged = Arc::new(AtomicU64::new(0));
        let returned = self.change(Topology::Purge { name: Arc::from(name), purged: Arc::clone(&purged) }, now)?;
        Ok(Returned { purged: Some(purged), ..returned })
    }

    fn change(&mut self, change: Topology, now: Timestamp) -> Result<Returned, Error> {
        self.now = now;
        self.shared.state.check_room(&change)?;
        info!(connection = self.connection.id().0, "{change}");
        self.records.push(Record { at: now, event: Event::Topology(change) });
        let receipt = self.submit().transpose()?;
        Ok(Returned { receipt, purged: None })
    }
}

const DEFAULT_STAYS: Error = Error::NotAllowed("the default topology stays");
