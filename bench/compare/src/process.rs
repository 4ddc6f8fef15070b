use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a broker may take to listen.
const START_MAX: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(10);
/// Lines of a broker's log that are shown when it does not start.
const LOG_LINES: usize = 4;

/// Finds programs the way a shell of root does, and where packages hide them.
#[derive(Debug)]
pub(crate) struct Programs {
    given: HashMap<String, PathBuf>,
}

impl Programs {
    pub(crate) fn new(given: impl IntoIterator<Item = (String, PathBuf)>) -> Programs {
        Programs { given: given.into_iter().collect() }
    }

    /// # Errors
    ///
    /// It is not installed.
    pub(crate) fn find(&self, name: &str) -> Result<PathBuf> {
        if let Some(path) = self.given.get(name) {
            return path.canonicalize().with_context(|| format!("{name}: {}", path.display()));
        }
        // The wrappers of RabbitMQ in sbin change the user; its own scripts are behind them.
        let places = ["/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/usr/sbin"].map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut found = places.into_iter().chain(std::env::split_paths(&path)).map(|place| place.join(name));
        found.find(|file| file.is_file()).ok_or_else(|| anyhow!("{name} is not installed"))
    }

    /// What `name <argument>` prints, for its version.
    pub(crate) fn output(&self, name: &str, argument: &str) -> Result<String> {
        let output = Command::new(self.find(name)?).arg(argument).stdin(Stdio::null()).output()?;
        // mosquitto prints its help to stdout and fails.
        Ok(String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout }).into_owned())
    }
}

/// A running broker: its process, those it needs beside it, and where it listens. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    /// The broker first.
    processes: Vec<Process>,
    log: PathBuf,
}

impl Broker {
    /// Runs `command` with its output going to `<directory>/log.txt`.
    pub(crate) fn start(mut command: Command, directory: &Path, address: SocketAddr) -> Result<Broker> {
        let log = directory.join("log.txt");
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdout(output.try_clone()?).stderr(output);
        Ok(Broker { address, processes: vec![Process::start(command)?], log })
    }

    /// Keeps a process that the broker needs, and ends it with the broker.
    pub(crate) fn with(mut self, companion: Process) -> Broker {
        self.processes.push(companion);
        self
    }

    /// Waits until something listens at the broker's address.
    ///
    /// # Errors
    ///
    /// The broker has ended, with the end of its log, or is too slow.
    pub(crate) async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = self.processes[0].child.try_wait()? {
                bail!("does not start ({status}): {}", self.log_end());
            }
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("does not listen after {} s: {}", START_MAX.as_secs(), self.log_end());
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    pub(crate) fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ")
    }

    /// Processor time of the broker and what it started.
    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time_of_tree(self.processes[0].child.id())
    }
}

/// A process in a group of its own, so that its helpers end with it. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Process> {
        let program = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        Ok(Process { child: child.with_context(|| program.to_string_lossy().into_owned())? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its data goes with it: nothing is left that would need an orderly end. One that has ended already is fine.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone_already = kill_process_group(group, Signal::KILL);
        }
        drop(self.child.wait());
    }
}

/// A loopback port nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Processor time of this process.
pub(crate) fn own_cpu_time() -> Duration {
    Stat::read(std::process::id()).map_or(Duration::ZERO, |stat| ticks(stat.own))
}

/// Processor time all cores together have spent on anything since the machine was started.
pub(crate) fn machine_cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let times = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user, nice, system, then idle and waiting for disks, then interrupts; what a guest takes is counted as user.
    let spent = times.take(7).enumerate().filter(|(index, _)| !matches!(index, 3 | 4));
    ticks(spent.filter_map(|(_, time)| time.parse::<u64>().ok()).sum())
}

fn cpu_time_of_tree(root: u32) -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let stats: HashMap<u32, Stat> = ids.filter_map(|id| Some((id, Stat::read(id)?))).collect();
    let is_below = |mut id: u32| loop {
        match stats.get(&id) {
            _ if id == root => return true,
            Some(stat) => id = stat.parent,
            None => return false,
        }
    };
    ticks(stats.iter().filter(|(id, _)| is_below(**id)).map(|(_, stat)| stat.own + stat.reaped).sum())
}

/// Processor time in clock ticks, of a process and of its children that have ended.
struct Stat {
    parent: u32,
    own: u64,
    reaped: u64,
}

impl Stat {
    fn read(process: u32) -> Option<Stat> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in parentheses may hold anything; behind it come the state and the numbers.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let parent = u32::try_from(number(1)?).ok()?;
        Some(Stat { parent, own: number(11)? + number(12)?, reaped: number(13)? + number(14)? })
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_children_is_counted_and_they_end_with_their_parent() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done & echo $! > $0; wait"]);
        let file = std::env::temp_dir().join(format!("compare-test-{}", std::process::id()));
        let process = Process::start({
            command.arg(&file);
            command
        })
        .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while cpu_time_of_tree(process.child.id()) < Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "the child's time is not seen");
            std::thread::yield_now();
        }
        let child: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        fs::remove_file(&file).unwrap();
        drop(process);
        let is_alive = || fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while is_alive() {
            assert!(Instant::now() < deadline, "the child goes on");
            std::thread::yield_now();
        }
    }
}
