//! Sealing and opening of messages (docs/encryption.md is the contract).
//!
//! A [`Sealer`] turns plaintext into an envelope for one recipient; an
//! [`Opener`] turns envelopes back. [`seal`] and [`open`] are the one-call
//! forms. There is no way to pass a nonce, a session key or a random source:
//! they are made inside, from the system.

pub(crate) mod base64;
mod envelope;
mod identity;
mod key_files;
mod keys;
mod keyset;
mod kid;
mod message_id;
mod open;
mod opened;
mod passphrase;
mod process;
mod seal;
mod suite;
mod unwrap_cache;

pub use envelope::{ENVELOPE_BYTES_MAX, Envelope};
pub(crate) use identity::SIGNATURE_LEN;
pub use identity::{Identity, SenderKey};
pub use key_files::{
    KeyFileOptions, KeyPairPaths, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE, change_passphrase, write_encrypted_key_pair,
    write_key_pair,
};
pub use keys::{KeyKind, PemKind, PrivateKey, PublicKey, RSA_BITS_MAX, RSA_BITS_MIN};
pub use keyset::{KEYSET_KEYS_MAX, Keyset, KeysetEntry};
pub use kid::Kid;
pub use open::{OpenPolicy, Opened, Opener, OpenerStats, open};
pub use opened::{Sender, Sequence, Suite, SuiteSet};
pub use passphrase::{PASSPHRASE_BYTES_MAX, Passphrase};
pub use seal::{SESSION_BYTES_MAX, SESSION_MESSAGES_MAX, Sealed, Sealer, SessionPolicy, seal};
