//! The brokers: how each is started, what it promises before it confirms, and how its client publishes and consumes.

mod beanstalkd;
mod ciphermq;
mod mosquitto;
mod nats;
mod rabbitmq;
mod redis;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use crate::course::{Consuming, Publishing, Tally};
use crate::options::Mode;
use crate::process::{Broker, Programs};

/// A broker in one of its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) family: &'static str,
    pub(crate) name: &'static str,
    /// What a confirm stands for.
    pub(crate) confirm: Confirm,
    pub(crate) setting: &'static str,
    kind: Kind,
}

/// What a broker has done with a message when it confirms it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirm {
    /// fsync or fdatasync has returned.
    Synced,
    /// It was given to the kernel, or will be; a sync comes later by a clock.
    SyncedLater(&'static str),
    /// No sync is ever waited for or asked for.
    NotSynced,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    CipherMq(ciphermq::Store),
    Redis(redis::AppendFsync),
    RabbitMq(rabbitmq::QueueType),
    Nats(nats::SyncInterval),
    Beanstalkd(beanstalkd::Sync),
    Mosquitto,
}

/// All of them. Ours first: the others are compared with these.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        family: "ciphermq",
        name: "ciphermq-sync",
        confirm: Confirm::Synced,
        setting: "--data-dir (the default)",
        kind: Kind::CipherMq(ciphermq::Store::Synced),
    },
    Target {
        family: "ciphermq",
        name: "ciphermq-none",
        confirm: Confirm::NotSynced,
        setting: "--data-dir --durability none",
        kind: Kind::CipherMq(ciphermq::Store::NotSynced),
    },
    Target {
        family: "ciphermq",
        name: "ciphermq-memory",
        confirm: Confirm::NotSynced,
        setting: "--memory",
        kind: Kind::CipherMq(ciphermq::Store::Memory),
    },
    Target {
        family: "redis",
        name: "redis-always",
        confirm: Confirm::Synced,
        setting: "stream, appendonly yes, appendfsync always",
        kind: Kind::Redis(redis::AppendFsync::Always),
    },
    Target {
        family: "redis",
        name: "redis-everysec",
        confirm: Confirm::SyncedLater("1 s"),
        setting: "stream, appendonly yes, appendfsync everysec",
        kind: Kind::Redis(redis::AppendFsync::EverySecond),
    },
    Target {
        family: "rabbitmq",
        name: "rabbitmq-quorum",
        confirm: Confirm::Synced,
        setting: "quorum queue, one node",
        kind: Kind::RabbitMq(rabbitmq::QueueType::Quorum),
    },
    Target {
        family: "rabbitmq",
        name: "rabbitmq-classic",
        confirm: Confirm::Synced,
        setting: "classic durable queue, persistent messages",
        kind: Kind::RabbitMq(rabbitmq::QueueType::Classic),
    },
    Target {
        family: "nats",
        name: "nats-always",
        confirm: Confirm::Synced,
        setting: "JetStream file store, sync_interval always",
        kind: Kind::Nats(nats::SyncInterval::Always),
    },
    Target {
        family: "nats",
        name: "nats-default",
        confirm: Confirm::SyncedLater("2 min"),
        setting: "JetStream file store as it comes",
        kind: Kind::Nats(nats::SyncInterval::Default),
    },
    Target {
        family: "beanstalkd",
        name: "beanstalkd-f0",
        confirm: Confirm::Synced,
        setting: "-b <dir> -f0",
        kind: Kind::Beanstalkd(beanstalkd::Sync::Always),
    },
    Target {
        family: "beanstalkd",
        name: "beanstalkd-default",
        confirm: Confirm::SyncedLater("50 ms"),
        setting: "-b <dir>",
        kind: Kind::Beanstalkd(beanstalkd::Sync::Default),
    },
    Target {
        family: "mosquitto",
        name: "mosquitto",
        confirm: Confirm::SyncedLater("30 min"),
        setting: "QoS 1, persistence true",
        kind: Kind::Mosquitto,
    },
];

/// What a run needs of a broker before it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) mode: Mode,
    pub(crate) consumers: u16,
    pub(crate) prefetch: u16,
}

impl Target {
    /// Which version of the broker is there.
    ///
    /// # Errors
    ///
    /// It is not installed, or has not got this setting.
    pub(crate) fn version(&self, programs: &Programs) -> Result<String> {
        match self.kind {
            Kind::CipherMq(_) => ciphermq::version(programs),
            Kind::Redis(_) => redis::version(programs),
            Kind::RabbitMq(_) => rabbitmq::version(programs),
            Kind::Nats(interval) => nats::version(programs, interval),
            Kind::Beanstalkd(_) => beanstalkd::version(programs),
            Kind::Mosquitto => mosquitto::version(programs),
        }
    }

    /// Starts it with its data in `directory`, which is empty, and waits until it listens.
    pub(crate) async fn start(&self, programs: &Programs, directory: &Path) -> Result<Broker> {
        let mut broker = match self.kind {
            Kind::CipherMq(store) => ciphermq::start(programs, directory, store),
            Kind::Redis(fsync) => redis::start(programs, directory, fsync),
            Kind::RabbitMq(_) => rabbitmq::start(programs, directory).await,
            Kind::Nats(interval) => nats::start(programs, directory, interval),
            Kind::Beanstalkd(sync) => beanstalkd::start(programs, directory, sync),
            Kind::Mosquitto => mosquitto::start(programs, directory),
        }?;
        broker.wait_ready().await?;
        Ok(broker)
    }

    /// Makes the queue, and what it takes for messages to stay there.
    pub(crate) async fn prepare(&self, address: SocketAddr, directory: &Path, scene: Scene) -> Result<()> {
        match self.kind {
            Kind::CipherMq(store) => ciphermq::prepare(address, directory, store).await,
            Kind::Redis(_) => redis::prepare(address).await,
            Kind::RabbitMq(queue_type) => rabbitmq::prepare(address, queue_type).await,
            Kind::Nats(_) => nats::prepare(address, scene).await,
            Kind::Beanstalkd(_) => Ok(()),
            Kind::Mosquitto => mosquitto::prepare(address, scene).await,
        }
    }

    /// Publishes over a connection of its own until the lane is done.
    pub(crate) async fn publish(&self, address: SocketAddr, lane: Publishing) -> Result<Tally> {
        match self.kind {
            Kind::CipherMq(_) => ciphermq::publish(address, lane).await,
            Kind::Redis(_) => redis::publish(address, lane).await,
            Kind::RabbitMq(_) => rabbitmq::publish(address, lane).await,
            Kind::Nats(_) => nats::publish(address, lane).await,
            Kind::Beanstalkd(_) => beanstalkd::publish(address, lane).await,
            Kind::Mosquitto => mosquitto::publish(address, lane).await,
        }
    }

    /// Consumes and acknowledges over a connection of its own until the caller drops it; returns only on an error.
    pub(crate) async fn consume(&self, address: SocketAddr, lane: Consuming) -> Result<()> {
        match self.kind {
            Kind::CipherMq(_) => ciphermq::consume(address, lane).await,
            Kind::Redis(_) => redis::consume(address, lane).await,
            Kind::RabbitMq(_) => rabbitmq::consume(address, lane).await,
            Kind::Nats(_) => nats::consume(address, lane).await,
            Kind::Beanstalkd(_) => beanstalkd::consume(address, lane).await,
            Kind::Mosquitto => mosquitto::consume(address, lane).await,
        }
    }
}
