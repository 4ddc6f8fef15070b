//! Where answers wait for the futures that asked for them.
//!
//! One vector under the client's lock instead of one channel a request: a
//! publish costs no allocation for its confirmation.

use std::task::{Context, Poll, Waker};

use crate::request::Answer;
use crate::{Error, Result};

/// One future's place in [`Slots`]; given back by taking the outcome or by
/// [`Slots::abandon`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(usize);

#[derive(Debug)]
enum Slot {
    Free,
    Waiting(Option<Waker>),
    Done(Result<Answer>),
    /// The future is gone, the answer is still to come.
    Abandoned,
}

#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

impl Slots {
    pub(crate) fn open(&mut self) -> SlotId {
        match self.free.pop() {
            Some(index) => {
                self.slots[index] = Slot::Waiting(None);
                SlotId(index)
            }
            None => {
                self.slots.push(Slot::Waiting(None));
                SlotId(self.slots.len() - 1)
            }
        }
    }

    /// Puts the outcome in place; returns the future to wake, or the outcome
    /// when there is nobody to fetch it.
    pub(crate) fn finish(
        &mut self,
        SlotId(index): SlotId,
        outcome: Result<Answer>,
    ) -> Result<Option<Waker>, Result<Answer>> {
        match std::mem::replace(&mut self.slots[index], Slot::Free) {
            Slot::Waiting(waker) => {
                self.slots[index] = Slot::Done(outcome);
                Ok(waker)
            }
            _ => {
                self.free.push(index);
                Err(outcome)
            }
        }
    }

    /// The outcome, once; afterwards the place belongs to somebody else.
    pub(crate) fn poll(&mut self, SlotId(index): SlotId, cx: &mut Context<'_>) -> Poll<Result<Answer>> {
        match &mut self.slots[index] {
            Slot::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            slot @ Slot::Done(_) => match std::mem::replace(slot, Slot::Free) {
                Slot::Done(outcome) => {
                    self.free.push(index);
                    Poll::Ready(outcome)
                }
                _ => Poll::Ready(Err(polled_after_end())),
            },
            Slot::Free | Slot::Abandoned => Poll::Ready(Err(polled_after_end())),
        }
    }

    /// The future is gone; returns the outcome it did not fetch.
    pub(crate) fn abandon(&mut self, SlotId(index): SlotId) -> Option<Result<Answer>> {
        match std::mem::replace(&mut self.slots[index], Slot::Free) {
            Slot::Waiting(_) => {
                self.slots[index] = Slot::Abandoned;
                None
            }
            Slot::Done(outcome) => {
                self.free.push(index);
                Some(outcome)
            }
            // Not reached: a future fetches or abandons, once.
            Slot::Free | Slot::Abandoned => None,
        }
    }
}

fn polled_after_end() -> Error {
    Error::new(crate::ErrorKind::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn an_outcome_is_taken_once_and_its_place_is_used_again() {
        let mut slots = Slots::default();
        let first = slots.open();
        assert!(slots.poll(first, &mut cx()).is_pending());
        assert!(matches!(slots.finish(first, Ok(Answer::Done)), Ok(Some(_))));
        assert!(matches!(slots.poll(first, &mut cx()), Poll::Ready(Ok(Answer::Done))));
        assert_eq!(slots.open(), first);
    }

    #[test]
    fn an_abandoned_place_is_free_only_after_its_answer_came() {
        let mut slots = Slots::default();
        let first = slots.open();
        assert!(slots.abandon(first).is_none());
        assert_ne!(slots.open(), first);
        assert!(matches!(slots.finish(first, Ok(Answer::Done)), Err(Ok(Answer::Done))));
        assert_eq!(slots.open(), first);
    }

    #[test]
    fn an_outcome_nobody_fetched_does_not_hold_its_place() {
        let mut slots = Slots::default();
        let first = slots.open();
        assert!(matches!(slots.finish(first, Ok(Answer::Done)), Ok(None)));
        assert!(matches!(slots.abandon(first), Some(Ok(Answer::Done))));
        assert_eq!(slots.open(), first);
    }
}
