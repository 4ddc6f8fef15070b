use std::sync::atomic::{AtomicBool, Ordering};

use crate::NoRoom;

/// Whether entries that may be refused are let in.
///
/// As long as the disk gives another file whenever one is asked for, everything is. When it does not, what is prepared is all there is,
/// and all of it belongs to entries that may not be refused: settles, moves, and what is carried on.
#[derive(Debug, Default)]
pub(crate) struct Room {
    is_full: AtomicBool,
}

impl Room {
    pub(crate) fn reserve(&self) -> Result<(), NoRoom> {
        if self.is_full() { Err(NoRoom) } else { Ok(()) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// True if that is a change.
    pub(crate) fn set_full(&self, is_full: bool) -> bool {
        self.is_full.swap(is_full, Ordering::AcqRel) != is_full
    }
}
