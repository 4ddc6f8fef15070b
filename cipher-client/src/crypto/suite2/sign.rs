//! What a sender's signature covers.
//!
//! With one recipient, the session key, its time and who made it, once a session:
//! nobody but the two of them can seal under it, and one that gets out later is
//! good for messages of its time only. With several, every message: each
//! recipient knows the key, and could seal in the sender's name for the others.
//! The sender's kid is in the header as well, so a signature cannot be taken off
//! and replaced by another's: the payload would not open.

use sha2::{Digest, Sha512};

use super::header::{Bounds, suite_byte};
use crate::crypto::kid::Kid;
use crate::crypto::opened::Suite;

/// Bytes of an Ed25519 signature.
pub(super) const SIGNATURE_LEN: usize = 64;

const SESSION_DOMAIN: &[u8] = b"cipher/2 session\0";
const MESSAGE_DOMAIN: &[u8] = b"cipher/2 message\0";

/// For one recipient: session and its time, sender, recipient and the wrapped key.
pub(super) fn session_bytes(
    suite: Suite,
    session: &[u8; 16],
    bounds: Bounds,
    sender: &Kid,
    recipient: &[u8; Kid::LEN],
    wrap: &[u8],
) -> Vec<u8> {
    let suite = [suite_byte(suite)];
    [SESSION_DOMAIN, &suite, session, &bounds.to_bytes(), sender.as_bytes(), recipient, &Sha512::digest(wrap)].concat()
}

/// For several: the header with everything in it, every wrap, the payload.
pub(super) fn message_bytes(header: &[u8], wraps: &WrapsDigest, payload: [u8; 64]) -> Vec<u8> {
    [MESSAGE_DOMAIN, &Sha512::digest(header)[..], &wraps.0, &payload].concat()
}

/// The wraps of a message, each behind its length.
pub(super) struct WrapsDigest([u8; 64]);

impl WrapsDigest {
    pub(super) fn new<'a>(wraps: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Sha512::new();
        for wrap in wraps {
            digest.update((wrap.len() as u32).to_be_bytes());
            digest.update(wrap);
        }
        Self(digest.finalize().into())
    }
}
