//! Every call to the disk fails: once, from then on, or with everything after it.

use std::io::ErrorKind;

use ciphermq_journal::{CallKind, Crash, Health, MemoryDisk, Times, Unavailable, Unsynced};

use crate::history::{After, History};
use crate::script::{Step, script};
use crate::store::{Store, seed};
use crate::toy::{LATE_ID, What};

const OPERATIONS: usize = 140;

const ENDS: [Crash; 3] = [Crash::Kill, Crash::PowerLoss(Unsynced::Lost), Crash::PowerLoss(Unsynced::Random(1))];

#[test]
fn after_an_error_of_the_disk_nothing_is_promised_and_nothing_promised_is_lost() {
    let script = script(seed(), OPERATIONS, 20);
    let whole = MemoryDisk::new();
    let store = Store::open(&whole).unwrap();
    store.play(&script, &mut History::default());
    // Without those of closing: a run that fails does not get there.
    let calls = whole.calls();
    let mut covered = [0; 4];
    for (number, call) in calls.iter().enumerate() {
        for times in [Times::Once, Times::EverAfter, Times::Everything] {
            let disk = MemoryDisk::new();
            disk.fail_at(number as u64, ErrorKind::Other, times);
            let outcome = fail(&disk, &script, call.kind, times);
            covered[outcome.unwrap_or_else(|fault| panic!("call {number}, {call:?}, {times:?}: {fault}")) as usize] +=
                1;
        }
    }
    let [refused, poisoned, harmless, calls] = [covered[0], covered[1], covered[2], calls.len()];
    println!("faults: {calls} calls; {refused} made opening fail, {poisoned} poisoned, {harmless} did neither");
    assert!(refused >= 3 && poisoned >= 300);
}

enum Outcome {
    Refused,
    Poisoned,
    Harmless,
}

fn fail(disk: &MemoryDisk, script: &[Step], kind: CallKind, times: Times) -> Result<Outcome, String> {
    let mut history = History::default();
    let Ok(store) = Store::open(disk) else {
        return reopen_every_way(disk, &history).map(|()| Outcome::Refused);
    };
    store.play(script, &mut history);
    if store.journal.health() != Health::Poisoned {
        // Nothing may be hidden but what can be done again.
        if matches!(kind, CallKind::Write | CallKind::Sync | CallKind::SyncNames) {
            return Err("it went on after that".to_owned());
        }
        if history.units.iter().any(|unit| !unit.acknowledged) {
            return Err("healthy, and something was refused".to_owned());
        }
        return reopen_every_way(disk, &history).map(|()| Outcome::Harmless);
    }
    if times == Times::Once && kind != CallKind::Read {
        store.read_all().map_err(|fault| format!("reading stopped, too: {fault}"))?;
    }
    disk.work_again();
    let late = vec![What::Publish { id: LATE_ID, queues: vec![1], len: 1 }.into()];
    if store.submit(late).is_ok() {
        return Err("a poisoned journal accepted something".to_owned());
    }
    store.journal.write_waiting();
    if store.journal.health() != Health::Poisoned {
        return Err("it came back to life".to_owned());
    }
    let first = history.units.iter().position(|unit| !unit.acknowledged).unwrap_or(history.units.len());
    for unit in &history.units[first..] {
        let outcome = unit.receipt.and_then(|receipt| store.journal.outcome(receipt));
        if outcome != Some(Err(Unavailable)) {
            return Err(format!("{:?} behind the failure: {outcome:?}", unit.facts));
        }
    }
    store.read_all()?;
    reopen_every_way(disk, &history).map(|()| Outcome::Poisoned)
}

fn reopen_every_way(disk: &MemoryDisk, history: &History) -> Result<(), String> {
    for end in ENDS {
        let after = if end == Crash::Kill { After::Kill } else { After::PowerLoss };
        let left = disk.crash(end);
        let store = Store::open(&left).map_err(|error| format!("{end:?}: {error}"))?;
        store.read_all()?;
        history.check(&store.toy.look(), after).map_err(|fault| format!("{end:?}: {fault}"))?;
        // What a failed sync left may be readable and never get to the disk by itself.
        let again =
            Store::open(&left.crash(Crash::PowerLoss(Unsynced::Lost))).map_err(|error| format!("{end:?}: {error}"))?;
        if again.toy.look().contents() != store.toy.look().contents() {
            return Err(format!("{end:?}: what was found once is not found again after a power failure"));
        }
    }
    Ok(())
}

#[test]
fn a_sync_that_fails_once_and_then_works_is_not_believed() {
    let disk = MemoryDisk::new();
    let store = Store::open(&disk).unwrap();
    let mut history = History::default();
    let publish = |id| Step::Submit(vec![What::Publish { id, queues: vec![1], len: 9 }.into()]);
    store.play(&[Step::Submit(vec![What::Declare { queue: 1 }.into()]), publish(0), Step::Work], &mut history);
    assert_eq!(history.acknowledged(), 2);
    // The call after the next is the sync of the next write.
    disk.fail_at(disk.calls().len() as u64 + 1, ErrorKind::Other, Times::Once);
    store.play(&[publish(1), Step::Work], &mut history);
    assert_eq!(disk.calls().last().map(|call| call.kind), Some(CallKind::Sync));
    disk.work_again();
    assert_eq!(store.journal.health(), Health::Poisoned);
    store.play(&[publish(2), Step::Work], &mut history);
    assert_eq!(history.acknowledged(), 2);
    assert_eq!(disk.calls().last().map(|call| call.kind), Some(CallKind::Sync), "nothing was written any more");
    let reopened = Store::open(&disk.crash(Crash::PowerLoss(Unsynced::Lost))).unwrap();
    let known: Vec<u32> = reopened.toy.look().known.keys().copied().collect();
    assert_eq!(known, [0]);
}
