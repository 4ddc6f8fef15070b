//! Whether the time of an opening tells why it failed (docs/encryption.md, "Side channels and misuse").
//!
//! ```text
//! make timing [SAMPLES=100000] [RSA_SECONDS=900] [ENVELOPES=1000]
//! ```
//!
//! Opens suite-1 envelopes that are valid or wrong in one way each, in random order, and compares the times of the classes
//! with Welch's t-test. Two parts: with the session key known (the unwrap cache; SAMPLES of each class), and with an RSA
//! decryption for each (SAMPLES of each class or what fits into RSA_SECONDS). Each class has ENVELOPES different ones.
//! CIPHERMQ_SEED repeats order and alterations; keys are new each time.
//!
//! What is judged: the ways to fail among each other in both parts, and those with a valid message where RSA is at work.
//! With a known key valid and invalid differ by the decryption that a wrong tag prevents; whether a message opened is told
//! by its acknowledgement anyhow. A block over the modulus is refused early and shown only: the modulus is public.
//!
//! Exit code 0: nothing found; 1: a difference found; 2: no statement, because a control failed.

mod classes;
mod statistic;

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cipher_client::crypto::{OpenPolicy, Opener, PrivateKey};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use classes::{Class, Maker};
use statistic::{T_MAX, compare, median};

pub(crate) type Failure = Box<dyn Error>;

/// What a run takes.
struct Settings {
    seed: u64,
    bits: usize,
    /// Openings of each class in each part.
    samples: usize,
    /// Time of the part with RSA.
    rsa_time: Duration,
    /// Different envelopes of each class: what memory holds them and what numbers they hold shall not decide.
    envelopes: usize,
    /// By how much the control is slowed: known key, and RSA.
    slowed_by: [Duration; 2],
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Found,
    NoStatement,
}

fn main() -> ExitCode {
    match settings().and_then(|settings| run(&settings, &mut std::io::stdout())) {
        Ok(Verdict::Nothing) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::FAILURE,
        Ok(Verdict::NoStatement) => ExitCode::from(2),
        Err(failure) => {
            eprintln!("timing: {failure}");
            ExitCode::from(2)
        }
    }
}

fn settings() -> Result<Settings, Failure> {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| Failure::from(format!("{name} is no number: {text}"))),
        Err(_) => Ok(default),
    };
    Ok(Settings {
        seed: number("CIPHERMQ_SEED", getrandom::u64()?)?,
        bits: 2048,
        samples: usize::try_from(number("SAMPLES", 100_000)?)?,
        rsa_time: Duration::from_secs(number("RSA_SECONDS", 900)?),
        envelopes: usize::try_from(number("ENVELOPES", 1000)?)?,
        slowed_by: [Duration::from_nanos(50), Duration::from_micros(30)],
    })
}

fn run(settings: &Settings, out: &mut impl Write) -> Result<Verdict, Failure> {
    let mut random = StdRng::seed_from_u64(settings.seed);
    writeln!(out, "CIPHERMQ_SEED={}, RSA-{}, load {}", settings.seed, settings.bits, load())?;
    let key = PrivateKey::generate(settings.bits)?;
    let mut maker = Maker::new(&key, settings.bits, &mut random)?;
    let mut pools = Vec::new();
    for class in Class::ALL {
        let pool: Result<Vec<_>, _> = (0..settings.envelopes).map(|_| maker.make(class)).collect();
        pools.push(pool?);
    }
    let between = maker.make(Class::Valid)?;
    let mut bench = Bench { opener: opener(&key)?, pools, between, random };

    let known = Part { is_valid_judged: false, slowed_by: settings.slowed_by[0] };
    bench.warm_up();
    let times = bench.times(settings.samples, None, known.slowed_by, Bench::open_known);
    writeln!(out, "\nsession key known: {} openings of each class, nanoseconds", times.count())?;
    let first = known.report(&times, out)?;

    let unwrapped = Part { is_valid_judged: true, slowed_by: settings.slowed_by[1] };
    let times = bench.times(settings.samples, Some(settings.rsa_time), unwrapped.slowed_by, Bench::open_unwrapping);
    writeln!(out, "\nan RSA decryption each: {} openings of each class, nanoseconds", times.count())?;
    let second = unwrapped.report(&times, out)?;

    let verdict = first.and(second);
    let told = match verdict {
        Verdict::Nothing => "no difference found that is to be judged",
        Verdict::Found => "a difference is found, see the lines marked !",
        Verdict::NoStatement => "no statement, a control failed: the machine is too busy, or there are too few samples",
    };
    writeln!(out, "\nload {}\nverdict (|t| <= {T_MAX}): {told}", load())?;
    Ok(verdict)
}

/// Failures are to be measured, so none is refused and none forgotten.
fn opener(key: &PrivateKey) -> Result<Opener, Failure> {
    let policy = OpenPolicy {
        cached_keys: 1 << 16,
        cached_for: Duration::from_secs(1 << 20),
        failures: u32::MAX,
        ..OpenPolicy::default()
    };
    Ok(Opener::new(key, policy)?)
}

/// The machine's load of the last minute, where the system tells it.
fn load() -> String {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}

struct Bench {
    opener: Opener,
    /// Envelopes by class, in the order of [`Class::ALL`].
    pools: Vec<Vec<String>>,
    /// Opened before each measurement with a known key, so that all start from the same.
    between: String,
    random: StdRng,
}

impl Bench {
    /// Has every session key unwrapped once, in random order, so that no class has better places in memory.
    fn warm_up(&mut self) {
        let mut all: Vec<&String> = self.pools.iter().flatten().collect();
        all.shuffle(&mut self.random);
        for envelope in all {
            let _ = black_box(self.opener.open(envelope));
        }
        let _ = black_box(self.opener.open(&self.between));
    }

    /// Rounds in which each class comes once, in random order.
    fn times(
        &mut self,
        samples: usize,
        limit: Option<Duration>,
        slowed_by: Duration,
        open: fn(&Opener, &str, &str, Duration) -> Duration,
    ) -> Times {
        let mut times = Times(vec![Vec::with_capacity(samples); Class::ALL.len()]);
        let mut order: Vec<usize> = (0..Class::ALL.len()).collect();
        // Read from one place, whatever the class.
        let mut line = String::with_capacity(4096);
        let start = Instant::now();
        for _ in 0..samples {
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                break;
            }
            order.shuffle(&mut self.random);
            for &class in &order {
                let pool = &self.pools[class];
                line.clear();
                line.push_str(&pool[self.random.random_range(0..pool.len())]);
                let delay = if Class::ALL[class] == Class::Slowed { slowed_by } else { Duration::ZERO };
                let time = open(&self.opener, &line, &self.between, delay);
                times.0[class].push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
            }
        }
        times
    }

    fn open_known(opener: &Opener, envelope: &str, between: &str, delay: Duration) -> Duration {
        let _ = black_box(opener.open(between));
        timed(opener, envelope, delay)
    }

    fn open_unwrapping(opener: &Opener, envelope: &str, _: &str, delay: Duration) -> Duration {
        opener.forget();
        timed(opener, envelope, delay)
    }
}

fn timed(opener: &Opener, envelope: &str, delay: Duration) -> Duration {
    let start = Instant::now();
    let opened = black_box(opener.open(black_box(envelope)));
    if !delay.is_zero() {
        let end = start.elapsed() + delay;
        while start.elapsed() < end {
            std::hint::spin_loop();
        }
    }
    let time = start.elapsed();
    drop(opened);
    time
}

/// Nanoseconds by class, in the order of [`Class::ALL`].
struct Times(Vec<Vec<u32>>);

impl Times {
    fn of(&self, class: Class) -> &[u32] {
        let at = Class::ALL.iter().position(|one| *one == class).unwrap_or_default();
        &self.0[at]
    }

    /// The times of all failures but one: the class that one must not be told from.
    fn of_other_failures(&self, class: Class) -> Vec<u32> {
        let others = Class::ALL.iter().zip(&self.0).filter(|(other, _)| other.is_failure() && **other != class);
        others.flat_map(|(_, times)| times).copied().collect()
    }

    fn count(&self) -> usize {
        self.0[0].len()
    }
}

/// One of the two parts.
struct Part {
    /// Whether the failures must not be told from valid messages either.
    is_valid_judged: bool,
    slowed_by: Duration,
}

impl Part {
    fn report(&self, times: &Times, out: &mut impl Write) -> std::io::Result<Verdict> {
        let mut verdict = Verdict::Nothing;
        writeln!(out, "{:24}{:>12}{:>12}{:>20}{:>14}", "", "median", "t: valid", "t: other failures", "seen from")?;
        for class in Class::ALL {
            let valid = compare(times.of(class), times.of(Class::Valid));
            let others = compare(times.of(class), &times.of_other_failures(class));
            let (mark, now) = match class {
                Class::ValidAgain if valid.is_found() => ("  ! control", Verdict::NoStatement),
                Class::Slowed if !others.is_found() => ("  ! control", Verdict::NoStatement),
                _ if !class.is_failure() => ("", Verdict::Nothing),
                _ if others.is_found() || self.is_valid_judged && valid.is_found() => ("  !", Verdict::Found),
                _ => ("", Verdict::Nothing),
            };
            verdict = verdict.and(now);
            let (name, median, seen) = (class.name(), median(times.of(class)), others.seen_from);
            writeln!(out, "{name:24}{median:>12}{:>12.1}{:>20.1}{seen:>14.1}{mark}", valid.t, others.t)?;
        }
        let judged = if self.is_valid_judged { "valid and other failures" } else { "other failures" };
        writeln!(out, "judged against: {judged}; the control is slowed by {:?}", self.slowed_by)?;
        Ok(verdict)
    }
}

impl Verdict {
    /// What two together say: a difference found stays found only if the controls are as they should be.
    fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::NoStatement, _) | (_, Verdict::NoStatement) => Verdict::NoStatement,
            (Verdict::Found, _) | (_, Verdict::Found) => Verdict::Found,
            (Verdict::Nothing, Verdict::Nothing) => Verdict::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(samples: usize, slowed_by: Duration) -> Settings {
        Settings {
            seed: 17,
            bits: 2048,
            samples,
            rsa_time: Duration::from_secs(60),
            envelopes: 2,
            slowed_by: [slowed_by; 2],
        }
    }

    fn run_to_text(settings: &Settings) -> (Verdict, String) {
        let mut out = Vec::new();
        let verdict = run(settings, &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    }

    /// The columns of the line of a class, in each part.
    fn lines(report: &str, class: Class) -> Vec<Vec<&str>> {
        let lines = report.lines().filter_map(|line| line.split_at_checked(24));
        let of_class = lines.filter(|(name, _)| name.trim_end() == class.name());
        of_class.map(|(_, columns)| columns.split_whitespace().collect()).collect()
    }

    /// Twenty milliseconds are seen on the busiest machine.
    #[test]
    fn every_class_is_measured_and_a_slow_one_is_found_in_both_parts() {
        let (verdict, report) = run_to_text(&small(40, Duration::from_millis(20)));
        for class in Class::ALL {
            assert_eq!(lines(&report, class).len(), 2, "{}:\n{report}", class.name());
        }
        for columns in lines(&report, Class::Slowed) {
            assert_eq!(columns.len(), 4, "a control that failed is marked:\n{report}");
            assert!(columns[2].parse::<f64>().unwrap() > T_MAX, "{report}");
        }
        assert!(report.contains("CIPHERMQ_SEED=17") && report.contains("verdict (|t| <= 4.5): "), "{report}");
        // Forty samples on a machine that does other things say nothing about the rest.
        assert!([Verdict::Nothing, Verdict::Found, Verdict::NoStatement].contains(&verdict));
    }

    /// A control that is not seen takes every statement away.
    #[test]
    fn too_few_samples_are_no_statement() {
        let (verdict, report) = run_to_text(&small(1, Duration::ZERO));
        assert_eq!(verdict, Verdict::NoStatement, "{report}");
        assert!(report.contains("! control"), "{report}");
    }

    #[test]
    fn a_difference_between_two_ways_to_fail_is_a_verdict() {
        let mut random = StdRng::seed_from_u64(17);
        let mut times = Times(vec![Vec::new(); Class::ALL.len()]);
        for (at, class) in Class::ALL.into_iter().enumerate() {
            let more = match class {
                Class::Slowed => 30,
                Class::Label => 3,
                _ => 0,
            };
            times.0[at].extend((0..10_000).map(|_| 700 + more + random.random_range(0..40)));
        }
        let part = Part { is_valid_judged: false, slowed_by: Duration::ZERO };
        let mut out = Vec::new();
        assert_eq!(part.report(&times, &mut out).unwrap(), Verdict::Found);
        let report = String::from_utf8(out).unwrap();
        let marked: Vec<_> = report.lines().filter(|line| line.ends_with('!')).collect();
        assert!(matches!(marked[..], [line] if line.starts_with(Class::Label.name())), "{report}");
    }
}
