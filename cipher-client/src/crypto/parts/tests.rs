//! Parts in every order, doubled, lost, late, and of somebody else.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::crypto::{Identity, KeyKind, Keyset, OpenPolicy, Opener, Order, PrivateKey, Sender, SessionPolicy};
use crate::trust::{Recipient, SenderPolicy, Senders};

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
        Collected::Whole { message, tokens, spooled: None } => (message, tokens),
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
            assert!(part.message_id.starts_with("scan-7/") && part.message_id.ends_with(&format!("/{token}")));
            assert_eq!(
                (part.message_id.len(), part.whole_id()),
                (7 + 32 + 1 + token.to_string().len(), Some("scan-7"))
            );
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

#[test]
fn a_message_is_as_old_as_its_earliest_part() {
    let (pair, mut collector, now) = (pair(), collector(1, 100), Instant::now());
    let mut parts = pair.parts(None, b"abcdef", 3);
    let began = parts[0].sent_at.unwrap();
    parts[1].sent_at = Some(began + Duration::from_secs(3600));
    assert_eq!(collector.add(parts[1].clone(), 1, now).unwrap(), Collected::Kept);
    let (message, _) = whole(collector.add(parts[0].clone(), 0, now).unwrap());
    assert_eq!(message.sent_at, Some(began));
}

/// The broker knows the file id, and anyone may seal to the key.
#[test]
fn what_somebody_else_seals_is_another_message() {
    let (pair, mut collector, now) = (pair(), collector(3, 100), Instant::now());
    let (mine, theirs) = (pair.parts(Some("m"), b"abcdef", 3), pair.parts(Some("m"), b"ABCDEF", 3));
    let mut forged = theirs[1].clone();
    (forged.part, forged.message_id) = (mine[1].part, mine[1].message_id.clone());
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
        Opened { message_id: parts[1].message_id.replace('m', "n"), ..parts[1].clone() },
        Opened { message_id: parts[1].message_id.replace("/1", "/01"), ..parts[1].clone() },
        Opened { message_id: "m/1".into(), ..parts[1].clone() },
        Opened { message_id: parts[1].message_id[1..].into(), ..parts[1].clone() },
        Opened { sequence: None, ..parts[1].clone() },
        Opened {
            sender: Sender::Unknown(*PrivateKey::generate_kind(KeyKind::X25519).unwrap().kid()),
            ..parts[1].clone()
        },
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
    let (pair, mut collector, start) = (pair(), collector(2, 12), Instant::now());
    let [a, b, c] = [b"abcdef", b"ABCDEF", b"123456"].map(|text| pair.parts(None, text, 3));
    let at = |secs| start + Duration::from_secs(secs);
    assert_eq!(collector.next_expiry(), None);
    assert_eq!(collector.add(a[0].clone(), 1, at(0)).unwrap(), Collected::Kept);
    assert_eq!(collector.add(b[0].clone(), 2, at(5)).unwrap(), Collected::Kept);
    assert_eq!(collector.add(c[0].clone(), 3, at(9)).unwrap(), Collected::NoRoom(3), "a third message");
    assert_eq!((collector.next_expiry(), collector.parts()), (Some(at(10)), 2));
    assert_eq!(collector.take_expired(at(9)), None);
    let id = a[0].whole_id().unwrap().to_owned();
    assert_eq!(collector.take_expired(at(10)), Some(GivenUp { message_id: id, count: 2, tokens: vec![1] }));
    assert_eq!(collector.add(c[0].clone(), 3, at(10)).unwrap(), Collected::Kept, "the first was given up");
    assert_eq!((collector.incomplete(), collector.bytes()), (2, 6));
    assert_eq!(collector.add(a[1].clone(), 4, at(11)).unwrap(), Collected::NoRoom(4));
    assert_eq!(collector.expire(at(20)), 2);
    assert_eq!((collector.incomplete(), collector.bytes()), (0, 0));

    let long = pair.parts(None, &[0; 13], 13);
    assert!(matches!(collector.add(long[0].clone(), 5, at(20)).unwrap_err().error.kind(), ErrorKind::TooLarge { .. }));
    let [d, e] = [[4; 9], [5; 9]].map(|text| pair.parts(None, &text, 8));
    assert_eq!(collector.add(d[0].clone(), 6, at(20)).unwrap(), Collected::Kept);
    assert_eq!(collector.add(e[0].clone(), 7, at(20)).unwrap(), Collected::NoRoom(7), "counted in full at once");
    whole(collector.add(d[1].clone(), 8, at(20)).unwrap());
    assert_eq!(collector.add(e[0].clone(), 7, at(20)).unwrap(), Collected::Kept);
}

#[test]
fn parts_without_bytes_do_not_take_memory_without_bound() {
    let (pair, mut collector, now) = (pair(), collector(100, 100), Instant::now());
    for round in 0..3 {
        let mut part = pair.parts(None, b"", 1).remove(0);
        part.part.as_mut().unwrap().count = PARTS_MAX;
        let expected = if round < 2 { Collected::Kept } else { Collected::NoRoom(round) };
        assert_eq!(collector.add(part, round, now).unwrap(), expected);
    }
}

#[test]
fn a_spooled_text_is_read_back_and_leaves_no_file() {
    use std::io::Read;
    let (pair, now, dir) = (pair(), Instant::now(), tempfile::tempdir().unwrap());
    let limits = PartLimits { messages: 2, bytes: 1000, age: Duration::from_secs(10) };
    let mut collector = PartCollector::spooled(limits, dir.path());
    let text: Vec<u8> = (0..=255).collect();
    let (parts, others) = (pair.parts(None, &text, 10), pair.parts(None, &text, 100));
    assert_eq!(collector.add(others[0].clone(), 0, now).unwrap(), Collected::Kept);
    let mut last = Collected::Kept;
    for n in [3, 1, 0, 2].into_iter().chain(4..26) {
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        last = collector.add(parts[n].clone(), n, now).unwrap();
    }
    let Collected::Whole { message, spooled: Some(spooled), tokens } = last else { panic!("{last:?}") };
    assert_eq!((message.plaintext.len(), spooled.len(), tokens), (0, 256, (0..26).collect()));
    drop(collector);
    for _ in 0..2 {
        let mut read = Vec::new();
        spooled.reader().read_to_end(&mut read).unwrap();
        assert_eq!(read, text);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_to_loses_no_token() {
    let (pair, now) = (pair(), Instant::now());
    let mut collector = PartCollector::spooled(PartLimits::default(), "/nowhere/at/all");
    let parts = pair.parts(None, b"abcdef", 3);
    let refused = collector.add(parts[0].clone(), 5, now).unwrap_err();
    assert!(matches!(refused.error.kind(), ErrorKind::Io { .. }) && refused.token == 5);
    assert_eq!(collector.incomplete(), 0);
}

/// A message held back is missed, in parts or not.
#[test]
fn a_whole_message_has_its_place_among_the_others_of_its_sender() {
    let (me, key) = (Arc::new(Identity::generate().unwrap()), PrivateKey::generate_kind(KeyKind::X25519).unwrap());
    let to = [Recipient::from_own_source(key.public_key())];
    let sealer = Sealer::builder(to).identity(Arc::clone(&me)).build().unwrap();
    let senders = Arc::new(Senders::in_memory());
    senders.add("me", me.sender_key().clone()).unwrap();
    let opener = Opener::builder(&Keyset::new(key)).senders(SenderPolicy::require_signed(senders)).build().unwrap();
    let open = |sealed: Result<Sealed>| opener.open(&sealed.unwrap().envelope).unwrap();
    let context = Context::default();
    let first = sealer.seal(b"one");
    let parts: Vec<_> = sealer.seal_parts(&context, None, b"abcdef", 3).unwrap().collect();
    let lost: Vec<_> = sealer.seal_parts(&context, None, b"abcdef", 3).unwrap().collect();
    let last = sealer.seal(b"four");
    assert_eq!(open(first).order, Order::First);
    let (mut collector, now) = (PartCollector::new(PartLimits::default()), Instant::now());
    for (n, part) in parts.into_iter().enumerate() {
        let part = open(part);
        assert_eq!((part.order, part.sender), (Order::Untracked, Sender::Signed(*me.kid())));
        if let Collected::Whole { mut message, .. } = collector.add(part, n, now).unwrap() {
            opener.note_whole(&mut message);
            assert_eq!((message.order, message.sequence.unwrap().number), (Order::Next, 1));
        }
    }
    assert_eq!(collector.incomplete(), 0);
    assert_eq!(open(last).order, Order::Gap { missing: 1 });
    let late = lost.into_iter().find_map(|part| match collector.add(open(part), 0, now).unwrap() {
        Collected::Whole { message, .. } => Some(message),
        _ => None,
    });
    let mut late = late.unwrap();
    opener.note_whole(&mut late);
    assert_eq!(late.order, Order::Late);
}

#[test]
fn parts_are_as_large_as_they_need_to_be_and_fit_into_a_line() {
    let key = PrivateKey::generate_kind(KeyKind::XWing).unwrap();
    let context = Context::new("e".repeat(255), "k".repeat(255));
    let id = "m".repeat(255 - 40);
    for padding in [Padding::Off, Padding::Padme] {
        let to = [Recipient::from_own_source(key.public_key())];
        let sealer = Sealer::builder(to).padding(padding).build().unwrap();
        for (bytes, line_bytes, least) in [
            (0, 1 << 20, 0),
            (65_536, 1 << 20, 65_536),
            (1 << 30, 1 << 20, 1 << 18),
            (1 << 33, 1 << 20, 600_000),
            (9_999, 9_999, 2_000),
        ] {
            let mut parts = sealer.part_sealer_for_lines(&context, Some(&id), bytes, line_bytes).unwrap();
            let len = parts.next_len().unwrap();
            let sealed = parts.seal_next(&vec![7; len]).unwrap();
            let line = "publish  \r\n".len() + 510 + sealed.envelope.len();
            assert!(len >= least && line <= line_bytes, "{len} of {bytes}, {line} in {line_bytes}");
        }
    }
}

#[test]
fn a_part_of_another_length_is_refused_and_can_be_sealed_again() {
    let pair = pair();
    let mut parts = pair.sealer.part_sealer(&Context::default(), None, 7, 4).unwrap();
    for (given, wanted) in [(3, 4), (5, 4)] {
        assert_eq!(parts.next_len(), Some(wanted));
        assert!(matches!(parts.seal_next(&vec![0; given]).unwrap_err().kind(), ErrorKind::Option { .. }));
    }
    parts.seal_next(&[0; 4]).unwrap();
    parts.seal_next(&[0; 3]).unwrap();
    assert_eq!(parts.next_len(), None);
    assert!(parts.seal_next(&[]).is_err());
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
