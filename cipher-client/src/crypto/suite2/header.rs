//! The header of a suite 2 message: what is bound to the payload beside the text.
//!
//! ```text
//!  0  version 2
//!  1  suite: 1 = 2r, 2 = 2x, 3 = 2pq
//!  2  flags: 1 padded, 2 compressed, 4 part of a larger message
//!  3  time of sealing, milliseconds since 1970 (u64)
//! 11  session (16)
//! 27  number in the session (u64)
//! 35  beginning of the session, milliseconds since 1970 (u64)
//! 43  how long it may last, milliseconds (u64)
//! 51  message id, exchange, routing key, content type, sender's kid (0 or 32),
//!     recipients' kids (32 each, ascending): each behind its length (u32)
//!     with flag 4: message's id (16), index (u32), count (u32), bytes of the whole (u64)
//! ```
//!
//! Integers are big-endian. A header has one form: what does not end where it
//! should, or sets what is not defined, is not read.

use super::RECIPIENTS_MAX;
use crate::crypto::context::{CONTEXT_FIELD_BYTES_MAX, Context};
use crate::crypto::kid::Kid;
use crate::crypto::message_id::{self, MESSAGE_ID_BYTES_MAX};
use crate::crypto::opened::Suite;
use crate::crypto::parts::Part;
use crate::error::{Error, ErrorKind, Result};

/// Longest header: every field at its limit.
pub(in crate::crypto) const HEADER_BYTES_MAX: usize = FIXED_LEN
    + 6 * 4
    + MESSAGE_ID_BYTES_MAX
    + 3 * CONTEXT_FIELD_BYTES_MAX
    + Kid::LEN
    + RECIPIENTS_MAX * Kid::LEN
    + PART_LEN;

/// A header, its texts borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::crypto) struct Header<'a> {
    pub(in crate::crypto) suite: Suite,
    pub(in crate::crypto) is_padded: bool,
    pub(in crate::crypto) is_compressed: bool,
    pub(in crate::crypto) sent_ms: u64,
    pub(in crate::crypto) session: [u8; 16],
    pub(in crate::crypto) number: u64,
    pub(in crate::crypto) bounds: Bounds,
    pub(in crate::crypto) message_id: &'a str,
    pub(in crate::crypto) exchange: &'a str,
    pub(in crate::crypto) routing_key: &'a str,
    /// Empty: none.
    pub(in crate::crypto) content_type: &'a str,
    pub(in crate::crypto) sender: Option<Kid>,
    /// Ascending, no two alike.
    pub(in crate::crypto) recipients: &'a [[u8; Kid::LEN]],
    pub(in crate::crypto) part: Option<Part>,
}

/// When messages of a session may have been sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::crypto) struct Bounds {
    pub(in crate::crypto) started_ms: u64,
    pub(in crate::crypto) lifetime_ms: u64,
}

impl Bounds {
    pub(super) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.started_ms) << 64 | u128::from(self.lifetime_ms)).to_be_bytes()
    }

    pub(super) fn cover(self, ms: u64) -> bool {
        ms.checked_sub(self.started_ms).is_some_and(|passed| passed <= self.lifetime_ms)
    }

    /// `ms`, or what is nearest to it inside: clocks are set.
    pub(super) fn clamp(self, ms: u64) -> u64 {
        ms.clamp(self.started_ms, self.started_ms.saturating_add(self.lifetime_ms))
    }
}

impl<'a> Header<'a> {
    /// Length of the bytes that [`Header::write`] makes.
    pub(in crate::crypto) fn len(&self) -> usize {
        let texts = self.message_id.len() + self.exchange.len() + self.routing_key.len() + self.content_type.len();
        let kids = (self.recipients.len() + usize::from(self.sender.is_some())) * Kid::LEN;
        let part = if self.part.is_some() { PART_LEN } else { 0 };
        FIXED_LEN + 6 * 4 + texts + kids + part
    }

    pub(in crate::crypto) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend([VERSION, suite_byte(self.suite), self.flags()]);
        bytes.extend(self.sent_ms.to_be_bytes());
        bytes.extend(self.session);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.bounds.to_bytes());
        for text in [self.message_id, self.exchange, self.routing_key, self.content_type] {
            put_field(&mut bytes, text.as_bytes());
        }
        put_field(&mut bytes, self.sender.as_ref().map_or(&[], |kid| kid.as_bytes()));
        put_field(&mut bytes, self.recipients.as_flattened());
        if let Some(part) = &self.part {
            bytes.extend(part.file);
            bytes.extend(part.index.to_be_bytes());
            bytes.extend(part.count.to_be_bytes());
            bytes.extend(part.bytes.to_be_bytes());
        }
        bytes
    }

    pub(in crate::crypto) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let [version, suite, flags] = fields.array()?;
        if version != VERSION {
            return Err(ErrorKind::Unsupported { what: "a header of another version" }.into());
        }
        let header = Self {
            suite: suite_of(suite)?,
            is_padded: flags & FLAG_PADDED != 0,
            is_compressed: flags & FLAG_COMPRESSED != 0,
            sent_ms: u64::from_be_bytes(fields.array()?),
            session: fields.array()?,
            number: u64::from_be_bytes(fields.array()?),
            bounds: Bounds {
                started_ms: u64::from_be_bytes(fields.array()?),
                lifetime_ms: u64::from_be_bytes(fields.array()?),
            },
            message_id: fields.text(MESSAGE_ID_BYTES_MAX)?,
            exchange: fields.text(CONTEXT_FIELD_BYTES_MAX)?,
            routing_key: fields.text(CONTEXT_FIELD_BYTES_MAX)?,
            content_type: fields.text(CONTEXT_FIELD_BYTES_MAX)?,
            sender: fields.sender()?,
            recipients: fields.recipients()?,
            part: (flags & FLAG_PART != 0).then(|| fields.part()).transpose()?,
        };
        if flags & !(FLAG_PADDED | FLAG_COMPRESSED | FLAG_PART) != 0 {
            return Err(ErrorKind::Unsupported { what: "a header with flags of a later version" }.into());
        }
        if message_id::fault(header.message_id).is_some() || !fields.0.is_empty() {
            return Err(broken());
        }
        Ok(header)
    }

    /// What the sender bound, if it did.
    pub(in crate::crypto) fn context(&self) -> Option<Context> {
        let context = Context::new(self.exchange, self.routing_key).content_type(self.content_type);
        (!context.is_empty()).then_some(context)
    }

    fn flags(&self) -> u8 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(self.is_padded, FLAG_PADDED)
            | flag(self.is_compressed, FLAG_COMPRESSED)
            | flag(self.part.is_some(), FLAG_PART)
    }
}

const VERSION: u8 = 2;
const FLAG_PADDED: u8 = 1;
const FLAG_COMPRESSED: u8 = 2;
const FLAG_PART: u8 = 4;

/// Version, suite, flags, time, session, number, bounds.
const FIXED_LEN: usize = 3 + 8 + 16 + 8 + 16;
const PART_LEN: usize = 16 + 4 + 4 + 8;

pub(super) fn suite_byte(suite: Suite) -> u8 {
    match suite {
        Suite::One => 0,
        Suite::TwoRsa => 1,
        Suite::TwoX25519 => 2,
        Suite::TwoXWing => 3,
    }
}

fn suite_of(byte: u8) -> Result<Suite> {
    match byte {
        1 => Ok(Suite::TwoRsa),
        2 => Ok(Suite::TwoX25519),
        3 => Ok(Suite::TwoXWing),
        _ => Err(ErrorKind::Unsupported { what: "an unknown suite" }.into()),
    }
}

fn put_field(bytes: &mut Vec<u8>, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("every field is under its limit");
    bytes.extend(len.to_be_bytes());
    bytes.extend(field);
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(broken)?;
        self.0 = rest;
        Ok(*array)
    }

    fn field(&mut self, max: usize) -> Result<&'a [u8]> {
        let len = u32::from_be_bytes(self.array()?) as usize;
        if len > max {
            return Err(broken());
        }
        let (field, rest) = self.0.split_at_checked(len).ok_or_else(broken)?;
        self.0 = rest;
        Ok(field)
    }

    fn text(&mut self, max: usize) -> Result<&'a str> {
        std::str::from_utf8(self.field(max)?).map_err(|_| broken())
    }

    fn sender(&mut self) -> Result<Option<Kid>> {
        let field = self.field(Kid::LEN)?;
        match field.is_empty() {
            true => Ok(None),
            false => field.try_into().map(|bytes| Some(Kid::from_bytes(bytes))).map_err(|_| broken()),
        }
    }

    fn recipients(&mut self) -> Result<&'a [[u8; Kid::LEN]]> {
        let (kids, rest) = self.field(RECIPIENTS_MAX * Kid::LEN)?.as_chunks();
        if kids.is_empty() || !rest.is_empty() || !kids.is_sorted_by(|a, b| a < b) {
            return Err(broken());
        }
        Ok(kids)
    }

    fn part(&mut self) -> Result<Part> {
        let part = Part {
            file: self.array()?,
            index: u32::from_be_bytes(self.array()?),
            count: u32::from_be_bytes(self.array()?),
            bytes: u64::from_be_bytes(self.array()?),
        };
        if part.index >= part.count {
            return Err(broken());
        }
        Ok(part)
    }
}

fn broken() -> Error {
    Error::malformed("hdr", "not a header of suite 2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header<'a>() -> Header<'a> {
        Header {
            suite: Suite::TwoX25519,
            is_padded: false,
            is_compressed: true,
            sent_ms: 0x0102_0304_0506_0708,
            session: [0xaa; 16],
            number: 9,
            bounds: Bounds { started_ms: 0x0102_0304_0506_0700, lifetime_ms: 60_000 },
            message_id: "m-1",
            exchange: "orders",
            routing_key: "eu",
            content_type: "",
            sender: None,
            recipients: &[[1; 32], [2; 32]],
            part: None,
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let expected = [
            &[2, 2, 2][..],
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[0xaa; 16],
            &[0, 0, 0, 0, 0, 0, 0, 9],
            &[1, 2, 3, 4, 5, 6, 7, 0],
            &[0, 0, 0, 0, 0, 0, 0xea, 0x60],
            b"\0\0\0\x03m-1",
            b"\0\0\0\x06orders",
            b"\0\0\0\x02eu",
            &[0; 4],
            &[0; 4],
            &[0, 0, 0, 64],
            &[1; 32],
            &[2; 32],
        ];
        assert_eq!(header().write(), expected.concat());
        let part = Part { file: [7; 16], index: 1, count: 3, bytes: 1000 };
        let with_part = Header { part: Some(part), sender: Some(Kid::from_bytes([5; 32])), ..header() };
        let bytes = with_part.write();
        assert_eq!(bytes[2], 6);
        assert_eq!(bytes.len(), expected.concat().len() + 32 + 32);
        assert_eq!(
            bytes[bytes.len() - 32..],
            [&[7; 16][..], &[0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 3, 0xe8]].concat()
        );
        assert_eq!(Header::read(&bytes).unwrap(), with_part);
    }

    #[test]
    fn there_is_one_form_of_each_header() {
        let good = header().write();
        assert!(Header::read(&[&good[..], &[0]].concat()).is_err(), "something behind it");
        let wrong = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Header::read(&bytes).err().map(|error| error.kind().clone())
        };
        for (at, byte) in [(0, 1), (0, 3), (1, 0), (1, 4), (2, 8), (2, 128)] {
            assert!(matches!(wrong(at, byte), Some(ErrorKind::Unsupported { .. })), "{at} {byte}");
        }
        let last = good.len() - 1;
        // No part behind the flag; a control character in the id; kids not ascending, alike, of half a length.
        for (at, byte) in [(2, 4), (55, b'\n'), (last - 63, 3), (last - 67, 1), (last - 64, 33)] {
            assert!(matches!(wrong(at, byte), Some(ErrorKind::Malformed { .. })), "{at} {byte}");
        }
        for recipients in [&[[1; 32], [1; 32]][..], &[[2; 32], [1; 32]], &[], &[[1; 32]; 65]] {
            assert!(Header::read(&Header { recipients, ..header() }.write()).is_err());
        }
        let part = Part { file: [7; 16], index: 3, count: 3, bytes: 1000 };
        assert!(Header::read(&Header { part: Some(part), ..header() }.write()).is_err());
    }

    #[test]
    fn the_longest_header_is_read_and_none_is_longer() {
        let (text, kids): (_, Vec<_>) = ("x".repeat(255), (0..64).map(|n| [n; 32]).collect());
        let longest = Header {
            message_id: &text,
            exchange: &text,
            routing_key: &text,
            content_type: &text,
            sender: Some(Kid::from_bytes([9; 32])),
            recipients: &kids,
            part: Some(Part { file: [7; 16], index: 1, count: 3, bytes: u64::MAX }),
            ..header()
        };
        let bytes = longest.write();
        assert_eq!((bytes.len(), bytes.len()), (longest.len(), HEADER_BYTES_MAX));
        assert_eq!(Header::read(&bytes).unwrap(), longest);
        let longer = "x".repeat(256);
        for header in [Header { exchange: &longer, ..header() }, Header { message_id: &longer, ..header() }] {
            assert!(Header::read(&header.write()).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else(
            (is_padded, is_compressed, sent_ms, number) in any::<(bool, bool, u64, u64)>(),
            (started_ms, lifetime_ms) in any::<(u64, u64)>(),
            suite in prop::sample::select(vec![Suite::TwoRsa, Suite::TwoX25519, Suite::TwoXWing]),
            session in any::<[u8; 16]>(),
            message_id in "[!#-\\[\\]-~]{1,255}",
            texts in ["\\PC{0,60}", "\\PC{0,60}", "\\PC{0,60}"],
            sender in any::<Option<[u8; 32]>>(),
            kids in prop::collection::btree_set(any::<[u8; 32]>(), 1..64),
            part in any::<Option<([u8; 16], u32, u64)>>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let recipients: Vec<_> = kids.into_iter().collect();
            let header = Header {
                suite, is_padded, is_compressed, sent_ms, session, number,
                bounds: Bounds { started_ms, lifetime_ms },
                message_id: &message_id,
                exchange: &texts[0],
                routing_key: &texts[1],
                content_type: &texts[2],
                sender: sender.map(Kid::from_bytes),
                recipients: &recipients,
                part: part.map(|(file, index, bytes)| Part { file, index: index / 2, count: index / 2 + 1, bytes }),
            };
            let bytes = header.write();
            prop_assert_eq!(bytes.len(), header.len());
            prop_assert_eq!(&Header::read(&bytes).unwrap(), &header);
            prop_assert!(Header::read(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..200usize, byte in any::<u8>()) {
            let mut near = header().write();
            let at = at % near.len();
            near[at] = byte;
            for bytes in [bytes, near] {
                if let Ok(header) = Header::read(&bytes) {
                    prop_assert_eq!(header.write(), bytes);
                }
            }
        }
    }
}
