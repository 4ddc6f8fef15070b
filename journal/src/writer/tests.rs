mod room;

use crate::segment::segment_base;
use crate::testing::{Keeper, Note, Opened, SEGMENT, note, open, open_as, options, recovered};
use crate::{CallKind, Crash, Durability, Health, JournalOptions, MemoryDisk, ReadError, Times, Unavailable, Unsynced};
use std::io::ErrorKind;
use std::time::Duration;

fn calls(disk: &MemoryDisk, kind: CallKind) -> usize {
    disk.calls().iter().filter(|call| call.kind == kind).count()
}

fn written(text: &str) -> Note {
    Note { durability: Durability::Written, ..note(text) }
}

const LOST: Crash = Crash::PowerLoss(Unsynced::Lost);

#[test]
fn all_that_waits_is_one_write_and_one_sync() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    log.write([note("first")]);
    let before = (calls(&disk, CallKind::Write), calls(&disk, CallKind::Sync));
    let one = log.submit([note("one"), note("two")]);
    let two = log.submit([note("three")]);
    assert_eq!(log.journal.outcome(two), None);
    log.journal.write_waiting();
    assert_eq!([one, two].map(|receipt| log.journal.outcome(receipt)), [Some(Ok(())); 2]);
    let after = (calls(&disk, CallKind::Write), calls(&disk, CallKind::Sync));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
    assert_eq!(recovered(&disk.crash(LOST)), ["first", "one", "two", "three"]);
}

#[test]
fn where_the_log_ends_is_seen_in_a_file_that_was_used_before() {
    let disk = MemoryDisk::new();
    let large = JournalOptions { segment_bytes_min: 4 * SEGMENT, segment_bytes_max: 4 * SEGMENT, ..options() };
    let log = open_as(&disk, large, Keeper::default());
    // Where the next frame stands, if it is in the same segment.
    let end = || {
        let seen = log.keeper.look();
        seen.committed.last().map_or(0, |(position, text)| (position.0 + 32 + text.len() as u64).next_multiple_of(8))
    };
    let mut used_before = [0; 6];
    for round in 0..600 {
        // Nothing lives: files are used again.
        log.write([note("let go"), note("x".repeat(500))]);
        // The next frame ends so many bytes in front of the end of a block.
        let missing = round % used_before.len() as u64 * 8;
        let len = 4096 - (end() + 32 + missing) % 4096;
        log.write([note("y".repeat(len as usize))]);
        let found = open(&disk.crash(Crash::Kill)).report.findings;
        assert!(found.is_empty(), "{missing} bytes in front of the end of a block: {found:?}");
        let has_old_bytes = rest_of_segment(&disk, end()).iter().any(|byte| *byte != 0);
        used_before[missing as usize / 8] += usize::from((end() + missing).is_multiple_of(4096) && has_old_bytes);
    }
    assert!(used_before.iter().all(|writes| *writes >= 10), "{used_before:?} writes into files used before");
}

/// What stands behind a position in the newest segment.
fn rest_of_segment(disk: &MemoryDisk, position: u64) -> Vec<u8> {
    let mut files = disk.files();
    files.retain(|(name, _)| segment_base(name).is_some_and(|base| base <= position));
    let (name, bytes) = files.pop().expect("the position is in a segment");
    let from = segment_base(&name).map_or(0, |base| position - base);
    bytes.get(from as usize..).map(<[u8]>::to_vec).unwrap_or_default()
}

#[test]
fn what_is_written_anew_is_synced_write_by_write() {
    let disk = MemoryDisk::new();
    let options = JournalOptions { carry_bytes_per_step: 2000, ..options() };
    let log = open_as(&disk, options, Keeper::default());
    for number in 0..100 {
        log.write([note(format!("{number} lives ").repeat(20)), note("x".repeat(900))]);
    }
    let carried = log.keeper.look().committed.len() - 200;
    assert!(carried > 50, "{carried} were written anew");
    // So that a segment can be dropped without a long wait for all of it.
    let mut kinds = disk.calls().into_iter().map(|call| call.kind).filter(|kind| is_write_or_sync(*kind)).peekable();
    while let Some(kind) = kinds.next() {
        assert!(kind == CallKind::Sync || kinds.peek() == Some(&CallKind::Sync), "a write that was not synced");
    }
}

fn is_write_or_sync(kind: CallKind) -> bool {
    matches!(kind, CallKind::Write | CallKind::Sync)
}

#[test]
fn what_was_synced_and_is_told_again_without_a_sync_outlives_its_segment() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    log.write([note("moves")]);
    let first = log.at("moves");
    for number in 0..60 {
        // It is not where it was any more, and nothing lives there.
        log.write([written(&"x".repeat(2000)), written("moves")]);
        assert!(recovered(&disk.crash(LOST)).contains(&"moves".to_owned()), "{number}");
    }
    assert_eq!(log.journal.reader().read(first), Err(ReadError::Gone(first)), "its first segment was dropped");
}

#[test]
fn what_is_only_written_survives_the_process_and_not_the_machine() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    log.write([note("synced")]);
    let receipt = log.write([written("written")]);
    assert_eq!(receipt, Some(Ok(())));
    assert_eq!(recovered(&disk.crash(Crash::Kill)), ["synced", "written"]);
    assert_eq!(recovered(&disk.crash(LOST)), ["synced"]);
    log.journal.close();
    assert_eq!(recovered(&disk.crash(LOST)), ["synced", "written"], "an orderly end syncs");
}

#[test]
fn after_an_orderly_end_damage_is_not_taken_for_torn_though_nothing_was_synced() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    let member = |text: &str| Note { continues: true, ..written(text) };
    log.write([member("1"), member("2"), written("3")]);
    let second = log.at("2").0 - 0x1000;
    log.journal.close();
    assert!(disk.flip("0000000000001000.log", (second + 32) * 8));
    assert_eq!(recovered(&disk.crash(LOST)), ["1", "3"], "it costs one record");
}

#[test]
fn what_is_synced_brings_along_what_was_written_before_it_also_in_the_segment_before() {
    let mut most = 0;
    for count in 0..30 {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        for number in 0..count {
            log.write([written(&number.to_string().repeat(500))]);
        }
        log.write([note("synced")]);
        most = most.max(log.journal.figures().segments);
        assert_eq!(recovered(&disk.crash(LOST)).len(), count + 1);
    }
    assert!(most > 1, "they were all in one segment");
}

#[test]
fn the_earliest_deadline_syncs_all_that_was_written() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    let at = |ms| log.journal.write_waiting_at(Duration::from_millis(ms));
    let within = |text: &str, ms| Note { durability: Durability::Within(ms), ..note(text) };
    at(1000);
    let _ = log.submit([within("a", 500), written("b")]);
    at(1000);
    let _ = log.submit([within("c", 100)]);
    at(1200);
    let _ = log.submit([within("d", 5000)]);
    at(1299);
    assert_eq!(recovered(&disk.crash(LOST)), [""; 0]);
    at(1300);
    assert_eq!(recovered(&disk.crash(LOST)), ["a", "b", "c", "d"]);
}

#[test]
fn an_entry_that_stands_alone_is_committed_between_all_others() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    log.write([note("1"), note("2"), Note { alone: true, ..note("3") }, note("4"), note("5")]);
    assert_eq!(log.keeper.look().admitted_after, [0, 0, 2, 3, 3]);
}

#[test]
fn what_is_not_admitted_is_not_written_and_completes_with_the_others() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    let member = |text: &str| Note { continues: true, ..note(text) };
    let group = [member("no 1"), member("2"), member("no 3"), member("4"), note("no 5")];
    let receipt = log.write(group);
    assert_eq!(receipt, Some(Ok(())));
    let nothing = log.write([note("no"), note("no")]);
    assert_eq!(nothing, Some(Ok(())));
    assert_eq!(log.texts(), ["2", "4"]);
    assert_eq!(recovered(&disk.crash(LOST)), ["2", "4"], "what is left of the group is a group");
}

#[test]
fn a_group_is_never_split_and_may_be_longer_than_a_segment() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    let long = "x".repeat(3000);
    let group: Vec<Note> = (0..20).map(|at| Note { continues: at < 19, ..note(format!("{at}{long}")) }).collect();
    log.write([note("before")]);
    let receipt = log.write(group);
    assert_eq!(receipt, Some(Ok(())));
    assert_eq!(recovered(&disk.crash(LOST)).len(), 21);
    assert!(disk.files().iter().any(|(_, bytes)| bytes.len() as u64 > 3 * SEGMENT), "one of its own length");
}

fn reserved(text: impl Into<String>) -> Note {
    Note { reserved: true, ..note(text) }
}

/// A disk so full that nothing is let in any more. There is room for what need not ask.
fn full(segments: u64) -> (MemoryDisk, Opened) {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(segments * SEGMENT));
    let log = open(&disk);
    for number in 0.. {
        if log.journal.reserve(1000).is_err() {
            break;
        }
        log.write([reserved(format!("{number}:").repeat(300))]);
    }
    (disk, log)
}

#[test]
fn a_late_refusal_is_that_of_the_refused_entries_alone() {
    let (disk, log) = full(4);
    let long = |name: &str| reserved(name.repeat(3000));
    let group = [Note { continues: true, ..long("b") }, reserved("c")];
    let receipt = log.submit([note("ack 1"), long("a"), note("ack 2")].into_iter().chain(group));
    log.journal.write_waiting();
    assert_eq!(log.journal.outcome(receipt), Some(Err(Unavailable)), "not all of it is committed");
    let parts: Vec<_> = (0..5).map(|at| log.journal.outcome(receipt.part(at..at + 1).unwrap()).unwrap()).collect();
    assert_eq!(parts, [Ok(()), Err(Unavailable), Ok(()), Err(Unavailable), Err(Unavailable)]);
    assert_eq!(log.journal.outcome(receipt.part(0..2).unwrap()), Some(Err(Unavailable)));
    assert_eq!((receipt.part(2..2), receipt.part(5..9)), (None, None));
    let refused: String = log.keeper.look().refused.iter().map(|text| &text[..1]).collect();
    assert_eq!(refused, "abc");
    assert!(recovered(&disk.crash(LOST)).ends_with(&["ack 1".to_owned(), "ack 2".to_owned()]));
}

#[test]
fn what_needs_no_room_does_not_wait_for_what_has_none() {
    let (disk, log) = full(4);
    let large = "x".repeat(8 * SEGMENT as usize);
    let receipt = log.submit([note("ack 1"), Note { alone: true, ..note(large) }, note("ack 2")]);
    log.journal.write_waiting();
    let parts: Vec<_> = (0..3).map(|at| log.journal.outcome(receipt.part(at..at + 1).unwrap())).collect();
    assert_eq!(parts, [Some(Ok(())), Some(Err(Unavailable)), Some(Ok(()))]);
    assert!(recovered(&disk.crash(LOST)).ends_with(&["ack 1".to_owned(), "ack 2".to_owned()]));
}

#[test]
fn what_is_to_be_written_anew_and_has_no_room_stops_nothing_and_stays() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    // The oldest segment will be that of something so long that a file of its own length is needed to write it anew.
    let long = "x".repeat(100_000);
    log.write([note(&*long)]);
    disk.set_capacity(Some(disk.used() + 9 * SEGMENT));
    let is_stopped = || log.keeper.look().refused.contains(&long);
    for number in 0.. {
        assert!(number < 100, "the log never wanted to write it anew: {:?}", log.journal.figures());
        if is_stopped() {
            break;
        }
        // Of no use any more when it is written the next time.
        log.write([note("y".repeat(5_000))]);
    }
    for number in 0..20 {
        let receipt = log.write([note(format!("ack {number}"))]);
        assert_eq!(receipt, Some(Ok(())), "{number}: {:?}", log.journal.figures());
    }
    assert!(recovered(&disk.crash(LOST)).contains(&long), "it is where it was");
    disk.set_capacity(None);
    (20..30).for_each(|second| log.journal.write_waiting_at(Duration::from_secs(second)));
    let figures = log.journal.figures();
    assert!(figures.disk_bytes <= 2 * figures.live_bytes + 2 * SEGMENT, "with room it is written anew: {figures:?}");
    assert!(recovered(&disk.crash(LOST)).contains(&long));
}

#[test]
fn the_disk_is_not_asked_again_for_each_entry_that_waits() {
    let (disk, log) = full(4);
    let now = Duration::from_secs(10);
    // Nobody may refuse these: the last of them wait.
    for number in 0..200 {
        let _ = log.submit([note(format!("{number:0>400}"))]);
    }
    log.journal.write_waiting_at(now);
    let waiting = log.submit([note("waits")]);
    let asked = |log: &Opened| (calls(&disk, CallKind::Create), log.keeper.look().checkpoints);
    log.journal.write_waiting_at(now);
    let before = asked(&log);
    for _ in 0..20 {
        let _ = log.submit([note("waits")]);
        log.journal.write_waiting_at(now);
    }
    assert_eq!(log.journal.outcome(waiting), None);
    assert_eq!(asked(&log), before);
    disk.set_capacity(None);
    log.journal.write_waiting_at(now + Duration::from_secs(1));
    assert_eq!(log.journal.outcome(waiting), Some(Ok(())));
}

#[test]
fn after_an_error_nothing_is_accepted_and_everybody_hears() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    log.write([note("good")]);
    let receipt = log.submit([note("bad"), note("no")]);
    disk.fail_at(disk.calls().len() as u64 + 1, ErrorKind::Other, Times::Once);
    log.journal.write_waiting();
    assert_eq!(log.journal.health(), Health::Poisoned);
    assert!(log.journal.failure().unwrap().starts_with("sync 0000000000001000.log: "));
    assert_eq!(log.journal.outcome(receipt), Some(Err(Unavailable)));
    assert_eq!(log.keeper.look().refused, ["bad"]);
    assert_eq!(log.journal.submit(&mut vec![note("late")], &log.bell), Err(Unavailable));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(log.bell.poll_rung(&mut context).is_ready());
}
