//! Queues, exchanges, bindings, and what the broker says of them.

use std::time::Duration;

use ciphermq_protocol::limits::LIST_LIMIT_MAX;
use ciphermq_protocol::{self as protocol, Command, Durability, IfNotEmpty, Page};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, unexpected};
use crate::line;
use crate::request::{Answer, Request};
use crate::{Error, ErrorKind, Result};

/// What a queue is declared with; what is not said is the broker's default, or
/// stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueOptions {
    lease: Option<Duration>,
    max_attempts: Option<u32>,
    dead_letter: Option<String>,
    max_messages: Option<u64>,
    max_bytes: Option<u64>,
    durability: Option<Durability>,
}

impl QueueOptions {
    /// The broker's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a delivery may stay unsettled.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Deliveries of a message before it goes to the dead-letter queue; 0 is
    /// without limit.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// The queue for rejected and worn-out messages.
    pub fn dead_letter(mut self, queue: impl Into<String>) -> Self {
        self.dead_letter = Some(queue.into());
        self
    }

    /// Messages held before publishes are refused; 0 is without limit.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Envelope bytes held before publishes are refused; 0 is without limit.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// What the confirmation of a message waits for.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// A queue, as [`Client::list_queues`] shows it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QueueInfo {
    /// Its name.
    pub queue: String,
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Messages in consumers' hands.
    pub leased: u64,
    /// Messages that wait for their time.
    pub delayed: u64,
    /// Bytes of all envelopes.
    pub bytes: u64,
    /// Subscriptions.
    pub consumers: u64,
    /// Lease in milliseconds.
    #[serde(rename = "lease")]
    pub lease_ms: u64,
    /// Deliveries before the dead-letter queue; 0 is without limit.
    pub max_attempts: u32,
    /// The dead-letter queue.
    pub dead_letter: Option<String>,
    /// Bound on messages; 0 is none.
    pub max_messages: u64,
    /// Bound on bytes; 0 is none.
    pub max_bytes: u64,
    /// What the confirmation of a message waits for: `sync`, `interval:<ms>` or `none`.
    pub durability: String,
}

/// An exchange, as [`Client::list_exchanges`] shows it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExchangeInfo {
    /// Its name.
    pub exchange: String,
    /// How it routes: `direct`.
    pub kind: String,
    /// How many bindings it has.
    pub bindings: u64,
}

/// A binding, as [`Client::list_bindings`] shows it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BindingInfo {
    /// From this exchange
    pub exchange: String,
    /// to this queue,
    pub queue: String,
    /// for messages with this key.
    pub key: String,
}

/// Where a message is, as [`Client::status`] shows it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MessageStatus {
    /// The id asked for.
    pub message_id: String,
    /// One entry for each queue it was put into.
    pub copies: Vec<CopyStatus>,
}

/// One message in one queue. Times are milliseconds since 1970-01-01 UTC.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CopyStatus {
    /// The exchange it was published to.
    pub exchange: String,
    /// The queue it is or was in.
    pub queue: String,
    /// `Sent`, `Delivered` or `Acknowledged`.
    pub status: String,
    /// Deliveries that used up an attempt.
    pub attempts: u32,
    /// When the broker took it.
    pub published: Option<u64>,
    /// When it was last delivered.
    pub delivered: Option<u64>,
    /// When it was acknowledged.
    pub acknowledged: Option<u64>,
}

/// Topology and administration. Names outside the rules fail with
/// [`ErrorKind::Option`] before anything is sent.
impl Client {
    /// Makes a queue if it is not there.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `CONFLICT` when it is there with
    /// other options.
    ///
    /// ```no_run
    /// # use cipher_client::{Client, QueueOptions};
    /// # async fn example(client: Client) -> cipher_client::Result<()> {
    /// client.declare_queue("orders", &QueueOptions::new().max_attempts(5)).await?;
    /// client.declare_exchange("shop").await?;
    /// client.bind("shop", "orders", "new").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn declare_queue(&self, queue: &str, options: &QueueOptions) -> Result<()> {
        let dead_letter = options.dead_letter.as_deref();
        let options = protocol::QueueOptions {
            lease_ms: options.lease.map(line::millis),
            max_attempts: options.max_attempts,
            dead_letter: dead_letter.map(|queue| line::name("dead_letter", queue)).transpose()?,
            max_messages: options.max_messages,
            max_bytes: options.max_bytes,
            durability: options.durability,
        };
        let command = Command::DeclareQueue { queue: line::name("queue", queue)?, options };
        self.ask(Request::Declare, &command).await.map(drop)
    }

    /// Makes an exchange if it is not there.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `LIMIT`.
    pub async fn declare_exchange(&self, exchange: &str) -> Result<()> {
        let command = Command::DeclareExchange { exchange: line::name("exchange", exchange)? };
        self.ask(Request::Declare, &command).await.map(drop)
    }

    /// Sends messages published to `exchange` with `key` to `queue` as well.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_FOUND`.
    pub async fn bind(&self, exchange: &str, queue: &str, key: &str) -> Result<()> {
        let (exchange, queue, key) = binding(exchange, queue, key)?;
        self.ask(Request::Declare, &Command::Bind { exchange, queue, key }).await.map(drop)
    }

    /// Takes a binding away.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_FOUND` when there is none.
    pub async fn unbind(&self, exchange: &str, queue: &str, key: &str) -> Result<()> {
        let (exchange, queue, key) = binding(exchange, queue, key)?;
        self.ask(Request::Change, &Command::Unbind { exchange, queue, key }).await.map(drop)
    }

    /// Deletes a queue that holds no messages.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_EMPTY` or `NOT_FOUND`.
    pub async fn delete_queue(&self, queue: &str) -> Result<()> {
        self.delete(queue, IfNotEmpty::Refuse).await
    }

    /// Deletes a queue and the messages in it.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_FOUND`.
    pub async fn delete_queue_and_messages(&self, queue: &str) -> Result<()> {
        self.delete(queue, IfNotEmpty::Delete).await
    }

    async fn delete(&self, queue: &str, if_not_empty: IfNotEmpty) -> Result<()> {
        let command = Command::DeleteQueue { queue: line::name("queue", queue)?, if_not_empty };
        self.ask(Request::Change, &command).await.map(drop)
    }

    /// Deletes an exchange and its bindings.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_FOUND`.
    pub async fn delete_exchange(&self, exchange: &str) -> Result<()> {
        let command = Command::DeleteExchange { exchange: line::name("exchange", exchange)? };
        self.ask(Request::Change, &command).await.map(drop)
    }

    /// Removes the messages of a queue that nobody has in hand; how many.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `NOT_FOUND`.
    pub async fn purge(&self, queue: &str) -> Result<u64> {
        match self.ask(Request::Purge, &Command::Purge { queue: line::name("queue", queue)? }).await? {
            Answer::Number(count) => Ok(count),
            _ => Err(unexpected("purged without a number")),
        }
    }

    /// Where a message is; `None` when the broker does not know the id (any more).
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn status(&self, id: &str) -> Result<Option<MessageStatus>> {
        match self.look(&Command::Status { id: line::message_id(id)? }).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All queues, by name.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn list_queues(&self) -> Result<Vec<QueueInfo>> {
        let mut rows: Vec<QueueInfo> = Vec::new();
        loop {
            let after = rows.last().map(|row| line::name("after", &row.queue)).transpose()?;
            let page: Vec<QueueInfo> = self.look(&Command::ListQueues { page: page(after) }).await?;
            let is_last = page.len() < LIST_LIMIT_MAX as usize;
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// All exchanges, by name.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn list_exchanges(&self) -> Result<Vec<ExchangeInfo>> {
        let mut rows: Vec<ExchangeInfo> = Vec::new();
        loop {
            let after = rows.last().map(|row| line::name("after", &row.exchange)).transpose()?;
            let page: Vec<ExchangeInfo> = self.look(&Command::ListExchanges { page: page(after) }).await?;
            let is_last = page.len() < LIST_LIMIT_MAX as usize;
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// The bindings of one exchange or of all, by exchange, key and queue: the
    /// first 10,000.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn list_bindings(&self, exchange: Option<&str>) -> Result<Vec<BindingInfo>> {
        let exchange = exchange.map(|exchange| line::name("exchange", exchange)).transpose()?;
        self.look(&Command::ListBindings { exchange, page: page(None) }).await
    }

    /// The broker's statistics, as docs/protocol.md lists them.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn stats(&self) -> Result<serde_json::Value> {
        self.look(&Command::Stats).await
    }

    /// Sets the broker's counters and averages to zero.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn reset_stats(&self) -> Result<()> {
        self.ask(Request::Change, &Command::ResetStats).await.map(drop)
    }

    pub(crate) async fn look<T: DeserializeOwned>(&self, command: &Command<'_>) -> Result<T> {
        match self.ask(Request::Look, command).await? {
            Answer::Text(json) => serde_json::from_str(&json)
                .map_err(|error| Error::with_source(ErrorKind::Protocol { what: "unexpected JSON" }, error)),
            _ => Err(unexpected("an answer without JSON")),
        }
    }
}

fn binding<'a>(
    exchange: &'a str,
    queue: &'a str,
    key: &'a str,
) -> Result<(protocol::Name<'a>, protocol::Name<'a>, protocol::Name<'a>)> {
    Ok((line::name("exchange", exchange)?, line::name("queue", queue)?, line::name("key", key)?))
}

fn page(after: Option<protocol::Name<'_>>) -> Page<'_> {
    Page { after, limit: LIST_LIMIT_MAX }
}

pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Refused { code: protocol::Code::NotFound, .. })
}
