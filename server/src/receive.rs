use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cipher_client::crypto::{Context, Keyset, Opener, Sender, SuiteSet};
use cipher_client::dedupe::{DedupeOptions, DedupeWindow};
use cipher_client::trust::{SenderPolicy, Senders};
use cipher_client::{Client, ConnectOptions, ConsumeOptions, Consumer, Delivery, Settled};
use serde::Serialize;

use crate::cli::{self, Fault, Receive, Status};
use crate::key;
use crate::key::files;
use crate::logging;
use crate::printable::{Printable, PrintableJson};
use crate::shutdown;

/// Acks that wait for their confirmation at a time.
const ACKS_MAX: usize = 256;

/// `ciphermq receive`: prints opened messages, acknowledging each after it was written.
pub(crate) fn run(options: &Receive) -> Result<Status, Fault> {
    logging::start("warn").map_err(Fault::runtime)?;
    let mut keys = Keys::of(options)?;
    let opener = keys.opener()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::runtime)?;
    runtime.block_on(async {
        let mut stop = pin!(shutdown::on_signal().map_err(Fault::runtime)?);
        let connect = ConnectOptions::new(&options.server).name("ciphermq-receive");
        let connected = Client::connect(connect).await;
        let client = connected.map_err(|fault| cli::not_connected(&options.server, &fault))?;
        let prefetch = options.count.map_or(u64::MAX, |count| count.max(1)).min(ACKS_MAX as u64) as u32;
        let consume = remembering(ConsumeOptions::new().prefetch(prefetch), options)?;
        let mut consumer = client.consume(&options.queue, opener, consume).await.map_err(Fault::runtime)?;
        let status = receive(&mut consumer, &mut keys, options, stop.as_mut()).await?;
        consumer.close().await.map_err(Fault::runtime)?;
        client.close().await.map_err(Fault::runtime)?;
        Ok(status)
    })
}

/// Opens with one key, or with all of a keyset; with --from only what one of the senders signed.
struct Keys {
    keyset: Keyset,
    senders: SenderPolicy,
    suites: SuiteSet,
    places: Vec<Context>,
}

impl Keys {
    fn of(options: &Receive) -> Result<Keys, Fault> {
        let Receive { identity, key_use, suites, only_for, .. } = options;
        Ok(Keys {
            keyset: files::opening(identity, &key_use.passphrase, key_use.exposed())?,
            senders: policy(options)?,
            suites: if suites.is_empty() { SuiteSet::default() } else { SuiteSet::of(suites.iter().copied()) },
            places: only_for.clone(),
        })
    }

    fn opener(&self) -> Result<Opener, Fault> {
        let builder = Opener::builder(&self.keyset).senders(self.senders.clone()).suites(self.suites);
        let builder = match self.places.is_empty() {
            true => builder,
            false => builder.only_for(self.places.iter().cloned()),
        };
        builder.build().map_err(Fault::runtime)
    }

    /// What opens since the keyset was rotated, if it was.
    fn rotated(&mut self) -> Result<Option<Opener>, Fault> {
        match self.keyset.reload().map_err(Fault::runtime)? {
            true => self.opener().map(Some),
            false => Ok(None),
        }
    }
}

fn policy(options: &Receive) -> Result<SenderPolicy, Fault> {
    if options.from.is_empty() {
        return Ok(SenderPolicy::default());
    }
    let policy = SenderPolicy::require_signed(Arc::new(senders(&options.from)?));
    Ok(match options.max_age_s {
        Some(seconds) => policy.max_age(Duration::from_secs(seconds)),
        None => policy,
    })
}

fn senders(paths: &[PathBuf]) -> Result<Senders, Fault> {
    let senders = Senders::in_memory();
    for path in paths {
        senders.add(&path.to_string_lossy(), files::sender(path)?).map_err(|fault| key::at(path, fault))?;
    }
    Ok(senders)
}

fn remembering(consume: ConsumeOptions, options: &Receive) -> Result<ConsumeOptions, Fault> {
    let Some(path) = &options.dedupe else { return Ok(consume) };
    let window = DedupeWindow::open(path, DedupeOptions::default(), SystemTime::now()).map_err(Fault::runtime)?;
    Ok(consume.dedupe(Arc::new(Mutex::new(window))))
}

async fn receive(
    consumer: &mut Consumer,
    keys: &mut Keys,
    options: &Receive,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Status, Fault> {
    let mut out = Out { stdout: io::stdout(), shape: Shape::of(options.json) };
    let mut acks = VecDeque::new();
    let mut status = Status::Success;
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        let message = tokio::select! {
            message = consumer.next() => message,
            () = stop.as_mut() => break,
            () = quiet_for(options.timeout_ms) => {
                // Fewer than asked for is a failure, an emptied queue is not.
                status = if options.count.is_some() { Status::Failure } else { status };
                break;
            }
        };
        let delivery = match message {
            Some(Ok(delivery)) => delivery,
            Some(Err(fault)) => {
                if let Some(opener) = rotated(&fault, keys) {
                    consumer.set_opener(opener).map_err(Fault::runtime)?;
                    let again = fault.into_undecryptable().map_err(Fault::runtime)?.release().await;
                    again.map_err(Fault::runtime)?;
                } else {
                    not_opened(fault)?;
                    status = Status::Failure;
                }
                continue;
            }
            None => return Err(Fault::runtime("the queue was deleted, or the connection is over")),
        };
        match out.write(&delivery) {
            Ok(()) => acks.push_back(delivery.ack_later().map_err(Fault::runtime)?),
            // The reader has seen enough. What it did not take stays in the queue.
            Err(fault) if fault.kind() == ErrorKind::BrokenPipe => break,
            Err(fault) => return Err(Fault::runtime(fault)),
        }
        left -= 1;
        settle(&mut acks, ACKS_MAX, &mut status).await;
    }
    settle(&mut acks, 0, &mut status).await;
    Ok(status)
}

async fn quiet_for(timeout_ms: Option<u64>) {
    match timeout_ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}

/// A message may be for a key that the keyset has had only since this program began.
fn rotated(fault: &cipher_client::Error, keys: &mut Keys) -> Option<Opener> {
    if *fault.kind() != cipher_client::ErrorKind::Decrypt {
        return None;
    }
    keys.rotated().unwrap_or_else(|fault| {
        eprintln!("ciphermq: the keyset was not read again: {}", cli::one_line(fault.error.as_ref()));
        None
    })
}

/// A message for another key stays where it is: its lease runs out, and it is delivered again.
fn not_opened(fault: cipher_client::Error) -> Result<(), Fault> {
    let what = cli::one_line(&fault);
    if let cipher_client::ErrorKind::Incomplete { .. } = fault.kind() {
        eprintln!("ciphermq: {what}; those that came stay in the queue");
        return Ok(());
    }
    let message = fault.into_undecryptable().map_err(Fault::runtime)?;
    eprintln!("ciphermq: {}: {what}; it stays in the queue", Printable(message.message_id()));
    Ok(())
}

/// Waits until at most `max` acks are unconfirmed.
async fn settle(acks: &mut VecDeque<Settled>, max: usize, status: &mut Status) {
    while acks.len() > max
        && let Some(ack) = acks.pop_front()
    {
        if let Err(fault) = ack.await {
            eprintln!("ciphermq: a message was printed and not acknowledged: {}", cli::one_line(&fault));
            *status = Status::Failure;
        }
    }
}

struct Out<W> {
    stdout: W,
    shape: Shape,
}

/// How a message looks on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The bytes as they are and a line end, for pipes and files.
    Raw,
    /// The same, for a terminal: what would move the cursor is escaped.
    Shown,
    /// A JSON object.
    Json,
}

impl Shape {
    fn of(json: bool) -> Shape {
        match (json, io::stdout().is_terminal()) {
            (true, _) => Shape::Json,
            (false, true) => Shape::Shown,
            (false, false) => Shape::Raw,
        }
    }
}

/// One message as a line of JSON.
#[derive(Serialize)]
struct JsonMessage<'a> {
    message_id: &'a str,
    /// `None` when it is not UTF-8.
    message: Option<&'a str>,
    /// The bytes of a message that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_hex: Option<String>,
    /// When it was received, in seconds since 1970-01-01 UTC, as the original's receiver writes it.
    timestamp: f64,
    /// When the broker took it, in milliseconds since 1970-01-01 UTC.
    published: u64,
    queue: &'a str,
    attempt: u32,
    suite: String,
    /// The id of the key it was signed with, if that is one of --from.
    sender: Option<String>,
}

impl<W: Write> Out<W> {
    /// Written and flushed when this returns: only then may it be acknowledged.
    fn write(&mut self, delivery: &Delivery) -> io::Result<()> {
        let plaintext = delivery.plaintext();
        match self.shape {
            Shape::Raw => {
                self.stdout.write_all(plaintext)?;
                self.stdout.write_all(b"\n")?;
            }
            Shape::Shown => writeln!(self.stdout, "{}", Printable(&String::from_utf8_lossy(plaintext)))?,
            Shape::Json => writeln!(self.stdout, "{}", PrintableJson(&json(delivery)?))?,
        }
        self.stdout.flush()
    }
}

fn json(delivery: &Delivery) -> io::Result<String> {
    let message = std::str::from_utf8(delivery.plaintext()).ok();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let line = serde_json::to_string(&JsonMessage {
        message_id: delivery.message_id(),
        message,
        message_hex: message.is_none().then(|| hex(delivery.plaintext())),
        timestamp: since_1970.as_secs_f64(),
        published: delivery.published_ms(),
        queue: delivery.queue(),
        attempt: delivery.attempt(),
        suite: delivery.suite().to_string(),
        sender: match delivery.sender() {
            Sender::Signed(kid) => Some(kid.to_string()),
            Sender::Unsigned | Sender::Unknown(_) => None,
        },
    })?;
    Ok(line)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
