use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::course::{Publishing, Tally, Turn};

/// Bytes read with one call: several of the longest messages.
const READ_BYTES: usize = 256 << 10;

/// A connection of a line protocol; what it reads is split in place.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    /// Bytes of `input` that were handed out.
    taken: usize,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Wire> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, input: vec![0; READ_BYTES], filled: 0, taken: 0 })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Sends a line and waits for the one that answers it.
    pub(crate) async fn ask(&mut self, line: &str) -> Result<String> {
        self.send(line.as_bytes()).await?;
        loop {
            if let Some(reply) = self.line() {
                return Ok(String::from_utf8_lossy(reply).into_owned());
            }
            self.read().await?;
        }
    }

    /// Reads more behind what was not taken yet.
    pub(crate) async fn read(&mut self) -> Result<()> {
        self.input.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        ensure!(self.filled < self.input.len(), "the broker sent more in one piece than any message has");
        let count = self.stream.read(&mut self.input[self.filled..]).await?;
        ensure!(count > 0, "the broker closed the connection");
        self.filled += count;
        Ok(())
    }

    /// The next whole line, without its end.
    pub(crate) fn line(&mut self) -> Option<&[u8]> {
        let start = self.taken;
        let end = start + memchr::memchr(b'\n', &self.input[start..self.filled])?;
        self.taken = end + 1;
        let line = &self.input[start..end];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Where reading stands, to come back to before anything is read from the socket.
    pub(crate) fn mark(&self) -> usize {
        self.taken
    }

    /// Takes back what was taken since `mark`.
    pub(crate) fn back_to(&mut self, mark: usize) {
        self.taken = mark;
    }

    /// Skips `count` bytes if they are there.
    pub(crate) fn skip(&mut self, count: usize) -> bool {
        let is_there = self.filled - self.taken >= count;
        if is_there {
            self.taken += count;
        }
        is_there
    }
}

/// Publishes by `encode` and takes every line that starts with `reply` for a confirm.
pub(crate) async fn publish(
    mut wire: Wire,
    mut lane: Publishing,
    encode: impl Fn(&[u8], &mut Vec<u8>),
    reply: &[u8],
) -> Result<Tally> {
    let mut output = Vec::new();
    lane.begin().await;
    loop {
        match lane.turn() {
            Turn::Send(count) => {
                output.clear();
                (0..count).for_each(|_| encode(lane.message(), &mut output));
                wire.send(&output).await?;
            }
            Turn::Wait => {
                wire.read().await?;
                lane.confirmed(replies(&mut wire, reply)?)?;
            }
            Turn::Pause => lane.pause().await,
            Turn::Done => return Ok(lane.finish()),
        }
    }
}

fn replies(wire: &mut Wire, reply: &[u8]) -> Result<usize> {
    let mut count = 0;
    while let Some(line) = wire.line() {
        if !line.starts_with(reply) {
            return unexpected(line);
        }
        count += 1;
    }
    Ok(count)
}

/// The error for a line that should not have come.
pub(crate) fn unexpected<T>(line: &[u8]) -> Result<T> {
    const SHOWN: usize = 200;
    bail!("the broker answered {:?}", String::from_utf8_lossy(&line[..line.len().min(SHOWN)]))
}
