//! A content key, encrypted to one recipient.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender_with_rng};
use zeroize::Zeroizing;

use super::DOMAIN;
use super::payload::CONTENT_KEY_LEN;
use crate::crypto::keys::{Oaep, PrivateMaterial, PublicMaterial};
use crate::crypto::opened::Suite;
use crate::crypto::suite::{random, system_rng};
use crate::error::{Error, ErrorKind, Result};

/// The bytes of a content key, wiped when dropped. They are not shown, copied or
/// compared.
pub(super) struct KeyBytes(Zeroizing<[u8; CONTENT_KEY_LEN]>);

impl KeyBytes {
    pub(super) fn as_bytes(&self) -> &[u8; CONTENT_KEY_LEN] {
        &self.0
    }

    fn from_text(text: &[u8]) -> Option<Self> {
        text.try_into().ok().map(Zeroizing::new).map(Self)
    }
}

/// Longest wrap: that of X-Wing, and of an RSA key of 8,192 bits with room.
pub(in crate::crypto) const WRAP_BYTES_MAX: usize = X_WING_WRAP_LEN;

/// Encapsulated key, content key, tag.
const X25519_WRAP_LEN: usize = 32 + CONTENT_KEY_LEN + 16;
const X_WING_WRAP_LEN: usize = 1120 + CONTENT_KEY_LEN + 16;

/// The suite that a key of this kind takes part in.
pub(in crate::crypto) fn suite_of(key: &PublicMaterial) -> Suite {
    match key {
        PublicMaterial::Rsa(_) => Suite::TwoRsa,
        PublicMaterial::X25519(_) => Suite::TwoX25519,
        PublicMaterial::XWing(_) => Suite::TwoXWing,
    }
}

/// Whether `len` can be the length of a wrap of `suite`.
pub(super) fn is_length_of(suite: Suite, len: usize) -> bool {
    match suite {
        Suite::One => false,
        Suite::TwoRsa => (256..=1024).contains(&len),
        Suite::TwoX25519 => len == X25519_WRAP_LEN,
        Suite::TwoXWing => len == X_WING_WRAP_LEN,
    }
}

/// A new content key.
pub(super) fn new_key() -> Result<KeyBytes> {
    random().map(Zeroizing::new).map(KeyBytes)
}

/// Encrypts a content key.
pub(super) fn wrap(to: &PublicMaterial, key: &KeyBytes) -> Result<Vec<u8>> {
    match to {
        PublicMaterial::Rsa(to) => to.encrypt(Oaep::Suite2, key.as_bytes()),
        PublicMaterial::X25519(to) => hpke_wrap::<X25519HkdfSha256>(to, key),
        PublicMaterial::XWing(to) => hpke_wrap::<XWing>(&to[..], key),
    }
}

/// Decrypts a content key. What does not decrypt to one gives a random one, so
/// that every failure is found by the same comparison.
pub(super) fn unwrap(key: &PrivateMaterial, wrap: &[u8]) -> Result<KeyBytes> {
    let decoy = new_key()?;
    let content_key = match key {
        PrivateMaterial::Rsa(key) => key.decrypt(Oaep::Suite2, wrap).and_then(|text| KeyBytes::from_text(&text)),
        PrivateMaterial::X25519(key) => hpke_unwrap::<X25519HkdfSha256>(&key[..], wrap),
        PrivateMaterial::XWing(key) => hpke_unwrap::<XWing>(&key[..], wrap),
    };
    Ok(content_key.unwrap_or(decoy))
}

fn hpke_wrap<K: Kem>(to: &[u8], key: &KeyBytes) -> Result<Vec<u8>> {
    let to = K::PublicKey::from_bytes(to).map_err(unusable)?;
    let (encapped, mut context) =
        setup_sender_with_rng::<AesGcm256, HkdfSha256, K>(&OpModeS::Base, &to, DOMAIN, &mut system_rng())
            .map_err(unusable)?;
    let sealed = context.seal(key.as_bytes(), b"").map_err(unusable)?;
    Ok([&encapped.to_bytes()[..], &sealed].concat())
}

fn hpke_unwrap<K: Kem>(key: &[u8], wrap: &[u8]) -> Option<KeyBytes> {
    let (encapped, sealed) = wrap.split_at_checked(wrap.len().checked_sub(CONTENT_KEY_LEN + 16)?)?;
    let key = K::PrivateKey::from_bytes(key).ok()?;
    let encapped = K::EncappedKey::from_bytes(encapped).ok()?;
    let mut context = setup_receiver::<AesGcm256, HkdfSha256, K>(&OpModeR::Base, &key, &encapped, DOMAIN).ok()?;
    KeyBytes::from_text(&Zeroizing::new(context.open(sealed, b"").ok()?))
}

fn unusable(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Key { reason: "cannot wrap with it" }, fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{KeyKind, PrivateKey};

    const KINDS: [KeyKind; 3] = [KeyKind::Rsa, KeyKind::X25519, KeyKind::XWing];

    #[test]
    fn a_content_key_returns_and_a_damaged_wrap_gives_another() {
        for kind in KINDS {
            let key = PrivateKey::generate_kind(kind).unwrap();
            let content_key = new_key().unwrap();
            let wrapped = wrap(&key.inner.public.material, &content_key).unwrap();
            assert!(is_length_of(suite_of(&key.inner.public.material), wrapped.len()));
            assert!(wrapped.len() <= WRAP_BYTES_MAX);
            let unwrapped = |wrap: &[u8]| *unwrap(&key.inner.material, wrap).unwrap().as_bytes();
            assert_eq!(unwrapped(&wrapped), *content_key.as_bytes());
            for at in [0, wrapped.len() / 2, wrapped.len() - 1] {
                let mut damaged = wrapped.clone();
                damaged[at] ^= 1;
                let decoys = [unwrapped(&damaged), unwrapped(&damaged)];
                assert!(!decoys.contains(content_key.as_bytes()) && decoys[0] != decoys[1], "{kind} {at}");
            }
            for short in [&wrapped[1..], &wrapped[..wrapped.len() - 1], &[]] {
                assert_ne!(unwrapped(short), *content_key.as_bytes());
            }
        }
    }

    /// What would agree on a key that everybody knows.
    #[test]
    fn keys_of_low_order_are_not_wrapped_to() {
        let mut order_8 = [0; 32];
        order_8.copy_from_slice(&hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"));
        for point in [[0; 32], [1; 1].iter().copied().chain([0; 31]).collect::<Vec<_>>().try_into().unwrap(), order_8] {
            assert!(wrap(&PublicMaterial::X25519(point), &new_key().unwrap()).is_err(), "{point:?}");
        }
    }

    /// A wrap to such a point opens for everybody, or for nobody: here for nobody.
    #[test]
    fn an_encapsulated_key_of_low_order_gives_a_random_key() {
        let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
        let decoys = [0; 2].map(|_| *unwrap(&key.inner.material, &[0; X25519_WRAP_LEN]).unwrap().as_bytes());
        assert_ne!(decoys[0], decoys[1]);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
