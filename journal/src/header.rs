//! The first block of a segment: the same header twice, at offset 0 and 2,048.
//!
//! ```text
//!  0        8         12              16     24     32         40              48             56      64
//!  | magic  | version | synced before | base | salt | file len | base before   | end before   | check |
//! ```
//!
//! "before" is the segment in front: its base (0: none), where its frames end, and the last of its writes that counts as synced. Whoever opens the
//! log later judges that segment's tail by these, as it was judged when this one was begun.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::FORMAT_VERSION;
use crate::frame::{BLOCK, Checks, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"CMQlog\r\n";
const HEADER_LEN: usize = 64;
const COPY_AT: usize = BLOCK as usize / 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) base: u64,
    pub(crate) salt: u64,
    pub(crate) file_len: u64,
    pub(crate) before: Before,
}

/// What a segment says of the one in front of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Before {
    pub(crate) base: u64,
    pub(crate) end: u64,
    pub(crate) synced: u32,
}

/// What is in a first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// `bad_copy` is the offset of the copy that cannot be read.
    Header {
        header: SegmentHeader,
        bad_copy: Option<u64>,
    },
    Newer {
        version: u32,
    },
    Nothing,
}

impl SegmentHeader {
    pub(crate) fn checks(&self) -> Checks {
        Checks { salt: self.salt, base: self.base }
    }

    /// The first block.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        for at in [0, COPY_AT] {
            let copy = &mut block[at..at + HEADER_LEN];
            copy[..8].copy_from_slice(MAGIC);
            copy[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
            copy[12..16].copy_from_slice(&self.before.synced.to_le_bytes());
            let numbers = [self.base, self.salt, self.file_len, self.before.base, self.before.end];
            for (index, number) in numbers.into_iter().enumerate() {
                copy[16 + index * 8..24 + index * 8].copy_from_slice(&number.to_le_bytes());
            }
            let check = xxh3_64_with_seed(&copy[..56], at as u64);
            copy[56..].copy_from_slice(&check.to_le_bytes());
        }
        block
    }

    /// What the first block of a file with this base in its name says.
    pub(crate) fn read(block: &[u8], base: u64) -> Found {
        let copies = [0, COPY_AT].map(|at| SegmentHeader::read_copy(block, at, base));
        match copies {
            [Found::Nothing, Found::Header { header, .. }] => Found::Header { header, bad_copy: Some(0) },
            [Found::Nothing, other] => other,
            [Found::Header { header, .. }, Found::Nothing] => Found::Header { header, bad_copy: Some(COPY_AT as u64) },
            [first, _] => first,
        }
    }

    fn read_copy(block: &[u8], at: usize, base: u64) -> Found {
        let Some(copy) = block.get(at..at + HEADER_LEN) else { return Found::Nothing };
        if copy[..8] != *MAGIC || u64_at(copy, 56) != xxh3_64_with_seed(&copy[..56], at as u64) {
            return Found::Nothing;
        }
        let version = u32_at(copy, 8);
        if version > FORMAT_VERSION {
            return Found::Newer { version };
        }
        let header = SegmentHeader {
            base: u64_at(copy, 16),
            salt: u64_at(copy, 24),
            file_len: u64_at(copy, 32),
            before: Before { base: u64_at(copy, 40), end: u64_at(copy, 48), synced: u32_at(copy, 12) },
        };
        if header.base == base { Found::Header { header, bad_copy: None } } else { Found::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        base: 1 << 30,
        salt: 42,
        file_len: 1 << 20,
        before: Before { base: 1 << 29, end: 8192, synced: 17 },
    };

    #[test]
    fn no_single_bit_takes_the_header() {
        let good = HEADER.write();
        assert_eq!(good.len() as u64, BLOCK);
        for bit in 0..good.len() * 8 {
            let mut block = good.clone();
            block[bit / 8] ^= 1 << (bit % 8);
            let Found::Header { header, bad_copy } = SegmentHeader::read(&block, HEADER.base) else {
                panic!("bit {bit} took the header")
            };
            assert_eq!(header, HEADER);
            let byte = bit / 8;
            let expected = [0, COPY_AT].into_iter().find(|at| (*at..at + HEADER_LEN).contains(&byte));
            assert_eq!(bad_copy, expected.map(|at| at as u64), "bit {bit}");
        }
    }

    #[test]
    fn a_file_under_another_name_is_no_segment() {
        assert_eq!(SegmentHeader::read(&HEADER.write(), HEADER.base + 1), Found::Nothing);
        assert_eq!(SegmentHeader::read(&[], HEADER.base), Found::Nothing);
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut block = HEADER.write();
        for at in [0, COPY_AT] {
            block[at + 8..at + 12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        }
        assert_eq!(SegmentHeader::read(&block, HEADER.base), Found::Nothing, "its check is wrong");
        for at in [0, COPY_AT] {
            let check = xxh3_64_with_seed(&block[at..at + 56], at as u64);
            block[at + 56..at + 64].copy_from_slice(&check.to_le_bytes());
        }
        assert_eq!(SegmentHeader::read(&block, HEADER.base), Found::Newer { version: FORMAT_VERSION + 1 });
    }
}
