use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::thread;

use cipher_client::crypto::{PublicKey, Sealer};
use cipher_client::trust::Recipient;
use cipher_client::{Ack, Client, Confirm, ConnectOptions, Publisher};
use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::{self, Fault, Send, Status};
use crate::key::files;
use crate::logging;

/// Messages read ahead of the connection.
const READ_AHEAD: usize = 64;
/// Publishes that wait for their ACK at a time.
const WINDOW: usize = 256;
/// Bytes of one line of input: no broker takes a longer message.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// `ciphermq send`: each argument or line of input becomes one sealed message.
pub(crate) fn run(options: Send) -> Result<Status, Fault> {
    logging::start("warn").map_err(Fault::runtime)?;
    if options.id.is_some() && options.messages.len() != 1 {
        return Err(Fault::usage("--id names one message: give exactly one as argument"));
    }
    let sealer = sealer(&options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::runtime)?;
    let failed = runtime.block_on(send(options, sealer))?;
    Ok(if failed == 0 { Status::Success } else { Status::Failure })
}

fn sealer(options: &Send) -> Result<Sealer, Fault> {
    let keys: Vec<PublicKey> = options.to.iter().map(|path| files::recipient(path)).collect::<Result<_, _>>()?;
    let builder = Sealer::builder(keys.into_iter().map(Recipient::from_own_source));
    let builder = match &options.sign {
        Some(path) => {
            let identity = files::identity(path, &options.key_use.passphrase, options.key_use.exposed())?;
            builder.identity(Arc::new(identity))
        }
        None => builder,
    };
    builder.build().map_err(Fault::runtime)
}

/// How many messages the broker has not confirmed.
async fn send(options: Send, sealer: Sealer) -> Result<u64, Fault> {
    let connect = ConnectOptions::new(&options.server).name("ciphermq-send").window(WINDOW);
    let connected = Client::connect(connect).await;
    let client = connected.map_err(|fault| cli::not_connected(&options.server, &fault))?;
    let publisher = client.publisher(&options.exchange, &options.key, sealer).map_err(Fault::runtime)?;
    let mut messages = source(options.messages);
    let mut confirms = VecDeque::with_capacity(WINDOW);
    let mut outcomes = Outcomes { show: Show::from(options.print_ids, options.json), failed: 0 };
    let mut reading = true;
    while reading || !confirms.is_empty() {
        tokio::select! {
            message = messages.recv(), if reading && confirms.len() < WINDOW => match message {
                Some(Ok(message)) => match publish(&publisher, options.id.as_deref(), &message).await {
                    Ok(confirm) => confirms.push_back(confirm),
                    Err(fault) => outcomes.failed(&fault),
                },
                Some(Err(fault)) => outcomes.failed(&fault),
                None => reading = false,
            },
            outcome = first(&mut confirms), if !confirms.is_empty() => {
                confirms.pop_front();
                match outcome {
                    Ok(ack) => outcomes.stored(&ack)?,
                    Err(fault) => outcomes.failed(&fault),
                }
            }
        }
    }
    client.close().await.map_err(Fault::runtime)?;
    Ok(outcomes.failed)
}

async fn publish(publisher: &Publisher, id: Option<&str>, message: &[u8]) -> cipher_client::Result<Confirm> {
    match id {
        Some(id) => publisher.publish_with_id(id, message).await,
        None => publisher.publish(message).await,
    }
}

/// Only the first is waited for: replies come in order.
async fn first(confirms: &mut VecDeque<Confirm>) -> cipher_client::Result<Ack> {
    match confirms.front_mut() {
        Some(confirm) => confirm.await,
        None => std::future::pending().await,
    }
}

/// What is told about messages: ids on stdout as they are stored, failures on stderr.
struct Outcomes {
    show: Show,
    failed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Nothing,
    Ids,
    Json,
}

impl Show {
    fn from(ids: bool, json: bool) -> Show {
        match (json, ids) {
            (true, _) => Show::Json,
            (false, true) => Show::Ids,
            (false, false) => Show::Nothing,
        }
    }
}

impl Outcomes {
    fn stored(&mut self, ack: &Ack) -> Result<(), Fault> {
        let id = ack.message_id();
        let mut stdout = io::stdout().lock();
        let written = match self.show {
            Show::Nothing => Ok(()),
            Show::Ids => writeln!(stdout, "{id}"),
            Show::Json => writeln!(stdout, "{}", json!({ "message_id": id })),
        };
        match written.and_then(|()| stdout.flush()) {
            // Whoever read the ids has seen enough; the messages are still to be sent.
            Err(fault) if fault.kind() == ErrorKind::BrokenPipe => self.show = Show::Nothing,
            written => written.map_err(Fault::runtime)?,
        }
        Ok(())
    }

    fn failed(&mut self, fault: &(dyn std::error::Error + 'static)) {
        self.failed += 1;
        eprintln!("ciphermq: a message was not confirmed: {}", cli::one_line(fault));
    }
}

/// Messages from the arguments, or from stdin when there are none. Ends after the first error.
fn source(arguments: Vec<String>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, messages) = mpsc::channel(READ_AHEAD);
    // A thread, because reading a terminal cannot be interrupted; it ends with the process.
    thread::spawn(move || {
        if arguments.is_empty() {
            let mut stdin = io::stdin().lock();
            let lines = std::iter::from_fn(|| line(&mut stdin).transpose());
            forward(&sender, lines);
        } else {
            forward(&sender, arguments.into_iter().map(|message| Ok(message.into_bytes())));
        }
    });
    messages
}

fn forward(to: &mpsc::Sender<io::Result<Vec<u8>>>, messages: impl Iterator<Item = io::Result<Vec<u8>>>) {
    for message in messages {
        let is_last = message.is_err();
        if to.blocking_send(message).is_err() || is_last {
            return;
        }
    }
}

/// The next line without its end, `None` at the end of the input.
fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(MESSAGE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line).len()) {
        Some(end) => line.truncate(end),
        None if line.is_empty() => return Ok(None),
        None if line.len() as u64 > MESSAGE_BYTES_MAX => {
            return Err(io::Error::new(ErrorKind::InvalidData, "a line of input is longer than 64 MiB"));
        }
        None => {}
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn every_line_is_a_message_empty_ones_and_the_last_included() {
        let mut input: &[u8] = b"one\r\n\ntw\xff o\nlast";
        let mut lines = Vec::new();
        while let Some(line) = line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [&b"one"[..], b"", b"tw\xff o", b"last"]);
    }
}
