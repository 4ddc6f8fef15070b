//! One remembered message in 32 bytes.
//!
//! ```text
//! 0        12           24        28       32
//! | id hash | uniq. hash | seen u32 | check |   integers little-endian
//! ```
//!
//! The hashes are SHA-256 over a secret salt, cut to 96 bits: senders choose the
//! ids, and without the salt they cannot look for two that fall together.

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of a record in a file.
pub(super) const RECORD_LEN: usize = 32;
/// Bytes of the salt.
pub(super) const SALT_LEN: usize = 16;

const HASH_LEN: usize = 12;
const SEEN_AT: usize = 2 * HASH_LEN;
const CHECK_AT: usize = SEEN_AT + 4;

pub(super) type Hash = [u8; HASH_LEN];

/// The secret of one window; it lives as long as the window's file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) [u8; SALT_LEN]);

/// A remembered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: Hash,
    pub(super) uniqueness: Hash,
    /// Seconds since 1970.
    pub(super) seen: u32,
}

impl Salt {
    pub(super) fn random() -> Result<Self> {
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(|fault| Error::with_source(ErrorKind::Random, fault))?;
        Ok(Self(salt))
    }

    pub(super) fn record(&self, message_id: &str, uniqueness: &[u8; 32], seen: u32) -> Record {
        Record { id: self.hash(b'i', message_id.as_bytes()), uniqueness: self.hash(b'u', uniqueness), seen }
    }

    /// The bytes of `record` in a file.
    pub(super) fn encode(&self, record: &Record) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..HASH_LEN].copy_from_slice(&record.id);
        bytes[HASH_LEN..SEEN_AT].copy_from_slice(&record.uniqueness);
        bytes[SEEN_AT..CHECK_AT].copy_from_slice(&record.seen.to_le_bytes());
        let check = self.hash(b'c', &bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check[..RECORD_LEN - CHECK_AT]);
        bytes
    }

    /// `None`: damaged, or never written.
    pub(super) fn decode(&self, bytes: &[u8; RECORD_LEN]) -> Option<Record> {
        let record = Record {
            id: bytes[..HASH_LEN].try_into().ok()?,
            uniqueness: bytes[HASH_LEN..SEEN_AT].try_into().ok()?,
            seen: u32::from_le_bytes(bytes[SEEN_AT..CHECK_AT].try_into().ok()?),
        };
        (self.encode(&record) == *bytes).then_some(record)
    }

    fn hash(&self, domain: u8, bytes: &[u8]) -> Hash {
        let hash = Sha256::new().chain_update(self.0).chain_update([domain]).chain_update(bytes).finalize();
        std::array::from_fn(|i| hash[i])
    }
}

impl Record {
    pub(super) fn is_expired(&self, window_secs: u32, now: u32) -> bool {
        now.saturating_sub(self.seen) >= window_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let salt = Salt([3; SALT_LEN]);
        let record = salt.record("m1", &[4; 32], 1_700_000_000);
        let bytes = salt.encode(&record);
        assert_eq!(salt.decode(&bytes), Some(record));
        for bit in 0..RECORD_LEN * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(salt.decode(&bytes), None, "bit {bit}");
        }
        assert_eq!(salt.decode(&[0; RECORD_LEN]), None);
    }

    #[test]
    fn ids_and_uniqueness_do_not_share_hashes_and_depend_on_the_salt() {
        let text = "01234567890123456789012345678901";
        let uniqueness: [u8; 32] = text.as_bytes().try_into().unwrap();
        let record = Salt([3; SALT_LEN]).record(text, &uniqueness, 0);
        assert_ne!(record.id, record.uniqueness);
        assert_ne!(record.id, Salt([4; SALT_LEN]).record(text, &uniqueness, 0).id);
    }
}
