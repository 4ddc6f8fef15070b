use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::course::{Consuming, Publishing, Tally};
use crate::process::{Broker, Programs, free_address};
use crate::wire::{self, Wire, unexpected};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    Default,
    Always,
}

pub(super) fn version(programs: &Programs) -> Result<String> {
    Ok(programs.output("beanstalkd", "-v")?.trim().trim_start_matches("beanstalkd ").to_owned())
}

pub(super) fn start(programs: &Programs, directory: &Path, sync: Sync) -> Result<Broker> {
    let address = free_address()?;
    let mut command = Command::new(programs.find("beanstalkd")?);
    command.args(["-l", &address.ip().to_string(), "-p", &address.port().to_string(), "-b"]).arg(directory);
    if sync == Sync::Always {
        command.arg("-f0");
    }
    Broker::start(command, directory, address)
}

pub(super) async fn publish(address: SocketAddr, lane: Publishing) -> Result<Tally> {
    let encode = |body: &[u8], output: &mut Vec<u8>| {
        // Priority, delay, and ten minutes to work on it: nobody gets it twice.
        output.extend_from_slice(format!("put 0 0 600 {}\r\n", body.len()).as_bytes());
        output.extend_from_slice(body);
        output.extend_from_slice(b"\r\n");
    };
    wire::publish(Wire::connect(address).await?, lane, encode, b"INSERTED ").await
}

/// Reserves in two overlapping batches of half a prefetch: a consumer that waited for each job before it asked for the
/// next would measure the round trip. Only the first of a batch waits for a job.
pub(super) async fn consume(address: SocketAddr, lane: Consuming) -> Result<()> {
    let mut wire = Wire::connect(address).await?;
    let batch = usize::from(lane.prefetch / 2).max(1);
    let mut reserves = format!("reserve-with-timeout {}\r\n", u8::from(!lane.is_stored)).into_bytes();
    (1..batch).for_each(|_| reserves.extend_from_slice(b"reserve-with-timeout 0\r\n"));
    lane.begin().await;
    wire.send(&reserves).await?;
    wire.send(&reserves).await?;
    let mut output = Vec::new();
    let mut answered = 0;
    loop {
        match next_reply(&mut wire, &lane)? {
            Some(Reply::Deleted) => lane.acknowledged(1),
            Some(Reply::Reserved(id)) => {
                output.extend_from_slice(format!("delete {id}\r\n").as_bytes());
                answered += 1;
            }
            Some(Reply::None) => answered += 1,
            None => wire.read().await?,
        }
        if answered == batch {
            output.extend_from_slice(&reserves);
            wire.send(&output).await?;
            output.clear();
            answered = 0;
        }
    }
}

enum Reply {
    Deleted,
    Reserved(u64),
    None,
}

/// The next reply that is there as a whole.
fn next_reply(wire: &mut Wire, lane: &Consuming) -> Result<Option<Reply>> {
    let before = wire.mark();
    let Some(line) = wire.line() else { return Ok(None) };
    match line {
        b"DELETED" => return Ok(Some(Reply::Deleted)),
        b"TIMED_OUT" => return Ok(Some(Reply::None)),
        _ => {}
    }
    let Some(numbers) = line.strip_prefix(b"RESERVED ") else { return unexpected(line) };
    let (id, len) = std::str::from_utf8(numbers)?.split_once(' ').context("RESERVED without a length")?;
    let (id, len) = (id.parse()?, len.parse()?);
    lane.received(len)?;
    if wire.skip(len + b"\r\n".len()) {
        return Ok(Some(Reply::Reserved(id)));
    }
    // The body has not come yet: the line is read again with it.
    wire.back_to(before);
    Ok(None)
}
