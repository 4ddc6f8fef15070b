use std::collections::VecDeque;

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
}

#[derive(Clone, Copy, Debug)]
struct Line {
    bytes: usize,
    kind: Kind,
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

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether nothing waits for the journal any more. Receipts complete in order, so the last one tells.
    pub(crate) fn is_settled(&self, outcome: impl Fn(Receipt) -> Option<Result<(), Unavailable>>) -> bool {
        match self.groups.back() {
            Some(Group { wait: Wait::For(receipt), .. }) => outcome(*receipt).is_some(),
            _ => true,
        }
    }

    /// Adds one reply line, which `encode` appends.
    pub(crate) fn push(&mut self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.text.len();
        encode(&mut self.text);
        self.lines.push_back(Line { bytes: self.text.len() - before, kind });
        self.collected += 1;
    }

    /// What was pushed since the last call waits for `submitted`; `None`: it waits for nothing but its turn.
    pub(crate) fn close_group(&mut self, submitted: Option<Result<Receipt, Unavailable>>) {
        if self.collected == 0 {
            return;
        }
        let wait = match submitted {
            Some(Ok(receipt)) => Wait::For(receipt),
            Some(Err(unavailable)) => Wait::Over(Err(unavailable)),
            None => Wait::Over(Ok(())),
        };
        self.groups.push_back(Group { lines: self.collected, bytes: self.text.len() - self.collected_from, wait });
        self.collected = 0;
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
            match result {
                Ok(()) => out.extend_from_slice(&self.text[self.start..self.start + bytes]),
                Err(Unavailable) => self.copy_unless_promised(lines, out, &broken),
            }
            self.lines.drain(..lines);
            self.start += bytes;
            self.groups.pop_front();
        }
        if self.start == self.text.len() {
            self.text.clear();
            self.text.shrink_to(KEPT_BYTES);
            (self.start, self.collected_from) = (0, 0);
        }
    }

    fn copy_unless_promised(&self, lines: usize, out: &mut Vec<u8>, broken: impl Fn(&mut Vec<u8>)) {
        let mut at = self.start;
        for line in self.lines.iter().take(lines) {
            match line.kind {
                Kind::Final => out.extend_from_slice(&self.text[at..at + line.bytes]),
                Kind::Promise => broken(out),
            }
            at += line.bytes;
        }
    }
}

/// Capacity kept between releases: 1,024 replies of usual length.
const KEPT_BYTES: usize = 64 * 1024;
