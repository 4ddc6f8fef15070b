use std::io;
use std::sync::Arc;

use clap::ValueEnum;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the bare server answers to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Echo {
    /// The line itself: what an end-to-end run moves.
    Line,
    /// As many bytes as an ACK has: what a publish run moves.
    Ack,
}

/// Bytes read with one call, as many as the broker reads.
const READ_BYTES: usize = 64 << 10;
/// What stands for an ACK.
pub(super) const ACK_REPLY: &[u8] = b"ACK 00000000-0000-0000-0000-000000000000\n";

/// Runs a server that finds the end of each line and answers, and does nothing else: the limit of the machine.
pub(super) fn serve(echo: Echo) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("echo ready on {}", listener.local_addr()?);
        let replies: Arc<[u8]> = ACK_REPLY.repeat(READ_BYTES).into();
        loop {
            let (stream, _) = listener.accept().await?;
            let replies = Arc::clone(&replies);
            tokio::spawn(async move {
                // A connection ends when the bench is done with it.
                drop(answer(stream, echo, &replies).await);
            });
        }
    })
}

async fn answer(mut stream: TcpStream, echo: Echo, replies: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = vec![0; READ_BYTES];
    loop {
        let count = stream.read(&mut input).await?;
        if count == 0 {
            return Ok(());
        }
        let lines = memchr::memchr_iter(b'\n', &input[..count]).count();
        match echo {
            Echo::Line => stream.write_all(&input[..count]).await?,
            Echo::Ack => stream.write_all(&replies[..lines * ACK_REPLY.len()]).await?,
        }
    }
}
