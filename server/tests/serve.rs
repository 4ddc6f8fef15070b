//! `ciphermq serve` as whoever starts it sees it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use rustix::process::Signal;
use support::{Broker, ciphermq, run, text};

#[test]
fn help_names_every_flag_with_its_variable() {
    let output = run(&["serve", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    let flags: Vec<_> = help.lines().filter_map(|line| line.trim_start().strip_prefix("--")).collect();
    assert!(flags.len() >= 16, "{flags:?}");
    for flag in flags.iter().map(|flag| flag.split_whitespace().next().unwrap()) {
        let variable = format!("[env: CIPHERMQ_{}=", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "{variable} of --{flag} is missing in:\n{help}");
    }
    assert!(help.contains("Exit codes"));
}

#[test]
fn bad_flags_are_usage_errors_that_name_the_flag() {
    let bad: [&[&str]; 14] = [
        &["--lease-ms", "0"],
        &["--lease-ms", "30s"],
        &["--max-attempts", "70000"],
        &["--max-line", "1KiB"],
        &["--max-line", "65MiB"],
        &["--store-max-bytes", "lots"],
        &["--listen", "example.org:5672"],
        &["--threads", "0"],
        &["--max-connections", "0"],
        &["--durability", "always"],
        &["--durability", "interval:0"],
        &["--memory-budget", "half"],
        &["--disk-max-bytes", "15MiB"],
        &["--disk-max-bytes", "0"],
    ];
    for flags in bad {
        let output = run(&[&["serve", "--memory"], flags].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(text(&output.stderr).contains(flags[0]), "{flags:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{flags:?}");
    }
    assert_eq!(run(&["serve", "--memory", "--data-dir", "x"]).status.code(), Some(2));
    assert_eq!(run(&["serve", "--memory", "--log", "info,x=loud"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn memory_switched_off_by_the_environment_is_no_contradiction_to_a_directory() {
    // Far enough to be refused for its address: the flags were taken.
    let flags = ["serve", "--data-dir", "x", "--listen", "0.0.0.0:0"];
    for (memory, told) in [("0", "refusing to listen"), ("1", "exclude each other")] {
        let output = ciphermq().args(flags).env("CIPHERMQ_MEMORY", memory).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "CIPHERMQ_MEMORY={memory}");
        assert!(text(&output.stderr).contains(told), "CIPHERMQ_MEMORY={memory}: {}", text(&output.stderr));
    }
}

#[test]
fn an_address_others_can_reach_is_refused_with_advice() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:10.0.0.1]:0"] {
        let output = run(&["serve", "--memory", "--listen", address]);
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert_eq!(text(&output.stdout), "", "{address}");
        let told = text(&output.stderr);
        assert!(told.contains("refusing to listen") && told.contains("SSH tunnel"), "{address}: {told}");
    }
}

#[test]
fn an_address_in_use_is_a_failure_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "--memory", "--listen", &address, "--log", "off"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains(&address) && told.lines().count() == 1, "{told}");
}

#[test]
fn messages_are_kept_below_the_state_directory_unless_something_else_is_said() {
    let state = tempfile::tempdir().unwrap();
    for (variable, directory) in [("XDG_STATE_HOME", "ciphermq"), ("HOME", ".local/state/ciphermq")] {
        let start = || {
            let mut command = ciphermq();
            command.env_remove("XDG_STATE_HOME").env(variable, state.path());
            Broker::from(command, &["--log", "error"])
        };
        let broker = start();
        assert!(state.path().join(directory).join("log").is_dir());
        assert_eq!(broker.connect().ask("declare_exchange kept"), "Exchange declared");
        broker.signal(Signal::KILL);
        broker.end();
        let again = start();
        let mut wire = again.connect();
        wire.ask("hello 1");
        assert!(wire.ask("list_exchanges").contains("kept"));
    }
}

#[test]
fn in_memory_nothing_is_said_and_nothing_is_written() {
    let state = tempfile::tempdir().unwrap();
    let mut command = ciphermq();
    command.env("XDG_STATE_HOME", state.path()).env("HOME", state.path());
    let broker = Broker::from(command, &["--memory", "--log", "error"]);
    assert_eq!(broker.connect().ask("declare_queue gone"), "Queue declared");
    broker.signal(Signal::TERM);
    let (status, _, told) = broker.end();
    assert!(status.success() && told.is_empty(), "{told}");
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
}

#[test]
fn the_ready_line_is_all_of_stdout_and_a_signal_ends_it_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let broker = Broker::memory();
        let address = broker.address;
        assert_ne!(address.port(), 0);
        let mut modern = broker.connect();
        assert!(modern.ask("hello 1").starts_with("Hello 1 "));
        let mut legacy = broker.connect();
        assert_eq!(legacy.ask("declare_queue q"), "Queue declared");

        broker.signal(signal);
        assert!(modern.hear().starts_with("Closing: SHUTTING_DOWN "));
        assert_eq!(modern.hear(), "", "closed behind it");
        assert_eq!(legacy.hear(), "", "legacy clients hear nothing");
        let (status, rest, _) = broker.end();
        assert_eq!(status.code(), Some(0));
        assert_eq!(rest, "");
        assert!(TcpStream::connect(address).is_err(), "the port is free again");
    }
}

#[test]
fn flags_win_over_variables() {
    let output = support::ciphermq()
        .args(["serve", "--memory", "--listen", "0.0.0.0:1"])
        .env("CIPHERMQ_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = support::ciphermq().arg("serve").env("CIPHERMQ_LEASE_MS", "soon").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--lease-ms"));
}

#[test]
fn limits_from_the_command_line_reach_the_wire() {
    let broker = Broker::start(&["--memory", "--lease-ms", "1234", "--max-line", "8KiB"]);
    let hello = broker.connect().ask("hello 1");
    assert!(hello.contains(" lease=1234 ") && hello.contains(" max_line=8192 "), "{hello}");
}

#[test]
fn at_the_connection_limit_others_wait_and_are_not_closed() {
    let broker = Broker::start(&["--memory", "--max-connections", "2"]);
    let (mut first, mut second) = (broker.connect(), broker.connect());
    assert!(first.ask("hello 1").starts_with("Hello"));
    assert!(second.ask("hello 1").starts_with("Hello"));
    let mut third = broker.connect();
    third.say("hello 1");
    let socket = third.0.get_ref();
    socket.set_nonblocking(true).unwrap();
    assert_eq!(first.ask("ping still-served"), "Pong still-served");
    let waiting = socket.peek(&mut [0]).unwrap_err();
    assert_eq!(waiting.kind(), std::io::ErrorKind::WouldBlock, "neither answered nor closed");
    socket.set_nonblocking(false).unwrap();
    drop(second);
    assert!(third.hear().starts_with("Hello"), "served when there is room");
}

#[test]
fn without_open_files_left_others_wait_and_are_served_later() {
    const FILES: u32 = 40;
    let mut broker = Broker::with_open_files(FILES, &["--memory", "--log", "error"]);
    // The listen queue takes them all; most of them find a file, the last do not.
    let mut wires: Vec<_> = (0..FILES).map(|_| broker.connect()).collect();
    wires.iter_mut().for_each(|wire| wire.say("hello 1"));
    let mut late = wires.split_off(FILES as usize / 2);
    for early in &mut wires {
        assert!(early.hear().starts_with("Hello"));
    }
    // All are still open: sooner or later the process must run out of files, and say so.
    broker.wait_for_log("cannot accept connections");
    drop(wires);
    for late in &mut late {
        assert!(late.hear().starts_with("Hello"), "served when files are free again");
    }
    broker.signal(Signal::TERM);
    assert!(broker.end().0.success());
}

#[test]
fn a_log_stays_one_line_an_event_and_tells_no_body() {
    let broker = Broker::start(&["--memory", "--log", "trace"]);
    let mut wire = broker.connect();
    let evil = "\r\u{1b}[2J\u{202e}\u{2028}\u{9b}31m";
    for command in ["declare_queue", "declare_exchange", "consume", "hello 1 name=", "ack", "status", "nonsense"] {
        wire.ask(&format!("{command} {evil}FORGED"));
    }
    let body = r#"{"message_id":"m","enc_session_key":"SECRET-KEY","nonce":"n","tag":"t","ciphertext":"SECRET-BODY"}"#;
    assert_eq!(wire.ask(&format!("publish default_exchange default_key {body}")), "ACK m");
    assert!(wire.ask("fetch default_queue").starts_with("Message: m "));
    broker.signal(Signal::TERM);
    let (_, _, log) = broker.end();
    assert!(log.lines().count() > 5, "{log}");
    let hidden = |c: &char| (c.is_control() && *c != '\n') || ['\u{202e}', '\u{2028}'].contains(c);
    assert_eq!(log.chars().filter(hidden).collect::<String>(), "", "{log:?}");
    let level = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    for line in log.lines() {
        let level = level(line).unwrap_or_default();
        assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level.as_str()), "not an event: {line:?}");
    }
    assert!(!log.contains("SECRET"), "{log}");
}
