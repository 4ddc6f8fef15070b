//! The broker's directory of keys, and what to believe of it.

use std::sync::Arc;
use std::time::SystemTime;

use cipher_client::trust::{Announcement, Pins};
use cipher_client::{Client, Error, crypto};

use crate::connection::Inner;
use crate::error::Failure;
use crate::identity::SenderKey;
use crate::recipient::Recipient;

/// What is announced beside the name.
pub(crate) struct Announced {
    pub(crate) key: Option<crypto::PublicKey>,
    pub(crate) identity: Arc<crypto::Identity>,
    pub(crate) not_before: Option<SystemTime>,
    pub(crate) not_after: Option<SystemTime>,
}

/// Announces a key after what was announced before.
pub(crate) async fn announce(
    inner: Arc<Inner>,
    client_id: String,
    announced: Announced,
) -> Result<crate::trust::Announcement, Failure> {
    let client = inner.client().await?;
    let before = last_of(client, &client_id).await?;
    let mut builder = Announcement::of(&client_id, announced.key.as_ref());
    if let Some(before) = &before {
        builder = builder.after(before);
    }
    if let Some(time) = announced.not_before {
        builder = builder.not_before(time);
    }
    if let Some(time) = announced.not_after {
        builder = builder.not_after(time);
    }
    let announcement = builder.sign(&announced.identity)?;
    client.announce(&announcement).await?;
    Ok(crate::trust::Announcement { inner: announcement })
}

/// The last announcement of a name.
pub(crate) async fn look_up(
    inner: Arc<Inner>,
    client_id: String,
) -> Result<Option<crate::trust::Announcement>, Failure> {
    let found = last_of(inner.client().await?, &client_id).await?;
    Ok(found.map(|inner| crate::trust::Announcement { inner }))
}

/// The key to seal to for a name: what the directory says, as far as the pins
/// believe it.
pub(crate) async fn resolve(inner: Arc<Inner>, client_id: String, pins: Arc<Pins>) -> Result<Recipient, Failure> {
    let client = inner.client().await?;
    Ok(Recipient { inner: client.resolve(&client_id, &pins, SystemTime::now()).await? })
}

/// The key that messages of a name are signed with, in the same manner.
pub(crate) async fn resolve_sender(
    inner: Arc<Inner>,
    client_id: String,
    pins: Arc<Pins>,
) -> Result<SenderKey, Failure> {
    let client = inner.client().await?;
    Ok(SenderKey { inner: client.resolve_sender(&client_id, &pins).await? })
}

async fn last_of(client: &Client, client_id: &str) -> Result<Option<Announcement>, Error> {
    let found = client.lookup_key_raw(client_id).await?;
    found.map(|info| Announcement::from_bytes(&info.announcement)).transpose()
}
