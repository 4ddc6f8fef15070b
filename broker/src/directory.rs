//! Who announced which key.
//!
//! The directory keeps what clients say of themselves and vouches for none of it. Signed announcements are kept in versions; an
//! unsigned key, which is all the originals know, stands until an announcement takes its place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ciphermq_journal::{Position, Space};
use hashbrown::HashMap;

use crate::{Error, Timestamp, limits};

/// A signed announcement, as a door has read it. The door has also checked that `identity` signed it: here its bytes are only
/// kept, and identities compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Whose key it is.
    pub client: Arc<str>,
    /// Higher than that of the announcement before.
    pub seq: u64,
    /// Who signed it.
    pub identity: [u8; 32],
    /// Who may sign the next one besides `identity`.
    pub successor: Option<[u8; 32]>,
    /// All of it, signature included.
    pub bytes: Arc<[u8]>,
}

/// A key nobody signed: what `register_key` of the originals gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnsignedKey {
    pub(crate) client: Arc<str>,
    pub(crate) key: Arc<[u8]>,
}

/// A change of the directory, as decided; also how it is told again when the segment it was in is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Announced(Announcement),
    Unsigned(UnsignedKey),
}

/// An announcement as it is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncementView {
    /// Its number.
    pub seq: u64,
    /// When the broker took it.
    pub announced: Timestamp,
    /// All of it, signature included.
    pub bytes: Arc<[u8]>,
}

/// A part of what one client has announced, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHistory {
    /// The number of the oldest announcement kept, in this part or not.
    pub first: u64,
    /// The number of the newest.
    pub last: u64,
    /// The number the next part begins with.
    pub next: Option<u64>,
    /// The announcements of this part.
    pub announcements: Vec<AnnouncementView>,
}

/// How much is in the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryFigures {
    /// Client ids with announcements or an unsigned key.
    pub clients: usize,
    /// Announcements, all versions.
    pub announcements: usize,
    /// Unsigned keys.
    pub unsigned: usize,
    /// Bytes of all of it, with what each entry counts for besides.
    pub bytes: u64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Directory {
    clients: HashMap<Arc<str>, Known>,
    announcements: usize,
    unsigned: usize,
    bytes: u64,
}

#[derive(Debug)]
enum Known {
    /// By their numbers; never empty.
    Announced(BTreeMap<u64, Version>),
    Unsigned(Stored),
}

#[derive(Debug)]
struct Version {
    identity: [u8; 32],
    successor: Option<[u8; 32]>,
    stored: Stored,
}

/// Bytes as they were given, and where their record is.
#[derive(Debug)]
struct Stored {
    bytes: Arc<[u8]>,
    at: Timestamp,
    location: Position,
}

impl Directory {
    /// Whether this can be taken, and whether it is anything new. Asked as changes of the topology are: on the way in, and again
    /// when its turn in the log comes.
    pub(crate) fn check(&self, entry: &Entry) -> Result<bool, Error> {
        let client = entry.client();
        let freed = match (self.clients.get(client), entry) {
            (Some(Known::Announced(versions)), Entry::Announced(announcement)) => {
                let Some((last, newest)) = versions.last_key_value() else { return Ok(true) };
                if newest.stored.bytes == announcement.bytes {
                    return Ok(false);
                }
                if !newest.may_be_followed_by(&announcement.identity) {
                    return Err(Error::OtherIdentity(client.to_string()));
                }
                if announcement.seq <= *last {
                    return Err(Error::OldAnnouncement { client: client.to_string(), last: *last });
                }
                let is_full = versions.len() >= limits::ANNOUNCEMENTS_PER_CLIENT_MAX;
                versions.first_key_value().filter(|_| is_full).map(|(_, oldest)| &oldest.stored)
            }
            (Some(Known::Announced(_)), Entry::Unsigned(_)) => return Err(Error::Announced(client.to_string())),
            (Some(Known::Unsigned(before)), Entry::Unsigned(key)) if before.bytes == key.key => return Ok(false),
            (Some(Known::Unsigned(before)), _) => Some(before),
            (None, _) if self.clients.len() >= limits::CLIENTS_MAX => return Err(Error::Limit("100000 client ids")),
            (None, _) => None,
        };
        let freed = freed.map_or(0, |stored| counted(client, &stored.bytes));
        if self.bytes - freed + counted(client, entry.bytes()) > limits::DIRECTORY_BYTES_MAX {
            return Err(Error::Limit("256 MiB of keys"));
        }
        Ok(true)
    }

    /// An entry is in the log, for the first time or written anew. Never decides: what replay repeats must come out the same.
    pub(crate) fn apply(&mut self, entry: &Entry, at: Timestamp, location: Position, space: &mut Space) {
        let (client, bytes) = (entry.client(), entry.bytes());
        if matches!((self.clients.get(client), entry), (Some(Known::Announced(_)), Entry::Unsigned(_))) {
            return;
        }
        self.bytes += counted(client, bytes);
        space.retain(location, in_log(client, bytes));
        let gone = self.put(entry, Stored { bytes: Arc::clone(bytes), at, location });
        for stored in gone.into_iter().flatten() {
            self.bytes -= counted(client, &stored.bytes);
            space.release(stored.location, in_log(client, &stored.bytes));
        }
    }

    /// Returns what it replaces, and what is one version too many.
    fn put(&mut self, entry: &Entry, stored: Stored) -> [Option<Stored>; 2] {
        let client = entry.client();
        match (self.clients.get_mut(client), entry) {
            (Some(Known::Announced(versions)), Entry::Announced(announcement)) => {
                let replaced = versions.insert(announcement.seq, Version::of(announcement, stored));
                let is_over = versions.len() > limits::ANNOUNCEMENTS_PER_CLIENT_MAX;
                let outdated = if is_over { versions.pop_first().map(|(_, version)| version) } else { None };
                let gone = [replaced, outdated].map(|version| version.map(|version| version.stored));
                self.announcements = self.announcements + 1 - gone.iter().flatten().count();
                gone
            }
            (_, Entry::Announced(announcement)) => {
                self.announcements += 1;
                let versions = BTreeMap::from([(announcement.seq, Version::of(announcement, stored))]);
                self.replace(client, Known::Announced(versions))
            }
            (_, Entry::Unsigned(_)) => {
                self.unsigned += 1;
                self.replace(client, Known::Unsigned(stored))
            }
        }
    }

    fn replace(&mut self, client: &Arc<str>, known: Known) -> [Option<Stored>; 2] {
        match self.clients.insert(Arc::clone(client), known) {
            Some(Known::Unsigned(before)) => {
                self.unsigned -= 1;
                [Some(before), None]
            }
            _ => [None, None],
        }
    }

    /// Whether the record at `location` is the one this entry is in now.
    pub(crate) fn is_at(&self, entry: &Entry, location: Position) -> bool {
        let stored = match (self.clients.get(entry.client()), entry) {
            (Some(Known::Announced(versions)), Entry::Announced(announcement)) => {
                versions.get(&announcement.seq).map(|version| &version.stored)
            }
            (Some(Known::Unsigned(stored)), Entry::Unsigned(_)) => Some(stored),
            _ => None,
        };
        stored.is_some_and(|stored| stored.location == location)
    }

    /// The newest announcement of a client.
    pub(crate) fn lookup(&self, client: &str) -> Option<AnnouncementView> {
        self.versions(client)?.last_key_value().map(view)
    }

    /// Up to `limit` announcements of a client, from the one numbered `from` on.
    pub(crate) fn history(&self, client: &str, from: u64, limit: usize) -> Option<KeyHistory> {
        let versions = self.versions(client)?;
        let ((first, _), (last, _)) = versions.first_key_value().zip(versions.last_key_value())?;
        let mut rest = versions.range(from..);
        let announcements = rest.by_ref().take(limit).map(view).collect();
        Some(KeyHistory { first: *first, last: *last, next: rest.next().map(|(seq, _)| *seq), announcements })
    }

    /// The unsigned key of a client.
    pub(crate) fn unsigned(&self, client: &str) -> Option<Arc<[u8]>> {
        match self.clients.get(client)? {
            Known::Unsigned(stored) => Some(Arc::clone(&stored.bytes)),
            Known::Announced(_) => None,
        }
    }

    pub(crate) fn figures(&self) -> DirectoryFigures {
        let Directory { clients, announcements, unsigned, bytes } = self;
        DirectoryFigures { clients: clients.len(), announcements: *announcements, unsigned: *unsigned, bytes: *bytes }
    }

    fn versions(&self, client: &str) -> Option<&BTreeMap<u64, Version>> {
        match self.clients.get(client)? {
            Known::Announced(versions) => Some(versions),
            Known::Unsigned(_) => None,
        }
    }
}

impl Entry {
    pub(crate) fn client(&self) -> &Arc<str> {
        match self {
            Entry::Announced(announcement) => &announcement.client,
            Entry::Unsigned(key) => &key.client,
        }
    }

    fn bytes(&self) -> &Arc<[u8]> {
        match self {
            Entry::Announced(announcement) => &announcement.bytes,
            Entry::Unsigned(key) => &key.key,
        }
    }
}

impl fmt::Display for Entry {
    /// One line for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Announced(announcement) => {
                write!(f, "Key of client {} announced, seq {}", announcement.client, announcement.seq)
            }
            Entry::Unsigned(key) => write!(f, "Unsigned key of client {} registered", key.client),
        }
    }
}

impl Version {
    fn of(announcement: &Announcement, stored: Stored) -> Version {
        Version { identity: announcement.identity, successor: announcement.successor, stored }
    }

    fn may_be_followed_by(&self, identity: &[u8; 32]) -> bool {
        self.identity == *identity || self.successor.as_ref() == Some(identity)
    }
}

fn view((seq, version): (&u64, &Version)) -> AnnouncementView {
    AnnouncementView { seq: *seq, announced: version.stored.at, bytes: Arc::clone(&version.stored.bytes) }
}

/// What an entry counts for against the directory's limit.
fn counted(client: &str, bytes: &[u8]) -> u64 {
    (client.len() + bytes.len()) as u64 + limits::DIRECTORY_ENTRY_OVERHEAD_BYTES
}

/// What its record takes in the log, where it stands twice.
fn in_log(client: &str, bytes: &[u8]) -> u64 {
    2 * ((client.len() + bytes.len()) as u64 + limits::RECORD_OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(client: &str, seq: u64, bytes: &Arc<[u8]>) -> Entry {
        let (client, bytes) = (Arc::from(client), Arc::clone(bytes));
        Entry::Announced(Announcement { client, seq, identity: [1; 32], successor: None, bytes })
    }

    fn unsigned(client: &str, bytes: &Arc<[u8]>) -> Entry {
        Entry::Unsigned(UnsignedKey { client: Arc::from(client), key: Arc::clone(bytes) })
    }

    fn apply(directory: &mut Directory, entry: &Entry, position: u64) {
        directory.apply(entry, Timestamp(position), Position(position), &mut Space::uncounted());
    }

    #[test]
    fn so_many_clients_are_known_and_no_more() {
        let (mut directory, bytes) = (Directory::default(), Arc::from(&b"key"[..]));
        for n in 0..limits::CLIENTS_MAX {
            let entry = unsigned(&n.to_string(), &bytes);
            assert_eq!(directory.check(&entry), Ok(true));
            apply(&mut directory, &entry, 1 + n as u64);
        }
        let limit = Err(Error::Limit("100000 client ids"));
        assert_eq!(directory.check(&unsigned("one more", &bytes)), limit);
        assert_eq!(directory.check(&announced("one more", 1, &bytes)), limit);
        assert_eq!(directory.check(&announced("7", 1, &bytes)), Ok(true), "one that is known can go on");
        assert_eq!(directory.figures().clients, limits::CLIENTS_MAX);
    }

    #[test]
    fn the_directory_takes_so_many_bytes_and_no_more() {
        // Two allocations stand for all of them: this is about the count.
        let [even, odd]: [Arc<[u8]>; 2] = [1, 2].map(|byte| Arc::from(vec![byte; limits::KEY_BYTES_MAX]));
        let (mut directory, mut taken) = (Directory::default(), 0);
        let refused = loop {
            let bytes = if taken % 2 == 0 { &even } else { &odd };
            let entry = announced(&format!("{:05}", taken / 64), 1 + taken % 64, bytes);
            match directory.check(&entry).map(|is_new| assert!(is_new)) {
                Ok(()) => apply(&mut directory, &entry, 1 + taken),
                Err(error) => break error,
            }
            taken += 1;
        };
        assert_eq!(refused, Error::Limit("256 MiB of keys"));
        assert_eq!(taken, limits::DIRECTORY_BYTES_MAX / counted("00000", &even));
        let figures = directory.figures();
        assert!(figures.bytes <= limits::DIRECTORY_BYTES_MAX && figures.announcements as u64 == taken, "{figures:?}");
        // A client whose oldest version goes needs no more room than it has.
        assert_eq!(directory.check(&announced("00000", 65, &even)), Ok(true));
        assert_eq!(directory.check(&announced("new", 1, &even)), Err(refused));
    }

    #[test]
    fn bytes_are_counted_as_long_as_they_are_kept() {
        let mut directory = Directory::default();
        let of_len = |len: usize| -> Arc<[u8]> { Arc::from(vec![1; len]) };
        let mut position = 0;
        let mut put = |directory: &mut Directory, entry: Entry| {
            position += 1;
            apply(directory, &entry, position);
        };
        put(&mut directory, unsigned("c", &of_len(100)));
        put(&mut directory, unsigned("c", &of_len(50)));
        assert_eq!(directory.figures().bytes, counted("c", &of_len(50)));
        let versions = limits::ANNOUNCEMENTS_PER_CLIENT_MAX as u64;
        for seq in 1..=versions + 5 {
            put(&mut directory, announced("c", seq, &of_len(seq as usize)));
        }
        let kept = 6..=versions + 5;
        let bytes = kept.clone().map(|seq| counted("c", &of_len(seq as usize))).sum();
        let announcements = limits::ANNOUNCEMENTS_PER_CLIENT_MAX;
        let expected = DirectoryFigures { clients: 1, announcements, unsigned: 0, bytes };
        assert_eq!(directory.figures(), expected);
        // Written anew: in its old place, counted once. One that is too old already is not kept.
        put(&mut directory, announced("c", 6, &of_len(6)));
        put(&mut directory, announced("c", 2, &of_len(2)));
        put(&mut directory, unsigned("c", &of_len(9)));
        assert_eq!(directory.figures(), expected);
        assert_eq!(directory.history("c", 1, 1).map(|history| (history.first, history.next)), Some((6, Some(7))));
    }

    #[test]
    fn a_part_of_the_history_says_where_the_next_begins() {
        let (mut directory, bytes) = (Directory::default(), Arc::from(&b"key"[..]));
        for seq in [1, 2, 5, 9] {
            apply(&mut directory, &announced("c", seq, &bytes), seq);
        }
        let part = |from, limit| {
            let history = directory.history("c", from, limit).unwrap();
            let seqs: Vec<u64> = history.announcements.iter().map(|view| view.seq).collect();
            assert_eq!((history.first, history.last), (1, 9));
            (seqs, history.next)
        };
        assert_eq!(part(1, 2), (vec![1, 2], Some(5)));
        assert_eq!(part(5, 2), (vec![5, 9], None));
        assert_eq!(part(3, 1), (vec![5], Some(9)));
        assert_eq!(part(10, 5), (vec![], None));
        assert_eq!(part(u64::MAX, 5), (vec![], None));
        assert_eq!(directory.history("d", 1, 2), None);
    }
}
