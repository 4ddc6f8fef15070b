//! The model of one queue: a deque that is scanned.

use std::collections::VecDeque;

use crate::{LEASE_MS, MAX_ATTEMPTS};

#[derive(Default)]
pub(crate) struct ModelQueue {
    pub(crate) messages: VecDeque<ModelMessage>,
    pub(crate) consumers: Vec<ModelConsumer>,
    pub(crate) turn: VecDeque<usize>,
    pub(crate) dead_letter: Option<String>,
    pub(crate) leases: u64,
    pub(crate) subscriptions: usize,
}

pub(crate) struct ModelMessage {
    pub(crate) id: String,
    pub(crate) attempts: u32,
    pub(crate) place: Place,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Ready,
    Delayed { until: u64 },
    Leased { connection: usize, deadline: u64, credit: Option<usize>, serial: u64 },
}

pub(crate) struct ModelConsumer {
    pub(crate) connection: usize,
    pub(crate) subscription: usize,
    pub(crate) limit: usize,
    pub(crate) used: usize,
}

impl ModelQueue {
    /// In order of arrival, whatever was delivered before.
    pub(crate) fn next_ready(&self) -> Option<usize> {
        self.messages.iter().position(|message| message.place == Place::Ready)
    }

    pub(crate) fn join_turn(&mut self, connection: usize) {
        let has_credit = self.consumers.iter().any(|it| it.connection == connection && it.used < it.limit);
        if has_credit && !self.turn.contains(&connection) {
            self.turn.push_back(connection);
        }
    }

    pub(crate) fn return_credit(&mut self, subscription: usize) {
        if let Some(consumer) = self.consumers.iter_mut().find(|it| it.subscription == subscription) {
            consumer.used -= 1;
            let connection = consumer.connection;
            self.join_turn(connection);
        }
    }

    pub(crate) fn lease(&mut self, index: usize, connection: usize, now: u64, credit: Option<usize>) -> (String, u32) {
        self.leases += 1;
        let message = &mut self.messages[index];
        message.place = Place::Leased { connection, deadline: now + LEASE_MS, credit, serial: self.leases };
        (message.id.clone(), message.attempts + 1)
    }

    pub(crate) fn end_lease(&mut self, index: usize) {
        if let Place::Leased { credit: Some(subscription), .. } = self.messages[index].place {
            self.return_credit(subscription);
        }
        self.messages[index].place = Place::Ready;
    }

    /// True when the message is worn out and must leave.
    pub(crate) fn give_back(&mut self, index: usize, uses_attempt: bool, delay: Option<u64>) -> bool {
        self.end_lease(index);
        let message = &mut self.messages[index];
        message.attempts += u32::from(uses_attempt);
        if self.dead_letter.is_some() && message.attempts >= MAX_ATTEMPTS {
            return true;
        }
        if let Some(until) = delay {
            message.place = Place::Delayed { until };
        }
        false
    }

    pub(crate) fn held_by(&self, connection: usize) -> Vec<usize> {
        let serial = |index: &usize| match self.messages[*index].place {
            Place::Leased { serial, .. } => serial,
            _ => 0,
        };
        let mut held: Vec<usize> = (0..self.messages.len())
            .filter(
                |index| matches!(self.messages[*index].place, Place::Leased { connection: it, .. } if it == connection),
            )
            .collect();
        held.sort_by_key(serial);
        held
    }
}
