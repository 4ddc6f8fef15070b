use ciphermq_journal::{Durability, Position, Undecodable};

use crate::message::Parts;
use crate::model::ExchangeId;
use crate::{Reason, Timestamp, limits};

/// What is left of a record. Every step either takes what it names or says what is wrong; none can panic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Undecodable("the record ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Undecodable("the record ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Undecodable> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Undecodable> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Undecodable> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, Undecodable> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, Undecodable> {
        self.u64().map(Timestamp)
    }

    pub(super) fn position(&mut self) -> Result<Position, Undecodable> {
        self.u64().map(Position)
    }

    /// A presence byte, and then perhaps a value.
    pub(super) fn option<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, Undecodable>,
    ) -> Result<Option<T>, Undecodable> {
        match self.u8()? {
            0 => Ok(None),
            1 => value(self).map(Some),
            _ => Err(Undecodable("a presence byte is neither 0 nor 1")),
        }
    }

    /// A count, and then so many items of a fixed size, not looked at yet.
    pub(super) fn items(&mut self, item_bytes: usize) -> Result<&'a [u8], Undecodable> {
        let count = self.u32()? as usize;
        self.bytes(count.checked_mul(item_bytes).ok_or(Undecodable("a count is too large"))?)
    }

    pub(super) fn name(&mut self) -> Result<&'a str, Undecodable> {
        let len = self.u8()?;
        std::str::from_utf8(self.bytes(len.into())?).map_err(|_| Undecodable("a name is not UTF-8"))
    }

    pub(super) fn durability(&mut self) -> Result<Durability, Undecodable> {
        match (self.u8()?, self.u32()?) {
            (0, 0) => Ok(Durability::Written),
            (1, ms) => Ok(Durability::Within(ms)),
            (2, 0) => Ok(Durability::Synced),
            _ => Err(Undecodable("an unknown durability")),
        }
    }

    pub(super) fn message(&mut self) -> Result<Parts<'a>, Undecodable> {
        let (exchange, published, lengths) = (ExchangeId(self.u32()?), self.time()?, self.array()?);
        let reason = match self.u8()? {
            0 => None,
            1 => Some(Reason::Rejected),
            2 => Some(Reason::Attempts),
            3 => Some(Reason::TooLong),
            _ => return Err(Undecodable("an unknown reason of a dead letter")),
        };
        let len = self.u32()?;
        if u64::from(len) > limits::TEXT_BYTES_MAX {
            return Err(Undecodable("a message is too long"));
        }
        let text = std::str::from_utf8(self.bytes(len as usize)?).map_err(|_| Undecodable("a message is not UTF-8"))?;
        let parts = Parts { exchange, published, lengths, reason, text };
        if parts.are_whole() { Ok(parts) } else { Err(Undecodable("the parts of a message do not fit its text")) }
    }

    pub(super) fn end(self) -> Result<(), Undecodable> {
        if self.0.is_empty() { Ok(()) } else { Err(Undecodable("bytes behind the end of the record")) }
    }
}
