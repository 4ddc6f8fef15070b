//! The commands about keys: signed announcements, and what the originals know of keys; and their `resend`.

use ciphermq_broker::{Error, Timestamp};
use ciphermq_journal::{Health, Unavailable};
use ciphermq_protocol::limits::UNSIGNED_KEY_BYTES_MAX;
use ciphermq_protocol::text::legacy::LegacyReply;
use ciphermq_protocol::{Code, Dialect, Name, Reply};
use tracing::debug;

use super::answers::{KeyAnswer, KeysAnswer, json};
use super::refusal;
use super::text::{Mode, TextSession, Then};
use crate::{announcement, base64};

/// Which of the originals' two commands stores a key: their failures have different words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    /// `register_public_key`
    Own,
    /// `register_key`
    Named,
}

const NO_CLIENT_ID: &str = "this connection has no client id; say hello 1 name=<client_id> before, or use register_key";
const OTHER_CLIENT_ID: &str = "a client registers its own key only; this connection said another name in hello";

impl TextSession {
    pub(super) fn announce_key(&mut self, client: Name<'_>, text: &str, now: Timestamp) {
        match announcement::verified(client, text) {
            Ok(announcement) => {
                let changed = self.link.announce_key(announcement, now);
                self.changed(changed, Then::Reply(Reply::KeyAnnounced), now);
            }
            Err(refused) => self.error(refused.code(), &refused),
        }
    }

    pub(super) fn lookup_key(&mut self, client: Name<'_>) {
        match self.link.lookup_key(client.as_str()) {
            Ok(found) => {
                let answer = KeyAnswer { client_id: client.as_str(), announcement: found.into() };
                self.reply(&Reply::Key(&json(&answer)));
            }
            Err(error) => self.refuse(&error),
        }
    }

    pub(super) fn key_history(&mut self, client: Name<'_>, from: u64, limit: u32) {
        match self.link.key_history(client.as_str(), from, limit as usize) {
            Ok(history) => self.reply(&Reply::Keys(&json(&KeysAnswer::new(client.as_str(), history)))),
            Err(error) => self.refuse(&error),
        }
    }

    /// `client` is who the request names; where it names nobody, the connection must have said who it is.
    pub(super) fn register_key(&mut self, client: Option<Name<'_>>, text: &str, now: Timestamp) {
        let how = if client.is_some() { Registration::Named } else { Registration::Own };
        let client = match (client.map(Name::as_str), self.client.as_deref()) {
            (Some(named), Some(own)) if named != own => {
                return self.not_registered(how, Code::NotAllowed, OTHER_CLIENT_ID);
            }
            (Some(client), _) | (None, Some(client)) => client.to_owned(),
            (None, None) => return self.not_registered(how, Code::NotAllowed, NO_CLIENT_ID),
        };
        let Some(key) = base64::decode(text, UNSIGNED_KEY_BYTES_MAX) else {
            let rule = format!("a key is standard padded base64 of 1 to {UNSIGNED_KEY_BYTES_MAX} bytes");
            return self.not_registered(how, Code::BadKey, &rule);
        };
        match self.link.register_key(&client, &key, now) {
            Err(error) => self.refuse_key(how, &error),
            registered => self.changed(registered, Then::Registered(how), now),
        }
    }

    pub(super) fn unsigned_key(&mut self, client: Name<'_>, how: Registration) {
        match (self.link.unsigned_key(client.as_str()), self.dialect(), how) {
            (Ok(key), ..) => self.reply(&Reply::PublicKey(&base64::encode(&key))),
            (Err(error), Dialect::Modern, _) => self.refuse(&error),
            (Err(_), Dialect::Legacy, Registration::Own) => self.legacy(&LegacyReply::PublicKeyNotFound),
            (Err(_), Dialect::Legacy, Registration::Named) => self.legacy(&LegacyReply::NoPublicKey),
        }
    }

    pub(super) fn resend(&mut self, id: &str, now: Timestamp) {
        match (self.link.resend(id, now), &mut self.mode) {
            (Ok(()), mode) => {
                if let Mode::Legacy(pace) = mode {
                    pace.settled(id);
                }
                self.promise(&Reply::ResendRequested);
            }
            (Err(error), Mode::Modern) => self.refuse(&error),
            (Err(error), Mode::Legacy(_)) => {
                debug!(connection = self.link.id().0, %error, "resend not done");
                self.legacy(&match error {
                    Error::NoMessage(_) => LegacyReply::MessageIdNotFound,
                    Error::LeasedElsewhere(_) => LegacyReply::UnauthorizedResend,
                    _ => LegacyReply::NoMetadata,
                });
            }
        }
    }

    /// An unsigned key was not stored, and the broker says why.
    pub(super) fn refuse_key(&mut self, how: Registration, error: &Error) {
        self.not_registered(how, refusal::code(error), &error.to_string());
    }

    /// The journal failed with an unsigned key on its way.
    pub(super) fn break_key(&mut self, how: Registration) {
        let error = match self.link.health() {
            Health::Poisoned => Error::Storage(Unavailable),
            Health::Healthy | Health::Full => Error::DiskFull,
        };
        self.refuse_key(how, &error);
    }

    fn not_registered(&mut self, how: Registration, code: Code, reason: &str) {
        match (self.dialect(), how) {
            (Dialect::Modern, _) => self.error(code, &reason),
            (Dialect::Legacy, Registration::Own) => self.legacy(&LegacyReply::KeyNotSaved(reason)),
            (Dialect::Legacy, Registration::Named) => self.legacy(&LegacyReply::KeyNotRegistered(reason)),
        }
    }
}
