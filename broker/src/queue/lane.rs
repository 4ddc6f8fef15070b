use std::collections::VecDeque;

use ciphermq_journal::Position;

/// Messages in ascending order, taken from the front. One removed out of turn leaves a tombstone behind, so that
/// finding any of them stays a binary search.
///
/// Kept in chunks of bounded size: a lane of millions takes the room of what is in it, and no single change of it moves
/// more than one chunk.
#[derive(Debug)]
pub(super) struct Lane<T> {
    /// None of them is without messages, unless it is the only one.
    chunks: VecDeque<Chunk<T>>,
    live: usize,
}

/// Neither end is a tombstone, and tombstones do not outnumber the messages.
#[derive(Debug)]
struct Chunk<T> {
    entries: VecDeque<(Position, Option<T>)>,
    live: usize,
}

/// Entries of a chunk.
const CHUNK_LEN: usize = 1_024;

impl<T> Lane<T> {
    pub(super) fn new() -> Lane<T> {
        Lane { chunks: VecDeque::new(), live: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The first one's place in the order.
    pub(super) fn first(&self) -> Option<Position> {
        self.chunks.front()?.first()
    }

    /// The last one's place in the order.
    pub(super) fn last(&self) -> Option<Position> {
        self.chunks.back()?.last()
    }

    /// Adds one behind all others.
    pub(super) fn push(&mut self, order: Position, item: T) {
        debug_assert!(self.last().is_none_or(|last| last < order), "orders ascend in a lane");
        if self.chunks.back().is_none_or(Chunk::is_full) {
            self.chunks.push_back(self.another_chunk());
        }
        if let Some(last) = self.chunks.back_mut() {
            last.entries.push_back((order, Some(item)));
            last.live += 1;
            self.live += 1;
        }
    }

    /// Adds one in front of all others.
    pub(super) fn push_front(&mut self, order: Position, item: T) {
        debug_assert!(self.first().is_none_or(|first| first > order), "orders ascend in a lane");
        if self.chunks.front().is_none_or(Chunk::is_full) {
            self.chunks.push_front(self.another_chunk());
        }
        if let Some(first) = self.chunks.front_mut() {
            first.entries.push_front((order, Some(item)));
            first.live += 1;
            self.live += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<(Position, T)> {
        let first = self.chunks.front_mut()?;
        let (order, item) = first.entries.pop_front()?;
        first.live -= 1;
        self.live -= 1;
        self.tidy(0);
        Some((order, item.expect("no tombstone stands at an end: trim takes them away")))
    }

    pub(super) fn get(&self, order: Position) -> Option<&T> {
        let chunk = self.chunks.get(self.chunk_of(order))?;
        chunk.entries[chunk.index(order)?].1.as_ref()
    }

    pub(super) fn get_mut(&mut self, order: Position) -> Option<&mut T> {
        let at = self.chunk_of(order);
        let chunk = self.chunks.get_mut(at)?;
        let index = chunk.index(order)?;
        chunk.entries[index].1.as_mut()
    }

    pub(super) fn remove(&mut self, order: Position) -> Option<T> {
        let at = self.chunk_of(order);
        let chunk = self.chunks.get_mut(at)?;
        let index = chunk.index(order)?;
        let item = chunk.entries[index].1.take()?;
        chunk.live -= 1;
        self.live -= 1;
        self.tidy(at);
        Some(item)
    }

    /// This lane and, behind it, the other.
    pub(super) fn followed_by(mut self, other: Lane<T>) -> Lane<T> {
        other.into_items().for_each(|(order, item)| self.push(order, item));
        self
    }

    /// What is left, in order.
    pub(super) fn into_items(self) -> impl Iterator<Item = (Position, T)> {
        let entries = self.chunks.into_iter().flat_map(|chunk| chunk.entries);
        entries.filter_map(|(order, item)| Some((order, item?)))
    }

    /// The first chunk grows with what comes, because most queues stay short.
    fn another_chunk(&self) -> Chunk<T> {
        let capacity = if self.chunks.is_empty() { 0 } else { CHUNK_LEN };
        Chunk { entries: VecDeque::with_capacity(capacity), live: 0 }
    }

    /// One left this chunk. The last chunk stays when it is empty: a queue that is always nearly empty allocates nothing.
    fn tidy(&mut self, at: usize) {
        let chunk = &mut self.chunks[at];
        chunk.trim();
        if chunk.live == 0 && self.chunks.len() > 1 {
            self.chunks.remove(at);
        }
    }

    /// The chunk this one is in, if it is anywhere.
    fn chunk_of(&self, order: Position) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last < order))
    }
}

impl<T> Chunk<T> {
    fn is_full(&self) -> bool {
        self.entries.len() >= CHUNK_LEN
    }

    fn first(&self) -> Option<Position> {
        self.entries.front().map(|(order, _)| *order)
    }

    fn last(&self) -> Option<Position> {
        self.entries.back().map(|(order, _)| *order)
    }

    fn index(&self, order: Position) -> Option<usize> {
        self.entries.binary_search_by_key(&order, |(order, _)| *order).ok()
    }

    /// Takes tombstones away from both ends, and all of them when they outnumber the messages: each is moved past at
    /// most once for every message removed.
    fn trim(&mut self) {
        if self.entries.len() == self.live {
            return;
        }
        while self.entries.front().is_some_and(|(_, item)| item.is_none()) {
            self.entries.pop_front();
        }
        while self.entries.back().is_some_and(|(_, item)| item.is_none()) {
            self.entries.pop_back();
        }
        if self.entries.len() > 2 * self.live {
            self.entries.retain(|(_, item)| item.is_some());
            self.entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::queue::Stored;

    fn entries<T>(lane: &Lane<T>) -> usize {
        lane.chunks.iter().map(|chunk| chunk.entries.len()).sum()
    }

    #[test]
    fn an_entry_without_its_body_takes_24_bytes() {
        assert_eq!(size_of::<(Position, Option<Stored>)>(), 24);
    }

    #[test]
    fn removals_out_of_turn_leave_no_more_tombstones_than_messages() {
        let mut lane = Lane::new();
        (1..=10_000).for_each(|order| lane.push(Position(order), order));
        // From the middle outwards, so that neither end is ever free by itself.
        for step in 0..9_998 {
            let order = if step % 2 == 0 { 5_000 - step / 2 } else { 5_001 + step / 2 };
            assert_eq!(lane.remove(Position(order)), Some(order));
            assert_eq!(lane.remove(Position(order)), None);
            assert!(entries(&lane) <= 2 * lane.len(), "after {step}");
        }
        assert_eq!((lane.first(), lane.last()), (Some(Position(1)), Some(Position(10_000))));
        assert_eq!((lane.get(Position(10_000)), lane.get(Position(5))), (Some(&10_000), None));
        let left = [lane.pop(), lane.pop(), lane.pop()];
        assert_eq!(left, [Some((Position(1), 1)), Some((Position(10_000), 10_000)), None]);
        assert!(lane.is_empty() && entries(&lane) == 0 && lane.chunks.len() == 1);
    }

    #[test]
    fn a_lane_takes_the_room_of_what_is_in_it() {
        let mut lane = Lane::new();
        (1..=100_000).for_each(|order| lane.push(Position(order), order));
        let room = |lane: &Lane<u64>| lane.chunks.iter().map(|chunk| chunk.entries.capacity()).sum::<usize>();
        assert!((100_000..100_000 + CHUNK_LEN).contains(&room(&lane)));
        (1..99_000).for_each(|order| assert_eq!(lane.pop(), Some((Position(order), order))));
        assert!(room(&lane) <= 1_001 + 2 * CHUNK_LEN);
    }

    #[test]
    fn a_lane_agrees_with_a_map_over_many_rounds() {
        let seed = std::env::var("CIPHERMQ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
        println!("seed {seed}: replay with CIPHERMQ_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (mut lane, mut oracle) = (Lane::new(), BTreeMap::new());
        let (mut first, mut last) = (1_000_000_000, 1_000_000_000);
        for _ in 0..200 {
            // It grows and shrinks over several chunks.
            let kind = random.random_range(0..5);
            for _ in 0..random.random_range(0..2_000) {
                match kind {
                    0 | 1 => {
                        last += random.random_range(1..4);
                        lane.push(Position(last), last);
                        oracle.insert(last, last);
                    }
                    2 => {
                        first -= random.random_range(1..4);
                        lane.push_front(Position(first), first);
                        oracle.insert(first, first);
                    }
                    3 => assert_eq!(lane.pop(), oracle.pop_first().map(|(order, item)| (Position(order), item))),
                    _ => {
                        let order = random.random_range(first - 1..last + 2);
                        assert_eq!(lane.get(Position(order)), oracle.get(&order));
                        assert_eq!(lane.get_mut(Position(order)), oracle.get_mut(&order));
                        assert_eq!(lane.remove(Position(order)), oracle.remove(&order));
                    }
                }
                assert_eq!(lane.len(), oracle.len());
                assert_eq!(lane.first(), oracle.first_key_value().map(|(order, _)| Position(*order)));
                assert_eq!(lane.last(), oracle.last_key_value().map(|(order, _)| Position(*order)));
            }
            assert!(lane.chunks.iter().all(|chunk| chunk.entries.len() <= CHUNK_LEN));
        }
        assert!(lane.into_items().map(|(order, item)| (order.0, item)).eq(oracle));
    }
}
