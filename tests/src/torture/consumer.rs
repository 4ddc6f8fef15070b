//! Clients that take messages, by pushes or by `fetch`, settle them in all ways, and leave in all ways.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::history::{History, Settling};
use super::message::{Id, Place, Queue};
use super::peer::{Broken, Peer};

/// Deliveries a consumer takes before it connects anew.
const DELIVERIES_A_CONNECTION: std::ops::Range<u32> = 20..3_000;

/// What must happen before an empty queue is asked again.
const FETCH_PAUSE_EVENTS: u64 = 50;

/// How a consumer gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Pushed,
    Fetched,
}

/// One consumer over all rounds.
#[derive(Debug)]
pub(super) struct Consumer {
    place: Place,
    way: Way,
    random: StdRng,
}

/// One connection of it.
struct Hands<'a> {
    peer: Peer<'a>,
    history: &'a History,
    place: Place,
    /// Delivered, and not known to be settled.
    held: BTreeSet<Id>,
    /// Of those, how many it will not settle.
    kept: usize,
    prefetch: usize,
    /// Requests not sent yet.
    requests: String,
}

impl Consumer {
    pub(super) fn new(place: Place, way: Way, random: StdRng) -> Consumer {
        Consumer { place, way, random }
    }

    /// Consumes until the round ends.
    pub(super) fn run(&mut self, address: SocketAddr, history: &History) {
        while !history.is_over() {
            if self.connection(address, history).is_err() {
                return;
            }
        }
    }

    /// Takes everything that is left and acknowledges it.
    pub(super) fn drain(place: Place, address: SocketAddr, history: &History) {
        let Ok(peer) = Peer::connect(address, history) else { return };
        let mut hands = Hands::new(peer, history, place, 1);
        // A broken connection is a violation: the broker runs.
        while let Ok(Some(id)) = hands.fetch() {
            hands.settle(id, Settling::Ack);
            if hands.flush().and_then(|()| hands.hear()).is_err() {
                return;
            }
        }
        hands.quit(Way::Fetched);
    }

    fn connection(&mut self, address: SocketAddr, history: &History) -> Result<(), Broken> {
        let peer = Peer::connect(address, history)?;
        let prefetch = self.random.random_range(1..200);
        let mut hands = Hands::new(peer, history, self.place, prefetch);
        let done = match self.way {
            Way::Pushed => self.consume(&mut hands),
            Way::Fetched => self.fetch(&mut hands),
        };
        match done {
            // Two connections must not share the ordered queue, not even for a moment.
            Ok(()) if self.place.queue() == Queue::Ordered || self.random.random_bool(0.5) => hands.quit(self.way),
            _ => hands.vanish(),
        }
        done
    }

    fn consume(&mut self, hands: &mut Hands<'_>) -> Result<(), Broken> {
        let mut left = self.random.random_range(DELIVERIES_A_CONNECTION);
        let subscribed = hands.peer.ask(&format!("consume {} prefetch={}", self.place, hands.prefetch))?;
        if subscribed != "Subscribed to queue" {
            hands.history.violate(format!("consume was answered {subscribed}"));
        }
        while left > 0 && !hands.history.is_over() {
            if let Some(id) = hands.hear()? {
                self.decide(hands, id);
                left -= 1;
            }
            if !hands.peer.has_line() {
                hands.flush()?;
            }
        }
        Ok(())
    }

    fn fetch(&mut self, hands: &mut Hands<'_>) -> Result<(), Broken> {
        let mut left = self.random.random_range(DELIVERIES_A_CONNECTION);
        while left > 0 && !hands.history.is_over() {
            hands.flush()?;
            match hands.fetch()? {
                Some(id) => self.decide(hands, id),
                None => hands.history.wait_for(FETCH_PAUSE_EVENTS),
            }
            left -= 1;
        }
        hands.flush()
    }

    fn decide(&mut self, hands: &mut Hands<'_>, id: Id) {
        let is_dead = matches!(self.place, Place::DeadLetters(_));
        match self.random.random_range(0..100) {
            0..3 => hands.give_back(id, &format!("nack {id} delay={}", self.random.random_range(0..50))),
            3..6 => hands.give_back(id, &format!("release {id}")),
            6..8 if !is_dead => hands.settle(id, Settling::Reject),
            // A consumer whose whole credit is in its hands hears nothing any more.
            8..10 if hands.kept < hands.prefetch / 2 => hands.kept += 1,
            10..12 => {
                hands.requests.push_str(&format!("touch {id}\n"));
                hands.settle(id, Settling::Ack);
            }
            _ => hands.settle(id, Settling::Ack),
        }
    }
}

impl<'a> Hands<'a> {
    fn new(peer: Peer<'a>, history: &'a History, place: Place, prefetch: usize) -> Hands<'a> {
        Hands { peer, history, place, held: BTreeSet::new(), kept: 0, prefetch, requests: String::new() }
    }

    /// Takes one line; the id if it was a delivery.
    fn hear(&mut self) -> Result<Option<Id>, Broken> {
        let line = self.peer.line()?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "Message:" | "Fetched:" => self.delivered(rest).map(Some),
            "ACK_CONFIRMED" | "REJECT_CONFIRMED" => {
                let id = Id::parse(rest).filter(|id| self.held.remove(id));
                match id {
                    Some(id) => self.history.settled(self.place, id),
                    None => self.history.violate(format!("{line}, which was not asked for")),
                }
                Ok(None)
            }
            "NACK_CONFIRMED" | "RELEASE_CONFIRMED" | "TOUCH_CONFIRMED" => Ok(None),
            _ if line == "No messages" => Ok(None),
            _ => {
                self.history.violate(format!("{} said {line:.200}", self.place));
                Err(Broken)
            }
        }
    }

    fn delivered(&mut self, delivery: &str) -> Result<Id, Broken> {
        let id = delivery.split(' ').next().unwrap_or_default();
        let envelope = delivery.find('{').map_or("", |at| &delivery[at..]);
        if !delivery.contains(&format!(" queue={} ", self.place)) {
            self.history.violate(format!("a consumer of {} got {delivery:.200}", self.place));
        }
        let id = self.history.delivered(self.place, id, envelope).ok_or(Broken)?;
        self.held.insert(id);
        Ok(id)
    }

    /// Fetches one; hears what else is said until that is answered.
    fn fetch(&mut self) -> Result<Option<Id>, Broken> {
        self.peer.send(&format!("fetch {}\nping fetched\n", self.place))?;
        let mut fetched = None;
        loop {
            if self.peer.next_is("Pong fetched") {
                self.peer.line()?;
                return Ok(fetched);
            }
            fetched = self.hear()?.or(fetched);
        }
    }

    fn settle(&mut self, id: Id, how: Settling) {
        self.history.settling(self.place, id, how);
        let verb = if how == Settling::Ack { "ack" } else { "reject" };
        self.requests.push_str(&format!("{verb} {id}\n"));
    }

    fn give_back(&mut self, id: Id, request: &str) {
        self.history.returning(self.place, id);
        self.held.remove(&id);
        self.requests.push_str(request);
        self.requests.push('\n');
    }

    fn flush(&mut self) -> Result<(), Broken> {
        let requests = std::mem::take(&mut self.requests);
        if requests.is_empty() { Ok(()) } else { self.peer.send(&requests) }
    }

    /// Hears everything there is to hear, then says good-bye and waits until the broker has let go.
    fn quit(mut self, way: Way) {
        let (request, reply) = match way {
            Way::Pushed => (format!("cancel {}\n", self.place), "Consumer cancelled"),
            Way::Fetched => ("ping all\n".to_owned(), "Pong all"),
        };
        self.requests.push_str(&request);
        let mut open = self.flush().is_ok();
        while open && !self.peer.next_is(reply) {
            open = self.hear().is_ok();
        }
        let Hands { mut peer, history, place, held, .. } = self;
        // Before the broker hears of it: from then on somebody else may get them.
        history.ended(held.into_iter().map(|id| (place, id)));
        if open && peer.line().is_ok() && peer.ask("quit") == Ok("Bye".to_owned()) {
            peer.wait_for_end();
        }
    }

    /// Closes without a word.
    fn vanish(self) {
        let Hands { peer, history, place, held, .. } = self;
        history.ended(held.into_iter().map(|id| (place, id)));
        drop(peer);
    }
}
