//! One timer for all deadlines of a client.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at the earliest time it was armed for, perhaps for nothing: moving a
/// timer with every request would cost more than waking once too often.
#[derive(Debug)]
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self { sleep: Box::pin(sleep_until(Instant::now())), at: None }
    }

    pub(crate) fn arm(&mut self, at: Instant) {
        if self.at.is_none_or(|armed| at < armed) {
            self.sleep.as_mut().reset(at);
            self.at = Some(at);
        }
    }

    /// Whether the time has come; it has to be armed again then.
    pub(crate) fn fires(&mut self, cx: &mut Context<'_>) -> bool {
        let fires = self.at.is_some() && self.sleep.as_mut().poll(cx).is_ready();
        if fires {
            self.at = None;
        }
        fires
    }
}
