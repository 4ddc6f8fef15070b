use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::{Floor, Machine, median};
use crate::message::Messages;
use crate::options::Mode;
use crate::run::{Cell, Figures};
use crate::targets::{Confirm, TARGETS, Target};

/// What a synced confirm may take, as a multiple of what the machine needs for it.
const CONFIRM_FACTOR: f64 = 1.5;
/// Cores that may be busy with something else; the kernel's writing behind the brokers' backs is part of it.
const OTHER_CORES_MAX: f64 = 0.25;

/// Collects runs, prints a table for each cell, and writes everything as JSON in the end.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    versions: BTreeMap<&'static str, String>,
    skipped: BTreeMap<&'static str, String>,
    cells: Vec<CellReport>,
}

#[derive(Debug, Serialize)]
struct CellReport {
    #[serde(flatten)]
    cell: Cell,
    message_bytes: usize,
    floors: Vec<Floor>,
    runs: Vec<Run>,
}

/// One broker in one round.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) target: &'static str,
    round: u16,
    #[serde(flatten)]
    figures: Figures,
}

impl Run {
    pub(crate) fn new(target: &Target, round: u16, figures: Figures) -> Run {
        eprintln!("  round {round}  {:<19}{:>10}/s", target.name, thousands(figures.per_second));
        Run { target: target.name, round, figures }
    }
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Report {
        Report { machine, versions: BTreeMap::new(), skipped: BTreeMap::new(), cells: Vec::new() }
    }

    pub(crate) fn present(&mut self, target: &Target, version: String) {
        self.versions.insert(target.name, version);
    }

    /// A broker that is not there, or did not get through.
    pub(crate) fn skipped(&mut self, name: &'static str, reason: &str) {
        println!("skipped {name}: {reason}");
        self.skipped.insert(name, reason.to_owned());
    }

    /// The machine, and the brokers with what their confirms stand for.
    pub(crate) fn head(&self) {
        let Machine { cores, processor, kernel, file_system, .. } = &self.machine;
        println!("{processor}, {cores} cores, Linux {kernel}, {file_system}");
        if file_system == "tmpfs" {
            println!("WARNING: the data is not on a disk, so a sync costs nothing; give a directory on one with --dir");
        }
        println!("\n{:<20}{:<14}{:<24}setting", "broker", "version", "synced before confirm");
        for target in TARGETS {
            if let Some(version) = self.versions.get(target.name) {
                println!("{:<20}{version:<14}{:<24}{}", target.name, confirm(target.confirm), target.setting);
            }
        }
    }

    /// Prints a cell's table.
    pub(crate) fn cell(&mut self, cell: Cell, floors: &[Floor], runs: Vec<Run>) {
        let message_bytes = Messages::new(cell.plaintext_bytes.0, 0).len();
        let summaries: Vec<_> = TARGETS.iter().filter_map(|target| Summary::of(target, &runs)).collect();
        println!("\n{}", title(cell, message_bytes, floors.len()));
        if let Some(floor) = Floor::median(floors) {
            println!("{}", machine_line(&floor, message_bytes));
            print!("{}{}", table(cell.mode, &summaries), verdict(cell.mode, &summaries));
            if cell.mode == Mode::Latency {
                print!("{}", confirm_line(&floor, &summaries));
            }
        }
        let busiest = runs.iter().map(|run| run.figures.other_cores).fold(0.0, f64::max);
        if busiest > OTHER_CORES_MAX {
            println!("WARNING: up to {busiest:.1} cores were busy with something else: repeat this on an idle machine");
        }
        self.cells.push(CellReport { cell, message_bytes, floors: floors.to_vec(), runs });
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let output = File::create(file).with_context(|| file.display().to_string())?;
        Ok(serde_json::to_writer_pretty(BufWriter::new(output), self)?)
    }
}

/// The medians of a broker's rounds.
struct Summary {
    target: Target,
    per_second: f64,
    lowest: f64,
    highest: f64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    broker_cores: f64,
    client_cores: f64,
}

impl Summary {
    fn of(target: &Target, runs: &[Run]) -> Option<Summary> {
        let figures: Vec<_> = runs.iter().filter(|run| run.target == target.name).map(|run| run.figures).collect();
        let of = |number: fn(&Figures) -> f64| median(figures.iter().map(number).collect());
        let maybe = |number: fn(&Figures) -> Option<f64>| median(figures.iter().filter_map(number).collect());
        let rates = || figures.iter().map(|figures| figures.per_second);
        Some(Summary {
            target: *target,
            per_second: of(|figures| figures.per_second)?,
            lowest: rates().fold(f64::INFINITY, f64::min),
            highest: rates().fold(0.0, f64::max),
            p50_us: maybe(|figures| figures.p50_us),
            p99_us: maybe(|figures| figures.p99_us),
            broker_cores: of(|figures| figures.broker_cores)?,
            client_cores: of(|figures| figures.client_cores)?,
        })
    }

    /// What ratios are made of: the time to the confirm in mode latency, messages per second otherwise.
    fn measure(&self, mode: Mode) -> f64 {
        if mode == Mode::Latency { self.p50_us.unwrap_or(f64::NAN) } else { self.per_second }
    }

    /// More is better.
    fn merit(&self, mode: Mode) -> f64 {
        if mode == Mode::Latency { -self.measure(mode) } else { self.measure(mode) }
    }
}

fn title(cell: Cell, message_bytes: usize, rounds: usize) -> String {
    let Cell { mode, plaintext_bytes, connections, window, .. } = cell;
    let what = match mode {
        Mode::Publish => format!("publish, {connections} connections x window {window}"),
        Mode::Latency => "latency of one publish at a time, 1 connection".to_owned(),
        Mode::EndToEnd => format!("end to end, {connections} publishers x window {window}, {connections} consumers"),
        Mode::Drain => format!("drain, {} messages, 1 consumer", thousands(cell.backlog.into())),
    };
    format!("== {what}, {plaintext_bytes} of plaintext in {message_bytes} bytes, median of {rounds} rounds")
}

fn machine_line(floor: &Floor, message_bytes: usize) -> String {
    let blocks = message_bytes.next_multiple_of(crate::machine::BLOCK) >> 10;
    format!(
        "machine: fdatasync of 4 KiB {:.0} us, of {blocks} KiB {:.0} us, of 480 KB {:.0} us, loopback round trip {:.0} us (least {:.0})",
        floor.sync_block_us, floor.sync_message_us, floor.sync_group_us, floor.round_trip_us, floor.round_trip_least_us
    )
}

/// How the synced confirm of ours compares with what the machine needs for one.
fn confirm_line(floor: &Floor, summaries: &[Summary]) -> String {
    let ours = summaries.iter().find(|summary| summary.target.name == "ciphermq-sync");
    let Some(p50) = ours.and_then(|ours| ours.p50_us) else { return String::new() };
    let (need, least) = (floor.confirm_us(), floor.confirm_least_us());
    let verdict = if p50 <= need * CONFIRM_FACTOR { "within" } else { "beyond" };
    format!(
        "ciphermq-sync: {p50:.0} us = {:.2} x (fdatasync + round trip = {need:.0} us), {verdict} {CONFIRM_FACTOR}; \
         {:.2} x with the least round trip ({least:.0} us)\n",
        p50 / need,
        p50 / least
    )
}

/// Ours that syncs against the best of those that sync, and the best of those that do not.
fn verdict(mode: Mode, summaries: &[Summary]) -> String {
    let Some(ours) = summaries.iter().find(|summary| summary.target.name == "ciphermq-sync") else {
        return String::new();
    };
    let others = || summaries.iter().filter(|summary| summary.target.family != "ciphermq");
    let best = |is_synced: bool| {
        let alike = others().filter(move |summary| (summary.target.confirm == Confirm::Synced) == is_synced);
        alike.max_by(|one, other| one.merit(mode).total_cmp(&other.merit(mode)))
    };
    let against = |is_synced: bool, what: &str| match best(is_synced) {
        Some(best) => {
            format!("; {:.2} x {}, the fastest that {what}", ours.measure(mode) / best.measure(mode), best.target.name)
        }
        None => String::new(),
    };
    let unit = if mode == Mode::Latency { " us" } else { "/s" };
    let head = format!("ciphermq-sync: {}{unit}", thousands(ours.measure(mode)));
    head + &against(true, "syncs") + &against(false, "does not") + "\n"
}

/// Ours come first and are the columns of ratios.
fn table(mode: Mode, summaries: &[Summary]) -> String {
    let is_ours = |summary: &&Summary| summary.target.family == "ciphermq";
    let ours: Vec<_> = summaries.iter().filter(is_ours).collect();
    let mut text = format!("{:<20}{:<11}{:>11}{:>21}", "", "synced", "messages/s", "lowest - highest");
    text += &format!("{:>10}{:>10}{:>8}{:>8}", "p50 us", "p99 us", "broker", "client");
    for ours in &ours {
        text += &format!("{:>10}", ours.target.name.trim_start_matches("ciphermq-"));
    }
    if !ours.is_empty() {
        text += if mode == Mode::Latency { "  <- p50 of ours / theirs" } else { "  <- ours / theirs" };
    }
    text.push('\n');
    for summary in summaries {
        text += &row(mode, summary, &ours);
    }
    text
}

fn row(mode: Mode, summary: &Summary, ours: &[&Summary]) -> String {
    let Summary { per_second, lowest, highest, broker_cores, client_cores, .. } = summary;
    let range = format!("{} - {}", thousands(*lowest), thousands(*highest));
    let us = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"));
    let synced = if summary.target.confirm == Confirm::Synced { "yes" } else { "no" };
    let mut text = format!("{:<20}{synced:<11}{:>11}{range:>21}", summary.target.name, thousands(*per_second));
    text += &format!("{:>10}{:>10}{broker_cores:>8.2}{client_cores:>8.2}", us(summary.p50_us), us(summary.p99_us));
    for ours in ours {
        let ratio = ours.measure(mode) / summary.measure(mode);
        text += &if ratio.is_finite() { format!("{ratio:>10.2}") } else { format!("{:>10}", "-") };
    }
    text.push('\n');
    text
}

fn confirm(confirm: Confirm) -> String {
    match confirm {
        Confirm::Synced => "yes".into(),
        Confirm::SyncedLater(when) => format!("no, up to {when} later"),
        Confirm::NotSynced => "no, never".into(),
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
    use super::*;

    fn figures(per_second: f64, p50_us: f64) -> Figures {
        Figures {
            per_second,
            messages: 1,
            p50_us: Some(p50_us),
            p99_us: None,
            broker_cores: 1.0,
            client_cores: 1.0,
            other_cores: 0.0,
        }
    }

    fn runs(name: &str, figures: &[Figures]) -> Vec<Run> {
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        (1..).zip(figures).map(|(round, figures)| Run::new(target, round, *figures)).collect()
    }

    #[test]
    fn ratios_are_ours_by_theirs_of_medians() {
        let mut all =
            runs("ciphermq-sync", &[figures(300_000.0, 90.0), figures(100_000.0, 110.0), figures(200_000.0, 100.0)]);
        all.extend(runs("redis-always", &[figures(50_000.0, 200.0)]));
        let summaries: Vec<_> = TARGETS.iter().filter_map(|target| Summary::of(target, &all)).collect();
        let last = |mode| table(mode, &summaries).lines().last().unwrap().to_owned();
        assert!(last(Mode::Publish).ends_with("4.00"), "{}", last(Mode::Publish));
        assert!(last(Mode::Latency).ends_with("0.50"), "{}", last(Mode::Latency));
        let verdict = verdict(Mode::Latency, &summaries);
        assert_eq!(verdict, "ciphermq-sync: 100 us; 0.50 x redis-always, the fastest that syncs\n");
        assert_eq!((summaries[0].lowest, summaries[0].highest), (100_000.0, 300_000.0));
    }
}
