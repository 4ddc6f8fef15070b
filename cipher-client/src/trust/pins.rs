//! The identities behind names, remembered.
//!
//! One file for each name, `<base64url of SHA-256 of the name>.pin`, of lines:
//!
//! ```text
//! cipher/pin/1
//! name billing
//! identity sha256:…          who may sign the next announcement
//! announced <base64>         the last ones, the newest last; none if only pinned
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ::base64::Engine;
use ::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::announcement::{Announcement, millis};
use super::recipient::Recipient;
use super::store::{self, Lock};
use crate::crypto::{Kid, SenderKey};
use crate::error::{Error, ErrorKind, Result};
use crate::line;

/// What to do with a name that is not known yet.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PinMode {
    /// Trust on first use: believe the first announcement, log the fingerprint
    /// of its identity, and hold on to it from then on.
    #[default]
    Tofu,
    /// Believe only names that were pinned by [`Pins::pin`].
    Strict,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The name.
    pub client_id: String,
    /// The identity that announces for it.
    pub identity: Kid,
    /// The last announcement, if there was one.
    pub last: Option<Announcement>,
}

/// Announcements kept of a name: one may be announced before it is good, and
/// the one before it is used until then.
const KEPT: usize = 4;
/// Announcements looked at in one call.
const HISTORY_MAX: usize = 256;
/// Longest pin file: four announcements and the lines before.
const PIN_BYTES_MAX: u64 = 32 << 10;

/// The pin store: a folder of which every file is written whole, or not at all.
///
/// Several processes may share one. Nothing is kept in memory: a clone is the same
/// store. Calls read and write files and may wait 10 seconds for others that do, so
/// async code runs them in `spawn_blocking`, as [`crate::Client::resolve`] does.
#[derive(Debug, Clone)]
pub struct Pins {
    dir: PathBuf,
    mode: PinMode,
}

impl Pins {
    /// Opens the store in `dir`, which is made, of mode 0700, if need be.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn open(dir: impl AsRef<Path>, mode: PinMode) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        store::make_dir(&dir)?;
        Ok(Self { dir, mode })
    }

    /// Pins a name to an identity whose fingerprint came by another way than
    /// the directory. Again with the same one changes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyChanged`] if it is pinned to another one: to change
    /// that, [`forget`](Self::forget) it first. [`ErrorKind::Io`],
    /// [`ErrorKind::File`], [`ErrorKind::Option`] for a bad name.
    pub fn pin(&self, client_id: &str, identity: &Kid) -> Result<()> {
        line::name("client_id", client_id)?;
        let _lock = self.lock()?;
        match self.read(client_id)? {
            None => self.write(&Known { client_id: client_id.into(), identity: *identity, announced: Vec::new() }),
            Some(known) if known.identity == *identity => Ok(()),
            Some(_) => Err(changed(client_id, "pinned to another identity")),
        }
    }

    /// Takes what a directory says of a name: the last announcement, or also
    /// those before it, oldest first.
    ///
    /// The first time it is believed as [`PinMode`] says. From then on each has to
    /// be signed by the identity that signed the one before, or by the successor
    /// named there, have a higher number, and refer to the one before if that is
    /// known.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::KeyChanged`]: the directory shows something else than before.
    ///   Nothing is sealed until somebody has found out why.
    /// - [`ErrorKind::Untrusted`]: of another name, or not pinned with
    ///   [`PinMode::Strict`].
    /// - [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn take(&self, client_id: &str, announced: &[Announcement]) -> Result<Pin> {
        if announced.is_empty() || announced.len() > HISTORY_MAX {
            return Err(untrusted("no announcement, or more than 256"));
        }
        if announced.iter().any(|one| one.client_id() != client_id) {
            return Err(untrusted("an announcement of somebody else"));
        }
        let _lock = self.lock()?;
        let before = self.read(client_id)?;
        let mut known = match before.clone() {
            Some(known) => known,
            None => self.first_use(client_id, &announced[announced.len() - 1])?,
        };
        known.follow(announced)?;
        if before.as_ref() != Some(&known) {
            self.write(&known)?;
        }
        Ok(known.into_pin())
    }

    /// Whether [`take`](Self::take) needs more than the last announcement: the
    /// number of the first one it has not seen.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn missing_before(&self, last: &Announcement) -> Result<Option<u64>> {
        let known = self.read(last.client_id())?;
        let seen = known.as_ref().and_then(Known::last).map(Announcement::seq);
        Ok(seen.map(|seen| seen + 1).filter(|next| *next < last.seq()))
    }

    /// The key to seal to for a name, as far as it is known here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Untrusted`] if nothing is pinned, no key was announced, or
    /// it is not good at this time. [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn recipient(&self, client_id: &str, now: SystemTime) -> Result<Recipient> {
        let known = self.read(client_id)?.ok_or(untrusted(NOT_PINNED))?;
        known.key(now)
    }

    /// The identity behind a name, to know messages from it by: see
    /// [`super::Senders::add`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Untrusted`] if nothing is pinned or announced.
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn sender(&self, client_id: &str) -> Result<SenderKey> {
        let known = self.read(client_id)?.ok_or(untrusted(NOT_PINNED))?;
        known.last().map(|last| last.identity().clone()).ok_or(untrusted("nothing was announced"))
    }

    /// What is known of a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::File`].
    pub fn look(&self, client_id: &str) -> Result<Option<Pin>> {
        Ok(self.read(client_id)?.map(Known::into_pin))
    }

    /// Forgets a name: the next announcement is a first use again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn forget(&self, client_id: &str) -> Result<()> {
        let _lock = self.lock()?;
        store::remove(&self.path(client_id))
    }

    fn first_use(&self, client_id: &str, last: &Announcement) -> Result<Known> {
        if self.mode == PinMode::Strict {
            return Err(untrusted(NOT_PINNED));
        }
        let identity = *last.identity().kid();
        tracing::warn!(client_id, %identity, "first use: believed because nothing else is known; compare the fingerprint");
        Ok(Known { client_id: client_id.into(), identity, announced: Vec::new() })
    }

    fn lock(&self) -> Result<Lock> {
        Lock::take(&self.dir.join("lock"))
    }

    fn path(&self, client_id: &str) -> PathBuf {
        let name = URL_SAFE_NO_PAD.encode(Sha256::digest(client_id));
        self.dir.join(name).with_extension("pin")
    }

    fn read(&self, client_id: &str) -> Result<Option<Known>> {
        let path = self.path(client_id);
        let Some(text) = store::read(&path, PIN_BYTES_MAX)? else { return Ok(None) };
        let known = Known::from_text(&text).filter(|known| known.client_id == client_id);
        known.map(Some).ok_or_else(|| store::damaged(&path, "not a pin of its name"))
    }

    fn write(&self, known: &Known) -> Result<()> {
        store::write(&self.path(&known.client_id), &known.to_text())
    }
}

/// What stands in a pin file.
#[derive(Clone, PartialEq, Eq)]
struct Known {
    client_id: String,
    identity: Kid,
    announced: Vec<Announcement>,
}

impl Known {
    /// Goes from what is known to the end of `history`, one by one.
    fn follow(&mut self, history: &[Announcement]) -> Result<()> {
        if let (Some(last), Some(end)) = (self.last(), history.last())
            && end.seq() < last.seq()
        {
            return Err(self.fault("an older announcement than before"));
        }
        history.iter().try_for_each(|next| self.step(next))?;
        match self.last() {
            Some(_) => Ok(()),
            None => Err(self.fault(ANOTHER_IDENTITY)),
        }
    }

    fn step(&mut self, next: &Announcement) -> Result<()> {
        let Some(last) = self.last() else { return self.begin(next) };
        if next.seq() < last.seq() {
            return Ok(());
        }
        if next.seq() == last.seq() {
            let is_the_same = next.as_bytes() == last.as_bytes();
            return if is_the_same { Ok(()) } else { Err(self.fault("two announcements of one number")) };
        }
        let is_successor = last.successor() == Some(next.identity());
        if !is_successor && *next.identity().kid() != self.identity {
            return Err(self.fault(ANOTHER_IDENTITY));
        }
        let follows_directly = next.seq() == last.seq() + 1;
        if follows_directly && !next.is_after(last) {
            return Err(self.fault("refers to another announcement before it"));
        }
        self.push(next);
        Ok(())
    }

    /// The first announcement that is seen of a pinned identity. Those in the
    /// history that others signed come before: with no link from the pin to
    /// them, they prove nothing.
    fn begin(&mut self, next: &Announcement) -> Result<()> {
        if *next.identity().kid() == self.identity {
            self.push(next);
        }
        Ok(())
    }

    fn push(&mut self, next: &Announcement) {
        self.identity = *next.identity().kid();
        if self.announced.len() == KEPT {
            self.announced.remove(0);
        }
        self.announced.push(next.clone());
    }

    fn last(&self) -> Option<&Announcement> {
        self.announced.last()
    }

    /// The key of the newest announcement that has begun.
    fn key(&self, now: SystemTime) -> Result<Recipient> {
        let begun = self.announced.iter().rev().find(|one| one.not_before_ms() <= millis(now));
        let current = begun.ok_or(untrusted("no key was announced for this time"))?;
        if !current.is_valid(now) {
            return Err(untrusted("the key has expired"));
        }
        current.recipient().ok_or(untrusted("announces no key to seal to"))
    }

    fn into_pin(mut self) -> Pin {
        Pin { client_id: self.client_id, identity: self.identity, last: self.announced.pop() }
    }

    fn fault(&self, what: &'static str) -> Error {
        changed(&self.client_id, what)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\nname {}\nidentity {}\n", self.client_id, self.identity);
        for one in &self.announced {
            text.push_str("announced ");
            text.push_str(&one.to_text());
            text.push('\n');
        }
        text
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        lines.next().filter(|line| *line == HEADER)?;
        let client_id = lines.next()?.strip_prefix("name ")?.to_owned();
        let identity = lines.next()?.strip_prefix("identity ")?.parse().ok()?;
        let announced = lines.map(|line| Announcement::from_text(line.strip_prefix("announced ")?).ok());
        let announced = announced.collect::<Option<Vec<_>>>()?;
        let is_own = |one: &Announcement| one.client_id() == client_id;
        (announced.len() <= KEPT && announced.iter().all(is_own)).then_some(Self { client_id, identity, announced })
    }
}

const HEADER: &str = "cipher/pin/1";
const ANOTHER_IDENTITY: &str = "announced by another identity";
const NOT_PINNED: &str = "not pinned";

fn untrusted(what: &'static str) -> Error {
    ErrorKind::Untrusted { what }.into()
}

fn changed(client_id: &str, what: &'static str) -> Error {
    ErrorKind::KeyChanged { client_id: client_id.to_owned(), what }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Identity, PrivateKey, PublicKey};
    use std::sync::LazyLock;
    use std::time::Duration;

    const NAME: &str = "billing";
    static KEYS: LazyLock<[PublicKey; 2]> =
        LazyLock::new(|| [0, 1].map(|_| PrivateKey::generate(2048).unwrap().public_key()));

    struct Store {
        dir: tempfile::TempDir,
        pins: Pins,
        me: Identity,
    }

    fn store(mode: PinMode) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::open(dir.path().join("pins"), mode).unwrap();
        Store { dir, pins, me: Identity::generate().unwrap() }
    }

    /// `count` announcements of `me` in a row.
    fn chain(me: &Identity, count: usize) -> Vec<Announcement> {
        let mut all: Vec<Announcement> = Vec::new();
        for n in 0..count {
            let next = Announcement::of(NAME, Some(&KEYS[n % 2]));
            let next = if let Some(last) = all.last() { next.after(last) } else { next };
            all.push(next.sign(me).unwrap());
        }
        all
    }

    fn is_changed(outcome: Result<Pin>) -> bool {
        matches!(outcome.unwrap_err().kind(), ErrorKind::KeyChanged { .. })
    }

    fn kid_now(pins: &Pins) -> Kid {
        *pins.recipient(NAME, SystemTime::now()).unwrap().kid()
    }

    #[test]
    fn the_first_use_is_believed_and_held_on_to() {
        let Store { pins, me, dir: _dir } = store(PinMode::Tofu);
        let all = chain(&me, 2);
        assert!(pins.recipient(NAME, SystemTime::now()).is_err());
        pins.take(NAME, &all[..1]).unwrap();
        assert_eq!(kid_now(&pins), *KEYS[0].kid());
        assert_eq!(pins.sender(NAME).unwrap().kid(), me.kid());
        pins.take(NAME, &all[1..]).unwrap();
        assert_eq!(kid_now(&pins), *KEYS[1].kid());
        let pins = Pins::open(&pins.dir, PinMode::Tofu).unwrap();
        assert_eq!(kid_now(&pins), *KEYS[1].kid(), "after a restart");
    }

    #[test]
    fn strict_believes_only_what_was_pinned() {
        let Store { pins, me, dir: _dir } = store(PinMode::Strict);
        let all = chain(&me, 1);
        assert!(matches!(pins.take(NAME, &all).unwrap_err().kind(), ErrorKind::Untrusted { .. }));
        pins.pin(NAME, me.kid()).unwrap();
        pins.take(NAME, &all).unwrap();
        assert_eq!(kid_now(&pins), *KEYS[0].kid());
        let other = Identity::generate().unwrap();
        assert!(pins.pin(NAME, me.kid()).is_ok());
        assert!(matches!(pins.pin(NAME, other.kid()).unwrap_err().kind(), ErrorKind::KeyChanged { .. }));
        pins.forget(NAME).unwrap();
        pins.pin(NAME, other.kid()).unwrap();
        assert!(is_changed(pins.take(NAME, &all)));
    }

    #[test]
    fn a_key_of_another_identity_is_refused_and_changes_nothing() {
        let Store { pins, me, dir: _dir } = store(PinMode::Tofu);
        pins.take(NAME, &chain(&me, 1)).unwrap();
        let liar = Identity::generate().unwrap();
        for count in [1, 2, 5] {
            let lie = chain(&liar, count);
            assert!(is_changed(pins.take(NAME, &lie)));
            assert!(is_changed(pins.take(NAME, &lie[count - 1..])));
        }
        assert_eq!(kid_now(&pins), *KEYS[0].kid());
        let of_another = Announcement::of("refunds", Some(&KEYS[1])).sign(&me).unwrap();
        assert!(matches!(pins.take(NAME, &[of_another]).unwrap_err().kind(), ErrorKind::Untrusted { .. }));
    }

    #[test]
    fn an_older_announcement_is_refused() {
        let Store { pins, me, dir: _dir } = store(PinMode::Tofu);
        let all = chain(&me, 3);
        pins.take(NAME, &all).unwrap();
        assert!(is_changed(pins.take(NAME, &all[..1])));
        assert!(is_changed(pins.take(NAME, &all[..2])));
        assert!(pins.take(NAME, &all[2..]).is_ok(), "the same again");
        assert!(pins.take(NAME, &all).is_ok());
    }

    #[test]
    fn a_chain_with_another_link_is_refused() {
        let Store { pins, me, dir: _dir } = store(PinMode::Tofu);
        let (all, other) = (chain(&me, 3), chain(&me, 1));
        // Another first announcement: of another key, so with other bytes.
        let other =
            Announcement::of(NAME, Some(&KEYS[1])).after(&other[0]).successor(me.sender_key()).sign(&me).unwrap();
        pins.take(NAME, &all[..1]).unwrap();
        let fork = Announcement::of(NAME, Some(&KEYS[1])).after(&other).sign(&me).unwrap();
        assert_eq!(fork.seq(), 3);
        pins.take(NAME, &all[1..2]).unwrap();
        assert!(is_changed(pins.take(NAME, std::slice::from_ref(&fork))), "refers to another second one");
        assert!(is_changed(pins.take(NAME, std::slice::from_ref(&other))), "another second one");
        pins.take(NAME, &all[2..]).unwrap();
    }

    #[test]
    fn a_gap_is_taken_of_the_same_identity_only() {
        let Store { pins, me, dir: _dir } = store(PinMode::Tofu);
        let heir = Identity::generate().unwrap();
        let all = chain(&me, 4);
        pins.take(NAME, &all[..1]).unwrap();
        assert_eq!(pins.missing_before(&all[3]).unwrap(), Some(2));
        pins.take(NAME, &all[3..]).unwrap();
        assert_eq!(pins.missing_before(&all[3]).unwrap(), None);
        let naming = Announcement::of(NAME, None).after(&all[3]).successor(heir.sender_key()).sign(&me).unwrap();
        let inherited = Announcement::of(NAME, Some(&KEYS[0])).after(&naming).sign(&heir).unwrap();
        assert!(is_changed(pins.take(NAME, std::slice::from_ref(&inherited))), "who named the heir was not shown");
        pins.take(NAME, &[naming, inherited.clone()]).unwrap();
        assert_eq!(pins.sender(NAME).unwrap().kid(), heir.kid());
        let by_the_old_one = Announcement::of(NAME, Some(&KEYS[1])).after(&inherited).sign(&me).unwrap();
        assert!(is_changed(pins.take(NAME, &[by_the_old_one])));
    }

    #[test]
    fn a_key_is_used_within_its_time() {
        let Store { pins, me, dir: _dir } = store(PinMode::Tofu);
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let kid = |secs| pins.recipient(NAME, at(secs)).map(|found| *found.kid()).ok();
        let old = Announcement::of(NAME, Some(&KEYS[0])).not_after(at(30)).sign(&me).unwrap();
        let new = Announcement::of(NAME, Some(&KEYS[1])).after(&old).not_before(at(20)).not_after(at(40));
        let new = new.sign(&me).unwrap();
        pins.take(NAME, &[old, new.clone()]).unwrap();
        let (first, second) = (Some(*KEYS[0].kid()), Some(*KEYS[1].kid()));
        assert_eq!([10, 20, 35, 40].map(kid), [first, second, second, None]);
        let withdrawn = Announcement::of(NAME, None).after(&new).sign(&me).unwrap();
        pins.take(NAME, &[withdrawn]).unwrap();
        assert_eq!([10, 35].map(kid), [None, None]);
    }

    #[test]
    fn the_file_is_cut_or_changed_nowhere_without_notice() {
        let Store { pins, me, dir: _dir } = store(PinMode::Tofu);
        pins.take(NAME, &chain(&me, KEPT + 2)).unwrap();
        let path = pins.path(NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3 + KEPT);
        let line_ends: Vec<_> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        for end in (0..text.len()).filter(|end| !line_ends[2..].contains(end)) {
            std::fs::write(&path, &text[..end]).unwrap();
            assert!(pins.look(NAME).is_err(), "cut at {end}");
        }
        store::write(&path, &text).unwrap();
        std::fs::copy(&path, pins.path("refunds")).unwrap();
        assert!(pins.look("refunds").is_err(), "a pin of another name");
    }
}
