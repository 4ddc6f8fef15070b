use std::collections::VecDeque;

use ciphermq_journal::Position;

/// Messages in ascending order, taken from the front. One removed out of turn leaves a tombstone behind, so that
/// finding any of them stays a binary search.
#[derive(Debug)]
pub(super) struct Lane<T> {
    entries: VecDeque<(Position, Option<T>)>,
    live: usize,
}

impl<T> Lane<T> {
    pub(super) fn new() -> Lane<T> {
        Lane { entries: VecDeque::new(), live: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The first one's place in the order.
    pub(super) fn first(&self) -> Option<Position> {
        self.entries.front().map(|(order, _)| *order)
    }

    /// The last one's place in the order.
    pub(super) fn last(&self) -> Option<Position> {
        self.entries.back().map(|(order, _)| *order)
    }

    /// Adds one behind all others.
    pub(super) fn push(&mut self, order: Position, item: T) {
        debug_assert!(self.last().is_none_or(|last| last < order), "orders ascend in a lane");
        self.entries.push_back((order, Some(item)));
        self.live += 1;
    }

    /// Adds one in front of all others.
    pub(super) fn push_front(&mut self, order: Position, item: T) {
        debug_assert!(self.first().is_none_or(|first| first > order), "orders ascend in a lane");
        self.entries.push_front((order, Some(item)));
        self.live += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(Position, T)> {
        let (order, item) = self.entries.pop_front()?;
        self.live -= 1;
        self.trim();
        Some((order, item.expect("no tombstone stands at an end: trim takes them away")))
    }

    pub(super) fn get(&self, order: Position) -> Option<&T> {
        self.entries[self.index(order)?].1.as_ref()
    }

    pub(super) fn get_mut(&mut self, order: Position) -> Option<&mut T> {
        let index = self.index(order)?;
        self.entries[index].1.as_mut()
    }

    pub(super) fn remove(&mut self, order: Position) -> Option<T> {
        let index = self.index(order)?;
        let item = self.entries[index].1.take()?;
        self.live -= 1;
        self.trim();
        Some(item)
    }

    /// This lane and, behind it, the other.
    pub(super) fn followed_by(mut self, other: Lane<T>) -> Lane<T> {
        other.into_items().for_each(|(order, item)| self.push(order, item));
        self
    }

    /// What is left, in order.
    pub(super) fn into_items(self) -> impl Iterator<Item = (Position, T)> {
        self.entries.into_iter().filter_map(|(order, item)| Some((order, item?)))
    }

    /// Takes tombstones away from both ends, and all of them when they outnumber the messages: each is moved past at
    /// most once for every message removed.
    fn trim(&mut self) {
        while self.entries.front().is_some_and(|(_, item)| item.is_none()) {
            self.entries.pop_front();
        }
        while self.entries.back().is_some_and(|(_, item)| item.is_none()) {
            self.entries.pop_back();
        }
        if self.entries.len() > 2 * self.live {
            self.entries.retain(|(_, item)| item.is_some());
        }
    }

    fn index(&self, order: Position) -> Option<usize> {
        self.entries.binary_search_by_key(&order, |(order, _)| *order).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_out_of_turn_leave_no_more_tombstones_than_messages() {
        let mut lane = Lane::new();
        (1..=10_000).for_each(|order| lane.push(Position(order), order));
        // From the middle outwards, so that neither end is ever free by itself.
        for step in 0..9_998 {
            let order = if step % 2 == 0 { 5_000 - step / 2 } else { 5_001 + step / 2 };
            assert_eq!(lane.remove(Position(order)), Some(order));
            assert_eq!(lane.remove(Position(order)), None);
            assert!(lane.entries.len() <= 2 * lane.len(), "after {step}");
        }
        assert_eq!((lane.first(), lane.last()), (Some(Position(1)), Some(Position(10_000))));
        assert_eq!((lane.get(Position(10_000)), lane.get(Position(5))), (Some(&10_000), None));
        assert_eq!(
            [lane.pop(), lane.pop(), lane.pop()],
            [Some((Position(1), 1)), Some((Position(10_000), 10_000)), None]
        );
        assert!(lane.is_empty() && lane.entries.is_empty());
    }
}
