use std::collections::VecDeque;
use std::ops::Index;

/// A queue found by index, kept in chunks of bounded size: a ring of millions takes the room of what is in it, and growing
/// moves nothing.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    /// All but the first and the last are full; all but a single one have something in them.
    chunks: VecDeque<VecDeque<T>>,
    len: usize,
}

/// Entries of a chunk.
const CHUNK_LEN: usize = 1_024;

impl<T> Ring<T> {
    pub(crate) fn new() -> Ring<T> {
        Ring { chunks: VecDeque::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.chunks.front()?.front()
    }

    pub(crate) fn back(&self) -> Option<&T> {
        self.chunks.back()?.back()
    }

    pub(crate) fn push_back(&mut self, item: T) {
        if self.chunks.back().is_none_or(|last| last.len() >= CHUNK_LEN) {
            // The first chunk grows with what comes: a ring may stay short.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK_LEN };
            self.chunks.push_back(VecDeque::with_capacity(capacity));
        }
        if let Some(last) = self.chunks.back_mut() {
            last.push_back(item);
            self.len += 1;
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let first = self.chunks.front_mut()?;
        let item = first.pop_front()?;
        self.len -= 1;
        if first.is_empty() && self.chunks.len() > 1 {
            self.chunks.pop_front();
        }
        Some(item)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let (chunk, index) = self.place(index);
        self.chunks.get_mut(chunk)?.get_mut(index)
    }

    /// All from this index on.
    pub(crate) fn iter_from(&self, index: usize) -> impl Iterator<Item = &T> {
        let (chunk, index) = self.place(index);
        let chunks = self.chunks.range(chunk.min(self.chunks.len())..);
        chunks.enumerate().flat_map(move |(number, chunk)| {
            let start = if number == 0 { index.min(chunk.len()) } else { 0 };
            chunk.range(start..)
        })
    }

    /// How many of the first entries `is_before` holds for; it must not hold for any behind those.
    pub(crate) fn partition_point(&self, mut is_before: impl FnMut(&T) -> bool) -> usize {
        let full = self.chunks.partition_point(|chunk| chunk.back().is_some_and(&mut is_before));
        let within = self.chunks.get(full).map_or(0, |chunk| chunk.partition_point(is_before));
        self.chunks.iter().take(full).map(VecDeque::len).sum::<usize>() + within
    }

    /// Which chunk, and where in it.
    fn place(&self, index: usize) -> (usize, usize) {
        let first = self.chunks.front().map_or(0, VecDeque::len);
        if index < first { (0, index) } else { (1 + (index - first) / CHUNK_LEN, (index - first) % CHUNK_LEN) }
    }
}

impl<T> Index<usize> for Ring<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        let (chunk, index) = self.place(index);
        &self.chunks[chunk][index]
    }
}

impl<T> IntoIterator for Ring<T> {
    type Item = T;
    type IntoIter = std::iter::Flatten<std::collections::vec_deque::IntoIter<VecDeque<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.chunks.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_agrees_with_a_plain_deque_whatever_its_length() {
        let (mut ring, mut oracle) = (Ring::new(), VecDeque::new());
        for round in 0..40_u64 {
            // It grows over several chunks, is emptied, and starts at every place of its first chunk.
            let (pushed, popped) = [(3_000, 100), (10, 2_900), (1_024, 1_023), (1_500, 5_000)][round as usize % 4];
            for number in 0..pushed + round {
                ring.push_back(round * 10_000 + number);
                oracle.push_back(round * 10_000 + number);
            }
            (0..popped).for_each(|_| assert_eq!(ring.pop_front(), oracle.pop_front()));
            assert_eq!((ring.len(), ring.front(), ring.back()), (oracle.len(), oracle.front(), oracle.back()));
            for index in (0..oracle.len() + 2).step_by(101) {
                assert!(index >= oracle.len() || ring[index] == oracle[index]);
                assert_eq!(ring.get_mut(index), oracle.get_mut(index));
                assert!(ring.iter_from(index).eq(oracle.range(index.min(oracle.len())..)));
                let bound = oracle.get(index).copied().unwrap_or(u64::MAX);
                assert_eq!(ring.partition_point(|it| *it < bound), oracle.partition_point(|it| *it < bound));
            }
            let room: usize = ring.chunks.iter().map(VecDeque::capacity).sum();
            assert!(room <= ring.len() + 2 * CHUNK_LEN, "room for {room}, {} in it", ring.len());
        }
        assert!(ring.into_iter().eq(oracle));
    }
}
