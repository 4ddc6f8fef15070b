//! `keygen`, `send`, `receive` and `bench` as a shell sees them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use support::{Broker, ciphermq, run, signal_to, text, wait};
use tempfile::TempDir;

/// A broker and a key pair.
struct Setting {
    broker: Broker,
    directory: TempDir,
}

impl Setting {
    fn new() -> Setting {
        let directory = tempfile::tempdir().unwrap();
        let output = run(&["keygen", "--out", directory.path().to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        Setting { broker: Broker::memory(), directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn send(&self, arguments: &[&str], input: &[u8]) -> Output {
        let (server, to) = (self.broker.address.to_string(), self.path("receiver_public.pem"));
        let mut child = ciphermq()
            .args(["send", "--server", &server, "--to", &to])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    fn receiver(&self, arguments: &[&str]) -> Child {
        let (server, identity) = (self.broker.address.to_string(), self.path("receiver_private.pem"));
        let mut command = ciphermq();
        command.args(["receive", "--server", &server, "--identity", &identity]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn receive(&self, arguments: &[&str]) -> Output {
        self.receiver(arguments).wait_with_output().unwrap()
    }

    fn queued(&self) -> u64 {
        let mut wire = self.broker.connect();
        wire.ask("hello 1");
        let listed = wire.ask("list_queues");
        let queues: Value = serde_json::from_str(listed.strip_prefix("Queues: ").unwrap()).unwrap();
        let queue = queues.as_array().unwrap().iter().find(|queue| queue["queue"] == "default_queue").unwrap();
        queue["ready"].as_u64().unwrap() + queue["leased"].as_u64().unwrap()
    }
}

#[test]
fn keygen_writes_a_pair_once_and_the_private_key_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("new");
    let keygen = || run(&["keygen", "--out", out.to_str().unwrap()]);
    let output = keygen();
    assert!(output.status.success());
    let told = text(&output.stdout);
    let (private, public) = (out.join("receiver_private.pem"), out.join("receiver_public.pem"));
    for part in [private.to_str().unwrap(), public.to_str().unwrap(), "sha256:"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("PRIVATE KEY"));
    assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
    let written = std::fs::read(&private).unwrap();
    assert_eq!(keygen().status.code(), Some(1), "nothing is overwritten");
    assert_eq!(std::fs::read(&private).unwrap(), written);
    let weak = run(&["keygen", "--out", directory.path().join("weak").to_str().unwrap(), "--bits", "1024"]);
    assert_eq!(weak.status.code(), Some(2));
    assert!(!Path::new(&directory.path().join("weak")).exists());
}

#[test]
fn what_is_sent_is_received_byte_for_byte_and_acknowledged() {
    let setting = Setting::new();
    let sent = setting.send(&["--print-ids"], "one\n\nGrüße ✅\nlast".as_bytes());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert_eq!(text(&sent.stdout).lines().count(), 4);
    assert_eq!(setting.queued(), 4);
    let received = setting.receive(&["--count", "4"]);
    assert!(received.status.success(), "{}", text(&received.stderr));
    assert_eq!(text(&received.stdout), "one\n\nGrüße ✅\nlast\n");
    assert_eq!(setting.queued(), 0);
}

#[test]
fn json_lines_tell_the_same_ids_on_both_sides() {
    let setting = Setting::new();
    let sent = setting.send(&["--json", "--id", "order-7", "hello\u{1b}[2J"], b"");
    assert_eq!(text(&sent.stdout), "{\"message_id\":\"order-7\"}\n");
    let again = setting.send(&["--id", "order-7", "hello\u{1b}[2J"], b"");
    assert!(again.status.success() && again.stdout.is_empty());
    setting.send(&[], b"\xff\xfe\n");
    let received = setting.receive(&["--json", "--timeout-ms", "500"]);
    assert!(received.status.success(), "an emptied queue is no failure");
    let lines: Vec<Value> = text(&received.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "the repeated id is one message");
    assert_eq!(lines[0]["message_id"], "order-7");
    assert_eq!(lines[0]["message"], "hello\u{1b}[2J");
    assert!(lines[0]["timestamp"].as_f64().unwrap() > 1.7e9);
    assert_eq!((&lines[1]["message"], &lines[1]["message_hex"]), (&Value::Null, &Value::from("fffe")));
}

#[test]
fn a_message_that_is_not_confirmed_makes_send_fail() {
    let setting = Setting::new();
    let refused = setting.send(&["--key", "nobody-listens", "lost?"], b"");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("NO_ROUTE"), "{}", text(&refused.stderr));
    assert_eq!(setting.send(&["--id", "x", "one", "two"], b"").status.code(), Some(2));
    assert_eq!(run(&["send", "--to", "/nowhere.pem", "x"]).status.code(), Some(1));
}

#[test]
fn a_broker_that_is_not_there_is_named_and_the_next_step_said() {
    let setting = Setting::new();
    // Taken and given back: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (to, identity) = (setting.path("receiver_public.pem"), setting.path("receiver_private.pem"));
    for command in [&["send", "--to", &to, "x"][..], &["receive", "--identity", &identity]] {
        let output = run(&[command, &["--server", &nobody]].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(told.contains(&format!("{nobody}: connection to the broker")), "{told}");
        assert!(told.contains("`ciphermq serve` starts a broker"), "{told}");
    }
}

#[test]
fn a_message_for_another_key_stays_in_the_queue() {
    let setting = Setting::new();
    let other = setting.path("other");
    assert!(run(&["keygen", "--out", &other]).status.success());
    assert!(setting.send(&["secret"], b"").status.success());
    let (server, identity) = (setting.broker.address.to_string(), format!("{other}/receiver_private.pem"));
    let output = run(&["receive", "--server", &server, "--identity", &identity, "--timeout-ms", "300"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("stays in the queue"), "{}", text(&output.stderr));
    assert_eq!(text(&setting.receive(&["--count", "1"]).stdout), "secret\n");
}

#[test]
fn a_signal_ends_receive_cleanly_with_everything_printed_acknowledged() {
    let setting = Setting::new();
    let mut child = setting.receiver(&[]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    setting.send(&["first"], b"");
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    signal_to(&child, Signal::INT);
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(setting.queued(), 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_loses_nothing() {
    let setting = Setting::new();
    let mut child = setting.receiver(&[]);
    drop(child.stdout.take());
    assert!(setting.send(&["unread"], b"").status.success());
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(setting.queued(), 1, "what could not be written is not acknowledged");
}

#[test]
fn bench_measures_everything_and_speaks_json() {
    let flags = ["bench", "--quick", "--json", "--sizes", "256", "--connections", "1,2", "--windows", "1,64"];
    let output = run(&flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |mode: &str| rows.iter().filter(|row| row["mode"] == mode).count();
    for (mode, rows) in [("publish", 4), ("end-to-end", 4), ("echo ack", 4), ("echo line", 4), ("drain", 2)] {
        assert_eq!(count(mode), rows, "{mode}");
    }
    for mode in ["seal", "open", "queued", "idle", "write+sync", "window 1", "reopen", "reopen killed"] {
        assert_eq!(count(mode), 1, "{mode}");
    }
    for row in rows.iter().filter(|row| row["messages"].is_u64()) {
        assert!(row["messages"].as_u64().unwrap() > 0, "{row}");
        assert!(row["messages_per_second"].as_f64().unwrap() > 0.0, "{row}");
    }
}
