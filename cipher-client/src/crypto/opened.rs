//! What an opening gives.

use std::fmt;
use std::str::FromStr;

use super::kid::Kid;
use crate::error::{Error, ErrorKind, Result};

/// How a message is protected. The kind of the recipient's key selects it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// `1`: RSA-OAEP with SHA-1 and AES-128-GCM, as the original clients.
    One,
    /// `2r`: suite 2 with RSA-OAEP and SHA-256, for RSA keys that ask for it.
    TwoRsa,
    /// `2x`: suite 2 with HPKE over X25519.
    TwoX25519,
    /// `2pq`: suite 2 with HPKE over X-Wing (X25519 and ML-KEM-768).
    TwoXWing,
}

impl Suite {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::TwoRsa => "2r",
            Self::TwoX25519 => "2x",
            Self::TwoXWing => "2pq",
        }
    }
}

impl Suite {
    /// The suite of this name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    pub(super) const ALL: [Self; 4] = [Self::One, Self::TwoRsa, Self::TwoX25519, Self::TwoXWing];
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::from_name(name).ok_or(Error::new(ErrorKind::Unsupported { what: "an unknown suite" }))
    }
}

/// Which suites a receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SuiteSet(u8);

impl SuiteSet {
    /// Every suite that there are keys for: the default.
    pub const ALL: Self = Self(0b1111);

    /// These and no others.
    pub fn of(suites: impl IntoIterator<Item = Suite>) -> Self {
        Self(suites.into_iter().fold(0, |set, suite| set | 1 << suite as u8))
    }

    /// Whether `suite` is one of them.
    pub fn contains(self, suite: Suite) -> bool {
        self.0 & 1 << suite as u8 != 0
    }
}

impl Default for SuiteSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who sealed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// Nobody said so: anyone with the public key can have.
    Unsigned,
    /// Signed with an identity that is not known here: as good as not signed.
    Unknown(Kid),
    /// The holder of the identity of this name: its signature was checked.
    Signed(Kid),
}

/// The place of a message among those of its sender's session. A number that is
/// left out means a message that did not come, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence {
    /// The session, new with every session key.
    pub session: [u8; 16],
    /// 0 for the first message of the session.
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_ordered_by_strength_and_have_one_name_each() {
        assert!(Suite::ALL.is_sorted());
        for suite in Suite::ALL {
            assert_eq!(suite.to_string().parse::<Suite>().unwrap(), suite);
            assert!(SuiteSet::ALL.contains(suite));
            let others = SuiteSet::of(Suite::ALL.into_iter().filter(|other| *other != suite));
            assert!(!others.contains(suite) && others != SuiteSet::ALL);
        }
        assert!("2".parse::<Suite>().is_err());
    }
}
