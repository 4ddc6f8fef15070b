//! Workloads, made from a seed: publishes, settles, topology, groups, duplicates; one message stays for ever.

use ciphermq_journal::Durability;

use crate::toy::{Fact, What};

pub enum Step {
    Submit(Vec<Fact>),
    /// The journal writes what waits.
    Work,
}

/// `operations` submissions. Ids go up from 0; message 0 is never settled, and of the others about `backlog` copies wait.
pub fn script(seed: u64, operations: usize, backlog: usize) -> Vec<Step> {
    let mut plan = Plan { random: Random(seed), steps: Vec::new(), waiting: Vec::new(), next_id: 0, backlog };
    for queue in LASTING {
        plan.submit(vec![What::Declare { queue }.into()]);
    }
    let stuck = What::Publish { id: plan.take_id(), queues: vec![LASTING[0]], len: 200 };
    plan.submit(vec![stuck.into()]);
    for _ in 0..operations {
        plan.operation();
        if plan.random.below(10) < 6 {
            plan.steps.push(Step::Work);
        }
    }
    plan.steps.push(Step::Work);
    plan.steps
}

/// Queues that are there from the start and stay.
const LASTING: [u8; 3] = [1, 2, 3];

/// Queues that come and go.
const PASSING: [u8; 2] = [8, 9];

struct Plan {
    random: Random,
    steps: Vec<Step>,
    /// Copies nobody has settled, oldest first: queue and id.
    waiting: Vec<(u8, u32)>,
    next_id: u32,
    backlog: usize,
}

impl Plan {
    fn operation(&mut self) {
        let passing = PASSING[self.random.below(2)];
        match self.random.below(100) {
            0..80 if self.waiting.len() > self.backlog => self.settle(),
            0..50 => {
                let publish = self.publish();
                self.submit(vec![publish]);
            }
            50..80 if self.waiting.len() > self.backlog / 2 => self.settle(),
            80..84 => self.submit(vec![What::Declare { queue: passing }.into()]),
            84..87 => self.submit(vec![What::Delete { queue: passing }.into()]),
            87..91 => self.group(),
            91..95 => self.relay(),
            _ => self.duplicate(),
        }
    }

    fn publish(&mut self) -> Fact {
        let mut queues = vec![LASTING[self.random.below(3)]];
        match self.random.below(6) {
            0 => queues.push(PASSING[self.random.below(2)]),
            1 => queues = vec![LASTING[0], LASTING[2]],
            _ => {}
        }
        let id = self.take_id();
        self.waiting.extend(queues.iter().map(|queue| (*queue, id)));
        let durability = match self.random.below(20) {
            0..3 => Durability::Written,
            3 => Durability::Within(60_000),
            _ => Durability::Synced,
        };
        Fact { durability, ..What::Publish { id, queues, len: 20 + self.random.below(380) as u16 }.into() }
    }

    fn settle(&mut self) {
        if let Some((queue, id)) = self.take_waiting() {
            self.submit(vec![What::Settle { queue, id }.into()]);
        }
    }

    fn group(&mut self) {
        let count = 2 + self.random.below(3);
        let mut facts: Vec<Fact> = (0..count).map(|_| self.publish()).collect();
        for fact in &mut facts[..count - 1] {
            fact.continues = true;
        }
        for fact in &mut facts {
            fact.durability = Durability::Synced;
        }
        self.submit(facts);
    }

    /// Out of one queue and, as another message, into another: both or neither.
    fn relay(&mut self) {
        let lasting = self.waiting.iter().position(|(queue, _)| LASTING.contains(queue));
        if let Some((queue, id)) = lasting.map(|at| self.waiting.remove(at)) {
            let settle = Fact { continues: true, ..What::Settle { queue, id }.into() };
            let publish = Fact { durability: Durability::Synced, ..self.publish() };
            self.submit(vec![settle, publish]);
        }
    }

    /// A duplicate is not written, so it makes nothing durable.
    fn duplicate(&mut self) {
        if let Some(id) = self.next_id.checked_sub(2) {
            let publish = What::Publish { id, queues: vec![LASTING[1]], len: 1 };
            self.submit(vec![Fact { durability: Durability::Written, ..publish.into() }]);
        }
    }

    fn submit(&mut self, facts: Vec<Fact>) {
        self.steps.push(Step::Submit(facts));
    }

    fn take_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn take_waiting(&mut self) -> Option<(u8, u32)> {
        // Mostly in order, as consumers do.
        let at = if self.random.below(4) == 0 { self.random.below(self.waiting.len().max(1)) } else { 0 };
        (at < self.waiting.len()).then(|| self.waiting.remove(at))
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
