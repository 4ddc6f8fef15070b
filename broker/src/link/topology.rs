//! Changing exchanges, queues, bindings and keys. Each change is journaled by itself and answered when it is committed.

use std::sync::Arc;

use ciphermq_journal::Receipt;
use tracing::info;

use super::{Link, check_length};
use crate::directory::{Entry, UnsignedKey};
use crate::event::{Event, Record, Topology, Verdict};
use crate::{Announcement, Error, QueueOptions, QueueSettings, Timestamp, limits};

/// A change of the topology that was submitted, or was not necessary.
#[derive(Debug)]
#[must_use = "a change may be answered only when its receipt is complete"]
pub struct Returned {
    /// What to wait for; `None` if everything was as asked.
    pub receipt: Option<Receipt>,
    verdict: Arc<Verdict>,
}

impl Returned {
    /// Why the change was not made, once the receipt is complete: something committed before it stood in its way.
    pub fn refused(&self) -> Option<&Error> {
        self.verdict.refused()
    }

    /// Messages removed by a purge, once the receipt is complete.
    pub fn purged(&self) -> u64 {
        self.verdict.purged()
    }
}

impl Link {
    /// Declares a queue.
    ///
    /// # Errors
    /// `Conflict`, `NotAllowed`, `Limit`, `DiskFull`, `Storage`.
    pub fn declare_queue(&mut self, name: &str, options: &QueueOptions, now: Timestamp) -> Result<Returned, Error> {
        check_length(name)?;
        let settings = QueueSettings::decide(name, options, &self.shared.state.options);
        let change = Topology::DeclareQueue { name: Arc::from(name), options: options.clone(), settings };
        self.change(change, now)
    }

    /// Declares a direct exchange.
    ///
    /// # Errors
    /// `Limit`, `DiskFull`, `Storage`.
    pub fn declare_exchange(&mut self, name: &str, now: Timestamp) -> Result<Returned, Error> {
        check_length(name)?;
        self.change(Topology::DeclareExchange { name: Arc::from(name) }, now)
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    /// `NoExchange`, `NoQueue`, `Limit`, `DiskFull`, `Storage`.
    pub fn bind(&mut self, exchange: &str, queue: &str, key: &str, now: Timestamp) -> Result<Returned, Error> {
        check_length(key)?;
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
        let (exchange, queue, key) = (Arc::from(exchange), Arc::from(queue), Arc::from(key));
        self.change(Topology::Unbind { exchange, queue, key }, now)
    }

    /// Deletes a queue; `force` also when it holds messages.
    ///
    /// # Errors
    /// `NoQueue`, `NotEmpty`, `NotAllowed`, `Storage`.
    pub fn delete_queue(&mut self, name: &str, force: bool, now: Timestamp) -> Result<Returned, Error> {
        self.change(Topology::DeleteQueue { name: Arc::from(name), force }, now)
    }

    /// Deletes an exchange and its bindings.
    ///
    /// # Errors
    /// `NoExchange`, `NotAllowed`, `Storage`.
    pub fn delete_exchange(&mut self, name: &str, now: Timestamp) -> Result<Returned, Error> {
        self.change(Topology::DeleteExchange { name: Arc::from(name) }, now)
    }

    /// Removes the ready and delayed messages of a queue.
    ///
    /// # Errors
    /// `NoQueue`, `Limit`, `Storage`.
    pub fn purge(&mut self, name: &str, now: Timestamp) -> Result<Returned, Error> {
        // Some more may be leased until its turn comes.
        let leased = self.shared.state.registry.queue(name).map_or(0, |queue| queue.counts().leased);
        let stay_max = (2 * leased as usize + PURGE_STAY_SPARE).min(limits::PURGE_STAY_MAX);
        self.change(Topology::Purge { name: Arc::from(name), stay_max }, now)
    }

    /// Takes an announcement whose signature is good: the first of its client id, or one that may follow the newest. The newest
    /// itself is taken again.
    ///
    /// # Errors
    /// `OtherIdentity`, `OldAnnouncement`, `Limit`, `DiskFull`, `Storage`.
    pub fn announce_key(&mut self, announcement: Announcement, now: Timestamp) -> Result<Returned, Error> {
        check_key(&announcement.client, &announcement.bytes)?;
        self.change(Topology::Key(Entry::Announced(announcement)), now)
    }

    /// Takes a key nobody signed, in place of the one there was.
    ///
    /// # Errors
    /// `Announced`, `Limit`, `DiskFull`, `Storage`.
    pub fn register_key(&mut self, client: &str, key: &[u8], now: Timestamp) -> Result<Returned, Error> {
        check_key(client, key)?;
        let key = UnsignedKey { client: Arc::from(client), key: Arc::from(key) };
        self.change(Topology::Key(Entry::Unsigned(key)), now)
    }

    fn change(&mut self, change: Topology, now: Timestamp) -> Result<Returned, Error> {
        self.now = now;
        let verdict = Arc::new(Verdict::default());
        if !self.shared.state.check(&change)? {
            return Ok(Returned { receipt: None, verdict });
        }
        if let Topology::DeclareQueue { settings, .. } = &change {
            settings.dead_letter.as_deref().map_or(Ok(()), check_length)?;
        }
        info!(connection = self.connection.id().0, "{change}");
        // What removes something must be possible on a full disk; there is only so much to remove.
        let is_removal = change.is_removal();
        let mut record = Record::new(now, Event::Ask(Box::new(change), Arc::clone(&verdict)));
        if !is_removal && self.shared.reserve(&mut record).is_err() {
            return Err(Error::DiskFull);
        }
        self.records.push(record);
        let receipt = self.submit().transpose()?;
        Ok(Returned { receipt, verdict })
    }
}

fn check_key(client: &str, bytes: &[u8]) -> Result<(), Error> {
    check_length(client)?;
    match bytes.len() {
        1..=limits::KEY_BYTES_MAX => Ok(()),
        _ => Err(Error::Limit("1 to 4096 bytes in a key")),
    }
}

/// Room in the record of a purge for messages that are leased between the request and its turn in the log.
const PURGE_STAY_SPARE: usize = 1_024;
