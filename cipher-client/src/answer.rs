//! Which reply belongs to which request, and what it means.

use ciphermq_protocol::{Code, Reply};

use crate::incoming::Incoming;
use crate::line::QueueName;
use crate::request::{Answer, Request};
use crate::{Error, ErrorKind, Result};

/// A reply, read as the answer to the oldest request.
#[derive(Debug)]
pub(crate) enum Read {
    Whole(Result<Answer>),
    /// One line of a batch's answer; the next is still to come.
    More,
    /// Refused, by a broker that is about to stop.
    Stopping,
    /// Not an answer to this request.
    Stranger,
}

pub(crate) fn read(request: &mut Request, reply: &Reply<'_>, epoch: u64) -> Read {
    let answer = match (request, reply) {
        (_, Reply::Error { code: Code::ShuttingDown, .. }) => return Read::Stopping,
        (request, Reply::Error { code, text }) => return Read::Whole(Err(refused(request, *code, text))),
        (Request::Publish { id }, Reply::Ack(acked)) => return Read::Whole(matching(id, acked)),
        (Request::Batch { ids, confirmed }, Reply::Ack(acked)) => {
            let matched = ids.get(*confirmed).map(|id| matching(id, acked));
            *confirmed += 1;
            return match matched {
                Some(Ok(_)) if *confirmed < ids.len() => Read::More,
                Some(outcome) => Read::Whole(outcome),
                None => Read::Stranger,
            };
        }
        (
            Request::Settle,
            Reply::AckConfirmed(_) | Reply::NackConfirmed(_) | Reply::ReleaseConfirmed(_) | Reply::RejectConfirmed(_),
        )
        | (Request::Touch | Request::Hold, Reply::TouchConfirmed(_))
        | (
            Request::Declare,
            Reply::QueueDeclared | Reply::ExchangeDeclared | Reply::QueueBound | Reply::KeyAnnounced,
        )
        | (Request::Change, Reply::QueueUnbound | Reply::QueueDeleted | Reply::ExchangeDeleted | Reply::StatsReset)
        | (Request::Ping, Reply::Pong(_))
        | (Request::Consume { .. }, Reply::Subscribed)
        | (Request::Cancel, Reply::ConsumerCancelled) => Answer::Done,
        (Request::Purge, Reply::Purged(count)) => Answer::Number(*count),
        (
            Request::Look,
            Reply::Status(json)
            | Reply::Queues(json)
            | Reply::Exchanges(json)
            | Reply::Bindings(json)
            | Reply::Key(json)
            | Reply::Keys(json)
            | Reply::Stats(json),
        ) => Answer::Text((*json).to_owned()),
        (Request::Fetch, Reply::NoMessages) => Answer::Fetched(None),
        (Request::Fetch, Reply::Fetched(wire)) => match QueueName::parse(wire.queue) {
            Ok(queue) => Answer::Fetched(Some(Box::new(Incoming::new(wire, queue, epoch)))),
            Err(_) => return Read::Stranger,
        },
        _ => return Read::Stranger,
    };
    Read::Whole(Ok(answer))
}

/// The broker names what it acknowledges; anything else is not believed.
fn matching(id: &str, acked: &str) -> Result<Answer> {
    match id == acked {
        true => Ok(Answer::Done),
        false => Err(Error::new(ErrorKind::Protocol { what: "another message was acknowledged" })),
    }
}

fn refused(request: &Request, code: Code, text: &str) -> Error {
    let kind = ErrorKind::Refused { code, text: text.to_owned() };
    match (request, code) {
        (Request::Settle | Request::Touch | Request::Hold, Code::NotLeased) => {
            Error::with_source(ErrorKind::LeaseLost, Error::new(kind))
        }
        _ => Error::new(kind),
    }
}
