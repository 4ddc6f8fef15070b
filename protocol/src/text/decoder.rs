//! Cuts a byte stream into lines, however it was split on its way.

use std::ops::Range;

use memchr::memchr;

use crate::limits::{INPUT_BYTES_INITIAL, READ_BYTES};

/// One reusable input buffer and the lines in it.
///
/// Read into [`spare`](Self::spare), tell how much with [`advance`](Self::advance), then take lines with
/// [`next_line`](Self::next_line) until it has none. No byte is searched for a line end twice.
///
/// ```
/// # use ciphermq_protocol::Decoder;
/// let mut decoder = Decoder::new(4096);
/// decoder.spare()[..9].copy_from_slice(b"quit\r\npin");
/// decoder.advance(9);
/// assert_eq!(decoder.next_line(), Ok(Some(&b"quit"[..])));
/// assert_eq!(decoder.next_line(), Ok(None));
/// assert!(decoder.is_mid_line());
/// ```
///
/// The buffer starts at [`INPUT_BYTES_INITIAL`], doubles up to [`READ_BYTES`] while reads fill it, and beyond that only
/// while one line needs it. It never holds more than `max_line` + [`READ_BYTES`].
#[derive(Debug)]
pub struct Decoder {
    /// Initialised throughout; `start..end` has arrived and was not handed out yet.
    buffer: Vec<u8>,
    start: usize,
    /// In `start..=end`: everything before was searched and holds no LF.
    scanned: usize,
    end: usize,
    max_line: usize,
    /// The last read filled all the room it was given: there is probably more.
    filled: bool,
}

impl Decoder {
    /// A decoder for lines of at most `max_line` bytes, LF included. Allocates nothing yet.
    pub fn new(max_line: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, end: 0, max_line, filled: false }
    }

    /// Where the next read goes. Take all lines first: lines that nobody takes pile up to the bound, and then this is empty.
    pub fn spare(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.buffer[self.end..]
    }

    /// Says that `count` bytes were read into [`spare`](Self::spare).
    ///
    /// # Panics
    /// If `count` is more than `spare` had room for.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "advance beyond the spare room");
        self.end += count;
        self.filled = self.end == self.buffer.len();
    }

    /// The next whole line without its LF, and without a CR before it.
    ///
    /// # Errors
    /// [`LineTooLong`] when the line at the front is longer than `max_line`. There is no way to go on from it: every later
    /// call says the same.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        let too_long = LineTooLong { max: self.max_line };
        let Some(found) = memchr(b'\n', &self.buffer[self.scanned..self.end]) else {
            self.scanned = self.end;
            return if self.buffered() >= self.max_line { Err(too_long) } else { Ok(None) };
        };
        let lf = self.scanned + found;
        if lf + 1 - self.start > self.max_line {
            self.scanned = lf;
            return Err(too_long);
        }
        let line = self.start..lf;
        self.start = lf + 1;
        self.scanned = self.start;
        Ok(Some(self.without_cr(line)))
    }

    /// Whether bytes have arrived that no line was made of yet. At the end of a stream: the last line was cut off.
    pub fn is_mid_line(&self) -> bool {
        self.start != self.end
    }

    /// Bytes that have arrived and were not handed out yet.
    pub fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Gives the memory back if nothing is in it; the next [`spare`](Self::spare) starts small again.
    ///
    /// For a connection that went quiet. Not after every read: a busy one would allocate each time.
    pub fn shrink(&mut self) {
        if !self.is_mid_line() {
            *self = Self::new(self.max_line);
        }
    }

    fn without_cr(&self, line: Range<usize>) -> &[u8] {
        let line = &self.buffer[line];
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            self.move_to_front();
        }
        if self.buffer.len() > READ_BYTES && self.buffered() < READ_BYTES / 2 {
            self.move_to_front();
            self.buffer.truncate(READ_BYTES);
            self.buffer.shrink_to_fit();
        }
        if self.filled {
            self.filled = false;
            self.grow(READ_BYTES);
        }
        // Both steps leave half of the buffer free, so a byte is moved a constant number of times.
        if self.start > 0 && self.end > self.buffer.len() / 2 {
            self.move_to_front();
        }
        if self.buffered() >= self.buffer.len() / 2 {
            self.grow(self.max_line.saturating_add(READ_BYTES));
        }
    }

    fn move_to_front(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.scanned -= self.start;
        self.start = 0;
    }

    fn grow(&mut self, bound: usize) {
        let size = self.buffer.len().saturating_mul(2).max(INPUT_BYTES_INITIAL).min(bound);
        if self.buffer.len() < size {
            self.buffer.reserve_exact(size - self.buffer.len());
            self.buffer.resize(size, 0);
        }
    }
}

/// A line is longer than the broker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line has at most {max} bytes")]
pub struct LineTooLong {
    /// Bytes a line may have, LF included.
    pub max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_searched_twice() {
        let mut decoder = Decoder::new(1 << 20);
        for round in 0..40 {
            let spare = decoder.spare();
            let count = spare.len().min(3000);
            spare[..count].fill(b'x');
            // A line ends now and then, so that what is behind it moves to the front.
            if round % 7 == 3 {
                spare[0] = b'\n';
            }
            decoder.advance(count);
            while let Some(_line) = decoder.next_line().expect("120,000 bytes are not too long") {}
            assert_eq!(decoder.scanned, decoder.end, "round {round}");
            decoder.spare();
            assert_eq!(decoder.scanned, decoder.end, "round {round}, after making room");
        }
    }
}
