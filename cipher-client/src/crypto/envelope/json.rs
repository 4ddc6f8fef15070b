//! The members of an envelope, out of its JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Envelope, Second, not_an_envelope, unsupported};
use crate::crypto::{message_id, signed};
use crate::error::{Error, Result};

/// Reads all members.
pub(super) fn read(json: &str) -> Result<Members<'_>> {
    match usual_form(json) {
        Some(members) => Ok(members),
        None => serde_json::from_str(json).map_err(|fault| Error::with_source(not_an_envelope(), fault)),
    }
}

/// Reads the forms in which senders write: the members in their order, no
/// escapes, at most one space between tokens. `None`: read it as JSON at large,
/// which gives the same members and takes longer.
pub(super) fn usual_form(json: &str) -> Option<Members<'_>> {
    let mut members = Members::default();
    let mut rest = json.strip_prefix('{')?;
    for member in [Member::MessageId, Member::EncSessionKey, Member::Nonce, Member::Tag] {
        let (text, after) = usual_member(rest, member.name())?;
        members.put(member, Value::Text(Cow::Borrowed(text)));
        rest = skip_space(after.strip_prefix(',')?);
    }
    if let Some(after) = rest.strip_prefix(SECOND) {
        rest = usual_second(after, &mut members)?;
    }
    let (text, after) = usual_member(rest, Member::Ciphertext.name())?;
    members.put(Member::Ciphertext, Value::Text(Cow::Borrowed(text)));
    match after.strip_prefix(',') {
        None => (after == "}").then_some(members),
        Some(after) => usual_end(after, members),
    }
}

/// How the members of suite 2 begin.
const SECOND: &str = r#""v":2,"#;

/// The members of suite 2 before the ciphertext; gives what follows.
fn usual_second<'a>(json: &'a str, members: &mut Members<'a>) -> Option<&'a str> {
    members.version = Some(Version::Number(2));
    let mut rest = json;
    for member in [Member::Suite, Member::Hdr] {
        let (text, after) = usual_member(rest, member.name())?;
        members.put(member, Value::Text(Cow::Borrowed(text)));
        rest = after.strip_prefix(',')?;
    }
    if let Some(mut list) = rest.strip_prefix(r#""wraps":["#) {
        let mut wraps = Vec::new();
        loop {
            let (text, after) = usual_text(list)?;
            wraps.push(Cow::Borrowed(text));
            match after.strip_prefix(',') {
                Some(after) => list = after,
                None => break rest = after.strip_prefix("],")?,
            }
        }
        members.put(Member::Wraps, Value::List(wraps));
    }
    if let Some((text, after)) = usual_member(rest, Member::Sig.name()) {
        members.put(Member::Sig, Value::Text(Cow::Borrowed(text)));
        rest = after.strip_prefix(',')?;
    }
    Some(rest)
}

/// What may follow the ciphertext: `x` in suite 1, `sig` in suite 2.
fn usual_end<'a>(json: &'a str, mut members: Members<'a>) -> Option<Members<'a>> {
    let json = skip_space(json);
    if members.version.is_some() {
        let (text, after) = usual_member(json, Member::Sig.name())?;
        members.put(Member::Sig, Value::Text(Cow::Borrowed(text)));
        return (after == "}").then_some(members);
    }
    let value = skip_space(json.strip_prefix(r#""x":"#)?).strip_suffix('}')?;
    members.x = Some(match signed::is_usual_form(value) {
        true => value,
        // Whether this is one value and nothing more is for the parser of JSON to say.
        false => serde_json::from_str::<&RawValue>(value).ok()?.get(),
    });
    Some(members)
}

/// The text of the member `name` at the start of `json`, and what follows it.
fn usual_member<'a>(json: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let rest = json.strip_prefix('"')?.strip_prefix(name)?.strip_prefix("\":")?;
    usual_text(skip_space(rest))
}

/// The text at the start of `json`, and what follows it.
fn usual_text(json: &str) -> Option<(&str, &str)> {
    let rest = json.strip_prefix('"')?;
    let end = memchr::memchr2(b'"', b'\\', rest.as_bytes())?;
    let (text, rest) = rest.split_at(end);
    Some((text, rest.strip_prefix('"')?))
}

fn skip_space(json: &str) -> &str {
    json.strip_prefix(' ').unwrap_or(json)
}

/// The names that are known. The first five belong to every suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    MessageId,
    EncSessionKey,
    Nonce,
    Tag,
    Ciphertext,
    Suite,
    Hdr,
    Sig,
    Wraps,
}

const MEMBERS: [Member; 9] = [
    Member::MessageId,
    Member::EncSessionKey,
    Member::Nonce,
    Member::Tag,
    Member::Ciphertext,
    Member::Suite,
    Member::Hdr,
    Member::Sig,
    Member::Wraps,
];

impl Member {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MessageId => "message_id",
            Self::EncSessionKey => "enc_session_key",
            Self::Nonce => "nonce",
            Self::Tag => "tag",
            Self::Ciphertext => "ciphertext",
            Self::Suite => "suite",
            Self::Hdr => "hdr",
            Self::Sig => "sig",
            Self::Wraps => "wraps",
        }
    }

    /// Foreign to suite 1, where it may be anything.
    const fn is_of_second(self) -> bool {
        self as usize >= Self::Suite as usize
    }
}

/// What was found under the names; faults are kept until the JSON is known to be
/// whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members<'a> {
    texts: [Option<Cow<'a, str>>; 8],
    wraps: Option<Vec<Cow<'a, str>>>,
    version: Option<Version>,
    x: Option<&'a str>,
    fault: Option<(Member, &'static str)>,
    fault_of_second: Option<(Member, &'static str)>,
}

/// The member `v`.
#[derive(Debug, PartialEq, Eq)]
enum Version {
    Number(u64),
    /// Not ours: suite 1 did not forbid it.
    Foreign,
}

impl<'a> Members<'a> {
    fn put(&mut self, member: Member, value: Value<'a>) {
        let is_twice = match member {
            Member::Wraps => self.wraps.is_some(),
            _ => self.texts[member as usize].is_some(),
        };
        let fault = match (member, value) {
            _ if is_twice => "given twice",
            (Member::Wraps, Value::List(wraps)) => return self.wraps = Some(wraps),
            (Member::Wraps, _) => "not a list of strings",
            (_, Value::Text(text)) => return self.texts[member as usize] = Some(text),
            _ => "not a string",
        };
        match member.is_of_second() {
            true => self.fault_of_second.get_or_insert((member, fault)),
            false => self.fault.get_or_insert((member, fault)),
        };
    }

    fn put_version(&mut self, value: Value<'a>) {
        self.version = Some(match (&self.version, value) {
            (None, Value::Number(number)) => Version::Number(number),
            (None, _) => Version::Foreign,
            // Twice: no version that anybody reads.
            (Some(_), _) => Version::Number(u64::MAX),
        });
    }

    fn put_x(&mut self, value: &'a RawValue) {
        // Twice: nothing that anybody reads, rather than one of the two.
        self.x = Some(if self.x.is_some() { "" } else { value.get() });
    }

    pub(super) fn into_envelope(self) -> Result<Envelope<'a>> {
        match self.version {
            None | Some(Version::Foreign | Version::Number(1)) => self.into_first(),
            Some(Version::Number(2)) => self.into_second(),
            Some(Version::Number(_)) => Err(unsupported("of a later version")),
        }
    }

    fn into_first(self) -> Result<Envelope<'a>> {
        if let Some((member, fault)) = self.fault {
            return Err(Error::malformed(member.name(), fault));
        }
        match self.texts {
            [Some(message_id), Some(enc_session_key), Some(nonce), Some(tag), Some(ciphertext), ..] => {
                let message_id = checked(message_id)?;
                Ok(Envelope { message_id, enc_session_key, nonce, tag, ciphertext, x: self.x, second: None })
            }
            [Some(_), Some(_), Some(_), None, Some(_), ..] => {
                Err(unsupported("without a tag: made by CipherMQ 1.4.1 or later"))
            }
            texts => Err(Error::malformed(first_missing(&texts), "missing")),
        }
    }

    fn into_second(self) -> Result<Envelope<'a>> {
        if let Some((member, fault)) = self.fault.or(self.fault_of_second) {
            return Err(Error::malformed(member.name(), fault));
        }
        match self.texts {
            [
                Some(message_id),
                Some(enc_session_key),
                Some(nonce),
                Some(tag),
                Some(ciphertext),
                Some(suite),
                Some(header),
                signature,
            ] => {
                let message_id = checked(message_id)?;
                let second = Some(Second { suite, header, signature, more_wraps: self.wraps.unwrap_or_default() });
                Ok(Envelope { message_id, enc_session_key, nonce, tag, ciphertext, x: None, second })
            }
            texts => Err(Error::malformed(first_missing(&texts), "missing")),
        }
    }
}

fn checked(message_id: Cow<'_, str>) -> Result<Cow<'_, str>> {
    match message_id::fault(&message_id) {
        Some(fault) => Err(Error::malformed(Member::MessageId.name(), fault)),
        None => Ok(message_id),
    }
}

fn first_missing(texts: &[Option<Cow<'_, str>>; 8]) -> &'static str {
    let missing = MEMBERS.iter().zip(texts).find(|(_, text)| text.is_none());
    missing.map_or("envelope", |(member, _)| member.name())
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(Name(name)) = map.next_key()? {
            if let Some(member) = MEMBERS.into_iter().find(|member| member.name() == name) {
                members.put(member, map.next_value()?);
            } else if name == "v" {
                members.put_version(map.next_value()?);
            } else if name == "x" {
                members.put_x(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(members)
    }
}

/// A member's name, borrowed unless it was written with escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ValueVisitor).map(|value| match value {
            Value::Text(name) => Self(name),
            _ => Self(Cow::Borrowed("")),
        })
    }
}

/// A member's value; what is of no use here is passed over, to be refused by name.
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    List(Vec<Cow<'a, str>>),
    Other,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    /// Up to as many texts as an envelope can have; more are counted as one too many.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(Item(item)) = seq.next_element()? {
            match (&mut texts, item) {
                (Some(list), Some(text)) if list.len() < crate::crypto::RECIPIENTS_MAX => list.push(text),
                (texts, _) => *texts = None,
            }
        }
        Ok(texts.map_or(Value::Other, Value::List))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// An element of a list: its text, if it is one.
struct Item<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Item<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with('"') {
            return Ok(Self(None));
        }
        let text = serde_json::from_str::<Name<'de>>(raw).map_err(serde::de::Error::custom)?;
        Ok(Self(Some(text.0)))
    }
}
