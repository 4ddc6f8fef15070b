//! A recipient's key, and whether anybody has vouched for it.

use std::fmt;
use std::marker::PhantomData;
use std::time::SystemTime;

use super::announcement::{NO_END, millis};
use crate::crypto::{Kid, PublicKey};
use crate::error::{Error, ErrorKind, Result};

/// State of a [`Recipient`] whose key may be sealed to.
#[derive(Debug)]
pub enum Trusted {}

/// State of a [`Recipient`] whose key came from somebody who cannot vouch for
/// it, such as a broker.
#[derive(Debug)]
pub enum Unverified {}

/// The key of a recipient. Only a [`Recipient<Trusted>`] can be sealed to.
///
/// What a directory answers is [`Unverified`]; it becomes [`Trusted`] through
/// the pin store ([`super::Pins`]) or by comparing the fingerprint with one that
/// came by another way. There is no way from it to the key itself:
///
/// ```compile_fail,E0271
/// # use cipher_client::crypto::Sealer;
/// # use cipher_client::trust::{Recipient, Unverified};
/// fn seal_to_what_the_broker_says(found: Recipient<Unverified>) {
///     Sealer::builder([found]);
/// }
/// ```
/// ```compile_fail,E0277
/// # use cipher_client::crypto::PublicKey;
/// # use cipher_client::trust::{Recipient, Unverified};
/// fn as_if_trusted(found: Recipient<Unverified>) -> PublicKey {
///     found.into()
/// }
/// ```
/// ```compile_fail,E0599
/// # use cipher_client::trust::{Recipient, Unverified};
/// fn the_key_anyway(found: Recipient<Unverified>) {
///     found.key();
/// }
/// ```
pub struct Recipient<S = Trusted> {
    key: PublicKey,
    /// Milliseconds since 1970.
    expires_ms: u64,
    state: PhantomData<S>,
}

impl Recipient<Trusted> {
    /// A key that the caller vouches for: from his own configuration, from the
    /// hand of its owner, or compared by fingerprint.
    pub fn from_own_source(key: PublicKey) -> Self {
        Self { key, expires_ms: NO_END, state: PhantomData }
    }

    /// The same until `time`: from then on no [`Sealer`](crate::crypto::Sealer)
    /// seals to it. What [`super::Pins`] gives ends with its announcement.
    #[must_use]
    pub fn until(self, time: SystemTime) -> Self {
        self.until_ms(millis(time))
    }

    pub(super) fn until_ms(self, ms: u64) -> Self {
        Self { expires_ms: self.expires_ms.min(ms), ..self }
    }

    pub(crate) fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The key, taken out: when it ends is for the caller to know.
    pub fn into_key(self) -> PublicKey {
        self.key
    }
}

impl Recipient<Unverified> {
    /// A key from somebody who cannot vouch for it.
    pub fn from_directory(key: PublicKey) -> Self {
        Self { key, expires_ms: NO_END, state: PhantomData }
    }

    /// Trusts the key if it is the one named by `expected`, which came by a way
    /// that the caller trusts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Untrusted`] for another key.
    pub fn verify(self, expected: &Kid) -> Result<Recipient<Trusted>> {
        if self.key.kid() != expected {
            return Err(Error::new(ErrorKind::Untrusted { what: "the key has another fingerprint than expected" }));
        }
        Ok(Recipient::from_own_source(self.key))
    }
}

impl<S> Recipient<S> {
    /// The name of the key, to be shown and compared.
    pub fn kid(&self) -> &Kid {
        self.key.kid()
    }
}

impl<S> Clone for Recipient<S> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), expires_ms: self.expires_ms, state: PhantomData }
    }
}

impl<S> fmt::Debug for Recipient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", self.kid())
    }
}

impl From<Recipient<Trusted>> for PublicKey {
    fn from(recipient: Recipient<Trusted>) -> Self {
        recipient.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::PrivateKey;

    #[test]
    fn only_the_expected_fingerprint_makes_a_key_trusted() {
        let (key, other) = (PrivateKey::generate(2048).unwrap(), PrivateKey::generate(2048).unwrap());
        let found = Recipient::<Unverified>::from_directory(key.public_key());
        assert_eq!(found.clone().verify(key.public_key().kid()).unwrap().key(), &key.public_key());
        let error = found.verify(other.public_key().kid()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Untrusted { .. }));
    }
}
