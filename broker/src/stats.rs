use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the broker. Relaxed: each is exact, together they are a snapshot of about now.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) published: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    delivered: AtomicU64,
    redelivered: AtomicU64,
    acknowledged: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) damaged: AtomicU64,
    publish_to_ack_ms: AtomicU64,
    delivery_to_ack_ms: AtomicU64,
}

/// Counters since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StatsView {
    /// Messages taken.
    pub published: u64,
    /// Publishes answered `ACK` because the id was known.
    pub duplicates: u64,
    /// Leases given.
    pub delivered: u64,
    /// Leases given for a message that was delivered before.
    pub redelivered: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages moved to a dead-letter queue.
    pub dead_lettered: u64,
    /// Publishes refused.
    pub refused: u64,
    /// Messages that left their queue because what the log has of them is damaged.
    pub damaged: u64,
    /// Mean time from publish to acknowledgement, in seconds.
    pub publish_to_ack_seconds: f64,
    /// Mean time from the last delivery to acknowledgement, in seconds.
    pub delivery_to_ack_seconds: f64,
}

impl Stats {
    pub(crate) fn count_delivery(&self, attempt: u32) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if attempt > 1 {
            self.redelivered.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_ack(&self, publish_to_ack_ms: u64, delivery_to_ack_ms: u64) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.publish_to_ack_ms.fetch_add(publish_to_ack_ms, Ordering::Relaxed);
        self.delivery_to_ack_ms.fetch_add(delivery_to_ack_ms, Ordering::Relaxed);
    }

    pub(crate) fn view(&self) -> StatsView {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let acknowledged = read(&self.acknowledged);
        let mean = |sum_ms: &AtomicU64| read(sum_ms) as f64 / 1000.0 / acknowledged.max(1) as f64;
        StatsView {
            published: read(&self.published),
            duplicates: read(&self.duplicates),
            delivered: read(&self.delivered),
            redelivered: read(&self.redelivered),
            acknowledged,
            dead_lettered: read(&self.dead_lettered),
            refused: read(&self.refused),
            damaged: read(&self.damaged),
            publish_to_ack_seconds: mean(&self.publish_to_ack_ms),
            delivery_to_ack_seconds: mean(&self.delivery_to_ack_ms),
        }
    }

    pub(crate) fn reset(&self) {
        let counters = [
            &self.published,
            &self.duplicates,
            &self.delivered,
            &self.redelivered,
            &self.acknowledged,
            &self.dead_lettered,
            &self.refused,
            &self.damaged,
            &self.publish_to_ack_ms,
            &self.delivery_to_ack_ms,
        ];
        counters.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}
