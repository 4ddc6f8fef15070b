use crate::Position;

/// Reads entries back. Each reader keeps one stretch of the log, so that reading in the order of the log costs one read of the
/// disk for many entries. For one thread.
#[derive(Debug, Default)]
pub struct Reader {}

/// Why an entry could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log has no such entry any more: its segment was dropped. Whoever holds the position asks its owner for the
    /// newer one.
    #[error("the log has no entry at {0:?}")]
    Gone(Position),
    /// The entry is there, but its bytes are not those that were written.
    #[error("the entry at {0:?} is damaged")]
    Damaged(Position),
    /// The disk failed.
    #[error("the entry at {0:?} could not be read: {1}")]
    Io(Position, std::io::ErrorKind),
}

impl Reader {
    /// A reader of a log that keeps nothing.
    pub fn of_nothing() -> Reader {
        Reader {}
    }

    /// The payload of the entry at `position`, checked against its checksums.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn read(&mut self, position: Position) -> Result<&[u8], ReadError> {
        Err(ReadError::Gone(position))
    }
}
