//! The handle of a client, and what it can ask of the broker.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::limits::BATCH_MESSAGES_MAX;
use ciphermq_protocol::{Command, Name};
use tokio::time::Instant;

use crate::connection;
use crate::consumer::{ConsumeOptions, Consumer, IntoOpener, open_delivery};
use crate::delivery::{Delivery, RawDelivery};
use crate::line::{self, QueueName};
use crate::link::Tcp;
use crate::options::ConnectOptions;
use crate::publisher::{BatchConfirm, Confirm, IntoSealer, Publisher};
use crate::raw_consumer::RawConsumer;
use crate::request::{Answer, Request};
use crate::shared::{Handle, Shared};
use crate::{Error, ErrorKind, Result};

/// A connection to a broker that comes back when it is lost.
///
/// A handle on one background task: cheap to clone, usable from every thread.
/// Requests of all clones share the socket and are answered in order; nobody
/// waits for another's answer before sending. After a lost connection the
/// client connects again, consumers go on, and publishes without
/// confirmation are sent again with the same id, in the same order.
///
/// Every call has a deadline ([`ConnectOptions::request_timeout`]). When it
/// passes before anything was sent, or for a question, the error is
/// [`Timeout`](ErrorKind::Timeout), otherwise
/// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown). A call that the broker
/// refuses fails with [`Refused`](ErrorKind::Refused) and the broker's code.
///
/// The task ends when the last [`Client`], [`Publisher`], [`Consumer`] and
/// [`Delivery`] is gone, after what it was given is done;
/// [`close`](Self::close) waits for that.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

impl Client {
    /// Connects. Must be called within a tokio runtime, which runs the task.
    ///
    /// # Errors
    ///
    /// [`Connection`](ErrorKind::Connection) when there is no broker,
    /// [`Protocol`](ErrorKind::Protocol) when what answers is none,
    /// [`Option`](ErrorKind::Option) for an option out of range.
    ///
    /// ```no_run
    /// # async fn example() -> cipher_client::Result<()> {
    /// use cipher_client::{Client, ConnectOptions};
    ///
    /// let client = Client::connect(ConnectOptions::new("127.0.0.1:5672")).await?;
    /// println!("{:?}", client.ping().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(options: ConnectOptions) -> Result<Self> {
        options.check()?;
        let connector = Tcp { address: options.address.clone() };
        let shared = connection::start(connector, options, connection::jitter()).await?;
        Ok(Self::new(shared))
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared().lock().is_connected()
    }

    /// How many times the connection was lost and made again.
    pub fn reconnects(&self) -> u64 {
        self.shared().lock().epoch().saturating_sub(1)
    }

    /// Takes no new requests, waits until those under way are answered or
    /// their deadlines have passed, and ends the connection. Consumers of all
    /// clones end; deliveries in hand go back to their queues.
    ///
    /// # Errors
    ///
    /// [`Connection`](ErrorKind::Connection) when the client had given up
    /// before; requests that failed tell their own callers.
    pub async fn close(self) -> Result<()> {
        let shared = self.shared().clone();
        let deadline = shared.deadline();
        shared.with(|state, fx| state.close(deadline, fx));
        // The task is the only sender; it sends once and cannot be gone before.
        let ended = shared.ended.subscribe().wait_for(|ended| *ended).await.map(drop);
        debug_assert!(ended.is_ok(), "the sender is kept by `shared`");
        let error = shared.lock().ended_error();
        match error.kind() {
            ErrorKind::Closed => Ok(()),
            _ => Err(error),
        }
    }

    /// A publisher that seals for `recipient`: a
    /// [`PublicKey`](crate::crypto::PublicKey), or a
    /// [`Sealer`](crate::crypto::Sealer) with a policy of its own.
    ///
    /// # Errors
    ///
    /// [`Option`](ErrorKind::Option) for a bad name; those of the key.
    pub fn publisher(&self, exchange: &str, key: &str, recipient: impl IntoSealer) -> Result<Publisher> {
        line::name("exchange", exchange)?;
        line::name("key", key)?;
        Ok(Publisher::new(self.clone(), exchange, key, recipient.into_sealer()?))
    }

    /// Consumes a queue and opens its messages with `identity`: a
    /// [`PrivateKey`](crate::crypto::PrivateKey), or an
    /// [`Opener`](crate::crypto::Opener) with a policy of its own.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_FOUND` for an unknown queue, and
    /// with `NOT_ALLOWED` when this client consumes the queue already.
    ///
    /// ```no_run
    /// # use cipher_client::{Client, ConsumeOptions, crypto::PrivateKey};
    /// # async fn example(client: Client, key: PrivateKey) -> cipher_client::Result<()> {
    /// let mut consumer = client.consume("orders", &key, ConsumeOptions::new()).await?;
    /// while let Some(delivery) = consumer.next().await {
    ///     let delivery = delivery?;
    ///     println!("{}", String::from_utf8_lossy(delivery.plaintext()));
    ///     delivery.ack().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn consume(&self, queue: &str, identity: impl IntoOpener, options: ConsumeOptions) -> Result<Consumer> {
        let opener = identity.into_opener()?;
        let raw = self.consume_raw(queue, options.prefetch).await?;
        Ok(Consumer::new(raw, opener, options))
    }

    /// Consumes a queue without opening its messages. At most `prefetch`
    /// deliveries are unsettled at a time.
    ///
    /// # Errors
    ///
    /// As [`consume`](Self::consume).
    pub async fn consume_raw(&self, queue: &str, prefetch: u32) -> Result<RawConsumer> {
        RawConsumer::start(self.handle.clone(), QueueName::parse(queue)?, prefetch).await
    }

    /// Takes the next message of a queue, if there is one ready.
    ///
    /// # Errors
    ///
    /// An error of opening carries the message, see
    /// [`Error::into_undecryptable`]. A part of a larger message comes by itself
    /// ([`Opened::part`](crate::crypto::Opened::part)).
    pub async fn fetch(&self, queue: &str, identity: impl IntoOpener) -> Result<Option<Delivery>> {
        let opener = identity.into_opener()?;
        let fetched = self.fetch_raw(queue, None).await?;
        fetched.map(|raw| open_delivery(raw, &opener).map(|(delivery, _)| delivery)).transpose()
    }

    /// Takes the next message of a queue without opening it, for `lease`
    /// instead of the time the queue gives.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_FOUND` for an unknown queue.
    pub async fn fetch_raw(&self, queue: &str, lease: Option<Duration>) -> Result<Option<RawDelivery>> {
        let command = Command::Fetch { queue: line::name("queue", queue)?, lease_ms: lease.map(line::millis) };
        match self.ask(Request::Fetch, &command).await? {
            Answer::Fetched(Some(incoming)) => Ok(Some(RawDelivery::new(*incoming, self.handle.clone()))),
            _ => Ok(None),
        }
    }

    /// Publishes an envelope as it is; `id` must be the `message_id` in it.
    ///
    /// The first `await` ends when the message has its place in the window,
    /// see [`Publisher::publish`].
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout) when the window stays full,
    /// [`TooLarge`](ErrorKind::TooLarge) for a line the broker would not read,
    /// [`Malformed`](ErrorKind::Malformed) for text with a line break.
    pub async fn publish_raw(&self, exchange: &str, key: &str, envelope: &str, id: &str) -> Result<Confirm> {
        let (exchange, key) = (line::name("exchange", exchange)?, line::name("key", key)?);
        let id: Arc<str> = line::message_id(id)?.into();
        let line = line::publish(exchange, key, line::envelope(envelope)?);
        let reply = self.shared().submit(Request::Publish { id: id.clone() }, line).await?;
        Ok(Confirm::new(reply, id))
    }

    /// Publishes pairs of envelope and id with as few requests as the limits
    /// allow. The broker stores the messages of one request (up to 1,000, up
    /// to the window, up to its line limit) all or none.
    ///
    /// # Errors
    ///
    /// As [`publish_raw`](Self::publish_raw). Requests before the one that
    /// failed have been sent.
    pub async fn publish_batch_raw<E, I>(
        &self,
        exchange: &str,
        key: &str,
        messages: impl IntoIterator<Item = (E, I)>,
    ) -> Result<BatchConfirm>
    where
        E: AsRef<str>,
        I: AsRef<str>,
    {
        let names = (line::name("exchange", exchange)?, line::name("key", key)?);
        let line_max = self.line_bytes_max();
        let count_max = BATCH_MESSAGES_MAX.min(self.shared().window);
        let mut batch = Batch::new(names);
        let mut requests = Vec::new();
        for (envelope, id) in messages {
            let (envelope, id) = (line::envelope(envelope.as_ref())?, line::message_id(id.as_ref())?);
            if !batch.has_room(envelope, count_max, line_max) {
                requests.push(self.send_batch(std::mem::replace(&mut batch, Batch::new(names))).await?);
            }
            batch.push(envelope, id);
        }
        if !batch.ids.is_empty() {
            requests.push(self.send_batch(batch).await?);
        }
        Ok(BatchConfirm::new(requests))
    }

    async fn send_batch(&self, batch: Batch<'_>) -> Result<(crate::shared::Reply, Arc<[Arc<str>]>)> {
        let (line, ids) = batch.finish();
        let request = Request::Batch { ids: ids.clone(), confirmed: 0 };
        Ok((self.shared().submit(request, line).await?, ids))
    }

    /// The longest line that the broker takes, and this client sends.
    pub fn line_bytes_max(&self) -> usize {
        self.shared().lock().line_bytes_max().min(self.shared().bytes_max)
    }

    /// The time the broker takes for an answer.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout).
    pub async fn ping(&self) -> Result<Duration> {
        let start = Instant::now();
        self.ask(Request::Ping, &Command::Ping { text: None }).await?;
        Ok(start.elapsed())
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask(&self, request: Request, command: &Command<'_>) -> Result<Answer> {
        self.shared().call(request, line::encode(command)).await
    }
}

/// One `publish_batch` line in the making.
struct Batch<'a> {
    names: (Name<'a>, Name<'a>),
    envelopes: String,
    ids: Vec<Arc<str>>,
}

/// Bytes of a batch line that are neither names nor envelopes.
const BATCH_FRAME_BYTES: usize = "publish_batch   []\r\n".len();

impl<'a> Batch<'a> {
    fn new(names: (Name<'a>, Name<'a>)) -> Self {
        Self { names, envelopes: String::from("["), ids: Vec::new() }
    }

    /// One message always has room: if it is too long, sending it says so.
    fn has_room(&self, envelope: &str, count_max: usize, line_max: usize) -> bool {
        let (exchange, key) = self.names;
        let names = exchange.as_str().len() + key.as_str().len();
        let bytes = BATCH_FRAME_BYTES + names + self.envelopes.len() + envelope.len();
        self.ids.is_empty() || (self.ids.len() < count_max && bytes <= line_max)
    }

    fn push(&mut self, envelope: &str, id: &str) {
        if !self.ids.is_empty() {
            self.envelopes.push(',');
        }
        self.envelopes.push_str(envelope);
        self.ids.push(id.into());
    }

    fn finish(mut self) -> (Vec<u8>, Arc<[Arc<str>]>) {
        self.envelopes.push(']');
        let (exchange, key) = self.names;
        let command = Command::PublishBatch { exchange, key, envelopes: &self.envelopes };
        (line::encode(&command), self.ids.into())
    }
}

pub(crate) fn unexpected(what: &'static str) -> Error {
    Error::new(ErrorKind::Protocol { what })
}
