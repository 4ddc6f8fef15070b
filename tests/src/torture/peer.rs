//! A connection that may break at any byte.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::history::History;

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// The connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A connection in modern mode. That it breaks is right only when the round is ending.
#[derive(Debug)]
pub(super) struct Peer<'a> {
    stream: TcpStream,
    input: Vec<u8>,
    taken: usize,
    history: &'a History,
}

impl<'a> Peer<'a> {
    pub(super) fn connect(address: SocketAddr, history: &'a History) -> Result<Peer<'a>, Broken> {
        let connected = TcpStream::connect(address);
        let stream = connected.map_err(|error| broken(history, &format!("connecting: {error}")))?;
        stream.set_nodelay(true).expect("a socket option of every platform");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
        let mut peer = Peer { stream, input: Vec::new(), taken: 0, history };
        peer.send("hello 1\n")?;
        let hello = peer.line()?;
        if !hello.starts_with("Hello 1 ") {
            history.violate(format!("hello was answered {hello}"));
        }
        Ok(peer)
    }

    pub(super) fn send(&mut self, text: &str) -> Result<(), Broken> {
        let sent = self.stream.write_all(text.as_bytes());
        sent.map_err(|error| broken(self.history, &format!("writing: {error}")))
    }

    /// Sends a line and takes the next one, which must be its answer.
    pub(super) fn ask(&mut self, line: &str) -> Result<String, Broken> {
        self.send(&format!("{line}\n"))?;
        self.line()
    }

    /// The next line. One that says that the server stops is the beginning of the end.
    pub(super) fn line(&mut self) -> Result<String, Broken> {
        loop {
            match self.line_end() {
                None => self.read()?,
                Some(end) => {
                    let line = self.input[self.taken..end].to_vec();
                    self.taken = end + 1;
                    let line = String::from_utf8(line).expect("the broker sends UTF-8");
                    if !line.starts_with("Closing: SHUTTING_DOWN") {
                        return Ok(line);
                    }
                }
            }
        }
    }

    /// Whether the next line was read already.
    pub(super) fn has_line(&self) -> bool {
        self.line_end().is_some()
    }

    /// Whether the next line is this one; waits for it. It stays to be taken.
    pub(super) fn next_is(&mut self, line: &str) -> bool {
        loop {
            if let Some(end) = self.line_end() {
                return &self.input[self.taken..end] == line.as_bytes();
            }
            if self.read().is_err() {
                return false;
            }
        }
    }

    /// Waits until the broker has closed the connection: then everything it held is back.
    pub(super) fn wait_for_end(mut self) {
        self.input.resize(READ_BYTES, 0);
        while let Ok(1..) = self.stream.read(&mut self.input) {}
    }

    fn line_end(&self) -> Option<usize> {
        let end = self.input[self.taken..].iter().position(|byte| *byte == b'\n')?;
        Some(self.taken + end)
    }

    fn read(&mut self) -> Result<(), Broken> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let start = self.input.len();
        self.input.resize(start + READ_BYTES, 0);
        let read = self.stream.read(&mut self.input[start..]);
        self.input.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(broken(self.history, "the broker closed the connection")),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.history.violate(format!("no answer in {PATIENCE:?}"));
                Err(Broken)
            }
            Err(error) => Err(broken(self.history, &format!("reading: {error}"))),
        }
    }
}

fn broken(history: &History, how: &str) -> Broken {
    if !history.is_over() {
        history.violate(format!("a connection broke while the broker ran: {how}"));
    }
    Broken
}
