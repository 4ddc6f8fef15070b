use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};

use crate::course::{Consuming, Publishing, Tally, Turn};
use crate::process::{Broker, Process, Programs, free_address};

const QUEUE: &str = "messages";
/// AMQP's delivery mode for messages that outlive the broker.
const PERSISTENT: u8 = 2;
const EPMD_POLL: Duration = Duration::from_millis(5);
const EPMD_POLLS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueType {
    Classic,
    Quorum,
}

pub(super) fn version(programs: &Programs) -> Result<String> {
    // Asking the program would start an Erlang machine; the place it is linked to names the version.
    let script = programs.find("rabbitmq-server")?.canonicalize()?;
    let place = script.ancestors().filter_map(|place| place.file_name()?.to_str());
    let version = place.into_iter().find_map(|name| name.strip_prefix("rabbitmq_server-"));
    Ok(version.unwrap_or("unknown").to_owned())
}

/// The broker and, on a port of its own, the port mapper every Erlang node looks for.
pub(super) async fn start(programs: &Programs, directory: &Path) -> Result<Broker> {
    let (address, distribution, epmd_address) = (free_address()?, free_address()?, free_address()?);
    let mut epmd = Command::new(programs.find("epmd")?);
    epmd.args(["-address", &epmd_address.ip().to_string(), "-port", &epmd_address.port().to_string()]);
    // It complains about everyone who only looks whether it is there.
    epmd.stdout(Stdio::null()).stderr(Stdio::null());
    let epmd = Process::start(epmd)?;
    for _ in 0..EPMD_POLLS {
        if tokio::net::TcpStream::connect(epmd_address).await.is_ok() {
            break;
        }
        tokio::time::sleep(EPMD_POLL).await;
    }
    let place = |name: &str| directory.join(name);
    fs::write(place("rabbitmq.conf"), format!("listeners.tcp.1 = {address}\nlog.file.level = warning\n"))?;
    fs::write(place("enabled_plugins"), "[].\n")?;
    fs::write(place("env.conf"), "")?;
    let mut command = Command::new(programs.find("rabbitmq-server")?);
    command
        .env("HOME", directory)
        // The script then becomes the broker, instead of waiting beside it.
        .env("RUNNING_UNDER_SYSTEMD", "1")
        .env("ERL_EPMD_ADDRESS", epmd_address.ip().to_string())
        .env("ERL_EPMD_PORT", epmd_address.port().to_string())
        .env("RABBITMQ_NODENAME", format!("compare{}@localhost", address.port()))
        .env("RABBITMQ_DIST_PORT", distribution.port().to_string())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_CONF_ENV_FILE", place("env.conf"))
        .env("RABBITMQ_CONFIG_FILE", place("rabbitmq"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", place("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", place("mnesia"))
        .env("RABBITMQ_LOG_BASE", place("log"))
        .env("RABBITMQ_PID_FILE", place("pid"));
    Ok(Broker::start(command, directory, address)?.with(epmd))
}

pub(super) async fn prepare(address: SocketAddr, queue_type: QueueType) -> Result<()> {
    let channel = connect(address).await?.create_channel().await?;
    let mut arguments = FieldTable::default();
    let name = match queue_type {
        QueueType::Classic => "classic",
        QueueType::Quorum => "quorum",
    };
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(name.into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await?;
    Ok(())
}

pub(super) async fn publish(address: SocketAddr, mut lane: Publishing) -> Result<Tally> {
    let connection = connect(address).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut confirms = VecDeque::new();
    lane.begin().await;
    loop {
        match lane.turn() {
            Turn::Send(count) => {
                for _ in 0..count {
                    let options = BasicPublishOptions::default();
                    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
                    let message = lane.message();
                    confirms
                        .push_back(channel.basic_publish("".into(), QUEUE.into(), options, message, properties).await?);
                }
            }
            Turn::Wait => {
                let first = confirms.pop_front().context("nothing is under way")?;
                check(first.await?)?;
                let mut count = 1;
                while let Some(next) = confirms.front_mut().and_then(|confirm| confirm.now_or_never()) {
                    check(next?)?;
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

fn check(confirmation: Confirmation) -> Result<()> {
    ensure!(matches!(confirmation, Confirmation::Ack(None)), "the broker did not confirm: {confirmation:?}");
    Ok(())
}

pub(super) async fn consume(address: SocketAddr, lane: Consuming) -> Result<()> {
    let connection = connect(address).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(lane.prefetch, BasicQosOptions::default()).await?;
    lane.begin().await;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = channel.basic_consume(QUEUE.into(), "".into(), options, arguments).await?;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        lane.received(delivery.data.len())?;
        delivery.ack(BasicAckOptions::default()).await?;
        lane.acknowledged(1);
    }
    bail!("the broker ended the subscription")
}

async fn connect(address: SocketAddr) -> Result<Connection> {
    let uri = format!("amqp://guest:guest@{address}/%2f");
    Ok(Connection::connect(&uri, ConnectionProperties::default()).await?)
}
