use std::collections::VecDeque;
use std::ops::Range;

use ciphermq_journal::{Receipt, Unavailable};

/// Replies in the order of their requests, each held back until what it promises has happened.
///
/// Replies are encoded at once into one buffer. What is submitted to the journal together is released together, so
/// the usual release is one copy however many replies it holds.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    text: Vec<u8>,
    /// Where the first reply that was not released starts in `text`.
    start: usize,
    lines: VecDeque<Line>,
    groups: VecDeque<Group>,
    /// Lines, and where their text starts, that belong to no group yet.
    collected: usize,
    collected_from: usize,
    /// Whether one of them is a promise.
    is_promised: bool,
    /// The last receipt a group waits, or waited, for.
    last_receipt: Option<Receipt>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    bytes: usize,
    kind: Kind,
    /// How many entries of its submission had been collected when it was pushed: what it promises ends there.
    entries: usize,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It stands whatever happens.
    Final,
    /// It stands only if the journal commits what it is about.
    Promise,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    lines: usize,
    bytes: usize,
    wait: Wait,
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    For(Receipt),
    Over(Result<(), Unavailable>),
}

impl Replies {
    /// Replies not released yet.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of the replies not released yet.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether nothing waits for the journal any more. Receipts complete in order, so the last one tells.
    pub(crate) fn is_settled(&self, outcome: impl Fn(Receipt) -> Option<Result<(), Unavailable>>) -> bool {
        self.last_receipt.is_none_or(|receipt| outcome(receipt).is_some())
    }

    /// Adds one reply line, which `encode` appends. So many `entries` have been collected for the next submission.
    pub(crate) fn push(&mut self, kind: Kind, entries: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.text.len();
        encode(&mut self.text);
        self.lines.push_back(Line { bytes: self.text.len() - before, kind, entries });
        self.collected += 1;
        self.is_promised |= kind == Kind::Promise;
    }

    /// What was pushed since the last call waits for `submitted`, if a promise is among it; else for nothing but its turn.
    pub(crate) fn close_group(&mut self, submitted: Option<Result<Receipt, Unavailable>>) {
        if let Some(Ok(receipt)) = submitted {
            self.last_receipt = Some(receipt);
        }
        if self.collected == 0 {
            return;
        }
        let wait = match submitted {
            Some(Ok(receipt)) if self.is_promised => Wait::For(receipt),
            Some(Err(unavailable)) => Wait::Over(Err(unavailable)),
            // Replies that stand whatever happens need not wait for the disk.
            Some(Ok(_)) | None => Wait::Over(Ok(())),
        };
        self.groups.push_back(Group { lines: self.collected, bytes: self.text.len() - self.collected_from, wait });
        self.collected = 0;
        self.is_promised = false;
        self.collected_from = self.text.len();
    }

    /// Moves every reply whose turn has come to `out`. A promise that was broken is replaced by what `broken` writes.
    pub(crate) fn release(
        &mut self,
        out: &mut Vec<u8>,
        outcome: impl Fn(Receipt) -> Option<Result<(), Unavailable>>,
        broken: impl Fn(&mut Vec<u8>),
    ) {
        while let Some(group) = self.groups.front() {
            let result = match group.wait {
                Wait::For(receipt) => outcome(receipt),
                Wait::Over(result) => Some(result),
            };
            let Some(result) = result else { return };
            let Group { lines, bytes, .. } = *group;
            match (result, group.wait) {
                (Ok(()), _) => out.extend_from_slice(&self.text[self.start..self.start + bytes]),
                (Err(Unavailable), Wait::For(receipt)) => {
                    let is_kept = |part| outcome(part) == Some(Ok(()));
                    self.copy_what_stands(lines, out, |entries| receipt.part(entries).is_none_or(is_kept), &broken);
                }
                (Err(Unavailable), Wait::Over(_)) => self.copy_what_stands(lines, out, |_| false, &broken),
            }
            self.lines.drain(..lines);
            self.start += bytes;
            self.groups.pop_front();
        }
        self.forget_released();
    }

    /// A busy connection always has something open: what was released must go without waiting for the last of it.
    /// Half of the text at a time, so that a byte is moved a constant number of times.
    fn forget_released(&mut self) {
        if self.start == self.text.len() {
            self.text.clear();
            self.text.shrink_to(KEPT_BYTES);
        } else if self.start > self.text.len() / 2 {
            self.text.drain(..self.start);
        } else {
            return;
        }
        self.collected_from -= self.start;
        self.start = 0;
    }

    /// Of a submission that was not committed whole: replies that stand whatever happens, and promises whose own entries are
    /// kept. Several promises may be about the same entries.
    fn copy_what_stands(
        &self,
        lines: usize,
        out: &mut Vec<u8>,
        is_kept: impl Fn(Range<usize>) -> bool,
        broken: impl Fn(&mut Vec<u8>),
    ) {
        let (mut at, mut entries, mut stands) = (self.start, 0..0, is_kept(0..0));
        for line in self.lines.iter().take(lines) {
            if line.entries > entries.end {
                entries = entries.end..line.entries;
                stands = is_kept(entries.clone());
            }
            match line.kind {
                Kind::Promise if !stands => broken(out),
                Kind::Promise | Kind::Final => out.extend_from_slice(&self.text[at..at + line.bytes]),
            }
            at += line.bytes;
        }
    }
}

/// Capacity kept between releases: 1,024 replies of usual length.
const KEPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use ciphermq_journal::{Commit, Doorbell, Journal, Pace, Position, Simulation, Space};
    use std::sync::Arc;

    struct Nobody;

    impl Commit<u32> for Nobody {
        fn commit(&mut self, _: Position, _: u32, _: &mut Space) {}
        fn refuse(&mut self, _: u32) {}
    }

    #[test]
    fn what_was_released_takes_no_memory_though_something_is_always_open() {
        let journal = Journal::simulated(Nobody, Simulation { pace: Pace::WhenTold, ..Default::default() });
        let bell = Arc::new(Doorbell::new());
        let (mut replies, mut out) = (Replies::default(), Vec::new());
        for number in 0..10_000u32 {
            replies.push(Kind::Promise, 1, |out| out.extend_from_slice(format!("ACK {number:05}\n").as_bytes()));
            let receipt = journal.submit(&mut vec![number], &bell).unwrap();
            // The group of this round stays open while the one before it is released.
            replies.release(&mut out, |receipt| journal.outcome(receipt), |_| {});
            replies.close_group(Some(Ok(receipt)));
            journal.write_waiting();
            assert!(replies.text.len() <= 64, "{} bytes held in round {number}", replies.text.len());
        }
        replies.release(&mut out, |receipt| journal.outcome(receipt), |_| {});
        let expected: String = (0..10_000).map(|number| format!("ACK {number:05}\n")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_open_promise_counts_though_a_final_reply_came_after_it() {
        let journal = Journal::simulated(Nobody, Simulation { pace: Pace::WhenTold, ..Default::default() });
        let mut replies = Replies::default();
        replies.push(Kind::Promise, 1, |out| out.extend_from_slice(b"ACK m-1\n"));
        let receipt = journal.submit(&mut vec![1], &Arc::new(Doorbell::new())).unwrap();
        replies.close_group(Some(Ok(receipt)));
        replies.push(Kind::Final, 0, |out| out.extend_from_slice(b"Unknown command\n"));
        replies.close_group(None);
        assert!(!replies.is_settled(|receipt| journal.outcome(receipt)));
        journal.write_waiting();
        assert!(replies.is_settled(|receipt| journal.outcome(receipt)));
    }

    #[test]
    fn of_a_submission_that_was_not_committed_whole_only_the_promises_of_what_is_missing_are_broken() {
        let fail_at = Some(Position(3));
        let journal = Journal::simulated(Nobody, Simulation { fail_at, ..Default::default() });
        let (mut replies, mut out) = (Replies::default(), Vec::new());
        // A batch of two is answered twice, a reply that stands has entries of its own, and the last entry fails.
        let lines = [(Kind::Promise, 2, "A"), (Kind::Promise, 2, "B"), (Kind::Final, 3, "N"), (Kind::Promise, 4, "C")];
        for (kind, entries, text) in lines {
            replies.push(kind, entries, |out| out.extend_from_slice(text.as_bytes()));
        }
        let receipt = journal.submit(&mut vec![1, 2, 3, 4], &Arc::new(Doorbell::new())).unwrap();
        replies.close_group(Some(Ok(receipt)));
        // Nothing was collected for this one; what it waits for is over.
        replies.push(Kind::Promise, 0, |out| out.extend_from_slice(b"D"));
        replies.close_group(Some(journal.submit(&mut vec![5], &Arc::new(Doorbell::new()))));
        replies.release(&mut out, |receipt| journal.outcome(receipt), |out| out.push(b'-'));
        assert_eq!(String::from_utf8(out).unwrap(), "ABN--");
    }
}
