use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use crate::append::Tail;
use crate::frame::BLOCK;
use crate::header::Before;
use crate::judge::Find;
use crate::load::{self, Listed, Loaded};
use crate::report::FindingKind;
use crate::segment::{Failure, Segment, Segments, Spare, spare_number};
use crate::{Disk, Finding, OpenError, Owner, Position, Report, Space};

/// What was read when a log was opened.
pub(crate) struct Recovered {
    pub(crate) report: Report,
    pub(crate) space: Space,
    /// The segments read, oldest first.
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) spares: Vec<Spare>,
    /// Bytes of files that belong to the log and cannot be read.
    pub(crate) lost_bytes: u64,
    /// The end of the last segment.
    pub(crate) before: Before,
    /// Where the next segment begins.
    pub(crate) next_base: u64,
    /// Where the log ended, if its last segment can be read.
    pub(crate) tail: Option<Tail>,
}

/// A segment that is not written any more.
pub(crate) struct Sealed {
    pub(crate) segment: Arc<Segment>,
    pub(crate) before: Before,
}

/// How segments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The next segment is read and checked on another thread while the owner takes in this one.
    Ahead,
    /// One after the other, the same way each time.
    InTurn,
}

/// Gives every record that counts to `owner`, in log order, and makes sure that what was given will be there the next time.
///
/// Nothing is changed but the end of the last segment, where the same bytes are written and synced again: it can stop anywhere and be
/// done again.
pub(crate) fn recover<E>(
    disk: &dyn Disk,
    owner: &mut impl Owner<E>,
    segments: &Segments,
    reading: Reading,
) -> Result<Recovered, OpenError> {
    let listed = load::list(disk)?;
    let mut recovered = Recovered {
        report: Report::default(),
        space: Space::counted(),
        sealed: VecDeque::with_capacity(listed.len()),
        spares: spares(disk)?,
        lost_bytes: 0,
        before: Before::default(),
        next_base: BLOCK,
        tail: None,
    };
    each_loaded(&listed, reading, |listed, loaded, is_last| {
        if is_last {
            settle_tail(listed, loaded)?;
            recovered.tail = listed.header.map(|_| loaded.tail());
        }
        recovered.take(disk, listed, loaded, owner, segments);
        Ok(())
    })?;
    // A process that was killed leaves names that no power failure must take back once they are relied on.
    disk.sync_names().map_err(Failure::new("sync", "log"))?;
    Ok(recovered)
}

/// Makes the end of the log durable before anything in it is relied on.
///
/// A process that was killed leaves frames that are written, but not on disk. After a failed sync they may not even be on their way there any more, though
/// they can be read: only writing them again helps. The bytes are the same, so that a crash here leaves what was there, or what is there now.
fn settle_tail(listed: &Listed, loaded: &Loaded) -> Result<(), Failure> {
    if let Some(from) = loaded.judged.unsynced_from {
        let from = from - from % BLOCK;
        let until = loaded.before.end.next_multiple_of(BLOCK).min(loaded.bytes.len() as u64);
        let tail = &loaded.bytes[from as usize..until as usize];
        listed.file.write_at(from, tail).map_err(Failure::new("write", &listed.name))?;
    }
    listed.file.sync().map_err(Failure::new("sync", &listed.name))
}

impl Recovered {
    fn take<E>(
        &mut self,
        disk: &dyn Disk,
        listed: &Listed,
        loaded: &Loaded,
        owner: &mut impl Owner<E>,
        segments: &Segments,
    ) {
        let mut finds = listed.finds.clone();
        finds.extend_from_slice(&loaded.judged.finds);
        self.before = loaded.before;
        self.next_base = (listed.base + listed.len).next_multiple_of(BLOCK);
        self.report.segments += 1;
        self.report.closed = loaded.is_sealed;
        if let Some(header) = listed.header {
            let segment = Segment {
                name: listed.name.clone(),
                file: Arc::clone(&listed.file),
                checks: header.checks(),
                len: listed.len,
            };
            let segment = Arc::new(segment);
            segments.insert(&segment);
            self.space.begin(segment.base());
            self.sealed.push_back(Sealed { segment, before: loaded.before });
        } else {
            self.lost_bytes += listed.len;
        }
        for record in &loaded.judged.records {
            let payload = loaded.payload(record);
            match owner.recover(Position(listed.base + record.offset), payload, &mut self.space) {
                Ok(()) => {
                    self.report.records += 1;
                    self.report.payload_bytes += payload.len() as u64;
                }
                Err(_) => {
                    let len = u64::from(record.len) + crate::frame::FRAME_HEADER as u64;
                    finds.push(Find { offset: record.frame, len, kind: FindingKind::Undecodable });
                }
            }
        }
        finds.sort_by_key(|find| find.offset);
        for find in finds {
            let known_before = self.keep_aside(disk, listed, loaded, find);
            self.report.findings.push(finding(listed, find, known_before));
        }
    }

    /// Keeps what was left out. True if that was done before.
    fn keep_aside(&mut self, disk: &dyn Disk, listed: &Listed, loaded: &Loaded, find: Find) -> bool {
        let Find { offset, len, kind } = find;
        let kept = matches!(kind, FindingKind::Torn | FindingKind::Damaged | FindingKind::Undecodable);
        let end = (offset + len).min(loaded.bytes.len() as u64);
        if !kept || offset >= end {
            return false;
        }
        let bytes = &loaded.bytes[offset as usize..end as usize];
        match disk.keep_aside(&aside_name(listed.base, offset), bytes) {
            Ok(is_new) => !is_new,
            Err(error) => {
                self.report.aside_failed.get_or_insert_with(|| error.to_string());
                false
            }
        }
    }
}

/// The name under which bytes of a segment are kept aside.
pub(crate) fn aside_name(base: u64, offset: u64) -> String {
    format!("{base:016x}-{offset}.bin")
}

pub(crate) fn finding(listed: &Listed, find: Find, known_before: bool) -> Finding {
    let Find { offset, len, kind } = find;
    Finding { segment: listed.name.clone(), offset, len, kind, known_before }
}

/// Loads each segment and hands it to `take`, with whether it is the last.
fn each_loaded(
    listed: &[Listed],
    reading: Reading,
    mut take: impl FnMut(&Listed, &Loaded, bool) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let Some(last) = listed.len().checked_sub(1) else { return Ok(()) };
    if reading == Reading::InTurn || last == 0 {
        let mut bytes = Vec::new();
        for (index, listed) in listed.iter().enumerate() {
            let loaded = listed.load(bytes)?;
            take(listed, &loaded, index == last)?;
            bytes = loaded.bytes;
        }
        return Ok(());
    }
    thread::scope(|scope| {
        let (full, loaded) = mpsc::sync_channel(0);
        let (empty, emptied) = mpsc::channel();
        scope.spawn(move || {
            for listed in listed {
                // Two buffers go round.
                let bytes = emptied.try_recv().unwrap_or_default();
                if full.send(listed.load(bytes)).is_err() {
                    return;
                }
            }
        });
        for (index, listed) in listed.iter().enumerate() {
            let Ok(loaded) = loaded.recv() else { break };
            let loaded = loaded?;
            take(listed, &loaded, index == last)?;
            let _ = empty.send(loaded.bytes);
        }
        Ok(())
    })
}

/// The files that can become segments.
fn spares(disk: &dyn Disk) -> Result<Vec<Spare>, OpenError> {
    let mut names = disk.list().map_err(Failure::new("list", "log"))?;
    names.retain(|name| spare_number(name).is_some());
    names.sort_unstable();
    let mut spares = Vec::with_capacity(names.len());
    for name in names {
        let file = disk.open(&name).map_err(Failure::new("open", &name))?;
        let len = file.len().map_err(Failure::new("look at", &name))?;
        spares.push(Spare { name, file, len });
    }
    Ok(spares)
}
