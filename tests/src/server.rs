//! The broker as a child process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

use crate::wire::{DEADLINE, Wire};
use crate::{envelope, workspace};

/// How long a broker may take until it says that it is ready, a busy machine included.
const READY_DEADLINE: Duration = Duration::from_secs(30);

const STARTS: &str = "the binary starts";

/// Bytes of the broker's log shown when a test fails.
const LOG_BYTES_SHOWN: usize = 4096;

/// A running `ciphermq serve` on a free port of the loopback interface; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    /// Where its log is.
    directory: TempDir,
    started_in: Duration,
}

impl Server {
    /// Starts a broker with its defaults, see [`with`](Self::with).
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a broker with additional flags: in memory, or in a directory of its own when `CIPHERMQ_TEST_STORE` is `disk`.
    pub fn with(flags: &[&str]) -> Self {
        let directory = temporary();
        let data = directory.path().join("data");
        Self::spawn(is_on_disk().then_some(data.as_path()), flags, directory)
    }

    /// Starts a broker that keeps its messages in `data`, with additional flags.
    pub fn on_disk(data: &Path, flags: &[&str]) -> Self {
        Self::spawn(Some(data), flags, temporary())
    }

    /// Starts a broker that keeps its messages in `data` and kills it after a while, whatever it does by then.
    pub fn start_and_kill(data: &Path, flags: &[&str], after: Duration) {
        let mut child = serve(Some(data)).args(flags).stderr(Stdio::null()).spawn().expect(STARTS);
        thread::sleep(after);
        child.kill().expect("it is our child and not waited for");
        child.wait().expect("it is our child");
    }

    fn spawn(data: Option<&Path>, flags: &[&str], directory: TempDir) -> Self {
        let log = File::create(directory.path().join("log")).expect("the directory was just made");
        let mut command = serve(data);
        let began = Instant::now();
        let mut child = command.args(flags).stderr(log).spawn().expect(STARTS);
        let stdout = child.stdout.take().expect("it was asked for");
        let (sender, receiver) = mpsc::channel();
        // Reads on after the first line, so that the broker never writes into a closed pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let ready = receiver.recv_timeout(READY_DEADLINE);
        let address = ready.ok().and_then(|line| line.strip_prefix("CipherMQ ready on ")?.parse().ok());
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let started_in = began.elapsed();
        let server = Self { child, address: address.unwrap_or(unknown), directory, started_in };
        assert!(address.is_some(), "the broker did not say that it is ready");
        server
    }

    /// Runs the program to its end, for what should end by itself.
    pub fn run(arguments: &[&str]) -> Output {
        command().args(arguments).stdin(Stdio::null()).output().expect(STARTS)
    }

    /// How long it took from the start of the process to its ready line.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new connection.
    pub fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// A new connection in modern mode.
    pub fn connect_modern(&self) -> Wire {
        let mut wire = self.connect();
        wire.hello();
        wire
    }

    /// Fails unless a message of a new connection goes through the broker, on queues of its own.
    #[track_caller]
    pub fn assert_serves(&self) {
        let mut wire = self.connect_modern();
        for (line, reply) in [
            ("declare_queue still-serves", "Queue declared"),
            ("declare_exchange still-serves", "Exchange declared"),
            ("bind still-serves still-serves k", "Queue bound"),
            ("purge still-serves", "Purged 0"),
        ] {
            wire.ask(line, reply);
        }
        let id = format!("serves-{}", wire.stream().local_addr().expect("connected").port());
        wire.ask(&format!("publish still-serves k {}", envelope(&id)), &format!("ACK {id}"));
        wire.ask("fetch still-serves", &format!("Fetched: {id} {{rest}}"));
        wire.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"));
        wire.ask("quit", "Bye");
        wire.expect_closed();
    }

    /// One member of `stats`, on a connection of its own.
    pub fn stat(&self, name: &str) -> serde_json::Value {
        let mut wire = self.connect_modern();
        let line = wire.ask("stats", "Stats: {json}");
        let stats: serde_json::Value = serde_json::from_str(&line["Stats: ".len()..]).expect("stats is JSON");
        assert!(stats.get(name).is_some(), "stats has {name}: {line}");
        stats[name].clone()
    }

    /// One row of `list_queues`, on a connection of its own.
    pub fn queue(&self, name: &str) -> serde_json::Value {
        let mut wire = self.connect_modern();
        let line = wire.ask("list_queues", "Queues: {json}");
        let rows: serde_json::Value = serde_json::from_str(&line["Queues: ".len()..]).expect("list_queues is JSON");
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["queue"] == name));
        row.unwrap_or_else(|| panic!("no queue '{name}' in {line}")).clone()
    }

    /// Processor time the process has used.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the broker runs");
        let behind_name = stat.rsplit(") ").next().expect("proc(5): the name stands in parentheses");
        let ticks = |field: usize| behind_name.split(' ').nth(field - 3).and_then(|it| it.parse::<u64>().ok());
        // Fields 14 and 15 of proc(5), in ticks of 10 ms on Linux.
        Duration::from_millis((ticks(14).expect("utime") + ticks(15).expect("stime")) * 10)
    }

    /// Resident memory of the process.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs, on Linux");
        let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel's format");
        row.trim().trim_end_matches(" kB").parse().expect("the kernel's format")
    }

    /// Ends the process in the middle of whatever it does (`kill -9`).
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child and not waited for");
        self.child.wait().expect("it is our child");
    }

    /// Asks the process to end, as a service manager does (SIGTERM).
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is our child and not waited for");
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < end, "the broker did not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let mut start = log.len().saturating_sub(LOG_BYTES_SHOWN);
            while !log.is_char_boundary(start) {
                start += 1;
            }
            eprintln!("the broker's log:\n{}", &log[start..]);
        }
    }
}

/// Whether brokers of tests that do not say are on disk: `CIPHERMQ_TEST_STORE=disk`.
pub(crate) fn is_on_disk() -> bool {
    env::var("CIPHERMQ_TEST_STORE").is_ok_and(|store| store == "disk")
}

/// Lets this process open as many files as the system allows it; gives how many.
pub fn raise_open_files() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the maximum is always allowed");
    maximum.unwrap_or(u64::MAX)
}

/// `ciphermq serve` on a free port, in memory or in a directory.
fn serve(data: Option<&Path>) -> Command {
    let mut command = command();
    command.args(["serve", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    match data {
        None => command.arg("--memory"),
        Some(data) => command.arg("--data-dir").arg(data),
    };
    command
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// The program, without settings of whoever runs the tests.
fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CIPHERMQ_")) {
        command.env_remove(name);
    }
    command
}

/// The program under test: `CIPHERMQ_BIN`, or what cargo builds now.
///
/// A package gets no `CARGO_BIN_EXE_…` for the program of another, and a program left over in the target directory may
/// be an old one: so cargo is asked, which takes a moment when nothing has changed.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CIPHERMQ_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).args(["build", "--quiet", "-p", "ciphermq-server", "--bin", "ciphermq"]);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo runs: it runs this test");
    assert!(output.status.success(), "cargo build -p ciphermq-server failed");
    let messages = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "ciphermq").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables.next_back().expect("cargo names the program it built")
}
