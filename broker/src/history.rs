use std::sync::Arc;

use crate::dedupe::IdHash;
use crate::window::{Keyed, Window};
use crate::{Timestamp, limits};

/// The last acknowledged messages, for `status`.
#[derive(Debug)]
pub(crate) struct History {
    window: Window<Acknowledged>,
}

/// What is remembered of an acknowledged message.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) hash: IdHash,
    pub(crate) exchange: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) attempts: u32,
    pub(crate) published: Timestamp,
    pub(crate) delivered: Option<Timestamp>,
    pub(crate) acknowledged: Timestamp,
}

impl History {
    pub(crate) fn new() -> History {
        History { window: Window::new() }
    }

    pub(crate) fn push(&mut self, acknowledged: Acknowledged) {
        if self.window.len() >= limits::HISTORY_MAX {
            self.window.pop();
        }
        self.window.push(acknowledged);
    }

    pub(crate) fn find(&self, hash: IdHash) -> Vec<Acknowledged> {
        self.window.find(hash).cloned().collect()
    }
}

impl Keyed for Acknowledged {
    fn hash(&self) -> IdHash {
        self.hash
    }
}
