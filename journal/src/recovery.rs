use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use crate::append::Tail;
use crate::frame::BLOCK;
use crate::header::Before;
use crate::judge::Find;
use crate::load::{self, FailedRead, Listed, Loaded};
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
    /// The disk has read all of it. If not, it may yet, another time: then the segment stays.
    pub(crate) is_read: bool,
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
        recovered.before = if is_last { loaded.settled() } else { loaded.before };
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
    if let Some(FailedRead { end, error }) = &loaded.failed
        && !loaded.is_sealed
        && *end > loaded.judged.unsynced_from.unwrap_or(loaded.before.end)
    {
        // Where the log ends is unknown, and what stands there may have been acknowledged.
        let what = format!("{error}; put the disk right, or copy what it can read to another");
        let source = io::Error::new(error.kind(), what);
        return Err(Failure { doing: "read the end of", name: listed.name.clone(), source });
    }
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
            self.sealed.push_back(Sealed { segment, before: self.before, is_read: loaded.failed.is_none() });
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
        let bytes = loaded.stretch(offset, len);
        if !kept || bytes.is_empty() {
            return false;
        }
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
        // A process may have died while it made one.
        let len = file.len().map_err(Failure::new("look at", &name))?;
        spares.push(Spare { name, file, len: len - len % BLOCK });
    }
    Ok(spares)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Note, note, open, recovered};
    use crate::{Crash, Disk, FindingKind, MemoryDisk, Scanned, Times, Unsynced, scan};
    use std::io::ErrorKind;
    use std::sync::Arc;

    const LOST: Crash = Crash::PowerLoss(Unsynced::Lost);

    #[test]
    fn what_a_failed_sync_left_in_memory_is_not_relied_on_before_it_is_on_disk() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("good")]);
        disk.fail_at(disk.calls().len() as u64 + 1, ErrorKind::Other, Times::Once);
        log.write([note("refused")]);
        drop(log);
        let restarted = disk.crash(Crash::Kill);
        assert_eq!(recovered(&restarted), ["good", "refused"], "it is written, and may count");
        assert_eq!(recovered(&restarted.crash(LOST)), ["good", "refused"], "then it counts for ever");
    }

    #[test]
    fn what_was_found_whole_once_is_not_torn_if_it_is_damaged_later() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        let member = |text: &str| Note { continues: true, ..note(text) };
        log.write([note("before")]);
        log.write([member("1"), member("2"), note("3")]);
        let second = log.at("2").0 - 0x1000;
        let damage = |disk: &MemoryDisk| assert!(disk.flip("0000000000001000.log", (second + 32) * 8));
        let killed = disk.crash(Crash::Kill);
        damage(&killed);
        assert_eq!(recovered(&killed), ["before"], "nothing says that it was not torn");
        let killed = disk.crash(Crash::Kill);
        let reopened = open(&killed);
        assert_eq!(reopened.report.records, 4);
        let killed = killed.crash(Crash::Kill);
        damage(&killed);
        let found = open(&killed);
        assert_eq!(
            found.report.findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(),
            [FindingKind::Damaged]
        );
        let recovered = found.keeper.look().recovered.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        assert_eq!(recovered, ["before", "1", "3"], "it costs one record");
    }

    #[test]
    fn a_torn_end_is_reported_once_as_new_and_kept_aside() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("good")]);
        log.write([note("torn")]);
        let torn = log.at("torn").0 - 0x1000;
        drop(log);
        let crashed = disk.crash(Crash::Kill);
        // Neither the end of the record nor the seal got there.
        assert!(crashed.flip("0000000000001000.log", (torn + 32) * 8));
        assert!(crashed.flip("0000000000001000.log", (torn + 40) * 8));
        let first = open(&crashed);
        assert_eq!(first.report.findings[0].kind, FindingKind::Torn);
        assert!(!first.report.findings[0].known_before);
        let second = open(&crashed.crash(Crash::Kill));
        assert_eq!(second.report.findings[0].kind, FindingKind::Torn, "judged as before");
        assert!(second.report.findings[0].known_before);
        assert_eq!(crashed.aside()[0].0, format!("0000000000001000-{torn}.bin"));
    }

    #[test]
    fn scanning_changes_nothing() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("one"), note("two")]);
        let calls = disk.calls().len();
        let mut texts = Vec::new();
        let report = scan(&disk, &mut |scanned| {
            if let Scanned::Record { payload, .. } = scanned {
                texts.push(String::from_utf8_lossy(payload).into_owned());
            }
        });
        assert_eq!((texts, report.unwrap().records), (vec!["one".to_owned(), "two".to_owned()], 2));
        assert!(disk.calls()[calls..].iter().all(|call| !call.kind.changes_disk()));
    }

    #[test]
    fn behind_a_segment_that_cannot_be_read_and_stays_none_is_missing() {
        for damaged in 0..3 {
            let disk = MemoryDisk::new();
            let log = open(&disk);
            (0..12).for_each(|number| assert_eq!(log.write([note(format!("{number}:").repeat(1000))]), Some(Ok(()))));
            drop(log);
            let disk = disk.crash(LOST);
            let name =
                disk.files().into_iter().map(|(name, _)| name).filter(|name| !name.starts_with("spare")).nth(damaged);
            let name = name.expect("there are more");
            [0, 2048].into_iter().for_each(|copy| assert!(disk.flip(&name, copy * 8)));
            let mut disk = disk;
            for round in 0..3 {
                let log = open(&disk);
                let kinds: Vec<_> = log.report.findings.iter().map(|finding| finding.kind).collect();
                assert_eq!(kinds, [FindingKind::Header], "segment {damaged}, opened {round} times: {:?}", log.report);
                // Everything else is dropped meanwhile.
                for number in 0..40 {
                    log.write([note("let go"), note(format!("{round}-{number}:").repeat(1000))]);
                }
                log.write([note("let go")]);
                drop(log);
                disk = disk.crash(LOST);
            }
        }
    }

    /// A directory in which somebody drops a segment while it is looked at.
    struct Dropping(MemoryDisk, Vec<String>);

    impl Disk for Dropping {
        fn list(&self) -> std::io::Result<Vec<String>> {
            Ok(self.1.clone())
        }

        fn open(&self, name: &str) -> std::io::Result<Arc<dyn crate::DiskFile>> {
            self.0.open(name)
        }

        fn create(&self, _: &str, _: u64) -> std::io::Result<Arc<dyn crate::DiskFile>> {
            Err(ErrorKind::ReadOnlyFilesystem.into())
        }

        fn rename(&self, _: &str, _: &str) -> std::io::Result<()> {
            Err(ErrorKind::ReadOnlyFilesystem.into())
        }

        fn remove(&self, _: &str) -> std::io::Result<()> {
            Err(ErrorKind::ReadOnlyFilesystem.into())
        }

        fn sync_names(&self) -> std::io::Result<()> {
            Ok(())
        }

        fn keep_aside(&self, _: &str, _: &[u8]) -> std::io::Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn segments_dropped_while_somebody_looks_are_not_missing() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        (0..12).for_each(|number| assert_eq!(log.write([note(format!("{number}:").repeat(1000))]), Some(Ok(()))));
        let names = disk.list().unwrap();
        let mut segments: Vec<_> = names.iter().filter(|name| !name.starts_with("spare")).collect();
        segments.sort_unstable();
        // The first is still there when it is looked at, the second is not.
        disk.remove(segments[1]).unwrap();
        let report = scan(&Dropping(disk.clone(), names.clone()), &mut |_| {}).unwrap();
        assert_eq!(report.findings, []);
        assert_eq!(report.segments as usize, segments.len() - 2, "what was in front of it has gone, too");
    }

    /// A log on a disk with room for one segment was closed, opened, and gone on with over its seal: as it was, and as it is.
    fn over_a_seal() -> (MemoryDisk, Vec<u8>, Vec<u8>) {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(crate::testing::SEGMENT));
        let log = open(&disk);
        log.write([note("first")]);
        drop(log);
        let sealed = disk.files()[0].1.clone();
        let disk = disk.crash(Crash::Kill);
        disk.set_capacity(Some(crate::testing::SEGMENT));
        let log = open(&disk);
        log.write((0..10).map(|number| note(format!("torn {number}").repeat(120))));
        // The seal of its end is of no interest.
        let written = disk.files()[0].1.clone();
        drop(log);
        (disk.crash(Crash::Kill), sealed, written)
    }

    const ONLY: &str = "0000000000001000.log";

    #[test]
    fn what_a_torn_write_left_behind_a_seal_never_comes_back() {
        let (disk, sealed, written) = over_a_seal();
        // Only the last block of it reached the disk: the seal is whole.
        let last = written.len() - written.iter().rev().position(|byte| *byte != 0).unwrap();
        let whole = last - last % 4096;
        let torn = [&sealed[..whole], &written[whole..]].concat();
        disk.put(ONLY, torn);
        disk.set_capacity(Some(crate::testing::SEGMENT));
        let log = open(&disk);
        assert_eq!(log.keeper.look().recovered.len(), 1);
        let receipt = log.submit([note("second")]);
        log.journal.write_waiting();
        assert_eq!(log.journal.outcome(receipt), None, "it waits for room");
        disk.set_capacity(None);
        log.journal.write_waiting();
        assert_eq!(log.journal.outcome(receipt), Some(Ok(())));
        assert_eq!(recovered(&disk.crash(LOST)), ["first", "second"]);
    }

    #[test]
    fn a_write_torn_over_a_seal_is_no_damage() {
        let (disk, _, mut written) = over_a_seal();
        // Its first record, where the seal was, is lost.
        let seal = 4096 + 40;
        written[seal..seal + 32].fill(7);
        disk.put(ONLY, written);
        let log = open(&disk);
        let kinds: Vec<_> = log.report.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [FindingKind::Torn], "{:?}", log.report);
        assert_eq!(log.keeper.look().recovered.len(), 10);
    }

    #[test]
    fn a_full_disk_without_a_spare_goes_on_in_its_last_segment() {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(crate::testing::SEGMENT));
        for round in 0..5 {
            let log = open(&disk);
            assert_eq!(log.keeper.look().recovered.len(), round);
            log.write([note(format!("round {round}"))]);
        }
        assert_eq!(recovered(&disk.crash(LOST)).len(), 5);
        assert_eq!(disk.files().len(), 1);
    }
}
