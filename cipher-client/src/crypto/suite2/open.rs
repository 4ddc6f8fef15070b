//! Opening in suite 2: checks from the cheapest to the dearest, and one answer
//! for every failure that has to do with a key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha512};

use super::compress;
use super::header::{Bounds, HEADER_BYTES_MAX, Header};
use super::padding;
use super::payload::{self, Commitment, ContentKey};
use super::sign::{self, SIGNATURE_LEN, WrapsDigest};
use super::wrap::{self, WRAP_BYTES_MAX};
use crate::crypto::base64;
use crate::crypto::envelope::{Envelope, Second};
use crate::crypto::keys::PrivateInner;
use crate::crypto::kid::Kid;
use crate::crypto::opened::{Opened, Sender, Sequence, SuiteSet};
use crate::crypto::process::{Moment, Once};
use crate::crypto::sequence::Order;
use crate::crypto::unwrap::{self, Unwrapper};
use crate::crypto::unwrap_cache::{CacheKey, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::trust::{Claim, SenderPolicy};

/// What it takes to open.
pub(in crate::crypto) struct Opening<'a> {
    pub(in crate::crypto) keys: &'a [Arc<PrivateInner>],
    pub(in crate::crypto) unwrapper: &'a Unwrapper,
    pub(in crate::crypto) senders: &'a SenderPolicy,
    pub(in crate::crypto) suites: SuiteSet,
    pub(in crate::crypto) moment: Moment,
}

/// A content key, and whose it was found to be.
pub(in crate::crypto) struct Secret {
    key: ContentKey,
    /// The one signature of its session, once a message under it has opened.
    signed: Once<SignedSession>,
}

/// What a signature of a session says.
#[derive(PartialEq, Eq)]
struct SignedSession {
    sender: Kid,
    session: [u8; 16],
    bounds: Bounds,
    signature: [u8; SIGNATURE_LEN],
}

/// A message whose key is at hand.
pub(super) struct Unlocked<'a> {
    pub(super) header: Header<'a>,
    pub(super) secret: Arc<Secret>,
    pub(super) sender: Sender,
    origin: CacheKey,
    /// The content key was not known before.
    is_fresh: bool,
    signed: Option<SignedSession>,
}

impl Secret {
    pub(super) fn key(&self) -> &ContentKey {
        &self.key
    }
}

/// The bytes of an envelope's header, bounded.
pub(in crate::crypto) fn header_bytes(second: &Second<'_>) -> Result<Vec<u8>> {
    if second.header.len() > base64::encoded_len(HEADER_BYTES_MAX) {
        return Err(Error::malformed("hdr", "longer than any header"));
    }
    base64::decode("hdr", &second.header)
}

impl Opening<'_> {
    /// Opens a whole message; `hdr` is what [`header_bytes`] gave.
    pub(in crate::crypto) fn open(&self, envelope: &Envelope<'_>, second: &Second<'_>, hdr: &[u8]) -> Result<Opened> {
        let header = read_header(envelope, second, hdr)?;
        let mut payload = envelope.ciphertext()?;
        let digest = || Ok(Sha512::digest(&payload).into());
        let unlocked = self.unlock(envelope, second, header, hdr, digest)?;
        let opened = payload::open(unlocked.secret.key(), hdr, &mut payload);
        let commitment = self.settle(&unlocked, opened)?;
        let plaintext = plain(&unlocked.header, payload)?;
        Ok(unlocked.into_opened(plaintext, commitment))
    }

    /// Finds the key of a message and checks its sender, before it is decrypted.
    /// `payload_digest` is only asked for when the sender signed the payload.
    pub(super) fn unlock<'h>(
        &self,
        envelope: &Envelope<'_>,
        second: &Second<'_>,
        header: Header<'h>,
        hdr: &[u8],
        payload_digest: impl FnOnce() -> Result<[u8; 64]>,
    ) -> Result<Unlocked<'h>> {
        if !self.suites.contains(header.suite) {
            return Err(ErrorKind::Unsupported { what: "a suite that is not taken here" }.into());
        }
        let (place, key) = self.own_key(&header).ok_or(ErrorKind::Decrypt)?;
        let wraps = wraps(envelope, &header, place)?;
        let own = &wraps[if wraps.len() > 1 { place } else { 0 }];
        let found = self.unwrapper.find(Purpose::Two, key, own, self.moment)?;
        let kept = match found.kept {
            Some(unwrap::Secret::Two(secret)) => Some(secret),
            _ => None,
        };
        let (sender, signed) = self.sender(second, &header, hdr, &wraps, kept.as_deref(), payload_digest)?;
        let is_fresh = kept.is_none();
        let secret = match kept {
            Some(secret) => secret,
            None => {
                let content_key = wrap::unwrap(&key.material, own)?;
                let secret = Arc::new(Secret { key: ContentKey::new(content_key.as_bytes()), signed: Once::new() });
                self.unwrapper.keep(found.name, unwrap::Secret::Two(Arc::clone(&secret)), self.moment);
                secret
            }
        };
        Ok(Unlocked { header, secret, sender, origin: found.name, is_fresh, signed })
    }

    /// Draws the lesson from an attempt: a failure is charged, a success lets the
    /// signature of its session stand.
    pub(super) fn settle<T>(&self, unlocked: &Unlocked<'_>, opened: Result<T>) -> Result<T> {
        if opened.is_err() {
            if unlocked.is_fresh {
                self.unwrapper.charge_failure(self.moment);
            }
            return opened;
        }
        let header = &unlocked.header;
        self.senders.admit(&unlocked.sender, header.suite, header.sent_ms)?;
        opened
    }

    /// The first recipient of the message that is one of ours.
    fn own_key(&self, header: &Header<'_>) -> Option<(usize, &PrivateInner)> {
        header.recipients.iter().enumerate().find_map(|(place, kid)| {
            let is_it = |key: &&Arc<PrivateInner>| {
                key.kid().as_bytes() == kid && wrap::suite_of(&key.public.material) == header.suite
            };
            self.keys.iter().find(is_it).map(|key| (place, &**key))
        })
    }

    /// Who sealed it, and the session that this was signed for, if one was.
    fn sender(
        &self,
        second: &Second<'_>,
        header: &Header<'_>,
        hdr: &[u8],
        wraps: &[Vec<u8>],
        kept: Option<&Secret>,
        payload_digest: impl FnOnce() -> Result<[u8; 64]>,
    ) -> Result<(Sender, Option<SignedSession>)> {
        let (Some(skid), true) = (header.sender, self.senders.looks()) else {
            return self.senders.check(None).map(|sender| (sender, None));
        };
        let signature = signature(second)?;
        let check = |signed: &[u8]| self.senders.check(Some(Claim { skid, signed, signature: &signature }));
        let ([recipient], [wrap]) = (header.recipients, wraps) else {
            let wraps = WrapsDigest::new(wraps.iter().map(Vec::as_slice));
            return check(&sign::message_bytes(hdr, &wraps, payload_digest()?)).map(|sender| (sender, None));
        };
        if !header.bounds.cover(header.sent_ms) {
            return Err(ErrorKind::Decrypt.into());
        }
        let session = SignedSession { sender: skid, session: header.session, bounds: header.bounds, signature };
        if kept.and_then(|secret| secret.signed.get()) == Some(&session) && self.senders.knows(&skid) {
            return Ok((Sender::Signed(skid), None));
        }
        let signed = sign::session_bytes(header.suite, &header.session, header.bounds, &skid, recipient, wrap);
        let sender = check(&signed)?;
        let is_proven = matches!(sender, Sender::Signed(_));
        Ok((sender, is_proven.then_some(session)))
    }
}

impl Unlocked<'_> {
    pub(super) fn into_opened(self, plaintext: Vec<u8>, commitment: Commitment) -> Opened {
        if let Some(signed) = self.signed {
            // Another one that came first has been checked as well.
            self.secret.signed.get_or_make(|| signed);
        }
        let header = self.header;
        Opened {
            message_id: header.message_id.to_owned(),
            plaintext,
            uniqueness: commitment,
            suite: header.suite,
            sender: self.sender,
            context: header.context(),
            sent_at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(header.sent_ms)),
            sequence: Some(Sequence { session: header.session, number: header.number }),
            order: Order::Untracked,
            part: header.part,
            origin: self.origin,
        }
    }
}

/// The header, if the envelope round it says the same.
pub(super) fn read_header<'a>(envelope: &Envelope<'_>, second: &Second<'_>, hdr: &'a [u8]) -> Result<Header<'a>> {
    let header = Header::read(hdr)?;
    envelope.check_no_nonce_and_tag()?;
    if header.suite.name() != second.suite {
        return Err(Error::malformed("suite", "not the one of the header"));
    }
    if header.message_id != envelope.message_id() {
        return Err(Error::malformed("message_id", "not the one of the header"));
    }
    if header.recipients.len() != second.more_wraps.len() + 1 {
        return Err(Error::malformed("wraps", "not one for each further recipient"));
    }
    Ok(header)
}

/// The wraps: all of them if a signature covers them, else the one at `place`.
fn wraps(envelope: &Envelope<'_>, header: &Header<'_>, place: usize) -> Result<Vec<Vec<u8>>> {
    let needed = match header.sender {
        Some(_) => 0..header.recipients.len(),
        None => place..place + 1,
    };
    let decode = |place: usize| {
        let part = if place == 0 { "enc_session_key" } else { "wraps" };
        let text = envelope.wrap_text(place).ok_or(Error::malformed(part, "missing"))?;
        if text.len() > base64::encoded_len(WRAP_BYTES_MAX) {
            return Err(Error::malformed(part, "longer than any wrapped key"));
        }
        let wrap = base64::decode(part, text)?;
        match wrap::is_length_of(header.suite, wrap.len()) {
            true => Ok(wrap),
            false => Err(Error::malformed(part, "not as long as its suite has it")),
        }
    };
    needed.map(decode).collect()
}

fn signature(second: &Second<'_>) -> Result<[u8; SIGNATURE_LEN]> {
    let missing = Error::malformed("sig", "missing, though the header names a sender");
    let text = second.signature.as_deref().ok_or(missing)?;
    let mut bytes = [0; SIGNATURE_LEN + 2];
    let len = base64::decode_into("sig", text, &mut bytes)?;
    bytes[..len].try_into().map_err(|_| Error::malformed("sig", "not 64 bytes"))
}

/// The text as it was given to the sealer.
fn plain(header: &Header<'_>, mut text: Vec<u8>) -> Result<Vec<u8>> {
    if header.is_padded {
        padding::unpad(&mut text)?;
    }
    match header.is_compressed {
        true => compress::expand(&text),
        false => Ok(text),
    }
}
