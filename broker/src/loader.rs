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
}

impl<L: Log> Loader<L> {
    pub(crate) fn new(log: L) -> Loader<L> {
        Loader { log, has_read: false, is_failing: false }
    }

    /// Whether it may keep a stretch of log.
    pub(crate) fn has_read(&self) -> bool {
        self.has_read
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
