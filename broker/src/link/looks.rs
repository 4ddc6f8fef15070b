//! Looking at the broker. Nothing here changes a message.

use std::sync::Arc;

use ciphermq_journal::{Figures, Health};

use super::Link;
use crate::snapshot::{BindingView, CopyView, ExchangeView, QueueView};
use crate::{AnnouncementView, DirectoryFigures, Error, KeyHistory, StatsView};

impl Link {
    /// Where the copies of a message stand.
    ///
    /// # Errors
    /// `NoMessage` when nothing is known of it.
    pub fn status(&self, id: &str) -> Result<Vec<CopyView>, Error> {
        let copies = self.shared.state.status(id, &mut self.shared.loader());
        if copies.is_empty() { Err(Error::NoMessage(id.to_owned())) } else { Ok(copies) }
    }

    /// Up to `limit` queues behind the name `after`, by name.
    pub fn list_queues(&self, after: Option<&str>, limit: usize) -> Vec<QueueView> {
        self.shared.state.list_queues(after, limit)
    }

    /// Up to `limit` exchanges behind the name `after`, by name.
    pub fn list_exchanges(&self, after: Option<&str>, limit: usize) -> Vec<ExchangeView> {
        self.shared.state.list_exchanges(after, limit)
    }

    /// Up to `limit` bindings, of one exchange or of those behind `after`.
    pub fn list_bindings(&self, only: Option<&str>, after: Option<&str>, limit: usize) -> Vec<BindingView> {
        self.shared.state.list_bindings(only, after, limit)
    }

    /// The newest announcement of a client. Whether to believe it is for whoever asks to decide.
    ///
    /// # Errors
    /// `NoAnnouncement`.
    pub fn lookup_key(&self, client: &str) -> Result<AnnouncementView, Error> {
        self.shared.state.directory().lookup(client).ok_or_else(|| Error::NoAnnouncement(client.to_owned()))
    }

    /// Up to `limit` announcements of a client, from the one numbered `from` on, oldest first.
    ///
    /// # Errors
    /// `NoAnnouncement`.
    pub fn key_history(&self, client: &str, from: u64, limit: usize) -> Result<KeyHistory, Error> {
        let history = self.shared.state.directory().history(client, from, limit);
        history.ok_or_else(|| Error::NoAnnouncement(client.to_owned()))
    }

    /// The unsigned key of a client: anybody may have registered it.
    ///
    /// # Errors
    /// `NoUnsignedKey`, also when the client has announced a key.
    pub fn unsigned_key(&self, client: &str) -> Result<Arc<[u8]>, Error> {
        self.shared.state.directory().unsigned(client).ok_or_else(|| Error::NoUnsignedKey(client.to_owned()))
    }

    /// How much is in the directory of keys.
    pub fn directory_figures(&self) -> DirectoryFigures {
        self.shared.state.directory().figures()
    }

    /// Counters since the start or the last reset.
    pub fn stats(&self) -> StatsView {
        self.shared.state.stats.view()
    }

    /// Counters start at zero; nothing else changes.
    pub fn reset_stats(&self) {
        self.shared.state.stats.reset();
    }

    /// Exchanges and bindings there are.
    pub fn topology_counts(&self) -> (usize, usize) {
        (self.shared.state.registry.exchange_count(), self.shared.state.registry.binding_count())
    }

    /// Bytes stored, and the most that may be.
    pub fn store_bytes(&self) -> (u64, u64) {
        (self.shared.state.store_bytes(), self.shared.state.options.store_bytes_max)
    }

    /// Bytes of waiting messages kept in memory, where they could be read back.
    pub fn resident_bytes(&self) -> u64 {
        self.shared.state.budget.bytes()
    }

    /// Message ids remembered against duplicates.
    pub fn dedupe_ids(&self) -> usize {
        self.shared.state.dedupe().len()
    }

    /// Whether the journal has more to write than it should: take in nothing until the connection's bell rings.
    pub fn is_congested(&self) -> bool {
        self.shared.journal.is_congested(self.connection.bell())
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

    /// Lease of a queue that does not state its own.
    pub fn default_lease_ms(&self) -> u64 {
        self.shared.state.options.lease_ms
    }
}
