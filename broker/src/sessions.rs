use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use crate::connection::Connection;

/// Names a client across its connections: who shows it takes over from the connection that had it before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// A new one nobody can guess; guessing one would end somebody else's connection.
    pub fn random() -> SessionId {
        SessionId(uuid::Uuid::new_v4().as_u128())
    }

    /// Reads what [`fmt::Display`] wrote: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<SessionId> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(SessionId)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    /// A session id is a secret of its client; logs get no more than its beginning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:04x}…)", self.0 >> 112)
    }
}

/// Sessions of open connections.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<SessionId, Arc<Connection>>>,
}

impl Sessions {
    /// Gives `connection` the session asked for if an open connection has it, which is returned, or else a new one.
    pub(crate) fn open(
        &self,
        asked: Option<SessionId>,
        connection: &Arc<Connection>,
    ) -> (SessionId, Option<Arc<Connection>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked
            && let Some(before) = open.get_mut(&asked)
        {
            return (asked, Some(std::mem::replace(before, Arc::clone(connection))));
        }
        let session = SessionId::random();
        open.insert(session, Arc::clone(connection));
        (session, None)
    }

    /// The connection ended; the session goes unless somebody took it over.
    pub(crate) fn close(&self, session: SessionId, connection: &Arc<Connection>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&session).is_some_and(|current| Arc::ptr_eq(current, connection)) {
            open.remove(&session);
        }
    }
}
