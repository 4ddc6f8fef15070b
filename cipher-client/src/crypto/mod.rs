//! Sealing and opening of messages (docs/encryption.md is the contract).
//!
//! A [`Sealer`] turns plaintext into an envelope for one recipient or several; an
//! [`Opener`] turns envelopes back. [`seal`] and [`open`] are the one-call
//! forms. There is no way to pass a nonce, a session key or a random source:
//! they are made inside, from the system.
//!
//! What was parsed is not opened: there is no text to be had of an [`Envelope`],
//! nor a key out of anything that holds one.
//!
//! ```compile_fail,E0599
//! # use cipher_client::crypto::Envelope;
//! fn unauthenticated(envelope: Envelope<'_>) -> Vec<u8> {
//!     envelope.plaintext()
//! }
//! ```
//! ```compile_fail,E0616
//! # use cipher_client::crypto::Envelope;
//! fn undecrypted<'a>(envelope: &'a Envelope<'_>) -> &'a str {
//!     &envelope.ciphertext
//! }
//! ```
//! ```compile_fail,E0277
//! # let keys = cipher_client::crypto::Keyset::new(cipher_client::crypto::PrivateKey::generate(2048).unwrap());
//! println!("{keys:?}");
//! ```
//! ```compile_fail,E0599
//! # let keys = cipher_client::crypto::Keyset::new(cipher_client::crypto::PrivateKey::generate(2048).unwrap());
//! let copy = keys.clone();
//! ```
//! ```compile_fail,E0277
//! # let keys = cipher_client::crypto::Keyset::new(cipher_client::crypto::PrivateKey::generate(2048).unwrap());
//! serde_json::to_string(&keys);
//! ```

pub(crate) mod base64;
mod context;
mod envelope;
mod identity;
mod key_files;
mod keys;
mod keyset;
mod kid;
mod message_id;
mod open;
mod opened;
mod parts;
mod passphrase;
pub(crate) mod process;
mod seal;
mod sequence;
mod session;
mod signed;
mod suite;
mod suite2;
mod unwrap;
mod unwrap_cache;

pub use context::{Context, ContextPolicy};
pub use envelope::{ENVELOPE_BYTES_MAX, Envelope};
pub(crate) use identity::SIGNATURE_LEN;
pub use identity::{Identity, SenderKey};
pub use key_files::{
    IDENTITY_FILE, KeyFileOptions, KeyPairPaths, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE, SENDER_KEY_FILE, change_passphrase,
    write_encrypted_key_pair, write_identity, write_key_pair,
};
pub use keys::{KeyKind, PemKind, PrivateKey, PublicKey, RSA_BITS_MAX, RSA_BITS_MIN};
pub use keyset::{KEYSET_KEYS_MAX, Keyset, KeysetEntry};
pub use kid::Kid;
pub use open::{OpenPolicy, Opener, OpenerBuilder, OpenerStats, open};
pub use opened::{Opened, Sender, Sequence, Suite, SuiteSet};
pub use parts::{
    Collected, GivenUp, PART_BYTES_DEFAULT, PART_BYTES_MAX, PARTED_BYTES_MAX, PARTS_MAX, Part, PartCollector,
    PartLimits, PartSealer, RefusedPart, SealedParts, SpooledReader, SpooledText,
};
pub use passphrase::{PASSPHRASE_BYTES_MAX, Passphrase};
pub use seal::{Sealed, Sealer, SealerBuilder, seal};
pub use sequence::Order;
pub use session::{SESSION_BYTES_MAX, SESSION_MESSAGES_MAX, SessionPolicy};
pub use signed::Signing;
pub use suite2::RECIPIENTS_MAX;
pub use suite2::compress::{Compression, EXPANDED_BYTES_MAX, EXPANSION_RATIO_MAX};
pub use suite2::padding::Padding;
pub use suite2::stream::{OpenReader, SealWriter};
