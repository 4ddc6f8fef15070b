//! A data directory as whoever runs a broker sees it: `serve`, `verify`, `inspect`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use support::{Broker, run, text};
use tempfile::TempDir;

struct Data {
    _directory: TempDir,
    path: PathBuf,
}

impl Data {
    fn new() -> Data {
        let directory = tempfile::tempdir().unwrap();
        Data { path: directory.path().join("state/data"), _directory: directory }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn serve(&self) -> Broker {
        Broker::start(&["--data-dir", self.path(), "--log", "info"])
    }

    fn verify(&self) -> (Option<i32>, Value) {
        let output = run(&["verify", "--json", self.path()]);
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    }

    fn inspect(&self, options: &[&str]) -> Vec<Value> {
        let output = run(&[&["inspect", "--json", self.path()], options].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every file with its bytes and the time of its last change.
    fn snapshot(&self) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let mut files = BTreeMap::new();
        add_files(&self.path, &mut files);
        files
    }

    /// The same without spare segments, which a running broker prepares when it likes.
    fn snapshot_in_use(&self) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let is_spare = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("spare-");
        self.snapshot().into_iter().filter(|(path, _)| !is_spare(path)).collect()
    }
}

fn add_files(dir: &Path, files: &mut BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_files(&path, files);
        } else {
            // A running broker may have renamed it.
            let (Ok(bytes), Ok(metadata)) = (fs::read(&path), path.metadata()) else { continue };
            files.insert(path, (bytes, metadata.modified().unwrap()));
        }
    }
}

fn envelope(id: &str, body: &str) -> String {
    format!(r#"{{"message_id":"{id}","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"{body}"}}"#)
}

fn publish(broker: &Broker, ids: &[&str]) {
    let mut wire = broker.connect();
    for id in ids {
        let line = format!("publish default_exchange default_key {}", envelope(id, "SECRET-BODY"));
        assert_eq!(wire.ask(&line), format!("ACK {id}"));
    }
}

fn stop(broker: Broker) -> String {
    broker.signal(Signal::TERM);
    let (status, _, log) = broker.end();
    assert!(status.success(), "{log}");
    log
}

fn kill(broker: Broker) {
    broker.signal(Signal::KILL);
    broker.end();
}

#[test]
fn a_directory_is_made_for_its_owner_and_used_by_one_broker_at_a_time() {
    let data = Data::new();
    let broker = data.serve();
    assert_eq!(data.path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let second = run(&["serve", "--data-dir", data.path(), "--listen", "127.0.0.1:0", "--log", "off"]);
    assert_eq!(second.status.code(), Some(1));
    let told = text(&second.stderr);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(data.path()) && told.contains("in use by process"), "{told}");
    assert_eq!(text(&second.stdout), "");
    publish(&broker, &["still-served"]);
    stop(broker);
    stop(data.serve());
}

#[test]
fn a_directory_that_cannot_be_used_is_a_failure_in_one_line() {
    let data = Data::new();
    fs::create_dir_all(data.path.parent().unwrap()).unwrap();
    fs::write(&data.path, "a file").unwrap();
    let output = run(&["serve", "--data-dir", data.path(), "--listen", "127.0.0.1:0", "--log", "off"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains(data.path()) && told.lines().count() == 1, "{told}");
}

#[test]
fn a_signal_seals_the_log_and_force_does_not() {
    let data = Data::new();
    let broker = data.serve();
    publish(&broker, &["1", "2"]);
    stop(broker);
    let (code, verified) = data.verify();
    assert_eq!(
        (code, &verified["closed"], &verified["findings"]),
        (Some(0), &Value::Bool(true), &Value::Array(vec![]))
    );
    let broker = data.serve();
    publish(&broker, &["3"]);
    kill(broker);
    let (code, verified) = data.verify();
    assert_eq!((code, &verified["closed"]), (Some(0), &Value::Bool(false)));
}

#[test]
fn a_start_says_what_it_found() {
    let data = Data::new();
    let broker = data.serve();
    publish(&broker, &["1", "2", "3"]);
    kill(broker);
    let log = stop(data.serve());
    let told: Vec<_> = log.lines().filter(|line| line.contains("recovered")).collect();
    assert!(told.len() == 1 && told[0].contains("messages=3"), "{log}");
    assert!(!log.contains("DAMAGED"), "{log}");
}

#[test]
fn verify_and_inspect_change_nothing_and_run_beside_a_broker() {
    let data = Data::new();
    let broker = data.serve();
    publish(&broker, &["1", "2"]);
    let before = data.snapshot_in_use();
    let (code, verified) = data.verify();
    assert_eq!(code, Some(0), "{verified}");
    assert!(verified["records"].as_u64().unwrap() >= 2);
    assert!(!data.inspect(&[]).is_empty());
    assert!(data.snapshot_in_use() == before, "nothing has changed");
    publish(&broker, &["3"]);
    stop(broker);
    let before = data.snapshot();
    assert_eq!(data.verify().0, Some(0));
    data.inspect(&[]);
    assert!(data.snapshot() == before, "nothing has changed");
    stop(data.serve());
}

#[test]
fn verify_of_what_is_no_data_directory_is_a_usage_error() {
    let empty = tempfile::tempdir().unwrap();
    for command in ["verify", "inspect"] {
        for path in [empty.path().to_str().unwrap(), "/nowhere/at/all"] {
            let output = run(&[command, path]);
            assert_eq!(output.status.code(), Some(2), "{command} {path}");
            assert!(text(&output.stderr).contains(path), "{}", text(&output.stderr));
        }
        assert_eq!(run(&[command]).status.code(), Some(2));
    }
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is made");
}

/// The segment file that holds `text`, and where.
fn find(data: &Data, text: &str) -> (PathBuf, usize) {
    let mut hits = data.snapshot().into_iter().filter_map(|(path, (bytes, _))| {
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((path, at))
    });
    hits.next().expect("it was published")
}

#[test]
fn damage_costs_one_message_and_is_named_by_verify_and_at_the_start() {
    let data = Data::new();
    let broker = data.serve();
    publish(&broker, &["first", "hit", "last"]);
    stop(broker);
    let (file, at) = find(&data, r#"{"message_id":"hit""#);
    let mut bytes = fs::read(&file).unwrap();
    bytes[at + 40] ^= 4;
    fs::write(&file, &bytes).unwrap();

    let (code, verified) = data.verify();
    assert_eq!(code, Some(1), "{verified}");
    let losses: Vec<_> = verified["findings"].as_array().unwrap().iter().filter(|row| row["is_loss"] == true).collect();
    assert_eq!(losses.len(), 1, "{verified}");
    let told = run(&["verify", data.path()]);
    assert!(text(&told.stdout).contains("DAMAGED") && text(&told.stdout).contains("1 damaged"), "{told:?}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "verify changes nothing");
    assert_eq!(run(&["inspect", data.path()]).status.code(), Some(1));

    // Whatever the filter is: damage is said.
    let broker = Broker::start(&["--data-dir", data.path(), "--log", "off"]);
    let mut wire = broker.connect();
    for id in ["first", "last"] {
        let delivery = format!("Message: {id} {}", envelope(id, "SECRET-BODY"));
        assert_eq!(wire.ask("fetch default_queue"), delivery);
        assert_eq!(wire.ask(&format!("ack {id}")), format!("ACK_CONFIRMED {id}"));
    }
    assert_eq!(wire.ask("fetch default_queue"), "No messages");
    let stats: Value = serde_json::from_str(wire.ask("stats").strip_prefix("Stats: ").unwrap()).unwrap();
    assert_eq!(stats["journal"]["findings"], 1, "{stats}");
    let told = stop(broker);
    assert_eq!(told.lines().filter(|line| line.contains("DAMAGED")).count(), 1, "{told}");
    let aside: Vec<_> = fs::read_dir(data.path.join("aside")).unwrap().collect();
    assert_eq!(aside.len(), 1, "the bytes are kept for a human");
}

#[test]
fn inspect_names_everything_and_shows_no_body() {
    let data = Data::new();
    let broker = data.serve();
    let mut wire = broker.connect();
    wire.ask("hello 1");
    assert_eq!(wire.ask("declare_queue jobs lease=5000"), "Queue declared");
    assert_eq!(wire.ask("bind default_exchange jobs job"), "Queue bound");
    for id in ["a", "b"] {
        wire.ask(&format!("publish default_exchange job {}", envelope(id, "SECRET-BODY")));
    }
    publish(&broker, &["elsewhere"]);
    for id in ["a", "b"] {
        assert!(wire.ask("fetch jobs").starts_with(&format!("Fetched: {id} ")));
    }
    assert_eq!(wire.ask("ack a"), "ACK_CONFIRMED a");
    assert_eq!(wire.ask("reject b"), "REJECT_CONFIRMED b");
    stop(broker);

    let rows = data.inspect(&["--queue", "jobs"]);
    let published: Vec<_> = rows.iter().filter(|row| row["kind"] == "publish").collect();
    assert_eq!(published.len(), 2, "{rows:?}");
    assert_eq!((&published[0]["message_id"], &published[1]["message_id"]), (&"a".into(), &"b".into()));
    for row in &published {
        assert_eq!((&row["exchange"], &row["key"]), (&"default_exchange".into(), &"job".into()));
        assert_eq!(row["envelope_bytes"], envelope("a", "SECRET-BODY").len());
        assert!(row["at"].as_u64().unwrap() > 1_700_000_000_000);
    }
    let settled = rows.iter().find(|row| row["kind"] == "settle").expect("the ack");
    assert_eq!(settled["order"], published[0]["position"]);
    let moved = rows.iter().find(|row| row["kind"] == "move").expect("the reject");
    assert_eq!((&moved["order"], &moved["message_id"]), (&published[1]["position"], &"b".into()));
    let positions: Vec<_> = rows.iter().map(|row| row["position"].as_u64().unwrap()).collect();
    assert!(positions.is_sorted(), "{positions:?}");

    let later = data.inspect(&["--from", &published[1]["position"].to_string()]);
    assert_eq!(later[0]["position"], published[1]["position"]);
    assert!(later.iter().all(|row| row["queues"] != Value::Null || row["kind"] != "publish"), "names are still known");

    let plain = text(&run(&["inspect", data.path()]).stdout).to_owned();
    assert_eq!(plain.lines().count(), data.inspect(&[]).len(), "a line each");
    for part in ["publish", "id=a", "queues=jobs", "exchange=default_exchange"] {
        assert!(plain.contains(part), "{part} in {plain}");
    }
    assert!(!plain.contains("SECRET") && !format!("{rows:?}").contains("SECRET"));
}
