//! What a line from the broker changes.

use ciphermq_protocol::{Code, Push, Reply, ServerLine};
use tokio::time::Instant;

use super::{Effects, State};
use crate::answer::{self, Read};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::line::QueueName;
use crate::request::{Answer, Request};
use crate::{Error, ErrorKind, Result};

impl State {
    /// One line from the broker.
    pub(crate) fn receive(&mut self, line: &[u8], now: Instant, fx: &mut Effects) -> Result<(), Fault> {
        match ServerLine::parse(line) {
            Ok(ServerLine::Push(push)) => self.pushed(push, now, fx),
            Ok(ServerLine::Reply(reply)) => self.answered(&reply, fx),
            Err(_) => self.garbage("a line that is none of a broker's", fx),
        }
    }

    fn pushed(&mut self, push: Push<'_>, now: Instant, fx: &mut Effects) -> Result<(), Fault> {
        match push {
            Push::Message(wire) => match self.subscriptions.get_mut(wire.queue) {
                Some(subscription) => {
                    let delivery = Incoming::new(&wire, subscription.queue.clone(), self.epoch);
                    fx.wakers.extend(subscription.put(delivery));
                }
                // On its way while the consumer was cancelled.
                None => {
                    let Ok(queue) = QueueName::parse(wire.queue) else {
                        return Err(Fault::Protocol("a delivery from a queue without a legal name"));
                    };
                    let delivery = Incoming::new(&wire, queue, self.epoch);
                    self.release(&delivery, now, fx);
                }
            },
            Push::Cancelled { queue, .. } => {
                if let Some(subscription) = self.subscriptions.get_mut(queue) {
                    let text = format!("queue '{queue}' was deleted");
                    let kind = ErrorKind::Refused { code: Code::NotFound, text };
                    fx.wakers.extend(subscription.end(Error::new(kind)));
                }
            }
            Push::Closing { code, text } => {
                return Err(Fault::Closing { code, text: text.to_owned() });
            }
            // Of a newer broker, which may only say what an older client can miss.
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, reply: &Reply<'_>, fx: &mut Effects) -> Result<(), Fault> {
        if self.written == 0 {
            return Err(Fault::Protocol("a reply without a request"));
        }
        let Some(front) = self.pending.front_mut() else {
            return Err(Fault::Protocol("a reply without a request"));
        };
        match answer::read(&mut front.request, reply, self.epoch) {
            Read::More => Ok(()),
            Read::Whole(outcome) => {
                self.settle_front(outcome, fx);
                Ok(())
            }
            Read::Stopping if front.request.is_repeatable() && !front.expired => {
                self.written -= 1;
                self.again.extend(self.pending.pop_front());
                Ok(())
            }
            Read::Stopping => {
                let kind = ErrorKind::Refused { code: Code::ShuttingDown, text: "the broker is stopping".to_owned() };
                self.settle_front(Err(Error::new(kind)), fx);
                Ok(())
            }
            Read::Stranger => self.garbage("a reply to another request", fx),
        }
    }

    /// The request at the front has its outcome.
    fn settle_front(&mut self, outcome: Result<Answer>, fx: &mut Effects) {
        let Some(pending) = self.pending.pop_front() else { return };
        self.written -= 1;
        if let Request::Consume { queue, serial, again } = &pending.request
            && let Some(subscription) = self.subscriptions.of_consumer(queue.as_str(), *serial)
        {
            match &outcome {
                Ok(_) => subscription.live = true,
                Err(error) if *again => {
                    let error = Error::new(error.kind().clone());
                    fx.wakers.extend(subscription.end(error));
                }
                Err(_) if !subscription.live => drop(self.subscriptions.remove(queue.as_str())),
                Err(_) => {}
            }
        }
        self.finish(pending, outcome, fx);
    }

    /// The broker does not speak our language: this connection is of no use.
    /// The one whose answer it should have been is told, except a publisher,
    /// who has the resend.
    fn garbage(&mut self, what: &'static str, fx: &mut Effects) -> Result<(), Fault> {
        let front = self.pending.front().filter(|_| self.written > 0);
        if front.is_some_and(|front| !front.request.is_publish()) {
            self.settle_front(Err(Error::new(ErrorKind::Protocol { what })), fx);
        }
        Err(Fault::Protocol(what))
    }
}
