//! What must hold for any bytes that reach the client: envelopes, files, announcements.
//!
//! The fuzz targets call these functions, and `cipher-client/tests/fuzzed.rs` runs them over seeded inputs and the
//! committed corpora, so that they are ordinary tests too. Only the public API is used, as a program would.
//!
//! An input is not what is parsed. It is a list of changes to something that is good: so most inputs get past the first
//! check, and what an input does can be told from its bytes.
//!
//! Each function panics if its promise is broken, and does nothing else.

mod edits;
mod envelopes;
mod insider;
mod keys;
mod pins;
mod seen;

pub use envelopes::envelopes;
pub use insider::insider;
pub use keys::keys;
pub use pins::{announced, pins};
pub use seen::seen;
