//! Opening: the costly unwrap once a session key, and one answer for every failure.

mod first;

use std::io::{Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::context::{Context, ContextPolicy, Places};
use super::envelope::Envelope;
use super::keys::{PrivateInner, PrivateKey};
use super::keyset::Keyset;
use super::opened::{Opened, Sender, SuiteSet};
use super::process::{Moment, PerProcess};
use super::sequence::{Order, Sequences};
use super::suite2::open::{self as second, Opening};
use super::suite2::source::{self, Source};
use super::suite2::stream::OpenReader;
use super::unwrap::Unwrapper;
use crate::error::{Error, ErrorKind, Result};
use crate::trust::SenderPolicy;

/// Opens an envelope sealed to `key`. Calls with the same key share an
/// [`Opener`] with [`OpenPolicy::default`].
///
/// # Errors
///
/// As [`Opener::open`].
pub fn open(envelope: &str, key: &PrivateKey) -> Result<Opened> {
    match &key.opener {
        Some(opener) => opener.open(envelope),
        // Tells why there is none.
        None => Opener::new(key, OpenPolicy::default())?.open(envelope),
    }
}

/// The bounds of an [`Opener`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenPolicy {
    /// Unwrapped session keys kept; the one unused longest goes first. 1,024.
    pub cached_keys: usize,
    /// How long one is kept after its unwrapping. 10 minutes.
    pub cached_for: Duration,
    /// Openings that may fail after an unwrap before further unwraps are
    /// refused with [`ErrorKind::Throttled`]. 64.
    pub failures: u32,
    /// Time in which one of the `failures` is forgiven. 1 second.
    pub failure_forgiven_after: Duration,
}

impl Default for OpenPolicy {
    fn default() -> Self {
        Self {
            cached_keys: 1024,
            cached_for: Duration::from_secs(600),
            failures: 64,
            failure_forgiven_after: Duration::from_secs(1),
        }
    }
}

impl OpenPolicy {
    fn check(self) -> Result<()> {
        if !(1..=CACHED_KEYS_MAX).contains(&self.cached_keys) {
            let reason = "1 to 65536";
            return Err(ErrorKind::Option { option: "cached_keys", reason }.into());
        }
        if self.failures == 0 {
            let reason = "at least 1";
            return Err(ErrorKind::Option { option: "failures", reason }.into());
        }
        Ok(())
    }
}

/// Largest `cached_keys`: a kept key takes about 2 KiB.
const CACHED_KEYS_MAX: usize = 1 << 16;

/// What an [`Opener`] has done so far.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenerStats {
    /// Messages opened.
    pub opened: u64,
    /// Messages that did not open.
    pub failed: u64,
    /// Messages refused as [`ErrorKind::Throttled`].
    pub throttled: u64,
    /// Session keys unwrapped, the costly step.
    pub unwraps: u64,
    /// Signed messages that were left out, by their numbers ([`Order::Gap`]).
    pub missing: u64,
    /// Those that came after all ([`Order::Late`]).
    pub late: u64,
    /// Signed messages that came again ([`Order::Repeat`]).
    pub repeated: u64,
}

/// Opens messages with one or several private keys. To be kept and shared
/// between threads. It holds keys, so it cannot be copied or shown:
///
/// ```compile_fail,E0599
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap();
/// # let opener = cipher_client::crypto::Opener::new(&key, Default::default()).unwrap();
/// let copy = opener.clone();
/// ```
/// ```compile_fail,E0277
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap();
/// # let opener = cipher_client::crypto::Opener::new(&key, Default::default()).unwrap();
/// println!("{opener:?}");
/// ```
pub struct Opener {
    keys: Vec<Arc<PrivateInner>>,
    unwrapper: Unwrapper,
    senders: SenderPolicy,
    suites: SuiteSet,
    expected: ContextPolicy,
    places: Option<Places>,
    sequences: PerProcess<Sequences>,
    opened: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    missing: AtomicU64,
    late: AtomicU64,
    repeated: AtomicU64,
}

/// What an [`Opener`] can be told beside its keys.
///
/// ```
/// use cipher_client::crypto::{ContextPolicy, KeyKind, Keyset, Opener, PrivateKey, Suite, SuiteSet};
///
/// let keys = Keyset::new(PrivateKey::generate_kind(KeyKind::XWing)?);
/// let opener = Opener::builder(&keys)
///     .suites(SuiteSet::of([Suite::TwoXWing]))
///     .expect(ContextPolicy::Strict)
///     .build()?;
/// # Ok::<(), cipher_client::Error>(())
/// ```
#[must_use = "an opener comes from `build`"]
pub struct OpenerBuilder<'a> {
    keys: Vec<&'a PrivateKey>,
    policy: OpenPolicy,
    senders: SenderPolicy,
    suites: SuiteSet,
    expected: ContextPolicy,
    places: Option<Places>,
}

impl OpenerBuilder<'_> {
    /// Bounds other than [`OpenPolicy::default`].
    pub fn policy(self, policy: OpenPolicy) -> Self {
        Self { policy, ..self }
    }

    /// What is demanded of senders: nothing, unless said.
    pub fn senders(self, senders: SenderPolicy) -> Self {
        Self { senders, ..self }
    }

    /// Which suites are taken: all, unless said.
    pub fn suites(self, suites: SuiteSet) -> Self {
        Self { suites, ..self }
    }

    /// What becomes of a message out of its context, in [`Opener::open_for`]:
    /// it is refused, unless said.
    pub fn expect(self, expected: ContextPolicy) -> Self {
        Self { expected, ..self }
    }

    /// Takes only messages that their senders bound to one of these exchanges
    /// and routing keys. What is bound to another, or to nothing, is refused with
    /// [`ErrorKind::Misdirected`], by every call and whatever
    /// [`expect`](Self::expect) says.
    ///
    /// A broker that re-routes a message can say on delivery what it likes; this
    /// is what the receiver knows itself. Who bound it is for
    /// [`senders`](Self::senders) to say.
    pub fn only_for(self, places: impl IntoIterator<Item = Context>) -> Self {
        Self { places: Some(Places::new(places)), ..self }
    }

    /// The opener.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`], [`ErrorKind::Option`].
    pub fn build(self) -> Result<Opener> {
        self.policy.check()?;
        if !(1..=KEYS_MAX).contains(&self.keys.len()) {
            return Err(ErrorKind::Option { option: "keys", reason: "1 to 16" }.into());
        }
        self.keys.iter().try_for_each(|key| key.check_size())?;
        let is_repeated = |(place, key): (usize, &&PrivateKey)| {
            self.keys[..place].iter().any(|other| other.fingerprint() == key.fingerprint())
        };
        if self.keys.iter().enumerate().any(is_repeated) {
            return Err(ErrorKind::Option { option: "keys", reason: "no key twice" }.into());
        }
        Ok(self.build_at(Moment::current()))
    }

    fn build_at(self, moment: Moment) -> Opener {
        Opener {
            keys: self.keys.iter().map(|key| Arc::clone(&key.inner)).collect(),
            unwrapper: Unwrapper::new(self.policy, moment),
            senders: self.senders,
            suites: self.suites,
            expected: self.expected,
            places: self.places,
            sequences: PerProcess::new(moment.pid, Sequences::default()),
            opened: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            late: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        }
    }
}

impl Opener {
    /// An opener with one key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`], [`ErrorKind::Option`].
    pub fn new(key: &PrivateKey, policy: OpenPolicy) -> Result<Self> {
        Self::with_keys(&[key], policy)
    }

    /// An opener with several keys: the way to change keys while messages to the
    /// old one are still queued. A message of suite 2 names its key; for one of
    /// suite 1 those of its size are tried in their order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`], [`ErrorKind::Option`], also for no key or
    /// more than 16.
    pub fn with_keys(keys: &[&PrivateKey], policy: OpenPolicy) -> Result<Self> {
        Self::of(keys.to_vec()).policy(policy).build()
    }

    /// An opener with the keys of a keyset, and with policies of its own.
    pub fn builder(keys: &Keyset) -> OpenerBuilder<'_> {
        Self::of(keys.keys().collect())
    }

    fn of(keys: Vec<&PrivateKey>) -> OpenerBuilder<'_> {
        OpenerBuilder {
            keys,
            policy: OpenPolicy::default(),
            senders: SenderPolicy::default(),
            suites: SuiteSet::default(),
            expected: ContextPolicy::default(),
            places: None,
        }
    }

    /// Opens an envelope.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TooLarge`], [`ErrorKind::Malformed`], [`ErrorKind::Unsupported`]:
    ///   told from the text alone, no key was touched.
    /// - [`ErrorKind::Decrypt`]: every failure that has to do with a key, alike.
    /// - [`ErrorKind::Throttled`]: not tried, because of the failures of others.
    /// - [`ErrorKind::Untrusted`]: not from where the [`SenderPolicy`] wants it.
    /// - [`ErrorKind::Misdirected`]: not for where [`OpenerBuilder::only_for`] wants it.
    pub fn open(&self, envelope: &str) -> Result<Opened> {
        self.open_at(envelope, None, Moment::current())
    }

    /// Opens an envelope that was delivered with this exchange and routing key,
    /// and compares them with those that its sender bound to it.
    ///
    /// # Errors
    ///
    /// As [`Opener::open`], and [`ErrorKind::Misdirected`] by [`ContextPolicy`].
    pub fn open_for(&self, envelope: &str, delivered: &Context) -> Result<Opened> {
        self.open_at(envelope, Some(delivered), Moment::current())
    }

    /// Opens an envelope of suite 2 a piece at a time: the text is not in memory
    /// as a whole, nor is the envelope a second time. Who sealed it is checked
    /// before this returns.
    ///
    /// What is read is authentic as far as it goes; that it is whole is known
    /// when reading has come to its end without an error.
    ///
    /// # Errors
    ///
    /// As [`Opener::open`]; [`ErrorKind::Unsupported`] for suite 1, whose text
    /// is authenticated as a whole.
    pub fn open_reader<'a>(&'a self, envelope: &'a str) -> Result<OpenReader<'a>> {
        let envelope = Envelope::parse(envelope)?;
        self.read(&envelope, Source::Text(envelope.ciphertext_text()), None)
    }

    /// The same for an envelope that was delivered with this exchange and routing
    /// key, as [`Opener::open_for`].
    ///
    /// # Errors
    ///
    /// As [`Opener::open_reader`], and [`ErrorKind::Misdirected`] by [`ContextPolicy`].
    pub fn open_reader_for<'a>(&'a self, envelope: &'a str, delivered: &Context) -> Result<OpenReader<'a>> {
        let envelope = Envelope::parse(envelope)?;
        self.read(&envelope, Source::Text(envelope.ciphertext_text()), Some(delivered))
    }

    /// Opens an envelope in a file: neither the text nor the envelope is in
    /// memory as a whole. It is read twice if its sender signed it for several
    /// recipients. `delivered` is compared as by [`Opener::open_for`].
    ///
    /// # Errors
    ///
    /// As [`Opener::open_reader_for`]; [`ErrorKind::Malformed`] for an envelope
    /// with its members in another order than a sealer writes them, or with
    /// spaces between them; [`ErrorKind::Stream`] with the fault of the file.
    pub fn open_stream<'a>(
        &'a self,
        envelope: impl Read + Seek + Send + 'a,
        delivered: Option<&Context>,
    ) -> Result<OpenReader<'a>> {
        let (frame, source) = source::split(envelope)?;
        self.read(&Envelope::parse(&frame)?, source, delivered)
    }

    fn read<'a>(
        &'a self,
        envelope: &Envelope<'_>,
        source: Source<'a>,
        delivered: Option<&Context>,
    ) -> Result<OpenReader<'a>> {
        let second =
            envelope.second().ok_or(ErrorKind::Unsupported { what: "suite 1, which is not opened in pieces" })?;
        let hdr = second::header_bytes(second)?;
        let reader = OpenReader::new(self, &self.opening(Moment::current()), envelope, second, &hdr, source);
        let reader = reader.inspect_err(|error| self.count_failure(error))?;
        self.check_place(reader.message())?;
        if let Some(delivered) = delivered {
            let message = reader.message();
            self.expected.check(message.context.as_ref(), delivered, &message.message_id)?;
        }
        Ok(reader)
    }

    /// A reader has come to the end of its message, or to where it does not open.
    pub(super) fn was_read(&self, opened: &mut Opened, is_whole: bool) {
        match is_whole {
            true => {
                self.opened.fetch_add(1, Ordering::Relaxed);
                self.place(opened, Moment::current());
            }
            false => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Notes the place of a message that a [`PartCollector`](super::PartCollector)
    /// has put together, and sets its [`order`](Opened::order). Its parts have no
    /// places of their own.
    pub fn note_whole(&self, message: &mut Opened) {
        self.place(message, Moment::current());
    }

    /// Forgets every session key.
    pub fn forget(&self) {
        self.unwrapper.forget();
    }

    /// Counts since the start.
    pub fn stats(&self) -> OpenerStats {
        OpenerStats {
            opened: self.opened.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            throttled: self.throttled.load(Ordering::Relaxed),
            unwraps: self.unwrapper.unwraps(),
            missing: self.missing.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
        }
    }

    fn open_at(&self, envelope: &str, delivered: Option<&Context>, moment: Moment) -> Result<Opened> {
        let envelope = Envelope::parse(envelope)?;
        let mut outcome = match envelope.second() {
            Some(second) => {
                let hdr = second::header_bytes(second)?;
                self.opening(moment).open(&envelope, second, &hdr)
            }
            None => {
                let parts = envelope.decode()?;
                self.open_first(&envelope, parts, moment)
            }
        };
        self.count(&outcome);
        if let Ok(opened) = &mut outcome {
            self.check_place(opened)?;
            if let Some(delivered) = delivered {
                self.expected.check(opened.context.as_ref(), delivered, &opened.message_id)?;
            }
            self.place(opened, moment);
        }
        outcome
    }

    fn check_place(&self, opened: &Opened) -> Result<()> {
        self.places.as_ref().map_or(Ok(()), |places| places.check(opened.context.as_ref()))
    }

    fn opening(&self, moment: Moment) -> Opening<'_> {
        let Self { keys, unwrapper, senders, suites, .. } = self;
        Opening { keys, unwrapper, senders, suites: *suites, moment }
    }

    fn count<T>(&self, outcome: &Result<T>) {
        match outcome {
            Ok(_) => drop(self.opened.fetch_add(1, Ordering::Relaxed)),
            Err(error) => self.count_failure(error),
        }
    }

    fn count_failure(&self, error: &Error) {
        let count = match error.kind() {
            ErrorKind::Throttled => &self.throttled,
            _ => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the place of a message that a known sender signed. A part of a
    /// larger message has that of the whole.
    fn place(&self, opened: &mut Opened, moment: Moment) {
        let (Sender::Signed(kid), Some(sequence), None) = (&opened.sender, &opened.sequence, &opened.part) else {
            return;
        };
        let order = self.sequences.share(moment.pid, |all| all.note(kid, sequence, moment.now));
        opened.order = order.unwrap_or_default();
        match opened.order {
            Order::Gap { missing } => self.missing.fetch_add(missing, Ordering::Relaxed),
            Order::Late => self.late.fetch_add(1, Ordering::Relaxed),
            Order::Repeat => self.repeated.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// Most keys of one opener: each message of another recipient costs an unwrap
/// with every one of them.
const KEYS_MAX: usize = 16;

#[cfg(test)]
mod tests;
