use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::append::Appender;
use crate::frame::{CARRIED, CHECKPOINT};
use crate::front::Front;
use crate::jobs::Jobs;
use crate::journal::DiskLog;
use crate::load;
use crate::log::Log;
use crate::recovery::{self, Reading, Recovered};
use crate::report::RecordKind;
use crate::retention::{Limits, SPARES_MAX};
use crate::segment::{Failure, Spare, is_no_room, spare_name, spare_number};
use crate::turn::{self, Place};
use crate::writer::{Beginning, Next, Writer};
use crate::{Disk, Entry, Journal, JournalOptions, OpenError, Owner, Position, Report, Scanned};

impl<E: Entry + 'static> Journal<E> {
    /// Opens the log on `disk`, gives its owner every record, and starts the threads that write.
    ///
    /// # Errors
    /// As [`OpenError`] says; never because of damage.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        owner: impl Owner<E> + 'static,
    ) -> Result<(Journal<E>, Report), OpenError> {
        let front = Arc::new(Front::new());
        let wake = Arc::clone(&front);
        let jobs = Jobs::on_thread(Arc::clone(&disk), move || wake.wake())?;
        let inbox_bytes_max = options.inbox_bytes_max;
        let (mut writer, report) = open_writer(disk, options, owner, &front, jobs, Reading::Ahead)?;
        let log = Arc::clone(&writer.log);
        let begun = Instant::now();
        let sleeper = Arc::clone(&front);
        let write = move || loop {
            match writer.step(begun.elapsed()) {
                Next::Again => {}
                Next::Sleep(at_most) => sleeper.sleep(at_most),
                // A log that has failed is still read from: nobody else may open its directory until it is closed.
                Next::End if sleeper.is_closed() => return,
                Next::End => sleeper.sleep(Duration::MAX),
            }
        };
        let thread = thread::Builder::new().name("journal".into()).spawn(write);
        let thread = thread.map_err(Failure::new("start a thread for", "log"))?;
        let disk_log = DiskLog::on_thread(log, inbox_bytes_max, thread);
        Ok((Journal::on_disk(front, disk_log), report))
    }

    /// Like [`Journal::open`], without threads: [`Journal::write_waiting`] does all their work on the caller's thread, in the
    /// same order each time.
    ///
    /// # Errors
    /// As [`OpenError`] says; never because of damage.
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        owner: impl Owner<E> + 'static,
    ) -> Result<(Journal<E>, Report), OpenError> {
        let front = Arc::new(Front::new());
        let jobs = Jobs::at_once(Arc::clone(&disk));
        let inbox_bytes_max = options.inbox_bytes_max;
        let (writer, report) = open_writer(disk, options, owner, &front, jobs, Reading::InTurn)?;
        let disk_log = DiskLog::stepped(Arc::clone(&writer.log), inbox_bytes_max, writer);
        Ok((Journal::on_disk(front, disk_log), report))
    }
}

pub(crate) fn open_writer<E: Entry, O: Owner<E>>(
    disk: Arc<dyn Disk>,
    options: JournalOptions,
    mut owner: O,
    front: &Arc<Front<E>>,
    jobs: Jobs,
    reading: Reading,
) -> Result<(Writer<E, O>, Report), OpenError> {
    let log = Arc::new(Log::default());
    let recovered = recovery::recover(&*disk, &mut owner, &log.segments, reading)?;
    let Recovered { report, mut space, mut sealed, mut spares, lost_bytes, before, next_base, tail } = recovered;
    log.findings.store(report.findings.len() as u64, Ordering::Relaxed);
    let mut checkpoint = Vec::new();
    owner.checkpoint(&mut checkpoint);
    let least = turn::least_len(&checkpoint, 0);
    let mut spare_number = spares.iter().filter_map(|spare| spare_number(&spare.name)).max().unwrap_or(0);
    let wanted = options.segment_bytes_min.max(least);
    let spare = first_spare(&*disk, &mut spares, least, wanted, &mut spare_number)?;
    for extra in spares.drain(spares.len().min(SPARES_MAX)..) {
        disk.remove(&extra.name).map_err(Failure::new("remove", &extra.name))?;
    }
    let appender = match (spare, tail) {
        (Some(spare), _) => {
            let place = Place { base: next_base, before, salt_seed: options.salt_seed };
            let appender = turn::begin(&*disk, spare, &place, &checkpoint, Vec::new())?;
            log.segments.insert(appender.segment());
            space.begin(next_base);
            appender
        }
        (None, tail) => {
            let last = sealed.pop_back().zip(tail).ok_or(OpenError::NoRoom { bytes: wanted })?;
            Appender::resume(last.0.segment, last.1)
        }
    };
    let read: u64 = sealed.iter().map(|sealed| sealed.segment.len).sum();
    let disk_bytes = read + spares.iter().map(|spare| spare.len).sum::<u64>() + appender.segment().len;
    let mut limits = Limits::new(disk_bytes, lost_bytes, spare_number);
    limits.head = appender.offset();
    let front = Arc::clone(front);
    let writer =
        Writer::new(Beginning { front, log, disk, options, owner, space, appender, sealed, spares, jobs, limits });
    Ok((writer, report))
}

/// The file in which the log goes on; `None` if the disk has no room for one.
fn first_spare(
    disk: &dyn Disk,
    spares: &mut Vec<Spare>,
    least: u64,
    wanted: u64,
    number: &mut u64,
) -> Result<Option<Spare>, OpenError> {
    let fitting = |spares: &[Spare], len| spares.iter().position(|spare| spare.len >= len);
    if let Some(index) = fitting(spares, wanted) {
        return Ok(Some(spares.swap_remove(index)));
    }
    *number += 1;
    let len = wanted.next_multiple_of(crate::frame::BLOCK);
    let name = spare_name(*number);
    match disk.create(&name, len) {
        Ok(file) => Ok(Some(Spare { name, file, len })),
        Err(error) if is_no_room(&error) => Ok(fitting(spares, least).map(|index| spares.swap_remove(index))),
        Err(error) => Err(Failure::new("create", &name)(error).into()),
    }
}

/// Reads a log without changing anything: every good record and every finding, in log order.
///
/// # Errors
/// As [`OpenError`] says; never because of damage.
pub fn scan(disk: &dyn Disk, each: &mut dyn FnMut(Scanned<'_>)) -> Result<Report, OpenError> {
    let mut report = Report::default();
    let mut bytes = Vec::new();
    for listed in load::list(disk)? {
        let loaded = listed.load(bytes)?;
        report.segments += 1;
        report.closed = loaded.is_sealed;
        let mut finds: Vec<_> = listed.finds.iter().chain(&loaded.judged.finds).copied().collect();
        finds.sort_by_key(|find| find.offset);
        let mut finds = finds.into_iter().map(|find| recovery::finding(&listed, find, false)).peekable();
        for record in &loaded.judged.records {
            while let Some(finding) = finds.next_if(|finding| finding.offset < record.offset) {
                each(Scanned::Finding(&finding));
                report.findings.push(finding);
            }
            let payload = loaded.payload(record);
            report.records += 1;
            report.payload_bytes += payload.len() as u64;
            let position = Position(listed.base + record.offset);
            each(Scanned::Record { segment: &listed.name, position, kind: kind(record.flags), payload });
        }
        for finding in finds {
            each(Scanned::Finding(&finding));
            report.findings.push(finding);
        }
        bytes = loaded.bytes;
    }
    Ok(report)
}

fn kind(flags: u32) -> RecordKind {
    match flags {
        flags if flags & CHECKPOINT != 0 => RecordKind::Checkpoint,
        flags if flags & CARRIED != 0 => RecordKind::Carried,
        _ => RecordKind::Entry,
    }
}
