//! Publishing in two steps: accepted into the window, then acknowledged.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::client::Client;
use crate::crypto::{Context, PublicKey, Sealer, SessionPolicy};
use crate::shared::Reply;
use crate::trust::Recipient;
use crate::{Error, ErrorKind, Result};

/// Seals messages for one recipient or several and publishes them to one
/// exchange with one key, to which suite 2 binds them. Cheap to clone; clones
/// share the session key and the window.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    context: Arc<Context>,
    sealer: Arc<Sealer>,
}

impl Publisher {
    pub(crate) fn new(client: Client, exchange: &str, key: &str, sealer: Arc<Sealer>) -> Self {
        Self { client, context: Arc::new(Context::new(exchange, key)), sealer }
    }

    /// The same with a content type, which suite 2 binds as well.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        let context = Arc::unwrap_or_clone(self.context);
        self.context = Arc::new(context.content_type(content_type));
        self
    }

    /// Seals and publishes one message under a new random id.
    ///
    /// The first `await` ends when the message has its place in the window:
    /// from there on it is sent, and sent again after a lost connection, until
    /// it is confirmed or its deadline passes. The [`Confirm`] tells when the
    /// broker has it.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) when the window stays full;
    /// [`TooLarge`](crate::ErrorKind::TooLarge); those of sealing.
    ///
    /// ```no_run
    /// # async fn example(publisher: cipher_client::Publisher) -> cipher_client::Result<()> {
    /// let first = publisher.publish("one").await?;
    /// let second = publisher.publish("two").await?; // does not wait for the first
    /// println!("{} and {}", first.await?.message_id(), second.await?.message_id());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(&self, plaintext: impl AsRef<[u8]>) -> Result<Confirm> {
        let sealed = self.sealer.seal_for(&self.context, plaintext.as_ref())?;
        self.client
            .publish_raw(&self.context.exchange, &self.context.routing_key, &sealed.envelope, &sealed.message_id)
            .await
    }

    /// Like [`publish`](Self::publish) with the caller's id. An id the broker
    /// knows from an earlier publish to the exchange is confirmed and not
    /// stored again: publishing again after
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) is safe.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_with_id(&self, id: &str, plaintext: impl AsRef<[u8]>) -> Result<Confirm> {
        let sealed = self.sealer.seal_for_with_id(&self.context, id, plaintext.as_ref())?;
        self.client.publish_raw(&self.context.exchange, &self.context.routing_key, &sealed.envelope, id).await
    }

    /// Seals a message that is too long for one line in parts of `part_bytes`
    /// and publishes them, see [`Sealer::seal_parts`](crate::crypto::Sealer::seal_parts).
    /// A [`Consumer`](crate::Consumer) puts them together.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); [`Option`](crate::ErrorKind::Option) for a
    /// bad size, and for suite 1.
    pub async fn publish_parts(&self, id: Option<&str>, text: &[u8], part_bytes: usize) -> Result<Vec<Confirm>> {
        let parts = self.sealer.seal_parts(&self.context, id, text, part_bytes)?;
        let mut confirms = Vec::with_capacity(parts.parts() as usize);
        for sealed in parts {
            let sealed = sealed?;
            let Context { exchange, routing_key, .. } = &*self.context;
            confirms.push(self.client.publish_raw(exchange, routing_key, &sealed.envelope, &sealed.message_id).await?);
        }
        Ok(confirms)
    }

    /// Seals and publishes a message of `bytes` bytes, however large, in parts
    /// that fit into the broker's lines, as it comes out of `source`. A
    /// [`Consumer`](crate::Consumer) gives it out when it has all of them, once
    /// and whole. Memory does not grow with it.
    ///
    /// Ends when the broker has all of it. If it fails before, parts that the
    /// broker has stay incomplete and are given up by who consumes them; to
    /// publish again with the same id is safe, and a consumer with
    /// [`dedupe`](crate::ConsumeOptions::dedupe) gives the message out once
    /// even if all of it had arrived.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), after [`Option`](crate::ErrorKind::Option)
    /// for suite 1; [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown);
    /// [`Stream`](crate::ErrorKind::Stream) for a source that fails, or that is
    /// shorter or longer than `bytes`.
    ///
    /// ```no_run
    /// # async fn example(publisher: cipher_client::Publisher, scan: &[u8]) -> cipher_client::Result<()> {
    /// let stored = publisher.publish_large(None, scan.len() as u64, scan).await?;
    /// println!("{} is stored", stored.message_id());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_large<S>(&self, id: Option<&str>, bytes: u64, mut source: S) -> Result<Ack>
    where
        S: AsyncRead + Unpin,
    {
        let mut parts = self.sealer.part_sealer_for_lines(&self.context, id, bytes, self.client.line_bytes_max())?;
        let Context { exchange, routing_key, .. } = &*self.context;
        let (mut text, mut under_way) = (Vec::new(), VecDeque::new());
        let mut left = bytes;
        while let Some(len) = parts.next_len() {
            text.resize(len, 0);
            source.read_exact(&mut text).await.map_err(of_source)?;
            left -= len as u64;
            // Before the last part is sent: what is not all of it is never whole.
            if left == 0 && source.read(&mut [0]).await.map_err(of_source)? > 0 {
                return Err(of_source(std::io::Error::other("longer than it was said to be")));
            }
            let sealed = parts.seal_next(&text)?;
            under_way
                .push_back(self.client.publish_raw(exchange, routing_key, &sealed.envelope, &sealed.message_id).await?);
            if under_way.len() > PARTS_UNDER_WAY
                && let Some(confirm) = under_way.pop_front()
            {
                confirm.await?;
            }
        }
        for confirm in under_way {
            confirm.await?;
        }
        Ok(Ack { id: parts.message_id().into() })
    }

    /// Seals and publishes many messages with few requests, see
    /// [`Client::publish_batch_raw`].
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_batch<T: AsRef<[u8]>>(&self, plaintexts: impl IntoIterator<Item = T>) -> Result<BatchConfirm> {
        let sealed = plaintexts.into_iter().map(|text| self.sealer.seal_for(&self.context, text.as_ref()));
        let sealed: Vec<_> = sealed.collect::<Result<_>>()?;
        let messages = sealed.iter().map(|one| (one.envelope.as_str(), one.message_id.as_str()));
        self.client.publish_batch_raw(&self.context.exchange, &self.context.routing_key, messages).await
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Parts without confirmation; their bytes are bounded by the client.
const PARTS_UNDER_WAY: usize = 64;

fn of_source(fault: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Stream, fault)
}

/// The broker has the message: it is stored, and will be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    id: Arc<str>,
}

impl Ack {
    /// The id of the message.
    pub fn message_id(&self) -> &str {
        &self.id
    }
}

/// Becomes the broker's acknowledgement of one publish.
///
/// Fails with [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) when none
/// came before the deadline, with [`Timeout`](crate::ErrorKind::Timeout) when
/// the message was never sent because there was no connection, and with
/// [`Refused`](crate::ErrorKind::Refused) when the broker said no. Dropping it
/// does not take the message back.
#[derive(Debug)]
#[must_use = "only the confirmation says that the broker has the message"]
pub struct Confirm {
    reply: Reply,
    id: Arc<str>,
}

impl Confirm {
    pub(crate) fn new(reply: Reply, id: Arc<str>) -> Self {
        Self { reply, id }
    }

    /// The id of the message.
    pub fn message_id(&self) -> &str {
        &self.id
    }
}

impl Future for Confirm {
    type Output = Result<Ack>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.reply).poll(cx);
        answer.map(|answer| answer.map(|_| Ack { id: self.id.clone() }))
    }
}

/// Becomes the broker's acknowledgements of a batch, in its order.
///
/// On an error some messages of the batch may be stored; publishing all of
/// them again with the same ids stores the rest.
#[derive(Debug)]
#[must_use = "only the confirmation says that the broker has the messages"]
pub struct BatchConfirm {
    requests: Vec<(Reply, Arc<[Arc<str>]>)>,
}

impl BatchConfirm {
    pub(crate) fn new(requests: Vec<(Reply, Arc<[Arc<str>]>)>) -> Self {
        Self { requests }
    }

    /// Waits for all of them.
    ///
    /// # Errors
    ///
    /// The first error, as for [`Confirm`], after all requests are answered.
    pub async fn all(self) -> Result<Vec<Ack>> {
        let mut acks = Vec::new();
        let mut first_error = Ok(());
        for (reply, ids) in self.requests {
            match reply.await {
                Ok(_) => acks.extend(ids.iter().map(|id| Ack { id: id.clone() })),
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        first_error.map(|()| acks)
    }
}

/// What a [`Publisher`] can be made from: a public key, or a [`Sealer`] with
/// its own policy.
pub trait IntoSealer {
    /// The sealer.
    ///
    /// # Errors
    ///
    /// [`Key`](crate::ErrorKind::Key) or
    /// [`KeyTooSmall`](crate::ErrorKind::KeyTooSmall).
    fn into_sealer(self) -> Result<Arc<Sealer>>;
}

impl IntoSealer for &PublicKey {
    fn into_sealer(self) -> Result<Arc<Sealer>> {
        Sealer::new(self, SessionPolicy::default()).map(Arc::new)
    }
}

impl IntoSealer for PublicKey {
    fn into_sealer(self) -> Result<Arc<Sealer>> {
        (&self).into_sealer()
    }
}

impl IntoSealer for Recipient {
    fn into_sealer(self) -> Result<Arc<Sealer>> {
        Sealer::builder([self]).build().map(Arc::new)
    }
}

impl IntoSealer for Sealer {
    fn into_sealer(self) -> Result<Arc<Sealer>> {
        Ok(Arc::new(self))
    }
}

impl IntoSealer for Arc<Sealer> {
    fn into_sealer(self) -> Result<Arc<Sealer>> {
        Ok(self)
    }
}
