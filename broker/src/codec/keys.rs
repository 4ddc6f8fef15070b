use std::sync::Arc;

use ciphermq_journal::Undecodable;

use super::read::Input;
use super::write::Sink;
use crate::directory::{Announcement, Entry, UnsignedKey};
use crate::event::Change;
use crate::{Timestamp, limits};

pub(super) fn write(entry: &Entry, at: Timestamp, out: &mut impl Sink) {
    out.name(entry.client());
    out.u64(at.0);
    match entry {
        Entry::Announced(announcement) => {
            out.u64(announcement.seq);
            out.put(&announcement.identity);
            out.u8(announcement.successor.is_some().into());
            announcement.successor.iter().for_each(|successor| out.put(successor));
            write_bytes(&announcement.bytes, out);
        }
        Entry::Unsigned(key) => write_bytes(&key.key, out),
    }
}

pub(super) fn announced(input: &mut Input<'_>) -> Result<Change, Undecodable> {
    let (client, at, seq) = (input.name()?.into(), input.time()?, input.u64()?);
    let (identity, successor) = (input.array()?, input.option(Input::array)?);
    let entry = Entry::Announced(Announcement { client, seq, identity, successor, bytes: bytes(input)? });
    Ok(Change::Key { entry, at })
}

pub(super) fn unsigned(input: &mut Input<'_>) -> Result<Change, Undecodable> {
    let (client, at) = (input.name()?.into(), input.time()?);
    Ok(Change::Key { entry: Entry::Unsigned(UnsignedKey { client, key: bytes(input)? }), at })
}

fn write_bytes(bytes: &[u8], out: &mut impl Sink) {
    out.count(bytes.len());
    out.put(bytes);
}

fn bytes(input: &mut Input<'_>) -> Result<Arc<[u8]>, Undecodable> {
    let len = input.u32()? as usize;
    if len == 0 || len > limits::KEY_BYTES_MAX {
        return Err(Undecodable("a key is empty or too long"));
    }
    input.bytes(len).map(Arc::from)
}
