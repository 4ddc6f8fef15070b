//! The senders a receiver knows, and what it has come to expect of them.
//!
//! One file of lines:
//!
//! ```text
//! cipher/senders/1
//! sender <key, base64> <highest suite or -> <since, ms> <name>
//! signs <since, ms> <source>
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::policy::SenderPolicy;
use super::store::{self, Lock};
use crate::crypto::process::{PerProcess, Pid, TRIES};
use crate::crypto::{Kid, SenderKey, Suite, base64};
use crate::error::{Error, ErrorKind, Result};

/// Most senders in a store.
const SENDERS_MAX: usize = 10_000;
/// Most sources whose messages were found to be signed.
const SOURCES_MAX: usize = 10_000;
/// Longest name of a sender or a source.
const NAME_BYTES_MAX: usize = 255;
/// Longest file: as many lines as there can be.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// For how long after it began to use a better suite a sender may have sealed
/// with a lower one: sessions that were open, other processes of its own.
pub(super) const SUITE_GRACE_MS: u64 = 10 * 60 * 1000;

/// The senders a receiver knows by their keys. To be shared between openers.
///
/// It also remembers, over restarts if it has a file, from where signed messages
/// came ([`SenderPolicy::source`]) and the best suite a sender has used.
#[derive(Debug)]
pub struct Senders {
    /// Twice the same. A fork may leave the first locked for ever, by a reader
    /// that did not come along; nobody is at the second then but in the moment
    /// in which a change is put in place.
    known: [PerProcess<Arc<Known>>; 2],
    /// Held while something changes, also in the file.
    changing: PerProcess<()>,
    /// From 1.
    version: AtomicU64,
    path: Option<PathBuf>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    senders: HashMap<Kid, KnownSender>,
    /// From when on.
    signing: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
struct KnownSender {
    name: String,
    key: SenderKey,
    best: Option<Best>,
}

/// For how long a message speaks for those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Once,
    /// Until [`Senders::version`] changes.
    Lasting,
}

/// The best suite of a sender, and when it had sealed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Best {
    suite: Suite,
    since_ms: u64,
}

impl Senders {
    /// A store that lasts as long as the process.
    pub fn in_memory() -> Self {
        Self::holding(Known::default(), None, Pid::Current)
    }

    /// A store in a file of mode 0600, which is made with the first sender.
    /// Several processes may share it; each sees the senders of its start and
    /// those it was given.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        Ok(Self::holding(read(&path)?, Some(path), Pid::Current))
    }

    fn holding(known: Known, path: Option<PathBuf>, pid: Pid) -> Self {
        let known = Arc::new(known);
        let known = [(); 2].map(|()| PerProcess::new(pid, Arc::clone(&known)));
        Self { known, changing: PerProcess::new(pid, ()), version: AtomicU64::new(1), path }
    }

    /// Makes a sender known under a name for people.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] for a bad name or one sender too many,
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn add(&self, name: &str, key: SenderKey) -> Result<()> {
        check_name(name)?;
        self.change(|known| {
            if known.senders.len() >= SENDERS_MAX && !known.senders.contains_key(key.kid()) {
                return Err(ErrorKind::Option { option: "senders", reason: "at most 10000" }.into());
            }
            let best = known.senders.get(key.kid()).and_then(|known| known.best);
            known.senders.insert(*key.kid(), KnownSender { name: name.to_owned(), key, best });
            Ok(())
        })
    }

    /// Forgets a sender: nothing it signs is believed any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn remove(&self, kid: &Kid) -> Result<()> {
        self.change(|known| {
            known.senders.remove(kid);
            Ok(())
        })
    }

    /// The name a sender was made known under.
    pub fn name(&self, kid: &Kid) -> Option<String> {
        self.known()?.senders.get(kid).map(|known| known.name.clone())
    }

    /// Notes that a sender announced to be able of `suite`, so that less is
    /// refused that it seals from `since` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn expect_suite(&self, kid: &Kid, suite: Suite, since: std::time::SystemTime) -> Result<()> {
        let best = Best { suite, since_ms: super::announcement::millis(since) };
        self.change(|known| {
            known.improve(kid, best);
            Ok(())
        })
    }

    /// Forgets that messages from `source` are signed: unsigned ones are taken
    /// again until the next signed one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn forget_source(&self, source: &str) -> Result<()> {
        self.change(|known| {
            known.signing.remove(source);
            Ok(())
        })
    }

    pub(super) fn key(&self, kid: &Kid) -> Option<SenderKey> {
        self.known()?.senders.get(kid).map(|known| known.key.clone())
    }

    pub(super) fn knows(&self, kid: &Kid) -> bool {
        self.known().is_some_and(|known| known.senders.contains_key(kid))
    }

    pub(super) fn signs(&self, source: &str) -> bool {
        // Who cannot look expects a signature.
        self.known().is_none_or(|known| known.signing.contains_key(source))
    }

    /// Changes whenever something else is known.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What a good message teaches.
    pub(super) fn admit(&self, kid: &Kid, policy: &SenderPolicy, suite: Suite, sent_ms: u64) -> Result<Admission> {
        let known = self.known().ok_or(untrusted(NOT_KNOWN))?;
        let sender = known.senders.get(kid).ok_or(untrusted(NOT_KNOWN))?;
        let better = sender.best.filter(|best| suite < best.suite && !policy.lower_suites);
        if better.is_some_and(|best| sent_ms > best.since_ms.saturating_add(SUITE_GRACE_MS)) {
            return Err(untrusted("a weaker suite than this sender has used before"));
        }
        let is_better = sender.best.is_none_or(|best| suite > best.suite);
        let is_noted = policy.mixed || known.signing.contains_key(&policy.source);
        let is_new_source = !is_noted && known.signing.len() < SOURCES_MAX;
        if is_better || is_new_source {
            self.learn(kid, policy, Best { suite, since_ms: sent_ms });
            return Ok(Admission::Once);
        }
        Ok(if better.is_some() { Admission::Once } else { Admission::Lasting })
    }

    /// The message is good whether or not the disk takes the note.
    fn learn(&self, kid: &Kid, policy: &SenderPolicy, best: Best) {
        let source = Some(&policy.source).filter(|_| !policy.mixed);
        let noted = self.change(|known| {
            known.note(kid, best, source);
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "what a sender does is remembered until the process ends");
            // Alone, as every change: what is put back must not be older than what is there.
            self.changing.with(
                Pid::Current,
                |()| (),
                |()| {
                    if let Some(mut known) = self.known().map(|known| Known::clone(&known)) {
                        known.note(kid, best, source);
                        self.put(known);
                    }
                },
            );
        }
    }

    /// Changes what is known, in the file and then here. What other processes
    /// have written there in the meantime is kept.
    fn change(&self, change: impl FnOnce(&mut Known) -> Result<()>) -> Result<()> {
        let changed = self.changing.with(Pid::Current, |()| (), |()| self.change_alone(change));
        changed.unwrap_or_else(|| Err(untrusted(LEFT_BEHIND)))
    }

    fn change_alone(&self, change: impl FnOnce(&mut Known) -> Result<()>) -> Result<()> {
        let known = self.known().ok_or(untrusted(LEFT_BEHIND))?;
        let Some(path) = &self.path else {
            let mut known = Known::clone(&known);
            change(&mut known)?;
            self.put(known);
            return Ok(());
        };
        let _lock = Lock::take(&store::lock_of(path))?;
        let mut written = read(path)?;
        written.learn_from(&known);
        change(&mut written)?;
        store::write(path, &written.to_text())?;
        self.put(written);
        Ok(())
    }

    /// What is known now. `None` in the child of a fork in the middle of a change:
    /// nobody is believed there.
    fn known(&self) -> Option<Arc<Known>> {
        self.known.iter().find_map(|copy| copy.share(Pid::Current, |known| Arc::clone(known)))
    }

    /// A copy that cannot be reached was left locked by a fork: nobody here will.
    fn put(&self, known: Known) {
        let known = Arc::new(known);
        for copy in &self.known {
            (0..TRIES).find(|_| copy.share(Pid::Current, |place| *place = Arc::clone(&known)).is_some());
        }
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

impl Known {
    fn note(&mut self, kid: &Kid, best: Best, source: Option<&String>) {
        self.improve(kid, best);
        if let Some(source) = source.filter(|_| self.signing.len() < SOURCES_MAX) {
            self.signing.entry(source.clone()).or_insert(best.since_ms);
        }
    }

    fn improve(&mut self, kid: &Kid, best: Best) {
        if let Some(sender) = self.senders.get_mut(kid)
            && sender.best.is_none_or(|known| best.suite > known.suite)
        {
            sender.best = Some(best);
        }
    }

    /// Takes over what another copy has learned of senders known here.
    fn learn_from(&mut self, other: &Self) {
        for (kid, sender) in &other.senders {
            if let Some(best) = sender.best {
                self.improve(kid, best);
            }
        }
        for (source, since) in &other.signing {
            self.signing.entry(source.clone()).or_insert(*since);
        }
    }

    fn to_text(&self) -> String {
        let mut lines = vec![HEADER.to_owned()];
        let mut senders: Vec<_> = self.senders.values().collect();
        senders.sort_by_key(|sender| (&sender.name, sender.key.kid()));
        for KnownSender { name, key, best } in senders {
            let suite = best.map_or("-", |best| best.suite.name());
            let since = best.map_or(0, |best| best.since_ms);
            lines.push(format!("sender {} {suite} {since} {name}", base64::text(key.as_bytes())));
        }
        lines.extend(self.signing.iter().map(|(source, since)| format!("signs {since} {source}")));
        lines.push(String::new());
        lines.join("\n")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        lines.next().filter(|line| *line == HEADER)?;
        let mut known = Self::default();
        for line in lines {
            match line.split_once(' ')? {
                ("sender", rest) => {
                    let sender = KnownSender::from_text(rest)?;
                    known.senders.insert(*sender.key.kid(), sender);
                }
                ("signs", rest) => {
                    let (since, source) = rest.split_once(' ')?;
                    known.signing.insert(source.to_owned(), since.parse().ok()?);
                }
                _ => return None,
            }
        }
        (known.senders.len() <= SENDERS_MAX && known.signing.len() <= SOURCES_MAX).then_some(known)
    }
}

impl KnownSender {
    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let key = base64::decode("key", words.next()?).ok()?;
        let key = SenderKey::from_bytes(key.as_slice().try_into().ok()?).ok()?;
        let suite = words.next()?;
        let since_ms = words.next()?.parse().ok()?;
        let best = match suite {
            "-" => None,
            name => Some(Best { suite: Suite::from_name(name)?, since_ms }),
        };
        let name = words.next()?.to_owned();
        Some(Self { name, key, best })
    }
}

fn read(path: &Path) -> Result<Known> {
    match store::read(path, FILE_BYTES_MAX)? {
        None => Ok(Known::default()),
        Some(text) => Known::from_text(&text).ok_or_else(|| store::damaged(path, "not a list of senders")),
    }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let is_good = name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    let reason = "at most 255 bytes without control characters";
    if is_good { Ok(()) } else { Err(ErrorKind::Option { option: "name", reason }.into()) }
}

const HEADER: &str = "cipher/senders/1";
const LEFT_BEHIND: &str = "the known senders were being changed when this process was forked; open them anew in it";
pub(super) const NOT_KNOWN: &str = "signed by nobody who is known";

pub(super) fn untrusted(what: &'static str) -> Error {
    ErrorKind::Untrusted { what }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Identity, Sender};
    use std::sync::Arc;

    const T0: u64 = 1_763_740_000_000;

    fn is_untrusted<T: std::fmt::Debug>(outcome: Result<T>) -> bool {
        matches!(outcome.unwrap_err().kind(), ErrorKind::Untrusted { .. })
    }

    #[test]
    fn what_is_remembered_outlives_the_process() {
        let (dir, me) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
        let path = dir.path().join("senders");
        let open = || Arc::new(Senders::open(&path).unwrap());
        let policy = |senders| SenderPolicy::allow_unsigned(senders).source("orders eu").unwrap();
        let first = open();
        first.add("billing, the new one", me.sender_key().clone()).unwrap();
        policy(first.clone()).admit(&Sender::Signed(*me.kid()), Suite::TwoX25519, T0).unwrap();
        let second = open();
        assert_eq!(second.name(me.kid()).as_deref(), Some("billing, the new one"));
        assert!(is_untrusted(policy(second.clone()).check(None)));
        let late = policy(second).admit(&Sender::Signed(*me.kid()), Suite::One, T0 + SUITE_GRACE_MS + 1);
        assert!(is_untrusted(late));
    }

    #[test]
    fn two_processes_do_not_undo_each_other() {
        let (dir, a, b) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap(), Identity::generate().unwrap());
        let path = dir.path().join("senders");
        let (one, other) = (Senders::open(&path).unwrap(), Senders::open(&path).unwrap());
        one.add("a", a.sender_key().clone()).unwrap();
        other.add("b", b.sender_key().clone()).unwrap();
        let third = Senders::open(&path).unwrap();
        assert_eq!((third.name(a.kid()).as_deref(), third.name(b.kid()).as_deref()), (Some("a"), Some("b")));
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let (dir, me) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
        let path = dir.path().join("senders");
        Senders::open(&path).unwrap().add("me", me.sender_key().clone()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for end in 0..text.len() {
            std::fs::write(&path, &text[..end]).unwrap();
            let error = Senders::open(&path).err();
            // Without its last line it is a shorter list.
            assert!(error.is_some() || end == HEADER.len() + 1, "cut at {end}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text[..end]);
        }
    }

    /// A fork copies locks as they are, and not the threads that hold them.
    #[test]
    fn a_lock_held_across_a_fork_hides_no_sender_and_hangs_nobody() {
        let (me, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let made = Senders::in_memory();
        made.add("me", me.sender_key().clone()).unwrap();
        made.expect_suite(me.kid(), Suite::TwoX25519, std::time::SystemTime::now()).unwrap();
        let parent = Pid::Of(std::process::id() + 1);
        let child = |known: Arc<Known>| Arc::new(Senders::holding(Known::clone(&known), None, parent));
        let known = made.known().unwrap();

        let at_a_reader = child(Arc::clone(&known));
        let _reader = at_a_reader.known[0].hold();
        assert!(at_a_reader.knows(me.kid()));
        at_a_reader.add("other", other.sender_key().clone()).unwrap();
        assert_eq!(at_a_reader.name(other.kid()).as_deref(), Some("other"), "changes are seen");
        at_a_reader.remove(me.kid()).unwrap();
        assert!(!at_a_reader.knows(me.kid()), "and removals");

        let at_a_change = child(known);
        let _change = at_a_change.changing.hold();
        assert!(at_a_change.knows(me.kid()));
        assert!(is_untrusted(at_a_change.add("other", other.sender_key().clone())));

        let _both = at_a_change.known.each_ref().map(PerProcess::hold);
        assert!(!at_a_change.knows(me.kid()), "nobody is believed");
        let policy = SenderPolicy::allow_unsigned(Arc::clone(&at_a_change));
        assert!(is_untrusted(policy.check(None)), "nor is it taken for a place where nobody signs");
        assert!(is_untrusted(policy.admit(&Sender::Signed(*me.kid()), Suite::TwoX25519, T0)));
    }
}
