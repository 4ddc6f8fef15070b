use std::sync::Arc;

use serde::Serialize;

use crate::Message;
use crate::dedupe::{KnownId, Place};
use crate::loader::Loader;
use crate::options::in_words;
use crate::queue::{Queue, Sighting};
use crate::state::State;

/// What `list_queues` shows of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueView {
    /// Its name.
    pub queue: String,
    /// Messages that can be delivered now.
    pub ready: u64,
    /// Messages leased to consumers, and those whose settlement is on its way to the journal.
    pub leased: u64,
    /// Messages whose nack delay is not over.
    pub delayed: u64,
    /// Bytes of its messages.
    pub bytes: u64,
    /// Subscriptions.
    pub consumers: usize,
    /// Lease in milliseconds.
    pub lease: u64,
    /// Deliveries before dead-lettering; 0 is without limit.
    pub max_attempts: u32,
    /// Where dead letters go; none in a dead-letter queue.
    pub dead_letter: Option<String>,
    /// Limit on messages; 0 is none.
    pub max_messages: u64,
    /// Limit on bytes; 0 is none.
    pub max_bytes: u64,
    /// `sync`, `interval:<ms>` or `none`.
    pub durability: String,
}

/// What `list_exchanges` shows of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExchangeView {
    /// Its name.
    pub exchange: String,
    /// How it routes.
    pub kind: &'static str,
    /// Number of bindings.
    pub bindings: usize,
}

/// One binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BindingView {
    /// Exchange.
    pub exchange: String,
    /// Queue.
    pub queue: String,
    /// Routing key.
    pub key: String,
}

/// Where a copy of a message stands, in the words of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Status {
    /// In the queue.
    Sent,
    /// Leased to a consumer.
    Delivered,
    /// Done with.
    Acknowledged,
}

/// What `status` shows of one copy of a message. Times in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopyView {
    /// Exchange it was published to.
    pub exchange: String,
    /// Queue it is, or was, in.
    pub queue: String,
    /// Where it stands.
    pub status: Status,
    /// Attempts, the current delivery included.
    pub attempts: u32,
    /// When the broker took it.
    pub published: u64,
    /// When it was last delivered.
    pub delivered: Option<u64>,
    /// When it was acknowledged.
    pub acknowledged: Option<u64>,
}

/// A copy of a message in a queue.
pub(crate) struct LiveCopy {
    pub(crate) queue: Arc<Queue>,
    pub(crate) sighting: Sighting,
    pub(crate) known: KnownId,
}

impl State {
    /// Up to `limit` queues behind the name `after`, by name.
    pub(crate) fn list_queues(&self, after: Option<&str>, limit: usize) -> Vec<QueueView> {
        let queues = self.registry.queues();
        let behind = queues.iter().filter(|queue| after.is_none_or(|after| queue.name() > after));
        behind.take(limit).map(|queue| view(queue)).collect()
    }

    /// Up to `limit` exchanges behind the name `after`, by name.
    pub(crate) fn list_exchanges(&self, after: Option<&str>, limit: usize) -> Vec<ExchangeView> {
        let exchanges = self.registry.exchanges();
        let behind = exchanges.iter().filter(|exchange| after.is_none_or(|after| &**exchange.name() > after));
        let view = |exchange: &Arc<crate::exchange::Exchange>| ExchangeView {
            exchange: exchange.name().to_string(),
            kind: "direct",
            bindings: exchange.binding_count(),
        };
        behind.take(limit).map(view).collect()
    }

    /// Up to `limit` bindings of exchanges behind `after`, or of the one named, by exchange, queue and key.
    pub(crate) fn list_bindings(&self, only: Option<&str>, after: Option<&str>, limit: usize) -> Vec<BindingView> {
        let mut views = Vec::new();
        for exchange in self.registry.exchanges() {
            let name = &**exchange.name();
            if only.is_some_and(|only| name != only) || after.is_some_and(|after| name <= after) {
                continue;
            }
            let mut bindings: Vec<BindingView> = exchange
                .bindings()
                .into_iter()
                .map(|(key, queue)| BindingView {
                    exchange: name.to_owned(),
                    queue: queue.name().to_owned(),
                    key: key.into_string(),
                })
                .collect();
            bindings.sort_unstable();
            views.extend(bindings);
            if views.len() >= limit {
                views.truncate(limit);
                break;
            }
        }
        views
    }

    /// Every copy of a message that is in a queue, or was acknowledged not too long ago.
    pub(crate) fn status(&self, id: &str, loader: &mut Loader) -> Vec<CopyView> {
        let hash = self.hash(id);
        let live = self.sightings(id, loader).into_iter().map(|(queue, sighting, message)| CopyView {
            exchange: message.exchange().to_owned(),
            queue: queue.name().to_owned(),
            status: if sighting.leased { Status::Delivered } else { Status::Sent },
            attempts: sighting.attempts,
            published: message.published().0,
            delivered: sighting.delivered.map(|at| at.0),
            acknowledged: None,
        });
        let mut copies: Vec<CopyView> = live.collect();
        copies.extend(self.history().find(hash).into_iter().map(|record| CopyView {
            exchange: record.exchange.to_string(),
            queue: record.queue.to_string(),
            status: Status::Acknowledged,
            attempts: record.attempts,
            published: record.published.0,
            delivered: record.delivered.map(|at| at.0),
            acknowledged: Some(record.acknowledged.0),
        }));
        copies.sort_by(|a, b| (&a.exchange, &a.queue, a.published).cmp(&(&b.exchange, &b.queue, b.published)));
        copies
    }

    /// The copies of the message `id` in queues, with their bodies.
    pub(crate) fn sightings(&self, id: &str, loader: &mut Loader) -> Vec<(Arc<Queue>, Sighting, Message)> {
        let load = |LiveCopy { queue, sighting, .. }| {
            // One that has left in the meantime, or cannot be read back, is not seen.
            let message = loader.load(&queue, sighting.order, sighting.body.clone()).ok()?;
            // The hash names the message only almost certainly; its text decides.
            (message.id() == id).then_some((queue, sighting, message))
        };
        self.copies(id).into_iter().filter_map(load).collect()
    }

    /// Every copy of the message `id` there is in a queue: none of them moves to another one meanwhile.
    pub(crate) fn copies(&self, id: &str) -> Vec<LiveCopy> {
        let hash = self.hash(id);
        let dedupe = self.dedupe();
        let mut copies = Vec::new();
        for known in dedupe.find(hash) {
            let queues = match known.place() {
                Place::In(queue) => self.registry.queue_by_id(queue).into_iter().collect(),
                Place::Anywhere => self.registry.queues(),
            };
            let Some(known) = dedupe.published_at(known.origin..=known.origin).next() else { continue };
            for queue in queues {
                let found = queue.find(known.origin).into_iter();
                copies.extend(found.map(|sighting| LiveCopy { queue: Arc::clone(&queue), sighting, known }));
            }
        }
        copies
    }
}

fn view(queue: &Queue) -> QueueView {
    let (counts, settings) = (queue.counts(), queue.settings());
    QueueView {
        queue: queue.name().to_owned(),
        ready: counts.ready,
        leased: counts.leased,
        delayed: counts.delayed,
        bytes: queue.bytes(),
        consumers: queue.consumers(),
        lease: settings.lease_ms,
        max_attempts: settings.max_attempts,
        dead_letter: settings.dead_letter.as_deref().map(str::to_owned),
        max_messages: settings.max_messages,
        max_bytes: settings.max_bytes,
        durability: in_words(settings.durability),
    }
}
