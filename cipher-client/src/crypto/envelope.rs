//! The JSON form of a sealed message: five members of text.
//!
//! ```text
//! {"message_id":"…","enc_session_key":"…","nonce":"…","tag":"…","ciphertext":"…"}
//!               id         RSA block        16 bytes  16 bytes     as long as the plaintext
//! ```

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::base64;
use super::message_id;
use super::suite::{Nonce, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};

/// Longest envelope that is made or read.
pub const ENVELOPE_BYTES_MAX: usize = 64 << 20;

/// RSA block of the largest key.
const WRAPPED_BYTES_MAX: usize = super::keys::RSA_BITS_MAX / 8;
/// What CipherMQ 1.3 and later wrap a session key into: a sealed box of X25519.
const SEALED_BOX_BYTES: usize = 80;

/// Longest nonce that is told apart from nonsense: GCM takes any length, we two.
const NONCE_BYTES_READ: usize = 48;

/// A parsed envelope: nothing in it is authenticated yet, and it has no way to
/// the plaintext but [`super::Opener::open`].
#[derive(Debug)]
pub struct Envelope<'a> {
    message_id: Cow<'a, str>,
    enc_session_key: Cow<'a, str>,
    nonce: Cow<'a, str>,
    tag: Cow<'a, str>,
    ciphertext: Cow<'a, str>,
}

impl<'a> Envelope<'a> {
    /// Reads the JSON. Members other than the five are ignored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`], [`ErrorKind::Malformed`] with the member at
    /// fault, [`ErrorKind::Unsupported`] for the later dialects of the same names.
    pub fn parse(json: &'a str) -> Result<Self> {
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(too_large(json.len()));
        }
        if let Some(members) = usual_form(json) {
            return members.into_envelope();
        }
        let members: Members<'a> =
            serde_json::from_str(json).map_err(|fault| Error::with_source(not_an_envelope(), fault))?;
        members.into_envelope()
    }

    /// The id the message claims to have: not authenticated in suite 1.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// The decoded members.
    pub(super) fn decode(&self) -> Result<Parts> {
        Ok(Parts { wrapped: self.wrapped()?, nonce: self.nonce()?, tag: self.tag()?, ciphertext: self.ciphertext()? })
    }

    /// The decoded text, once more: an attempt to decrypt uses it up.
    pub(super) fn ciphertext(&self) -> Result<Vec<u8>> {
        base64::decode(Member::Ciphertext.name(), &self.ciphertext)
    }

    fn wrapped(&self) -> Result<Vec<u8>> {
        let part = Member::EncSessionKey.name();
        if self.enc_session_key.len() > base64::encoded_len(WRAPPED_BYTES_MAX) {
            return Err(Error::malformed(part, "longer than the block of the largest RSA key"));
        }
        let wrapped = base64::decode(part, &self.enc_session_key)?;
        if wrapped.len() == SEALED_BOX_BYTES {
            return Err(unsupported("enc_session_key is a sealed box of CipherMQ 1.3 or later"));
        }
        Ok(wrapped)
    }

    fn nonce(&self) -> Result<Nonce> {
        let mut bytes = [0; NONCE_BYTES_READ];
        let len = base64::decode_into(Member::Nonce.name(), &self.nonce, &mut bytes)?;
        Nonce::new(&bytes[..len]).ok_or(unsupported("a nonce of neither 12 nor 16 bytes"))
    }

    fn tag(&self) -> Result<[u8; TAG_LEN]> {
        let part = Member::Tag.name();
        let mut bytes = [0; 18];
        let len = base64::decode_into(part, &self.tag, &mut bytes)?;
        bytes[..len].try_into().map_err(|_| Error::malformed(part, "not 16 bytes"))
    }
}

/// The decoded members of an envelope.
pub(super) struct Parts {
    pub(super) wrapped: Vec<u8>,
    pub(super) nonce: Nonce,
    pub(super) tag: [u8; TAG_LEN],
    pub(super) ciphertext: Vec<u8>,
}

/// Length of the envelope that [`write`] makes.
pub(super) fn written_len(id_len: usize, wrapped_text_len: usize, ciphertext_len: usize) -> usize {
    FIXED_LEN + id_len + wrapped_text_len + base64::encoded_len(ciphertext_len)
}

/// Refuses a text whose envelope would be too long.
pub(super) fn check_len(bytes: usize) -> Result<()> {
    if bytes > ENVELOPE_BYTES_MAX {
        return Err(too_large(bytes));
    }
    Ok(())
}

/// Writes the JSON. `message_id` has been checked to need no escape, and
/// base64 needs none.
pub(super) fn write(
    message_id: &str,
    wrapped_text: &str,
    nonce: &Nonce,
    tag: &[u8; TAG_LEN],
    ciphertext: &[u8],
) -> String {
    let len = written_len(message_id.len(), wrapped_text.len(), ciphertext.len());
    let mut json = Vec::with_capacity(len);
    json.extend_from_slice(OPEN_MESSAGE_ID);
    json.extend_from_slice(message_id.as_bytes());
    json.extend_from_slice(OPEN_ENC_SESSION_KEY);
    json.extend_from_slice(wrapped_text.as_bytes());
    json.extend_from_slice(OPEN_NONCE);
    base64::append(&mut json, nonce.as_bytes());
    json.extend_from_slice(OPEN_TAG);
    base64::append(&mut json, tag);
    json.extend_from_slice(OPEN_CIPHERTEXT);
    base64::append(&mut json, ciphertext);
    json.extend_from_slice(CLOSE);
    String::from_utf8(json).expect("made of strings and base64")
}

/// Reads the form in which senders write: the five members in their order, no
/// escapes, at most one space between tokens. `None`: read it as JSON at large,
/// which gives the same members and takes longer.
fn usual_form(json: &str) -> Option<Members<'_>> {
    let mut members = Members::default();
    let mut rest = json.strip_prefix('{')?;
    for member in MEMBERS {
        let (text, after) = usual_member(rest, member.name())?;
        members.put(member, Value::Text(Cow::Borrowed(text)));
        rest = after;
        if !matches!(member, Member::Ciphertext) {
            rest = skip_space(rest.strip_prefix(',')?);
        }
    }
    (rest == "}").then_some(members)
}

/// The text of the member `name` at the start of `json`, and what follows it.
fn usual_member<'a>(json: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let rest = json.strip_prefix('"')?.strip_prefix(name)?.strip_prefix("\":")?;
    let rest = skip_space(rest).strip_prefix('"')?;
    let end = memchr::memchr2(b'"', b'\\', rest.as_bytes())?;
    let (text, rest) = rest.split_at(end);
    Some((text, rest.strip_prefix('"')?))
}

fn skip_space(json: &str) -> &str {
    json.strip_prefix(' ').unwrap_or(json)
}

/// What stands between the values, in the order of the originals.
const OPEN_MESSAGE_ID: &[u8] = br#"{"message_id":""#;
const OPEN_ENC_SESSION_KEY: &[u8] = br#"","enc_session_key":""#;
const OPEN_NONCE: &[u8] = br#"","nonce":""#;
const OPEN_TAG: &[u8] = br#"","tag":""#;
const OPEN_CIPHERTEXT: &[u8] = br#"","ciphertext":""#;
const CLOSE: &[u8] = br#""}"#;

const FIXED_LEN: usize = OPEN_MESSAGE_ID.len()
    + OPEN_ENC_SESSION_KEY.len()
    + OPEN_NONCE.len()
    + base64::encoded_len(super::suite::NONCE_LEN)
    + OPEN_TAG.len()
    + base64::encoded_len(TAG_LEN)
    + OPEN_CIPHERTEXT.len()
    + CLOSE.len();

/// The five names.
#[derive(Debug, Clone, Copy)]
enum Member {
    MessageId,
    EncSessionKey,
    Nonce,
    Tag,
    Ciphertext,
}

const MEMBERS: [Member; 5] = [Member::MessageId, Member::EncSessionKey, Member::Nonce, Member::Tag, Member::Ciphertext];

impl Member {
    const fn name(self) -> &'static str {
        match self {
            Self::MessageId => "message_id",
            Self::EncSessionKey => "enc_session_key",
            Self::Nonce => "nonce",
            Self::Tag => "tag",
            Self::Ciphertext => "ciphertext",
        }
    }
}

/// What was found under the five names; faults are kept until the JSON is
/// known to be whole.
#[derive(Default)]
struct Members<'a> {
    texts: [Option<Cow<'a, str>>; 5],
    fault: Option<(Member, &'static str)>,
}

impl<'a> Members<'a> {
    fn put(&mut self, member: Member, value: Value<'a>) {
        let slot = &mut self.texts[member as usize];
        let fault = match value {
            Value::Text(_) if slot.is_some() => "given twice",
            Value::Text(text) => {
                *slot = Some(text);
                return;
            }
            Value::Other => "not a string",
        };
        self.fault.get_or_insert((member, fault));
    }

    fn into_envelope(self) -> Result<Envelope<'a>> {
        if let Some((member, fault)) = self.fault {
            return Err(Error::malformed(member.name(), fault));
        }
        match self.texts {
            [Some(message_id), Some(enc_session_key), Some(nonce), Some(tag), Some(ciphertext)] => {
                if let Some(fault) = message_id::fault(&message_id) {
                    return Err(Error::malformed(Member::MessageId.name(), fault));
                }
                Ok(Envelope { message_id, enc_session_key, nonce, tag, ciphertext })
            }
            [Some(_), Some(_), Some(_), None, Some(_)] => {
                Err(unsupported("without a tag: made by CipherMQ 1.4.1 or later"))
            }
            texts => Err(Error::malformed(first_missing(&texts), "missing")),
        }
    }
}

fn first_missing(texts: &[Option<Cow<'_, str>>; 5]) -> &'static str {
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
            match MEMBERS.into_iter().find(|member| member.name() == name) {
                Some(member) => members.put(member, map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
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
            Value::Other => Self(Cow::Borrowed("")),
        })
    }
}

/// A member's value; anything but text is passed over, to be refused by name.
enum Value<'a> {
    Text(Cow<'a, str>),
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

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

fn too_large(bytes: usize) -> Error {
    Error::new(ErrorKind::TooLarge { what: "envelope", bytes, max: ENVELOPE_BYTES_MAX })
}

fn not_an_envelope() -> ErrorKind {
    ErrorKind::Malformed { part: "envelope", fault: "not a JSON object" }
}

fn unsupported(what: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 5] = [
        ("message_id", r#""m1""#),
        ("enc_session_key", r#""QUFB""#),
        ("nonce", r#""AAAAAAAAAAAAAAAAAAAAAA==""#),
        ("tag", r#""AAAAAAAAAAAAAAAAAAAAAA==""#),
        ("ciphertext", r#""QQ==""#),
    ];

    fn json(members: &[(&str, &str)]) -> String {
        let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\": {v}")).collect();
        format!("{{{}}}", members.join(", "))
    }

    fn fault(json: &str) -> ErrorKind {
        match Envelope::parse(json).and_then(|envelope| envelope.decode().map(|_| ())) {
            Ok(()) => panic!("was read: {json}"),
            Err(error) => error.kind().clone(),
        }
    }

    #[test]
    fn order_and_foreign_members_do_not_matter() {
        let mut members = WHOLE.to_vec();
        members.reverse();
        members.push(("x", r#"{"deep": [1, 2.5, null, true, "s", {}]}"#));
        let text = json(&members);
        let envelope = Envelope::parse(&text).unwrap();
        assert_eq!(envelope.message_id(), "m1");
        assert_eq!(envelope.decode().unwrap().ciphertext, b"A");
    }

    /// The short way must not take what JSON refuses, nor read it otherwise.
    #[test]
    fn the_usual_form_is_read_as_json_reads_it() {
        let written = write("m-1", "QUFB", &Nonce::Long([7; 16]), &[9; 16], b"text");
        let spaced = json(&WHOLE);
        for text in [&written, &spaced] {
            let quick = usual_form(text).unwrap().texts;
            let full = serde_json::from_str::<Members<'_>>(text).unwrap().texts;
            assert_eq!(quick, full);
            for end in 0..text.len() {
                assert!(usual_form(&text[..end]).is_none(), "cut at {end}");
            }
            assert!(usual_form(&format!("{text} ")).is_none());
            assert!(usual_form(&text.replace("QUFB", "Q\\u0055FB")).is_none());
        }
        // What JSON forbids inside a string is refused further on.
        for control in ["\n", "\0", "\u{1f}"] {
            for value in ["m-1", "QUFB"] {
                let text = written.replace(value, &format!("{value}{control}"));
                assert!(matches!(fault(&text), ErrorKind::Malformed { .. }), "{text:?}");
            }
        }
    }

    #[test]
    fn escapes_in_names_and_values_are_read() {
        let text = json(&WHOLE).replace("nonce", "n\\u006fnce").replace("QQ==", "\\u0051Q==");
        let envelope = Envelope::parse(&text).unwrap();
        assert_eq!(envelope.decode().unwrap().ciphertext, b"A");
    }

    #[test]
    fn each_missing_doubled_or_mistyped_member_is_named() {
        for (i, (name, value)) in WHOLE.iter().enumerate() {
            let mut members = WHOLE.to_vec();
            members.push((name, value));
            assert_eq!(fault(&json(&members)), ErrorKind::Malformed { part: name, fault: "given twice" });
            for wrong in ["1", "-1", "1.5", "null", "true", "[]", "[[1]]", "{}", r#"{"a":{}}"#] {
                members = WHOLE.to_vec();
                members[i].1 = wrong;
                assert_eq!(fault(&json(&members)), ErrorKind::Malformed { part: name, fault: "not a string" });
            }
            if *name != "tag" {
                members = WHOLE.to_vec();
                members.remove(i);
                assert_eq!(fault(&json(&members)), ErrorKind::Malformed { part: name, fault: "missing" });
            }
        }
    }

    #[test]
    fn later_dialects_are_named_and_not_called_damaged() {
        let mut members = WHOLE.to_vec();
        members.remove(3);
        assert!(matches!(fault(&json(&members)), ErrorKind::Unsupported { .. }));
        let sealed_box = format!("\"{}=\"", "A".repeat(107));
        members = WHOLE.to_vec();
        members[1].1 = &sealed_box;
        assert!(matches!(fault(&json(&members)), ErrorKind::Unsupported { .. }));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = "[".repeat(100_000);
        let deep_member = format!("{{\"x\":{deep}");
        for text in ["", "{", "[]", "1", "null", "\"\"", "{} {}", "{\"a\":1,}", "\u{feff}{}", &deep, &deep_member] {
            assert!(matches!(fault(text), ErrorKind::Malformed { .. }), "{:.20}", text);
        }
    }

    #[test]
    fn a_long_key_member_is_refused_before_it_is_decoded() {
        let long = format!("\"{}\"", "A".repeat(1372));
        let mut members = WHOLE.to_vec();
        members[1].1 = &long;
        assert!(matches!(fault(&json(&members)), ErrorKind::Malformed { part: "enc_session_key", .. }));
    }

    #[test]
    fn an_envelope_over_the_limit_is_refused_unread() {
        let text = " ".repeat(ENVELOPE_BYTES_MAX + 1);
        assert!(matches!(fault(&text), ErrorKind::TooLarge { .. }));
    }

    #[test]
    fn the_written_form_has_the_announced_length_and_reads_back() {
        let nonce = Nonce::Long([7; 16]);
        for len in [0, 1, 2, 3, 1000] {
            let text = write("m-1", "QUFB", &nonce, &[9; 16], &vec![5; len]);
            assert_eq!(text.len(), written_len(3, 4, len));
            let envelope = Envelope::parse(&text).unwrap();
            let parts = envelope.decode().unwrap();
            assert_eq!(envelope.message_id(), "m-1");
            assert_eq!((parts.wrapped, parts.nonce, parts.tag), (b"AAA".to_vec(), nonce, [9; 16]));
            assert_eq!(parts.ciphertext, vec![5; len]);
        }
    }
}
