use std::ops::Range;

use crate::Space;

/// Where an entry stands in the log: later entries have higher positions, and no entry has position 0.
///
/// In a log on disk it is the number of bytes of log in front of the entry, over all segments there ever were: an entry
/// can be read back by its position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// How certain an entry must be before it is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Written: survives the end of the process, not of the machine.
    Written,
    /// Written, and on disk at most this many milliseconds later.
    Within(u32),
    /// On disk: survives everything the disk survives.
    #[default]
    Synced,
}

impl Durability {
    /// The stricter of the two.
    #[must_use]
    pub fn strictest(self, other: Durability) -> Durability {
        match (self, other) {
            (Durability::Within(a), Durability::Within(b)) => Durability::Within(a.min(b)),
            (a, b) => a.max(b),
        }
    }
}

/// What a log on disk must know of its entries.
pub trait Entry: Send {
    /// Exactly how many bytes [`Entry::encode`] appends.
    fn encoded_len(&self) -> usize;

    /// Appends the entry's bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Whether the next entry of the same submission belongs to this one: a crash keeps both or neither.
    fn continues(&self) -> bool {
        false
    }

    /// Whether everything before this entry must be committed before it is admitted, and this entry before anything behind it is.
    /// Of a group (see [`Entry::continues`]) only the first entry is asked.
    ///
    /// One that has no room on a full disk is refused, whether it reserved some or not: those behind it must not wait for it.
    fn stands_alone(&self) -> bool {
        false
    }

    /// Whether it is written twice, so that no single damage on disk can take it.
    fn is_vital(&self) -> bool {
        false
    }

    /// What its commit waits for.
    fn durability(&self) -> Durability {
        Durability::Synced
    }

    /// What [`Journal::reserve`](crate::Journal::reserve) took for it: the log gives it back when the entry is committed, refused or not admitted.
    fn reserved(&self) -> u64 {
        0
    }
}

/// What the log's owner does with an entry. Called by one thread at a time.
pub trait Commit<E>: Send {
    /// Asked in log order, before an entry is written. False: it is not written and this was all that happens to it; what was
    /// set aside for it is the owner's to undo. Its receipt completes with the batch.
    fn admit(&mut self, position: Position, entry: &mut E) -> bool {
        let _ = (position, entry);
        true
    }

    /// The entry is durable. Called in order of position; never called for two entries at once.
    ///
    /// Must not call [`Journal::submit`](crate::Journal::submit) on the same journal.
    fn commit(&mut self, position: Position, entry: E, space: &mut Space);

    /// The entry will never be durable: whatever was set aside for it can be undone. Also an entry that was to be written anew and has no
    /// room: then [`Owner::carry`] and [`Owner::carry_rest`] are asked for it again.
    fn refuse(&mut self, entry: E);
}

/// The owner of a log on disk: it can tell everything again that the log's oldest segment told.
///
/// The log drops its segments from the oldest on. Before a segment is dropped, what must outlive it is written anew at the end of
/// the log; entries written anew go through [`Commit::commit`] like all others, but are not asked for [`Commit::admit`].
pub trait Owner<E>: Commit<E> {
    /// An entry read back when the log is opened, in log order. What it retains of `space` is counted again.
    ///
    /// # Errors
    /// [`Undecodable`]: the log reports the record as damaged and goes on.
    fn recover(&mut self, position: Position, payload: &[u8], space: &mut Space) -> Result<(), Undecodable>;

    /// Entries that tell, to somebody who knows nothing, all that does not live in entries of its own (see [`Owner::carry`]).
    /// They open each segment, so that a log is complete from any segment on.
    fn checkpoint(&mut self, out: &mut Vec<E>);

    /// An entry of the oldest segment in which [`Space`] counts something live: push what must outlive it.
    fn carry(&mut self, position: Position, payload: &[u8], out: &mut Vec<E>);

    /// The oldest segment, from its first position to the one behind its last, is about to be dropped: push what must
    /// outlive it and needs no reading back. Called after [`Owner::carry`] for each of its entries, and also when
    /// nothing in it is live. Pushing may be spread over several calls: it is called again until it pushes nothing.
    fn carry_rest(&mut self, segment: Range<Position>, out: &mut Vec<E>);
}

/// These bytes are no entry this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undecodable(pub &'static str);
