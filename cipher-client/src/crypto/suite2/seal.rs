//! Sealing in suite 2: one ciphertext for all recipients.

use std::borrow::Cow;
use std::sync::Arc;

use super::RECIPIENTS_MAX;
use super::compress::{Compression, compress};
use super::header::{Bounds, Header};
use super::padding::{Padding, pad};
use super::payload::{CHUNK_LEN, Chunks, ContentKey, SALT_LEN, Salt, sealed_len};
use super::sign::{self, WrapsDigest};
use super::text::{self, Frame, PayloadText};
use super::wrap::{new_key, wrap};
use crate::crypto::base64;
use crate::crypto::context::Context;
use crate::crypto::envelope;
use crate::crypto::identity::Identity;
use crate::crypto::keys::PublicKey;
use crate::crypto::kid::Kid;
use crate::crypto::message_id;
use crate::crypto::opened::Suite;
use crate::crypto::parts::Part;
use crate::crypto::process::Moment;
use crate::crypto::seal::Sealed;
use crate::crypto::session::{SessionPolicy, Sessions, Turn};
use crate::crypto::suite::random;
use crate::error::{ErrorKind, Result};

/// Seals for the holders of some keys.
pub(in crate::crypto) struct Sealing {
    suite: Suite,
    /// By kid, ascending.
    recipients: Vec<PublicKey>,
    kids: Vec<[u8; Kid::LEN]>,
    pub(super) identity: Option<Arc<Identity>>,
    pub(in crate::crypto) padding: Padding,
    pub(super) compression: Compression,
    sessions: Sessions<Secret>,
}

/// A content key in use, and what it looks like in an envelope.
pub(in crate::crypto) struct Secret {
    key: ContentKey,
    session: [u8; 16],
    bounds: Bounds,
    frame: Frame,
    /// Set when every message is signed.
    wraps: Option<WrapsDigest>,
}

/// What to seal beside the text.
#[derive(Clone, Copy)]
pub(in crate::crypto) struct Request<'a> {
    /// None: a new one is made.
    pub(in crate::crypto) message_id: Option<&'a str>,
    pub(in crate::crypto) context: &'a Context,
    pub(in crate::crypto) part: Option<Part>,
    pub(in crate::crypto) moment: Moment,
    pub(in crate::crypto) sent_ms: u64,
}

impl Sealing {
    pub(in crate::crypto) fn new(
        suite: Suite,
        mut recipients: Vec<PublicKey>,
        identity: Option<Arc<Identity>>,
        padding: Padding,
        compression: Compression,
        policy: SessionPolicy,
    ) -> Result<Self> {
        if !(1..=RECIPIENTS_MAX).contains(&recipients.len()) {
            return Err(ErrorKind::Option { option: "recipients", reason: "1 to 64" }.into());
        }
        recipients.sort_by_key(|key| *key.kid());
        let kids: Vec<_> = recipients.iter().map(|key| *key.kid().as_bytes()).collect();
        if !kids.is_sorted_by(|a, b| a < b) {
            return Err(ErrorKind::Option { option: "recipients", reason: "no key twice" }.into());
        }
        let sessions = Sessions::new(policy)?;
        Ok(Self { suite, recipients, kids, identity, padding, compression, sessions })
    }

    pub(in crate::crypto) fn suite(&self) -> Suite {
        self.suite
    }

    pub(in crate::crypto) fn rotate(&self) {
        self.sessions.rotate();
    }

    pub(in crate::crypto) fn seal(&self, request: Request<'_>, plaintext: &[u8]) -> Result<Sealed> {
        envelope::check_len(base64::encoded_len(plaintext.len()))?;
        let body = self.body(plaintext);
        let begun = self.begin(request, &body)?;
        self.write(begun, &body)
    }

    /// Seals a part of a larger message: all of them under one key.
    pub(in crate::crypto) fn seal_part(&self, request: Request<'_>, turn: Turn<Secret>, text: &[u8]) -> Result<Sealed> {
        envelope::check_len(base64::encoded_len(text.len()))?;
        let body = self.body(text);
        let begun = self.begin_in(turn, request, &body)?;
        self.write(begun, &body)
    }

    /// A key for the parts of one message.
    pub(in crate::crypto) fn file_secret(
        &self,
        moment: Moment,
        started_ms: u64,
        lifetime_ms: u64,
    ) -> Result<Arc<Secret>> {
        let stream = self.sessions.stream(moment)?;
        self.new_secret(stream, Bounds { started_ms, lifetime_ms }).map(Arc::new)
    }

    /// The place of a message in parts among the others.
    pub(in crate::crypto) fn file_number(&self, moment: Moment) -> u64 {
        self.sessions.number(moment)
    }

    /// Length of the envelope of a part without text.
    pub(in crate::crypto) fn part_frame_len(&self, request: Request<'_>, secret: &Arc<Secret>) -> Result<usize> {
        let turn = Turn { secret: Arc::clone(secret), number: 0 };
        self.begin_in(turn, request, &self.body(&[]))?.written_len(0)
    }

    fn write(&self, begun: Begun, body: &Body<'_>) -> Result<Sealed> {
        let mut json = Vec::with_capacity(begun.written_len(body.text.len())?);
        let (chunks, last) = body.text.as_chunks::<CHUNK_LEN>();
        let mut message = begun.open(&mut json);
        for chunk in chunks {
            message.push(&mut json, chunk)?;
        }
        message.push(&mut json, last)?;
        let message_id = message.finish(&mut json, self.identity.as_deref());
        Ok(Sealed { message_id, envelope: String::from_utf8(json).expect("made of strings and base64") })
    }

    /// Begins a message of this length, after compression and padding.
    pub(super) fn begin(&self, request: Request<'_>, body: &Body<'_>) -> Result<Begun> {
        request.context.check()?;
        let bounds = Bounds { started_ms: request.sent_ms, lifetime_ms: self.sessions.lifetime_ms() };
        let turn = self.sessions.turn(body.counted_len, request.moment, |stream| self.new_secret(*stream, bounds))?;
        self.begin_in(turn, request, body)
    }

    fn begin_in(&self, turn: Turn<Secret>, request: Request<'_>, body: &Body<'_>) -> Result<Begun> {
        let (salt, message_id) = salt_and_id(request.message_id)?;
        let header = Header {
            suite: self.suite,
            is_padded: body.is_padded,
            is_compressed: body.is_compressed,
            sent_ms: turn.secret.bounds.clamp(request.sent_ms),
            session: turn.secret.session,
            number: turn.number,
            bounds: turn.secret.bounds,
            message_id: &message_id,
            exchange: &request.context.exchange,
            routing_key: &request.context.routing_key,
            content_type: request.context.bound_content_type(),
            sender: self.identity.as_ref().map(|identity| *identity.kid()),
            recipients: &self.kids,
            part: request.part,
        };
        let header = header.write();
        Ok(Begun { message_id, header, salt, secret: turn.secret })
    }

    fn body<'a>(&self, plaintext: &'a [u8]) -> Body<'a> {
        let compressed = match self.compression {
            Compression::Zstd => compress(plaintext),
            Compression::Off => None,
        };
        let is_compressed = compressed.is_some();
        let mut text = compressed.map_or(Cow::Borrowed(plaintext), Cow::Owned);
        let is_padded = self.padding == Padding::Padme;
        if is_padded {
            pad(text.to_mut());
        }
        Body { counted_len: text.len() as u64, text, is_padded, is_compressed }
    }

    /// A new content key, wrapped for every recipient.
    fn new_secret(&self, session: [u8; 16], bounds: Bounds) -> Result<Secret> {
        let key = new_key()?;
        let wraps: Result<Vec<_>> = self.recipients.iter().map(|to| wrap(&to.inner.material, &key)).collect();
        let wraps = wraps?;
        let signature = match (&self.identity, &self.kids[..], &wraps[..]) {
            (Some(me), [kid], [wrap]) => {
                Some(me.sign(&sign::session_bytes(self.suite, &session, bounds, me.kid(), kid, wrap)))
            }
            _ => None,
        };
        let is_each_signed = self.identity.is_some() && signature.is_none();
        Ok(Secret {
            key: ContentKey::new(key.as_bytes()),
            session,
            bounds,
            frame: Frame::new(self.suite, &wraps, signature.as_ref()),
            wraps: is_each_signed.then(|| WrapsDigest::new(wraps.iter().map(Vec::as_slice))),
        })
    }
}

/// A text as it is encrypted.
pub(super) struct Body<'a> {
    pub(super) text: Cow<'a, [u8]>,
    /// What the session is charged.
    pub(super) counted_len: u64,
    pub(super) is_padded: bool,
    pub(super) is_compressed: bool,
}

/// One call to the system for both: it costs more than the cipher does for a
/// short message.
fn salt_and_id(given: Option<&str>) -> Result<(Salt, String)> {
    if let Some(id) = given {
        message_id::check(id)?;
        return Ok((random()?, id.to_owned()));
    }
    let random: [u8; SALT_LEN + 16] = random()?;
    let (salt, id) = random.split_first_chunk().expect("longer than a salt");
    Ok((*salt, message_id::from_random(id.try_into().expect("16 bytes are left"))))
}

/// A message whose header is settled.
pub(super) struct Begun {
    message_id: String,
    header: Vec<u8>,
    salt: Salt,
    secret: Arc<Secret>,
}

impl Begun {
    /// Length of the envelope with a text of `len`, if that may be.
    pub(super) fn written_len(&self, len: usize) -> Result<usize> {
        let len = self.secret.frame.written_len(self.message_id.len(), self.header.len(), sealed_len(len));
        envelope::check_len(len)?;
        Ok(len)
    }

    /// Writes what stands before the text.
    pub(super) fn open(self, json: &mut Vec<u8>) -> Message {
        let (chunks, commitment) = self.secret.key.derive(&self.salt, &self.header);
        self.secret.frame.open(json, &self.message_id, &self.header);
        let is_digested = self.secret.wraps.is_some();
        let text = PayloadText::new(&self.salt, &commitment, json.capacity(), is_digested);
        Message { begun: self, chunks, text }
    }
}

/// A message whose text is being written.
pub(super) struct Message {
    begun: Begun,
    chunks: Chunks,
    text: PayloadText,
}

impl Message {
    /// Writes the next chunk: a full one, or the last.
    pub(super) fn push(&mut self, json: &mut Vec<u8>, chunk: &[u8]) -> Result<()> {
        self.text.push(json, &mut self.chunks, chunk)
    }

    /// Writes what stands behind the text; gives the id.
    pub(super) fn finish(self, json: &mut Vec<u8>, identity: Option<&Identity>) -> String {
        let payload = self.text.finish(json);
        let signed = match (payload, &self.begun.secret.wraps) {
            (Some(payload), Some(wraps)) => Some(sign::message_bytes(&self.begun.header, wraps, payload)),
            _ => None,
        };
        let signature = identity.zip(signed).map(|(identity, signed)| identity.sign(&signed));
        text::close(json, signature.as_ref());
        self.begun.message_id
    }
}
