use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Disconnect, Packet, PubAck, Publish, Subscribe};
use rumqttc::mqttbytes::{Error, QoS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::course::{Consuming, Publishing, Tally, Turn};
use crate::options::Mode;
use crate::process::{Broker, Programs, free_address};
use crate::targets::Scene;

const TOPIC: &str = "messages";
/// One message goes to one of the subscribers.
const SHARED_TOPIC: &str = "$share/workers/messages";
/// The session that keeps messages while nobody is connected.
const KEEPER: &str = "keeper";
/// Deliveries a client may hold unacknowledged, as many as the other brokers are given.
const IN_FLIGHT: u16 = 256;
const PACKET_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 256 << 10;

pub(super) fn version(programs: &Programs) -> Result<String> {
    let output = programs.output("mosquitto", "-h")?;
    let version = output.lines().next().and_then(|line| line.strip_prefix("mosquitto version "));
    Ok(version.context(output.clone())?.to_owned())
}

pub(super) fn start(programs: &Programs, directory: &Path) -> Result<Broker> {
    let address = free_address()?;
    let file = directory.join("mosquitto.conf");
    let is_root = rustix::process::geteuid().is_root();
    let lines = [
        format!("listener {} {}", address.port(), address.ip()),
        "allow_anonymous true".into(),
        "persistence true".into(),
        format!("persistence_location {}/", directory.display()),
        // Unless told so it keeps 1,000 messages for a client and drops the rest, and sends 20 ahead of the acks.
        "max_queued_messages 0".into(),
        format!("max_inflight_messages {IN_FLIGHT}"),
        // Started by root it would become a user who may not write here.
        if is_root { "user root".into() } else { String::new() },
    ];
    fs::write(&file, lines.join("\n") + "\n")?;
    let mut command = Command::new(programs.find("mosquitto")?);
    command.arg("-c").arg(file);
    Broker::start(command, directory, address)
}

/// A topic is no queue: somebody has to be subscribed for a message to be stored.
pub(super) async fn prepare(address: SocketAddr, scene: Scene) -> Result<()> {
    if scene.mode == Mode::EndToEnd {
        return Ok(());
    }
    let mut keeper = Mqtt::connect(address, KEEPER, Session::Kept).await?;
    keeper.subscribe(TOPIC).await?;
    Disconnect.write(&mut keeper.output)?;
    keeper.flush().await
}

pub(super) async fn publish(address: SocketAddr, mut lane: Publishing) -> Result<Tally> {
    let mut mqtt = Mqtt::connect(address, "", Session::Clean).await?;
    let mut publish = Publish::from_bytes(TOPIC, QoS::AtLeastOnce, Bytes::new());
    lane.begin().await;
    loop {
        match lane.turn() {
            Turn::Send(count) => {
                for _ in 0..count {
                    // Ids are never 0, and at most 1,024 are in use at a time.
                    publish.pkid = publish.pkid.checked_add(1).unwrap_or(1);
                    publish.payload = Bytes::copy_from_slice(lane.message());
                    publish.write(&mut mqtt.output)?;
                }
                mqtt.flush().await?;
            }
            Turn::Wait => {
                let mut count = 0;
                mqtt.read().await?;
                while let Some(packet) = mqtt.packet()? {
                    ensure!(matches!(packet, Packet::PubAck(_)), "the broker answered {packet:?}");
                    count += 1;
                }
                lane.confirmed(count)?;
            }
            Turn::Pause => lane.pause().await,
            Turn::Done => return Ok(lane.finish()),
        }
    }
}

/// Stored messages come to the session that kept them, as soon as it is back; others to a shared subscription, which
/// has to stand before they are published.
pub(super) async fn consume(address: SocketAddr, lane: Consuming) -> Result<()> {
    let mut mqtt = if lane.is_stored {
        lane.begin().await;
        Mqtt::connect(address, KEEPER, Session::Kept).await?
    } else {
        let mut mqtt = Mqtt::connect(address, &format!("worker{}", lane.lane), Session::Clean).await?;
        mqtt.subscribe(SHARED_TOPIC).await?;
        lane.begin().await;
        mqtt
    };
    loop {
        let mut count = 0;
        while let Some(packet) = mqtt.packet()? {
            let Packet::Publish(publish) = packet else { bail!("the broker sent {packet:?}") };
            lane.received(publish.payload.len())?;
            PubAck::new(publish.pkid).write(&mut mqtt.output)?;
            count += 1;
        }
        mqtt.flush().await?;
        lane.acknowledged(count);
        mqtt.read().await?;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    Clean,
    Kept,
}

/// The packets of rumqttc on a socket of our own: its event loop writes each message with a call of its own, which
/// would measure the client.
struct Mqtt {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
}

impl Mqtt {
    async fn connect(address: SocketAddr, client_id: &str, session: Session) -> Result<Mqtt> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut mqtt = Mqtt { stream, input: BytesMut::new(), output: BytesMut::new() };
        let mut connect = Connect::new(client_id);
        connect.clean_session = session == Session::Clean;
        connect.keep_alive = 0;
        connect.write(&mut mqtt.output)?;
        mqtt.flush().await?;
        match mqtt.wait().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(mqtt),
            other => bail!("the broker answered {other:?}"),
        }
    }

    async fn subscribe(&mut self, topic: &str) -> Result<()> {
        let mut subscribe = Subscribe::new(topic, QoS::AtLeastOnce);
        subscribe.pkid = 1;
        subscribe.write(&mut self.output)?;
        self.flush().await?;
        match self.wait().await? {
            Packet::SubAck(_) => Ok(()),
            other => bail!("the broker answered {other:?}"),
        }
    }

    async fn wait(&mut self) -> Result<Packet> {
        loop {
            if let Some(packet) = self.packet()? {
                return Ok(packet);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.input.reserve(READ_BYTES);
        let count = self.stream.read_buf(&mut self.input).await?;
        ensure!(count > 0, "the broker closed the connection");
        Ok(())
    }

    /// The next packet that is there as a whole.
    fn packet(&mut self) -> Result<Option<Packet>> {
        match Packet::read(&mut self.input, PACKET_BYTES_MAX) {
            Ok(packet) => Ok(Some(packet)),
            Err(Error::InsufficientBytes(_)) => Ok(None),
            Err(fault) => bail!("MQTT: {fault:?}"),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(())
    }
}
