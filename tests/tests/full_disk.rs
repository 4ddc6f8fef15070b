//! A disk that is full refuses what is new and serves what it has.

use std::collections::BTreeSet;

use system_tests::{Server, Wire, envelope_of, poll_until};

/// Little enough to be filled in a moment, and several segments of the smallest size.
const FLAGS: [&str; 2] = ["--disk-max-bytes", "24MiB"];

/// Messages taken and acknowledged together.
const AT_A_TIME: usize = 50;

const BODY_BYTES: usize = 32 * 1024;

fn line(id: &str) -> String {
    format!("publish default_exchange default_key {}", envelope_of(id, BODY_BYTES))
}

/// Publishes until the disk is full: the ids that were taken.
fn fill(wire: &mut Wire, name: &str) -> Vec<String> {
    let mut taken = Vec::new();
    for number in 0.. {
        let id = format!("{name}-{number}");
        wire.send(&line(&id));
        let answer = wire.line();
        if answer != format!("ACK {id}") {
            assert!(answer.starts_with("Error: DISK_FULL "), "{answer}");
            return taken;
        }
        taken.push(id);
    }
    taken
}

/// Takes and acknowledges everything: the ids, in order.
fn take_all(wire: &mut Wire) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        wire.send_bytes("fetch default_queue\n".repeat(AT_A_TIME).as_bytes());
        let answers: Vec<String> = (0..AT_A_TIME).map(|_| wire.line()).collect();
        let deliveries = answers.iter().filter_map(|answer| answer.strip_prefix("Fetched: "));
        let ids: Vec<&str> = deliveries.map(|delivery| delivery.split(' ').next().expect("an id")).collect();
        let acks: String = ids.iter().map(|id| format!("ack {id}\n")).collect();
        wire.send_bytes(acks.as_bytes());
        for id in &ids {
            wire.expect(&format!("ACK_CONFIRMED {id}"));
        }
        taken.extend(ids.iter().map(|id| (*id).to_owned()));
        if ids.len() < AT_A_TIME {
            assert_eq!(answers.last().map(String::as_str), Some("No messages"));
            return taken;
        }
    }
}

#[test]
fn a_full_disk_refuses_publishes_goes_on_consuming_and_takes_publishes_again_by_itself() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::on_disk(data.path(), &FLAGS);
    let mut wire = server.connect_modern();
    for round in 0..3 {
        let taken = fill(&mut wire, &format!("round{round}"));
        assert!(taken.len() * BODY_BYTES > 4 << 20, "{} messages fill 24 MiB", taken.len());
        // Full: a known id is still no error, and whatever needs room has its answer.
        wire.ask(&line(&taken[0]), &format!("ACK {}", taken[0]));
        let batch = format!("publish_batch default_exchange default_key [{}]", envelope_of("batch", BODY_BYTES));
        wire.ask(&batch, "Error: DISK_FULL {text}");
        wire.ask("declare_queue another", "Error: DISK_FULL {text}");
        wire.ask("fetch default_queue", "Fetched: {rest}");
        wire.ask(&format!("reject {}", taken[0]), "Error: DISK_FULL {text}");
        let mut legacy = server.connect();
        legacy.ask(&line("legacy"), "Error: Disk is full");
        // The rejected one comes back a second later.
        let mut all = take_all(&mut wire);
        poll_until("the rejected message", || {
            all.extend(take_all(&mut wire));
            all.len() == taken.len()
        });
        // Wherever it came in between, once; the others in order.
        all.retain(|id| *id != taken[0]);
        assert_eq!(all, taken[1..], "all that was acknowledged, in order, and nothing else");
        poll_until("room again", || {
            wire.send(&line("probe"));
            wire.line() == "ACK probe"
        });
        take_all(&mut wire);
    }
    assert_eq!(server.stat("refused").as_u64().map(|refused| refused > 0), Some(true));
}

#[test]
fn a_broker_that_ends_with_a_full_disk_starts_with_one_and_serves_it() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::on_disk(data.path(), &FLAGS);
    let taken = fill(&mut server.connect_modern(), "first");
    server.kill();
    let server = Server::on_disk(data.path(), &FLAGS);
    let mut wire = server.connect_modern();
    let more = fill(&mut wire, "second");
    let all: Vec<String> = taken.into_iter().chain(more).collect();
    assert_eq!(take_all(&mut wire), all);
    poll_until("room again", || {
        wire.send(&line("probe"));
        wire.line() == "ACK probe"
    });
}

#[test]
fn a_disk_full_of_small_messages_has_room_for_all_their_settlements() {
    let data = tempfile::tempdir().expect("a temporary directory");
    // Small messages: as many settlements as possible for the bytes.
    let server = Server::on_disk(data.path(), &FLAGS);
    let mut wire = server.connect_modern();
    let mut stored = BTreeSet::new();
    'full: for batch in 0.. {
        let ids: Vec<String> = (0..200).map(|number| format!("s{batch}-{number}")).collect();
        let lines: String =
            ids.iter().map(|id| format!("publish default_exchange default_key {}\n", envelope_of(id, 64))).collect();
        wire.send_bytes(lines.as_bytes());
        let answers: Vec<String> = ids.iter().map(|_| wire.line()).collect();
        for (id, answer) in ids.into_iter().zip(&answers) {
            if *answer == format!("ACK {id}") {
                stored.insert(id);
            }
        }
        if let Some(refused) = answers.iter().find(|answer| !answer.starts_with("ACK ")) {
            assert!(refused.starts_with("Error: DISK_FULL "), "{refused}");
            break 'full;
        }
    }
    wire.ask("consume default_queue prefetch=1000", "Subscribed to queue");
    while !stored.is_empty() {
        let line = wire.line();
        if let Some(delivery) = line.strip_prefix("Message: ") {
            wire.send(&format!("ack {}", delivery.split(' ').next().expect("an id")));
        } else {
            let id = line.strip_prefix("ACK_CONFIRMED ").unwrap_or_else(|| panic!("{line:.200}"));
            assert!(stored.remove(id), "{id} twice");
        }
    }
}
