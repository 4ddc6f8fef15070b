//! The real binary as a child process.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

pub(crate) mod place;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should be quick.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The binary, without what the developer's environment says.
pub(crate) fn ciphermq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ciphermq"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CIPHERMQ_")) {
        command.env_remove(name);
    }
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    ciphermq().args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A running `ciphermq serve`.
pub(crate) struct Broker {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Broker {
    pub(crate) fn start(arguments: &[&str]) -> Broker {
        Broker::from(ciphermq(), arguments)
    }

    /// A broker that may open so many files and no more.
    pub(crate) fn with_open_files(files: u32, arguments: &[&str]) -> Broker {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ciphermq")]);
        Broker::from(shell, arguments)
    }

    pub(crate) fn from(mut command: Command, arguments: &[&str]) -> Broker {
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.strip_prefix("CipherMQ ready on ").expect("the ready line").trim_end().parse().unwrap();
        Broker { child, address, stdout, stderr }
    }

    pub(crate) fn memory() -> Broker {
        Broker::start(&["--memory"])
    }

    pub(crate) fn connect(&self) -> Wire {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire(BufReader::new(stream))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(&self.child, signal);
    }

    /// Reads stderr up to a line that has this text.
    pub(crate) fn wait_for_log(&mut self, told: &str) {
        let mut line = String::new();
        while !line.contains(told) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "ended without saying {told:?}");
        }
    }

    /// Waits for the end: exit status, the rest of stdout, stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        let (mut rest, mut log) = (String::new(), String::new());
        self.stderr.read_to_string(&mut log).unwrap();
        self.stdout.read_to_string(&mut rest).unwrap();
        (wait(&mut self.child), rest, log)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal_to(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process did not end");
        std::thread::yield_now();
    }
}

/// A conversation in lines.
pub(crate) struct Wire(pub(crate) BufReader<TcpStream>);

impl Wire {
    pub(crate) fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line, empty at the end.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }
}
