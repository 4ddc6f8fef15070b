//! Names to keys: what the directory says, as far as the pins believe it.

use std::time::SystemTime;

use crate::client::Client;
use crate::crypto::SenderKey;
use crate::trust::{Announcement, Pins, Recipient};
use crate::{Error, ErrorKind, Result};

/// Most parts of a history that are asked for: a broker keeps two.
const PARTS_MAX: usize = 7;

/// The directory, checked.
impl Client {
    /// Puts an announcement into the directory.
    ///
    /// # Errors
    ///
    /// As [`announce_key_raw`](Self::announce_key_raw).
    pub async fn announce(&self, announcement: &Announcement) -> Result<()> {
        self.announce_key_raw(announcement.client_id(), announcement.as_bytes()).await
    }

    /// The last announcement that the directory has of a name: signed by the
    /// identity in it, which nobody has vouched for yet.
    ///
    /// # Errors
    ///
    /// [`Untrusted`](ErrorKind::Untrusted) if there is none, or for an answer
    /// that is none or about somebody else.
    pub async fn announced(&self, client_id: &str) -> Result<Announcement> {
        let found = self.lookup_key_raw(client_id).await?.ok_or(untrusted("nothing was announced under this name"))?;
        of(client_id, &found.announcement)
    }

    /// The key to seal to for a name: asks the directory, and believes it as far
    /// as the pins do.
    ///
    /// To be called again once in a while, so that a new key is taken up; a
    /// [`Recipient`] that was resolved before stays what it is.
    ///
    /// # Errors
    ///
    /// [`KeyChanged`](ErrorKind::KeyChanged) when the directory contradicts what
    /// is pinned, [`Untrusted`](ErrorKind::Untrusted) when nothing vouches for
    /// what it says or the key is not good at this time; those of [`Pins`].
    ///
    /// ```no_run
    /// # use std::time::SystemTime;
    /// # use cipher_client::{Client, trust::{PinMode, Pins}};
    /// # async fn example(client: Client) -> cipher_client::Result<()> {
    /// let pins = Pins::open("/var/lib/shop/pins", PinMode::Tofu)?;
    /// let billing = client.resolve("billing", &pins, SystemTime::now()).await?;
    /// let publisher = client.publisher("orders", "new", billing)?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resolve(&self, client_id: &str, pins: &Pins, now: SystemTime) -> Result<Recipient> {
        self.refresh(client_id, pins).await?;
        let name = client_id.to_owned();
        with_files(pins, move |pins| pins.recipient(&name, now)).await
    }

    /// The identity behind a name, to know its messages by
    /// ([`Senders::add`](crate::trust::Senders::add)).
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub async fn resolve_sender(&self, client_id: &str, pins: &Pins) -> Result<SenderKey> {
        self.refresh(client_id, pins).await?;
        let name = client_id.to_owned();
        with_files(pins, move |pins| pins.sender(&name)).await
    }

    async fn refresh(&self, client_id: &str, pins: &Pins) -> Result<()> {
        let last = self.announced(client_id).await?;
        let (last, missing) =
            with_files(pins, |pins| pins.missing_before(&last).map(|missing| (last, missing))).await?;
        let announced = match missing {
            Some(from) => self.history(client_id, from, last).await?,
            None => vec![last],
        };
        let name = client_id.to_owned();
        with_files(pins, move |pins| pins.take(&name, &announced).map(drop)).await
    }

    /// The announcements from number `from` on as far as they were kept, and
    /// `last` at the end.
    async fn history(&self, client_id: &str, from: u64, last: Announcement) -> Result<Vec<Announcement>> {
        let (mut from, mut history) = (from, Vec::new());
        for _ in 0..PARTS_MAX {
            let Some(part) = self.key_history_raw(client_id, from).await? else { break };
            for entry in part.announcements.iter().take(PART_LEN_MAX) {
                history.push(of(client_id, &entry.announcement)?);
            }
            match part.next.filter(|next| *next > from) {
                Some(next) => from = next,
                None => break,
            }
        }
        history.retain(|one| one.seq() < last.seq());
        history.push(last);
        Ok(history)
    }
}

/// Announcements looked at of one part, whatever its sender says.
const PART_LEN_MAX: usize = ciphermq_protocol::limits::KEY_HISTORY_LIMIT_MAX as usize;

/// Work on the files of a pin store, on a thread where it holds up no connection.
async fn with_files<T: Send + 'static>(
    pins: &Pins,
    work: impl FnOnce(&Pins) -> Result<T> + Send + 'static,
) -> Result<T> {
    let pins = pins.clone();
    let done = tokio::task::spawn_blocking(move || work(&pins)).await;
    done.unwrap_or_else(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime is being shut down.
        Err(_) => Err(ErrorKind::Closed.into()),
    })
}

/// Reads an announcement of `client_id`.
fn of(client_id: &str, bytes: &[u8]) -> Result<Announcement> {
    let announcement = Announcement::from_bytes(bytes)?;
    if announcement.client_id() != client_id {
        return Err(untrusted("an announcement of somebody else"));
    }
    Ok(announcement)
}

fn untrusted(what: &'static str) -> Error {
    ErrorKind::Untrusted { what }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Identity;
    use crate::trust::PinMode;

    /// With one thread, whoever waits on it for a file stops everything.
    #[tokio::test]
    async fn a_store_that_another_process_holds_does_not_stop_the_runtime() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::open(dir.path(), PinMode::Strict).unwrap();
        let identity = *Identity::generate().unwrap().kid();
        let lock = std::fs::File::create(dir.path().join("lock")).unwrap();
        lock.lock().unwrap();
        let waits = tokio::spawn({
            let pins = pins.clone();
            async move { with_files(&pins, move |pins| pins.pin("billing", &identity)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished() && pins.look("billing").unwrap().is_none());
        drop(lock);
        waits.await.unwrap().unwrap();
        assert_eq!(pins.look("billing").unwrap().unwrap().identity, identity);
    }
}
