use std::collections::VecDeque;

use ciphermq_journal::Position;
use hashbrown::HashMap;

use crate::ConnectionId;
use crate::model::LeaseId;

/// The leases of each connection in one queue, oldest first, so that the end of a connection costs what it holds and
/// not what the queue holds.
///
/// Ended leases are swept out when they outnumber the others: giving and ending a lease costs no search.
#[derive(Debug, Default)]
pub(super) struct Holders {
    connections: HashMap<ConnectionId, Given>,
}

#[derive(Debug, Default)]
struct Given {
    leases: VecDeque<(LeaseId, Position)>,
    live: usize,
}

/// So many ended leases are not worth a sweep.
const ENDED_MAX: usize = 64;

impl Holders {
    /// Leases are given in ascending order.
    pub(super) fn insert(&mut self, connection: ConnectionId, lease: LeaseId, position: Position) {
        let given = self.connections.entry(connection).or_default();
        given.leases.push_back((lease, position));
        given.live += 1;
    }

    /// One lease of the connection has ended; `is_live` knows which have not.
    pub(super) fn one_ended(&mut self, connection: ConnectionId, is_live: impl Fn(LeaseId, Position) -> bool) {
        let Some(given) = self.connections.get_mut(&connection) else { return };
        given.live -= 1;
        if given.leases.len() > 2 * given.live + ENDED_MAX {
            given.leases.retain(|(lease, position)| is_live(*lease, *position));
        }
    }

    /// The connection is gone: its leases, oldest first, with some among them that have ended.
    pub(super) fn take(&mut self, connection: ConnectionId) -> impl Iterator<Item = (LeaseId, Position)> + use<> {
        self.connections.remove(&connection).unwrap_or_default().leases.into_iter()
    }

    pub(super) fn clear(&mut self) {
        self.connections.clear();
    }

    /// Live leases of a connection, and the entries kept for it.
    #[cfg(test)]
    pub(super) fn sizes(&self, connection: ConnectionId) -> (usize, usize) {
        self.connections.get(&connection).map_or((0, 0), |given| (given.live, given.leases.len()))
    }
}
