//! A request on its way, and what a lost connection means for it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::incoming::Incoming;
use crate::line::QueueName;
use crate::slots::SlotId;
use crate::{Error, ErrorKind};

/// A request the broker has not answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The whole line, LF included; kept until the answer, it may be sent again.
    pub line: Vec<u8>,
    pub request: Request,
    /// Where the answer goes; `None` when nobody waits for it.
    pub slot: Option<SlotId>,
    pub deadline: Instant,
    /// A connection was given the line, this one or an earlier one.
    pub was_written: bool,
    /// The caller was told that the deadline passed. The reply is still to
    /// come on this connection; on the next one the request is not sent again.
    pub expired: bool,
}

impl Pending {
    pub(crate) fn new(request: Request, line: Vec<u8>, slot: Option<SlotId>, deadline: Instant) -> Self {
        Self { line, request, slot, deadline, was_written: false, expired: false }
    }

    /// The same request for another connection.
    pub(crate) fn restarted(mut self) -> Self {
        if let Request::Batch { confirmed, .. } = &mut self.request {
            *confirmed = 0;
        }
        self
    }

    /// What the caller learns when the deadline passes.
    pub(crate) fn timeout(&self) -> Error {
        match self.was_written && !matches!(self.request, Request::Look | Request::Ping) {
            true => Error::new(ErrorKind::OutcomeUnknown),
            false => Error::new(ErrorKind::Timeout),
        }
    }

    pub(crate) fn cost(&self, bytes_max: usize) -> Cost {
        self.request.cost(self.line.len(), bytes_max)
    }
}

/// What was asked, as far as its answer and a lost connection differ.
#[derive(Debug)]
pub(crate) enum Request {
    Publish {
        id: Arc<str>,
    },
    /// `confirmed` lines of the answer have come.
    Batch {
        ids: Arc<[Arc<str>]>,
        confirmed: usize,
    },
    /// ack, nack, release, reject.
    Settle,
    Touch,
    /// Extends the lease of a part that waits for the others.
    Hold,
    /// Declare, bind, announce: doing it twice is doing it once.
    Declare,
    /// unbind, delete, reset_stats: a second time can have another answer.
    Change,
    /// Lists, statistics, `status`.
    Look,
    Purge,
    Ping,
    Fetch,
    /// `again`: sent by the client itself after a reconnect, or for new credit.
    Consume {
        queue: QueueName,
        serial: u64,
        again: bool,
    },
    Cancel,
}

/// What becomes of a request whose connection ended before its answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterLoss {
    /// Sent again in its old place; the broker knows it by its id, or doing
    /// it twice is doing it once.
    Resend,
    /// What it was about ended with the connection: leases.
    LeaseLost,
    /// The end of the connection did what was asked.
    Done,
    /// It may have happened; only the caller can decide.
    Unknown,
}

impl Request {
    pub(crate) fn after_loss(&self, written: bool) -> AfterLoss {
        match self {
            Self::Settle | Self::Touch | Self::Hold => AfterLoss::LeaseLost,
            Self::Cancel => AfterLoss::Done,
            // The new connection's own `consume` replaces it.
            Self::Consume { again: true, .. } => AfterLoss::Done,
            Self::Change | Self::Purge if written => AfterLoss::Unknown,
            // A fetched message went back when its connection ended.
            Self::Publish { .. }
            | Self::Batch { .. }
            | Self::Declare
            | Self::Change
            | Self::Look
            | Self::Purge
            | Self::Ping
            | Self::Fetch
            | Self::Consume { .. } => AfterLoss::Resend,
        }
    }

    /// What the request takes of the client's bounds.
    pub(crate) fn cost(&self, line_bytes: usize, bytes_max: usize) -> Cost {
        // One publish is let through whatever its size: it takes all there is.
        let bytes = line_bytes.min(bytes_max);
        match self {
            Self::Publish { .. } => Cost { publishes: 1, bytes, calls: 0 },
            Self::Batch { ids, .. } => Cost { publishes: ids.len(), bytes, calls: 0 },
            // Bounded by the leases and subscriptions there are.
            Self::Settle | Self::Hold | Self::Cancel | Self::Consume { again: true, .. } => Cost::default(),
            _ => Cost { publishes: 0, bytes: 0, calls: 1 },
        }
    }

    /// Refused because the broker is stopping, it can be asked of the next one.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.after_loss(false) == AfterLoss::Resend
    }

    pub(crate) fn is_publish(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Batch { .. })
    }
}

/// Permits of the client's three bounds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cost {
    pub publishes: usize,
    pub bytes: usize,
    pub calls: usize,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.publishes += other.publishes;
        self.bytes += other.bytes;
        self.calls += other.calls;
    }
}

/// A good answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Number(u64),
    Text(String),
    Fetched(Option<Box<Incoming>>),
}
