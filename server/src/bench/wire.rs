use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long anything may take that a healthy server does at once.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes read with one call: holds several of the longest lines a run uses.
const READ_BYTES: usize = 256 << 10;

/// A connection in modern mode that splits what it reads into lines, in place.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: TcpStream,
    input: Vec<u8>,
    filled: usize,
    /// Bytes of `input` that were handed out as lines.
    taken: usize,
}

impl Wire {
    /// Connects to a broker and says hello.
    pub(super) fn open(address: SocketAddr) -> io::Result<Wire> {
        let mut wire = Wire::open_bare(address)?;
        let hello = wire.ask("hello 1 name=bench")?;
        if hello.starts_with("Hello 1 ") { Ok(wire) } else { Err(unexpected(hello.as_bytes())) }
    }

    /// Connects and says nothing.
    pub(super) fn open_bare(address: SocketAddr) -> io::Result<Wire> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire { socket, input: vec![0; READ_BYTES], filled: 0, taken: 0 })
    }

    /// Sends a request and waits for one line, which must not be an error.
    pub(super) fn ask(&mut self, request: &str) -> io::Result<String> {
        self.socket.write_all(format!("{request}\n").as_bytes())?;
        loop {
            if let Some(line) = self.next_line() {
                return if line.starts_with(b"Error") { Err(unexpected(line)) } else { Ok(text(line)) };
            }
            self.read()?;
        }
    }

    /// The next whole line of what was read, without its LF.
    pub(super) fn next_line(&mut self) -> Option<&[u8]> {
        let unseen = &self.input[self.taken..self.filled];
        let end = memchr::memchr(b'\n', unseen)?;
        let start = self.taken;
        self.taken += end + 1;
        Some(&self.input[start..start + end])
    }

    /// Reads more behind what was not taken yet.
    pub(super) fn read(&mut self) -> io::Result<()> {
        self.input.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        if self.filled == self.input.len() {
            return Err(io::Error::new(ErrorKind::InvalidData, "the server sent a line longer than any asked for"));
        }
        match self.socket.read(&mut self.input[self.filled..]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(count) => {
                self.filled += count;
                Ok(())
            }
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::TimedOut, "the server did not answer in time"))
            }
            Err(fault) => Err(fault),
        }
    }
}

/// A line that should not have come.
pub(super) fn unexpected(line: &[u8]) -> io::Error {
    const SHOWN: usize = 200;
    let shown = &line[..line.len().min(SHOWN)];
    io::Error::new(ErrorKind::InvalidData, format!("the server answered {:?}", text(shown)))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}
