//! Rounds of ordinary traffic, each ended by force: the process is killed, and what its successor knows is held against what
//! the clients were told.
//!
//! Every choice comes from the seed. What the machine does in between does not, so a seed repeats the traffic, the
//! ways connections end and after how many events the process is killed, not the instruction at which.

mod consumer;
mod history;
mod message;
mod peer;
mod publisher;
mod topology;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::Server;
use crate::wire::poll_until;
use consumer::{Consumer, Way};
pub use history::Counts;
use history::History;
use message::{EXCHANGE, PUBLISHERS, Place, Queue, Route};
use publisher::Publisher;
use topology::Topologist;

/// Events of a round before it is ended.
const EVENTS_A_ROUND: std::ops::Range<u64> = 200..8_000;

/// Rounds after which all queues are emptied and every message is accounted for.
const ROUNDS_AN_ACCOUNT: u32 = 30;

/// How long after its start a broker is killed that is to be killed while it reads its log.
const EARLY_KILL_US: std::ops::Range<u64> = 0..25_000;

/// What to do to a broker.
#[derive(Clone, Debug)]
pub struct Torture {
    /// Makes every choice.
    pub seed: u64,
    /// How often it is ended.
    pub rounds: u32,
    /// Where it keeps its messages.
    pub directory: PathBuf,
    /// Further flags.
    pub flags: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Of all messages, at the end.
    pub counts: Counts,
    /// How long each start took, from the start of the process to its ready line.
    pub starts: Vec<Duration>,
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// `kill -9`.
    Killed,
    /// The same, and again while it starts.
    KilledTwice,
    /// SIGTERM.
    Asked,
}

struct Clients {
    publishers: Vec<Publisher>,
    consumers: Vec<Consumer>,
    topologist: Topologist,
}

impl Torture {
    /// Runs all rounds.
    ///
    /// # Panics
    /// At the first thing the broker may not do.
    pub fn run(&self) -> Outcome {
        let history = History::default();
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut clients = Clients::new(&mut random);
        let mut outcome = Outcome::default();
        declare(&self.start(&mut outcome));
        for round in 1..=self.rounds {
            history.begin(round);
            let server = self.start(&mut outcome);
            clients.topologist.check(&server, &history);
            let (events, end) = (random.random_range(EVENTS_A_ROUND), End::choose(&mut random));
            clients.run(server, events, end, &history);
            if end == End::KilledTwice {
                let after = Duration::from_micros(random.random_range(EARLY_KILL_US));
                Server::start_and_kill(&self.directory, &self.flags(), after);
            }
            check(&history, round, end);
            if round % ROUNDS_AN_ACCOUNT == 0 || round == self.rounds {
                outcome.counts = self.account(&mut clients, &history, &mut outcome.starts);
                check(&history, round, end);
                println!("after round {round}: {:?}; {}", outcome.counts, outcome.show_starts());
            }
        }
        outcome
    }

    /// Empties all queues and counts.
    fn account(&self, clients: &mut Clients, history: &History, starts: &mut Vec<Duration>) -> Counts {
        let server = Server::on_disk(&self.directory, &self.flags());
        starts.push(server.started_in());
        history.begin(0);
        clients.publishers.iter_mut().for_each(|publisher| publisher.give_up(history));
        for place in places() {
            poll_until("an empty queue", || {
                Consumer::drain(place, server.address(), history);
                history.violation().is_some() || is_empty(&server, place)
            });
        }
        history.account()
    }

    fn start(&self, outcome: &mut Outcome) -> Server {
        let server = Server::on_disk(&self.directory, &self.flags());
        outcome.starts.push(server.started_in());
        server
    }

    fn flags(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }
}

impl Outcome {
    /// The starts since the last account: their times as a person reads them.
    fn show_starts(&self) -> String {
        let recent = self.starts.len().saturating_sub(ROUNDS_AN_ACCOUNT as usize + 1);
        let recent = self.starts[recent..].iter().map(|time| format!("{:.0}", time.as_secs_f64() * 1e3));
        format!("starts in ms: {}", recent.collect::<Vec<_>>().join(" "))
    }
}

impl Clients {
    fn new(random: &mut StdRng) -> Clients {
        let mut own = || StdRng::seed_from_u64(random.random());
        let ways = [
            (Place::Queue(Queue::Ordered), Way::Pushed),
            (Place::Queue(Queue::Shared), Way::Pushed),
            (Place::Queue(Queue::Shared), Way::Fetched),
            (Place::DeadLetters(Queue::Ordered), Way::Fetched),
            (Place::DeadLetters(Queue::Shared), Way::Pushed),
        ];
        Clients {
            publishers: (0..PUBLISHERS).map(|index| Publisher::new(index, own())).collect(),
            consumers: ways.map(|(place, way)| Consumer::new(place, way, own())).into(),
            topologist: Topologist::new(own()),
        }
    }

    /// One round: all at once, until the broker's end.
    fn run(&mut self, mut server: Server, events: u64, end: End, history: &History) {
        let address = server.address();
        thread::scope(|scope| {
            self.publishers.iter_mut().for_each(|publisher| drop(scope.spawn(|| publisher.run(address, history))));
            self.consumers.iter_mut().for_each(|consumer| drop(scope.spawn(|| consumer.run(address, history))));
            scope.spawn(|| self.topologist.run(address, history));
            history.wait_for(events);
            history.end_round();
            match end {
                End::Killed | End::KilledTwice => server.kill(),
                End::Asked => {
                    server.terminate();
                    let status = server.wait();
                    if !status.success() {
                        history.violate(format!("SIGTERM ended the broker with {status}"));
                    }
                }
            }
        });
    }
}

impl End {
    fn choose(random: &mut StdRng) -> End {
        match random.random_range(0..10) {
            0 => End::Asked,
            1 | 2 => End::KilledTwice,
            _ => End::Killed,
        }
    }
}

fn places() -> impl Iterator<Item = Place> {
    Queue::ALL.into_iter().flat_map(|queue| [Place::Queue(queue), Place::DeadLetters(queue)])
}

fn declare(server: &Server) {
    let mut wire = server.connect_modern();
    wire.ask(&format!("declare_exchange {EXCHANGE}"), "Exchange declared");
    // No lease runs out within a round, and no message wears out: what returns, returns because somebody gave it back or left.
    for place in places() {
        wire.ask(&format!("declare_queue {place} lease=600000 max_attempts=0"), "Queue declared");
    }
    for route in Route::ALL {
        for queue in route.queues() {
            wire.ask(&format!("bind {EXCHANGE} {} {}", queue.name(), route.key()), "Queue bound");
        }
    }
}

fn is_empty(server: &Server, place: Place) -> bool {
    let row = server.queue(&place.to_string());
    ["ready", "leased", "delayed"].iter().all(|count| row[*count] == 0)
}

fn check(history: &History, round: u32, end: End) {
    if let Some(violation) = history.violation() {
        panic!("after round {round}, {end:?}: {violation}");
    }
}

/// The seed of this run: `CIPHERMQ_SEED`, or one of the moment. To be printed, so that it can be used again.
pub fn seed() -> u64 {
    let given = std::env::var("CIPHERMQ_SEED").ok().and_then(|seed| seed.parse().ok());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    given.unwrap_or(u64::from(since_1970.subsec_nanos()))
}

/// A number from the environment, for longer runs.
pub fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}
