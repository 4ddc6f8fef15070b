use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, warn};

use crate::limits;

/// A listening socket. It needs no runtime: connections wait in its queue until somebody accepts them.
pub(crate) fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted broker takes its address back while connections of the last one linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections and starts `serve` for each, at most `connections_max` at a time, for ever.
///
/// At the limit nothing is accepted: original clients whose connection is closed at once come back in a tight loop,
/// while one that waits in the listen queue waits quietly.
pub(crate) async fn accept(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
    connections_max: usize,
    mut serve: impl FnMut(&mut JoinSet<()>, TcpStream),
) {
    let mut pause = limits::ACCEPT_PAUSE_MIN;
    loop {
        let room = connections.len() < connections_max;
        tokio::select! {
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, peer)) => {
                    pause = limits::ACCEPT_PAUSE_MIN;
                    if let Err(fault) = tune(&stream) {
                        debug!(%peer, %fault, "connection lost before it was served");
                        continue;
                    }
                    serve(connections, stream);
                    if connections.len() == connections_max {
                        warn!(connections_max, "connection limit reached; further ones wait");
                    }
                }
                Err(fault) if is_of_one_connection(&fault) => debug!(%fault, "connection lost before it was accepted"),
                Err(fault) => pause = back_off(&fault, pause).await,
            },
            Some(ended) = connections.join_next() => report(ended),
        }
    }
}

/// Collects what has ended without waiting for more; the end of the task set is the end of all connections.
pub(crate) async fn drain(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    // Replies are small and somebody waits for each.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(limits::KEEPALIVE_IDLE)
        .with_interval(limits::KEEPALIVE_INTERVAL)
        .with_retries(limits::KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Whether accepting failed because of the connection, so that the next one may do better at once.
fn is_of_one_connection(fault: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(fault.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Out of files or memory: the connection stays in the queue, so trying again at once would only spin.
async fn back_off(fault: &io::Error, pause: Duration) -> Duration {
    error!(%fault, pause_ms = pause.as_millis(), "cannot accept connections, trying again");
    tokio::time::sleep(pause).await;
    (pause * 2).min(limits::ACCEPT_PAUSE_MAX)
}

/// A panic in one connection must not go unseen; the others go on.
fn report(ended: Result<(), JoinError>) {
    if let Err(fault) = ended
        && fault.is_panic()
    {
        error!(%fault, "a connection ended by a bug in the broker, please report it");
    }
}
