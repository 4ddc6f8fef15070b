//! A small owner of a journal: queues of numbered messages. It uses everything the journal offers to an owner.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ciphermq_journal::{Commit, Durability, Entry, Owner, Position, Space, Undecodable};

/// What the toy journals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub what: What,
    pub durability: Durability,
    /// Whether the next fact belongs to this one.
    pub continues: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A message comes into the queues that are there; a known id is a duplicate.
    Publish {
        id: u32,
        queues: Vec<u8>,
        len: u16,
    },
    /// A message leaves a queue.
    Settle {
        queue: u8,
        id: u32,
    },
    Declare {
        queue: u8,
    },
    Delete {
        queue: u8,
    },
    /// A message told anew; `order` is its place in its queues.
    Relocate {
        id: u32,
        order: u64,
        queues: Vec<u8>,
        len: u16,
    },
    /// Ids that are known.
    Ids(Vec<u32>),
}

impl From<What> for Fact {
    fn from(what: What) -> Fact {
        Fact { what, durability: Durability::Synced, continues: false }
    }
}

/// So many ids below the highest are known: what a queue has lost can be told from what it never had.
pub const WINDOW: u32 = 60;

/// Of a message no workload has.
pub const LATE_ID: u32 = 1_000_000;

const IDS_PER_RECORD: usize = 8;

impl Fact {
    pub fn reads(payload: &[u8]) -> Result<What, Undecodable> {
        let (tag, rest) = payload.split_first().ok_or(Undecodable("empty"))?;
        let mut fields = Fields(rest);
        let what = match tag {
            1 | 5 => {
                let id = fields.number(4)? as u32;
                let order = if *tag == 5 { fields.number(8)? } else { 0 };
                let count = fields.number(1)? as usize;
                let queues = fields.take(count)?.to_vec();
                let len = fields.number(2)? as u16;
                if !fields.take(len as usize)?.iter().zip(body(id, len)).all(|(found, byte)| *found == byte) {
                    return Err(Undecodable("a body that is not the message's"));
                }
                match tag {
                    1 => What::Publish { id, queues, len },
                    _ => What::Relocate { id, order, queues, len },
                }
            }
            2 => What::Settle { queue: fields.number(1)? as u8, id: fields.number(4)? as u32 },
            3 => What::Declare { queue: fields.number(1)? as u8 },
            4 => What::Delete { queue: fields.number(1)? as u8 },
            6 => {
                let count = fields.number(1)?;
                What::Ids((0..count).map(|_| fields.number(4).map(|id| id as u32)).collect::<Result<_, _>>()?)
            }
            _ => return Err(Undecodable("an unknown tag")),
        };
        if fields.0.is_empty() { Ok(what) } else { Err(Undecodable("bytes too many")) }
    }
}

impl Entry for Fact {
    fn encoded_len(&self) -> usize {
        1 + match &self.what {
            What::Publish { queues, len, .. } => 4 + 1 + queues.len() + 2 + *len as usize,
            What::Settle { .. } => 5,
            What::Declare { .. } | What::Delete { .. } => 1,
            What::Relocate { queues, len, .. } => 4 + 8 + 1 + queues.len() + 2 + *len as usize,
            What::Ids(ids) => 1 + 4 * ids.len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match &self.what {
            What::Publish { id, queues, len } => {
                out.push(1);
                out.extend(id.to_le_bytes());
                message(queues, *id, *len, out);
            }
            What::Settle { queue, id } => {
                out.extend([2, *queue]);
                out.extend(id.to_le_bytes());
            }
            What::Declare { queue } => out.extend([3, *queue]),
            What::Delete { queue } => out.extend([4, *queue]),
            What::Relocate { id, order, queues, len } => {
                out.push(5);
                out.extend(id.to_le_bytes());
                out.extend(order.to_le_bytes());
                message(queues, *id, *len, out);
            }
            What::Ids(ids) => {
                out.extend([6, ids.len() as u8]);
                out.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
            }
        }
    }

    fn continues(&self) -> bool {
        self.continues
    }

    fn stands_alone(&self) -> bool {
        self.is_vital()
    }

    fn is_vital(&self) -> bool {
        matches!(self.what, What::Declare { .. } | What::Delete { .. })
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn reserved(&self) -> u64 {
        match self.what {
            What::Publish { .. } => self.encoded_len() as u64,
            _ => 0,
        }
    }
}

fn message(queues: &[u8], id: u32, len: u16, out: &mut Vec<u8>) {
    out.push(queues.len() as u8);
    out.extend(queues);
    out.extend(len.to_le_bytes());
    out.extend(body(id, len));
}

/// A body that belongs to one message only.
fn body(id: u32, len: u16) -> impl Iterator<Item = u8> {
    (0..len).map(move |at| (id.wrapping_mul(31) as u16 ^ at.wrapping_mul(7)) as u8)
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Undecodable("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<u64, Undecodable> {
        Ok(self.take(len)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// What the toy knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toy {
    /// Ids in order.
    pub queues: BTreeMap<u8, BTreeMap<u64, u32>>,
    pub messages: BTreeMap<u32, Message>,
    /// Where each known id was told last.
    pub known: BTreeMap<u32, u64>,
    /// Ids of publishes that were admitted and not committed.
    admitted: BTreeSet<u32>,
    last: u64,
    /// What it was told when the log was opened: position, length and meaning of each record.
    pub told: Vec<(u64, usize, What)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub order: u64,
    /// Where its record is.
    pub location: u64,
    pub len: u16,
    pub queues: BTreeSet<u8>,
    /// Bytes of its record that each of its queues keeps.
    share: u64,
}

impl Toy {
    /// All there is to know but for where it is kept.
    pub fn contents(&self) -> (BTreeMap<u8, BTreeMap<u64, u32>>, BTreeSet<u32>) {
        (self.queues.clone(), self.known.keys().copied().collect())
    }

    /// Bytes of records with something live in them, as long as they are on disk: 32 of a header, and a multiple of 8.
    pub fn live_bytes(&self) -> u64 {
        self.messages.values().map(|message| 32 + (u64::from(message.len) + 18).next_multiple_of(8)).sum()
    }

    fn apply(&mut self, position: Position, what: What, space: &mut Space) {
        match what {
            What::Publish { id, queues, len } => {
                self.know(id, position);
                self.place(id, position.0, queues, len, position, space);
            }
            What::Relocate { id, order, queues, len } => {
                if let Some(message) = self.messages.remove(&id) {
                    space.release(Position(message.location), message.share * message.queues.len() as u64);
                }
                self.place(id, order, queues, len, position, space);
            }
            What::Settle { queue, id } => self.settle(queue, id, space),
            What::Declare { queue } => {
                self.queues.entry(queue).or_default();
            }
            What::Delete { queue } => {
                let ids: Vec<u32> =
                    self.queues.get(&queue).into_iter().flat_map(|queue| queue.values().copied()).collect();
                for id in ids {
                    self.settle(queue, id, space);
                }
                self.queues.remove(&queue);
            }
            What::Ids(ids) => ids.into_iter().for_each(|id| self.know(id, position)),
        }
    }

    fn know(&mut self, id: u32, position: Position) {
        self.known.insert(id, position.0);
        let highest = *self.known.last_key_value().expect("it has at least this id").0;
        while self.known.first_key_value().is_some_and(|(id, _)| id + WINDOW <= highest) {
            self.known.pop_first();
        }
    }

    fn place(&mut self, id: u32, order: u64, queues: Vec<u8>, len: u16, at: Position, space: &mut Space) {
        let queues: BTreeSet<u8> = queues.into_iter().filter(|queue| self.queues.contains_key(queue)).collect();
        let share = u64::from(len) / (queues.len().max(1) as u64);
        let message = Message { order, location: at.0, len, queues, share };
        for queue in &message.queues {
            self.queues.entry(*queue).or_default().insert(order, id);
            space.retain(at, message.share);
        }
        if !message.queues.is_empty() {
            self.messages.insert(id, message);
        }
    }

    fn settle(&mut self, queue: u8, id: u32, space: &mut Space) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        if message.queues.remove(&queue) {
            space.release(Position(message.location), message.share);
            self.queues.entry(queue).or_default().remove(&message.order);
        }
        if message.queues.is_empty() {
            self.messages.remove(&id);
        }
    }
}

/// A toy shared with the test that looks at it.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Toy>>);

impl Shared {
    pub fn look(&self) -> MutexGuard<'_, Toy> {
        // A test that failed looks at it once more, when its journal ends.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commit<Fact> for Shared {
    fn admit(&mut self, _: Position, fact: &mut Fact) -> bool {
        let mut toy = self.look();
        match fact.what {
            What::Publish { id, .. } => !toy.known.contains_key(&id) && toy.admitted.insert(id),
            _ => true,
        }
    }

    fn commit(&mut self, position: Position, fact: Fact, space: &mut Space) {
        let mut toy = self.look();
        assert!(position.0 > toy.last, "committed in order");
        toy.last = position.0;
        if let What::Publish { id, .. } = fact.what {
            assert!(toy.admitted.remove(&id), "what is committed was admitted");
        }
        toy.apply(position, fact.what, space);
    }

    fn refuse(&mut self, fact: Fact) {
        if let What::Publish { id, .. } = fact.what {
            self.look().admitted.remove(&id);
        }
    }
}

impl Owner<Fact> for Shared {
    fn recover(&mut self, position: Position, payload: &[u8], space: &mut Space) -> Result<(), Undecodable> {
        let what = Fact::reads(payload)?;
        let mut toy = self.look();
        assert!(position.0 > toy.last, "recovered in order");
        toy.last = position.0;
        toy.told.push((position.0, payload.len(), what.clone()));
        toy.apply(position, what, space);
        Ok(())
    }

    fn checkpoint(&mut self, out: &mut Vec<Fact>) {
        out.extend(self.look().queues.keys().map(|queue| Fact::from(What::Declare { queue: *queue })));
    }

    fn carry(&mut self, position: Position, payload: &[u8], out: &mut Vec<Fact>) {
        if let Ok(What::Publish { id, .. } | What::Relocate { id, .. }) = Fact::reads(payload)
            && let Some(message) = self.look().messages.get(&id)
            && message.location == position.0
        {
            let queues = message.queues.iter().copied().collect();
            out.push(What::Relocate { id, order: message.order, queues, len: message.len }.into());
        }
    }

    fn carry_rest(&mut self, segment: Range<Position>, out: &mut Vec<Fact>) {
        let inside = segment.start.0..segment.end.0;
        let toy = self.look();
        let ids = toy.known.iter().filter(|(_, told)| inside.contains(told)).map(|(id, _)| *id);
        let ids: Vec<u32> = ids.take(IDS_PER_RECORD).collect();
        if !ids.is_empty() {
            out.push(What::Ids(ids).into());
        }
    }
}
