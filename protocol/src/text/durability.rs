//! What `durability=` can be.

use std::fmt;

use super::fields::decimal;
use crate::limits::DURABILITY_INTERVAL_MS_MAX;

/// What the broker's `ACK` of a message waits for: `durability=` of `declare_queue`, `--durability` of the broker.
///
/// ```
/// # use ciphermq_protocol::Durability;
/// assert_eq!(Durability::parse("interval:50")?, Durability::Interval { ms: 50 });
/// assert_eq!(Durability::Interval { ms: 50 }.to_string(), "interval:50");
/// assert!(Durability::parse("interval:0").is_err());
/// # Ok::<(), ciphermq_protocol::BadDurability>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `sync`: it is on disk.
    Sync,
    /// `interval:<ms>`: it is written, and on disk at most so many milliseconds later.
    Interval {
        /// Milliseconds, 1 to [`DURABILITY_INTERVAL_MS_MAX`].
        ms: u32,
    },
    /// `none`: it is written; the system puts it on disk when it likes.
    None,
}

impl Durability {
    /// Reads one of `sync`, `interval:<ms>`, `none`.
    ///
    /// # Errors
    /// [`BadDurability`] for anything else.
    pub fn parse(text: &str) -> Result<Self, BadDurability> {
        match text {
            "sync" => Ok(Self::Sync),
            "none" => Ok(Self::None),
            _ => {
                let ms = text.strip_prefix("interval:").and_then(decimal).and_then(|ms| u32::try_from(ms).ok());
                let ms = ms.filter(|ms| (1..=DURABILITY_INTERVAL_MS_MAX).contains(ms));
                ms.map(|ms| Self::Interval { ms }).ok_or(BadDurability)
            }
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync => f.write_str("sync"),
            Self::Interval { ms } => write!(f, "interval:{ms}"),
            Self::None => f.write_str("none"),
        }
    }
}

/// The text is no durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{EXPECTED}")]
pub struct BadDurability;

/// What is expected, for errors.
pub(crate) const EXPECTED: &str = "sync, none, or interval:<ms> with 1 to 60000 ms";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_is_taken() {
        for durability in [
            Durability::Sync,
            Durability::None,
            Durability::Interval { ms: 1 },
            Durability::Interval { ms: DURABILITY_INTERVAL_MS_MAX },
        ] {
            assert_eq!(Durability::parse(&durability.to_string()), Ok(durability));
        }
        for bad in ["", "Sync", "sync ", "interval", "interval:", "interval:0", "interval:60001", "interval:+5"] {
            assert_eq!(Durability::parse(bad), Err(BadDurability), "{bad}");
        }
        assert!(EXPECTED.contains(&DURABILITY_INTERVAL_MS_MAX.to_string()));
    }
}
