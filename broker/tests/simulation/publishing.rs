//! Publishing: singly, in batches, again; and what the broker may answer at the door.

use ciphermq_broker::{Error, Publish};
use rand::RngExt;

use crate::history::History;
use crate::model::{DEFAULT_EXCHANGE, DEFAULT_KEY, EXCHANGES, Entry, KEYS, Name, Send};

/// Messages of one batch.
const BATCH_MAX: usize = 6;
/// A body that takes several blocks of the disk.
const LONG_BODY: usize = 6_000;

impl History {
    /// A way to publish: mostly one that leads somewhere.
    fn any_route(&mut self) -> (Name, Name) {
        if self.chance(6) {
            let exchange = self.pick(&EXCHANGES).unwrap_or(DEFAULT_EXCHANGE);
            return (exchange, self.pick(&KEYS).unwrap_or(DEFAULT_KEY));
        }
        let bound: Vec<_> = self.model.bindings.iter().map(|(exchange, key, _)| (*exchange, *key)).collect();
        self.pick(&bound).unwrap_or((DEFAULT_EXCHANGE, DEFAULT_KEY))
    }

    fn any_body(&mut self) -> String {
        let len = if self.chance(25) { LONG_BODY } else { self.body };
        let len = self.random.random_range(0..=len);
        // Different in every message, so that no two bodies can be taken for one another.
        let word = format!("{:07x}.", self.random.random_range(0..1u32 << 28));
        word.repeat(len / word.len() + 1)
    }

    pub(crate) fn publish_new(&mut self) {
        let id = format!("m{}", self.model.sends.len());
        let (exchange, key) = self.any_route();
        let client = self.any_client();
        self.publish(client, exchange, key, &id);
        self.submit_soon(client);
    }

    /// Publishes what was published before: mostly what was never answered, as its publisher does.
    pub(crate) fn publish_again(&mut self) {
        let unanswered = self.unanswered.clone();
        let (is_retry, send) = match self.pick(&unanswered) {
            Some(send) if !self.chance(4) => (true, send),
            _ if self.model.sends.is_empty() => return,
            _ => (false, self.random.random_range(0..self.model.sends.len())),
        };
        let Send { exchange, key, id, .. } = &self.model.sends[send];
        let (mut exchange, key, id) = (exchange.0, *key, id.clone());
        if !is_retry && self.chance(5) {
            // The same id to another exchange is another message.
            exchange = self.pick(&EXCHANGES).unwrap_or(exchange);
        }
        self.coverage.retries += u64::from(is_retry);
        let client = self.any_client();
        self.publish(client, exchange, key, &id);
        self.submit_soon(client);
    }

    fn publish(&mut self, client: usize, exchange: Name, key: Name, id: &str) {
        let send = self.prepare(exchange, key, id, None);
        self.client_does(client, format!("publishes {}", shown(&send)));
        let at = self.at();
        let publish = Publish { exchange, key, id, envelope: &send.envelope };
        let published = self.client(client).link.publish(publish, at);
        self.taken_in(client, vec![send], published);
    }

    pub(crate) fn publish_batch(&mut self) {
        let client = self.any_client();
        self.batches += 1;
        let (batch, first) = (self.batches, self.model.sends.len());
        let mut sends = Vec::new();
        for index in 0..self.random.random_range(1..=BATCH_MAX) {
            let (exchange, key) = self.any_route();
            // Now and then one that is known, or twice in the batch.
            let number = if self.chance(12) { self.random.random_range(0..=first) } else { first + index };
            let mut send = self.prepare(exchange, key, &format!("m{number}"), Some(batch));
            send.envelope =
                send.envelope.replacen(&format!("{{\"n\":{first},"), &format!("{{\"n\":{},", first + index), 1);
            sends.push(send);
        }
        let what: Vec<_> = sends.iter().map(shown).collect();
        self.client_does(client, format!("publishes a batch: {}", what.join(", ")));
        let at = self.at();
        let publishes = sends.iter().map(|send| Publish {
            exchange: send.exchange.0,
            key: send.key,
            id: &send.id,
            envelope: &send.envelope,
        });
        let published = self.client(client).link.publish_batch(publishes, at);
        self.taken_in(client, sends, published);
        self.submit_soon(client);
    }

    fn prepare(&mut self, exchange: Name, key: Name, id: &str, batch: Option<u64>) -> Send {
        let pad = self.any_body();
        let envelope = format!("{{\"n\":{},\"message_id\":\"{id}\",\"pad\":\"{pad}\"}}", self.model.sends.len());
        let exchange = (exchange, self.model.exchanges.get(exchange).copied().unwrap_or(0));
        let route = self.model.route(exchange.0, key).unwrap_or_default();
        Send { exchange, key, id: id.to_owned(), envelope, at: self.now, route, batch }
    }

    /// The broker's answer at the door.
    fn taken_in(&mut self, client: usize, sends: Vec<Send>, published: Result<(), Error>) {
        match published {
            Ok(()) => {
                for send in sends {
                    assert!(!send.route.is_empty(), "a publish without a route was taken in");
                    let number = self.model.sends.len();
                    self.collect(client, Some(Entry::Publish { send: number }));
                    self.model.sends.push(send);
                }
            }
            Err(_) if self.is_broken() => {}
            Err(error) => {
                self.say(format!("... refused: {error}"));
                self.coverage.publishes_refused += 1;
                let exchange = |send: &Send| self.model.exchanges.contains_key(send.exchange.0);
                let is_right = match &error {
                    Error::NoExchange(_) => !sends.iter().all(exchange),
                    Error::NoRoute { .. } => sends.iter().any(|send| exchange(send) && send.route.is_empty()),
                    Error::QueueFull(queue) => {
                        self.model.queues.get(&**queue).is_some_and(|queue| queue.settings.max_messages > 0)
                    }
                    Error::DiskFull => self.may_be_full(),
                    _ => false,
                };
                assert!(is_right, "a publish was refused: {error}");
                if matches!(error, Error::DiskFull) {
                    self.coverage.disk_full_refusals += 1;
                    self.refused_for_room();
                }
            }
        }
    }
}

fn shown(send: &Send) -> String {
    let number = send.envelope[5..].split(',').next().unwrap_or_default();
    let Send { exchange, key, id, envelope, .. } = send;
    format!("n{number} {id} to {} {key}, {} bytes", exchange.0, envelope.len())
}
