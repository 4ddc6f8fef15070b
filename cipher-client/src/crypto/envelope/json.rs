//! The members of an envelope, out of its JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Envelope, Second, not_an_envelope, unsupported};
use crate::crypto::message_id;
use crate::crypto::signed::X;
use crate::error::{Error, Result};

/// Reads all members.
pub(super) fn read(json: &str) -> Result<Envelope<'_>> {
    match usual_form(json) {
        Some(envelope) => checked(envelope),
        None => any_form(json),
    }
}

/// Reads JSON at large.
pub(super) fn any_form(json: &str) -> Result<Envelope<'_>> {
    let members: Members<'_> =
        serde_json::from_str(json).map_err(|fault| Error::with_source(not_an_envelope(), fault))?;
    members.into_envelope()
}

/// Reads the forms in which senders write: the members in their order, no
/// escapes, at most one space between tokens. `None`: read it as JSON at large,
/// which gives the same members and takes longer. The id is not yet checked.
pub(super) fn usual_form(json: &str) -> Option<Envelope<'_>> {
    let mut rest = json.strip_prefix('{')?;
    let mut texts = [""; 4];
    for (text, member) in texts.iter_mut().zip([Member::MessageId, Member::EncSessionKey, Member::Nonce, Member::Tag]) {
        *text = usual_member(&mut rest, member)?;
        rest = skip_space(rest.strip_prefix(',')?);
    }
    let mut second = match rest.strip_prefix(SECOND) {
        Some(after) => {
            rest = after;
            Some(usual_second(&mut rest)?)
        }
        None => None,
    };
    let ciphertext = usual_member(&mut rest, Member::Ciphertext)?;
    let mut x = None;
    if let Some(end) = rest.strip_prefix(',') {
        match &mut second {
            None => x = Some(usual_x(skip_space(end))?),
            Some(second) => second.signature = Some(usual_signature(skip_space(end), second)?),
        }
    } else if rest != "}" {
        return None;
    }
    let [message_id, enc_session_key, nonce, tag] = texts.map(Cow::Borrowed);
    Some(Envelope { message_id, enc_session_key, nonce, tag, ciphertext: ciphertext.into(), x, second })
}

/// How the members of suite 2 begin.
const SECOND: &str = r#""v":2,"#;

/// The members of suite 2 before the ciphertext.
fn usual_second<'a>(rest: &mut &'a str) -> Option<Second<'a>> {
    let suite = usual_member(rest, Member::Suite)?.into();
    *rest = rest.strip_prefix(',')?;
    let header = usual_member(rest, Member::Hdr)?.into();
    *rest = rest.strip_prefix(',')?;
    let mut more_wraps = Vec::new();
    if let Some(list) = rest.strip_prefix(r#""wraps":["#) {
        *rest = list;
        while more_wraps.len() < crate::crypto::RECIPIENTS_MAX {
            more_wraps.push(usual_text(rest)?.into());
            match rest.strip_prefix(',') {
                Some(after) => *rest = after,
                None => break,
            }
        }
        *rest = rest.strip_prefix("],")?;
    }
    let mut signature = None;
    if rest.starts_with(r#""sig":"#) {
        signature = Some(usual_member(rest, Member::Sig)?.into());
        *rest = rest.strip_prefix(',')?;
    }
    Some(Second { suite, header, signature, more_wraps })
}

/// The signature of suite 2 where it stands last, and alone.
fn usual_signature<'a>(mut json: &'a str, second: &Second<'a>) -> Option<Cow<'a, str>> {
    let signature = usual_member(&mut json, Member::Sig)?;
    (json == "}" && second.signature.is_none()).then_some(signature.into())
}

/// The member `x` of suite 1 where it stands last.
fn usual_x(json: &str) -> Option<X<'_>> {
    let value = skip_space(json.strip_prefix(r#""x":"#)?).strip_suffix('}')?;
    // Whether this is one value and nothing more is otherwise for the parser of JSON to say.
    X::usual_form(value).or_else(|| Some(X::Json(serde_json::from_str::<&RawValue>(value).ok()?.get())))
}

/// Takes `member` from the start of `rest`.
fn usual_member<'a>(rest: &mut &'a str, member: Member) -> Option<&'a str> {
    *rest = skip_space(rest.strip_prefix('"')?.strip_prefix(member.name())?.strip_prefix("\":")?);
    usual_text(rest)
}

/// Takes a text from the start of `rest`.
fn usual_text<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let json = rest.strip_prefix('"')?;
    let end = memchr::memchr2(b'"', b'\\', json.as_bytes())?;
    let (text, after) = json.split_at(end);
    *rest = after.strip_prefix('"')?;
    Some(text)
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
#[derive(Default)]
struct Members<'a> {
    texts: [Option<Cow<'a, str>>; 8],
    wraps: Option<Vec<Cow<'a, str>>>,
    version: Option<Version>,
    x: Option<&'a str>,
    fault: Option<(Member, &'static str)>,
    fault_of_second: Option<(Member, &'static str)>,
}

/// The member `v`.
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

    fn into_envelope(self) -> Result<Envelope<'a>> {
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
                let x = self.x.map(X::Json);
                checked(Envelope { message_id, enc_session_key, nonce, tag, ciphertext, x, second: None })
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
                let second = Some(Second { suite, header, signature, more_wraps: self.wraps.unwrap_or_default() });
                checked(Envelope { message_id, enc_session_key, nonce, tag, ciphertext, x: None, second })
            }
            texts => Err(Error::malformed(first_missing(&texts), "missing")),
        }
    }
}

fn checked(envelope: Envelope<'_>) -> Result<Envelope<'_>> {
    match message_id::fault(&envelope.message_id) {
        Some(fault) => Err(Error::malformed(Member::MessageId.name(), fault)),
        None => Ok(envelope),
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
