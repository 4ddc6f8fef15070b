//! A client that makes and deletes queues and bindings, and what must be there after each start.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

use super::history::History;
use super::message::EXCHANGE;
use super::peer::{Broken, Peer};
use crate::Server;

/// Queues of its own at a time.
const QUEUES_MAX: usize = 24;

/// Changes between two looks at what others do: it must not take all the syncs.
const PAUSE_EVENTS: u64 = 100;

/// The client, and what it knows.
#[derive(Debug)]
pub(super) struct Topologist {
    queues: BTreeMap<String, Queue>,
    made: u32,
    random: StdRng,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    there: Known,
    bound: Known,
    lease_ms: u64,
}

/// Whether something is there; a change that was not answered leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Yes,
    No,
    Perhaps,
}

impl Topologist {
    pub(super) fn new(random: StdRng) -> Topologist {
        Topologist { queues: BTreeMap::new(), made: 0, random }
    }

    /// Changes things until the round ends.
    pub(super) fn run(&mut self, address: SocketAddr, history: &History) {
        let Ok(mut peer) = Peer::connect(address, history) else { return };
        while !history.is_over() && self.change(&mut peer, history).is_ok() {
            history.wait_for(PAUSE_EVENTS);
        }
    }

    /// Compares what the broker lists with what was answered; what was open is known now.
    pub(super) fn check(&mut self, server: &Server, history: &History) {
        let listed = rows(server, "list_queues", "Queues: ");
        let bindings = rows(server, "list_bindings", "Bindings: ");
        for row in listed.iter().filter(|row| row["queue"].as_str().is_some_and(|name| name.starts_with("t-"))) {
            if !self.queues.contains_key(row["queue"].as_str().unwrap_or_default()) {
                history.violate(format!("a queue that was deleted or never made: {row}"));
            }
        }
        for (name, queue) in &mut self.queues {
            let row = listed.iter().find(|row| row["queue"] == name.as_str());
            let is_bound = bindings.iter().any(|row| row["queue"] == name.as_str() && row["exchange"] == EXCHANGE);
            let is_right = queue.there.agrees(row.is_some()) && queue.bound.agrees(is_bound);
            let has_its_options = row.is_none_or(|row| row["lease"] == queue.lease_ms);
            if !is_right || !has_its_options || (is_bound && row.is_none()) {
                history.violate(format!("queue {name} should be {queue:?}, and is {row:?}, bound: {is_bound}"));
            }
            queue.there = Known::from(row.is_some());
            queue.bound = Known::from(is_bound);
        }
        self.queues.retain(|_, queue| queue.there == Known::Yes);
    }

    fn change(&mut self, peer: &mut Peer<'_>, history: &History) -> Result<(), Broken> {
        let chosen = self.random.random_range(0..self.queues.len().max(1));
        let chosen = self.queues.keys().nth(chosen).cloned();
        match chosen {
            Some(name) if self.queues.len() >= QUEUES_MAX || self.random.random_bool(0.3) => {
                self.delete(&name, peer, history)
            }
            Some(name) if self.random.random_bool(0.5) => self.bind_or_unbind(&name, peer, history),
            _ => self.declare(peer, history),
        }
    }

    fn declare(&mut self, peer: &mut Peer<'_>, history: &History) -> Result<(), Broken> {
        self.made += 1;
        let (name, lease_ms) = (format!("t-{}", self.made), self.random.random_range(1_000..100_000));
        self.queues.insert(name.clone(), Queue { there: Known::Perhaps, bound: Known::No, lease_ms });
        expect(peer, history, &format!("declare_queue {name} lease={lease_ms}"), "Queue declared")?;
        self.know(&name, |queue| queue.there = Known::Yes);
        Ok(())
    }

    fn delete(&mut self, name: &str, peer: &mut Peer<'_>, history: &History) -> Result<(), Broken> {
        self.know(name, |queue| {
            queue.there = Known::Perhaps;
            queue.bound = Known::Perhaps;
        });
        expect(peer, history, &format!("delete_queue {name} force=yes"), "Queue deleted")?;
        self.queues.remove(name);
        Ok(())
    }

    fn bind_or_unbind(&mut self, name: &str, peer: &mut Peer<'_>, history: &History) -> Result<(), Broken> {
        let was_bound = self.queues.get(name).is_some_and(|queue| queue.bound == Known::Yes);
        self.know(name, |queue| queue.bound = Known::Perhaps);
        let (verb, reply) = if was_bound { ("unbind", "Queue unbound") } else { ("bind", "Queue bound") };
        expect(peer, history, &format!("{verb} {EXCHANGE} {name} {name}"), reply)?;
        self.know(name, |queue| queue.bound = Known::from(!was_bound));
        Ok(())
    }

    fn know(&mut self, name: &str, change: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.queues.get_mut(name) {
            change(queue);
        }
    }
}

impl Known {
    fn agrees(self, is_so: bool) -> bool {
        self == Known::Perhaps || self == Known::from(is_so)
    }
}

impl From<bool> for Known {
    fn from(is_so: bool) -> Known {
        if is_so { Known::Yes } else { Known::No }
    }
}

fn expect(peer: &mut Peer<'_>, history: &History, request: &str, reply: &str) -> Result<(), Broken> {
    let answer = peer.ask(request)?;
    if answer == reply {
        return Ok(());
    }
    history.violate(format!("{request} was answered {answer}"));
    Err(Broken)
}

fn rows(server: &Server, request: &str, word: &str) -> Vec<Value> {
    let line = server.connect_modern().ask(&format!("{request} limit=10000"), &format!("{word}{{json}}"));
    serde_json::from_str(&line[word.len()..]).expect("a list is JSON")
}
