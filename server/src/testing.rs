//! What tests of several modules need.

use ciphermq_protocol::{Announcement, Name};
use ed25519_dalek::{Signer, SigningKey};

/// What `signed` signs.
pub(crate) fn content<'a>(
    identity: &'a [u8; 32],
    client: &'a str,
    seq: u64,
    successor: Option<&'a [u8; 32]>,
) -> Announcement<'a> {
    Announcement {
        client_id: Name::parse(client).unwrap(),
        seq,
        identity,
        successor,
        prev: &[0; 32],
        key: b"a public key",
        not_before_ms: 0,
        not_after_ms: u64::MAX,
    }
}

/// The bytes of an announcement by `identity`.
pub(crate) fn signed(identity: &SigningKey, client: &str, seq: u64, successor: Option<&SigningKey>) -> Vec<u8> {
    let successor = successor.map(|key| key.verifying_key().to_bytes());
    let by = identity.verifying_key().to_bytes();
    let mut bytes = content(&by, client, seq, successor.as_ref()).signed_bytes().unwrap();
    let signature = identity.sign(&bytes);
    bytes.extend(signature.to_bytes());
    bytes
}
