//! Changes of exchanges, queues, bindings and keys. What is on its way is not changed again: which of two has happened when the broker
//! ends between them could not be told.

use ciphermq_broker::{Announcement, Error, QueueOptions, Returned};
use rand::RngExt;

use crate::history::History;
use crate::model::{
    ANNOUNCERS, Change, DEAD_LETTERS, DEFAULT_EXCHANGE, DEFAULT_KEY, EXCHANGES, Entry, KEYS, Name, QUEUES, Settings,
};

impl History {
    pub(crate) fn change_topology(&mut self) {
        let change = self.any_change();
        let touched: Vec<Name> = match &change {
            Change::DeclareQueue { name, .. }
            | Change::DeleteQueue { name, .. }
            | Change::Purge { name }
            | Change::DeclareExchange { name }
            | Change::DeleteExchange { name } => vec![name],
            Change::Bind { exchange, queue, .. } | Change::Unbind { exchange, queue, .. } => vec![exchange, queue],
            Change::Announce { client, .. } => vec![client],
        };
        let undecided = self.undecided();
        if touched.iter().any(|name| undecided.contains(name)) {
            return;
        }
        let client = self.any_client();
        self.change(client, change);
        if self.chance(2) {
            self.write_journal();
        }
    }

    fn any_change(&mut self) -> Change {
        let queue = self.pick(&QUEUES).unwrap_or(QUEUES[0]);
        let exchange = self.pick(&EXCHANGES).unwrap_or(DEFAULT_EXCHANGE);
        let key = self.pick(&KEYS).unwrap_or(DEFAULT_KEY);
        match self.random.random_range(0..16) {
            0..3 => {
                let max_messages = if self.chance(5) { 8 } else { 0 };
                let dead_letter = (queue == "log" && self.chance(2)).then_some("mail");
                Change::DeclareQueue {
                    name: queue,
                    settings: self.model.settings(queue, None, dead_letter, max_messages),
                }
            }
            3 => Change::DeclareExchange { name: exchange },
            4..9 => Change::Bind { exchange, queue, key },
            9 => Change::Unbind { exchange, queue, key },
            10 => {
                let dead = self.pick(&DEAD_LETTERS).unwrap_or(queue);
                let name = if self.chance(3) { dead } else { queue };
                Change::DeleteQueue { name, force: self.chance(2) }
            }
            11 => Change::DeleteExchange { name: exchange },
            12..14 => Change::Purge { name: self.any_queue() },
            _ => {
                let client = self.pick(&ANNOUNCERS).unwrap_or(ANNOUNCERS[0]);
                Change::Announce {
                    client,
                    seq: self.model.announced.get(client).map_or(0, |seqs| seqs[seqs.len() - 1]) + 1,
                }
            }
        }
    }

    pub(crate) fn change(&mut self, client: usize, change: Change) {
        self.client_does(client, format!("wants {change:?}"));
        if self.may_be_full() {
            self.submit(client);
        }
        let at = self.at();
        let link = &mut self.client(client).link;
        let returned = match &change {
            Change::DeclareQueue { name, settings: Settings { max_messages, dead_letter, .. } } => {
                let options = QueueOptions {
                    max_messages: (*max_messages > 0).then_some(*max_messages),
                    dead_letter: dead_letter.filter(|to| *to == "mail").map(Into::into),
                    ..QueueOptions::default()
                };
                link.declare_queue(name, &options, at)
            }
            Change::DeclareExchange { name } => link.declare_exchange(name, at),
            Change::Bind { exchange, queue, key } => link.bind(exchange, queue, key, at),
            Change::Unbind { exchange, queue, key } => link.unbind(exchange, queue, key, at),
            Change::DeleteQueue { name, force } => link.delete_queue(name, *force, at),
            Change::DeleteExchange { name } => link.delete_exchange(name, at),
            Change::Purge { name } => link.purge(name, at),
            Change::Announce { client, seq } => link.announce_key(announcement(client, *seq), at),
        };
        self.asked(client, change, returned);
    }

    fn asked(&mut self, client: usize, change: Change, returned: Result<Returned, Error>) {
        match returned {
            // What was collected before goes with it.
            Ok(returned) if returned.receipt.is_some() => {
                self.collect(client, Some(Entry::Change(change)));
                let client = self.client(client);
                let (at, entries) = (client.collects_since, std::mem::take(&mut client.collected));
                self.submitted(at, entries, returned.receipt, Some(returned));
            }
            Ok(_) => {}
            Err(error) if self.is_broken() => drop((error, std::mem::take(&mut self.client(client).collected))),
            Err(error) => {
                let queue = |name: &str| self.model.queues.get(name);
                let exchange = |name: &str| self.model.exchanges.contains_key(name);
                let is_right = match &error {
                    Error::NoQueue(name) => queue(name).is_none(),
                    Error::NoExchange(name) => !exchange(name),
                    Error::Conflict { queue: name, .. } => queue(name).is_some(),
                    Error::DiskFull => self.may_be_full(),
                    Error::NotEmpty { .. } | Error::NoBinding { .. } | Error::NotAllowed(_) => true,
                    _ => false,
                };
                assert!(is_right, "{change:?} was refused: {error}");
            }
        }
    }
}

/// What a client says under this number.
pub(crate) fn announcement(client: Name, seq: u64) -> Announcement {
    let bytes = format!("{client} {seq} ").repeat(12).into_bytes().into();
    Announcement { client: client.into(), seq, identity: [1; 32], successor: None, bytes }
}
