//! Looking at the broker. Nothing here changes a message.

use ciphermq_journal::{Figures, Health};

use super::Link;
use crate::snapshot::{BindingView, CopyView, ExchangeView, QueueView};
use crate::{Error, StatsView};

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
