//! One connection, read with a deadline and written down as it goes.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::pattern::Pattern;
use crate::server::is_on_disk;

/// How long a read waits for what must come. Generous: it is only ever reached by a failing test.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How often [`poll_until`] looks.
const POLL_PERIOD: Duration = Duration::from_millis(5);

/// Lines of the conversation shown when a test fails.
const TRANSCRIPT_LINES_MAX: usize = 60;

/// Bytes of a line shown when a test fails.
const SHOWN_BYTES_MAX: usize = 240;

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// Looks until `condition` holds, for at most [`DEADLINE`]; `what` says what was waited for.
///
/// For conditions no line tells about, like the memory of the broker. Everything else waits for a line.
pub fn poll_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} for: {what}");
        thread::sleep(POLL_PERIOD);
    }
}

/// One connection to a broker.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Received, not yet taken as lines.
    input: Vec<u8>,
    transcript: Vec<String>,
    /// Lines that came before the one expected, see [`expect`](Self::expect).
    overtaken: VecDeque<String>,
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the broker accepts connections");
        stream.set_nodelay(true).expect("a socket option of every platform");
        Self { stream, input: Vec::new(), transcript: Vec::new(), overtaken: VecDeque::new() }
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are, in one write.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.note('>', &String::from_utf8_lossy(bytes));
        self.stream.set_write_timeout(Some(DEADLINE)).expect("not zero");
        if let Err(error) = self.stream.write_all(bytes) {
            self.fail(&format!("cannot send: {error}"));
        }
    }

    /// The next line, without LF.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.line_in(DEADLINE)
    }

    /// The next line, within less or more than [`DEADLINE`].
    #[track_caller]
    pub fn line_in(&mut self, time: Duration) -> String {
        match self.overtaken.pop_front() {
            Some(line) => line,
            None => self.read_line(time),
        }
    }

    #[track_caller]
    fn read_line(&mut self, time: Duration) -> String {
        self.line_within(time).unwrap_or_else(|why| self.fail(&why))
    }

    /// Takes the next line and compares it with a [`Pattern`].
    ///
    /// With a broker on disk, lines that it sends on its own may stand before or behind a reply that waits for the disk
    /// (section 1 of the protocol), so each kind is expected in its own order.
    #[track_caller]
    pub fn expect(&mut self, pattern: &str) -> String {
        let is_wanted = |line: &str| !is_on_disk() || is_push(line) == is_push(pattern);
        let overtaken = self.overtaken.iter().position(|line| is_wanted(line));
        let mut line = match overtaken.and_then(|at| self.overtaken.remove(at)) {
            Some(line) => line,
            None => self.read_line(DEADLINE),
        };
        while !is_wanted(&line) {
            self.overtaken.push_back(line);
            line = self.read_line(DEADLINE);
        }
        if Pattern::parse(pattern).matches(&line).is_none() {
            self.fail(&format!("expected  {}\n  received  {}", shown(pattern), shown(&line)));
        }
        line
    }

    /// Sends a line and takes its reply.
    #[track_caller]
    pub fn ask(&mut self, line: &str, reply: &str) -> String {
        self.send(line);
        self.expect(reply)
    }

    /// Moves the connection to modern mode; gives the session.
    #[track_caller]
    pub fn hello(&mut self) -> String {
        let line = self.ask("hello 1", "Hello 1 {fields}");
        let session = line.split(' ').find_map(|field| field.strip_prefix("session="));
        session.expect("the reply names the session").to_owned()
    }

    /// What one `read` of up to 64 KiB gives: what a client without framing would take for one line.
    #[track_caller]
    pub fn read_once(&mut self) -> String {
        assert!(self.input.is_empty(), "earlier bytes were left over");
        match self.fill(DEADLINE) {
            Ok(0) => self.fail("closed by the server"),
            Ok(_) => {}
            Err(why) => self.fail(&why),
        }
        let text = String::from_utf8(std::mem::take(&mut self.input)).expect("the broker sends UTF-8");
        self.note('<', &text);
        text
    }

    /// Fails if a line or the end comes within `time`.
    #[track_caller]
    pub fn expect_nothing_for(&mut self, time: Duration) {
        if let Some(line) = self.overtaken.front() {
            self.fail(&format!("nothing should have come, received {}", shown(line)));
        }
        if self.input.is_empty() {
            match self.fill(time) {
                Err(_) => return,
                Ok(0) => self.fail("closed by the server where nothing should have come"),
                Ok(_) => {}
            }
        }
        let text = String::from_utf8_lossy(&self.input).into_owned();
        self.fail(&format!("nothing should have come, received {}", shown(&text)));
    }

    /// Fails if anything beside `lines` was sent: asks something else and sees that its answer comes next.
    #[track_caller]
    pub fn expect_nothing_else(&mut self) {
        self.send("ping nothing-else");
        let line = self.line();
        if line != "Pong nothing-else" && line != "Unknown command" {
            self.fail(&format!("an extra line: {}", shown(&line)));
        }
    }

    /// Waits until the server has closed the connection; lines before that fail the test.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        self.expect_closed_within(DEADLINE);
    }

    /// See [`expect_closed`](Self::expect_closed).
    #[track_caller]
    pub fn expect_closed_within(&mut self, time: Duration) {
        match self.line_within(time) {
            Err(why) if why.starts_with("closed") => {}
            Err(why) => self.fail(&format!("should be closed: {why}")),
            Ok(line) => self.fail(&format!("should be closed, received {}", shown(&line))),
        }
    }

    /// Says that no more requests come, and goes on reading.
    pub fn half_close(&mut self) {
        self.note('>', "(half closed)");
        self.stream.shutdown(Shutdown::Write).expect("connected");
    }

    /// Closes the connection the ordinary way.
    pub fn close(self) {
        drop(self);
    }

    /// Sends `partial` and resets the connection.
    ///
    /// Linux sends RST instead of FIN when a socket is closed before everything received was read, so a reply is left
    /// unread on purpose.
    pub fn reset_after(mut self, partial: &str) {
        self.send_bytes(format!("ping unread\n{partial}").as_bytes());
        self.stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        let unread = self.stream.peek(&mut [0; 1]);
        assert!(matches!(unread, Ok(1)), "a reply to leave unread: {unread:?}");
    }

    /// The socket itself, for tests that write without ever reading.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn line_within(&mut self, time: Duration) -> Result<String, String> {
        let end = Instant::now() + time;
        let mut scanned = 0;
        loop {
            if let Some(at) = self.input[scanned..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.input.drain(..=scanned + at).collect();
                line.pop();
                let line = String::from_utf8(line).expect("the broker sends UTF-8");
                self.note('<', &line);
                return Ok(line);
            }
            scanned = self.input.len();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.fill(left)? == 0 {
                let what = if left.is_zero() { "no line in time" } else { "closed by the server" };
                return Err(what.to_owned());
            }
        }
    }

    /// Reads once; 0 is the end. `Err` says that nothing came in time.
    fn fill(&mut self, time: Duration) -> Result<usize, String> {
        self.stream.set_read_timeout(Some(time)).expect("not zero");
        let start = self.input.len();
        self.input.resize(start + READ_BYTES, 0);
        let read = self.stream.read(&mut self.input[start..]);
        self.input.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(format!("no line in {time:?}"))
            }
            // A reset is an end too: the server closed while bytes of ours were on their way.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            Err(error) => Err(format!("cannot read: {error}")),
            Ok(read) => Ok(read),
        }
    }

    fn note(&mut self, direction: char, text: &str) {
        if self.transcript.len() == 2 * TRANSCRIPT_LINES_MAX {
            self.transcript.drain(..TRANSCRIPT_LINES_MAX);
        }
        self.transcript.push(format!("{direction} {}", shown(text)));
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        let mut text = String::new();
        for line in self.transcript.iter().rev().take(TRANSCRIPT_LINES_MAX).rev() {
            let _ = writeln!(text, "  {line}");
        }
        panic!("{why}\nthe conversation so far:\n{text}");
    }
}

/// Whether it is a line a broker sends on its own.
fn is_push(line: &str) -> bool {
    ["Message: ", "Cancelled: ", "Closing: "].iter().any(|word| line.starts_with(word))
}

fn shown(text: &str) -> String {
    let text = text.trim_end_matches('\n');
    match text.char_indices().nth(SHOWN_BYTES_MAX) {
        Some((end, _)) => format!("{:?} … {} bytes", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
