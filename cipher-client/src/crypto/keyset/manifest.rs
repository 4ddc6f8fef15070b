//! Which keys a directory holds: a text of a line for each.
//!
//! ```text
//! ciphermq keyset 1
//! primary sha256:cZnt…  X-Wing 1763740000
//! retired sha256:Kb0a…  RSA    1763000000 1763740000
//! deleted sha256:w1Yp…  RSA    1762000000 1763000000
//! ```
//!
//! State, key id, kind, and in seconds since 1970 when it became the primary and
//! when it was retired. It is replaced in one step (written beside, synced,
//! renamed), so a reader finds the one or the other. `deleted` is a key whose
//! file may still be there: it is not used again, and the next change removes it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{KEYSET_KEYS_MAX, not_a_keyset};
use crate::crypto::keys::KeyKind;
use crate::crypto::kid::Kid;
use crate::error::{Error, Result};
use crate::files;

/// The lines, the primary first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    state: State,
    pub(super) kid: Kid,
    pub(super) kind: KeyKind,
    pub(super) since: SystemTime,
    pub(super) retired: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Primary,
    Retired,
    Deleted,
}

impl Manifest {
    pub(super) fn new(kid: Kid, kind: KeyKind, now: SystemTime) -> Self {
        Self { lines: vec![Line::primary(kid, kind, now)] }
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = Self::path(dir);
        let file = File::open(&path).map_err(|fault| match fault.kind() {
            std::io::ErrorKind::NotFound => not_a_keyset(dir, "holds no keyset"),
            _ => Error::io("cannot be read", &path, fault),
        })?;
        let mut text = String::new();
        let read = file.take(BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|fault| Error::io("cannot be read", &path, fault))?;
        Self::parse(&text).map_err(|reason| not_a_keyset(&path, reason))
    }

    /// Puts it in the place of what is there.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let (path, new) = (Self::path(dir), dir.join(NEW));
        // Left by a crash: the name in use is the other one.
        if let Err(fault) = fs::remove_file(&new)
            && fault.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Error::io("cannot be removed", &new, fault));
        }
        let written = files::create_new(&new, 0o600).and_then(|mut file| {
            file.write_all(self.to_text().as_bytes())?;
            file.sync_all()
        });
        written.map_err(|fault| Error::io("cannot be written", &new, fault))?;
        fs::rename(&new, &path).map_err(|fault| Error::io("cannot be replaced", &path, fault))?;
        files::sync_parent(&path).map_err(|fault| Error::io("cannot be synced", dir, fault))
    }

    /// The keys in use, the primary first, the one retired last next.
    pub(super) fn live(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.state != State::Deleted)
    }

    /// The keys whose files are to be removed.
    pub(super) fn deleted(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.state == State::Deleted)
    }

    /// With another primary.
    pub(super) fn rotated(&self, kid: Kid, kind: KeyKind, now: SystemTime) -> Self {
        let mut lines = self.lines.clone();
        (lines[0].state, lines[0].retired) = (State::Retired, Some(whole_seconds(now)));
        lines.insert(0, Line::primary(kid, kind, now));
        Self { lines }
    }

    /// With these retired keys given up.
    pub(super) fn with_deleted(&self, kids: &[Kid]) -> Self {
        let mut lines = self.lines.clone();
        for line in lines.iter_mut().filter(|line| line.state == State::Retired && kids.contains(&line.kid)) {
            line.state = State::Deleted;
        }
        Self { lines }
    }

    /// Without the keys given up.
    pub(super) fn without_deleted(&self) -> Self {
        Self { lines: self.live().cloned().collect() }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines();
        match lines.next() {
            Some(HEADER) => {}
            Some(line) if line.starts_with(NAME) => return Err("a keyset of another version"),
            _ => return Err("not a keyset"),
        }
        let lines: Vec<Line> = lines.map(Line::parse).collect::<Option<_>>().ok_or("damaged: a line is no key")?;
        let is_first_primary = lines.first().is_some_and(|line| line.state == State::Primary);
        if !is_first_primary || lines[1..].iter().any(|line| line.state == State::Primary) {
            return Err("damaged: it must have one primary, first");
        }
        if lines.iter().enumerate().any(|(n, line)| lines[..n].iter().any(|other| other.kid == line.kid)) {
            return Err("damaged: a key is there twice");
        }
        let manifest = Self { lines };
        if manifest.live().count() > KEYSET_KEYS_MAX || !text.ends_with('\n') {
            return Err("damaged: too many keys, or cut off");
        }
        Ok(manifest)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for Line { state, kid, kind, since, retired } in &self.lines {
            let (state, since) = (state.word(), seconds(*since));
            write!(text, "{state} {kid} {kind} {since}").expect("a String takes everything");
            if let Some(retired) = retired {
                write!(text, " {}", seconds(*retired)).expect("a String takes everything");
            }
            text.push('\n');
        }
        text
    }
}

impl Line {
    fn primary(kid: Kid, kind: KeyKind, since: SystemTime) -> Self {
        Self { state: State::Primary, kid, kind, since: whole_seconds(since), retired: None }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let state = State::parse(words.next()?)?;
        let kid = words.next()?.parse().ok()?;
        let kind = KeyKind::from_word(words.next()?)?;
        let since = time(words.next()?)?;
        let retired = match state {
            State::Primary => None,
            State::Retired | State::Deleted => Some(time(words.next()?)?),
        };
        words.next().is_none().then_some(Self { state, kid, kind, since, retired })
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Retired => "retired",
            Self::Deleted => "deleted",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Primary, Self::Retired, Self::Deleted].into_iter().find(|state| state.word() == word)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(word: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(word.parse().ok()?))
}

/// As it is read back.
fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds(time))
}

const FILE: &str = "keyset";
const NEW: &str = "keyset.new";
const NAME: &str = "ciphermq keyset ";
const HEADER: &str = "ciphermq keyset 1";
/// Far above what the keys allowed take.
const BYTES_MAX: u64 = 64 << 10;
