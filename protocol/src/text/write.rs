//! Appending to an output buffer without intermediate strings.

use std::fmt;
use std::io::Write as _;

/// Appends text.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number in decimal.
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends ` <name>=<value>`.
pub(crate) fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    text(out, name);
    out.push(b'=');
    text(out, value);
}

/// Appends ` <name>=<value>` for a number.
pub(crate) fn number_field(out: &mut Vec<u8>, name: &str, value: u64) {
    out.push(b' ');
    text(out, name);
    out.push(b'=');
    number(out, value);
}

/// Appends whatever can be displayed.
pub(crate) fn display(out: &mut Vec<u8>, value: &dyn fmt::Display) {
    // Writing to a Vec cannot fail; a Display that does leaves a shorter text behind.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for value in [0, 1, 9, 10, 99, 100, 65_535, 1_000_000_007, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            super::number(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }
}
