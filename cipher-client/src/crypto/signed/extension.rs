//! The JSON of `x`.
//!
//! ```text
//! {"v":1,"kid":"sha256:…","skid":"sha256:…","signed":"session","session":"…","sig":"…",     the head
//!  "seq":17,"ts":1763740000000,"ctx":{"exchange":"…","routing_key":"…","content_type":"…"},"mac":"…"}
//! ```

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{BOUNDS_LEN, Bounds, MAC_LEN, Session, Signing, Stamp};
use crate::crypto::base64;
use crate::crypto::context::CONTEXT_FIELD_BYTES_MAX;
use crate::crypto::identity::SIGNATURE_LEN;
use crate::error::{Error, ErrorKind, Result};

/// Longest `x` that is read: each of the three names may be escaped throughout.
const X_BYTES_MAX: usize = 8 << 10;
/// Longest `x` that is written: what is fixed, and three names of escapes.
pub(in crate::crypto) const X_WRITTEN_MAX: usize = X_BYTES_MAX;
/// Largest number in it: beyond, not every reader of JSON keeps them apart.
const NUMBER_MAX: u64 = (1 << 53) - 1;

const X_NAME: &str = "x";

/// The member `x` of an envelope.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and there is one an envelope")]
pub(in crate::crypto) enum X<'a> {
    /// In the form in which it is written here.
    Read(Extension<'a>),
    /// JSON, which need not be what `x` is to us.
    Json(&'a str),
}

impl<'a> X<'a> {
    /// `None`: not the usual form, and perhaps not JSON.
    pub(in crate::crypto) fn usual_form(json: &'a str) -> Option<Self> {
        usual_form(json).map(Self::Read)
    }
}

/// What stands in `x`, read and not believed.
#[derive(Debug)]
pub(in crate::crypto) struct Extension<'a> {
    pub(in crate::crypto) head: Head<'a>,
    signature: Cow<'a, str>,
    pub(in crate::crypto) stamp: Stamp<'a>,
    mac: Cow<'a, str>,
}

/// The part of `x` that all messages under one session key share.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::crypto) struct Head<'a> {
    pub(in crate::crypto) signing: Signing,
    recipient: Cow<'a, str>,
    sender: Cow<'a, str>,
    session: Cow<'a, str>,
    /// The signature of the session; empty where each message has its own.
    signature: Cow<'a, str>,
}

impl<'a> Extension<'a> {
    /// Reads the JSON of `x`.
    pub(in crate::crypto) fn parse(json: &'a str) -> Result<Self> {
        if json.len() > X_BYTES_MAX {
            return Err(ErrorKind::TooLarge { what: X_NAME, bytes: json.len(), max: X_BYTES_MAX }.into());
        }
        usual_form(json).map_or_else(|| any_form(json), Ok)
    }

    /// The signature: of the session or of this message, as the head says.
    pub(in crate::crypto) fn signature(&self) -> Result<[u8; SIGNATURE_LEN]> {
        decode("x.sig", &self.signature)
    }

    pub(in crate::crypto) fn mac(&self) -> Result<[u8; MAC_LEN]> {
        decode("x.mac", &self.mac)
    }
}

impl Head<'_> {
    /// The key it was sealed to, by its name.
    pub(in crate::crypto) fn recipient(&self) -> &str {
        &self.recipient
    }

    /// What it says of the session key in `wrapped`.
    pub(in crate::crypto) fn session(&self, wrapped: &[u8]) -> Result<Session> {
        let bounds: [u8; BOUNDS_LEN] = decode("x.session", &self.session)?;
        let kid = |part, text: &str| text.parse().map_err(|_| Error::malformed(part, "not a key id"));
        Ok(Session {
            recipient: kid("x.kid", &self.recipient)?,
            sender: kid("x.skid", &self.sender)?,
            signing: self.signing,
            bounds: Bounds::from_bytes(&bounds),
            wrapped: Sha256::digest(wrapped).into(),
        })
    }

    pub(super) fn to_owned(&self) -> Head<'static> {
        let own = |text: &Cow<'_, str>| Cow::Owned(text.to_string());
        Head {
            signing: self.signing,
            recipient: own(&self.recipient),
            sender: own(&self.sender),
            session: own(&self.session),
            signature: own(&self.signature),
        }
    }
}

/// The first part of the text. Without a signature it ends before it.
pub(super) fn write_head(session: &Session, signature: Option<&[u8; SIGNATURE_LEN]>) -> String {
    let (recipient, sender, signing) = (session.recipient, session.sender, session.signing.name());
    let mut text = format!(r#"{{"v":1,"kid":"{recipient}","skid":"{sender}","signed":"{signing}","session":""#);
    append(&mut text, &session.bounds.to_bytes());
    if let Some(signature) = signature {
        text.push_str(r#"","sig":""#);
        append(&mut text, signature);
    }
    text
}

/// The whole text, from a head on.
pub(super) fn write(
    head: &str,
    signature: Option<&[u8; SIGNATURE_LEN]>,
    stamp: &Stamp<'_>,
    mac: &[u8; MAC_LEN],
) -> String {
    let names = stamp.exchange.len() + stamp.routing_key.len() + stamp.content_type.len();
    let mut text = String::with_capacity(head.len() + names + TAIL_LEN);
    text.push_str(head);
    if let Some(signature) = signature {
        text.push_str(r#"","sig":""#);
        append(&mut text, signature);
    }
    // Writing to a string does not fail.
    let _ = write!(text, r#"","seq":{},"ts":{},"ctx":{{"exchange":"#, stamp.number, stamp.sent_ms);
    append_text(&mut text, &stamp.exchange);
    text.push_str(r#","routing_key":"#);
    append_text(&mut text, &stamp.routing_key);
    if !stamp.content_type.is_empty() {
        text.push_str(r#","content_type":"#);
        append_text(&mut text, &stamp.content_type);
    }
    text.push_str(r#"},"mac":""#);
    append(&mut text, mac);
    text.push_str(r#""}"#);
    text
}

/// Room for all that follows the head, names without escapes left out.
const TAIL_LEN: usize = 320;

impl Signing {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::EveryMessage => "message",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Session, Self::EveryMessage].into_iter().find(|signing| signing.name() == name)
    }
}

fn check_stamp(stamp: &Stamp<'_>) -> Result<()> {
    for (part, number) in [("x.seq", stamp.number), ("x.ts", stamp.sent_ms)] {
        if number > NUMBER_MAX {
            return Err(Error::malformed(part, "over 2^53 - 1"));
        }
    }
    for (part, text) in [
        ("x.ctx.exchange", &stamp.exchange),
        ("x.ctx.routing_key", &stamp.routing_key),
        ("x.ctx.content_type", &stamp.content_type),
    ] {
        if text.len() > CONTEXT_FIELD_BYTES_MAX {
            return Err(Error::malformed(part, "over 255 bytes"));
        }
    }
    Ok(())
}

/// Reads the form in which [`write`] writes, unless a name has escapes. `None`:
/// read it as JSON at large, which gives the same and takes longer.
fn usual_form(json: &str) -> Option<Extension<'_>> {
    let mut text = Text(json);
    let recipient = text.after(r#"{"v":1,"kid":""#)?.plain(KID_TEXT_LEN)?;
    let sender = text.after(r#"","skid":""#)?.plain(KID_TEXT_LEN)?;
    let signing = text.after(r#"","signed":""#)?.plain(SIGNING_TEXT_LEN)?;
    let session = text.after(r#"","session":""#)?.plain(base64::encoded_len(BOUNDS_LEN))?;
    let signature = text.after(r#"","sig":""#)?.plain(base64::encoded_len(SIGNATURE_LEN))?;
    let number = text.after(r#"","seq":"#)?.number()?;
    let sent_ms = text.after(r#","ts":"#)?.number()?;
    let exchange = text.after(r#","ctx":{"exchange":""#)?.name()?;
    let routing_key = text.after(r#"","routing_key":""#)?.name()?;
    let content_type = match text.after(r#"","content_type":""#) {
        Some(text) => text.name()?,
        None => "",
    };
    let mac = text.after(r#""},"mac":""#)?.plain(base64::encoded_len(MAC_LEN))?;
    if text.0 != "\"}" {
        return None;
    }
    let (exchange, routing_key, content_type) = (exchange.into(), routing_key.into(), content_type.into());
    let stamp = Stamp { number, sent_ms, exchange, routing_key, content_type };
    let (signing, of_session) = match Signing::from_name(signing)? {
        Signing::Session => (Signing::Session, signature),
        Signing::EveryMessage => (Signing::EveryMessage, ""),
    };
    let (recipient, sender, session) = (recipient.into(), sender.into(), session.into());
    let head = Head { signing, recipient, sender, session, signature: of_session.into() };
    Some(Extension { head, signature: signature.into(), stamp, mac: mac.into() })
}

/// Characters of a key id, `sha256:` and 32 bytes.
const KID_TEXT_LEN: usize = 50;
/// Both names of [`Signing`] have as many.
const SIGNING_TEXT_LEN: usize = 7;

/// What is left of a text that is read from its start.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// Nothing is taken unless `expected` comes next.
    fn after(&mut self, expected: &str) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(self)
    }

    /// So many characters of a string.
    fn plain(&mut self, len: usize) -> Option<&'a str> {
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        is_plain(text).then_some(text)
    }

    /// A string up to its end, of at most as many bytes as a name has.
    fn name(&mut self) -> Option<&'a str> {
        let end = memchr::memchr(b'"', self.0.as_bytes())?;
        if end > CONTEXT_FIELD_BYTES_MAX { None } else { self.plain(end) }
    }

    fn number(&mut self) -> Option<u64> {
        let mut number: u64 = 0;
        let mut digits = 0;
        while let Some(digit @ b'0'..=b'9') = self.0.as_bytes().get(digits) {
            number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            digits += 1;
        }
        let is_plain = digits == 1 || digits > 1 && !self.0.starts_with('0');
        self.0 = &self.0[digits..];
        Some(number).filter(|number| is_plain && *number <= NUMBER_MAX)
    }
}

/// Whether `text` stands in a string of JSON as it is. Without a branch for each
/// byte, so many are looked at together.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |is_plain, byte| is_plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\'))
}

fn any_form(json: &str) -> Result<Extension<'_>> {
    let not_read = |fault| Error::with_source(ErrorKind::Malformed { part: X_NAME, fault: NOT_READ }, fault);
    // Structs are read from arrays as well.
    if !json.starts_with('{') {
        return Err(Error::malformed(X_NAME, NOT_READ));
    }
    let json: Json<'_> = serde_json::from_str(json).map_err(not_read)?;
    if !json.ctx.get().starts_with('{') {
        return Err(Error::malformed("x.ctx", "not an object"));
    }
    let context: JsonContext<'_> = serde_json::from_str(json.ctx.get()).map_err(not_read)?;
    json.into_extension(context)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<'a> {
    v: u64,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    skid: Cow<'a, str>,
    #[serde(borrow)]
    signed: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
    seq: u64,
    ts: u64,
    #[serde(borrow)]
    ctx: &'a RawValue,
    #[serde(borrow)]
    mac: Cow<'a, str>,
}

impl<'a> Json<'a> {
    fn into_extension(self, context: JsonContext<'a>) -> Result<Extension<'a>> {
        if self.v != 1 {
            return Err(ErrorKind::Unsupported { what: "x of another version than 1" }.into());
        }
        let fault = Error::malformed("x.signed", "neither session nor message");
        let (signing, of_session) = match Signing::from_name(&self.signed).ok_or(fault)? {
            Signing::Session => (Signing::Session, self.sig.clone()),
            Signing::EveryMessage => (Signing::EveryMessage, Cow::Borrowed("")),
        };
        let JsonContext { exchange, routing_key, content_type } = context;
        let content_type = content_type.unwrap_or_default();
        let stamp = Stamp { number: self.seq, sent_ms: self.ts, exchange, routing_key, content_type };
        check_stamp(&stamp)?;
        let (recipient, sender, session) = (self.kid, self.skid, self.session);
        let head = Head { signing, recipient, sender, session, signature: of_session };
        Ok(Extension { head, signature: self.sig, stamp, mac: self.mac })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonContext<'a> {
    #[serde(borrow)]
    exchange: Cow<'a, str>,
    #[serde(borrow)]
    routing_key: Cow<'a, str>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
}

const NOT_READ: &str = "not an object of the members of version 1";

fn decode<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N]> {
    let fault = "not base64 of its length";
    // Decoding writes three bytes at a time.
    let mut bytes = [0; SIGNATURE_LEN + 2];
    if text.len() != base64::encoded_len(N) {
        return Err(Error::malformed(part, fault));
    }
    let len = base64::decode_into(part, text, &mut bytes)?;
    bytes[..len].try_into().map_err(|_| Error::malformed(part, fault))
}

fn append(text: &mut String, bytes: &[u8]) {
    text.push_str(&base64::text(bytes));
}

/// As a JSON string, with escapes where there must be any.
fn append_text(text: &mut String, name: &str) {
    if name.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        text.push_str(&serde_json::Value::from(name).to_string());
    } else {
        text.push('"');
        text.push_str(name);
        text.push('"');
    }
}

#[cfg(test)]
mod tests;
