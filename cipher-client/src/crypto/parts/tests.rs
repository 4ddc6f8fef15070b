//! Parts in every order, doubled, lost, late, and of somebody else.

use proptest::prelude::*;

use super::*;
use crate::crypto::{KeyKind, OpenPolicy, Opener, PrivateKey, SessionPolicy};

struct Pair {
    sealer: Sealer,
    opener: Opener,
}

fn pair() -> Pair {
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    Pair {
        sealer: Sealer::new(&key.public_key(), SessionPolicy::PerMessage).unwrap(),
        opener: Opener::new(&key, OpenPolicy::default()).unwrap(),
    }
}

impl Pair {
    fn parts(&self, id: Option<&str>, text: &[u8], part_bytes: usize) -> Vec<Opened> {
        let context = Context::new("scans", "eu");
        let sealed = self.sealer.seal_parts(&context, id, text, part_bytes).unwrap();
        sealed.map(|sealed| self.opener.open(&sealed.unwrap().envelope).unwrap()).collect()
    }
}

fn collector(messages: usize, bytes: usize) -> PartCollector<u32> {
    PartCollector::new(PartLimits { messages, bytes, age: Duration::from_secs(10) })
}

fn whole(collected: Collected<u32>) -> (Opened, Vec<u32>) {
    match collected {
        Collected::Whole { message, tokens } => (message, tokens),
        other => panic!("{other:?}"),
    }
}

/// A part that comes again is no reason to give back what would be whole soon.
#[test]
fn a_repeated_part_needs_no_room() {
    let (pair, now) = (pair(), Instant::now());
    let mut collector = collector(1, 20);
    let parts = pair.parts(None, &[1; 20], 11);
    assert_eq!(collector.add(parts[0].clone(), 0, now).unwrap(), Collected::Kept);
    assert_eq!(collector.add(parts[0].clone(), 1, now).unwrap(), Collected::Repeated(0));
    let (message, tokens) = whole(collector.add(parts[1].clone(), 2, now).unwrap());
    assert_eq!((message.plaintext, tokens), (vec![1; 20], vec![1, 2]));
}

#[test]
fn parts_come_together_and_keep_what_is_known_of_them() {
    let (pair, now) = (pair(), Instant::now());
    for (len, part_bytes, count) in [(0, 10, 1), (1, 1, 1), (10, 10, 1), (11, 10, 2), (1000, 10, 100)] {
        let text: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut collector = collector(1, 2000);
        let parts = pair.parts(Some("scan-7"), &text, part_bytes);
        assert_eq!(parts.len(), count);
        let mut last = Collected::Kept;
        for (token, part) in parts.into_iter().enumerate() {
            assert_eq!(part.message_id, format!("scan-7/{token}"));
            assert_eq!(part.part.unwrap().count as usize, count);
            assert_eq!(last, Collected::Kept);
            last = collector.add(part, token as u32, now).unwrap();
        }
        let (message, tokens) = whole(last);
        assert_eq!((message.message_id.as_str(), message.plaintext), ("scan-7", text));
        assert_eq!((message.context, message.part), (Some(Context::new("scans", "eu")), None));
        assert_eq!(tokens, (0..count as u32).collect::<Vec<_>>());
        assert_eq!((collector.incomplete(), collector.bytes()), (0, 0));
    }
}

#[test]
fn a_message_that_is_no_part_passes() {
    let (pair, mut collector) = (pair(), collector(1, 0));
    let opened = pair.opener.open(&pair.sealer.seal(b"short").unwrap().envelope).unwrap();
    let (message, tokens) = whole(collector.add(opened, 9, Instant::now()).unwrap());
    assert_eq!((message.plaintext, tokens), (b"short".to_vec(), vec![9]));
}

#[test]
fn a_part_that_comes_again_takes_the_place_of_the_first() {
    let (pair, mut collector, now) = (pair(), collector(1, 100), Instant::now());
    let parts = pair.parts(None, b"abcdef", 3);
    assert_eq!(collector.add(parts[0].clone(), 1, now).unwrap(), Collected::Kept);
    assert_eq!(collector.add(parts[0].clone(), 2, now).unwrap(), Collected::Repeated(1));
    assert_eq!(collector.bytes(), 3);
    let (message, tokens) = whole(collector.add(parts[1].clone(), 3, now).unwrap());
    assert_eq!((message.plaintext, tokens), (b"abcdef".to_vec(), vec![2, 3]));
}

/// The broker knows the file id, and anyone may seal to the key.
#[test]
fn what_somebody_else_seals_is_another_message() {
    let (pair, mut collector, now) = (pair(), collector(3, 100), Instant::now());
    let (mine, theirs) = (pair.parts(Some("m"), b"abcdef", 3), pair.parts(Some("m"), b"ABCDEF", 3));
    let mut forged = theirs[1].clone();
    forged.part = mine[1].part;
    assert_eq!(collector.add(mine[0].clone(), 1, now).unwrap(), Collected::Kept);
    assert_eq!(collector.add(forged, 2, now).unwrap(), Collected::Kept);
    let (message, _) = whole(collector.add(mine[1].clone(), 3, now).unwrap());
    assert_eq!(message.plaintext, b"abcdef");
    assert_eq!(collector.incomplete(), 1);
}

#[test]
fn a_part_that_contradicts_the_others_is_refused_and_harms_nothing() {
    let (pair, mut collector, now) = (pair(), collector(2, 100), Instant::now());
    let parts = pair.parts(Some("m"), b"abcdef", 3);
    let part = parts[1].part.unwrap();
    collector.add(parts[0].clone(), 1, now).unwrap();
    let contradicting = [
        Opened { part: Some(Part { count: 3, ..part }), ..parts[1].clone() },
        Opened { part: Some(Part { bytes: 7, ..part }), ..parts[1].clone() },
        Opened { part: Some(Part { index: 0, ..part }), ..parts[1].clone() },
        Opened { message_id: "n/1".into(), ..parts[1].clone() },
        Opened { message_id: "m/01".into(), ..parts[1].clone() },
        Opened { message_id: "m1".into(), ..parts[1].clone() },
        Opened { context: None, ..parts[1].clone() },
        Opened { plaintext: b"de".to_vec(), ..parts[1].clone() },
        Opened { plaintext: b"defg".to_vec(), ..parts[1].clone() },
        Opened { part: Some(Part { bytes: u64::MAX, ..part }), ..parts[1].clone() },
        Opened { part: Some(Part { count: u32::MAX, ..part }), ..parts[1].clone() },
    ];
    for (n, bad) in contradicting.into_iter().enumerate() {
        let refused = collector.add(bad, 77, now).unwrap_err();
        assert_eq!(refused.token, 77, "case {n}");
    }
    assert_eq!(whole(collector.add(parts[1].clone(), 2, now).unwrap()).0.plaintext, b"abcdef");
}

#[test]
fn memory_and_time_are_bounded() {
    let (pair, mut collector, start) = (pair(), collector(2, 10), Instant::now());
    let [a, b, c] = [b"abcdef", b"ABCDEF", b"123456"].map(|text| pair.parts(None, text, 3));
    let at = |secs| start + Duration::from_secs(secs);
    assert_eq!(collector.add(a[0].clone(), 1, at(0)).unwrap(), Collected::Kept);
    assert_eq!(collector.add(b[0].clone(), 2, at(5)).unwrap(), Collected::Kept);
    assert_eq!(collector.add(c[0].clone(), 3, at(9)).unwrap(), Collected::NoRoom(3), "a third message");
    assert_eq!(collector.add(c[0].clone(), 3, at(10)).unwrap(), Collected::Kept, "the first was given up");
    assert_eq!((collector.incomplete(), collector.bytes()), (2, 6));
    assert_eq!(collector.add(a[1].clone(), 4, at(11)).unwrap(), Collected::NoRoom(4));
    assert_eq!(collector.expire(at(20)), 2);
    assert_eq!((collector.incomplete(), collector.bytes()), (0, 0));

    let long = pair.parts(None, &[0; 11], 11);
    assert!(matches!(collector.add(long[0].clone(), 5, at(20)).unwrap_err().error.kind(), ErrorKind::TooLarge { .. }));
    let [d, e] = [[4; 9], [5; 9]].map(|text| pair.parts(None, &text, 8));
    assert_eq!(collector.add(d[0].clone(), 6, at(20)).unwrap(), Collected::Kept);
    assert_eq!(collector.add(e[0].clone(), 7, at(20)).unwrap(), Collected::NoRoom(7), "bytes");
    whole(collector.add(d[1].clone(), 8, at(20)).unwrap());
}

#[test]
fn bad_sizes_and_suite_1_are_refused() {
    let (pair, context) = (pair(), Context::default());
    for size in [0, PART_BYTES_MAX + 1] {
        let error = pair.sealer.seal_parts(&context, None, b"text", size).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Option { option: "part_bytes", .. }));
    }
    assert!(pair.sealer.seal_parts(&context, None, &[0; 65_537], 1).is_err(), "too many parts");
    assert!(pair.sealer.seal_parts(&context, Some("a b"), b"text", 1).is_err());
    assert!(pair.sealer.seal_parts(&context, Some(&"x".repeat(255)), b"text", 1).is_err(), "no room for the number");
    let rsa = PrivateKey::generate(2048).unwrap();
    let first = Sealer::new(&rsa.public_key(), SessionPolicy::default()).unwrap();
    assert!(matches!(first.seal_parts(&context, None, b"text", 1).err().unwrap().kind(), ErrorKind::Option { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_gives_the_same_message(
        text in prop::collection::vec(any::<u8>(), 0..300),
        part_bytes in 1..50usize,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..600),
    ) {
        let (pair, mut collector, now) = (pair(), collector(1, 300), Instant::now());
        let parts = pair.parts(None, &text, part_bytes);
        let mut left: std::collections::BTreeSet<_> = (0..parts.len()).collect();
        let rest: Vec<_> = (0..parts.len()).collect();
        for n in order.iter().map(|index| index.index(parts.len())).chain(rest) {
            let collected = collector.add(parts[n].clone(), n as u32, now).unwrap();
            left.remove(&n);
            if left.is_empty() {
                let (message, tokens) = whole(collected);
                prop_assert_eq!(message.plaintext, text);
                prop_assert_eq!(tokens.len(), parts.len());
                return Ok(());
            }
            prop_assert!(matches!(collected, Collected::Kept | Collected::Repeated(_)));
        }
    }
}
