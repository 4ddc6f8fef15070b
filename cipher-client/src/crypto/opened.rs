//! What an opening gives.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use super::context::Context;
use super::kid::Kid;
use super::parts::Part;
use super::sequence::Order;
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

/// The place of a message among those of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence {
    /// The stream: one for each sealer and process.
    pub session: [u8; 16],
    /// 0 for the first message of the stream. It goes on over session keys.
    pub number: u64,
}

/// An opened message. Shown without its text: logs are read by others than
/// messages are.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The id in the envelope. Suite 1 without a signature does not authenticate
    /// it: whoever carries the envelope can change it.
    pub message_id: String,
    /// What was sealed.
    pub plaintext: Vec<u8>,
    /// Which no two sealings share: tells a repetition even under another id.
    /// In suite 1 nonce and tag (a 12-byte nonce is followed by four zeros), in
    /// suite 2 the commitment.
    pub uniqueness: [u8; 32],
    /// How it was protected.
    pub suite: Suite,
    /// Who sealed it.
    pub sender: Sender,
    /// What its sender bound to it; `None` if nothing.
    pub context: Option<Context>,
    /// When it was sealed, by its sender's clock.
    pub sent_at: Option<SystemTime>,
    /// Its place among its sender's messages.
    pub sequence: Option<Sequence>,
    /// What that place says, if a known sender signed it.
    pub order: Order,
    /// Which part of a larger message it is, see [`super::PartCollector`].
    pub part: Option<Part>,
    /// The session key it came under, by a name that does not tell it.
    pub(super) origin: [u8; 32],
}

impl Opened {
    /// All but the text.
    pub(super) fn without_text(&self) -> Self {
        let (message_id, context) = (self.message_id.clone(), self.context.clone());
        Self { message_id, plaintext: Vec::new(), context, ..*self }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("message_id", &self.message_id)
            .field("bytes", &self.plaintext.len())
            .field("suite", &self.suite)
            .field("sender", &self.sender)
            .field("context", &self.context)
            .field("sent_at", &self.sent_at)
            .field("sequence", &self.sequence)
            .field("order", &self.order)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
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

    #[test]
    fn an_opened_message_is_shown_without_its_text() {
        let opened = Opened {
            message_id: "m-1".into(),
            plaintext: b"marker-secret".to_vec(),
            uniqueness: [0; 32],
            suite: Suite::TwoXWing,
            sender: Sender::Unsigned,
            context: None,
            sent_at: None,
            sequence: None,
            order: Order::Untracked,
            part: None,
            origin: [0; 32],
        };
        let shown = format!("{opened:?}");
        let as_numbers = format!("{:?}", b"marker-secret");
        assert!(shown.contains("m-1") && shown.contains("bytes: 13"));
        assert!(!shown.contains("marker-secret") && !shown.contains(&as_numbers));
    }
}
