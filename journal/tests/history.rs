//! What was asked of a journal, what it promised, and whether what came back after a crash keeps the promises.

use std::collections::BTreeMap;

use ciphermq_journal::{Durability, Receipt};

use crate::toy::{Fact, Toy, WINDOW, What};

/// All that was submitted, in order.
#[derive(Default)]
pub struct History {
    pub units: Vec<Unit>,
}

/// What was submitted at once.
pub struct Unit {
    pub facts: Vec<Fact>,
    pub receipt: Option<Receipt>,
    pub acknowledged: bool,
}

/// How much of what was acknowledged has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// All of it.
    Kill,
    /// What was to be synced, and what came before it.
    PowerLoss,
}

/// What may be found after a history and a crash.
///
/// What was acknowledged must be there; what was submitted may be there; nothing else.
pub struct Expected {
    queues: BTreeMap<u8, Queue>,
    /// Whether each id must be known.
    published: BTreeMap<u32, Presence>,
    groups: Vec<Vec<Member>>,
}

#[derive(Default)]
struct Queue {
    presence: Presence,
    messages: BTreeMap<u32, (Presence, u16)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Presence {
    #[default]
    Impossible,
    Possible,
    Certain,
}

/// One of those that are done all or not at all.
enum Member {
    Published(u32),
    /// `others`: something else may have taken it out of the queue, too.
    Settled {
        queue: u8,
        id: u32,
        others: bool,
    },
}

impl History {
    pub fn acknowledged(&self) -> usize {
        self.units.iter().filter(|unit| unit.acknowledged).count()
    }

    pub fn check(&self, toy: &Toy, after: After) -> Result<(), String> {
        self.expected(after).check(toy)
    }

    pub fn expected(&self, after: After) -> Expected {
        let certain = self.certain(after);
        let mut expected = Expected { queues: BTreeMap::new(), published: BTreeMap::new(), groups: Vec::new() };
        for (at, unit) in self.units.iter().enumerate() {
            for fact in &unit.facts {
                match &fact.what {
                    What::Declare { queue } => {
                        expected.queues.entry(*queue).or_default().presence = self.queue(*queue, certain);
                    }
                    // The second of an id is a duplicate, wherever it was to go.
                    What::Publish { id, queues, len } if !expected.published.contains_key(id) => {
                        for queue in queues {
                            let message = (self.message(*queue, *id, at, certain), *len);
                            expected.queues.entry(*queue).or_default().messages.insert(*id, message);
                        }
                        expected
                            .published
                            .insert(*id, if at < certain { Presence::Certain } else { Presence::Possible });
                    }
                    _ => {}
                }
            }
            if unit.facts[0].continues {
                expected.groups.push(unit.facts.iter().filter_map(|fact| self.member(&fact.what)).collect());
            }
        }
        expected
    }

    /// Units before this one must be there.
    fn certain(&self, after: After) -> usize {
        let syncs = |unit: &Unit| unit.facts.iter().any(|fact| fact.durability == Durability::Synced);
        let last = self.units.iter().rposition(|unit| unit.acknowledged && (after == After::Kill || syncs(unit)));
        last.map_or(0, |last| last + 1)
    }

    fn queue(&self, queue: u8, certain: usize) -> Presence {
        let declared = self.places(&What::Declare { queue });
        let deleted = self.places(&What::Delete { queue });
        let surely_deleted = deleted.iter().rfind(|at| **at < certain);
        if declared.iter().any(|at| *at < certain && deleted.iter().all(|deleted| deleted < at)) {
            Presence::Certain
        } else if declared.iter().any(|at| surely_deleted.is_none_or(|deleted| at > deleted)) {
            Presence::Possible
        } else {
            Presence::Impossible
        }
    }

    /// Of the message published by unit `at`.
    fn message(&self, queue: u8, id: u32, at: usize, certain: usize) -> Presence {
        let settled = self.places(&What::Settle { queue, id });
        let deleted = self.places(&What::Delete { queue });
        if settled.iter().any(|at| *at < certain) || deleted.iter().any(|deleted| (at..certain).contains(deleted)) {
            return Presence::Impossible;
        }
        let last = |places: &[usize]| places.iter().rfind(|place| **place < at).copied();
        // `None` is in front of everything.
        let was_declared = last(&self.places(&What::Declare { queue })) > last(&deleted);
        let is_untouched = settled.is_empty() && deleted.iter().all(|deleted| *deleted < at);
        if at < certain && was_declared && is_untouched { Presence::Certain } else { Presence::Possible }
    }

    fn member(&self, what: &What) -> Option<Member> {
        match *what {
            What::Publish { id, .. } => Some(Member::Published(id)),
            What::Settle { queue, id } => Some(Member::Settled { queue, id, others: self.places(what).len() > 1 }),
            _ => None,
        }
    }

    /// The units with this fact.
    fn places(&self, what: &What) -> Vec<usize> {
        let has = |unit: &Unit| unit.facts.iter().any(|fact| fact.what == *what);
        self.units.iter().enumerate().filter(|(_, unit)| has(unit)).map(|(at, _)| at).collect()
    }
}

impl Expected {
    pub fn check(&self, toy: &Toy) -> Result<(), String> {
        for (name, queue) in &self.queues {
            let found = toy.queues.get(name);
            queue.presence.check(found.is_some(), || format!("queue {name}"))?;
            let mut found: Vec<u32> = found.into_iter().flat_map(|found| found.values().copied()).collect();
            require(found.is_sorted_by(|one, next| one < next), || format!("queue {name} is out of order: {found:?}"))?;
            for (id, (presence, len)) in &queue.messages {
                let there = found.binary_search(id).is_ok();
                presence.check(there, || format!("message {id} of queue {name}"))?;
                require(!there || toy.messages[id].len == *len, || format!("message {id} is another one"))?;
            }
            found.retain(|id| !queue.messages.contains_key(id));
            require(found.is_empty(), || format!("invented in queue {name}: {found:?}"))?;
        }
        let highest = toy.known.last_key_value().map_or(0, |(id, _)| *id);
        for (id, presence) in self.published.range(highest.saturating_sub(WINDOW - 1)..) {
            presence.check(toy.known.contains_key(id), || format!("id {id}"))?;
        }
        let invented = toy.known.keys().find(|id| !self.published.contains_key(id));
        require(invented.is_none(), || format!("known and never published: {invented:?}"))?;
        let queue = toy.queues.keys().find(|queue| !self.queues.contains_key(queue));
        require(queue.is_none(), || format!("queue {queue:?} was never declared"))?;
        self.groups.iter().try_for_each(|group| check_group(group, toy, highest))
    }
}

fn check_group(group: &[Member], toy: &Toy, highest: u32) -> Result<(), String> {
    let mut done = Vec::new();
    for member in group {
        match *member {
            Member::Published(id) if id + WINDOW > highest => done.push((id, toy.known.contains_key(&id))),
            // Of a message that never came, nobody can say whether it was settled.
            Member::Settled { queue, id, others } if toy.known.contains_key(&id) => {
                let there = toy.messages.get(&id).is_some_and(|message| message.queues.contains(&queue));
                if there || !others {
                    done.push((id, !there));
                }
            }
            _ => {}
        }
    }
    require(done.windows(2).all(|pair| pair[0].1 == pair[1].1), || format!("half of a group: {done:?}"))
}

impl Presence {
    fn check(self, there: bool, what: impl Fn() -> String) -> Result<(), String> {
        match self {
            Presence::Certain => require(there, || format!("{} is missing", what())),
            Presence::Impossible => require(!there, || format!("{} came back", what())),
            Presence::Possible => Ok(()),
        }
    }
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
