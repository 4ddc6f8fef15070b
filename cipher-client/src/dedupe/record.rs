//! One remembered message in 32 bytes.
//!
//! ```text
//! 0        12           23    24       28      32
//! | id hash | uniq. hash | lap | seen u32 | check |   integers little-endian
//! ```
//!
//! The hashes are SHA-256 over a secret salt, cut to 96 and 88 bits: senders
//! choose the ids, and without the salt they cannot look for two that fall
//! together. The lap counts how often the ring of records was gone round. The
//! check covers the 28 bytes in front of it and the place in the file.

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::MessageKey;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a record in a file.
pub(super) const RECORD_LEN: usize = 32;
/// Bytes of the salt.
pub(super) const SALT_LEN: usize = 16;

const ID_LEN: usize = 12;
const UNIQUENESS_LEN: usize = 11;
const LAP_AT: usize = ID_LEN + UNIQUENESS_LEN;
const SEEN_AT: usize = LAP_AT + 1;
const CHECK_AT: usize = SEEN_AT + 4;

/// The secret of one window; it lives as long as the window's file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) [u8; SALT_LEN]);

/// A remembered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: [u8; ID_LEN],
    pub(super) uniqueness: [u8; UNIQUENESS_LEN],
    /// Seconds since 1970.
    pub(super) seen: u32,
}

/// What a message can be recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trait {
    Id,
    Uniqueness,
}

impl Trait {
    pub(super) const BOTH: [Trait; 2] = [Trait::Id, Trait::Uniqueness];

    /// By what a message is looked for. That of a signed one is its id, which is
    /// authentic with its sender; its sealing is not looked for: in suite 1 somebody
    /// else can make a message with the same one, or show a copy without the
    /// signature first, and would keep it out.
    pub(super) fn of(key: &MessageKey<'_>) -> &'static [Trait] {
        match key.sender {
            Some(_) => &[Trait::Id],
            None => &Self::BOTH,
        }
    }
}

impl Salt {
    pub(super) fn random() -> Result<Self> {
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(|fault| Error::with_source(ErrorKind::Random, fault))?;
        Ok(Self(salt))
    }

    pub(super) fn record(&self, key: &MessageKey<'_>, seen: u32) -> Record {
        let id = match key.sender {
            None => self.hash(b'i', &[], key.message_id.as_bytes()),
            Some(sender) => self.hash(b's', sender.as_bytes(), key.message_id.as_bytes()),
        };
        let uniqueness = self.hash(b'u', &[], key.uniqueness);
        Record { id: prefix(&id), uniqueness: prefix(&uniqueness), seen }
    }

    /// SHA-256 over the salt, a letter for what is hashed, and the parts. Only
    /// the last part has a length of its own.
    pub(super) fn hash(&self, domain: u8, first: &[u8], last: &[u8]) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.0)
            .chain_update([domain])
            .chain_update(first)
            .chain_update(last)
            .finalize()
            .into()
    }
}

impl Record {
    /// The bytes of this record in place `slot` of a file, in lap `lap`.
    pub(super) fn encode(&self, slot: u64, lap: u8) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..ID_LEN].copy_from_slice(&self.id);
        bytes[ID_LEN..LAP_AT].copy_from_slice(&self.uniqueness);
        bytes[LAP_AT] = lap;
        bytes[SEEN_AT..CHECK_AT].copy_from_slice(&self.seen.to_le_bytes());
        let check = check(&bytes, slot);
        bytes[CHECK_AT..].copy_from_slice(&check);
        bytes
    }

    /// The record and its lap; `None`: damaged, or never written.
    pub(super) fn decode(bytes: &[u8; RECORD_LEN], slot: u64) -> Option<(Self, u8)> {
        let record = Self {
            id: prefix(bytes),
            uniqueness: prefix(&bytes[ID_LEN..]),
            seen: u32::from_le_bytes(prefix(&bytes[SEEN_AT..])),
        };
        (check(bytes, slot) == bytes[CHECK_AT..]).then_some((record, bytes[LAP_AT]))
    }

    pub(super) fn is_same(&self, other: &Record, by: Trait) -> bool {
        match by {
            Trait::Id => self.id == other.id,
            Trait::Uniqueness => self.uniqueness == other.uniqueness,
        }
    }

    /// What tables place a record by: the hashes are even already, so their
    /// first bytes will do.
    pub(super) fn table_hash(&self, by: Trait) -> u64 {
        match by {
            Trait::Id => u64::from_be_bytes(prefix(&self.id)),
            Trait::Uniqueness => u64::from_be_bytes(prefix(&self.uniqueness)),
        }
    }

    pub(super) fn is_expired(&self, window_secs: u32, now: u32) -> bool {
        now.saturating_sub(self.seen) >= window_secs
    }
}

fn check(bytes: &[u8; RECORD_LEN], slot: u64) -> [u8; RECORD_LEN - CHECK_AT] {
    prefix(&xxh3_64_with_seed(&bytes[..CHECK_AT], slot).to_le_bytes())
}

/// The first `N` of at least `N` bytes.
pub(super) fn prefix<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| bytes[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Kid;

    fn key(message_id: &str) -> MessageKey<'_> {
        MessageKey::new(message_id, &[4; 32])
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_so_is_another_place() {
        let record = Salt([3; SALT_LEN]).record(&key("m1"), 1_700_000_000);
        let bytes = record.encode(77, 5);
        assert_eq!(Record::decode(&bytes, 77), Some((record, 5)));
        assert_eq!(Record::decode(&bytes, 78), None);
        for bit in 0..RECORD_LEN * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&bytes, 77), None, "bit {bit}");
        }
        assert_eq!(Record::decode(&[0; RECORD_LEN], 0), None);
    }

    #[test]
    fn hashes_depend_on_the_salt_on_what_is_hashed_and_on_the_sender() {
        let text = "01234567890123456789012345678901";
        let uniqueness: [u8; 32] = text.as_bytes().try_into().unwrap();
        let key = MessageKey::new(text, &uniqueness);
        let record = Salt([3; SALT_LEN]).record(&key, 0);
        assert_ne!(record.id[..UNIQUENESS_LEN], record.uniqueness);
        assert_ne!(record.id, Salt([4; SALT_LEN]).record(&key, 0).id);
        let of = |sender| Salt([3; SALT_LEN]).record(&key.signed_by(&Kid::from_bytes([sender; 32])), 0);
        assert_ne!(of(1).id, record.id);
        assert_ne!(of(1).id, of(2).id);
        assert_eq!(of(1).uniqueness, record.uniqueness);
    }

    /// The id of an unsigned message cannot imitate that of a signed one.
    #[test]
    fn a_sender_is_no_part_of_an_id() {
        let salt = Salt([3; SALT_LEN]);
        let forged = format!("{}m1", "a".repeat(32));
        let signed = salt.record(&MessageKey::new("m1", &[0; 32]).signed_by(&Kid::from_bytes([b'a'; 32])), 0);
        assert_ne!(salt.record(&MessageKey::new(&forged, &[0; 32]), 0).id, signed.id);
    }
}
