//! What a broker knows is there again after its end, however it ended.

use std::path::Path;
use std::time::Duration;

use system_tests::{Server, Wire, envelope, envelope_of};

#[derive(Clone, Copy, Debug)]
enum End {
    Asked,
    Killed,
}

const ENDS: [End; 2] = [End::Asked, End::Killed];

fn restart(mut server: Server, data: &Path, end: End, flags: &[&str]) -> Server {
    match end {
        End::Killed => server.kill(),
        End::Asked => {
            server.terminate();
            assert!(server.wait().success());
        }
    }
    Server::on_disk(data, flags)
}

fn publish(wire: &mut Wire, key: &str, id: &str) {
    wire.ask(&format!("publish default_exchange {key} {}", envelope(id)), &format!("ACK {id}"));
}

#[test]
fn topology_messages_order_dead_letters_and_duplicates_are_there_again() {
    for end in ENDS {
        let data = tempfile::tempdir().expect("a temporary directory");
        let server = Server::on_disk(data.path(), &[]);
        let mut wire = server.connect_modern();
        wire.ask("declare_queue jobs lease=60000 max_attempts=7 durability=interval:50", "Queue declared");
        wire.ask("declare_exchange shop", "Exchange declared");
        wire.ask("bind shop jobs new", "Queue bound");
        wire.ask("bind default_exchange jobs job", "Queue bound");
        wire.ask("declare_queue gone", "Queue declared");
        wire.ask("delete_queue gone", "Queue deleted");
        for id in ["1", "2", "3", "4", "5"] {
            publish(&mut wire, "job", id);
        }
        // 1 is done with, 2 rejected, 3 in somebody's hands, 4 given back after a first attempt.
        for id in ["1", "2", "3", "4"] {
            wire.ask("fetch jobs", &format!("Fetched: {id} {{rest}}"));
        }
        wire.ask("ack 1", "ACK_CONFIRMED 1");
        wire.ask("reject 2", "REJECT_CONFIRMED 2");
        wire.ask("nack 4", "NACK_CONFIRMED 4");
        // Whatever is not waited for is on its way before this is.
        publish(&mut wire, "job", "6");
        let before = topology(&mut wire);
        wire.close();

        let server = restart(server, data.path(), end, &[]);
        let mut wire = server.connect_modern();
        assert_eq!(topology(&mut wire), before, "{end:?}");
        // In the same window, to the same exchange: known, whatever became of them.
        for id in ["1", "2", "5"] {
            publish(&mut wire, "job", id);
        }
        wire.ask(&format!("publish shop new {}", envelope("1")), "ACK 1");
        wire.ask("fetch jobs", "Fetched: 3 queue=jobs attempt={n} exchange=default_exchange key=job {rest}");
        wire.ask("fetch jobs", "Fetched: 4 queue=jobs attempt=2 {rest}");
        for id in ["5", "6"] {
            wire.ask("fetch jobs", &format!("Fetched: {id} queue=jobs attempt=1 {{rest}}"));
        }
        wire.ask("fetch jobs", "Fetched: 1 queue=jobs attempt=1 exchange=shop key=new {rest}");
        wire.ask("fetch jobs", "No messages");
        wire.ask("fetch jobs.dlq", "Fetched: 2 queue=jobs.dlq attempt=1 {fields} from=jobs reason=rejected {json}");
        wire.ask("fetch jobs.dlq", "No messages");
    }
}

fn topology(wire: &mut Wire) -> [String; 3] {
    let queues = wire.ask("list_queues", "Queues: {json}");
    // How many are in whose hands is not topology.
    let counts = ["ready", "leased", "delayed", "bytes"];
    let mut rows: serde_json::Value = serde_json::from_str(&queues["Queues: ".len()..]).expect("JSON");
    for row in rows.as_array_mut().expect("a list") {
        counts.iter().for_each(|count| row[*count] = 0.into());
    }
    let exchanges = wire.ask("list_exchanges", "Exchanges: {json}");
    [rows.to_string(), exchanges, wire.ask("list_bindings", "Bindings: {json}")]
}

#[test]
fn a_body_comes_back_byte_for_byte_however_long() {
    for end in ENDS {
        let data = tempfile::tempdir().expect("a temporary directory");
        let server = Server::on_disk(data.path(), &[]);
        let mut wire = server.connect_modern();
        let bodies: Vec<_> =
            [0, 1, 4_000, 65_536, 900_000].map(|bytes| envelope_of(&format!("b{bytes}"), bytes)).into();
        for body in &bodies {
            wire.ask(&format!("publish default_exchange default_key {body}"), "ACK {id}");
        }
        wire.close();
        let server = restart(server, data.path(), end, &[]);
        let mut wire = server.connect_modern();
        for body in &bodies {
            let line = wire.ask("fetch default_queue", "Fetched: {rest}");
            assert!(line.ends_with(&format!(" {body}")), "{end:?}");
        }
    }
}

#[test]
fn messages_beyond_the_memory_budget_are_read_back_in_order() {
    const MESSAGES: usize = 400;
    let data = tempfile::tempdir().expect("a temporary directory");
    let flags = ["--memory-budget", "256KiB"];
    let mut server = Server::on_disk(data.path(), &flags);
    let body = |number: usize| envelope_of(&format!("m{number}"), 4_096 + number);
    let mut wire = server.connect_modern();
    for number in 0..MESSAGES {
        wire.ask(&format!("publish default_exchange default_key {}", body(number)), "ACK {id}");
    }
    wire.close();
    for round in 0..2 {
        let mut wire = server.connect_modern();
        wire.ask("consume default_queue prefetch=1000", "Subscribed to queue");
        for number in 0..MESSAGES {
            let line = wire.expect("Message: {rest}");
            assert!(line.ends_with(&format!(" {}", body(number))), "message {number} in round {round}");
        }
        wire.close();
        server = restart(server, data.path(), End::Killed, &flags);
    }
}

#[test]
fn nothing_is_left_behind_that_a_second_start_would_trip_over() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::on_disk(data.path(), &[]);
    publish(&mut server.connect_modern(), "default_key", "kept");
    for _ in 0..5 {
        server = restart(server, data.path(), End::Asked, &[]);
        server = restart(server, data.path(), End::Killed, &[]);
        assert!(server.started_in() < Duration::from_secs(5), "{:?}", server.started_in());
    }
    server.connect_modern().ask("fetch default_queue", "Fetched: kept {rest}");
}
