//! Messages larger than a line: sealed in parts, delivered whole or not at all.

mod collect;
mod spool;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::context::Context;
use super::message_id;
use super::opened::Opened;
use super::process::Moment;
use super::seal::{Sealed, Sealer, unix_ms};
use super::session::Turn;
use super::suite;
use super::suite2::padding::{Padding, longest_unpadded};
use super::suite2::seal::{Request, Sealing, Secret};
use super::suite2::stream::longest_text;
use crate::error::{Error, ErrorKind, Result};

pub use collect::{Collected, GivenUp, PartCollector, PartLimits, RefusedPart};
pub use spool::{SpooledReader, SpooledText};

/// Most parts of a message.
pub const PARTS_MAX: u32 = 1 << 16;
/// Most bytes of a message in parts.
pub const PARTED_BYTES_MAX: u64 = 1 << 36;
/// Most bytes of a part, before padding and compression.
pub const PART_BYTES_MAX: usize = 32 << 20;
/// Least bytes of a part whose size was left to the sealer: shorter ones cost
/// more in frames than they save in memory.
pub const PART_BYTES_DEFAULT: usize = 64 << 10;

/// Which part of a larger message a message is. Its header binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// The same in all parts of a message, and in no other.
    pub file: [u8; 16],
    /// From 0 on.
    pub index: u32,
    /// How many there are.
    pub count: u32,
    /// Length of the whole text.
    pub bytes: u64,
}

impl Sealer {
    /// Seals a text in parts of `part_bytes` (the last one may be shorter), each
    /// a message of its own to publish. A [`PartCollector`] puts them together
    /// again, and so does a [`Consumer`](crate::Consumer).
    ///
    /// All parts come under one session key, whatever the policy: a part that was
    /// sealed by somebody else, or for another message, does not fit. Their ids
    /// are `<id>/<random>/<n>`, the random part another for each sealing: parts of
    /// a message that was cut off do not get in the way of those of its second try.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for `part_bytes` outside 1 to [`PART_BYTES_MAX`],
    /// for more than [`PARTS_MAX`] parts, and for suite 1;
    /// [`ErrorKind::TooLarge`], [`ErrorKind::MessageId`], [`ErrorKind::Random`].
    pub fn seal_parts<'a>(
        &self,
        context: &Context,
        id: Option<&str>,
        text: &'a [u8],
        part_bytes: usize,
    ) -> Result<SealedParts<'a>> {
        let sealer = self.part_sealer(context, id, text.len() as u64, part_bytes)?;
        Ok(SealedParts { sealer, rest: text })
    }

    /// The same for a text of `bytes` that comes a part at a time.
    ///
    /// # Errors
    ///
    /// As [`Sealer::seal_parts`].
    pub fn part_sealer(
        &self,
        context: &Context,
        id: Option<&str>,
        bytes: u64,
        part_bytes: usize,
    ) -> Result<PartSealer> {
        PartSealer::new(Arc::clone(self.second()?), context, id, bytes, |_| Ok(part_bytes))
    }

    /// The same, in parts as large as they need to be and as fit into lines of
    /// `line_bytes`, which a broker says are the longest that it takes.
    ///
    /// # Errors
    ///
    /// As [`Sealer::seal_parts`]; [`ErrorKind::TooLarge`] for a text of more
    /// parts than there may be.
    pub fn part_sealer_for_lines(
        &self,
        context: &Context,
        id: Option<&str>,
        bytes: u64,
        line_bytes: usize,
    ) -> Result<PartSealer> {
        let sealing = Arc::clone(self.second()?);
        let is_padded = sealing.padding == Padding::Padme;
        PartSealer::new(sealing, context, id, bytes, |frame_len| {
            let fitting = longest_text(frame_len.saturating_add(COMMAND_BYTES), line_bytes);
            let fitting = if is_padded { longest_unpadded(fitting) } else { fitting };
            let needed = usize::try_from(bytes.div_ceil(PARTS_AIMED_AT.into())).unwrap_or(usize::MAX);
            Ok(needed.max(PART_BYTES_DEFAULT).min(fitting).min(PART_BYTES_MAX))
        })
    }
}

/// For how long the key of a message in parts is used: sealing them goes as fast
/// as they are published.
const FILE_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;
/// Parts get longer beyond so many of them.
const PARTS_AIMED_AT: u32 = 4096;
/// What stands round an envelope in the line that publishes it.
const COMMAND_BYTES: usize = 1024;

fn count_of(bytes: u64, part_bytes: usize) -> Result<u32> {
    if !(1..=PART_BYTES_MAX).contains(&part_bytes) {
        return Err(ErrorKind::Option { option: "part_bytes", reason: "1 to 33554432" }.into());
    }
    if bytes > PARTED_BYTES_MAX {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        return Err(ErrorKind::TooLarge { what: "plaintext", bytes, max: PARTED_BYTES_MAX as usize }.into());
    }
    let count = bytes.div_ceil(part_bytes as u64).max(1);
    let reason = "so small that there are more than 65536 parts";
    let count = u32::try_from(count).ok().filter(|count| *count <= PARTS_MAX);
    count.ok_or(ErrorKind::Option { option: "part_bytes", reason }.into())
}

/// Seals the parts of one message, in their order.
///
/// ```
/// # use cipher_client::crypto::{Context, KeyKind, PrivateKey, Sealer};
/// # let key = PrivateKey::generate_kind(KeyKind::X25519)?;
/// # let sealer = Sealer::new(&key.public_key(), Default::default())?;
/// let mut parts = sealer.part_sealer(&Context::new("scans", "eu"), None, 25, 10)?;
/// while let Some(len) = parts.next_len() {
///     let sealed = parts.seal_next(&vec![0; len])?;
///     println!("{}", sealed.message_id);
/// }
/// # Ok::<(), cipher_client::Error>(())
/// ```
#[must_use = "nothing is sealed unless it is asked for"]
pub struct PartSealer {
    sealing: Arc<Sealing>,
    secret: Arc<Secret>,
    context: Context,
    id: String,
    part_bytes: usize,
    left: u64,
    next: Part,
    /// The place of the message among those of the sealer.
    number: u64,
}

impl PartSealer {
    fn new(
        sealing: Arc<Sealing>,
        context: &Context,
        id: Option<&str>,
        bytes: u64,
        part_bytes: impl FnOnce(usize) -> Result<usize>,
    ) -> Result<Self> {
        context.check()?;
        let file = suite::random()?;
        let id = id.map_or_else(|| message_id::from_random(file), str::to_owned);
        let longest_id = part_id(&id, &file, PARTS_MAX);
        message_id::check(&longest_id)?;
        let (sent_ms, moment) = (unix_ms(), Moment::current());
        let secret = sealing.file_secret(moment, sent_ms, FILE_LIFETIME_MS)?;
        // No part has a longer frame than the last one that there can be.
        let last = Part { file, index: PARTS_MAX - 1, count: PARTS_MAX, bytes };
        let request = Request { message_id: Some(&longest_id), context, part: Some(last), moment, sent_ms };
        let part_bytes = part_bytes(sealing.part_frame_len(request, &secret)?)?;
        let next = Part { index: 0, count: count_of(bytes, part_bytes)?, ..last };
        let number = sealing.file_number(moment);
        Ok(Self { sealing, secret, context: context.clone(), id, part_bytes, left: bytes, next, number })
    }

    /// The id of the whole message.
    pub fn message_id(&self) -> &str {
        &self.id
    }

    /// How many parts there are.
    pub fn parts(&self) -> u32 {
        self.next.count
    }

    /// How long the next part has to be; `None` after the last.
    pub fn next_len(&self) -> Option<usize> {
        let len = usize::try_from(self.left).map_or(self.part_bytes, |left| left.min(self.part_bytes));
        (self.next.index < self.next.count).then_some(len)
    }

    /// Seals the next part.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for a text that is not as long as
    /// [`next_len`](Self::next_len) says; those of sealing. After one the same
    /// part can be tried again.
    pub fn seal_next(&mut self, text: &[u8]) -> Result<Sealed> {
        if self.next_len() != Some(text.len()) {
            return Err(ErrorKind::Option { option: "text", reason: "as long as the next part has to be" }.into());
        }
        let part = self.next;
        let id = part_id(&self.id, &part.file, part.index);
        let turn = Turn { secret: Arc::clone(&self.secret), number: self.number };
        let (message_id, part, moment) = (Some(id.as_str()), Some(part), Moment::current());
        // Each its own: a receiver may refuse what was sealed too long ago.
        let request = Request { message_id, context: &self.context, part, moment, sent_ms: unix_ms() };
        let sealed = self.sealing.seal_part(request, turn, text)?;
        self.left -= text.len() as u64;
        self.next.index += 1;
        Ok(sealed)
    }
}

/// The parts of a text at hand, sealed as they are asked for.
#[must_use = "nothing is sealed unless it is asked for"]
pub struct SealedParts<'a> {
    sealer: PartSealer,
    rest: &'a [u8],
}

impl SealedParts<'_> {
    /// The id of the whole message.
    pub fn message_id(&self) -> &str {
        self.sealer.message_id()
    }

    /// How many parts there are.
    pub fn parts(&self) -> u32 {
        self.sealer.parts()
    }
}

impl Iterator for SealedParts<'_> {
    type Item = Result<Sealed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (text, rest) = self.rest.split_at(self.sealer.next_len()?);
        let sealed = self.sealer.seal_next(text);
        match sealed.is_ok() {
            true => self.rest = rest,
            // A part that cannot be sealed makes the rest useless.
            false => self.sealer.next.index = self.sealer.next.count,
        }
        Some(sealed)
    }
}

/// The id of a part.
fn part_id(id: &str, file: &[u8; 16], index: u32) -> String {
    format!("{id}/{:032x}/{index}", u128::from_be_bytes(*file))
}

impl Opened {
    /// The id of the message that this is a part of.
    pub fn whole_id(&self) -> Option<&str> {
        let part = self.part.as_ref()?;
        let id = self.message_id.strip_suffix(&part_id("", &part.file, part.index))?;
        (!id.is_empty()).then_some(id)
    }

    /// What the message that this is a part of has as its
    /// [`uniqueness`](Self::uniqueness).
    pub fn whole_uniqueness(&self) -> Option<[u8; 32]> {
        let part = self.part.as_ref()?;
        let digest = Sha256::new().chain_update(UNIQUENESS_DOMAIN).chain_update(self.origin).chain_update(part.file);
        Some(digest.finalize().into())
    }
}

/// Two messages in parts never come under one session key with one file id.
const UNIQUENESS_DOMAIN: &[u8] = b"cipher/parts/2";

fn not_like_the_others() -> Error {
    Error::malformed("hdr", "a part that does not fit the others of its message")
}

#[cfg(test)]
mod tests;
