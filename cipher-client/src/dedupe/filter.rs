//! In which segments a key may be: a cuckoo filter, two bytes a key.
//!
//! A key has two buckets of four entries; an entry is the tag of a segment and
//! eight bits of the key. An answer may name a segment that does not have the
//! key, the look into the segment tells; it never leaves out one that has it.
//!
//! A key may be in many segments at a time, when an id is used again after the
//! window is over. What finds no room in its buckets marks them as *crowded*,
//! and for them every segment may have the key.

use std::collections::HashMap;

/// Of a segment; 0 is none.
pub(super) type Tag = u8;

pub(super) struct Filter {
    /// Four entries in a word: none is 0, others tag << 8 | bits of the key.
    buckets: Vec<u64>,
    /// Lower bucket of a pair, and the number of the last segment with
    /// something that is missing in it.
    crowded: HashMap<u32, u64>,
    /// Entries with this tag are being removed: those below `swept` are gone.
    dead: Tag,
    swept: usize,
    /// Which entry makes room.
    turn: u32,
}

/// What a filter knows of a key.
pub(super) struct Candidates {
    /// Tags of segments that may have it, 0 where there is none.
    pub(super) tags: [Tag; 8],
    /// Any segment may have it.
    pub(super) is_crowded: bool,
}

impl Filter {
    /// With room for `keys`.
    pub(super) fn new(keys: u64) -> Self {
        let buckets = (keys * 100 / LOAD_PERCENT / LANES as u64 + 2).min(u32::MAX.into());
        let buckets = vec![0; buckets as usize];
        let swept = buckets.len();
        Self { buckets, crowded: HashMap::new(), dead: 0, swept, turn: 0 }
    }

    /// Where the key with this hash may be.
    pub(super) fn candidates(&self, hash: u64) -> Candidates {
        let (one, other) = self.pair(hash);
        let mut tags = [0; 2 * LANES];
        for (tag, entry) in tags.iter_mut().zip(lanes(self.buckets[one]).chain(lanes(self.buckets[other]))) {
            if entry as u8 == bits(hash) {
                *tag = (entry >> 8) as Tag;
            }
        }
        let is_crowded = !self.crowded.is_empty() && self.crowded.contains_key(&pair_name(one, other));
        Candidates { tags, is_crowded }
    }

    /// Notes that the segment numbered `segment`, tagged `tag`, has a key.
    pub(super) fn insert(&mut self, hash: u64, tag: Tag, segment: u64) {
        let (one, other) = self.pair(hash);
        if let Some(last) = self.crowded.get_mut(&pair_name(one, other)) {
            *last = segment;
            return;
        }
        let entry = u16::from(tag) << 8 | u16::from(bits(hash));
        // The first bucket is near that of the key before, the other one far
        // away: it is left alone where that is enough.
        if !self.put(one, entry) && !self.put(other, entry) {
            self.push_out(other, entry, segment);
        }
    }

    /// Begins to remove what has this tag. What was crowded because of segments
    /// up to `segment` is no longer.
    pub(super) fn remove(&mut self, tag: Tag, segment: u64) {
        self.sweep(usize::MAX);
        (self.dead, self.swept) = (tag, 0);
        self.crowded.retain(|_, last| *last > segment);
    }

    /// Goes on with the removal, by so many buckets.
    pub(super) fn sweep(&mut self, buckets: usize) {
        let end = self.swept.saturating_add(buckets).min(self.buckets.len());
        for bucket in &mut self.buckets[self.swept..end] {
            *bucket = without(*bucket, self.dead);
        }
        self.swept = end;
        if end == self.buckets.len() {
            self.dead = 0;
        }
    }

    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Puts `entry` into a bucket that has it or has room.
    fn put(&mut self, bucket: usize, entry: u16) -> bool {
        let word = &mut self.buckets[bucket];
        if lanes(*word).any(|known| known == entry) {
            return true;
        }
        let free = lanes(*word).position(|known| known == 0 || known >> 8 == u16::from(self.dead));
        if let Some(lane) = free {
            *word = with_lane(*word, lane, entry);
        }
        free.is_some()
    }

    /// Puts `entry` into a full bucket; what was there moves on to its other one.
    fn push_out(&mut self, mut bucket: usize, mut entry: u16, segment: u64) {
        for _ in 0..MOVES_MAX {
            self.turn = self.turn.wrapping_mul(LCG_A).wrapping_add(LCG_C);
            let lane = (self.turn >> 30) as usize;
            let word = &mut self.buckets[bucket];
            let moved = lanes(*word).nth(lane).unwrap_or_default();
            *word = with_lane(*word, lane, entry);
            entry = moved;
            bucket = self.other(bucket, entry as u8);
            if self.put(bucket, entry) {
                return;
            }
        }
        let other = self.other(bucket, entry as u8);
        self.crowded.insert(pair_name(bucket, other), segment);
    }

    fn pair(&self, hash: u64) -> (usize, usize) {
        let one = scaled(hash, self.buckets.len());
        (one, self.other(one, bits(hash)))
    }

    /// The other bucket of a pair; the other of that is this one.
    fn other(&self, bucket: usize, bits: u8) -> usize {
        let len = self.buckets.len();
        let sum = scaled((u64::from(bits) + 1).wrapping_mul(GOLDEN), len);
        if sum >= bucket { sum - bucket } else { sum + len - bucket }
    }
}

/// How full the filter gets; fuller, entries move more often.
const LOAD_PERCENT: u64 = 86;
const LANES: usize = 4;
/// Bound on the work for one key.
const MOVES_MAX: usize = 500;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const LCG_A: u32 = 1_664_525;
const LCG_C: u32 = 1_013_904_223;

fn lanes(word: u64) -> impl Iterator<Item = u16> {
    (0..LANES).map(move |lane| (word >> (16 * lane)) as u16)
}

fn with_lane(word: u64, lane: usize, entry: u16) -> u64 {
    word & !(0xffff << (16 * lane)) | u64::from(entry) << (16 * lane)
}

fn without(word: u64, tag: Tag) -> u64 {
    let keep = |lane: usize| match (word >> (16 * lane + 8)) as u8 == tag {
        true => 0,
        false => 0xffff << (16 * lane),
    };
    word & (keep(0) | keep(1) | keep(2) | keep(3))
}

/// The part of the hash that entries keep; buckets are chosen by the rest.
fn bits(hash: u64) -> u8 {
    hash as u8
}

/// `hash` scaled down to less than `len`; keeps the order.
pub(super) fn scaled(hash: u64, len: usize) -> usize {
    ((u128::from(hash) * len as u128) >> 64) as usize
}

fn pair_name(one: usize, other: usize) -> u32 {
    // There are less than 2^32 buckets.
    one.min(other) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        let mut x = n.wrapping_add(1).wrapping_mul(GOLDEN);
        x ^= x >> 31;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ x >> 29
    }

    fn may_have(filter: &Filter, hash: u64, tag: Tag) -> bool {
        let candidates = filter.candidates(hash);
        candidates.is_crowded || candidates.tags.contains(&tag)
    }

    #[test]
    fn the_other_of_the_other_bucket_is_the_first() {
        for len in [2, 3, 7, 100, 54_321] {
            let filter = Filter { buckets: vec![0; len], ..Filter::new(1) };
            for n in 0..2000 {
                let (one, other) = filter.pair(hash(n));
                assert_eq!(filter.other(other, bits(hash(n))), one);
            }
        }
    }

    /// Segments come and go for many rounds at the full number of keys.
    #[test]
    fn it_never_leaves_out_a_segment_that_has_the_key() {
        const SEGMENTS: u64 = 20;
        const KEYS: u64 = 1000;
        let mut filter = Filter::new((SEGMENTS + 2) * KEYS);
        let step = filter.buckets().div_ceil(KEYS as usize);
        let tag = |segment: u64| (segment % 255) as Tag + 1;
        for segment in 0..600 {
            if segment >= SEGMENTS {
                filter.remove(tag(segment - SEGMENTS), segment - SEGMENTS);
            }
            for n in 0..KEYS {
                filter.insert(hash(segment * KEYS + n), tag(segment), segment);
                filter.sweep(step);
            }
            assert_eq!(filter.swept, filter.buckets(), "swept before the next segment");
            for segment in segment.saturating_sub(SEGMENTS - 1)..=segment {
                for n in (0..KEYS).step_by(7) {
                    assert!(may_have(&filter, hash(segment * KEYS + n), tag(segment)), "{segment} {n}");
                }
            }
        }
        assert!(filter.crowded.is_empty());
        let wrong = (0..100_000).filter(|n| filter.candidates(hash(1 << 40 | n)).tags.iter().any(|tag| *tag != 0));
        assert!(wrong.count() < 5_000, "at most 5 % of new keys are looked up in vain");
    }

    /// An id that is used again and again, in more segments than a pair of
    /// buckets has room for.
    #[test]
    fn a_key_in_every_segment_is_found_in_each_and_forgotten_with_the_last() {
        let mut filter = Filter::new(1000);
        for segment in 0..100u64 {
            for key in 0..3 {
                filter.insert(hash(key), segment as Tag + 1, segment);
                filter.insert(hash(key), segment as Tag + 1, segment);
                assert!((0..=segment).all(|segment| may_have(&filter, hash(key), segment as Tag + 1)));
            }
        }
        assert!((1..=4).contains(&filter.crowded.len()), "{:?}", filter.crowded);
        for segment in 0..100u64 {
            filter.remove(segment as Tag + 1, segment);
            filter.sweep(usize::MAX);
        }
        assert!(filter.crowded.is_empty());
        assert!(filter.buckets.iter().all(|bucket| *bucket == 0));
    }
}
