//! What of a sender's messages came, came twice, or did not come.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::kid::Kid;
use super::opened::Sequence;

/// Where a message stands among those of its sender.
///
/// A sender numbers what it seals, from 0, in a stream that lasts as long as its
/// [`super::Sealer`] and its process. A receiver that gets all of a stream sees
/// with this what was held back. One of several consumers of a queue, or of
/// several queues the sender publishes to, sees gaps where others were served.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Not signed by a known sender, so the number says nothing.
    #[default]
    Untracked,
    /// The first message of a stream that came here. Whether there were others
    /// before it, its number tells.
    First,
    /// The one after the last.
    Next,
    /// The last one, with some before it that did not come, or not yet.
    Gap {
        /// How many are missing between it and the last.
        missing: u64,
    },
    /// One that was missing.
    Late,
    /// One that came before: delivered again, or replayed.
    Repeat,
    /// Too far behind the last to tell whether it came before.
    Old,
}

/// Streams that are followed, of all senders.
pub(super) const STREAMS_MAX: usize = 4096;
/// Streams that are followed of one sender: he cannot push out another's.
pub(super) const SENDER_STREAMS_MAX: usize = 64;
/// A stream is forgotten when nothing came for so long.
pub(super) const STREAM_IDLE: Duration = Duration::from_secs(3600);
/// How far behind the last number it is known which ones came.
pub(super) const REMEMBERED: u64 = 64 * WORDS as u64;
const WORDS: usize = 16;

/// The streams of known senders.
#[derive(Default)]
pub(super) struct Sequences {
    senders: HashMap<Kid, HashMap<StreamId, Stream>>,
    streams: usize,
    swept: Option<Instant>,
}

type StreamId = [u8; 16];

impl Sequences {
    /// Notes an authenticated message.
    pub(super) fn note(&mut self, sender: &Kid, sequence: &Sequence, now: Instant) -> Order {
        self.sweep(now);
        let streams = self.senders.get_mut(sender);
        if let Some(stream) = streams.and_then(|streams| streams.get_mut(&sequence.session)) {
            stream.used = now;
            return stream.note(sequence.number);
        }
        self.make_room(sender);
        let streams = self.senders.entry(*sender).or_default();
        streams.insert(sequence.session, Stream::starting_at(sequence.number, now));
        self.streams += 1;
        Order::First
    }

    fn make_room(&mut self, sender: &Kid) {
        let own = self.senders.get(sender).map_or(0, HashMap::len);
        if own >= SENDER_STREAMS_MAX {
            self.forget_oldest_of(*sender);
        } else if self.streams >= STREAMS_MAX {
            let most = self.senders.iter().max_by_key(|(_, streams)| streams.len());
            if let Some(most) = most.map(|(kid, _)| *kid) {
                self.forget_oldest_of(most);
            }
        }
    }

    fn forget_oldest_of(&mut self, sender: Kid) {
        let Some(streams) = self.senders.get_mut(&sender) else { return };
        let oldest = streams.iter().min_by_key(|(_, stream)| stream.used).map(|(id, _)| *id);
        if oldest.is_some_and(|id| streams.remove(&id).is_some()) {
            self.streams -= 1;
        }
        if streams.is_empty() {
            self.senders.remove(&sender);
        }
    }

    /// Forgets idle streams, a few times in the time that makes them so.
    fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(swept) < STREAM_IDLE / 4 {
            return;
        }
        self.swept = Some(now);
        self.senders.retain(|_, streams| {
            streams.retain(|_, stream| now.saturating_duration_since(stream.used) < STREAM_IDLE);
            !streams.is_empty()
        });
        self.streams = self.senders.values().map(HashMap::len).sum();
    }
}

/// The highest number seen, and which of those below it: bit `n` of `seen`, of
/// word `n / 64`, is the number `last - n`.
struct Stream {
    last: u64,
    seen: [u64; WORDS],
    used: Instant,
}

impl Stream {
    /// What lies before the first number seen is not expected any more, so it
    /// counts as missing only by its absence: it comes as late.
    fn starting_at(number: u64, now: Instant) -> Self {
        let mut seen = [0; WORDS];
        seen[0] = 1;
        Self { last: number, seen, used: now }
    }

    fn note(&mut self, number: u64) -> Order {
        match number.checked_sub(self.last) {
            Some(0) => Order::Repeat,
            Some(ahead) => {
                self.advance(ahead);
                self.last = number;
                if ahead == 1 { Order::Next } else { Order::Gap { missing: ahead - 1 } }
            }
            None => self.note_behind(self.last - number),
        }
    }

    fn note_behind(&mut self, behind: u64) -> Order {
        if behind >= REMEMBERED {
            return Order::Old;
        }
        let (word, bit) = (behind as usize / 64, 1 << (behind % 64));
        if self.seen[word] & bit != 0 {
            return Order::Repeat;
        }
        self.seen[word] |= bit;
        Order::Late
    }

    /// Moves all bits up by `ahead` and sets the lowest.
    fn advance(&mut self, ahead: u64) {
        let (words, bits) = ((ahead / 64).min(WORDS as u64) as usize, ahead % 64);
        self.seen.copy_within(..WORDS - words, words);
        self.seen[..words].fill(0);
        if bits > 0 {
            for word in (0..WORDS).rev() {
                let carried = if word == 0 { 0 } else { self.seen[word - 1] >> (64 - bits) };
                self.seen[word] = self.seen[word] << bits | carried;
            }
        }
        self.seen[0] |= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn kid(n: u8) -> Kid {
        Kid::from_bytes([n; 32])
    }

    fn sequence(stream: u16, number: u64) -> Sequence {
        let mut session = [0; 16];
        session[..2].copy_from_slice(&stream.to_be_bytes());
        Sequence { session, number }
    }

    #[test]
    fn gaps_late_ones_and_repeats_are_told_apart() {
        let (mut sequences, now) = (Sequences::default(), Instant::now());
        let mut note = |number| sequences.note(&kid(1), &sequence(1, number), now);
        assert_eq!([0, 1, 2].map(&mut note), [Order::First, Order::Next, Order::Next]);
        assert_eq!(note(5), Order::Gap { missing: 2 });
        assert_eq!(
            [4, 4, 3, 5, 0].map(&mut note),
            [Order::Late, Order::Repeat, Order::Late, Order::Repeat, Order::Repeat]
        );
        assert_eq!(note(6), Order::Next);
        assert_eq!(note(6 + REMEMBERED), Order::Gap { missing: REMEMBERED - 1 });
        assert_eq!([6, 7, 7].map(&mut note), [Order::Old, Order::Late, Order::Repeat]);
        assert_eq!(note(u64::MAX), Order::Gap { missing: u64::MAX - REMEMBERED - 7 });
        assert_eq!(note(0), Order::Old);
    }

    #[test]
    fn what_came_before_the_first_seen_is_late_and_no_repeat() {
        let (mut sequences, now) = (Sequences::default(), Instant::now());
        let mut note = |number| sequences.note(&kid(1), &sequence(1, number), now);
        assert_eq!([10, 9, 9, 8].map(&mut note), [Order::First, Order::Late, Order::Repeat, Order::Late]);
    }

    /// Against a set of all numbers seen.
    #[test]
    fn any_order_of_numbers_is_told_as_a_full_memory_would() {
        use rand::{RngExt, SeedableRng};
        let seed = std::env::var("CIPHERMQ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
        println!("CIPHERMQ_SEED={seed}");
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        for _ in 0..200 {
            let (mut sequences, now) = (Sequences::default(), Instant::now());
            let (mut seen, mut last) = (HashSet::new(), 0u64);
            for _ in 0..300 {
                let reach = [3, 70, 200, 3000][rng.random_range(0..4)];
                let number = last.saturating_sub(reach).saturating_add(rng.random_range(0..=2 * reach));
                let expected = match number {
                    _ if seen.is_empty() => Order::First,
                    _ if number == last + 1 => Order::Next,
                    _ if number > last => Order::Gap { missing: number - last - 1 },
                    _ if last - number >= REMEMBERED => Order::Old,
                    _ if seen.contains(&number) => Order::Repeat,
                    _ => Order::Late,
                };
                assert_eq!(sequences.note(&kid(1), &sequence(1, number), now), expected, "{number} after {last}");
                last = if seen.is_empty() { number } else { last.max(number) };
                seen.insert(number);
            }
        }
    }

    #[test]
    fn a_sender_with_many_streams_pushes_out_only_his_own() {
        let (mut sequences, start) = (Sequences::default(), Instant::now());
        sequences.note(&kid(1), &sequence(1, 0), start);
        for stream in 0..10_000 {
            let now = start + Duration::from_millis(stream.into());
            assert_eq!(sequences.note(&kid(2), &sequence(stream, 0), now), Order::First);
        }
        assert_eq!(sequences.streams, 1 + SENDER_STREAMS_MAX);
        assert_eq!(sequences.note(&kid(1), &sequence(1, 1), start), Order::Next);
        assert_eq!(sequences.note(&kid(2), &sequence(9_999, 0), start), Order::Repeat);
    }

    #[test]
    fn memory_is_bounded_over_all_senders() {
        let (mut sequences, now) = (Sequences::default(), Instant::now());
        for sender in 0..=255 {
            for stream in 0..64 {
                sequences.note(&kid(sender), &sequence(stream, 0), now);
            }
        }
        assert_eq!(sequences.streams, STREAMS_MAX);
        assert_eq!(sequences.senders.values().map(HashMap::len).sum::<usize>(), STREAMS_MAX);
    }

    #[test]
    fn an_idle_stream_is_forgotten() {
        let (mut sequences, start) = (Sequences::default(), Instant::now());
        sequences.note(&kid(1), &sequence(1, 0), start);
        sequences.note(&kid(2), &sequence(1, 0), start + STREAM_IDLE - Duration::from_secs(1));
        let later = start + STREAM_IDLE + Duration::from_secs(1200);
        assert_eq!(sequences.note(&kid(2), &sequence(1, 1), later), Order::Next);
        assert_eq!((sequences.streams, sequences.senders.len()), (1, 1));
        assert_eq!(sequences.note(&kid(1), &sequence(1, 1), later), Order::First);
    }
}
