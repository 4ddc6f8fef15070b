use std::fs;
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A server started by the bench from its own binary; ended when dropped.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    pub(super) address: SocketAddr,
    /// Kept open: a server may write to it later.
    _stdout: BufReader<ChildStdout>,
}

impl ServerProcess {
    /// Runs `ciphermq <arguments>` and waits for the address at the end of its first line.
    pub(super) fn start(arguments: &[&str]) -> io::Result<ServerProcess> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        // What the caller has set for a broker of theirs is not meant for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CIPHERMQ_")) {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        let address = line.trim_end().rsplit(' ').next().and_then(|address| address.parse().ok());
        match (read, address) {
            (Ok(_), Some(address)) => Ok(ServerProcess { child, address, _stdout: stdout }),
            (read, _) => {
                end(&mut child);
                Err(read.err().unwrap_or_else(|| io::Error::other("the server did not start")))
            }
        }
    }

    /// Ends it as a service manager does, and waits.
    pub(super) fn stop(mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the broker ended with {status}"))) }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory the process holds, as the kernel counts them.
    pub(super) fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
        kibibytes.map(|number| number << 10).ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

/// Processor time a process has used so far, on all cores together; `None` where the kernel does not tell.
pub(super) fn cpu_time(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything; counted from behind it, user and system time are fields 12 and 13.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|ticks| ticks.parse::<u64>().ok());
    let ticks = times.next()? + times.next()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It holds nothing that would need an orderly end; one that has ended already is fine.
    drop(child.kill());
    drop(child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_grows_with_work() {
        let own = || cpu_time(std::process::id());
        let Some(before) = own() else { return };
        let enough = before + Duration::from_millis(30);
        let mut work = 0_u64;
        while own().is_some_and(|now| now < enough) {
            work = (0..100_000).fold(work, |sum, n| std::hint::black_box(sum ^ n));
        }
        assert!(own().is_some_and(|now| now >= enough));
        assert_eq!(cpu_time(u32::MAX), None);
    }
}
