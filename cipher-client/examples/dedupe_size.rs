//! What a full window of seen messages costs: disk, memory, time to start, time for a look.
//!
//! `cargo run --release -p cipher-client --example dedupe_size [messages] [directory]`
//!
//! The steps run in processes of their own, so that the memory of one is not counted with another. Everything that
//! was noted is looked up again, and as many messages that were not.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use cipher_client::dedupe::{DedupeOptions, DedupeWindow, Freshness};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

const MESSAGES: u64 = 10_000_000;
/// Looks of each kind that are timed one by one.
const TIMED: u64 = 500_000;

fn main() -> Result {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["step", step, messages, ref dir] => run(step, messages.parse()?, Path::new(dir)),
        [messages, dir] => measure(messages.parse()?, Path::new(dir)),
        [messages] => measure_in_temporary(messages.parse()?),
        _ => measure_in_temporary(MESSAGES),
    }
}

fn measure_in_temporary(messages: u64) -> Result {
    let dir = tempfile::tempdir()?;
    measure(messages, dir.path())
}

fn measure(messages: u64, dir: &Path) -> Result {
    println!("{messages} messages");
    for step in ["fill", "start", "turn", "verify"] {
        let child = Command::new(env::current_exe()?).args(["step", step, &messages.to_string()]).arg(dir).status()?;
        if !child.success() {
            return Err(format!("{step} failed").into());
        }
    }
    Ok(())
}

fn run(step: &str, messages: u64, dir: &Path) -> Result {
    let path = dir.join("seen.db");
    let begin = Instant::now();
    let options = DedupeOptions { entries: messages as usize, ..DedupeOptions::default() };
    let mut window = DedupeWindow::open(&path, options, now())?;
    let start = begin.elapsed();
    match step {
        "fill" => fill(&mut window, messages)?,
        "start" => {
            let recovery = window.recovery();
            println!(
                "start       {:.2} s, {:.2} s of processor time, {} records, {} damaged",
                start.as_secs_f64(),
                processor_secs()?,
                recovery.records,
                recovery.damaged
            );
            memory("after start")?;
            looks(&mut window, messages)?;
        }
        // Another lap: each note goes over an old one.
        "turn" => turn(&mut window, messages)?,
        _ => verify(&window, messages)?,
    }
    memory(step)?;
    window.sync()?;
    disk(&path)
}

fn fill(window: &mut DedupeWindow, messages: u64) -> Result {
    let (begin, mut times) = (Instant::now(), Times::new());
    for n in 0..messages {
        times.time(|| take(window, n, Freshness::Fresh))?;
    }
    println!("fill        {:.0} notes/s", messages as f64 / begin.elapsed().as_secs_f64());
    times.print("note, while it fills");
    Ok(())
}

fn looks(window: &mut DedupeWindow, messages: u64) -> Result {
    let (mut fresh, mut known) = (Times::new(), Times::new());
    for n in 0..TIMED {
        fresh.time(|| look(window, u64::MAX / 2 + n, false))?;
        known.time(|| look(window, scattered(n) % messages, true))?;
    }
    fresh.print("look, fresh");
    known.print("look, duplicate");
    Ok(())
}

fn turn(window: &mut DedupeWindow, messages: u64) -> Result {
    let (mut fresh, mut known) = (Times::new(), Times::new());
    for n in 0..TIMED {
        fresh.time(|| take(window, messages + n, Freshness::Fresh))?;
        // Those noted latest are the last to go.
        let old = n + 1 + scattered(n) % (messages - 1);
        known.time(|| take(window, old, Freshness::Duplicate))?;
    }
    fresh.print("look and note, fresh");
    known.print("look and note, duplicate");
    Ok(())
}

fn verify(window: &DedupeWindow, messages: u64) -> Result {
    let begin = Instant::now();
    for n in 0..messages {
        look(window, TIMED + n, true)?;
        look(window, u64::MAX / 2 + n, false)?;
    }
    (0..TIMED).try_for_each(|n| look(window, n, false))?;
    println!(
        "verified    {messages} known, {} not, {:.0} looks/s",
        messages + TIMED,
        2.0 * messages as f64 / begin.elapsed().as_secs_f64()
    );
    Ok(())
}

fn look(window: &DedupeWindow, n: u64, expected: bool) -> Result {
    let (id, uniqueness) = message(n);
    match window.contains(&id, &uniqueness, now()) == expected {
        true => Ok(()),
        false => Err(format!("message {n}: seen is {}, should be {expected}", !expected).into()),
    }
}

fn take(window: &mut DedupeWindow, n: u64, expected: Freshness) -> Result {
    let (id, uniqueness) = message(n);
    let said = window.check_and_insert(&id, &uniqueness, now())?;
    match said == expected {
        true => Ok(()),
        false => Err(format!("message {n} is {said:?}, should be {expected:?}").into()),
    }
}

fn message(n: u64) -> (String, [u8; 32]) {
    let mut uniqueness = [0x5a; 32];
    uniqueness[8..16].copy_from_slice(&n.to_le_bytes());
    (format!("7c9e6679-7425-40de-944b-{n:020}"), uniqueness)
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn scattered(n: u64) -> u64 {
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 3
}

/// Times in steps of about 3 %, so that counting them takes no memory to speak of.
struct Times(Vec<u64>);

impl Times {
    const PER_DOUBLING: f64 = 24.0;

    fn new() -> Self {
        Self(vec![0; 1024])
    }

    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let done = work();
        let nanos = begin.elapsed().as_nanos().max(1) as f64;
        self.0[(nanos.log2() * Self::PER_DOUBLING) as usize] += 1;
        done
    }

    fn print(&self, what: &str) {
        let at = |share: f64| {
            let mut left = (self.0.iter().sum::<u64>() as f64 * share).ceil() as u64;
            let step = self.0.iter().position(|count| {
                left = left.saturating_sub(*count);
                left == 0
            });
            2f64.powf((step.unwrap_or_default() + 1) as f64 / Self::PER_DOUBLING) / 1000.0
        };
        let [p50, p99, p9999, max] = [0.5, 0.99, 0.9999, 1.0].map(at);
        println!("{what:26}p50 {p50:.1} us, p99 {p99:.1} us, p99.99 {p9999:.0} us, longest {max:.0} us");
    }
}

fn memory(when: &str) -> Result {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = |name| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    let megabytes = |name| -> f64 {
        let kilobytes: String = line(name).chars().filter(char::is_ascii_digit).collect();
        kilobytes.parse::<f64>().unwrap_or(f64::NAN) * 1024.0 / 1e6
    };
    println!("memory      {:.1} MB, at most {:.1} MB ({when})", megabytes("VmRSS"), megabytes("VmHWM"));
    Ok(())
}

/// Of this thread, the only one: what is left on a machine that others use, too.
fn processor_secs() -> Result<f64> {
    let schedule = fs::read_to_string("/proc/self/schedstat")?;
    let nanos: f64 = schedule.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanos / 1e9)
}

fn disk(path: &Path) -> Result {
    let mut index = path.as_os_str().to_owned();
    index.push(".index");
    let (ring, index) = (fs::metadata(path)?.len(), fs::metadata(PathBuf::from(index))?.len());
    println!(
        "disk        {:.1} MB: records {:.1}, index {:.1}",
        (ring + index) as f64 / 1e6,
        ring as f64 / 1e6,
        index as f64 / 1e6
    );
    Ok(())
}
