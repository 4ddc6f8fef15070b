use std::io::{self, Error, ErrorKind};
use std::time::Instant;

use cipher_client::crypto::{PublicKey, Sealer, SessionPolicy};

/// Bytes of a bench message id: as many as a UUID's text has.
pub(super) const ID_BYTES: usize = 36;
/// Within an id: run and lane, a dash, the number, a dash, the time.
const NUMBER_AT: usize = 13;
const NUMBER_DIGITS: usize = 10;
const TIME_AT: usize = 24;
const TIME_DIGITS: usize = 12;

/// Bytes written with one call at most, one line always: enough to fill segments, little enough to stay in the cache.
const CHUNK_BYTES: usize = 128 << 10;
/// Lines written with one call at most.
const CHUNK_LINES_MAX: usize = 64;

/// The common time of all lanes of a run: nanoseconds since its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunClock(pub(super) Instant);

impl RunClock {
    pub(super) fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A real envelope around `plaintext_bytes`, with a placeholder for its id.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) envelope: String,
    id_at: usize,
}

impl Template {
    pub(super) fn seal(key: &PublicKey, plaintext_bytes: usize) -> io::Result<Template> {
        let placeholder = "x".repeat(ID_BYTES);
        let sealer = Sealer::new(key, SessionPolicy::default()).map_err(Error::other)?;
        let sealed = sealer.seal_with_id(&placeholder, &vec![b'm'; plaintext_bytes]).map_err(Error::other)?;
        let id_at = sealed.envelope.find(&placeholder).ok_or(ErrorKind::InvalidData)?;
        Ok(Template { envelope: sealed.envelope, id_at })
    }
}

/// Publish lines standing one behind the other, ready to be written; only ids change.
#[derive(Debug)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    line_bytes: usize,
    id_at: usize,
    next: u64,
}

impl Lines {
    /// Lines that publish to `target` (`<exchange> <key>`), their ids starting with `run` and `lane`.
    pub(super) fn new(template: &Template, target: &str, run: u32, lane: u16) -> Lines {
        let head = format!("publish {target} ");
        let mut line = format!("{head}{}\n", template.envelope).into_bytes();
        let id_at = head.len() + template.id_at;
        let id = format!("{run:08x}{lane:04x}-{:010x}-{:012x}", 0, 0);
        line[id_at..id_at + ID_BYTES].copy_from_slice(id.as_bytes());
        let count = (CHUNK_BYTES / line.len()).clamp(1, CHUNK_LINES_MAX);
        Lines { line_bytes: line.len(), bytes: line.repeat(count), id_at, next: 0 }
    }

    /// Lines of one chunk.
    pub(super) fn chunk(&self) -> usize {
        self.bytes.len() / self.line_bytes
    }

    /// Bytes of one line, LF included.
    pub(super) fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// `count` lines with new ids, at most a chunk, stamped with the time `nanos`.
    pub(super) fn next(&mut self, count: usize, nanos: u64) -> &[u8] {
        let count = count.min(self.chunk());
        for index in 0..count {
            let id_at = index * self.line_bytes + self.id_at;
            let id = &mut self.bytes[id_at..id_at + ID_BYTES];
            write_hex(&mut id[NUMBER_AT..NUMBER_AT + NUMBER_DIGITS], self.next);
            write_hex(&mut id[TIME_AT..TIME_AT + TIME_DIGITS], nanos);
            self.next += 1;
        }
        &self.bytes[..count * self.line_bytes]
    }
}

/// The time in a bench id.
pub(super) fn stamp(id: &[u8]) -> Option<u64> {
    let digits = id.get(TIME_AT..TIME_AT + TIME_DIGITS)?;
    digits.iter().try_fold(0, |nanos, digit| Some(nanos << 4 | u64::from((*digit as char).to_digit(16)?)))
}

fn write_hex(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_line_is_a_publish_with_an_id_of_its_own_that_tells_its_time() {
        let template = Template { envelope: format!(r#"{{"message_id":"{}"}}"#, "x".repeat(ID_BYTES)), id_at: 15 };
        let mut lines = Lines::new(&template, "e k", 7, 3);
        let mut ids = HashSet::new();
        for nanos in [5, 1 << 40] {
            let text = String::from_utf8(lines.next(3, nanos).to_vec()).unwrap();
            for line in text.lines() {
                let id = line.strip_prefix(r#"publish e k {"message_id":""#).unwrap().strip_suffix("\"}").unwrap();
                assert!(id.starts_with("000000070003-"), "{id}");
                assert_eq!(stamp(id.as_bytes()), Some(nanos));
                assert!(ids.insert(id.to_owned()));
            }
        }
        assert_eq!(ids.len(), 6);
        assert_eq!(lines.next(1000, 0).len(), lines.chunk() * lines.line_bytes());
    }
}
