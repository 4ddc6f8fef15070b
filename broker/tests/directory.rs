//! What a broker promises of the keys announced to it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

mod store;

use std::io::ErrorKind;
use std::sync::Arc;

use ciphermq_broker::inspect::Inspector;
use ciphermq_broker::limits::{ANNOUNCEMENTS_PER_CLIENT_MAX, KEY_BYTES_MAX};
use ciphermq_broker::{Announcement, BrokerOptions, Error, Link, Settle};
use ciphermq_journal::{Crash, Scanned, Stop, Times, Unsynced, scan};

use store::{SEGMENT_BYTES, Store};

const ALICE: [u8; 32] = [0xa1; 32];
const BOB: [u8; 32] = [0xb0; 32];

fn announcement(client: &str, seq: u64, identity: [u8; 32]) -> Announcement {
    let bytes = format!("{client} {seq} {identity:?}").into_bytes().into();
    Announcement { client: client.into(), seq, identity, successor: None, bytes }
}

fn announce(store: &Store, link: &mut Link, announcement: Announcement) {
    store.done(link.announce_key(announcement, store.now));
}

/// Number, time, bytes.
type Announced = (u64, u64, Arc<[u8]>);

/// All that is known of a client: what it announced, and its unsigned key.
fn known(link: &Link, client: &str) -> (Vec<Announced>, Option<Arc<[u8]>>) {
    let mut announcements = Vec::new();
    let mut from = Some(1);
    while let Some(next) = from {
        let Ok(part) = link.key_history(client, next, 7) else { break };
        announcements.extend(part.announcements.into_iter().map(|view| (view.seq, view.announced.0, view.bytes)));
        from = part.next;
    }
    let newest = announcements.last().map(|(seq, ..)| *seq);
    assert_eq!(link.lookup_key(client).ok().map(|view| view.seq), newest);
    (announcements, link.unsigned_key(client).ok())
}

/// Makes the log move on by so many segments.
fn turn(store: &Store, link: &mut Link, segments: usize) {
    for n in 0..segments * SEGMENT_BYTES as usize / 600 {
        let id = format!("{}-{n}", store.now.0);
        store.publish_text(link, "default_key", &id, &"x".repeat(500));
        assert_eq!(store.fetch(link, store::QUEUE).as_deref(), Some(&*id));
        store.settle(link, &id, Settle::Ack);
    }
}

#[test]
fn the_first_comes_and_only_its_identity_or_successor_may_follow_with_a_higher_number() {
    let store = Store::new();
    let mut link = store.link();
    let refused = |link: &mut Link, announcement| link.announce_key(announcement, store.now).err();
    assert_eq!(link.lookup_key("c").err(), Some(Error::NoAnnouncement("c".to_owned())));
    announce(&store, &mut link, announcement("c", 5, ALICE));
    let again = link.announce_key(announcement("c", 5, ALICE), store.now).unwrap();
    assert!(again.receipt.is_none(), "the same again changes nothing");

    assert_eq!(refused(&mut link, announcement("c", 6, BOB)), Some(Error::OtherIdentity("c".to_owned())));
    let old = |last| Some(Error::OldAnnouncement { client: "c".to_owned(), last });
    let altered = Announcement { bytes: Arc::from(&b"other"[..]), ..announcement("c", 5, ALICE) };
    assert_eq!(refused(&mut link, altered), old(5));
    assert_eq!(refused(&mut link, announcement("c", 4, ALICE)), old(5));

    let handing_over = Announcement { successor: Some(BOB), ..announcement("c", 7, ALICE) };
    announce(&store, &mut link, handing_over);
    announce(&store, &mut link, announcement("c", 8, BOB));
    assert_eq!(refused(&mut link, announcement("c", 9, ALICE)), Some(Error::OtherIdentity("c".to_owned())));
    let seqs: Vec<u64> = known(&link, "c").0.into_iter().map(|(seq, ..)| seq).collect();
    assert_eq!(seqs, [5, 7, 8]);
}

#[test]
fn of_two_that_announce_at_once_the_first_in_the_log_is_taken() {
    let store = Store::new();
    let (mut one, mut other) = (store.link(), store.link());
    let first = one.announce_key(announcement("c", 1, ALICE), store.now).unwrap();
    let second = other.announce_key(announcement("c", 1, BOB), store.now).unwrap();
    store.broker.write_journal();
    assert_eq!(one.outcome(first.receipt.unwrap()), Some(Ok(())));
    assert_eq!(other.outcome(second.receipt.unwrap()), Some(Ok(())));
    assert_eq!((first.refused(), second.refused()), (None, Some(&Error::OtherIdentity("c".to_owned()))));
    assert_eq!(known(&one, "c").0[0].2, announcement("c", 1, ALICE).bytes);
}

#[test]
fn an_announcement_replaces_an_unsigned_key_and_never_the_other_way_round() {
    let mut store = Store::new();
    let mut link = store.link();
    store.done(link.register_key("c", b"one", store.now));
    store.done(link.register_key("c", b"two", store.now));
    assert_eq!(known(&link, "c"), (vec![], Some(Arc::from(&b"two"[..]))));
    assert!(link.register_key("c", b"two", store.now).unwrap().receipt.is_none(), "nothing new");
    announce(&store, &mut link, announcement("c", 1, ALICE));
    assert_eq!(link.unsigned_key("c"), Err(Error::NoUnsignedKey("c".to_owned())));
    let refused = link.register_key("c", b"three", store.now).err();
    assert_eq!(refused, Some(Error::Announced("c".to_owned())));

    // A registration that was on its way when the announcement came.
    let late = link.register_key("d", b"late", store.now).unwrap();
    store.broker.write_journal();
    assert_eq!(late.refused(), None);
    let announced = link.announce_key(announcement("d", 1, ALICE), store.now).unwrap();
    let later = store.link().register_key("d", b"later", store.now).unwrap();
    store.broker.write_journal();
    assert_eq!((announced.refused(), later.refused()), (None, Some(&Error::Announced("d".to_owned()))));
    let before = (known(&link, "c"), known(&link, "d"), link.directory_figures());
    store.fail_power();
    let link = store.link();
    assert_eq!((known(&link, "c"), known(&link, "d"), link.directory_figures()), before);
}

#[test]
fn keys_are_there_again_however_often_the_log_was_turned_and_the_power_failed() {
    let mut store = Store::tiny(BrokerOptions { dedupe_ids_max: 1_000, ..Default::default() });
    let mut link = store.link();
    for client in ["a", "b", "c"] {
        (1..4).for_each(|seq| announce(&store, &mut link, announcement(client, seq, ALICE)));
    }
    store.done(link.register_key("plain", b"key", store.now));
    for round in 0..5u64 {
        store.now = store.now.plus_ms(1_000);
        turn(&store, &mut link, 4);
        // Older versions are written anew behind newer ones.
        announce(&store, &mut link, announcement("a", 10 + round, ALICE));
        store.done(link.register_key("plain", format!("key {round}").as_bytes(), store.now));
        let before = ["a", "b", "c", "plain"].map(|client| known(&link, client));
        let figures = link.directory_figures();
        let recovered = store.fail_power();
        assert!(recovered.log.findings.is_empty(), "{:?}", recovered.log.findings);
        link = store.link();
        assert_eq!(["a", "b", "c", "plain"].map(|client| known(&link, client)), before, "round {round}");
        assert_eq!(link.directory_figures(), figures);
    }
    assert_eq!(known(&link, "b").0[0].1, store::START.0, "an announcement keeps the time it was taken");
    let mut first = u64::MAX;
    scan(&store.disk, &mut |scanned| {
        if let Scanned::Record { position, .. } = scanned {
            first = first.min(position.0);
        }
    })
    .unwrap();
    assert!(first > 8 * SEGMENT_BYTES, "the log was turned: it begins at {first}");
}

#[test]
fn only_so_many_versions_are_kept_and_they_do_not_pin_the_disk() {
    let mut store = Store::tiny(BrokerOptions::default());
    let mut link = store.link();
    let versions = 3 * ANNOUNCEMENTS_PER_CLIENT_MAX as u64;
    for seq in 1..=versions {
        let long = Announcement { bytes: vec![seq as u8; 1_000].into(), ..announcement("c", seq, ALICE) };
        announce(&store, &mut link, long);
        let figures = store.broker.journal_figures();
        assert!(figures.disk_bytes <= 2 * figures.live_bytes + 3 * SEGMENT_BYTES, "{figures:?} after {seq}");
    }
    let live = store.broker.journal_figures().live_bytes;
    let kept = ANNOUNCEMENTS_PER_CLIENT_MAX as u64 * 2_000;
    assert!((kept..kept + kept / 4).contains(&live), "{live} bytes live, each of the kept ones twice");
    let before = known(&link, "c");
    assert_eq!(before.0.len(), ANNOUNCEMENTS_PER_CLIENT_MAX);
    assert_eq!(before.0[0].0, versions - ANNOUNCEMENTS_PER_CLIENT_MAX as u64 + 1);
    store.fail_power();
    assert_eq!(known(&store.link(), "c"), before);
    assert_eq!(store.broker.journal_figures().live_bytes, live);
}

/// Announces while messages come and go, until the disk stops. What was answered, and what was on its way.
fn announce_until_it_stops(store: &Store) -> (Vec<Announcement>, Option<Announcement>) {
    let mut link = store.link();
    let mut answered = Vec::new();
    for round in 0..ROUNDS {
        let client = ["a", "b", "c"][round as usize % 3];
        let next = Announcement { bytes: vec![round as u8; 1_500].into(), ..announcement(client, 1 + round, ALICE) };
        let Ok(returned) = link.announce_key(next.clone(), store.now) else { return (answered, Some(next)) };
        store.broker.write_journal();
        let Some(Ok(())) = link.outcome(returned.receipt.unwrap()) else { return (answered, Some(next)) };
        answered.push(next);
        for n in 0..4 {
            let id = format!("{round}-{n}");
            let text = "x".repeat(3_000);
            let publish = store::message("default_key", &id, &text);
            if link.publish(publish, store.now).is_err() || link.submit().is_none_or(|submitted| submitted.is_err()) {
                return (answered, None);
            }
            store.broker.write_journal();
            let fetched = link.fetch(store::QUEUE, None, store.now);
            if !matches!(fetched, Ok(Some(_))) || link.settle(&id, None, Settle::Ack, store.now).is_err() {
                return (answered, None);
            }
            let _ = link.submit();
            store.broker.write_journal();
        }
    }
    (answered, None)
}

const ROUNDS: u64 = 24;

#[test]
fn wherever_the_power_fails_what_was_answered_is_there_and_nothing_else() {
    let whole = Store::tiny(BrokerOptions::default());
    let before = whole.disk.calls().len();
    assert_eq!(announce_until_it_stops(&whole).0.len() as u64, ROUNDS);
    let calls = whole.disk.calls().len() - before;
    let removed = whole.broker.journal_figures();
    println!("{calls} calls to the disk, {removed:?}");
    assert!(calls > 300);
    let (mut on_its_way, mut kept) = (0, 0);
    for at in 0..calls as u64 {
        let mut store = Store::tiny(BrokerOptions::default());
        let stop = [Stop::Before, Stop::After, Stop::Torn(at % 4_096)][at as usize % 3];
        store.disk.stop_at(before as u64 + at, stop);
        let (answered, asked) = announce_until_it_stops(&store);
        store.crash([Crash::Kill, Crash::PowerLoss(Unsynced::Lost)][at as usize / 3 % 2]);
        let link = store.link();
        let mut found: Vec<(u64, Arc<[u8]>)> = ["a", "b", "c"]
            .iter()
            .flat_map(|client| known(&link, client).0)
            .map(|(seq, _, bytes)| (seq, bytes))
            .collect();
        found.sort();
        let expected: Vec<_> = answered.iter().map(|it| (it.seq, Arc::clone(&it.bytes))).collect();
        on_its_way += u64::from(asked.is_some());
        let more = asked.filter(|asked| found.last().is_some_and(|(seq, _)| *seq == asked.seq));
        kept += u64::from(more.is_some());
        let expected: Vec<_> = expected.into_iter().chain(more.map(|it| (it.seq, it.bytes))).collect();
        assert_eq!(found, expected, "stopped {stop:?} call {at}");
    }
    println!("{on_its_way} times one was on its way, {kept} times it was kept");
    assert!(on_its_way > 20 && kept > 0 && kept < on_its_way);
}

#[test]
fn an_entry_is_neither_empty_nor_longer_than_its_bound() {
    let store = Store::new();
    let mut link = store.link();
    for (len, is_good) in [(0, false), (1, true), (KEY_BYTES_MAX, true), (KEY_BYTES_MAX + 1, false)] {
        let client = format!("c-{len}");
        assert_eq!(link.register_key(&client, &vec![1; len], store.now).is_ok(), is_good, "{len} bytes");
        store.broker.write_journal();
        let long = Announcement { bytes: vec![1; len].into(), ..announcement(&client, 1, ALICE) };
        assert_eq!(link.announce_key(long, store.now).is_ok(), is_good, "{len} bytes");
    }
    let long_name = announcement(&"c".repeat(256), 1, ALICE);
    assert!(matches!(link.announce_key(long_name, store.now), Err(Error::Limit(_))));
}

#[test]
fn a_full_disk_takes_no_keys_and_still_tells_those_it_has() {
    let mut store = Store::tiny(BrokerOptions::default());
    let mut link = store.link();
    announce(&store, &mut link, announcement("c", 1, ALICE));
    store.disk.set_capacity(Some(6 * SEGMENT_BYTES));
    store.fail_power();
    store.disk.set_capacity(Some(6 * SEGMENT_BYTES));
    link = store.link();
    let refused = (0..1_000).find_map(|n| {
        let taken = link.register_key(&format!("filler-{n}"), &[1; 4_000], store.now);
        store.broker.write_journal();
        taken.err()
    });
    assert_eq!(refused, Some(Error::DiskFull));
    let next = announcement("c", 2, ALICE);
    assert_eq!(link.announce_key(next, store.now).err(), Some(Error::DiskFull));
    assert_eq!(link.lookup_key("c").unwrap().seq, 1);
}

#[test]
fn a_journal_that_fails_takes_no_keys() {
    let store = Store::new();
    let mut link = store.link();
    announce(&store, &mut link, announcement("c", 1, ALICE));
    store.disk.fail_at(store.disk.calls().len() as u64, ErrorKind::Other, Times::EverAfter);
    let on_its_way = link.announce_key(announcement("c", 2, ALICE), store.now).unwrap();
    store.broker.write_journal();
    assert!(matches!(link.outcome(on_its_way.receipt.unwrap()), Some(Err(_))));
    assert!(matches!(link.announce_key(announcement("c", 2, ALICE), store.now), Err(Error::Storage(_))));
    assert_eq!(link.lookup_key("c").unwrap().seq, 1, "what was not committed is not told");
}

#[test]
fn the_inspector_names_client_and_number() {
    let store = Store::new();
    let mut link = store.link();
    announce(&store, &mut link, announcement("billing", 7, ALICE));
    store.done(link.register_key("plain", b"key", store.now));
    let mut inspector = Inspector::new();
    let mut lines = Vec::new();
    scan(&store.disk, &mut |scanned| {
        if let Scanned::Record { position, payload, .. } = scanned {
            let described = inspector.read(position, payload).unwrap();
            lines.push(format!("{}: {}", described.kind, described.detail));
        }
    })
    .unwrap();
    let announced = format!("announce: client billing seq 7 identity {} successor none", "a1".repeat(32));
    assert!(lines.iter().any(|line| line.starts_with(&announced)), "{lines:?}");
    assert!(lines.contains(&"register: unsigned key of client plain of 3 bytes".to_owned()), "{lines:?}");
}
