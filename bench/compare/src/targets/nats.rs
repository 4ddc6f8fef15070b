use std::collections::VecDeque;
use std::fs;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, context::ContextBuilder};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::course::{Consuming, Publishing, Tally, Turn};
use crate::process::{Broker, Programs, free_address};
use crate::targets::Scene;

const STREAM: &str = "messages";
const CONSUMER: &str = "workers";
/// Longer than any run: nobody gets a message twice.
const ACK_WAIT: Duration = Duration::from_secs(600);
/// The first version that has `sync_interval`.
const SYNC_INTERVAL_SINCE: (u32, u32) = (2, 10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncInterval {
    Default,
    Always,
}

pub(super) fn version(programs: &Programs, interval: SyncInterval) -> Result<String> {
    let output = programs.output("nats-server", "--version")?;
    let version = output.rsplit(['v', ' ']).next().context(output.clone())?.trim().to_owned();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let has_it = numbers.next().zip(numbers.next()) >= Some(SYNC_INTERVAL_SINCE);
    ensure!(has_it || interval == SyncInterval::Default, "nats-server {version} has no sync_interval");
    Ok(version)
}

pub(super) fn start(programs: &Programs, directory: &Path, interval: SyncInterval) -> Result<Broker> {
    let address = free_address()?;
    let sync = match interval {
        SyncInterval::Default => "",
        SyncInterval::Always => ", sync_interval: always",
    };
    let file = directory.join("nats.conf");
    let store = directory.join("store");
    fs::write(&file, format!("listen: \"{address}\"\njetstream {{ store_dir: {store:?}{sync} }}\n"))?;
    let mut command = Command::new(programs.find("nats-server")?);
    command.arg("-c").arg(file);
    Broker::start(command, directory, address)
}

/// A stream that gives each message to one consumer and drops it when acknowledged.
pub(super) async fn prepare(address: SocketAddr, scene: Scene) -> Result<()> {
    let config = Config {
        name: STREAM.into(),
        subjects: vec![STREAM.into()],
        storage: StorageType::File,
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    let context = connect(address).await?;
    let stream = context.create_stream(config).await.map_err(|fault| anyhow!("stream: {fault}"))?;
    let consumer = pull::Config {
        durable_name: Some(CONSUMER.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: i64::from(scene.prefetch) * i64::from(scene.consumers.max(1)),
        ..pull::Config::default()
    };
    if scene.consumers > 0 {
        stream.create_consumer(consumer).await.map_err(|fault| anyhow!("consumer: {fault}"))?;
    }
    Ok(())
}

pub(super) async fn publish(address: SocketAddr, mut lane: Publishing) -> Result<Tally> {
    let context = connect(address).await?;
    let mut confirms = VecDeque::new();
    lane.begin().await;
    loop {
        match lane.turn() {
            Turn::Send(count) => {
                for _ in 0..count {
                    let message = Bytes::copy_from_slice(lane.message());
                    confirms.push_back(context.publish(STREAM, message).await?.into_future());
                }
            }
            Turn::Wait => {
                confirms.pop_front().context("nothing is under way")?.await?;
                let mut count = 1;
                while let Some(next) = confirms.front_mut().and_then(|confirm| confirm.now_or_never()) {
                    next?;
                    confirms.pop_front();
                    count += 1;
                }
                lane.confirmed(count)?;
            }
            Turn::Pause => lane.pause().await,
            Turn::Done => return Ok(lane.finish()),
        }
    }
}

pub(super) async fn consume(address: SocketAddr, lane: Consuming) -> Result<()> {
    let context = connect(address).await?;
    let consumer: jetstream::consumer::PullConsumer =
        context.get_consumer_from_stream(CONSUMER, STREAM).await.map_err(|fault| anyhow!("consumer: {fault}"))?;
    lane.begin().await;
    let mut messages = consumer.stream().max_messages_per_batch(usize::from(lane.prefetch)).messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        lane.received(message.payload.len())?;
        message.ack().await.map_err(|fault| anyhow!("ack: {fault}"))?;
        lane.acknowledged(1);
    }
    bail!("the broker ended the subscription")
}

async fn connect(address: SocketAddr) -> Result<jetstream::Context> {
    let client = async_nats::connect(address.to_string()).await?;
    Ok(ContextBuilder::new().build(client))
}
