use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Measures CipherMQ and other brokers side by side and prints their ratios.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// What to measure, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Mode::value_variants().to_vec())]
    pub(crate) modes: Vec<Mode>,

    /// Bytes of plaintext in a message; the envelope around it is what is sent
    #[arg(long, value_delimiter = ',', default_value = "1KiB")]
    pub(crate) sizes: Vec<Size>,

    /// Publishing connections, and consuming ones end to end; latency and drain have their own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) connections: u16,

    /// Unconfirmed publishes of a connection in mode publish; the first one also fills and feeds the other modes
    #[arg(long, value_delimiter = ',', default_value = "256", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) windows: Vec<u16>,

    /// Counted seconds of a run; the warm-up in front of them is a third as long, one second at most
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Runs of each broker in each cell; the table shows medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,

    /// Messages in the queue before mode drain empties it; slow publishers get fewer in, see the README
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) backlog: u32,

    /// Brokers to measure: whole families (redis) or single settings (redis-always); all of them unless said
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// The program `ciphermq`, a release build; looked up like the others unless given
    #[arg(long, value_name = "PATH")]
    pub(crate) ciphermq: Option<PathBuf>,

    /// Another place for a broker's program, e.g. nats-server=/opt/nats/nats-server; may be repeated
    #[arg(long = "program", value_name = "NAME=PATH", value_parser = program)]
    pub(crate) programs: Vec<(String, PathBuf)>,

    /// Where the brokers keep their data; must be on the disk to be measured [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Also writes every single run to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Confirmed publishes a second, nobody consuming
    Publish,
    /// Time from publish to confirm: one connection, one message at a time
    Latency,
    /// Messages acknowledged a second, as many consumers as publishers
    EndToEnd,
    /// Messages acknowledged a second out of a full queue, one consumer
    Drain,
}

/// A number of bytes: `256`, `16KiB`, `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Size(pub(crate) usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        /// The most every broker takes as it comes: beanstalkd ends at 65,535 bytes of envelope.
        const MAX: usize = 47 << 10;
        let (digits, shift) = match text.strip_suffix("KiB") {
            Some(digits) => (digits, 10),
            None => (text, 0),
        };
        let number: usize = digits.parse().map_err(|_| "a number of bytes, or of KiB like 16KiB".to_owned())?;
        match number.checked_mul(1 << shift) {
            Some(bytes @ 1..=MAX) => Ok(Size(bytes)),
            _ => Err("1 to 47KiB".into()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1 << 10 && self.0.is_multiple_of(1 << 10) {
            write!(out, "{} KiB", self.0 >> 10)
        } else {
            write!(out, "{} B", self.0)
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.1 to 3600".into()),
    }
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_bounded() {
        let sizes: Vec<_> =
            ["256", "1KiB", "16KiB"].iter().map(|text| text.parse::<Size>().map(|size| size.0)).collect();
        assert_eq!(sizes, [Ok(256), Ok(1024), Ok(16 << 10)]);
        for wrong in ["", "0", "KiB", "-1", "48KiB", "1MB", "99999999999999999999KiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        assert_eq!(Size(16 << 10).to_string(), "16 KiB");
        assert_eq!(Size(256).to_string(), "256 B");
    }
}
