//! Publishing: a route, room for the message everywhere it goes, one copy of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ciphermq_journal::Entry;

use super::{Link, check_length};
use crate::dedupe::IdHash;
use crate::event::{Event, Record};
use crate::exchange::Route;
use crate::{Error, Message, Timestamp, limits};

/// A message to publish. Names and ids have at most 255 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Exchange to publish to.
    pub exchange: &'a str,
    /// Routing key.
    pub key: &'a str,
    /// The message id.
    pub id: &'a str,
    /// The text to deliver, byte for byte.
    pub envelope: &'a str,
}

impl Link {
    /// Collects a publish for the journal.
    ///
    /// # Errors
    /// `NoExchange`, `NoRoute`, `QueueFull`, `StoreFull`, `DiskFull`.
    pub fn publish(&mut self, publish: Publish<'_>, now: Timestamp) -> Result<(), Error> {
        self.now = now;
        let result = self.collect(publish, now);
        if result.is_err() {
            self.shared.state.stats.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Collects several publishes: all or, on an error, none; also a crash keeps all or none.
    ///
    /// # Errors
    /// As [`Link::publish`]; `Limit` if they are too many bytes for that.
    pub fn publish_batch<'a>(
        &mut self,
        batch: impl IntoIterator<Item = Publish<'a>>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let before = self.records.len();
        let mut bytes = 0;
        let result = batch.into_iter().try_for_each(|publish| {
            self.publish(publish, now)?;
            bytes += self.records.last().map_or(0, Record::encoded_len);
            if bytes > limits::BATCH_BYTES_MAX { Err(Error::Limit("256 MiB in a batch")) } else { Ok(()) }
        });
        if result.is_err() {
            self.records.drain(before..).for_each(|record| self.shared.give_back(record));
        }
        self.forget_duplicates(before);
        if let Some((_, all_but_last)) = self.records.get_mut(before..).and_then(<[_]>::split_last_mut) {
            all_but_last.iter_mut().for_each(|record| record.continues = true);
        }
        result
    }

    /// Whatever is submitted with them, behind what they repeat, lets their answers wait long enough. In a group they would only
    /// make a difference to whether a full disk may refuse it.
    fn forget_duplicates(&mut self, from: usize) {
        let is_duplicate = |record: &Record| matches!(record.event, Event::Duplicate);
        let duplicates = self.records[from..].iter().filter(|record| is_duplicate(record)).count();
        if (1..self.records.len() - from).contains(&duplicates) {
            let batch = self.records.split_off(from);
            self.records.extend(batch.into_iter().filter(|record| !is_duplicate(record)));
        }
    }

    fn collect(&mut self, publish: Publish<'_>, now: Timestamp) -> Result<(), Error> {
        check_length(publish.id)?;
        let state = &self.shared.state;
        let route: Arc<Route> = state.route(publish.exchange, publish.key)?;
        let exchange = (route.exchange, publish.exchange);
        let message = Message::new(&mut self.scratch, exchange, publish.key, publish.id, publish.envelope, now);
        let hash = state.hash(publish.id);
        let exchange = route.exchange;
        let record = match self.with_room(message, hash, route, now) {
            Ok(record) => record,
            // A publisher whose ACK was lost must not be told that its stored message was refused.
            Err(_) if state.is_known(hash, exchange, now) => Record::new(now, Event::Duplicate),
            Err(full) => return Err(full),
        };
        self.records.push(record);
        Ok(())
    }

    /// The record of a publish, for which there is room in its queues and in the log.
    fn with_room(&self, message: Message, hash: IdHash, route: Arc<Route>, now: Timestamp) -> Result<Record, Error> {
        self.shared.state.reserve(&route, message.bytes())?;
        let mut record = Record::new(now, Event::Publish { message, hash, route });
        if self.shared.reserve(&mut record).is_err() {
            self.shared.give_back(record);
            return Err(Error::DiskFull);
        }
        Ok(record)
    }
}
