//! A process on a simulated disk ends at every call it makes, in every way; so does the one that opens what it left. What comes
//! back is held against what had been promised.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use ciphermq_journal::{Call, CallKind, Crash, MemoryDisk, Stop, Unsynced};

use crate::history::{After, Expected, History};
use crate::script::{Step, script};
use crate::store::{Store, on_two_threads, seed};
use crate::toy::{LATE_ID, Toy, What};

const OPERATIONS: usize = 140;

/// Of writes torn at every byte, those whose recovery is crashed, too.
const TEAR_STEP: usize = 128;

/// Whether what is found is opened in peace only, or the opening crashed as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Once,
    Recovery,
}

/// The ways a process ends; of the random ones, another for each call.
fn ends(call: u64) -> [Crash; 7] {
    let random = |way: u64| Crash::PowerLoss(Unsynced::Random(call * 3 + way));
    let power = [Unsynced::Lost, Unsynced::Kept, Unsynced::Names].map(Crash::PowerLoss);
    [Crash::Kill, power[0], power[1], power[2], random(0), random(1), random(2)]
}

fn after(crash: Crash) -> After {
    match crash {
        Crash::Kill => After::Kill,
        Crash::PowerLoss(_) => After::PowerLoss,
    }
}

/// What a run up to a call has left.
struct Run {
    disk: MemoryDisk,
    history: History,
}

/// What a history promises.
struct Promised {
    acknowledged: usize,
    after_kill: Expected,
    after_power_loss: Expected,
}

impl Promised {
    fn by(history: &History) -> Promised {
        Promised {
            acknowledged: history.acknowledged(),
            after_kill: history.expected(After::Kill),
            after_power_loss: history.expected(After::PowerLoss),
        }
    }

    fn check(&self, toy: &Toy, after: After) -> Result<(), String> {
        match after {
            After::Kill => self.after_kill.check(toy),
            After::PowerLoss => self.after_power_loss.check(toy),
        }
    }
}

fn run(script: &[Step], stop: Option<(u64, Stop)>) -> Run {
    let disk = MemoryDisk::new();
    if let Some((call, stop)) = stop {
        disk.stop_at(call, stop);
    }
    let mut history = History::default();
    if let Ok(store) = Store::open(&disk) {
        store.play(script, &mut history);
        store.journal.close();
    }
    assert_eq!(disk.is_stopped(), stop.is_some(), "runs are the same up to the call");
    Run { disk, history }
}

#[derive(Default)]
struct Covered {
    calls: AtomicUsize,
    disks: AtomicUsize,
    crashed_recoveries: AtomicUsize,
    same: AtomicUsize,
}

#[test]
fn a_crash_at_any_call_and_again_at_any_call_of_the_recovery_breaks_no_promise() {
    let script = script(seed(), OPERATIONS, 20);
    let whole = run(&script, None);
    let calls = whole.disk.calls();
    let covered = Covered::default();
    assert_workload_has_everything(&calls, &whole.history);
    // Each thread has its own memory of what it has seen.
    on_two_threads(calls.len(), |call, seen: &mut HashSet<_>| {
        if calls[call].kind.changes_disk() {
            covered.calls.fetch_add(1, Ordering::Relaxed);
            crash_at(&script, call as u64, calls[call], seen, &covered);
        }
    });
    let [calls, disks, recoveries, same] =
        [covered.calls, covered.disks, covered.crashed_recoveries, covered.same].map(AtomicUsize::into_inner);
    println!(
        "crash: {calls} calls, {disks} disks left by them opened and checked, {recoveries} more left by crashes of their \
         recovery; {same} that were equal to one before not counted"
    );
    assert!(calls >= 200 && disks >= 1_000 && recoveries >= 5_000);
}

fn assert_workload_has_everything(calls: &[Call], history: &History) {
    for (kind, at_least) in [
        (CallKind::Create, 3),
        (CallKind::Rename, 5),
        (CallKind::SyncNames, 5),
        (CallKind::Write, 80),
        (CallKind::Sync, 80),
        (CallKind::Read, 1),
    ] {
        let count = calls.iter().filter(|call| call.kind == kind).count();
        assert!(count >= at_least, "only {count} calls of {kind:?} in the workload");
    }
    let has = |matches: fn(&What) -> bool| {
        history.units.iter().flat_map(|unit| &unit.facts).filter(|fact| matches(&fact.what)).count()
    };
    assert!(has(|what| matches!(what, What::Publish { .. })) >= 40);
    assert!(has(|what| matches!(what, What::Settle { .. })) >= 20);
    assert!(has(|what| matches!(what, What::Delete { .. })) >= 2);
    assert!(history.units.iter().filter(|unit| unit.facts[0].continues).count() >= 4);
    assert!(history.units.iter().all(|unit| unit.acknowledged));
}

/// All disks that a process leaves that ends before, after or in the middle of a call.
fn crash_at(script: &[Step], number: u64, call: Call, seen: &mut HashSet<(u64, usize)>, covered: &Covered) {
    let before = run(script, Some((number, Stop::Before)));
    let promised = Promised::by(&before.history);
    // After a call is before the next, when more may have been promised.
    for crash in ends(number) {
        examine(&before.disk.crash(crash), &promised, (number, crash), Depth::Recovery, seen, covered);
    }
    if call.kind == CallKind::Create {
        for len in [0, 1, 511, 4095, 4096, 4097, call.len / 2, call.len - 1] {
            let run = run(script, Some((number, Stop::Torn(len))));
            let promised = Promised::by(&run.history);
            for crash in ends(number) {
                examine(&run.disk.crash(crash), &promised, (number, crash), Depth::Recovery, seen, covered);
            }
        }
    }
    let kept = Crash::PowerLoss(Unsynced::Kept);
    for len in 0.. {
        let Some(torn) = before.disk.crash_torn(len, kept) else { return };
        // Much of a write is zeros on zeros.
        if seen.contains(&(torn.fingerprint(), promised.acknowledged)) {
            covered.same.fetch_add(2, Ordering::Relaxed);
            continue;
        }
        let depth = if len % TEAR_STEP == 0 { Depth::Recovery } else { Depth::Once };
        examine(&torn, &promised, (number, kept), depth, seen, covered);
        let killed = before.disk.crash_torn(len, Crash::Kill).expect("the write is that long");
        examine(&killed, &promised, (number, Crash::Kill), depth, seen, covered);
    }
}

/// Opens what a crash left; then lets the opening itself crash at each of its calls, and opens what that left.
fn examine(
    left: &MemoryDisk,
    promised: &Promised,
    (at, crash): (u64, Crash),
    depth: Depth,
    seen: &mut HashSet<(u64, usize)>,
    covered: &Covered,
) {
    if !seen.insert((left.fingerprint(), promised.acknowledged)) {
        covered.same.fetch_add(1, Ordering::Relaxed);
        return;
    }
    covered.disks.fetch_add(1, Ordering::Relaxed);
    let copy = left.crash(Crash::Kill);
    open_and_go_on(&copy, promised, after(crash), depth)
        .unwrap_or_else(|fault| panic!("call {at}, {crash:?}: {fault}"));
    if depth == Depth::Once {
        return;
    }
    let opening = left.crash(Crash::Kill);
    drop(Store::open(&opening).expect("it was opened above"));
    for (number, call) in opening.calls().iter().enumerate().filter(|(_, call)| call.kind.changes_disk()) {
        let number = number as u64;
        // After a call is before the next.
        let stops = [Stop::Before, Stop::Torn(call.len / 2)];
        for (stop, again) in stops.into_iter().flat_map(|stop| second_ends(number).map(|again| (stop, again))) {
            if matches!(stop, Stop::Torn(_)) && call.len == 0 {
                continue;
            }
            let recovering = left.crash(Crash::Kill);
            recovering.stop_at(number, stop);
            drop(Store::open(&recovering));
            let left = recovering.crash(again);
            if !seen.insert((left.fingerprint(), promised.acknowledged)) {
                covered.same.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            covered.crashed_recoveries.fetch_add(1, Ordering::Relaxed);
            let after = if crash == Crash::Kill { after(again) } else { After::PowerLoss };
            let found = Store::open(&left).map_err(|error| error.to_string()).and_then(|store| {
                store.has_lost_nothing()?;
                store.read_all()?;
                let toy = store.toy.look();
                promised.check(&toy, after)
            });
            found.unwrap_or_else(|fault| {
                panic!("call {at}, {crash:?}, then at call {number} of the recovery {stop:?}, {again:?}: {fault}")
            });
        }
    }
}

fn second_ends(call: u64) -> [Crash; 3] {
    [Crash::Kill, Crash::PowerLoss(Unsynced::Lost), Crash::PowerLoss(Unsynced::Random(call))]
}

/// The history holds; what was found is found again after a power failure, because somebody may have been told of it; and the
/// store takes more.
fn open_and_go_on(left: &MemoryDisk, promised: &Promised, after: After, depth: Depth) -> Result<(), String> {
    let store = Store::open(left).map_err(|error| error.to_string())?;
    store.has_lost_nothing()?;
    store.read_all()?;
    let found = store.toy.look().contents();
    promised.check(&store.toy.look(), after)?;
    let again = left.crash(Crash::PowerLoss(Unsynced::Lost));
    let reopened = Store::open(&again).map_err(|error| format!("opened once: {error}"))?;
    reopened.has_lost_nothing()?;
    if reopened.toy.look().contents() != found {
        return Err("what was found once is not found again after a power failure".to_owned());
    }
    if depth == Depth::Once {
        return Ok(());
    }
    let more = vec![What::Publish { id: LATE_ID, queues: vec![1], len: 30 }.into()];
    let declare = vec![What::Declare { queue: 1 }.into()];
    let mut later = History::default();
    store.play(&[Step::Submit(declare), Step::Work, Step::Submit(more), Step::Work], &mut later);
    if later.acknowledged() != 2 {
        return Err("a recovered store takes nothing".to_owned());
    }
    let reopened = Store::open(&left.crash(Crash::PowerLoss(Unsynced::Lost))).map_err(|error| error.to_string())?;
    reopened.has_lost_nothing()?;
    reopened.read_all()?;
    if reopened.toy.look().contents() != store.toy.look().contents() {
        return Err("what a recovered store acknowledged is missing".to_owned());
    }
    Ok(())
}
