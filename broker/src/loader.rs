use ciphermq_journal::{Position, ReadError, Reader};
use tracing::error;

use crate::queue::{Body, Queue};
use crate::{Message, codec};

/// Reads bodies back that left memory. One for each connection: it keeps the stretch of log it read last.
///
/// No lock is held while it reads.
#[derive(Debug)]
pub(crate) struct Loader {
    reader: Reader,
}

/// Why a message has no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unloadable {
    /// The queue does not have the message any more.
    Gone,
    /// What the log has is not what was written: nobody will ever read this message.
    Damaged,
}

impl Loader {
    pub(crate) fn new(reader: Reader) -> Loader {
        Loader { reader }
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
            let why = match self.reader.read(at) {
                Ok(payload) => match codec::message(payload, order) {
                    Ok(message) => return Ok(message),
                    Err(undecodable) => undecodable.to_string(),
                },
                Err(error) => {
                    body = queue.body(order).ok_or(Unloadable::Gone)?;
                    // Written anew at another place while it was looked for here.
                    if matches!(error, ReadError::Gone(_)) && body.location() != Some(at) {
                        continue;
                    }
                    error.to_string()
                }
            };
            error!(queue = queue.name(), order = order.0, location = at.0, "a message cannot be read back: {why}");
            return Err(Unloadable::Damaged);
        }
    }
}
