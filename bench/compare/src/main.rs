//! Measures CipherMQ and other brokers side by side: the same messages, the same connections, the same windows,
//! one broker at a time on an otherwise idle machine, rounds interleaved.
//!
//! It starts and ends the brokers itself, each run with a fresh process and an empty data directory. `bench/README.md`
//! says what exactly is measured for whom, and where that is not quite fair.

mod course;
mod machine;
mod message;
mod options;
mod plan;
mod process;
mod report;
mod run;
mod targets;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match plan::carry_out(&options::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("compare: {fault:#}");
            ExitCode::FAILURE
        }
    }
}
