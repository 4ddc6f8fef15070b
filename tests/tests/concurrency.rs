//! Many clients at once: nothing stands still, nothing is lost, and the counters add up.

use std::collections::BTreeSet;
use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use system_tests::{Server, Wire, envelope, poll_until};

/// How long the clients go on.
const TIME: Duration = Duration::from_secs(8);

/// Publishers, and as many of each kind of receiver.
const CLIENTS: u64 = 4;

/// What the clients know to be true.
#[derive(Default)]
struct Known {
    published: Mutex<BTreeSet<String>>,
    acknowledged: Mutex<Vec<String>>,
}

// K-16
#[test]
fn publishing_consuming_fetching_and_vanishing_at_once_loses_and_doubles_nothing() {
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260);
    println!("SEED={seed} repeats the choices of this run");
    let server = Arc::new(Server::start());
    let known = Arc::new(Known::default());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3 * CLIENTS)
        .map(|n| {
            let (server, known, stop) = (server.clone(), known.clone(), stop.clone());
            let mut random = StdRng::seed_from_u64(seed + n);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match n % 3 {
                        0 => publish_some(&server, &known, &mut random, n),
                        1 => fetch_some(&server, &known, &mut random),
                        _ => consume_some(&server, &known, &mut random),
                    }
                }
            })
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < TIME {
        // A broker that stands still fails here within the deadline of a read.
        server.assert_serves();
        thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client failed");
    }

    drain(&server, &known);
    check(&server, &known);
}

/// Publishes on one connection, some of it twice, and leaves.
fn publish_some(server: &Server, known: &Known, random: &mut StdRng, publisher: u64) {
    let mut wire = server.connect_modern();
    for _ in 0..random.random_range(1..200) {
        let id = format!("p{publisher}-{:016x}", random.random::<u64>());
        let times = if random.random_bool(0.1) { 2 } else { 1 };
        for _ in 0..times {
            wire.ask(&format!("publish default_exchange default_key {}", envelope(&id)), &format!("ACK {id}"));
        }
        known.published.lock().expect("no client failed").insert(id);
    }
}

/// Fetches on one connection, settles in all ways, and may leave with leases.
fn fetch_some(server: &Server, known: &Known, random: &mut StdRng) {
    let mut wire = server.connect_modern();
    for _ in 0..random.random_range(1..100) {
        wire.send("fetch default_queue");
        let line = wire.line();
        if let Some(rest) = line.strip_prefix("Fetched: ") {
            settle(&mut wire, rest.split(' ').next().expect("an id"), known, random);
        }
    }
    leave(wire, random);
}

/// Consumes on one connection until it has had enough, and may leave with leases.
fn consume_some(server: &Server, known: &Known, random: &mut StdRng) {
    let mut wire = server.connect_modern();
    let mut enough = random.random_range(1..200);
    wire.ask(&format!("consume default_queue prefetch={}", random.random_range(1..64)), "Subscribed to queue");
    wire.send("ping enough");
    loop {
        let line = wire.line();
        if let Some(rest) = line.strip_prefix("Message: ") {
            let id = rest.split(' ').next().expect("an id");
            // Pushes may stand between a request and its reply, so nothing is waited for here.
            wire.send(&format!("ack {id}"));
        } else if let Some(id) = line.strip_prefix("ACK_CONFIRMED ") {
            known.acknowledged.lock().expect("no client failed").push(id.to_owned());
            enough -= 1;
        } else {
            assert_eq!(line, "Pong enough");
            enough -= 1;
            wire.send("ping enough");
        }
        if enough <= 0 {
            return leave_in_peace(wire, known, random);
        }
    }
}

/// Cancels and hears every confirmation it has asked for, so that the oracle knows all of them.
fn leave_in_peace(mut wire: Wire, known: &Known, random: &mut StdRng) {
    wire.send("cancel default_queue");
    loop {
        let line = wire.line();
        if let Some(id) = line.strip_prefix("ACK_CONFIRMED ") {
            known.acknowledged.lock().expect("no client failed").push(id.to_owned());
        } else if line == "Consumer cancelled" {
            return leave(wire, random);
        }
    }
}

fn settle(wire: &mut Wire, id: &str, known: &Known, random: &mut StdRng) {
    match random.random_range(0..10) {
        0 => wire.ask(&format!("nack {id}"), &format!("NACK_CONFIRMED {id}")),
        1 => wire.ask(&format!("release {id}"), &format!("RELEASE_CONFIRMED {id}")),
        2 => wire.ask(&format!("touch {id}"), &format!("TOUCH_CONFIRMED {id}")),
        3 => return,
        _ => {
            wire.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"));
            return known.acknowledged.lock().expect("no client failed").push(id.to_owned());
        }
    };
}

fn leave(mut wire: Wire, random: &mut StdRng) {
    match random.random_range(0..3) {
        0 => wire.close(),
        1 => wire.reset_after("publish default_exchange default_key {\"mess"),
        _ => {
            wire.ask("quit", "Bye");
            wire.expect_closed();
        }
    }
}

/// Takes what is left, from the queue and its dead-letter queue.
fn drain(server: &Server, known: &Known) {
    poll_until("all leases to be back", || server.queue("default_queue")["leased"] == 0);
    let mut wire = server.connect_modern();
    wire.ask("declare_queue default_queue.dlq", "Queue declared");
    for queue in ["default_queue", "default_queue.dlq"] {
        loop {
            wire.send(&format!("fetch {queue}"));
            let line = wire.line();
            let Some(rest) = line.strip_prefix("Fetched: ") else { break };
            let id = rest.split(' ').next().expect("an id").to_owned();
            wire.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"));
            known.acknowledged.lock().expect("no client failed").push(id);
        }
    }
}

fn check(server: &Server, known: &Known) {
    let published = known.published.lock().expect("no client failed");
    let acknowledged = known.acknowledged.lock().expect("no client failed");
    let distinct: BTreeSet<String> = acknowledged.iter().filter(|id| id.starts_with('p')).cloned().collect();
    println!("{} messages", published.len());
    assert!(published.len() > 100, "the clients hardly ran");
    assert_eq!(distinct.len(), acknowledged.len(), "a message was confirmed twice");
    assert_eq!(distinct, *published, "what was published and what was acknowledged differ");

    for queue in ["default_queue", "default_queue.dlq"] {
        let row = server.queue(queue);
        for count in ["ready", "leased", "delayed", "bytes", "consumers"] {
            assert_eq!(row[count], 0, "{count} of {queue}: {row}");
        }
    }
    let served = server.stat("published").as_u64().expect("a number") - published.len() as u64;
    assert_eq!(server.queue("still-serves")["ready"], 0);
    assert!(served >= 1, "the probes are counted too");
    assert_eq!(server.stat("store_bytes"), 0);
    assert_eq!(server.stat("connected_clients"), 1);
}
