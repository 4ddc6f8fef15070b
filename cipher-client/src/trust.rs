//! Whose keys these are: what to believe of what a directory says.
//!
//! A broker keeps announcements of keys, and vouches for none. Here is decided
//! what follows from them:
//!
//! - A [`Recipient`] says whether anybody vouched for a key; only a trusted one
//!   can be sealed to.
//! - An [`Announcement`] is signed by the [`Identity`](crate::crypto::Identity) of
//!   who announces, and refers to the one before.
//! - [`Pins`] remember the identity behind a name, and what it announced last. A
//!   key that it did not sign is [`KeyChanged`](crate::ErrorKind::KeyChanged).
//! - [`Senders`] are those a receiver knows, with [`SenderPolicy`] for the rest.

mod announcement;
mod pins;
mod policy;
mod recipient;
mod senders;
mod store;

pub use announcement::{Announcement, AnnouncementBuilder};
pub use pins::{Pin, PinMode, Pins};
pub(crate) use policy::Claim;
pub use policy::SenderPolicy;
pub use recipient::{Recipient, Trusted, Unverified};
pub use senders::Senders;
