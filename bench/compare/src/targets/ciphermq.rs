use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::course::{Consuming, Publishing, Tally};
use crate::process::{Broker, Programs, free_address};
use crate::wire::{self, Wire, unexpected};

/// Exchange and key of the queue that is always there.
const TARGET: &str = "default_exchange default_key";
const QUEUE: &str = "default_queue";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Synced,
    NotSynced,
    Memory,
}

pub(super) fn version(programs: &Programs) -> Result<String> {
    Ok(programs.output("ciphermq", "--version")?.trim().trim_start_matches("ciphermq ").to_owned())
}

pub(super) fn start(programs: &Programs, directory: &Path, store: Store) -> Result<Broker> {
    let address = free_address()?;
    let mut command = Command::new(programs.find("ciphermq")?);
    // What the caller has set for a broker of theirs is not meant for this one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CIPHERMQ_")) {
        command.env_remove(name);
    }
    command.args(["serve", "--listen", &address.to_string(), "--log", "error"]);
    command.args(["--store-max-bytes", "1TiB"]);
    match store {
        Store::Synced => command.arg("--data-dir").arg(directory.join("data")),
        Store::NotSynced => command.arg("--data-dir").arg(directory.join("data")).args(["--durability", "none"]),
        Store::Memory => command.arg("--memory"),
    };
    Broker::start(command, directory, address)
}

/// A broker that takes `--data-dir` and writes nothing to it must not pass for one that syncs.
pub(super) async fn prepare(address: SocketAddr, directory: &Path, store: Store) -> Result<()> {
    // The address takes connections before the directory is there; an answer comes only after.
    drop(connect(address).await?);
    if store == Store::Memory {
        return Ok(());
    }
    let data = directory.join("data");
    let is_empty = fs::read_dir(&data).map_or(true, |mut entries| entries.next().is_none());
    ensure!(!is_empty, "this ciphermq has no journal on disk: it takes --data-dir and writes nothing there");
    Ok(())
}

pub(super) async fn publish(address: SocketAddr, lane: Publishing) -> Result<Tally> {
    let head = format!("publish {TARGET} ").into_bytes();
    let encode = |envelope: &[u8], output: &mut Vec<u8>| {
        output.extend_from_slice(&head);
        output.extend_from_slice(envelope);
        output.push(b'\n');
    };
    wire::publish(connect(address).await?, lane, encode, b"ACK ").await
}

pub(super) async fn consume(address: SocketAddr, lane: Consuming) -> Result<()> {
    let mut wire = connect(address).await?;
    lane.begin().await;
    wire.send(format!("consume {QUEUE} prefetch={}\n", lane.prefetch).as_bytes()).await?;
    let mut acks = Vec::new();
    loop {
        wire.read().await?;
        let mut confirmed = 0;
        while let Some(line) = wire.line() {
            if let Some(message) = line.strip_prefix(b"Message: ") {
                let id = message.split(|byte| *byte == b' ').next().unwrap_or_default();
                let body = memchr::memchr(b'{', message).context("a delivery without a body")?;
                lane.received(message.len() - body)?;
                acks.extend_from_slice(b"ack ");
                acks.extend_from_slice(id);
                acks.push(b'\n');
            } else if line.starts_with(b"ACK_CONFIRMED ") {
                confirmed += 1;
            } else if line != b"Subscribed to queue" {
                return unexpected(line);
            }
        }
        lane.acknowledged(confirmed);
        wire.send(&acks).await?;
        acks.clear();
    }
}

async fn connect(address: SocketAddr) -> Result<Wire> {
    let mut wire = Wire::connect(address).await?;
    let hello = wire.ask("hello 1 name=compare\n").await?;
    ensure!(hello.starts_with("Hello 1 "), "{hello}");
    Ok(wire)
}
