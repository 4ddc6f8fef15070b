//! One connection to the broker: bytes, `hello`, and nothing of what is said.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ciphermq_protocol::{Command, Decoder, Name, Reply, ServerLine};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::fault::Fault;
use crate::options::ConnectOptions;

/// Output put together before a write; more waits in the requests themselves.
pub(crate) const WRITE_BYTES: usize = 256 << 10;

/// Output memory kept after one long line.
const WRITE_BYTES_KEPT: usize = 2 * WRITE_BYTES;

/// How a client gets a stream of bytes to its broker.
pub(crate) trait Connect: Send + Sync + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn connect(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// Over TCP, without delaying small segments.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub address: String,
}

impl Connect for Tcp {
    type Io = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A connection that has said `hello`.
#[derive(Debug)]
pub(crate) struct Link<S> {
    io: S,
    decoder: Decoder,
    out: Vec<u8>,
    written: usize,
    pub since: Instant,
    pub last_heard: Instant,
}

/// What the broker said of itself.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub session: String,
    pub line_bytes_max: usize,
}

/// Connects and says `hello`, within the time the options give for both.
pub(crate) async fn establish<C: Connect>(
    connector: &C,
    options: &ConnectOptions,
    session: Option<&str>,
) -> Result<(Link<C::Io>, Greeting), Fault> {
    let attempt = async {
        let mut link = Link::new(connector.connect().await?, options.max_line);
        let greeting = link.hello(options.name.as_deref(), session).await?;
        Ok((link, greeting))
    };
    timeout(options.connect_timeout, attempt).await.unwrap_or(Err(Fault::Slow))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    fn new(io: S, max_line: usize) -> Self {
        let now = Instant::now();
        Self { io, decoder: Decoder::new(max_line), out: Vec::new(), written: 0, since: now, last_heard: now }
    }

    async fn hello(&mut self, name: Option<&str>, session: Option<&str>) -> Result<Greeting, Fault> {
        let name = name.and_then(|name| Name::parse(name).ok());
        let hello = crate::line::encode(&Command::Hello { name, session });
        self.io.write_all(&hello).await?;
        self.io.flush().await?;
        loop {
            if let Some(line) = self.decoder.next_line().map_err(|long| Fault::LineTooLong { max: long.max })? {
                return read_greeting(line);
            }
            let read = self.io.read(self.decoder.spare()).await?;
            self.decoder.advance(read);
            if read == 0 {
                return Err(Fault::Eof);
            }
        }
    }

    /// Where the next lines to send go, when all before them are sent.
    pub(crate) fn outbox(&mut self) -> Option<&mut Vec<u8>> {
        if !self.is_flushed() {
            return None;
        }
        self.out.clear();
        self.out.shrink_to(WRITE_BYTES_KEPT);
        self.written = 0;
        Some(&mut self.out)
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.written == self.out.len()
    }

    /// Sends as much as the socket takes; whether anything moved.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let before = self.written;
        while !self.is_flushed() {
            match Pin::new(&mut self.io).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(Fault::Io(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(Fault::Io(error)),
                Poll::Pending => return Ok(self.written > before),
            }
        }
        if self.written > before
            && let Poll::Ready(Err(error)) = Pin::new(&mut self.io).poll_flush(cx)
        {
            return Err(Fault::Io(error));
        }
        Ok(self.written > before)
    }

    /// Reads once.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut buffer = ReadBuf::new(self.decoder.spare());
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            let fault = if self.decoder.is_mid_line() { Fault::CutOff } else { Fault::Eof };
            return Poll::Ready(Err(fault));
        }
        self.decoder.advance(count);
        Poll::Ready(Ok(()))
    }

    /// The next line that has come.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, Fault> {
        self.decoder.next_line().map_err(|long| Fault::LineTooLong { max: long.max })
    }

    /// Sends what is left, says `quit`, and waits for the broker to close.
    pub(crate) async fn quit(mut self) -> io::Result<()> {
        self.io.write_all(&self.out[self.written..]).await?;
        self.io.write_all(&crate::line::encode(&Command::Quit)).await?;
        self.io.flush().await?;
        let mut rest = [0; 4096];
        while self.io.read(&mut rest).await? > 0 {}
        Ok(())
    }
}

fn read_greeting(line: &[u8]) -> Result<Greeting, Fault> {
    match ServerLine::parse(line) {
        Ok(ServerLine::Reply(Reply::Hello(hello))) => Ok(Greeting {
            session: hello.session.to_owned(),
            line_bytes_max: usize::try_from(hello.max_line).unwrap_or(usize::MAX),
        }),
        Ok(ServerLine::Reply(Reply::Error { code, text })) => Err(Fault::Refused { code, text: text.to_owned() }),
        _ => Err(Fault::Protocol("hello was not understood: not a CipherMQ broker, or one of an older kind")),
    }
}
