use std::io::{self, BufWriter, Write};

use ciphermq_broker::inspect::{Described, Inspector};
use ciphermq_journal::{Finding, Position, RecordKind, Scanned, Undecodable, scan};
use serde::Serialize;

use crate::cli::{Fault, Inspect, Status};
use crate::printable::{Printable, PrintableJson};
use crate::verify;

/// One record as `ciphermq inspect --json` prints it. Never a body.
#[derive(Serialize)]
struct Row<'a> {
    position: u64,
    segment: &'a str,
    /// `entry`, `carried` or `checkpoint`.
    place: &'static str,
    /// Bytes of the record.
    bytes: usize,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    Known {
        /// Milliseconds since 1970.
        at: u64,
        kind: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        exchange: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        queues: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        order: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        envelope_bytes: Option<u64>,
        #[serde(skip_serializing_if = "str::is_empty")]
        detail: &'a str,
    },
    Unknown {
        error: &'static str,
    },
}

/// What is printed, and where to.
struct Printer<'a, W> {
    out: W,
    options: &'a Inspect,
    inspector: Inspector,
    /// Damage was met.
    is_damaged: bool,
    /// Printing failed: nobody reads on.
    failed: Option<io::Error>,
}

/// `ciphermq inspect`: a line for each record.
pub(crate) fn run(options: &Inspect) -> Result<Status, Fault> {
    let disk = verify::open(&options.dir)?;
    let out = BufWriter::new(io::stdout().lock());
    let mut printer = Printer { out, options, inspector: Inspector::new(), is_damaged: false, failed: None };
    scan(&disk, &mut |scanned| printer.take(&scanned)).map_err(Fault::runtime)?;
    let Printer { mut out, is_damaged, failed, .. } = printer;
    match failed.map_or_else(|| out.flush(), Err) {
        // `ciphermq inspect … | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Status::Success),
        Err(error) => Err(Fault::runtime(error)),
        Ok(()) => Ok(if is_damaged { Status::Failure } else { Status::Success }),
    }
}

impl<W: Write> Printer<'_, W> {
    fn take(&mut self, scanned: &Scanned<'_>) {
        let printed = match scanned {
            Scanned::Record { segment, position, kind, payload } => self.record(segment, *position, *kind, payload),
            Scanned::Finding(finding) => self.finding(finding),
        };
        if let Err(error) = printed {
            self.failed.get_or_insert(error);
        }
    }

    fn record(&mut self, segment: &str, position: Position, kind: RecordKind, payload: &[u8]) -> io::Result<()> {
        // Records that are not shown tell the names of those that are.
        let described = self.inspector.read(position, payload);
        self.is_damaged |= described.is_err();
        if self.failed.is_some() || position.0 < self.options.from || !self.is_of_queue(described.as_ref().ok()) {
            return Ok(());
        }
        let row =
            Row { position: position.0, segment, place: place(kind), bytes: payload.len(), what: what(&described) };
        if self.options.json {
            let line = serde_json::to_string(&row)?;
            writeln!(self.out, "{}", PrintableJson(&line))
        } else {
            writeln!(self.out, "{}", Printable(&row.to_string()))
        }
    }

    fn finding(&mut self, finding: &Finding) -> io::Result<()> {
        self.is_damaged |= finding.kind.is_loss();
        if self.failed.is_some() || self.options.json {
            return Ok(());
        }
        let word = if finding.kind.is_loss() { "DAMAGED" } else { "note" };
        writeln!(self.out, "{word} {}", Printable(&finding.to_string()))
    }

    fn is_of_queue(&self, described: Option<&Described>) -> bool {
        let Some(queue) = &self.options.queue else { return true };
        described.is_some_and(|described| described.queues.contains(queue))
    }
}

fn place(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Entry => "entry",
        RecordKind::Carried => "carried",
        RecordKind::Checkpoint => "checkpoint",
    }
}

fn what(described: &Result<Described, Undecodable>) -> What<'_> {
    match described {
        Err(Undecodable(error)) => What::Unknown { error },
        Ok(described) => What::Known {
            at: described.at.0,
            kind: described.kind,
            exchange: described.exchange.as_deref(),
            key: described.key.as_deref(),
            queues: &described.queues,
            message_id: described.id.as_deref(),
            order: described.order.map(|order| order.0),
            envelope_bytes: described.envelope_bytes,
            detail: &described.detail,
        },
    }
}

impl std::fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { position, place, bytes, what, .. } = self;
        let What::Known { at, kind, exchange, key, queues, message_id, order, envelope_bytes, detail } = what else {
            let What::Unknown { error } = what else { return Ok(()) };
            return write!(f, "{position} NOT UNDERSTOOD: {error} bytes={bytes}");
        };
        write!(f, "{position} {} {kind}", Utc(*at))?;
        for (name, value) in [("exchange", exchange), ("key", key), ("id", message_id)] {
            value.map_or(Ok(()), |value| write!(f, " {name}={value}"))?;
        }
        if !queues.is_empty() {
            write!(f, " queues={}", queues.join(","))?;
        }
        order.map_or(Ok(()), |order| write!(f, " order={order}"))?;
        envelope_bytes.map_or(Ok(()), |bytes| write!(f, " envelope={bytes}"))?;
        write!(f, " bytes={bytes}")?;
        if *place != "entry" {
            write!(f, " ({place})")?;
        }
        if detail.is_empty() { Ok(()) } else { write!(f, " {detail}") }
    }
}

/// Milliseconds since 1970 as people read them.
pub(crate) struct Utc(pub(crate) u64);

impl std::fmt::Display for Utc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last of a year of the count.
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_400_YEARS: u64 = 146_097;
    let days = days.saturating_add(DAYS_TO_1970);
    let (era, of_era) = (days / DAYS_400_YEARS, days % DAYS_400_YEARS);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Utc(ms).to_string(), shown);
        }
    }
}
