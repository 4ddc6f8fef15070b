//! The directory of keys as a list of what was taken, in order.

use std::sync::Arc;

use ciphermq_broker::limits::ANNOUNCEMENTS_PER_CLIENT_MAX;
use ciphermq_broker::{Announcement, Error, Link, Timestamp};
use rand::RngExt;
use rand::rngs::StdRng;

const CLIENTS: u8 = 4;
const IDENTITIES: u8 = 3;

#[derive(Default)]
pub(crate) struct ModelDirectory {
    announced: Vec<(Announcement, u64)>,
    /// Every registration; of a client the last one counts.
    registered: Vec<(String, Vec<u8>)>,
    pub(crate) taken: u64,
    pub(crate) refused: u64,
}

/// What the broker must say of a request.
#[derive(Debug, PartialEq)]
enum Expected {
    Taken,
    AsItWas,
    Refused(Error),
}

impl ModelDirectory {
    /// One change at random, asked of the broker and of the model; `write` lets the broker write.
    pub(crate) fn step(&mut self, random: &mut StdRng, link: &mut Link, now: Timestamp, write: impl FnOnce()) {
        let client = format!("client-{}", random.random_range(0..CLIENTS));
        if random.random_range(0..12) == 0 {
            let key = vec![random.random_range(0..4u8); random.random_range(1..50)];
            let expected = self.register(&client, &key);
            return self.compare(expected, link.register_key(&client, &key, now), write);
        }
        let announcement = self.any_announcement(random, &client);
        let expected = self.announce(&announcement, now);
        self.compare(expected, link.announce_key(announcement, now), write);
    }

    fn compare(
        &mut self,
        expected: Expected,
        returned: Result<ciphermq_broker::Returned, Error>,
        write: impl FnOnce(),
    ) {
        write();
        let got = match returned {
            Err(error) => Expected::Refused(error),
            Ok(returned) if returned.receipt.is_none() => Expected::AsItWas,
            Ok(returned) => match returned.refused() {
                None => Expected::Taken,
                Some(error) => panic!("nothing was in between: {error}"),
            },
        };
        assert_eq!(got, expected);
        self.taken += u64::from(expected == Expected::Taken);
        self.refused += u64::from(matches!(expected, Expected::Refused(_)));
    }

    /// Mostly one that is taken.
    fn any_announcement(&self, random: &mut StdRng, client: &str) -> Announcement {
        let newest = self.of(client).last();
        if let Some((newest, _)) = newest.filter(|_| random.random_range(0..10) == 0) {
            return newest.clone();
        }
        let last = newest.map_or(0, |(newest, _)| newest.seq);
        let identity = newest.map(|(newest, _)| newest.successor.unwrap_or(newest.identity));
        let seq = last + 2 - random.random_range(0..6u64).saturating_sub(3).min(last + 1);
        let any = |random: &mut StdRng| [random.random_range(0..IDENTITIES); 32];
        let identity = match (identity, random.random_range(0..5)) {
            (Some(identity), 1..) => identity,
            _ => any(random),
        };
        let successor = (random.random_range(0..4) == 0).then(|| any(random));
        let bytes: Vec<u8> = (0..random.random_range(1..300)).map(|_| random.random()).collect();
        Announcement { client: client.into(), seq, identity, successor, bytes: bytes.into() }
    }

    fn of<'a>(&'a self, client: &'a str) -> impl DoubleEndedIterator<Item = &'a (Announcement, u64)> {
        self.announced.iter().filter(move |(announcement, _)| &*announcement.client == client)
    }

    fn announce(&mut self, asked: &Announcement, now: Timestamp) -> Expected {
        if let Some((newest, _)) = self.of(&asked.client).last() {
            if newest.bytes == asked.bytes {
                return Expected::AsItWas;
            }
            if asked.identity != newest.identity && Some(asked.identity) != newest.successor {
                return Expected::Refused(Error::OtherIdentity(asked.client.to_string()));
            }
            if asked.seq <= newest.seq {
                let (client, last) = (asked.client.to_string(), newest.seq);
                return Expected::Refused(Error::OldAnnouncement { client, last });
            }
        }
        self.announced.push((asked.clone(), now.0));
        Expected::Taken
    }

    fn register(&mut self, client: &str, key: &[u8]) -> Expected {
        if self.of(client).next().is_some() {
            return Expected::Refused(Error::Announced(client.to_owned()));
        }
        if self.unsigned(client) == Some(key) {
            return Expected::AsItWas;
        }
        self.registered.push((client.to_owned(), key.to_vec()));
        Expected::Taken
    }

    fn unsigned(&self, client: &str) -> Option<&[u8]> {
        let of = self.registered.iter().rev().find(|(registered, _)| registered == client);
        of.filter(|_| self.of(client).next().is_none()).map(|(_, key)| &**key)
    }

    /// The broker tells what the model has.
    pub(crate) fn check(&self, link: &Link) {
        for client in (0..CLIENTS).map(|client| format!("client-{client}")) {
            let mut expected: Vec<(u64, u64, &Arc<[u8]>)> =
                self.of(&client).map(|(announcement, at)| (announcement.seq, *at, &announcement.bytes)).collect();
            expected.drain(..expected.len().saturating_sub(ANNOUNCEMENTS_PER_CLIENT_MAX));
            let history = link.key_history(&client, 1, usize::MAX).map_or_else(|_| Vec::new(), |all| all.announcements);
            let history: Vec<_> = history.iter().map(|view| (view.seq, view.announced.0, &view.bytes)).collect();
            assert_eq!(history, expected, "{client}");
            assert_eq!(link.unsigned_key(&client).ok().as_deref(), self.unsigned(&client), "{client}");
        }
    }
}
