use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisResult, Value};

use crate::course::{Consuming, Publishing, Tally, Turn};
use crate::process::{Broker, Programs, free_address};

const STREAM: &str = "messages";
const GROUP: &str = "workers";

#[derive(Clone, Copy, Debug)]
pub(super) enum AppendFsync {
    Always,
    EverySecond,
}

pub(super) fn version(programs: &Programs) -> Result<String> {
    let output = programs.output("redis-server", "--version")?;
    let version = output.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.context(output.clone())?.to_owned())
}

pub(super) fn start(programs: &Programs, directory: &Path, fsync: AppendFsync) -> Result<Broker> {
    let address = free_address()?;
    let mut command = Command::new(programs.find("redis-server")?);
    command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string(), "--dir"]).arg(directory);
    command.args(["--appendonly", "yes", "--appendfsync"]);
    command.arg(match fsync {
        AppendFsync::Always => "always",
        AppendFsync::EverySecond => "everysec",
    });
    Broker::start(command, directory, address)
}

pub(super) async fn prepare(address: SocketAddr) -> Result<()> {
    let mut connection = connect(address).await?;
    let create = redis::cmd("XGROUP").arg("CREATE").arg(STREAM).arg(GROUP).arg("0").arg("MKSTREAM").to_owned();
    Ok(create.query_async(&mut connection).await?)
}

/// Each turn's messages are a pipeline; several pipelines are under way at a time.
pub(super) async fn publish(address: SocketAddr, mut lane: Publishing) -> Result<Tally> {
    let connection = connect(address).await?;
    let mut confirms = FuturesOrdered::new();
    lane.begin().await;
    loop {
        match lane.turn() {
            Turn::Send(count) => {
                let mut pipeline = Pipeline::with_capacity(count);
                for _ in 0..count {
                    pipeline.cmd("XADD").arg(STREAM).arg("*").arg("m").arg(lane.message()).ignore();
                }
                let mut connection = connection.clone();
                confirms.push_back(async move {
                    let added: RedisResult<()> = pipeline.query_async(&mut connection).await;
                    added.map(|()| count)
                });
            }
            Turn::Wait => {
                let confirmed = confirms.next().await.context("nothing is under way")??;
                lane.confirmed(confirmed)?;
            }
            Turn::Pause => lane.pause().await,
            Turn::Done => return Ok(lane.finish()),
        }
    }
}

/// Two connections: a read that waits for messages would hold up the acknowledgements behind it.
pub(super) async fn consume(address: SocketAddr, lane: Consuming) -> Result<()> {
    let mut reader = connect(address).await?;
    let mut acker = connect(address).await?;
    lane.begin().await;
    let mut ids = read(&mut reader, &lane).await?;
    loop {
        let (next, acknowledged) = tokio::join!(read(&mut reader, &lane), acknowledge(&mut acker, &lane, &ids));
        acknowledged?;
        ids = next?;
    }
}

/// Up to half a prefetch of new messages: as much is being acknowledged meanwhile.
async fn read(connection: &mut MultiplexedConnection, lane: &Consuming) -> Result<Vec<Vec<u8>>> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg(lane.lane).arg("COUNT").arg((lane.prefetch / 2).max(1));
    command.arg("BLOCK").arg(1000).arg("STREAMS").arg(STREAM).arg(">");
    match command.query_async(connection).await? {
        Value::Nil => Ok(Vec::new()),
        Value::Array(streams) => match streams.into_iter().next() {
            Some(Value::Array(mut stream)) => entries(stream.pop(), lane),
            other => bail!("XREADGROUP answered {other:?}"),
        },
        other => bail!("XREADGROUP answered {other:?}"),
    }
}

/// The ids out of `[[id, ["m", body]], ...]`.
fn entries(value: Option<Value>, lane: &Consuming) -> Result<Vec<Vec<u8>>> {
    let Some(Value::Array(entries)) = value else { bail!("a stream without entries: {value:?}") };
    let ids = entries.into_iter().map(|entry| {
        let Value::Array(entry) = entry else { bail!("an entry is {entry:?}") };
        let mut parts = entry.into_iter();
        let (Some(Value::BulkString(id)), Some(Value::Array(fields))) = (parts.next(), parts.next()) else {
            bail!("an entry without id and fields");
        };
        let Some(Value::BulkString(body)) = fields.get(1) else { bail!("an entry without a body") };
        lane.received(body.len())?;
        Ok(id)
    });
    ids.collect()
}

async fn acknowledge(connection: &mut MultiplexedConnection, lane: &Consuming, ids: &[Vec<u8>]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut pipeline = Pipeline::with_capacity(ids.len());
    for id in ids {
        pipeline.cmd("XACK").arg(STREAM).arg(GROUP).arg(id).ignore();
    }
    let () = pipeline.query_async(connection).await?;
    lane.acknowledged(ids.len());
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<MultiplexedConnection> {
    let client = Client::open(format!("redis://{address}/"))?;
    // A read that waits for messages, and a broker that syncs, may take their time; the run as a whole has a limit.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}
