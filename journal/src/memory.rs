use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, TryLockError};

use crate::front::{Front, Waiting};
use crate::{Commit, Pace, Position, Simulation, Space};

/// Writes a log without a disk.
///
/// There is no thread: the first submitter to find it free writes for all who wait, so a submission has often been committed by
/// the time `submit` returns.
pub(crate) struct MemoryWriter<E> {
    state: Mutex<State<E>>,
    pub(crate) pace: Pace,
}

struct State<E> {
    next: Position,
    owner: Box<dyn Commit<E>>,
    fail_at: Option<Position>,
    space: Space,
    /// Emptied vectors of the last batch, swapped with the inbox so that neither allocates again.
    waiting: Waiting<E>,
}

impl<E> MemoryWriter<E> {
    pub(crate) fn new(owner: impl Commit<E> + 'static, simulation: Simulation) -> MemoryWriter<E> {
        let state = State {
            next: Position(1),
            owner: Box::new(owner),
            fail_at: simulation.fail_at,
            space: Space::uncounted(),
            waiting: Waiting { entries: Vec::new(), bells: Vec::new(), last: 0 },
        };
        MemoryWriter { state: Mutex::new(state), pace: simulation.pace }
    }

    /// Writes what waits, unless somebody else is writing: then they will write this too.
    pub(crate) fn lead(&self, front: &Front<E>) {
        loop {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let written = state.step(front);
            drop(state);
            // Whoever submitted after the step and before the unlock found the writer busy and left:
            // only this look behind the unlock finds their entries.
            if !written && front.is_empty() {
                return;
            }
        }
    }
}

impl<E> State<E> {
    /// Collect, write, commit, complete: one batch. False when nothing waited.
    fn step(&mut self, front: &Front<E>) -> bool {
        let State { next, owner, fail_at, space, waiting } = self;
        if !front.take(waiting) {
            return false;
        }
        for mut entry in waiting.entries.drain(..) {
            let position = *next;
            next.0 += 1;
            if *fail_at == Some(position) {
                front.fail(position.0);
            }
            if position.0 >= front.failed_from() {
                let _ = survived(|| owner.refuse(entry));
            } else if survived(|| {
                if owner.admit(position, &mut entry) {
                    owner.commit(position, entry, space);
                }
            }) {
                // Stored entry by entry: a receipt in the middle of a long batch may complete early.
                front.commit(position.0);
            } else {
                front.fail(position.0);
            }
        }
        for (_, bell) in waiting.bells.drain(..) {
            bell.ring();
        }
        true
    }
}

/// False when `work` panicked; the panic hook has reported it.
///
/// Whoever submitted must hear that an entry failed, and later entries must not be committed behind one that was
/// half done. The owner's state is not looked at again but by `refuse`: that is what being poisoned means.
pub(crate) fn survived(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_ok()
}
