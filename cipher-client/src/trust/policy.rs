//! Who has to sign, and what follows from a signature.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::announcement::millis;
use super::senders::{Admission, NOT_KNOWN, Senders, check_name, untrusted};
use crate::crypto::{Kid, SIGNATURE_LEN, Sender, Suite};
use crate::error::{ErrorKind, Result};

/// What a receiver demands of senders.
///
/// As it is by default, signatures are not looked at.
#[derive(Debug, Clone, Default)]
pub struct SenderPolicy {
    known: Option<Arc<Senders>>,
    required: bool,
    pub(super) source: String,
    pub(super) mixed: bool,
    pub(super) lower_suites: bool,
    max_age: Option<Duration>,
}

/// A signature as it came with a message.
pub(crate) struct Claim<'a> {
    pub(crate) skid: Kid,
    pub(crate) signed: &'a [u8],
    pub(crate) signature: &'a [u8; SIGNATURE_LEN],
}

impl SenderPolicy {
    /// Opens only what a known sender has signed.
    pub fn require_signed(known: Arc<Senders>) -> Self {
        Self { known: Some(known), required: true, ..Self::default() }
    }

    /// Opens what nobody signed as well, and says so
    /// ([`Sender::Unsigned`], [`Sender::Unknown`]); original clients do not sign.
    ///
    /// Once a known sender has signed, an unsigned message is refused: it may be
    /// one of his with the signature taken off, or made up by the broker. That
    /// is remembered by [`source`](Self::source) in the [`Senders`].
    pub fn allow_unsigned(known: Arc<Senders>) -> Self {
        Self { known: Some(known), ..Self::default() }
    }

    /// Names where the messages come from, for what is remembered of it: the
    /// queue that is consumed, say. Not what a delivery says of itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for a name over 255 bytes or with a line break.
    pub fn source(self, source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        check_name(&source)?;
        Ok(Self { source, ..self })
    }

    /// Takes unsigned messages beside signed ones for good, as long as some
    /// senders cannot sign. Whether a message is signed is then the program's to
    /// look at.
    #[must_use]
    pub fn mixed(self) -> Self {
        Self { mixed: true, ..self }
    }

    /// Takes a weaker suite than the sender has used before, as when it had to
    /// go back to an older version.
    #[must_use]
    pub fn allow_lower_suites(self) -> Self {
        Self { lower_suites: true, ..self }
    }

    /// Refuses signed messages that were sealed longer ago than this, by their
    /// signed time, and those from more than ten minutes ahead.
    ///
    /// With a [`DedupeWindow`](crate::dedupe::DedupeWindow) that reaches as far
    /// back, a replay is known or too old, whenever it comes; without an end to
    /// their age, one is taken that comes when the window has forgotten. It has to
    /// be longer than messages wait in queues.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        Self { max_age: Some(age), ..self }
    }

    /// Whether it looks at signatures at all.
    pub(crate) fn looks(&self) -> bool {
        self.known.is_some()
    }

    /// Whether it knows a sender.
    pub(crate) fn knows(&self, kid: &Kid) -> bool {
        self.known.as_ref().is_some_and(|known| known.knows(kid))
    }

    /// Whether to go on with a message: before it is decrypted.
    pub(crate) fn check(&self, claim: Option<Claim<'_>>) -> Result<Sender> {
        let Some(known) = &self.known else { return Ok(Sender::Unsigned) };
        let Some(claim) = claim else { return self.unproven(Sender::Unsigned, "not signed") };
        match known.key(&claim.skid) {
            None => self.unproven(Sender::Unknown(claim.skid), NOT_KNOWN),
            Some(key) if key.verifies(claim.signed, claim.signature) => Ok(Sender::Signed(claim.skid)),
            Some(_) => Err(ErrorKind::Decrypt.into()),
        }
    }

    /// Whether the message is in keeping with what its sender did before: once
    /// it is authenticated.
    pub(crate) fn admit(&self, sender: &Sender, suite: Suite, sent_ms: u64) -> Result<()> {
        self.admit_session(sender, suite, sent_ms, &AtomicU64::new(0))
    }

    /// The same for one of many messages of a sender. `admitted` begins at 0, and
    /// saves looking until something else is known of senders.
    pub(crate) fn admit_session(
        &self,
        sender: &Sender,
        suite: Suite,
        sent_ms: u64,
        admitted: &AtomicU64,
    ) -> Result<()> {
        let (Some(known), Sender::Signed(kid)) = (&self.known, sender) else { return Ok(()) };
        if let Some(max_age) = self.max_age {
            check_age(max_age, sent_ms, millis(SystemTime::now()))?;
        }
        let version = known.version();
        if admitted.load(Ordering::Relaxed) == version {
            return Ok(());
        }
        if known.admit(kid, self, suite, sent_ms)? == Admission::Lasting {
            admitted.store(version, Ordering::Relaxed);
        }
        Ok(())
    }

    fn unproven(&self, sender: Sender, what: &'static str) -> Result<Sender> {
        let is_expected = self.known.as_ref().is_some_and(|known| known.signs(&self.source));
        if self.required {
            return Err(untrusted(what));
        }
        if is_expected && !self.mixed {
            return Err(untrusted("not signed by a known sender, where messages were"));
        }
        Ok(sender)
    }
}

fn check_age(max_age: Duration, sent_ms: u64, now_ms: u64) -> Result<()> {
    if Duration::from_millis(now_ms.saturating_sub(sent_ms)) > max_age {
        return Err(untrusted("sealed longer ago than is taken here"));
    }
    if sent_ms.saturating_sub(now_ms) > CLOCK_AHEAD_MS {
        return Err(untrusted("sealed later than now: somebody's clock is wrong"));
    }
    Ok(())
}

/// How far the clocks of senders may be ahead, where ages count.
const CLOCK_AHEAD_MS: u64 = 10 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::super::senders::SUITE_GRACE_MS;
    use super::*;
    use crate::crypto::Identity;

    const T0: u64 = 1_763_740_000_000;

    fn known() -> (Identity, Arc<Senders>) {
        let (me, senders) = (Identity::generate().unwrap(), Senders::in_memory());
        senders.add("me", me.sender_key().clone()).unwrap();
        (me, Arc::new(senders))
    }

    fn check(policy: &SenderPolicy, me: &Identity, signed: &[u8]) -> Result<Sender> {
        let signature = me.sign(b"text");
        policy.check(Some(Claim { skid: *me.kid(), signed, signature: &signature }))
    }

    fn is_untrusted<T: std::fmt::Debug>(outcome: Result<T>) -> bool {
        matches!(outcome.unwrap_err().kind(), ErrorKind::Untrusted { .. })
    }

    #[test]
    fn who_must_sign_and_who_need_not() {
        let ((me, senders), stranger) = (known(), Identity::generate().unwrap());
        let required = SenderPolicy::require_signed(senders.clone());
        assert_eq!(check(&required, &me, b"text").unwrap(), Sender::Signed(*me.kid()));
        assert_eq!(*check(&required, &me, b"other").unwrap_err().kind(), ErrorKind::Decrypt);
        assert!(is_untrusted(check(&required, &stranger, b"text")));
        assert!(is_untrusted(required.check(None)));
        let allowed = SenderPolicy::allow_unsigned(senders.clone());
        assert_eq!(allowed.check(None).unwrap(), Sender::Unsigned);
        assert_eq!(check(&allowed, &stranger, b"other").unwrap(), Sender::Unknown(*stranger.kid()));
        assert_eq!(*check(&allowed, &me, b"other").unwrap_err().kind(), ErrorKind::Decrypt);
        assert_eq!(check(&SenderPolicy::default(), &me, b"other").unwrap(), Sender::Unsigned);
    }

    #[test]
    fn a_signature_left_off_where_there_was_one_is_refused() {
        let ((me, senders), stranger) = (known(), Identity::generate().unwrap());
        let policy = |source: &str| SenderPolicy::allow_unsigned(senders.clone()).source(source).unwrap();
        let orders = policy("orders");
        orders.admit(&Sender::Unsigned, Suite::One, T0).unwrap();
        assert!(orders.check(None).is_ok(), "nobody has signed yet");
        orders.admit(&Sender::Signed(*me.kid()), Suite::One, T0).unwrap();
        assert!(is_untrusted(orders.check(None)));
        assert!(is_untrusted(check(&orders, &stranger, b"text")), "nor does any signature do");
        assert!(policy("refunds").check(None).is_ok(), "of another source");
        assert!(policy("orders").mixed().check(None).is_ok());
        senders.forget_source("orders").unwrap();
        assert!(orders.check(None).is_ok());
        policy("orders").mixed().admit(&Sender::Signed(*me.kid()), Suite::One, T0).unwrap();
        assert!(orders.check(None).is_ok(), "mixed is not remembered");
    }

    #[test]
    fn a_weaker_suite_than_before_is_refused_by_the_time_it_was_sealed() {
        let (me, senders) = known();
        let policy = SenderPolicy::require_signed(senders.clone());
        let admit = |suite, sent_ms| policy.admit(&Sender::Signed(*me.kid()), suite, sent_ms);
        admit(Suite::TwoRsa, T0).unwrap();
        admit(Suite::TwoXWing, T0 + 5).unwrap();
        admit(Suite::TwoRsa, T0 + 1).unwrap();
        admit(Suite::One, T0 + SUITE_GRACE_MS).unwrap();
        assert!(is_untrusted(admit(Suite::TwoX25519, T0 + 6 + SUITE_GRACE_MS)));
        admit(Suite::TwoXWing, T0 + 6 + SUITE_GRACE_MS).unwrap();
        let tolerant = SenderPolicy::require_signed(senders.clone()).allow_lower_suites();
        tolerant.admit(&Sender::Signed(*me.kid()), Suite::One, T0 * 2).unwrap();
    }

    #[test]
    fn a_message_is_taken_until_it_is_too_old() {
        let age = Duration::from_secs(60);
        let is_taken = |sent_ms| check_age(age, sent_ms, T0).is_ok();
        let ages = [0, T0 - 60_001, T0 - 60_000, T0, T0 + CLOCK_AHEAD_MS, T0 + CLOCK_AHEAD_MS + 1, u64::MAX];
        assert_eq!(ages.map(is_taken), [false, false, true, true, true, false, false]);

        let (me, senders) = known();
        let admit = |policy: SenderPolicy| policy.admit(&Sender::Signed(*me.kid()), Suite::One, T0);
        let policy = SenderPolicy::require_signed(senders.clone());
        assert!(is_untrusted(admit(policy.clone().max_age(age))), "of another year");
        assert!(!senders.signs(""), "and taught nothing");
        admit(policy).unwrap();
        let unsigned = SenderPolicy::allow_unsigned(senders).max_age(age);
        unsigned.admit(&Sender::Unsigned, Suite::One, T0).unwrap();
    }

    #[test]
    fn an_announced_suite_counts_before_any_message() {
        let (me, senders) = known();
        let since = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(T0);
        senders.expect_suite(me.kid(), Suite::TwoXWing, since).unwrap();
        let policy = SenderPolicy::require_signed(senders);
        assert!(is_untrusted(policy.admit(&Sender::Signed(*me.kid()), Suite::One, T0 + SUITE_GRACE_MS + 1)));
    }

    #[test]
    fn a_sender_that_was_removed_is_not_believed() {
        let (me, senders) = known();
        let policy = SenderPolicy::require_signed(senders.clone());
        senders.remove(me.kid()).unwrap();
        assert!(is_untrusted(check(&policy, &me, b"text")));
        assert!(is_untrusted(policy.admit(&Sender::Signed(*me.kid()), Suite::One, T0)));
    }
}
