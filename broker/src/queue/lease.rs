//! Leases: a message given to a connection for a time.

use ciphermq_journal::Position;

use super::consumers::SubscriptionId;
use super::held::{Body, Kept};
use crate::model::LeaseId;
use crate::{ConnectionId, Timestamp};

/// Which message and lease a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseRef {
    pub(crate) order: Position,
    pub(crate) lease: LeaseId,
}

/// A lease just made.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    pub(crate) connection: ConnectionId,
    pub(crate) order: Position,
    pub(crate) lease: LeaseId,
    pub(crate) body: Body,
    pub(crate) attempt: u32,
    pub(crate) paid: Paid,
}

/// Whether a lease occupies credit of a subscription.
///
/// The credit returns when the lease has ended *and* its delivery has left the outbox, whichever comes last: an outbox
/// nobody empties never holds more than the credit of its subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paid {
    By(SubscriptionId),
    ByFetch,
}

/// How a lease ends when the message stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveBack {
    /// Uses up an attempt.
    Nack { delay_ms: u64 },
    /// Does not.
    Release,
}

/// The lease does not exist, or belongs to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoLease;

#[derive(Debug)]
pub(super) struct Leased {
    pub(super) held: Kept,
    pub(super) lease: LeaseId,
    pub(super) connection: ConnectionId,
    pub(super) paid: Paid,
    pub(super) deadline: Timestamp,
    pub(super) hand_over: HandOver,
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// It waits in an outbox.
    Waits,
    /// Taken out, but its message could not be read back: nobody has seen it.
    Unread,
    /// Taken out.
    Seen,
}

/// Settled or worn out: the record that removes it is on its way through the journal.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) held: Kept,
    /// It left while it was delivered: that delivery is an attempt, too.
    pub(super) delivered: bool,
}

/// Nacked with a delay that is not over.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) held: Kept,
    pub(super) until: Timestamp,
}

impl Leased {
    /// What nobody has seen was not attempted.
    pub(super) fn when_it_runs_out(&self) -> GiveBack {
        if self.hand_over == HandOver::Seen { GiveBack::Nack { delay_ms: 0 } } else { GiveBack::Release }
    }

    pub(super) fn is(&self, connection: ConnectionId, which: LeaseRef) -> bool {
        self.lease == which.lease && self.connection == connection
    }
}
