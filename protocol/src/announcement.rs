//! The bytes of a key announcement: whose, which, and whose signature. No cryptography: the signature is for others to check.
//!
//! ```text
//!  tag         "cipher/announce/1" and a zero byte
//!  client id   length u32, then a name
//!  seq         u64, from 1
//!  identity    32 bytes: the Ed25519 key that signs
//!  successor   32 bytes: the key that may sign the next one as well; zeros for none
//!  prev        32 bytes: SHA-256 of the announcement before; zeros in the first
//!  key         length u32, then the announced public key as SPKI DER; empty announces none
//!  not before  u64, milliseconds since 1970
//!  not after   u64, milliseconds since 1970; 2^64 - 1 for no end
//!  signature   64 bytes: Ed25519 over everything in front
//! ```
//!
//! Numbers are big-endian. Each value has one encoding and nothing may follow: two announcements are the same if their bytes are.

use crate::limits::{ANNOUNCEMENT_BYTES_MAX, ANNOUNCEMENT_SEQ_MAX};
use crate::name::Name;

/// What a client announces of itself: the part of an announcement that is signed.
///
/// ```
/// # use ciphermq_protocol::{Announcement, Name, SignedAnnouncement};
/// let announcement = Announcement {
///     client_id: Name::parse("billing")?,
///     seq: 1,
///     identity: &[7; 32],
///     successor: None,
///     prev: &[0; 32],
///     key: b"SPKI",
///     not_before_ms: 0,
///     not_after_ms: u64::MAX,
/// };
/// let mut bytes = announcement.signed_bytes()?;
/// bytes.extend([9; 64]); // what the identity's private key makes of them
/// assert_eq!(SignedAnnouncement::parse(&bytes)?.announcement, announcement);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// Whose key it is.
    pub client_id: Name<'a>,
    /// 1 in the first announcement, and higher in each later one.
    pub seq: u64,
    /// The Ed25519 public key that signs.
    pub identity: &'a [u8; 32],
    /// The Ed25519 public key that may sign the next announcement besides `identity`. Never zeros.
    pub successor: Option<&'a [u8; 32]>,
    /// SHA-256 of the whole announcement before this one; zeros in the first.
    pub prev: &'a [u8; 32],
    /// The announced public key as SPKI DER; empty announces none. Not looked into here.
    pub key: &'a [u8],
    /// From when on it may be used, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// Until when it may be used.
    pub not_after_ms: u64,
}

/// An announcement as it travels. Nothing says yet that the signature is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedAnnouncement<'a> {
    /// What is announced.
    pub announcement: Announcement<'a>,
    /// The bytes `signature` is over.
    pub signed: &'a [u8],
    /// Ed25519, by [`Announcement::identity`].
    pub signature: &'a [u8; 64],
}

/// The bytes are no announcement, or the values cannot be made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAnnouncement {
    /// Longer than [`ANNOUNCEMENT_BYTES_MAX`].
    #[error("an announcement has at most {ANNOUNCEMENT_BYTES_MAX} bytes")]
    TooLong,
    /// They begin with something else, or end too early.
    #[error("not an announcement of version 1")]
    Malformed,
    /// The client id is no name.
    #[error("the client id is no name")]
    BadClientId,
    /// The number is 0, or higher than [`ANNOUNCEMENT_SEQ_MAX`].
    #[error("the sequence number is not within 1 to {ANNOUNCEMENT_SEQ_MAX}")]
    BadSeq,
    /// A successor of zeros, which stand for none.
    #[error("the successor is all zeros")]
    ZeroSuccessor,
    /// Something follows the signature.
    #[error("bytes behind the signature")]
    TrailingBytes,
}

const TAG: &[u8; 18] = b"cipher/announce/1\0";
const SIGNATURE_BYTES: usize = 64;
const NO_SUCCESSOR: &[u8; 32] = &[0; 32];

impl<'a> Announcement<'a> {
    /// The bytes to sign; with the signature behind them they are the announcement.
    ///
    /// # Errors
    /// [`BadAnnouncement`] when no reader would take it.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, BadAnnouncement> {
        check_seq(self.seq)?;
        if self.successor == Some(NO_SUCCESSOR) {
            return Err(BadAnnouncement::ZeroSuccessor);
        }
        let mut out = Vec::with_capacity(TAG.len() + 4 + self.client_id.as_str().len() + 128 + self.key.len());
        out.extend_from_slice(TAG);
        append(&mut out, self.client_id.as_str().as_bytes())?;
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(self.identity);
        out.extend_from_slice(self.successor.unwrap_or(NO_SUCCESSOR));
        out.extend_from_slice(self.prev);
        append(&mut out, self.key)?;
        out.extend_from_slice(&self.not_before_ms.to_be_bytes());
        out.extend_from_slice(&self.not_after_ms.to_be_bytes());
        if out.len() + SIGNATURE_BYTES > ANNOUNCEMENT_BYTES_MAX {
            return Err(BadAnnouncement::TooLong);
        }
        Ok(out)
    }

    fn read(bytes: &mut &'a [u8]) -> Result<Self, BadAnnouncement> {
        let tag: &[u8; TAG.len()] = array(bytes)?;
        if tag != TAG {
            return Err(BadAnnouncement::Malformed);
        }
        let client_id = std::str::from_utf8(sized(bytes)?).map_err(|_| BadAnnouncement::BadClientId)?;
        let client_id = Name::parse(client_id).map_err(|_| BadAnnouncement::BadClientId)?;
        let seq = number(bytes)?;
        check_seq(seq)?;
        let (identity, successor, prev) = (array(bytes)?, array(bytes)?, array(bytes)?);
        let successor = (successor != NO_SUCCESSOR).then_some(successor);
        let key = sized(bytes)?;
        let (not_before_ms, not_after_ms) = (number(bytes)?, number(bytes)?);
        Ok(Self { client_id, seq, identity, successor, prev, key, not_before_ms, not_after_ms })
    }
}

impl<'a> SignedAnnouncement<'a> {
    /// Reads an announcement.
    ///
    /// # Errors
    /// [`BadAnnouncement`] for bytes that [`Announcement::signed_bytes`] never gives.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadAnnouncement> {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(BadAnnouncement::TooLong);
        }
        let mut rest = bytes;
        let announcement = Announcement::read(&mut rest)?;
        let signed = &bytes[..bytes.len() - rest.len()];
        let signature = array(&mut rest)?;
        if rest.is_empty() { Ok(Self { announcement, signed, signature }) } else { Err(BadAnnouncement::TrailingBytes) }
    }
}

fn check_seq(seq: u64) -> Result<(), BadAnnouncement> {
    if (1..=ANNOUNCEMENT_SEQ_MAX).contains(&seq) { Ok(()) } else { Err(BadAnnouncement::BadSeq) }
}

fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), BadAnnouncement> {
    let len = u32::try_from(bytes.len()).map_err(|_| BadAnnouncement::TooLong)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], BadAnnouncement> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(BadAnnouncement::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn number(bytes: &mut &[u8]) -> Result<u64, BadAnnouncement> {
    array(bytes).map(|number| u64::from_be_bytes(*number))
}

fn sized<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], BadAnnouncement> {
    let len = u32::from_be_bytes(*array(bytes)?) as usize;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(BadAnnouncement::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: [u8; 64] = [0x51; 64];

    fn announcement() -> Announcement<'static> {
        Announcement {
            client_id: Name::parse("billing").unwrap(),
            seq: 0x0102,
            identity: &[0x1d; 32],
            successor: Some(&[0x5c; 32]),
            prev: &[0x9e; 32],
            key: b"key",
            not_before_ms: 3,
            not_after_ms: 4,
        }
    }

    fn bytes_of(announcement: &Announcement<'_>) -> Vec<u8> {
        [announcement.signed_bytes().unwrap(), SIGNATURE.to_vec()].concat()
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let expected: Vec<u8> = [
            &b"cipher/announce/1\0"[..],
            b"\0\0\0\x07billing",
            b"\0\0\0\0\0\0\x01\x02",
            &[0x1d; 32],
            &[0x5c; 32],
            &[0x9e; 32],
            b"\0\0\0\x03key",
            b"\0\0\0\0\0\0\0\x03",
            b"\0\0\0\0\0\0\0\x04",
            &SIGNATURE,
        ]
        .concat();
        assert_eq!(bytes_of(&announcement()), expected);
        let parsed = SignedAnnouncement::parse(&expected).unwrap();
        assert_eq!(parsed.announcement, announcement());
        assert_eq!((parsed.signed, parsed.signature), (&expected[..expected.len() - 64], &SIGNATURE));
    }

    #[test]
    fn no_successor_is_zeros_and_zeros_are_no_successor() {
        let without = Announcement { successor: None, ..announcement() };
        let bytes = bytes_of(&without);
        assert_eq!(bytes[18 + 11 + 8 + 32..][..32], [0; 32]);
        assert_eq!(SignedAnnouncement::parse(&bytes).unwrap().announcement, without);
        let zeros = Announcement { successor: Some(&[0; 32]), ..announcement() };
        assert_eq!(zeros.signed_bytes(), Err(BadAnnouncement::ZeroSuccessor));
    }

    #[test]
    fn cut_anywhere_it_is_no_announcement() {
        let bytes = bytes_of(&announcement());
        for len in 0..bytes.len() {
            assert_eq!(SignedAnnouncement::parse(&bytes[..len]), Err(BadAnnouncement::Malformed), "{len} bytes");
        }
        let longer = [&bytes[..], b"\0"].concat();
        assert_eq!(SignedAnnouncement::parse(&longer), Err(BadAnnouncement::TrailingBytes));
    }

    #[test]
    fn lengths_that_lie_and_foreign_tags_are_refused() {
        let bytes = bytes_of(&announcement());
        for (offset, with, error) in [
            (0, 0xff, BadAnnouncement::Malformed),
            (16, b'2', BadAnnouncement::Malformed),
            (17, 1, BadAnnouncement::Malformed),
            (18, 0xff, BadAnnouncement::Malformed),
            (20, 0x0f, BadAnnouncement::Malformed),
            (22, b' ', BadAnnouncement::BadClientId),
            (22, 0xff, BadAnnouncement::BadClientId),
        ] {
            let mut changed = bytes.clone();
            changed[offset] = with;
            assert_eq!(SignedAnnouncement::parse(&changed), Err(error), "byte {offset}");
        }
    }

    #[test]
    fn the_longest_is_taken_and_one_byte_more_is_not() {
        let key = vec![1; ANNOUNCEMENT_BYTES_MAX];
        let room = ANNOUNCEMENT_BYTES_MAX - bytes_of(&Announcement { key: b"", ..announcement() }).len();
        let longest = bytes_of(&Announcement { key: &key[..room], ..announcement() });
        assert_eq!(longest.len(), ANNOUNCEMENT_BYTES_MAX);
        assert_eq!(SignedAnnouncement::parse(&longest).unwrap().announcement.key.len(), room);
        let longer = Announcement { key: &key[..room + 1], ..announcement() };
        assert_eq!(longer.signed_bytes(), Err(BadAnnouncement::TooLong));
        assert_eq!(SignedAnnouncement::parse(&[&longest[..], b"\0"].concat()), Err(BadAnnouncement::TooLong));
    }

    #[test]
    fn sequence_numbers_end_where_json_can_still_write_them() {
        for (seq, is_legal) in [(0, false), (1, true), ((1 << 53) - 1, true), (1 << 53, false), (u64::MAX, false)] {
            let numbered = Announcement { seq, ..announcement() };
            assert_eq!(numbered.signed_bytes().is_ok(), is_legal, "{seq}");
            let mut bytes = bytes_of(&announcement());
            bytes[18 + 11..][..8].copy_from_slice(&seq.to_be_bytes());
            assert_eq!(SignedAnnouncement::parse(&bytes).is_ok(), is_legal, "{seq}");
        }
    }
}
