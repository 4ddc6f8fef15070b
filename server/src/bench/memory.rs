use std::io;

use super::child::ServerProcess;
use super::message::Template;
use super::place::Place;
use super::report::MemoryRow;
use super::runs::Stage;
use super::wire::Wire;

/// What a broker takes for `count` queued messages.
pub(super) fn queued(place: &Place, template: &Template, count: u64) -> io::Result<MemoryRow> {
    let stored = place.broker()?;
    let broker = &stored.server;
    let mut stage = Stage::open(broker.address, None)?;
    let before_bytes = broker.resident_bytes()?;
    let (_, payload_bytes) = stage.fill_for_good(template, count)?;
    row("queued", count, payload_bytes, before_bytes, broker)
}

/// What a broker takes for `count` connections that have said hello and nothing since.
pub(super) fn idle(place: &Place, count: u64) -> io::Result<MemoryRow> {
    let stored = place.broker()?;
    let broker = &stored.server;
    let before_bytes = broker.resident_bytes()?;
    let connections =
        (0..count).map(|_| Wire::open(broker.address).map(|wire| wire.socket)).collect::<io::Result<Vec<_>>>()?;
    let row = row("idle", count, 0, before_bytes, broker);
    drop(connections);
    row
}

fn row(
    mode: &'static str,
    count: u64,
    payload_bytes: u64,
    before_bytes: u64,
    broker: &ServerProcess,
) -> io::Result<MemoryRow> {
    let after_bytes = broker.resident_bytes()?;
    let bytes_each = after_bytes.saturating_sub(before_bytes) as f64 / count.max(1) as f64;
    Ok(MemoryRow { mode, count, payload_bytes, before_bytes, after_bytes, bytes_each })
}
