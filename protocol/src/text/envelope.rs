//! A look into an envelope: its `message_id`, and whether it holds what it must. Its text is never changed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use memchr::memchr2;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{Code, Echo, cut};
use crate::limits::{BATCH_MESSAGES_MAX, ERROR_BYTES_MAX, EXTRA_MEMBERS_MAX};
use crate::name::{BadId, MessageId};

/// A valid envelope: one JSON object with the strings `message_id`, `enc_session_key`, `nonce`, `ciphertext`, and `tag`
/// as a string or not at all. Other members are kept, none stands twice, there is no line break anywhere.
///
/// ```
/// # use ciphermq_protocol::Envelope;
/// let envelope = Envelope::parse(r#"{"message_id":"7","enc_session_key":"a","nonce":"b","ciphertext":"c"}"#)?;
/// assert_eq!(envelope.id().map(|id| id.as_str()), Some("7"));
/// # Ok::<(), ciphermq_protocol::BadEnvelope>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    text: &'a str,
    /// Decoded; legal, or empty.
    id: Cow<'a, str>,
}

impl<'a> Envelope<'a> {
    /// Checks a text in one pass, without a tree and, in the usual case, without allocating.
    ///
    /// # Errors
    /// [`BadEnvelope`] naming the first fault and where it is.
    pub fn parse(text: &'a str) -> Result<Self, BadEnvelope> {
        if memchr2(b'\r', b'\n', text.as_bytes()).is_some() {
            return Err(BadEnvelope::custom("line break in the envelope"));
        }
        // A string is the one wrong type whose whole value serde would repeat in the error.
        if text.trim_ascii_start().starts_with('"') {
            return Err(BadEnvelope::custom("invalid type: string, expected an envelope"));
        }
        let id = id_of(text).map_err(BadEnvelope::Json)?;
        if !id.is_empty() && MessageId::parse(&id).is_err() {
            return Err(BadEnvelope::Id);
        }
        Ok(Self { text, id })
    }

    /// The envelope, byte for byte as it came.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The id in it, `None` when it is empty and the broker is to choose one.
    pub fn id(&self) -> Option<MessageId<'_>> {
        MessageId::parse(&self.id).ok()
    }

    /// The id in it as text, `""` when the broker is to choose one.
    pub fn message_id(&self) -> &str {
        &self.id
    }

    /// The text with `id` in the place of an empty id; unchanged when the envelope has one of its own.
    pub fn with_id(&self, id: MessageId<'_>) -> String {
        let mut text = String::with_capacity(self.text.len() + id.as_str().len());
        match self.empty_id_at() {
            Some(at) => {
                text.push_str(&self.text[..at]);
                text.push_str(id.as_str());
                text.push_str(&self.text[at..]);
            }
            None => text.push_str(self.text),
        }
        text
    }

    /// Where an empty id stands in the text: `""` has no escapes, so it was borrowed from there.
    fn empty_id_at(&self) -> Option<usize> {
        match &self.id {
            Cow::Borrowed("") => (self.id.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize),
            _ => None,
        }
    }
}

/// Checks a JSON array of 1 to 1,000 envelopes; each keeps its own text.
///
/// # Errors
/// [`BadEnvelope`]: the array is none, is empty or too long, or one of its items is no envelope.
pub fn parse_batch(text: &str) -> Result<Vec<Envelope<'_>>, BadEnvelope> {
    if text.trim_ascii_start().starts_with('"') {
        return Err(BadEnvelope::custom("invalid type: string, expected an array of envelopes"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let items = deserializer.deserialize_seq(Items).and_then(|items| deserializer.end().map(|()| items));
    let items = items.map_err(BadEnvelope::Json)?;
    items.into_iter().enumerate().map(|(index, item)| parse_item(index, item)).collect()
}

fn parse_item(index: usize, item: &RawValue) -> Result<Envelope<'_>, BadEnvelope> {
    Envelope::parse(item.get()).map_err(|error| BadEnvelope::Item { number: index + 1, error: Box::new(error) })
}

/// Why a text is no envelope. `Display` is the detail after `BAD_ENVELOPE` and after the originals'
/// `Invalid message format:`, short and in one line whatever the peer sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum BadEnvelope {
    /// Not JSON, nested too deep, or a member missing, doubled or of the wrong type.
    Json(serde_json::Error),
    /// Its id is against the rules.
    Id,
    /// An envelope of a batch is not valid.
    Item {
        /// Which one, counted from 1.
        number: usize,
        /// Why.
        error: Box<BadEnvelope>,
    },
}

impl BadEnvelope {
    /// The stable code of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Json(_) => Code::BadEnvelope,
            Self::Id => Code::BadId,
            Self::Item { error, .. } => error.code(),
        }
    }

    fn custom(text: &str) -> Self {
        Self::Json(serde_json::Error::custom(text))
    }
}

impl fmt::Display for BadEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => f.write_str(&one_line(&error.to_string())),
            Self::Id => BadId.fmt(f),
            Self::Item { number, error } => write!(f, "envelope {number}: {error}"),
        }
    }
}

impl std::error::Error for BadEnvelope {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            Self::Id => None,
            Self::Item { error, .. } => Some(error),
        }
    }
}

/// Control characters out, at most [`ERROR_BYTES_MAX`] bytes.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let cut = cut(text, ERROR_BYTES_MAX);
    if cut.contains(char::is_control) { cut.replace(char::is_control, "?").into() } else { cut.into() }
}

fn id_of(text: &str) -> serde_json::Result<Cow<'_, str>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let id = deserializer.deserialize_map(Members)?;
    deserializer.end()?;
    Ok(id)
}

/// Visits the members of an envelope and gives its id.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut id = None;
        let mut seen = [false; MEMBERS.len()];
        let mut extra = BTreeSet::new();
        while let Some(Text(name)) = map.next_key()? {
            let Some(known) = MEMBERS.iter().position(|member| *member == name) else {
                see_extra(&mut extra, name)?;
                map.next_value::<Skipped>()?;
                continue;
            };
            if std::mem::replace(&mut seen[known], true) {
                return Err(A::Error::duplicate_field(MEMBERS[known]));
            }
            let Text(value) = map.next_value()?;
            if known == MESSAGE_ID {
                id = Some(value);
            }
        }
        match seen.iter().take(REQUIRED).position(|seen| !seen) {
            Some(missing) => Err(A::Error::missing_field(MEMBERS[missing])),
            None => id.ok_or_else(|| A::Error::missing_field(MEMBERS[MESSAGE_ID])),
        }
    }
}

/// Known members, the required ones first.
const MEMBERS: [&str; 5] = ["message_id", "enc_session_key", "nonce", "ciphertext", "tag"];
const MESSAGE_ID: usize = 0;
const REQUIRED: usize = 4;

fn see_extra<'de, E: serde::de::Error>(extra: &mut BTreeSet<Cow<'de, str>>, name: Cow<'de, str>) -> Result<(), E> {
    if extra.len() == EXTRA_MEMBERS_MAX {
        return Err(E::custom(format_args!("more than {EXTRA_MEMBERS_MAX} additional members")));
    }
    if let Some(twice) = extra.replace(name) {
        return Err(E::custom(format_args!("duplicate field `{}`", Echo(&twice))));
    }
    Ok(())
}

/// A string, borrowed unless it has escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// Any JSON value. Unlike `IgnoredAny`, whose nesting `serde_json` does not limit, it goes through the limit: what the
/// broker lets pass must not exhaust the stack of a consumer.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// Visits the items of a batch and gives the text of each.
struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of envelopes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == BATCH_MESSAGES_MAX {
                return Err(A::Error::custom(format_args!("more than {BATCH_MESSAGES_MAX} envelopes")));
            }
            items.push(item);
        }
        if items.is_empty() { Err(A::Error::custom("an empty array")) } else { Ok(items) }
    }
}
