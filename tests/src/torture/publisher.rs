//! Clients that publish, with retries as a real one does them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::history::History;
use super::message::{EXCHANGE, Id};
use super::peer::{Broken, Peer};

/// Messages a publisher sends before it connects anew.
const MESSAGES_A_CONNECTION: std::ops::Range<u32> = 20..3_000;

/// Unanswered messages, at most.
const WINDOW: std::ops::Range<usize> = 1..128;

/// Envelopes of a batch, at most.
const BATCH_MAX: usize = 8;

/// One publisher over all rounds.
#[derive(Debug)]
pub(super) struct Publisher {
    index: usize,
    next: u32,
    /// What broke before it was answered, in order.
    unanswered: VecDeque<Request>,
    random: StdRng,
}

/// What one line publishes.
#[derive(Clone, Debug)]
struct Request(Vec<Id>);

impl Publisher {
    pub(super) fn new(index: usize, random: StdRng) -> Publisher {
        Publisher { index, next: 0, unanswered: VecDeque::new(), random }
    }

    /// Publishes until the round ends.
    pub(super) fn run(&mut self, address: SocketAddr, history: &History) {
        while !history.is_over() {
            if self.connection(address, history).is_err() {
                return;
            }
        }
    }

    /// Nothing of what was not answered will be sent again.
    pub(super) fn give_up(&mut self, history: &History) {
        for Request(ids) in self.unanswered.drain(..).filter(|request| request.0.len() > 1) {
            history.left_open(ids);
        }
    }

    fn connection(&mut self, address: SocketAddr, history: &History) -> Result<(), Broken> {
        let mut peer = Peer::connect(address, history)?;
        let mut waiting = VecDeque::new();
        let mut done = self.send_again(&mut peer, &mut waiting, history);
        if done.is_ok() {
            done = self.send_new(&mut peer, &mut waiting, history);
        }
        // In order, so that they can be sent again in order.
        for request in waiting.into_iter().rev() {
            self.unanswered.push_front(request);
        }
        done
    }

    /// What the last connection left open: most of it is sent again, in order, before anything new.
    fn send_again(
        &mut self,
        peer: &mut Peer<'_>,
        waiting: &mut VecDeque<Request>,
        history: &History,
    ) -> Result<(), Broken> {
        while let Some(request) = self.unanswered.pop_front() {
            if self.random.random_bool(0.1) {
                if request.0.len() > 1 {
                    history.left_open(request.0);
                }
                continue;
            }
            waiting.push_back(request.clone());
            peer.send(&request.line())?;
        }
        while !waiting.is_empty() {
            answered(peer, waiting, history)?;
        }
        Ok(())
    }

    fn send_new(
        &mut self,
        peer: &mut Peer<'_>,
        waiting: &mut VecDeque<Request>,
        history: &History,
    ) -> Result<(), Broken> {
        let mut left = self.random.random_range(MESSAGES_A_CONNECTION);
        let window = self.random.random_range(WINDOW);
        while left > 0 && history.wait_for_room() {
            let mut text = String::new();
            while waiting.len() < window && left > 0 {
                let request = self.request(history);
                text.push_str(&request.line());
                waiting.push_back(request);
                left -= 1;
            }
            peer.send(&text)?;
            answered(peer, waiting, history)?;
        }
        while !waiting.is_empty() {
            answered(peer, waiting, history)?;
        }
        Ok(())
    }

    /// Something new, one or several at a time; or, now and then, something old once more.
    fn request(&mut self, history: &History) -> Request {
        if self.next > 0 && self.random.random_bool(0.05) {
            // Of the last few mostly, but of any age: also what was acknowledged long ago.
            let back = if self.random.random_bool(0.5) { 200 } else { self.next };
            let number = self.random.random_range(self.next.saturating_sub(back)..self.next);
            let id = Id { publisher: self.index, number };
            // One that was given up would come out of its order.
            if history.is_acknowledged(id) {
                return Request(vec![id]);
            }
        }
        let count = if self.random.random_bool(0.1) { self.random.random_range(2..=BATCH_MAX) } else { 1 };
        let first = self.new_id(history);
        let mut ids = vec![first];
        // A batch has one routing key, and numbers go up in each queue.
        while ids.len() < count && self.peek().route() == first.route() {
            ids.push(self.new_id(history));
        }
        Request(ids)
    }

    fn peek(&self) -> Id {
        Id { publisher: self.index, number: self.next }
    }

    fn new_id(&mut self, history: &History) -> Id {
        let id = self.peek();
        self.next += 1;
        history.sending(id);
        id
    }
}

/// Takes the answers of one request, and of more as long as they have come.
fn answered(peer: &mut Peer<'_>, waiting: &mut VecDeque<Request>, history: &History) -> Result<(), Broken> {
    loop {
        let Some(Request(ids)) = waiting.front() else { return Ok(()) };
        for id in ids {
            let answer = peer.line()?;
            if answer != format!("ACK {id}") {
                history.violate(format!("the publish of {id} was answered {answer}"));
                return Err(Broken);
            }
            history.acknowledged(*id);
        }
        waiting.pop_front();
        if !peer.has_line() {
            return Ok(());
        }
    }
}

impl Request {
    fn line(&self) -> String {
        let key = self.0[0].route().key();
        match self.0.as_slice() {
            [id] => format!("publish {EXCHANGE} {key} {}\n", id.envelope()),
            ids => {
                let envelopes: Vec<_> = ids.iter().map(|id| id.envelope()).collect();
                format!("publish_batch {EXCHANGE} {key} [{}]\n", envelopes.join(","))
            }
        }
    }
}
