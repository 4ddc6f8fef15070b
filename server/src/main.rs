//! `ciphermq`: the broker and its tools, one binary.

mod bench;
mod cli;
mod inspect;
mod key;
mod keygen;
mod logging;
mod open_files;
mod printable;
mod receive;
mod send;
mod serve;
mod shutdown;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Arguments, Command};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => status.into(),
        Err(fault) => {
            eprintln!("ciphermq: {}", cli::one_line(fault.error.as_ref()));
            fault.status.into()
        }
    }
}

fn run(arguments: Arguments) -> Result<cli::Status, cli::Fault> {
    match arguments.command {
        Command::Serve(options) => serve::run(options),
        Command::Verify(options) => verify::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Keygen(options) => keygen::run(&options),
        Command::Key(options) => key::run(&options.command),
        Command::Send(options) => send::run(options),
        Command::Receive(options) => receive::run(&options),
        Command::Bench(options) => bench::run(&options),
    }
}
