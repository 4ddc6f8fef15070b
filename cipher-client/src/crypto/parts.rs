//! Messages larger than a line: sealed in parts, delivered whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::context::Context;
use super::message_id;
use super::opened::Opened;
use super::process::Moment;
use super::seal::{Sealed, Sealer, unix_ms};
use super::session::Turn;
use super::suite;
use super::suite2::seal::{Request, Sealing, Secret};
use crate::error::{Error, ErrorKind, Result};

/// Most parts of a message.
pub const PARTS_MAX: u32 = 1 << 16;
/// Most bytes of a message in parts.
pub const PARTED_BYTES_MAX: u64 = 1 << 36;
/// Most bytes of a part, before padding and compression.
pub const PART_BYTES_MAX: usize = 32 << 20;

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
    /// a message of its own to publish. Part *n* of message `id` has the id
    /// `id/n`. A [`PartCollector`] puts them together again.
    ///
    /// All parts come under one session key, whatever the policy: a part that was
    /// sealed by somebody else, or for another message, does not fit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for `part_bytes` outside 1 to [`PART_BYTES_MAX`],
    /// for more than [`PARTS_MAX`] parts, and for suite 1;
    /// [`ErrorKind::TooLarge`], [`ErrorKind::MessageId`], [`ErrorKind::Random`].
    pub fn seal_parts<'a>(
        &'a self,
        context: &'a Context,
        id: Option<&str>,
        text: &'a [u8],
        part_bytes: usize,
    ) -> Result<SealedParts<'a>> {
        let sealing = self.second()?;
        context.check()?;
        let count = count_of(text.len(), part_bytes)?;
        let file = suite::random()?;
        let id = id.map_or_else(|| message_id::from_random(file), str::to_owned);
        message_id::check(&part_id(&id, count))?;
        let sent_ms = unix_ms();
        let secret = sealing.file_secret(sent_ms, FILE_LIFETIME_MS)?;
        let next = Part { file, index: 0, count, bytes: text.len() as u64 };
        Ok(SealedParts { sealing, secret, context, id, rest: text, part_bytes, next, sent_ms })
    }
}

/// For how long the key of a message in parts is used: sealing them goes as fast
/// as they are published.
const FILE_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

fn count_of(bytes: usize, part_bytes: usize) -> Result<u32> {
    if !(1..=PART_BYTES_MAX).contains(&part_bytes) {
        return Err(ErrorKind::Option { option: "part_bytes", reason: "1 to 33554432" }.into());
    }
    if bytes as u64 > PARTED_BYTES_MAX {
        return Err(ErrorKind::TooLarge { what: "plaintext", bytes, max: PARTED_BYTES_MAX as usize }.into());
    }
    let count = bytes.div_ceil(part_bytes).max(1);
    let reason = "so small that there are more than 65536 parts";
    let count = u32::try_from(count).ok().filter(|count| *count <= PARTS_MAX);
    count.ok_or(ErrorKind::Option { option: "part_bytes", reason }.into())
}

fn part_id(id: &str, index: u32) -> String {
    format!("{id}/{index}")
}

/// The parts of one message, sealed as they are asked for.
#[must_use = "nothing is sealed unless it is asked for"]
pub struct SealedParts<'a> {
    sealing: &'a Sealing,
    secret: Arc<Secret>,
    context: &'a Context,
    id: String,
    rest: &'a [u8],
    part_bytes: usize,
    next: Part,
    sent_ms: u64,
}

impl SealedParts<'_> {
    /// The id of the whole message.
    pub fn message_id(&self) -> &str {
        &self.id
    }

    /// How many parts there are.
    pub fn parts(&self) -> u32 {
        self.next.count
    }

    fn seal(&self, part: Part, text: &[u8]) -> Result<Sealed> {
        let id = part_id(&self.id, part.index);
        let turn = Turn { secret: Arc::clone(&self.secret), number: u64::from(part.index) };
        let (message_id, part, moment) = (Some(id.as_str()), Some(part), Moment::current());
        let request = Request { message_id, context: self.context, part, moment, sent_ms: self.sent_ms };
        self.sealing.seal_part(request, turn, text)
    }
}

impl Iterator for SealedParts<'_> {
    type Item = Result<Sealed>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.next;
        if part.index == part.count {
            return None;
        }
        let (text, rest) = self.rest.split_at(self.part_bytes.min(self.rest.len()));
        self.rest = rest;
        self.next.index += 1;
        Some(self.seal(part, text))
    }
}

/// The bounds of a [`PartCollector`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLimits {
    /// Messages that are incomplete at a time. 16.
    pub messages: usize,
    /// Bytes of parts held, of all messages together. 256 MiB.
    pub bytes: usize,
    /// How long a message may stay incomplete after its first part. 10 minutes.
    pub age: Duration,
}

impl Default for PartLimits {
    fn default() -> Self {
        Self { messages: 16, bytes: 256 << 20, age: Duration::from_secs(600) }
    }
}

/// Puts parts together. They may come in any order, and more than once.
///
/// A part comes with a `token`, by which to settle it: the delivery it came in,
/// say. Tokens come back when the message is whole, so that no part is
/// acknowledged before all of them are there; those of a message that is given
/// up are dropped, which puts a [`crate::Delivery`] back into its queue. While a
/// message is incomplete its deliveries are leased: collect what comes within
/// the lease of its queue, or [`touch`](crate::Delivery::touch) them.
///
/// Parts belong together if they were sealed under one session key: what somebody
/// else seals, with whatever ids, is another message.
pub struct PartCollector<Token = ()> {
    limits: PartLimits,
    incomplete: HashMap<Name, Incomplete<Token>>,
    bytes: usize,
}

/// The session key it came under, and the message.
type Name = ([u8; 32], [u8; 16]);

struct Incomplete<Token> {
    /// The first part that came, without its text.
    like: Opened,
    part: Part,
    id: String,
    parts: BTreeMap<u32, (Vec<u8>, Token)>,
    bytes: u64,
    expires: Instant,
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "taken apart where it is given")]
pub enum Collected<Token> {
    /// It was the last one missing, or a message that was never in parts.
    Whole {
        /// The message.
        message: Opened,
        /// The tokens of its parts, in their order.
        tokens: Vec<Token>,
    },
    /// It is kept until the others come.
    Kept,
    /// It was there already. The new token is kept in place of the one given back.
    Repeated(Token),
    /// There is no room for another incomplete message: give it back, for later.
    NoRoom(Token),
}

/// A part that does not fit the others of its message.
pub struct RefusedPart<Token> {
    /// Why.
    pub error: Error,
    /// Its token.
    pub token: Token,
}

impl<Token> PartCollector<Token> {
    /// A collector that holds nothing.
    pub fn new(limits: PartLimits) -> Self {
        Self { limits, incomplete: HashMap::new(), bytes: 0 }
    }

    /// Takes an opened message, which may be a part.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] for a part that contradicts the others of its
    /// message. Its sender has sealed both: nobody else can make it.
    pub fn add(&mut self, opened: Opened, token: Token, now: Instant) -> Result<Collected<Token>, RefusedPart<Token>> {
        self.expire(now);
        let Some(part) = opened.part else {
            return Ok(Collected::Whole { message: opened, tokens: vec![token] });
        };
        let name = (opened.origin, part.file);
        if let Err(error) = self.check(&name, &opened, part) {
            return Err(RefusedPart { error, token });
        }
        let known = self.incomplete.get_mut(&name);
        let is_new = known.is_none();
        // One that is held already takes no room.
        if let Some(known) = known.and_then(|message| message.parts.get_mut(&part.index)) {
            return Ok(Collected::Repeated(std::mem::replace(&mut known.1, token)));
        }
        let has_room = self.bytes.saturating_add(opened.plaintext.len()) <= self.limits.bytes;
        if !has_room || is_new && self.incomplete.len() >= self.limits.messages {
            return Ok(Collected::NoRoom(token));
        }
        let expires = now + self.limits.age;
        let message = self.incomplete.entry(name).or_insert_with(|| Incomplete::new(&opened, part, expires));
        self.bytes += opened.plaintext.len();
        message.bytes += opened.plaintext.len() as u64;
        message.parts.insert(part.index, (opened.plaintext, token));
        if message.parts.len() < part.count as usize {
            return Ok(Collected::Kept);
        }
        let message = self.incomplete.remove(&name).expect("it was found just now");
        self.bytes -= message.bytes as usize;
        Ok(message.into_whole(name))
    }

    /// Gives up what has been incomplete for too long; says how many messages.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.incomplete.len();
        let bytes = &mut self.bytes;
        self.incomplete.retain(|_, message| {
            let is_live = now < message.expires;
            if !is_live {
                *bytes -= message.bytes as usize;
            }
            is_live
        });
        before - self.incomplete.len()
    }

    /// Messages that are incomplete.
    pub fn incomplete(&self) -> usize {
        self.incomplete.len()
    }

    /// Bytes of parts held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a part fits the others, and the message the limits.
    fn check(&self, name: &Name, opened: &Opened, part: Part) -> Result<()> {
        if part.count > PARTS_MAX || part.bytes > self.limits.bytes as u64 {
            let max = self.limits.bytes;
            let bytes = usize::try_from(part.bytes).unwrap_or(usize::MAX);
            return Err(ErrorKind::TooLarge { what: "message in parts", bytes, max }.into());
        }
        let id = whole_id(opened, part).ok_or_else(not_like_the_others)?;
        let Some(message) = self.incomplete.get(name) else {
            return fits(0, opened.plaintext.len(), part, part.count == 1);
        };
        if !message.is_like(opened, part, id) {
            return Err(not_like_the_others());
        }
        if message.parts.contains_key(&part.index) {
            return Ok(());
        }
        let is_last = message.parts.len() + 1 == part.count as usize;
        fits(message.bytes, opened.plaintext.len(), part, is_last)
    }
}

/// Whether the parts together are as long as they say.
fn fits(held: u64, len: usize, part: Part, is_last: bool) -> Result<()> {
    match held.saturating_add(len as u64) {
        bytes if bytes > part.bytes || is_last && bytes < part.bytes => Err(not_like_the_others()),
        _ => Ok(()),
    }
}

/// The id of the message, out of that of a part.
fn whole_id(opened: &Opened, part: Part) -> Option<&str> {
    let (id, index) = opened.message_id.rsplit_once('/')?;
    (index == part.index.to_string() && !id.is_empty()).then_some(id)
}

impl<Token> Incomplete<Token> {
    fn new(opened: &Opened, part: Part, expires: Instant) -> Self {
        let id = whole_id(opened, part).unwrap_or_default().to_owned();
        let like = opened.without_text();
        Self { like, part, id, parts: BTreeMap::new(), bytes: 0, expires }
    }

    fn is_like(&self, opened: &Opened, part: Part, id: &str) -> bool {
        let Opened { suite, sender, context, .. } = &self.like;
        (self.id.as_str(), *suite, *sender, context) == (id, opened.suite, opened.sender, &opened.context)
            && (self.part.count, self.part.bytes) == (part.count, part.bytes)
    }

    fn into_whole(self, (origin, file): Name) -> Collected<Token> {
        // Memory is taken as it is written to, and that of a part given back then.
        let mut plaintext = Vec::with_capacity(self.bytes as usize);
        let mut tokens = Vec::with_capacity(self.parts.len());
        for (text, token) in self.parts.into_values() {
            plaintext.extend_from_slice(&text);
            tokens.push(token);
        }
        let uniqueness = Sha256::new().chain_update(UNIQUENESS_DOMAIN).chain_update(origin).chain_update(file);
        let message = Opened {
            message_id: self.id,
            plaintext,
            uniqueness: uniqueness.finalize().into(),
            sequence: None,
            part: None,
            ..self.like
        };
        Collected::Whole { message, tokens }
    }
}

/// Two messages in parts never come under one session key with one file id.
const UNIQUENESS_DOMAIN: &[u8] = b"cipher/parts/2";

impl<Token> fmt::Debug for RefusedPart<Token> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedPart").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<Token> fmt::Debug for PartCollector<Token> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartCollector")
            .field("incomplete", &self.incomplete.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn not_like_the_others() -> Error {
    Error::malformed("hdr", "a part that does not fit the others of its message")
}

#[cfg(test)]
mod tests;
