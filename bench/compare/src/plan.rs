use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::watch;

use crate::machine::{Floor, Machine};
use crate::message::Messages;
use crate::options::{Mode, Options};
use crate::process::Programs;
use crate::report::{Report, Run};
use crate::run::{self, Cell, Figures};
use crate::targets::{TARGETS, Target};

/// How long a run may take beyond the time it counts: starting, filling, draining.
const RUN_MAX: Duration = Duration::from_secs(180);

/// Carries out all runs: cell by cell, in each of them round by round, in each of these broker by broker.
pub(crate) fn carry_out(options: &Options) -> Result<()> {
    let site = Site::make(options.dir.as_deref())?;
    let given = options.ciphermq.iter().map(|path| ("ciphermq".to_owned(), path.clone()));
    let programs = Programs::new(options.programs.iter().cloned().chain(given));
    let mut report = Report::new(Machine::look(&site.0)?);
    let stage = Stage { programs, site, interrupted: on_interrupt()? };
    let mut targets = stage.present(&chosen(&options.only)?, &mut report)?;
    ensure!(!targets.is_empty(), "nothing to measure");
    report.head();
    for cell in cells(options) {
        let mut floors = Vec::new();
        let mut runs = Vec::new();
        for round in 1..=options.rounds {
            floors.push(stage.site.floor(cell)?);
            for target in targets.clone() {
                match stage.measure(&target, cell) {
                    Ok(figures) => runs.push(Run::new(&target, round, figures)),
                    Err(_) if stage.is_interrupted() => bail!("interrupted"),
                    Err(fault) => {
                        report.skipped(target.name, &format!("{fault:#}"));
                        // What has failed once is left out from here on: a median of other runs would say something else.
                        targets.retain(|other| other.name != target.name);
                        runs.retain(|run: &Run| run.target != target.name);
                    }
                }
            }
        }
        report.cell(cell, &floors, runs);
    }
    match &options.json {
        Some(file) => report.write(file),
        None => Ok(()),
    }
}

/// The tables to be filled. Latency is one message at a time on one connection, whatever else is asked for.
fn cells(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &mode in &options.modes {
        for &plaintext_bytes in &options.sizes {
            let Options { connections, seconds, backlog, .. } = *options;
            let cell = |connections, window| Cell { mode, plaintext_bytes, connections, window, seconds, backlog };
            match mode {
                Mode::Publish => cells.extend(options.windows.iter().map(|window| cell(connections, *window))),
                Mode::Latency => cells.push(cell(1, 1)),
                Mode::EndToEnd | Mode::Drain => {
                    cells.extend(options.windows.first().map(|window| cell(connections, *window)));
                }
            }
        }
    }
    cells
}

fn chosen(only: &[String]) -> Result<Vec<Target>> {
    let is_meant = |target: &Target, name: &String| target.name == name || target.family == name;
    for name in only {
        let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
        ensure!(TARGETS.iter().any(|target| is_meant(target, name)), "--only {name}: there are {}", names());
    }
    let is_chosen = |target: &&Target| only.is_empty() || only.iter().any(|name| is_meant(target, name));
    Ok(TARGETS.iter().filter(is_chosen).copied().collect())
}

/// Where runs take place.
struct Stage {
    programs: Programs,
    site: Site,
    interrupted: watch::Receiver<bool>,
}

impl Stage {
    /// Those that are installed and start; the report names the others.
    fn present(&self, targets: &[Target], report: &mut Report) -> Result<Vec<Target>> {
        let mut present = Vec::new();
        for target in targets {
            let version = target.version(&self.programs).and_then(|version| {
                self.run(target, Mode::Publish, RUN_MAX, async |directory| {
                    run::try_out(target, &self.programs, directory).await
                })?;
                Ok(version)
            });
            match version {
                Ok(version) => {
                    report.present(target, version);
                    present.push(*target);
                }
                Err(_) if self.is_interrupted() => bail!("interrupted"),
                Err(fault) => report.skipped(target.name, &format!("{fault:#}")),
            }
        }
        Ok(present)
    }

    fn measure(&self, target: &Target, cell: Cell) -> Result<Figures> {
        let limit = Duration::from_secs_f64(cell.seconds) + RUN_MAX;
        self.run(target, cell.mode, limit, async |directory| {
            run::measure(target, cell, &self.programs, directory).await
        })
    }

    /// Lets `run` use a fresh directory, for the time `limit` or until somebody interrupts.
    fn run<T>(
        &self,
        target: &Target,
        mode: Mode,
        limit: Duration,
        run: impl AsyncFnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let directory = self.site.fresh(target.name)?;
        let mut interrupted = self.interrupted.clone();
        let runtime = run::runtime(mode)?;
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = tokio::time::timeout(limit, run(&directory)) => outcome.context("takes too long").flatten(),
                _ = interrupted.wait_for(|is_interrupted| *is_interrupted) => bail!("interrupted"),
            }
        });
        runtime.shutdown_background();
        self.site.clear(&directory)?;
        outcome
    }

    fn is_interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }
}

/// Becomes true when somebody presses Ctrl-C or sends SIGTERM: brokers are ended before this program is.
fn on_interrupt() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
            let Ok(mut terminate) = terminate else { return };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            sender.send_replace(true);
            // A receiver of a closed channel would not wait.
            std::future::pending::<()>().await;
        });
    });
    Ok(receiver)
}

/// A directory of this program's own on the disk to be measured; removed in the end.
struct Site(PathBuf);

impl Site {
    fn make(parent: Option<&Path>) -> Result<Site> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf).canonicalize()?;
        let place = parent.join(format!("ciphermq-compare-{}", std::process::id()));
        fs::create_dir(&place).with_context(|| place.display().to_string())?;
        Ok(Site(place))
    }

    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let directory = self.0.join(name);
        fs::create_dir(&directory)?;
        Ok(directory)
    }

    /// Removes a run's data and waits until the disk is quiet: nobody pays for what another left unwritten.
    fn clear(&self, directory: &Path) -> Result<()> {
        // A helper of the broker that was killed a moment ago may have made a file meanwhile.
        fs::remove_dir_all(directory).or_else(|_| fs::remove_dir_all(directory))?;
        Ok(rustix::fs::syncfs(File::open(&self.0)?)?)
    }

    fn floor(&self, cell: Cell) -> Result<Floor> {
        Floor::measure(&self.0, Messages::new(cell.plaintext_bytes.0, 0).len())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What cannot be removed is left for a human.
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn windows_are_for_publishing_and_latency_has_its_own() {
        let options = Options::parse_from(["compare", "--sizes", "256,1KiB", "--windows", "256,1"]);
        let cells = cells(&options);
        let of = |mode| cells.iter().filter(|cell| cell.mode == mode).collect::<Vec<_>>();
        assert_eq!(of(Mode::Publish).len(), 4);
        assert!(of(Mode::Latency).iter().all(|cell| (cell.connections, cell.window) == (1, 1)));
        assert_eq!((of(Mode::Latency).len(), of(Mode::EndToEnd).len(), of(Mode::Drain).len()), (2, 2, 2));
    }

    #[test]
    fn families_and_single_settings_can_be_chosen() {
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&only).map(|targets| targets.iter().map(|target| target.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), TARGETS.len());
        assert_eq!(names(&["mosquitto", "redis"]).unwrap(), ["redis-always", "redis-everysec", "mosquitto"]);
        assert_eq!(names(&["nats-always"]).unwrap(), ["nats-always"]);
        assert!(names(&["kafka"]).unwrap_err().to_string().contains("redis-always"));
    }
}
