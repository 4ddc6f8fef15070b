//! The classes of envelopes whose opening is timed.

use cipher_client::crypto::Suite;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::Failure;

/// What is wrong with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing.
    Valid,
    /// Nothing, made apart from the others: no difference may be found. A control.
    ValidAgain,
    /// The tag, and the measurement adds an early return that this class alone does not take: the leak that is looked for, made
    /// on purpose. A control.
    Planted,
    /// The tag, and its opening is made slower by the measurement: a difference must be found. A control.
    Slowed,
    /// A random wrap: what a block of RSA decrypts to is no OAEP, and does not start with the byte 0.
    Block,
    /// OAEP with a wrong label: the byte 0, then a wrong hash. Telling it from [`Class::Block`] is Manger's attack.
    Label,
    /// OAEP with the hash of the other suite.
    Hash,
    /// Good OAEP round something that is no session key.
    Length,
    /// The last byte of a wrap by HPKE.
    WrapTag,
    /// The first byte of the commitment to the content key.
    CommitFirst,
    CommitLast,
    /// The salt of the payload.
    Salt,
    /// A byte of the header.
    Header,
    /// The first byte of the tag.
    TagFirst,
    /// The last byte of the tag.
    TagLast,
    Nonce,
    Ciphertext,
    /// Wrapped for somebody else with a key of the same size.
    Recipient,
    /// A block that is no number below the modulus. Anybody who has the public key can see that.
    Range,
}

const FIRST: [Class; 14] = [
    Class::Valid,
    Class::ValidAgain,
    Class::Planted,
    Class::Slowed,
    Class::Block,
    Class::Label,
    Class::Hash,
    Class::Length,
    Class::TagFirst,
    Class::TagLast,
    Class::Nonce,
    Class::Ciphertext,
    Class::Recipient,
    Class::Range,
];

const SECOND_RSA: [Class; 17] = [
    Class::Valid,
    Class::ValidAgain,
    Class::Planted,
    Class::Slowed,
    Class::Block,
    Class::Label,
    Class::Hash,
    Class::Length,
    Class::Recipient,
    Class::CommitFirst,
    Class::CommitLast,
    Class::Salt,
    Class::Header,
    Class::TagFirst,
    Class::TagLast,
    Class::Ciphertext,
    Class::Range,
];

const SECOND_HPKE: [Class; 14] = [
    Class::Valid,
    Class::ValidAgain,
    Class::Planted,
    Class::Slowed,
    Class::Block,
    Class::WrapTag,
    Class::Recipient,
    Class::CommitFirst,
    Class::CommitLast,
    Class::Salt,
    Class::Header,
    Class::TagFirst,
    Class::TagLast,
    Class::Ciphertext,
];

/// Failures that must look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The key that was unwrapped, good or not, is not that of the payload.
    Key,
    /// HPKE says that the wrap is no good. Whoever made it knows.
    Wrap,
    /// The key is right, the text is not.
    Text,
}

impl Class {
    pub(crate) fn of(suite: Suite) -> &'static [Class] {
        match suite {
            Suite::One => &FIRST,
            Suite::TwoRsa => &SECOND_RSA,
            _ => &SECOND_HPKE,
        }
    }

    /// With which others it must not be told apart; `None` for controls, and for what is only shown.
    pub(crate) fn group(self, suite: Suite) -> Option<Group> {
        let is_hpke = matches!(suite, Suite::TwoX25519 | Suite::TwoXWing);
        match self {
            Class::Valid | Class::ValidAgain | Class::Planted | Class::Slowed | Class::Range => None,
            Class::Block | Class::WrapTag | Class::Recipient if is_hpke => Some(Group::Wrap),
            Class::TagFirst | Class::TagLast | Class::Ciphertext if suite != Suite::One => Some(Group::Text),
            _ => Some(Group::Key),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Valid => "valid",
            Class::ValidAgain => "valid again (control)",
            Class::Planted => "planted (control)",
            Class::Slowed => "slowed (control)",
            Class::Block => "bad block",
            Class::Label => "label inside",
            Class::Hash => "other hash inside",
            Class::Length => "session key length",
            Class::WrapTag => "wrap, last byte",
            Class::CommitFirst => "commitment, first byte",
            Class::CommitLast => "commitment, last byte",
            Class::Salt => "salt",
            Class::Header => "header",
            Class::TagFirst => "tag, first byte",
            Class::TagLast => "tag, last byte",
            Class::Nonce => "nonce",
            Class::Ciphertext => "ciphertext",
            Class::Recipient => "another recipient",
            Class::Range => "block over modulus",
        }
    }
}

/// Makes envelopes for one key.
pub(crate) trait Make {
    fn make(&mut self, class: Class) -> Result<String, Failure>;
}

/// Bytes of text in each envelope. Little, so that the time of a whole opening is not that of AES.
pub(crate) const TEXT_BYTES: usize = 64;

/// One changed bit.
pub(crate) fn mask(random: &mut StdRng) -> u8 {
    1 << random.random_range(0..8)
}
