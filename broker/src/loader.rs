use ciphermq_journal::{Position, ReadError, Reader};
use tracing::{error, warn};

use crate::queue::{Body, Queue};
use crate::{Message, codec};

/// Reads bodies back that left memory. One for each connection: it keeps the stretch of log it read last.
///
/// No lock is held while it reads.
#[derive(Debug)]
pub(crate) struct Loader<L = Reader> {
    log: L,
    has_read: bool,
    /// The disk failed at the last attempt: said once, not for each message.
    is_failing: bool,
}

/// Where records are read.
pub(crate) trait Log {
    fn read(&mut self, at: Position) -> Result<&[u8], ReadError>;

    /// Frees what is kept of it.
    fn rest(&mut self);
}

/// Why a message has no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unloadable {
    /// The queue does not have the message any more.
    Gone,
    /// What the log has is not what was written: nobody will ever read this message.
    Damaged,
    /// The disk failed: another attempt may succeed.
    Unreadable,
}

impl Log for Reader {
    fn read(&mut self, at: Position) -> Result<&[u8], ReadError> {
        Reader::read(self, at)
    }

    fn rest(&mut self) {
        Reader::rest(self);
    }
}

impl<L: Log> Loader<L> {
    pub(crate) fn new(log: L) -> Loader<L> {
        Loader { log, has_read: false, is_failing: false }
    }

    /// Nothing is to be read for now: what was read last need not stay in memory.
    pub(crate) fn rest(&mut self) {
        if std::mem::take(&mut self.has_read) {
            self.log.rest();
        }
    }

    /// The message `order` of `queue`, whose body was seen there a moment ago.
    ///
    /// # Errors
    /// As [`Unloadable`] says.
    pub(crate) fn load(&mut self, queue: &Queue, order: Position, mut body: Body) -> Result<Message, Unloadable> {
        loop {
            let at = match body {
                Body::Resident(message) => return Ok(message),
                Body::Stored(at) => at.location,
            };
            self.has_read = true;
            let found = self.log.read(at).map(|payload| codec::message(payload, order));
            match found {
                Ok(Ok(message)) => {
                    self.is_failing = false;
                    return Ok(message);
                }
                Ok(Err(undecodable)) => return Err(damaged(queue, order, at, &undecodable)),
                Err(ReadError::Io(..)) if self.is_failing => return Err(Unloadable::Unreadable),
                Err(failure @ ReadError::Io(..)) => {
                    warn!(queue = queue.name(), "{failure}: messages are tried again until it succeeds");
                    self.is_failing = true;
                    return Err(Unloadable::Unreadable);
                }
                Err(why) => {
                    body = queue.body(order).ok_or(Unloadable::Gone)?;
                    // Written anew at another place, and the old one dropped, while it was looked for there?
                    if body.location() == Some(at) {
                        return Err(damaged(queue, order, at, &why));
                    }
                }
            }
        }
    }
}

fn damaged(queue: &Queue, order: Position, at: Position, why: &dyn std::error::Error) -> Unloadable {
    error!(queue = queue.name(), order = order.0, location = at.0, "a message is lost, its record is damaged: {why}");
    Unloadable::Damaged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::ErrorKind;
    use std::sync::Arc;

    use ciphermq_journal::{Doorbell, Entry};

    use super::*;
    use crate::budget::Budget;
    use crate::event::{Event, Record};
    use crate::model::{ExchangeId, QueueId};
    use crate::queue::Stored;
    use crate::timers::Timers;
    use crate::{BrokerOptions, QueueSettings, Timestamp};

    const ORDER: Position = Position(64);
    const ELSEWHERE: Position = Position(128);

    /// Records by location; nothing is at any other.
    struct FakeLog(BTreeMap<Position, Result<Vec<u8>, ReadError>>);

    impl Log for FakeLog {
        fn read(&mut self, at: Position) -> Result<&[u8], ReadError> {
            match self.0.get(&at) {
                Some(Ok(payload)) => Ok(payload),
                Some(Err(error)) => Err(error.clone()),
                None => Err(ReadError::Gone(at)),
            }
        }

        fn rest(&mut self) {
            self.0.clear();
        }
    }

    fn message() -> Message {
        let text = (ExchangeId(1), "shop");
        Message::new(&mut String::new(), text, "new", "o-1", "{\"ü\":1}", Timestamp(5)).with_origin(ORDER, 1)
    }

    fn payload() -> Vec<u8> {
        let event = Event::Relocate { order: ORDER, message: Box::new(message()), copies: Vec::new() };
        let mut payload = Vec::new();
        Record::new(Timestamp(5), event).encode(&mut payload);
        payload
    }

    /// A queue that holds the message in the log only, and what it knows of it.
    fn queue() -> (Arc<Queue>, Stored) {
        let timers = Arc::new(Timers::new(Arc::new(Doorbell::new())));
        let settings = QueueSettings::dead_letter_queue(&BrokerOptions::default());
        let budget = Arc::new(Budget::new(0));
        let queue = Arc::new(Queue::new(QueueId(1), Arc::from("q"), settings, timers, Arc::default(), budget));
        assert!(queue.push(ORDER, message(), Timestamp(5)));
        let at = queue.location(ORDER).unwrap();
        (queue, at)
    }

    fn load(queue: &Queue, at: Stored, log: &[(Position, Result<Vec<u8>, ReadError>)]) -> Result<Message, Unloadable> {
        Loader::new(FakeLog(log.iter().cloned().collect())).load(queue, ORDER, Body::Stored(at))
    }

    #[test]
    fn a_body_comes_back_as_it_left() {
        let (queue, at) = queue();
        let loaded = load(&queue, at, &[(ORDER, Ok(payload()))]).unwrap();
        assert_eq!((loaded.exchange(), loaded.key(), loaded.id()), ("shop", "new", "o-1"));
        assert_eq!((loaded.envelope(), loaded.published(), loaded.origin()), ("{\"ü\":1}", Timestamp(5), ORDER));
    }

    #[test]
    fn a_record_written_anew_meanwhile_is_found_where_it_is() {
        let (queue, at) = queue();
        assert_eq!(queue.relocate(ORDER, Stored { location: ELSEWHERE, ..at }), Some(at));
        for before in [ReadError::Gone(ORDER), ReadError::Damaged(ORDER)] {
            let loaded = load(&queue, at, &[(ORDER, Err(before)), (ELSEWHERE, Ok(payload()))]);
            assert_eq!(loaded.unwrap().id(), "o-1");
        }
    }

    #[test]
    fn what_the_log_does_not_have_where_it_should_is_damaged() {
        let (queue, at) = queue();
        let lost: [&[_]; 3] =
            [&[], &[(ORDER, Err(ReadError::Damaged(ORDER)))], &[(ORDER, Ok(b"not a record".to_vec()))]];
        for log in lost {
            assert_eq!(load(&queue, at, log).unwrap_err(), Unloadable::Damaged);
        }
    }

    #[test]
    fn what_has_left_the_queue_is_not_damaged() {
        let (queue, at) = queue();
        assert!(queue.retire(ORDER, Timestamp(6)).is_some());
        assert_eq!(load(&queue, at, &[]).unwrap_err(), Unloadable::Gone);
    }

    #[test]
    fn who_rests_keeps_nothing_of_the_log() {
        let (queue, at) = queue();
        let mut loader = Loader::new(FakeLog([(ORDER, Ok(payload()))].into()));
        loader.rest();
        assert!(!loader.log.0.is_empty(), "nothing was read");
        assert!(loader.load(&queue, ORDER, Body::Stored(at)).is_ok());
        loader.rest();
        assert!(loader.log.0.is_empty());
    }

    #[test]
    fn a_failing_disk_costs_no_message() {
        let (queue, at) = queue();
        let failure = ReadError::Io(ORDER, ErrorKind::Other);
        let mut loader = Loader::new(FakeLog([(ORDER, Err(failure))].into()));
        for _ in 0..3 {
            assert_eq!(loader.load(&queue, ORDER, Body::Stored(at)).unwrap_err(), Unloadable::Unreadable);
        }
        assert!(loader.is_failing);
        loader.log.0.insert(ORDER, Ok(payload()));
        assert!(loader.load(&queue, ORDER, Body::Stored(at)).is_ok() && !loader.is_failing);
    }
}
