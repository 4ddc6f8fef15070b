//! Opening in suite 1, with and without the member `x`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Opener;
use crate::crypto::envelope::{Envelope, Parts};
use crate::crypto::keys::{PrivateInner, PrivateMaterial};
use crate::crypto::opened::{Opened, Sender, Sequence, Suite};
use crate::crypto::process::Moment;
use crate::crypto::sequence::Order;
use crate::crypto::signed::{Extension, Message, OpeningKey, OpeningSession, Session, Signing, X};
use crate::crypto::suite;
use crate::crypto::unwrap::{Found, Secret};
use crate::crypto::unwrap_cache::{CacheKey, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::trust::Claim;

/// A session key that is at hand.
struct Unlocked {
    key: Arc<OpeningKey>,
    name: CacheKey,
    /// It was not known before.
    is_fresh: bool,
}

/// What `x` was found to be.
enum Proof {
    /// The session of this key is known to be signed by its sender.
    Known,
    /// It is now, if the message is good.
    New(Session),
    /// By somebody who is not known, so there is nothing to be checked.
    None,
}

impl Opener {
    pub(super) fn open_first(&self, envelope: &Envelope<'_>, parts: Parts, moment: Moment) -> Result<Opened> {
        if !self.suites.contains(Suite::One) {
            return Err(ErrorKind::Unsupported { what: "a suite that is not taken here" }.into());
        }
        match envelope.x().filter(|_| self.senders.looks()) {
            Some(X::Read(x)) => self.open_signed(envelope, parts, x, moment),
            Some(X::Json(json)) => self.open_signed(envelope, parts, &Extension::parse(json)?, moment),
            None => {
                let sender = self.senders.check(None)?;
                self.open_unsigned(envelope, parts, sender, moment)
            }
        }
    }

    /// Tries the keys whose size fits.
    fn open_unsigned(&self, envelope: &Envelope<'_>, parts: Parts, sender: Sender, moment: Moment) -> Result<Opened> {
        let uniqueness = uniqueness(&parts);
        let Parts { wrapped, nonce, tag, ciphertext } = parts;
        let mut text = Some(ciphertext);
        let mut failure = ErrorKind::Decrypt;
        let mut is_charged = false;
        for key in self.keys.iter().filter(|key| key.suite_1_len() == Some(wrapped.len())) {
            let unlocked = match self.unlock(key, &wrapped, moment) {
                Ok(unlocked) => unlocked,
                Err(error) if *error.kind() == ErrorKind::Throttled => {
                    failure = ErrorKind::Throttled;
                    continue;
                }
                Err(error) => return Err(error),
            };
            is_charged |= unlocked.is_fresh;
            let mut text = match text.take() {
                Some(text) => text,
                None => envelope.ciphertext()?,
            };
            if unlocked.key.cipher.decrypt(&nonce, &mut text, tag).is_ok() {
                refuse_stripped(&unlocked.key)?;
                return Ok(opened(envelope, text, uniqueness, sender, unlocked.name));
            }
        }
        if is_charged {
            self.unwrapper.charge_failure(moment);
        }
        Err(failure.into())
    }

    /// With the one key that `x` names. The signature is checked before anything
    /// is unwrapped, the MAC before anything is decrypted.
    fn open_signed(&self, envelope: &Envelope<'_>, parts: Parts, x: &Extension<'_>, moment: Moment) -> Result<Opened> {
        let uniqueness = uniqueness(&parts);
        let Parts { wrapped, nonce, tag, mut ciphertext } = parts;
        let message =
            Message { id: envelope.message_id(), nonce: nonce.as_bytes(), tag: &tag, ciphertext: &ciphertext };
        let is_named = |key: &&Arc<PrivateInner>| {
            key.suite_1_len() == Some(wrapped.len()) && key.fingerprint() == x.head.recipient()
        };
        let mac = x.mac()?;
        let key = self.keys.iter().find(is_named).ok_or(ErrorKind::Decrypt)?;
        let found = self.unwrapper.find(Purpose::One, key, &wrapped, moment)?;
        let (sender, proof) = self.sender(x, &message, &wrapped, &found)?;
        let session = match proof {
            Proof::Known => None,
            Proof::New(session) => Some(session),
            // A message that a stranger signed is one that nobody did, also in what its failure costs.
            Proof::None => {
                return self.open_unsigned(envelope, Parts { wrapped, nonce, tag, ciphertext }, sender, moment);
            }
        };
        let unlocked = self.unlock_found(key, found, &wrapped, moment)?;
        let new = session.map(|session| OpeningSession::new(&x.head, session, &unlocked.key));
        let session = new.as_ref().or_else(|| unlocked.key.session.get()).ok_or(ErrorKind::Decrypt)?;
        let checked = session.verify(&message, &x.stamp, &mac);
        if let Err(error) = checked.and_then(|()| unlocked.key.cipher.decrypt(&nonce, &mut ciphertext, tag)) {
            if unlocked.is_fresh {
                self.unwrapper.charge_failure(moment);
            }
            return Err(error);
        }
        self.senders.admit_session(&sender, Suite::One, x.stamp.sent_ms, &session.admitted)?;
        let sequence = Sequence { session: session.session.stream(), number: x.stamp.number };
        if let Some(new) = new {
            // Another one that came first has been checked as well.
            unlocked.key.session.get_or_make(|| new);
        }
        Ok(Opened {
            sent_at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(x.stamp.sent_ms)),
            context: x.stamp.context(),
            sequence: Some(sequence),
            ..opened(envelope, ciphertext, uniqueness, sender, unlocked.name)
        })
    }

    /// Who signed, which is known already for most messages of a session.
    fn sender(
        &self,
        x: &Extension<'_>,
        message: &Message<'_>,
        wrapped: &[u8],
        found: &Found,
    ) -> Result<(Sender, Proof)> {
        let known = match &found.kept {
            Some(Secret::One(key)) => key.session.get().filter(|session| session.is_of(&x.head)),
            _ => None,
        };
        if let Some(known) = known.filter(|_| x.head.signing == Signing::Session) {
            return Ok((Sender::Signed(*known.session.sender()), Proof::Known));
        }
        let session = x.head.session(wrapped)?;
        let (signed, signature) = (session.signed(message, &x.stamp), x.signature()?);
        let claim = Claim { skid: *session.sender(), signed: &signed, signature: &signature };
        let sender = self.senders.check(Some(claim))?;
        let proof = match sender {
            Sender::Signed(_) if known.is_some() => Proof::Known,
            Sender::Signed(_) => Proof::New(session),
            _ => Proof::None,
        };
        Ok((sender, proof))
    }

    fn unlock(&self, key: &PrivateInner, wrapped: &[u8], moment: Moment) -> Result<Unlocked> {
        let found = self.unwrapper.find(Purpose::One, key, wrapped, moment)?;
        self.unlock_found(key, found, wrapped, moment)
    }

    fn unlock_found(&self, key: &PrivateInner, found: Found, wrapped: &[u8], moment: Moment) -> Result<Unlocked> {
        let Found { name, kept } = found;
        if let Some(Secret::One(key)) = kept {
            return Ok(Unlocked { key, name, is_fresh: false });
        }
        let PrivateMaterial::Rsa(rsa) = &key.material else { return Err(ErrorKind::Decrypt.into()) };
        let key = Arc::new(suite::unwrap(rsa, wrapped)?);
        self.unwrapper.keep(name, Secret::One(Arc::clone(&key)), moment);
        Ok(Unlocked { key, name, is_fresh: true })
    }
}

/// Who signs a session key signs every message under it.
fn refuse_stripped(key: &OpeningKey) -> Result<()> {
    match key.session.is_taken() {
        false => Ok(()),
        true => Err(Error::new(ErrorKind::Untrusted { what: "the signature was taken off" })),
    }
}

fn opened(envelope: &Envelope<'_>, text: Vec<u8>, uniqueness: [u8; 32], sender: Sender, origin: CacheKey) -> Opened {
    Opened {
        message_id: envelope.message_id().to_owned(),
        plaintext: text,
        uniqueness,
        suite: Suite::One,
        sender,
        context: None,
        sent_at: None,
        sequence: None,
        order: Order::Untracked,
        part: None,
        origin,
    }
}

pub(super) fn uniqueness(parts: &Parts) -> [u8; 32] {
    let nonce = parts.nonce.as_bytes();
    let mut bytes = [0; 32];
    bytes[..nonce.len()].copy_from_slice(nonce);
    bytes[16..].copy_from_slice(&parts.tag);
    bytes
}
