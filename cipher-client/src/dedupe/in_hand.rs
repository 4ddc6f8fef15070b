//! Sealings of what a receiver holds and has not acknowledged.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::crypto::Sender;

/// The sealings ([`Opened::uniqueness`](crate::crypto::Opened::uniqueness)) of
/// messages in hand: what comes under another id and with one of these is a copy.
///
/// For receivers that look at a [`DedupeWindow`](super::DedupeWindow) first and
/// note when they acknowledge: between the two the window knows nothing.
#[derive(Debug, Default)]
pub struct SealingsInHand {
    /// How many have it: it is in hand until the last of them is not.
    counts: HashMap<[u8; 32], usize>,
}

impl SealingsInHand {
    /// Whether this is a copy of what is in hand, made by somebody. A signed
    /// message is none: its id and its sender tell it, and what has the same
    /// sealing without its signature must not keep it out.
    pub fn has_copy(&self, sender: &Sender, uniqueness: &[u8; 32]) -> bool {
        !matches!(sender, Sender::Signed(_)) && self.counts.contains_key(uniqueness)
    }

    /// A message with this sealing is in hand now.
    pub fn hold(&mut self, uniqueness: [u8; 32]) {
        *self.counts.entry(uniqueness).or_default() += 1;
    }

    /// One that was held is not any more.
    pub fn let_go(&mut self, uniqueness: [u8; 32]) {
        if let Entry::Occupied(mut held) = self.counts.entry(uniqueness) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Kid;

    const SEALING: [u8; 32] = [7; 32];

    #[test]
    fn a_copy_is_one_until_the_last_holder_lets_go() {
        let mut in_hand = SealingsInHand::default();
        let is_copy = |in_hand: &SealingsInHand| in_hand.has_copy(&Sender::Unsigned, &SEALING);
        assert!(!is_copy(&in_hand));
        in_hand.hold(SEALING);
        in_hand.hold(SEALING);
        in_hand.let_go(SEALING);
        assert!(is_copy(&in_hand) && !in_hand.has_copy(&Sender::Unsigned, &[8; 32]));
        in_hand.let_go(SEALING);
        assert!(!is_copy(&in_hand));
        in_hand.let_go(SEALING);
        assert!(!is_copy(&in_hand), "once too often is nothing");
    }

    #[test]
    fn what_is_signed_is_no_copy_of_what_has_its_sealing() {
        let (mut in_hand, kid) = (SealingsInHand::default(), Kid::from_bytes([1; 32]));
        in_hand.hold(SEALING);
        assert!(in_hand.has_copy(&Sender::Unknown(kid), &SEALING));
        assert!(!in_hand.has_copy(&Sender::Signed(kid), &SEALING));
    }
}
