//! Suite 2: HPKE or RSA-OAEP-SHA256 round a content key for each recipient, a
//! payload that commits to its key and to a header, in chunks.
//!
//! docs/encryption.md has the byte map. Nothing here takes a nonce, a key or a
//! random source from a caller of the library.

pub(super) mod compress;
mod file;
pub(super) mod header;
pub(super) mod open;
pub(super) mod padding;
pub(super) mod payload;
pub(super) mod seal;
pub(super) mod sign;
pub(super) mod source;
pub(super) mod stream;
pub(super) mod text;
pub(super) mod wrap;

/// Most recipients of one message.
pub const RECIPIENTS_MAX: usize = 64;

/// Keeps the keys of this use apart from those of every other: the `info` of
/// HPKE, the label of OAEP.
const DOMAIN: &[u8] = b"cipher/2";
