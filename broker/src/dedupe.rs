use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::iter::Peekable;
use std::ops::RangeInclusive;

use ciphermq_journal::Position;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::model::{ExchangeId, QueueId};
use crate::ring::Ring;
use crate::window::{Keyed, Window};
use crate::{BrokerOptions, Timestamp};

/// Keyed 128-bit hash of a message id. Publishers choose ids; without the key they cannot choose hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdHash([u64; 2]);

impl IdHash {
    pub(crate) fn new(key: u128, id: &str) -> IdHash {
        use std::hash::Hasher;
        let mut hasher = SipHasher13::new_with_key(&key.to_le_bytes());
        hasher.write(id.as_bytes());
        let hash = hasher.finish128();
        IdHash([hash.h1, hash.h2])
    }

    pub(crate) fn short(self) -> u64 {
        self.0[0]
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0[0]) | u128::from(self.0[1]) << 64).to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> IdHash {
        let both = u128::from_le_bytes(bytes);
        IdHash([both as u64, (both >> 64) as u64])
    }
}

/// The ids published within the window, and where their messages went.
#[derive(Debug)]
pub(crate) struct Dedupe {
    window: Window<Known>,
    /// When the ids up to a serial number came, rounded down: one entry a second, not one an id.
    seconds: VecDeque<(Timestamp, u64)>,
    pushed: u64,
    popped: u64,
    window_ms: u64,
    ids_max: usize,
    /// Only while the log is read.
    replay: Replay,
}

/// What the log told out of turn.
#[derive(Debug, Default)]
struct Replay {
    /// Ids older than the last one pushed: stretches in which they ascend, as a log writes them anew.
    late: Vec<Ring<KnownId>>,
    /// Messages with a copy that was moved.
    moved: Vec<(IdHash, Position)>,
}

/// All that is known of an id, as a record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownId {
    pub(crate) hash: IdHash,
    pub(crate) exchange: ExchangeId,
    /// See [`Place`].
    pub(crate) place: u32,
    pub(crate) origin: Position,
    /// To the second.
    pub(crate) published: Timestamp,
}

/// One published id. 32 bytes: there are ten million of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    hash: IdHash,
    pub(crate) origin: Position,
    exchange: ExchangeId,
    place: u32,
}

/// Where the copies of a message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this queue, if anywhere.
    In(QueueId),
    /// In several queues, or moved.
    Anywhere,
}

const ANYWHERE: u32 = u32::MAX;
const SECOND_MS: u64 = 1000;

impl Dedupe {
    pub(crate) fn new(options: &BrokerOptions) -> Dedupe {
        Dedupe {
            window: Window::new(),
            seconds: VecDeque::new(),
            pushed: 0,
            popped: 0,
            window_ms: options.dedupe_window_ms,
            // Serial numbers are 32 bits; half their range is far above any sensible bound.
            ids_max: options.dedupe_ids_max.clamp(1, u32::MAX as usize / 2),
            replay: Replay::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.window.len()
    }

    /// Remembers an id; false when it is known already.
    pub(crate) fn insert(
        &mut self,
        hash: IdHash,
        exchange: ExchangeId,
        origin: Position,
        place: Place,
        now: Timestamp,
    ) -> bool {
        self.expire(now);
        if self.knows(hash, exchange) {
            return false;
        }
        self.push(Known { hash, origin, exchange, place: place.encode() }, now);
        true
    }

    fn push(&mut self, known: Known, published: Timestamp) {
        if self.window.len() >= self.ids_max {
            self.pop();
        }
        self.window.push(known);
        self.pushed += 1;
        let published = Timestamp(published.0 - published.0 % SECOND_MS);
        match self.seconds.back_mut() {
            Some((second, end)) if published <= *second => *end = self.pushed,
            _ => self.seconds.push_back((published, self.pushed)),
        }
    }

    /// The origin of the oldest id that is known.
    pub(crate) fn first_origin(&self) -> Option<Position> {
        self.window.front().map(|known| known.origin)
    }

    /// The ids of messages published at `origins`, ascending.
    pub(crate) fn published_at(&self, origins: RangeInclusive<Position>) -> impl Iterator<Item = KnownId> {
        let (first, last) = origins.into_inner();
        let within = self.window.behind(move |known| known.origin < first);
        let within = within.take_while(move |(_, known)| known.origin <= last);
        let mut seconds = self.seconds.iter().peekable();
        within.map(move |(index, known)| {
            let serial = self.popped + index as u64;
            while seconds.next_if(|(_, end)| *end <= serial).is_some() {}
            let published = seconds.peek().map_or(Timestamp(0), |(second, _)| *second);
            known.with_time(published)
        })
    }

    /// An id the log tells of.
    pub(crate) fn recover(&mut self, id: KnownId) {
        if self.window.back().is_none_or(|last| last.origin < id.origin) {
            self.push(id.without_time(), id.published);
            return;
        }
        match self.replay.late.last_mut() {
            Some(run) if run.back().is_some_and(|last| last.origin < id.origin) => run.push_back(id),
            _ => {
                let mut run = Ring::new();
                run.push_back(id);
                self.replay.late.push(run);
            }
        }
    }

    /// A move the log tells of.
    pub(crate) fn recover_move(&mut self, hash: IdHash, origin: Position) {
        self.replay.moved.push((hash, origin));
    }

    /// The log has been read: everything is put in the order it was published in, and what is too old is forgotten.
    pub(crate) fn recovered(&mut self, now: Timestamp) {
        let Replay { late, moved } = std::mem::take(&mut self.replay);
        if !late.is_empty() {
            self.merge(in_order(late));
        }
        for (hash, origin) in moved {
            self.relocate(hash, origin);
        }
        self.expire(now);
    }

    fn merge(&mut self, late: impl Iterator<Item = KnownId>) {
        let window = std::mem::replace(&mut self.window, Window::new());
        let (mut seconds, mut popped) = (std::mem::take(&mut self.seconds), self.popped);
        (self.pushed, self.popped) = (0, 0);
        let mut late = late.peekable();
        for known in window.into_records() {
            while seconds.front().is_some_and(|(_, end)| *end <= popped) {
                seconds.pop_front();
            }
            popped += 1;
            while let Some(id) = late.next_if(|id| id.origin < known.origin) {
                self.push(id.without_time(), id.published);
            }
            late.next_if(|id| id.origin == known.origin);
            let published = seconds.front().map_or(Timestamp(0), |(second, _)| *second);
            self.push(known, published);
        }
        late.for_each(|id| self.push(id.without_time(), id.published));
    }

    /// Whether the id was published to the exchange.
    pub(crate) fn knows(&self, hash: IdHash, exchange: ExchangeId) -> bool {
        self.window.find(hash).any(|known| known.exchange == exchange)
    }

    /// Everything known under this id, on any exchange.
    pub(crate) fn find(&self, hash: IdHash) -> Vec<Known> {
        self.window.find(hash).copied().collect()
    }

    /// A copy of this message was moved to another queue.
    pub(crate) fn relocate(&mut self, hash: IdHash, origin: Position) {
        if let Some(known) = self.window.find_mut(hash, |known| known.origin == origin) {
            known.place = ANYWHERE;
        }
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        while let Some(&(second, end)) = self.seconds.front() {
            // Every id of the entry is younger than the second after it.
            if now.ms_since(second) < self.window_ms.saturating_add(SECOND_MS) {
                return;
            }
            while self.popped < end {
                self.pop();
            }
            self.seconds.pop_front();
        }
    }

    fn pop(&mut self) {
        if self.window.pop().is_some() {
            self.popped += 1;
        }
    }
}

/// The ids of all stretches, ascending, each once: a crash between writing an id anew and dropping its old record leaves both. Each
/// stretch gives its memory back as it is read: there may be ten million ids.
fn in_order(runs: Vec<Ring<KnownId>>) -> impl Iterator<Item = KnownId> {
    let mut runs: Vec<_> = runs.into_iter().map(|run| run.into_iter().peekable()).collect();
    let next = |run: &mut Peekable<_>| run.peek().map(|id: &KnownId| id.origin);
    let firsts = runs.iter_mut().map(next).enumerate();
    let mut heap: BinaryHeap<_> = firsts.filter_map(|(at, first)| Some(Reverse((first?, at)))).collect();
    let mut last = None;
    std::iter::from_fn(move || {
        loop {
            let Reverse((origin, at)) = heap.pop()?;
            let id = runs[at].next()?;
            heap.extend(next(&mut runs[at]).map(|next| Reverse((next, at))));
            if last.replace(origin) != Some(origin) {
                return Some(id);
            }
        }
    })
}

impl KnownId {
    /// What is published now, or was.
    pub(crate) fn new(
        hash: IdHash,
        exchange: ExchangeId,
        place: Place,
        origin: Position,
        published: Timestamp,
    ) -> KnownId {
        KnownId { hash, exchange, place: place.encode(), origin, published }
    }

    fn without_time(self) -> Known {
        Known { hash: self.hash, origin: self.origin, exchange: self.exchange, place: self.place }
    }
}

impl Known {
    fn with_time(self, published: Timestamp) -> KnownId {
        let Known { hash, origin, exchange, place } = self;
        KnownId { hash, exchange, place, origin, published }
    }

    pub(crate) fn place(&self) -> Place {
        match self.place {
            ANYWHERE => Place::Anywhere,
            queue => Place::In(QueueId(queue)),
        }
    }
}

impl Place {
    fn encode(self) -> u32 {
        match self {
            Place::In(queue) => queue.0,
            Place::Anywhere => ANYWHERE,
        }
    }
}

impl Keyed for Known {
    fn hash(&self) -> IdHash {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCHANGE: ExchangeId = ExchangeId(1);

    fn dedupe(window_ms: u64, ids_max: usize) -> Dedupe {
        let options = BrokerOptions { dedupe_window_ms: window_ms, dedupe_ids_max: ids_max, ..Default::default() };
        Dedupe::new(&options)
    }

    fn insert(dedupe: &mut Dedupe, id: &str, position: u64, now: u64) -> bool {
        let hash = IdHash::new(7, id);
        dedupe.insert(hash, EXCHANGE, Position(position), Place::In(QueueId(1)), Timestamp(now))
    }

    #[test]
    fn an_id_is_known_for_the_whole_window_and_then_forgotten() {
        let mut dedupe = dedupe(10_000, 100);
        assert!(insert(&mut dedupe, "a", 1, 0));
        assert!(!insert(&mut dedupe, "a", 2, 10_000));
        assert!(insert(&mut dedupe, "a", 3, 11_000));
        assert_eq!(dedupe.len(), 1);
    }

    #[test]
    fn beyond_the_bound_the_oldest_id_goes() {
        let mut dedupe = dedupe(1_000_000, 3);
        for (position, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            assert!(insert(&mut dedupe, id, position as u64, 0));
        }
        assert_eq!(dedupe.len(), 3);
        assert!(!insert(&mut dedupe, "b", 9, 0));
        assert!(insert(&mut dedupe, "a", 10, 0));
    }

    #[test]
    fn the_same_id_on_another_exchange_is_another_message() {
        let mut dedupe = dedupe(1_000, 100);
        let hash = IdHash::new(7, "a");
        for exchange in [1, 2] {
            assert!(dedupe.insert(hash, ExchangeId(exchange), Position(1), Place::Anywhere, Timestamp(0)));
        }
        assert_eq!(dedupe.find(hash).len(), 2);
    }

    /// Ids of these numbers, as a log tells them: at their positions, a second apart.
    fn told(dedupe: &mut Dedupe, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let (hash, second) = (IdHash::new(7, &number.to_string()), Timestamp(number * SECOND_MS));
            dedupe.recover(KnownId::new(hash, EXCHANGE, Place::Anywhere, Position(number), second));
        }
    }

    #[test]
    fn ids_written_anew_any_number_of_times_are_known_once_and_in_order() {
        let mut dedupe = dedupe(1_000_000_000, 100_000);
        // Publishes, then what was in front of them, of which a crash has left some twice; younger publishes in between.
        told(&mut dedupe, 5_000..6_000);
        told(&mut dedupe, 2_000..4_000);
        told(&mut dedupe, 1..2_500);
        told(&mut dedupe, 6_000..6_100);
        told(&mut dedupe, 3_900..5_010);
        dedupe.recovered(Timestamp(0));
        let ids: Vec<_> = dedupe.published_at(Position(0)..=Position(u64::MAX)).collect();
        assert!(ids.iter().map(|id| id.origin.0).eq(1..6_100));
        assert!(ids.iter().all(|id| id.published.0 == id.origin.0 * SECOND_MS), "each with its own time");
        assert!((1..6_100).all(|number: u64| dedupe.knows(IdHash::new(7, &number.to_string()), EXCHANGE)));
    }

    #[test]
    fn the_window_agrees_with_a_plain_list_over_many_rounds() {
        let mut dedupe = dedupe(u64::MAX, 500);
        let mut oracle: VecDeque<u64> = VecDeque::new();
        let mut random = 1u64;
        for round in 0..20_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let id = (random >> 33) % 2_000;
            let fresh = !oracle.contains(&id);
            assert_eq!(insert(&mut dedupe, &id.to_string(), round, round), fresh, "round {round}");
            if fresh {
                oracle.push_back(id);
                if oracle.len() > 500 {
                    oracle.pop_front();
                }
            }
        }
    }
}
