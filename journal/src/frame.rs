//! A frame: a header of 32 bytes, a payload, and zeros up to a multiple of 8. All numbers are little-endian.
//!
//! ```text
//!  0        4        8        12       16                24                32
//!  | len    | flags  | batch  | synced | payload check   | header check    | payload … | 0…7 zeros |
//! ```
//!
//! docs/journal-format.md says what each is for.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What files are read and written in.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes in front of a payload.
pub(crate) const FRAME_HEADER: usize = 32;
/// Frames begin at multiples of this.
const ALIGN: u64 = 8;
/// How many zeros stand behind the last frame of a write: no frame has a header of zeros.
pub(crate) const END_MARK: u64 = FRAME_HEADER as u64;
/// What a segment keeps free behind its entries: a seal and an end mark.
pub(crate) const SEAL_ROOM: u64 = FRAME_HEADER as u64 + END_MARK;
/// Longer payloads are not written.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 1 << 30;

/// The next frame belongs to the same group: both are kept, or neither.
pub(crate) const CONTINUES: u32 = 1;
/// The frame in front belongs to the same group.
pub(crate) const CONTINUED: u32 = 1 << 1;
/// A copy of this frame follows.
pub(crate) const VITAL: u32 = 1 << 2;
/// The copy of the frame in front.
pub(crate) const COPY: u32 = 1 << 3;
/// The segment ends here, and all in front of it was synced before this was written.
pub(crate) const SEAL: u32 = 1 << 4;
/// Opens a segment.
pub(crate) const CHECKPOINT: u32 = 1 << 5;
/// Carried on from a segment that was to be dropped.
pub(crate) const CARRIED: u32 = 1 << 6;
/// The last of its write.
pub(crate) const LAST: u32 = 1 << 7;
const FLAGS_KNOWN: u32 = (1 << 8) - 1;

/// Seeds the checks of one segment, so that neither a frame of the file's earlier life nor bytes made by a client pass for one
/// of its frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub(crate) salt: u64,
    pub(crate) base: u64,
}

impl Checks {
    fn seed(self, offset: u64) -> u64 {
        self.salt ^ (self.base + offset).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn of_header(self, offset: u64, header: &[u8]) -> u64 {
        xxh3_64_with_seed(header, self.seed(offset))
    }

    fn of_payload(self, offset: u64, payload: &[u8]) -> u64 {
        xxh3_64_with_seed(payload, !self.seed(offset))
    }
}

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) len: u32,
    pub(crate) flags: u32,
    /// The number of the write it was part of, within its segment; the first is 1.
    pub(crate) batch: u32,
    /// The last write of the segment that was known to be on disk when this one was made.
    pub(crate) synced: u32,
    payload_check: u64,
}

impl FrameHeader {
    /// The header at the front of `bytes`, which stand at `offset`; `None` if none was written there.
    pub(crate) fn read(bytes: &[u8], offset: u64, checks: Checks) -> Option<FrameHeader> {
        let bytes: &[u8; FRAME_HEADER] = bytes.first_chunk()?;
        let header = FrameHeader {
            len: u32_at(bytes, 0),
            flags: u32_at(bytes, 4),
            batch: u32_at(bytes, 8),
            synced: u32_at(bytes, 12),
            payload_check: u64_at(bytes, 16),
        };
        // The cheap tests first: the check is tried at every eighth byte where a log is searched.
        let plausible = header.flags & !FLAGS_KNOWN == 0 && u64::from(header.len) <= PAYLOAD_BYTES_MAX;
        (plausible && u64_at(bytes, 24) == checks.of_header(offset, &bytes[..24])).then_some(header)
    }

    /// Whether `payload` is what was written behind this header, which stands at `offset`.
    pub(crate) fn matches(&self, payload: &[u8], offset: u64, checks: Checks) -> bool {
        self.payload_check == checks.of_payload(offset, payload)
    }
}

/// How many bytes a frame with this payload takes.
pub(crate) fn frame_len(payload: u64) -> u64 {
    FRAME_HEADER as u64 + payload.next_multiple_of(ALIGN)
}

/// Finishes the frame that begins at `start` of `buffer`, whose payload is already behind [`FRAME_HEADER`] bytes of anything: pads it
/// and writes its header. `offset` is where it will stand.
pub(crate) fn finish_frame(
    buffer: &mut Vec<u8>,
    start: usize,
    offset: u64,
    checks: Checks,
    flags: u32,
    batch: u32,
    synced: u32,
) {
    let payload = &buffer[start + FRAME_HEADER..];
    let (len, payload_check) = (payload.len() as u32, checks.of_payload(offset, payload));
    buffer.resize(start + frame_len(u64::from(len)) as usize, 0);
    let header = &mut buffer[start..start + FRAME_HEADER];
    header[0..4].copy_from_slice(&len.to_le_bytes());
    header[4..8].copy_from_slice(&flags.to_le_bytes());
    header[8..12].copy_from_slice(&batch.to_le_bytes());
    header[12..16].copy_from_slice(&synced.to_le_bytes());
    header[16..24].copy_from_slice(&payload_check.to_le_bytes());
    sign(header, offset, checks);
}

/// Adds flags to a frame that is finished but not written.
pub(crate) fn add_flags(frame: &mut [u8], offset: u64, checks: Checks, flags: u32) {
    let flags = u32_at(frame, 4) | flags;
    frame[4..8].copy_from_slice(&flags.to_le_bytes());
    sign(frame, offset, checks);
}

fn sign(header: &mut [u8], offset: u64, checks: Checks) {
    let check = checks.of_header(offset, &header[..24]);
    header[24..32].copy_from_slice(&check.to_le_bytes());
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a range of four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKS: Checks = Checks { salt: 7, base: 1 << 20 };

    fn frame(payload: &[u8], offset: u64) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER];
        bytes.extend_from_slice(payload);
        finish_frame(&mut bytes, 0, offset, CHECKS, CHECKPOINT, 3, 2);
        bytes
    }

    #[test]
    fn a_frame_is_laid_out_as_documented() {
        let bytes = frame(b"hello", 4096);
        assert_eq!(bytes.len() as u64, frame_len(5));
        assert_eq!(bytes[..16], [5, 0, 0, 0, 32, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[32..], *b"hello\0\0\0");
        let header = FrameHeader::read(&bytes, 4096, CHECKS).unwrap();
        assert_eq!((header.len, header.flags, header.batch, header.synced), (5, CHECKPOINT, 3, 2));
        assert!(header.matches(b"hello", 4096, CHECKS));
    }

    #[test]
    fn every_flipped_bit_of_header_and_payload_is_noticed() {
        let good = frame(b"hello", 4096);
        for bit in 0..(FRAME_HEADER + 5) * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let header = FrameHeader::read(&bytes, 4096, CHECKS);
            let accepted = header.is_some_and(|header| header.matches(&bytes[32..37], 4096, CHECKS));
            assert!(!accepted, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_counts_only_where_it_was_written() {
        let bytes = frame(b"hello", 4096);
        assert_eq!(FrameHeader::read(&bytes, 4104, CHECKS), None);
        assert_eq!(FrameHeader::read(&bytes, 4096, Checks { salt: 8, ..CHECKS }), None);
        assert_eq!(FrameHeader::read(&[0; 32], 4096, CHECKS), None, "zeros are the end of the log");
    }

    #[test]
    fn flags_can_be_added_until_it_is_written() {
        let mut bytes = frame(b"hello", 4096);
        add_flags(&mut bytes, 4096, CHECKS, CONTINUES);
        let header = FrameHeader::read(&bytes, 4096, CHECKS).unwrap();
        assert_eq!(header.flags, CHECKPOINT | CONTINUES);
        assert!(header.matches(b"hello", 4096, CHECKS));
    }
}
