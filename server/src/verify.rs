use std::io::{self, Write};
use std::path::Path;

use ciphermq_broker::inspect::Inspector;
use ciphermq_journal::{Disk, FileDisk, Finding, FindingKind, Report, Scanned, scan};
use serde::Serialize;

use crate::cli::{Fault, Status, Verify};
use crate::printable::Printable;

/// What `ciphermq verify --json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    segments: u64,
    records: u64,
    payload_bytes: u64,
    closed: bool,
    findings: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    segment: &'a str,
    offset: u64,
    bytes: u64,
    is_loss: bool,
    known_before: bool,
    what: String,
}

/// `ciphermq verify`: what a start would find, found without changing anything.
pub(crate) fn run(options: &Verify) -> Result<Status, Fault> {
    let disk = open(&options.dir)?;
    let report = check(&disk).map_err(Fault::runtime)?;
    let mut out = io::stdout().lock();
    let written = if options.json { print_json(&mut out, &report) } else { print(&mut out, &report) };
    written.map_err(Fault::runtime)?;
    Ok(if report.findings.iter().any(|finding| finding.kind.is_loss()) { Status::Failure } else { Status::Success })
}

/// The directory, to be looked at.
pub(crate) fn open(dir: &Path) -> Result<FileDisk, Fault> {
    FileDisk::open_to_look(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Fault::usage(format!("{} is no data directory: {error}", dir.display()))
        }
        _ => Fault::runtime(error),
    })
}

/// The log's findings, and those of the broker: records that are whole and mean nothing.
fn check(disk: &dyn Disk) -> Result<Report, ciphermq_journal::OpenError> {
    let mut inspector = Inspector::new();
    let mut undecodable = Vec::new();
    let mut report = scan(disk, &mut |scanned| {
        if let Scanned::Record { segment, position, payload, .. } = scanned
            && inspector.read(position, payload).is_err()
        {
            undecodable.push(Finding {
                segment: segment.to_owned(),
                offset: offset(segment, position.0),
                len: payload.len() as u64,
                kind: FindingKind::Undecodable,
                known_before: false,
            });
        }
    })?;
    report.records -= undecodable.len() as u64;
    report.findings.extend(undecodable);
    Ok(report)
}

/// A segment's name says how many bytes of log came before it.
fn offset(segment: &str, position: u64) -> u64 {
    let base = segment.strip_suffix(".log").and_then(|base| u64::from_str_radix(base, 16).ok());
    position.saturating_sub(base.unwrap_or(0))
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for finding in &report.findings {
        let word = if finding.kind.is_loss() { "DAMAGED" } else { "note" };
        writeln!(out, "{word} {}", Printable(&finding.to_string()))?;
    }
    let lost = report.findings.iter().filter(|finding| finding.kind.is_loss()).count();
    let verdict = if lost == 0 { "every record is whole".to_owned() } else { format!("{lost} damaged") };
    let closed = if report.closed { "closed in order" } else { "not closed: in use, or ended by force" };
    writeln!(
        out,
        "{verdict}: {} records of {} bytes in {} segments; {closed}",
        report.records, report.payload_bytes, report.segments
    )
}

fn print_json(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let findings = report.findings.iter().map(|finding| Row {
        segment: &finding.segment,
        offset: finding.offset,
        bytes: finding.len,
        is_loss: finding.kind.is_loss(),
        known_before: finding.known_before,
        what: finding.kind.to_string(),
    });
    let answer = Answer {
        segments: report.segments,
        records: report.records,
        payload_bytes: report.payload_bytes,
        closed: report.closed,
        findings: findings.collect(),
    };
    writeln!(out, "{}", serde_json::to_string(&answer)?)
}
