//! Whether the time of an opening tells why it failed (docs/encryption.md, "Side channels and misuse").
//!
//! ```text
//! make timing [SUITES="1 2r 2x 2pq"] [FEATURES=aws-lc] [SAMPLES=100000] [RSA_SECONDS=900] [ENVELOPES=1000]
//! ```
//!
//! Opens envelopes that are valid or wrong in one way each, in random order, and compares the times of the classes with
//! Welch's t-test. Each suite, suite 1 if none is named, in two parts: with the session key known (the unwrap cache; SAMPLES
//! of each class), and with an unwrapping for each (SAMPLES of each class or what fits into RSA_SECONDS). Each class has
//! ENVELOPES different ones. CIPHERMQ_SEED repeats order and alterations; keys are new each time.
//!
//! What is judged: in both parts the ways to fail that must look alike, among each other; and where RSA is at work those with
//! a valid message too, beyond 1 µs. Valid and invalid differ by the decryption that a wrong tag prevents, some 0.15 µs;
//! whether a message opened is told by its acknowledgement anyhow. In suite 2 a wrong commitment ends before the text is looked at, and HPKE
//! says of a wrap by itself that it is no good; what is alike are the ways to come there. A block over the modulus is refused
//! early and shown only: the modulus is public.
//!
//! Controls: a second class of valid messages, in which nothing may be found; one that is made slower; and a planted leak, a
//! comparison that returns at the first wrong byte (known key), a padding that is not looked at further when its first byte
//! is wrong (unwrapping). Where the planted leak is not seen though the slower class is, the report says so: the run was
//! then too coarse for a leak of its size.
//!
//! Exit code 0: nothing found; 1: a difference found; 2: no statement, because a control failed.

mod classes;
mod first;
mod leak;
mod second;
mod statistic;

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cipher_client::crypto::{KeyKind, OpenPolicy, Opener, PrivateKey, Suite};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use classes::{Class, Make};
use leak::Leak;
use statistic::{Samples, T_MAX, compare, compare_beyond, median};

pub(crate) type Failure = Box<dyn Error>;

/// What a wrong tag leaves undone takes less: the text is not decrypted, nor given out.
const UNDONE: Duration = Duration::from_micros(1);

/// What a run takes.
struct Settings {
    seed: u64,
    suites: Vec<Suite>,
    bits: usize,
    /// Openings of each class in each part.
    samples: usize,
    /// Time of a part with unwrapping.
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
    let named: Result<Vec<Suite>, _> = std::env::args().skip(1).map(|name| name.parse()).collect();
    let suites = named.map_err(|_| "suites are 1, 2r, 2x and 2pq")?;
    Ok(Settings {
        suites: if suites.is_empty() { vec![Suite::One] } else { suites },
        seed: number("CIPHERMQ_SEED", getrandom::u64()?)?,
        bits: 2048,
        samples: usize::try_from(number("SAMPLES", 100_000)?)?,
        rsa_time: Duration::from_secs(number("RSA_SECONDS", 900)?),
        envelopes: usize::try_from(number("ENVELOPES", 1000)?)?,
        slowed_by: [Duration::from_nanos(50), Duration::from_micros(30)],
    })
}

fn run(settings: &Settings, out: &mut impl Write) -> Result<Verdict, Failure> {
    let rsa = if cfg!(feature = "aws-lc") { "AWS-LC" } else { "the crate rsa" };
    writeln!(out, "CIPHERMQ_SEED={}, RSA-{} by {rsa}, load {}", settings.seed, settings.bits, load())?;
    let mut verdict = Verdict::Nothing;
    for suite in &settings.suites {
        verdict = verdict.and(run_suite(settings, *suite, out)?);
    }
    let told = match verdict {
        Verdict::Nothing => "no difference found that is to be judged",
        Verdict::Found => "a difference is found, see the lines marked !",
        Verdict::NoStatement => "no statement, a control failed: the machine is too busy, or there are too few samples",
    };
    writeln!(out, "\nload {}\nverdict (|t| <= {T_MAX}): {told}", load())?;
    Ok(verdict)
}

fn run_suite(settings: &Settings, suite: Suite, out: &mut impl Write) -> Result<Verdict, Failure> {
    let mut random = StdRng::seed_from_u64(settings.seed);
    let key = new_key(suite, settings.bits)?;
    let mut maker: Box<dyn Make> = match suite {
        Suite::One => Box::new(first::Maker::new(&key, settings.bits, &mut random)?),
        _ => Box::new(second::Maker::new(&key, suite, &mut random)?),
    };
    let mut pools = Vec::new();
    for class in Class::of(suite) {
        let pool: Result<Vec<_>, _> = (0..settings.envelopes).map(|_| maker.make(*class)).collect();
        pools.push(pool?);
    }
    let between = maker.make(Class::Valid)?;
    drop(maker);
    let mut bench = Bench { suite, opener: opener(&key)?, pools, between, random };

    let known = Part { valid_within: None, leak: Leak::Comparison, slowed_by: settings.slowed_by[0] };
    bench.warm_up();
    let times = bench.times(settings.samples, None, &known, Bench::open_known);
    writeln!(out, "\nsuite {suite}, session key known: {} openings of each class, nanoseconds", times.count())?;
    let first = known.report(&times, out)?;

    let is_rsa = matches!(suite, Suite::One | Suite::TwoRsa);
    let valid_within = is_rsa.then_some(UNDONE);
    let unwrapped = Part { valid_within, leak: Leak::Padding, slowed_by: settings.slowed_by[1] };
    let times = bench.times(settings.samples, Some(settings.rsa_time), &unwrapped, Bench::open_unwrapping);
    writeln!(out, "\nsuite {suite}, an unwrapping each: {} openings of each class, nanoseconds", times.count())?;
    Ok(first.and(unwrapped.report(&times, out)?))
}

/// A key that messages of this suite are sealed to.
fn new_key(suite: Suite, bits: usize) -> Result<PrivateKey, Failure> {
    Ok(match suite {
        Suite::TwoX25519 => PrivateKey::generate_kind(KeyKind::X25519)?,
        Suite::TwoXWing => PrivateKey::generate_kind(KeyKind::XWing)?,
        _ => PrivateKey::generate(bits)?,
    })
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
    suite: Suite,
    opener: Opener,
    /// Envelopes by class, in the order of [`Class::of`].
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
    fn times(&mut self, samples: usize, limit: Option<Duration>, part: &Part, prepare: fn(&Opener, &str)) -> Times {
        let classes = Class::of(self.suite);
        let mut times: Vec<_> = self.pools.iter().map(|pool| vec![Vec::new(); pool.len()]).collect();
        let mut order: Vec<usize> = (0..classes.len()).collect();
        // Read from one place, whatever the class.
        let mut line = String::with_capacity(4096);
        let start = Instant::now();
        for round in 0..samples {
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                break;
            }
            order.shuffle(&mut self.random);
            for &place in &order {
                let (class, pool) = (classes[place], &self.pools[place]);
                line.clear();
                let envelope = round % pool.len();
                line.push_str(&pool[envelope]);
                prepare(&self.opener, &self.between);
                let time = part.timed(&self.opener, &line, class);
                times[place][envelope].push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
            }
        }
        Times { suite: self.suite, times }
    }

    fn open_known(opener: &Opener, between: &str) {
        let _ = black_box(opener.open(between));
    }

    fn open_unwrapping(opener: &Opener, _: &str) {
        opener.forget();
    }
}

/// Nanoseconds by class, in the order of [`Class::of`], and envelope.
struct Times {
    suite: Suite,
    times: Vec<Vec<Vec<u32>>>,
}

impl Times {
    fn of(&self, class: Class) -> &Samples {
        let place = Class::of(self.suite).iter().position(|one| *one == class);
        place.map_or(&[], |place| &self.times[place])
    }

    /// The times of the failures that this class must not be told from, itself excepted. A control is made of a wrong tag.
    fn of_others(&self, class: Class) -> Vec<Vec<u32>> {
        let group = |class: Class| class.group(self.suite);
        let group_of_class = group(class).or(group(Class::TagLast));
        let others = Class::of(self.suite).iter().zip(&self.times);
        let alike = others.filter(|(other, _)| **other != class && group(**other) == group_of_class);
        alike.flat_map(|(_, times)| times).cloned().collect()
    }

    fn count(&self) -> usize {
        self.times[0].iter().map(Vec::len).sum()
    }
}

/// One of the two parts.
struct Part {
    /// By how much the failures may differ from valid messages, if they are compared with those too.
    valid_within: Option<Duration>,
    leak: Leak,
    slowed_by: Duration,
}

impl Part {
    fn timed(&self, opener: &Opener, envelope: &str, class: Class) -> Duration {
        let start = Instant::now();
        let opened = black_box(opener.open(black_box(envelope)));
        self.leak.run(class == Class::Planted);
        if class == Class::Slowed && !self.slowed_by.is_zero() {
            let end = start.elapsed() + self.slowed_by;
            while start.elapsed() < end {
                std::hint::spin_loop();
            }
        }
        let time = start.elapsed();
        drop(opened);
        time
    }

    fn report(&self, times: &Times, out: &mut impl Write) -> std::io::Result<Verdict> {
        let mut verdict = Verdict::Nothing;
        writeln!(out, "{:24}{:>12}{:>12}{:>20}{:>14}", "", "median", "t: valid", "t: those alike", "seen from")?;
        for &class in Class::of(times.suite) {
            let valid = compare(times.of(class), times.of(Class::Valid));
            let others = compare(times.of(class), &times.of_others(class));
            let is_told_from_valid = self.valid_within.is_some_and(|allowed| {
                compare_beyond(allowed.as_nanos() as f64, times.of(class), times.of(Class::Valid)).is_found()
            });
            let is_judged = class.group(times.suite).is_some();
            let (mark, now) = match class {
                Class::ValidAgain if valid.is_found() => ("  ! control", Verdict::NoStatement),
                Class::Slowed if !others.is_found() => ("  ! control", Verdict::NoStatement),
                Class::Planted if !others.is_found() => ("  not seen", Verdict::Nothing),
                _ if !is_judged => ("", Verdict::Nothing),
                _ if others.is_found() || is_told_from_valid => ("  !", Verdict::Found),
                _ => ("", Verdict::Nothing),
            };
            verdict = verdict.and(now);
            let (name, median, seen) = (class.name(), median(times.of(class)), others.seen_from);
            writeln!(out, "{name:24}{median:>12}{:>12.1}{:>20.1}{seen:>14.1}{mark}", valid.t, others.t)?;
        }
        let valid = self.valid_within.map_or(String::new(), |within| format!(", and valid within {within:?}"));
        writeln!(
            out,
            "judged against: those alike{valid}; planted: {}; slowed by {:?}",
            self.leak.name(),
            self.slowed_by
        )?;
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
    use cipher_client::ErrorKind;
    use rand::RngExt;

    use super::*;

    fn small(samples: usize, slowed_by: Duration) -> Settings {
        Settings {
            seed: 17,
            suites: vec![Suite::One],
            bits: 2048,
            samples,
            rsa_time: Duration::from_secs(60),
            envelopes: 40,
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
        check_report(Suite::One, &report);
        assert!(report.contains("CIPHERMQ_SEED=17") && report.contains("verdict (|t| <= 4.5): "), "{report}");
        // Forty samples on a machine that does other things say nothing about the rest.
        assert!([Verdict::Nothing, Verdict::Found, Verdict::NoStatement].contains(&verdict));
    }

    #[test]
    fn suite_2_is_measured_in_the_same_way() {
        for suite in [Suite::TwoRsa, Suite::TwoX25519, Suite::TwoXWing] {
            let settings = Settings { suites: vec![suite], ..small(40, Duration::from_millis(20)) };
            check_report(suite, &run_to_text(&settings).1);
        }
    }

    fn check_report(suite: Suite, report: &str) {
        for class in Class::of(suite) {
            assert_eq!(lines(report, *class).len(), 2, "{suite} {}:\n{report}", class.name());
        }
        for columns in lines(report, Class::Slowed) {
            assert_eq!(columns.len(), 4, "a control that failed is marked:\n{report}");
            assert!(columns[2].parse::<f64>().unwrap() > T_MAX, "{report}");
        }
    }

    /// Envelopes fail as their class says, and by nothing else.
    #[test]
    fn what_is_valid_opens_and_everything_else_is_one_error() {
        let mut random = StdRng::seed_from_u64(17);
        for suite in [Suite::One, Suite::TwoRsa, Suite::TwoX25519, Suite::TwoXWing] {
            let key = new_key(suite, 2048).unwrap();
            let mut maker: Box<dyn Make> = match suite {
                Suite::One => Box::new(first::Maker::new(&key, 2048, &mut random).unwrap()),
                _ => Box::new(second::Maker::new(&key, suite, &mut random).unwrap()),
            };
            let opener = opener(&key).unwrap();
            for class in Class::of(suite) {
                let opened = opener.open(&maker.make(*class).unwrap());
                match class {
                    Class::Valid | Class::ValidAgain => assert!(opened.is_ok(), "{suite} {class:?}"),
                    _ => assert_eq!(*opened.unwrap_err().kind(), ErrorKind::Decrypt, "{suite} {class:?}"),
                }
            }
        }
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
        let mut times = Times { suite: Suite::One, times: Vec::new() };
        for class in Class::of(Suite::One) {
            let more = match class {
                Class::Slowed => 30,
                Class::Planted => 10,
                Class::Label => 3,
                _ => 0,
            };
            times.times.push((0..10_000).map(|_| vec![700 + more + random.random_range(0..40)]).collect());
        }
        let part = Part { valid_within: None, leak: Leak::Comparison, slowed_by: Duration::ZERO };
        let mut out = Vec::new();
        assert_eq!(part.report(&times, &mut out).unwrap(), Verdict::Found);
        let report = String::from_utf8(out).unwrap();
        let marked: Vec<_> = report.lines().filter(|line| line.ends_with('!')).collect();
        assert!(matches!(marked[..], [line] if line.starts_with(Class::Label.name())), "{report}");
        assert!(!report.contains("not seen"), "{report}");
    }
}
