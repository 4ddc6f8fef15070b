use ciphermq_journal::{Position, ReadError, Reader, Undecodable};
use tracing::error;

use crate::Message;
use crate::queue::{Body, Queue};

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
    /// What the log has is not what was written.
    Damaged,
}

impl Loader {
    pub(crate) fn new(reader: Reader) -> Loader {
        Loader { reader }
    }

    /// The message `order` of `queue`, from memory or from the log.
    ///
    /// # Errors
    /// As [`Unloadable`] says.
    pub(crate) fn load(&mut self, queue: &Queue, order: Position) -> Result<Message, Unloadable> {
        let mut tried = None;
        loop {
            let at = match queue.body(order).ok_or(Unloadable::Gone)? {
                Body::Resident(message) => return Ok(message),
                Body::Stored(at) => at,
            };
            match self.reader.read(at.location) {
                Ok(payload) => return decode(payload, order).map_err(|_| Unloadable::Damaged),
                // Written anew at another place while it was looked for here.
                Err(ReadError::Gone(_)) if tried != Some(at.location) => tried = Some(at.location),
                Err(error) => {
                    error!(queue = queue.name(), location = at.location.0, "a message cannot be read back: {error}");
                    return Err(Unloadable::Damaged);
                }
            }
        }
    }
}

fn decode(_payload: &[u8], _order: Position) -> Result<Message, Undecodable> {
    Err(Undecodable("no record is read back yet"))
}
