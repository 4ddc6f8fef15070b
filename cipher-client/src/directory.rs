//! The broker's directory of keys, as the broker gives it. Nothing here is
//! verified: whoever uses it checks the signatures and its own pins.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;
use ciphermq_protocol::Command;
use ciphermq_protocol::limits::KEY_HISTORY_LIMIT_MAX;
use serde::{Deserialize, Deserializer, de};

#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::client::Client;
use crate::line;
use crate::request::Request;
use crate::topology::is_not_found;

/// An announcement in the broker's directory. The broker vouches for none of it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KeyInfo {
    /// The number the broker has it under.
    pub seq: u64,
    /// When the broker took it, in milliseconds since 1970-01-01 UTC.
    #[serde(rename = "announced")]
    pub announced_ms: u64,
    /// Its bytes, signature included.
    #[serde(deserialize_with = "bytes")]
    pub announcement: Vec<u8>,
}

/// A part of what one client has announced, oldest first.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KeyHistory {
    /// The number of the oldest announcement the broker keeps.
    pub first: u64,
    /// The number of the newest.
    pub last: u64,
    /// What the next part begins with.
    pub next: Option<u64>,
    /// The announcements of this part.
    pub announcements: Vec<KeyInfo>,
}

/// The directory, raw.
impl Client {
    /// Puts a signed announcement into the directory. Announcing the newest
    /// one again changes nothing and is no error.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with `BAD_ANNOUNCEMENT` or
    /// `BAD_SIGNATURE`; with `NOT_ALLOWED` when the client id is announced by
    /// another identity, `CONFLICT` when it has that number or a higher one,
    /// `LIMIT` when the directory is full.
    pub async fn announce_key_raw(&self, client_id: &str, announcement: &[u8]) -> Result<()> {
        let announcement = &STANDARD.encode(announcement);
        let command = Command::AnnounceKey { client: line::name("client_id", client_id)?, announcement };
        self.ask(Request::Declare, &command).await.map(drop)
    }

    /// The newest announcement of a client; `None` when there is none.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn lookup_key_raw(&self, client_id: &str) -> Result<Option<KeyInfo>> {
        let command = Command::LookupKey { client: line::name("client_id", client_id)? };
        found(self.look(&command).await)
    }

    /// Announcements of a client from the one numbered `from` on, oldest
    /// first; `None` when there is none at all. What [`KeyHistory::next`] says
    /// is `from` of the next part.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn key_history_raw(&self, client_id: &str, from: u64) -> Result<Option<KeyHistory>> {
        let client = line::name("client_id", client_id)?;
        found(self.look(&Command::KeyHistory { client, from, limit: KEY_HISTORY_LIMIT_MAX }).await)
    }
}

fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(|_| de::Error::custom("an announcement is no base64"))
}
