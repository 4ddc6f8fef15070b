use std::io::{self, Write as _};

use serde::Serialize;

use super::histogram::Histogram;

/// One measured thing.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) mode: &'static str,
    /// Bytes of plaintext.
    pub(super) plaintext_bytes: usize,
    /// Bytes of the line, or of the envelope where there is no line.
    pub(super) line_bytes: usize,
    pub(super) connections: usize,
    pub(super) window: usize,
    pub(super) messages: u64,
    pub(super) messages_per_second: f64,
    /// Processor time of the broker for each message; hardly moved by what else the machine does.
    pub(super) broker_cpu_us: Option<f64>,
    #[serde(flatten)]
    pub(super) latency: Option<Latency>,
}

#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

impl From<&Histogram> for Latency {
    fn from(histogram: &Histogram) -> Latency {
        let us = |part| histogram.percentile_us(part);
        Latency { p50_us: us(0.5), p99_us: us(0.99), p999_us: us(0.999) }
    }
}

/// Memory the broker takes for `count` things.
#[derive(Debug, Serialize)]
pub(super) struct MemoryRow {
    pub(super) mode: &'static str,
    pub(super) count: u64,
    /// Bytes of all envelopes; 0 for connections.
    pub(super) payload_bytes: u64,
    pub(super) before_bytes: u64,
    pub(super) after_bytes: u64,
    pub(super) bytes_each: f64,
}

/// How long a broker took to be there again.
#[derive(Debug, Serialize)]
pub(super) struct ReopenRow {
    pub(super) mode: &'static str,
    /// Messages that were there again.
    pub(super) count: u64,
    /// Bytes of all envelopes.
    pub(super) payload_bytes: u64,
    /// Bytes of all files.
    pub(super) disk_bytes: u64,
    pub(super) seconds: f64,
}

/// The time of one message at a time beside what the machine itself needs for it.
#[derive(Debug, Serialize)]
pub(super) struct WindowOneRow {
    pub(super) mode: &'static str,
    pub(super) plaintext_bytes: usize,
    pub(super) publish_p50_us: f64,
    /// Write and sync of as many blocks into prepared space; 0 in memory.
    pub(super) sync_p50_us: f64,
    /// A line of that length and an answer.
    pub(super) round_trip_p50_us: f64,
    pub(super) ratio: f64,
}

/// Writes rows as they come: a table for people, or a line of JSON for each.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Report {
        Report { json }
    }

    /// A line for people.
    pub(super) fn note(&self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.write(text) }
    }

    pub(super) fn head(&self) -> io::Result<()> {
        self.note(&format!(
            "{:<12}{:>10}{:>8}{:>7}{:>8}{:>14}{:>12}{:>12}{:>12}{:>12}",
            "mode", "plaintext", "line", "conns", "window", "messages/s", "cpu us/msg", "p50 us", "p99 us", "p99.9 us"
        ))
    }

    pub(super) fn row(&self, row: &Row) -> io::Result<()> {
        if self.json {
            return self.json(row);
        }
        let mut text = format!(
            "{:<12}{:>10}{:>8}{:>7}{:>8}{:>14}",
            row.mode,
            row.plaintext_bytes,
            row.line_bytes,
            row.connections,
            row.window,
            thousands(row.messages_per_second)
        );
        match row.broker_cpu_us {
            Some(us) => text.push_str(&format!("{us:>12.2}")),
            None => text.push_str(&format!("{:>12}", "")),
        }
        if let Some(Latency { p50_us, p99_us, p999_us }) = row.latency {
            text.push_str(&format!("{p50_us:>12.1}{p99_us:>12.1}{p999_us:>12.1}"));
        }
        self.write(text.trim_end())
    }

    pub(super) fn memory(&self, row: &MemoryRow) -> io::Result<()> {
        if self.json {
            return self.json(row);
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut text = format!(
            "{:<12}{:>14} of them: {:.1} MiB resident, {:.1} MiB before, {:.0} B each",
            row.mode,
            thousands(row.count as f64),
            mib(row.after_bytes),
            mib(row.before_bytes),
            row.bytes_each
        );
        if row.payload_bytes > 0 {
            text.push_str(&format!(", {} B of it envelope", row.payload_bytes / row.count.max(1)));
        }
        self.write(&text)
    }

    pub(super) fn reopen(&self, row: &ReopenRow) -> io::Result<()> {
        if self.json {
            return self.json(row);
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.write(&format!(
            "{:<14}{:>12} messages in {:.3} s, {:.0} MiB of envelopes, {:.0} MiB of files",
            row.mode,
            thousands(row.count as f64),
            row.seconds,
            mib(row.payload_bytes),
            mib(row.disk_bytes)
        ))
    }

    pub(super) fn window_one(&self, row: &WindowOneRow) -> io::Result<()> {
        if self.json {
            return self.json(row);
        }
        self.write(&format!(
            "{:<12}{:>10}  publish p50 {:.1} us = {:.2} x (write+sync {:.1} us + round trip {:.1} us)",
            row.mode, row.plaintext_bytes, row.publish_p50_us, row.ratio, row.sync_p50_us, row.round_trip_p50_us
        ))
    }

    fn json(&self, row: &impl Serialize) -> io::Result<()> {
        self.write(&serde_json::to_string(row)?)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }
}

/// `1234567.8` as `1,234,568`.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0.4), "0");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(1000.0), "1,000");
        assert_eq!(thousands(1234567.8), "1,234,568");
    }
}
