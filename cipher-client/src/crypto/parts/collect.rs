//! Parts that wait for the others of their message.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::spool::{Piece, Spool, SpooledText};
use super::{PARTS_MAX, Part, not_like_the_others};
use crate::crypto::opened::Opened;
use crate::error::{Error, ErrorKind, Result};

/// The bounds of a [`PartCollector`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLimits {
    /// Messages that are incomplete at a time. 16.
    pub messages: usize,
    /// Bytes of all messages together, counted in full from their first part
    /// on. 256 MiB.
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
/// the lease of its queue, or [hold](crate::Delivery::hold) them.
///
/// Parts belong together if they were sealed under one session key: what somebody
/// else seals, with whatever ids, is another message.
pub struct PartCollector<Token = ()> {
    limits: PartLimits,
    /// Where parts are kept, if not in memory.
    dir: Option<PathBuf>,
    incomplete: HashMap<Name, Incomplete<Token>>,
    /// Of all messages that are incomplete, as large as they will be.
    reserved: Reserved,
}

/// The session key it came under, and the message.
type Name = ([u8; 32], [u8; 16]);

struct Incomplete<Token> {
    /// The first part that came, without its text.
    like: Opened,
    part: Part,
    id: String,
    spool: Option<Spool>,
    parts: BTreeMap<u32, (Text, Token)>,
    bytes: u64,
    expires: Instant,
}

enum Text {
    Here(Vec<u8>),
    Spooled(Piece),
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "taken apart where it is given")]
pub enum Collected<Token> {
    /// It was the last one missing, or a message that was never in parts.
    Whole {
        /// The message.
        message: Opened,
        /// Its text, if the collector has a directory for it; that of `message`
        /// is empty then.
        spooled: Option<SpooledText>,
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

/// A part that does not fit the others of its message, or could not be kept.
pub struct RefusedPart<Token> {
    /// Why.
    pub error: Error,
    /// Its token.
    pub token: Token,
}

/// A message that stayed incomplete for too long.
#[non_exhaustive]
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp<Token> {
    /// The id of the whole message.
    pub message_id: String,
    /// How many parts it has.
    pub count: u32,
    /// The tokens of those that came.
    pub tokens: Vec<Token>,
}

impl<Token> PartCollector<Token> {
    /// A collector that holds nothing yet, and parts in memory.
    pub fn new(limits: PartLimits) -> Self {
        Self { limits, dir: None, incomplete: HashMap::new(), reserved: Reserved::default() }
    }

    /// A collector that keeps the text of parts in files of the directory `dir`,
    /// opened and not encrypted. They have mode 0600 and no name: when the
    /// process ends, or is killed, nothing is left of them.
    pub fn spooled(limits: PartLimits, dir: impl Into<PathBuf>) -> Self {
        Self { dir: Some(dir.into()), ..Self::new(limits) }
    }

    /// Takes an opened message, which may be a part.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] for a part that contradicts the others of its
    /// message. Its sender has sealed both: nobody else can make it.
    /// [`ErrorKind::TooLarge`] for a message that will never have room,
    /// [`ErrorKind::Io`] when its text could not be written.
    pub fn add(&mut self, opened: Opened, token: Token, now: Instant) -> Result<Collected<Token>, RefusedPart<Token>> {
        self.expire(now);
        let Some(part) = opened.part else {
            return Ok(Collected::Whole { message: opened, spooled: None, tokens: vec![token] });
        };
        let name = (opened.origin, part.file);
        if let Err(error) = self.check(&name, &opened, part) {
            return Err(RefusedPart { error, token });
        }
        if !self.incomplete.contains_key(&name) {
            if !self.has_room(part) {
                return Ok(Collected::NoRoom(token));
            }
            self.reserved = self.reserved.and(part);
            self.incomplete.insert(name, Incomplete::new(&opened, part, now + self.limits.age));
        }
        let message = self.incomplete.get_mut(&name).expect("it was there, or was put there");
        if let Some((_, known)) = message.parts.get_mut(&part.index) {
            return Ok(Collected::Repeated(std::mem::replace(known, token)));
        }
        // Sealing it began with the earliest of its parts.
        message.like.sent_at = message.like.sent_at.min(opened.sent_at);
        match message.keep(self.dir.as_deref(), opened.plaintext) {
            Ok(text) => message.parts.insert(part.index, (text, token)),
            Err(error) => {
                if message.parts.is_empty() {
                    drop(self.remove(&name));
                }
                return Err(RefusedPart { error, token });
            }
        };
        if message.parts.len() < part.count as usize {
            return Ok(Collected::Kept);
        }
        let message = self.remove(&name).expect("it was found just now");
        Ok(message.into_whole())
    }

    /// Gives up what has been incomplete for too long; says how many messages.
    pub fn expire(&mut self, now: Instant) -> usize {
        std::iter::from_fn(|| self.take_expired(now)).count()
    }

    /// A message that has been incomplete for too long, if there is one. It is
    /// kept no longer.
    pub fn take_expired(&mut self, now: Instant) -> Option<GivenUp<Token>> {
        let is_over = |message: &Incomplete<Token>| message.expires <= now;
        let name = *self.incomplete.iter().find(|(_, message)| is_over(message))?.0;
        let message = self.remove(&name)?;
        let tokens = message.parts.into_values().map(|(_, token)| token).collect();
        Some(GivenUp { message_id: message.id, count: message.part.count, tokens })
    }

    /// When the first message that is incomplete now will have been so for too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.incomplete.values().map(|message| message.expires).min()
    }

    /// Messages that are incomplete.
    pub fn incomplete(&self) -> usize {
        self.incomplete.len()
    }

    /// Parts held.
    pub fn parts(&self) -> usize {
        self.incomplete.values().map(|message| message.parts.len()).sum()
    }

    /// Bytes of parts held.
    pub fn bytes(&self) -> u64 {
        self.incomplete.values().map(|message| message.bytes).sum()
    }

    fn remove(&mut self, name: &Name) -> Option<Incomplete<Token>> {
        let message = self.incomplete.remove(name)?;
        self.reserved = self.reserved.without(message.part);
        Some(message)
    }

    fn has_room(&self, part: Part) -> bool {
        let reserved = self.reserved.and(part);
        self.incomplete.len() < self.limits.messages
            && reserved.bytes <= self.limits.bytes as u64
            && reserved.parts <= PARTS_HELD_MAX
    }

    /// Whether a part fits the others, and the message the limits.
    fn check(&self, name: &Name, opened: &Opened, part: Part) -> Result<()> {
        if part.count > PARTS_MAX || part.bytes > self.limits.bytes as u64 {
            let max = self.limits.bytes;
            let bytes = usize::try_from(part.bytes).unwrap_or(usize::MAX);
            return Err(ErrorKind::TooLarge { what: "message in parts", bytes, max }.into());
        }
        let id = opened.whole_id().ok_or_else(not_like_the_others)?;
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

/// Most parts of the messages that are incomplete, all of them counted that
/// these will have: what is kept for each, whatever its length.
const PARTS_HELD_MAX: u64 = 1 << 17;

/// What the messages that are incomplete will take.
#[derive(Clone, Copy, Default)]
struct Reserved {
    bytes: u64,
    parts: u64,
}

impl Reserved {
    fn and(self, part: Part) -> Self {
        Self { bytes: self.bytes + part.bytes, parts: self.parts + u64::from(part.count) }
    }

    fn without(self, part: Part) -> Self {
        Self { bytes: self.bytes - part.bytes, parts: self.parts - u64::from(part.count) }
    }
}

/// Whether the parts together are as long as they say.
fn fits(held: u64, len: usize, part: Part, is_last: bool) -> Result<()> {
    match held.saturating_add(len as u64) {
        bytes if bytes > part.bytes || is_last && bytes < part.bytes => Err(not_like_the_others()),
        _ => Ok(()),
    }
}

impl<Token> Incomplete<Token> {
    fn new(opened: &Opened, part: Part, expires: Instant) -> Self {
        let id = opened.whole_id().unwrap_or_default().to_owned();
        let uniqueness = opened.whole_uniqueness().unwrap_or_default();
        let like = Opened { uniqueness, ..opened.without_text() };
        Self { like, part, id, spool: None, parts: BTreeMap::new(), bytes: 0, expires }
    }

    fn is_like(&self, opened: &Opened, part: Part, id: &str) -> bool {
        let Opened { suite, sender, context, sequence, .. } = &self.like;
        (self.id.as_str(), *suite, *sender, context) == (id, opened.suite, opened.sender, &opened.context)
            && (self.part.count, self.part.bytes, sequence) == (part.count, part.bytes, &opened.sequence)
    }

    /// Puts the text of a part away.
    fn keep(&mut self, dir: Option<&Path>, text: Vec<u8>) -> Result<Text> {
        let len = text.len() as u64;
        let text = match dir {
            None => Text::Here(text),
            Some(dir) => {
                let spool = match self.spool.take() {
                    Some(spool) => spool,
                    None => Spool::create(dir)?,
                };
                Text::Spooled(self.spool.insert(spool).put(dir, &text)?)
            }
        };
        self.bytes += len;
        Ok(text)
    }

    fn into_whole(self) -> Collected<Token> {
        let mut tokens = Vec::with_capacity(self.parts.len());
        // Memory is taken as it is written to, and that of a part given back then.
        let here = if self.spool.is_some() { 0 } else { self.bytes as usize };
        let (mut plaintext, mut pieces) = (Vec::with_capacity(here), Vec::new());
        for (text, token) in self.parts.into_values() {
            match text {
                Text::Here(text) => plaintext.extend_from_slice(&text),
                Text::Spooled(piece) => pieces.push(piece),
            }
            tokens.push(token);
        }
        let spooled = self.spool.map(|spool| spool.into_text(pieces));
        let message = Opened { message_id: self.id, plaintext, part: None, ..self.like };
        Collected::Whole { message, spooled, tokens }
    }
}

impl<Token> fmt::Debug for RefusedPart<Token> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedPart").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<Token> fmt::Debug for PartCollector<Token> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartCollector")
            .field("incomplete", &self.incomplete.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}
