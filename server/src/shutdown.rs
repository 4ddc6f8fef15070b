use std::future::Future;
use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::cli::Status;

/// Completes at the first SIGINT or SIGTERM; the second ends the process at once.
///
/// Signals are caught from this call on, not from the first poll.
pub(crate) fn on_signal() -> io::Result<impl Future<Output = ()>> {
    let mut signals =
        Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
    Ok(async move {
        let name = signals.next().await;
        info!(signal = name, "stopping; a second signal stops at once");
        tokio::spawn(async move {
            signals.next().await;
            process::exit(Status::Failure as i32);
        });
    })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
