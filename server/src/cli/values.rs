//! What flags can be set to.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use cipher_client::crypto::{Context, RSA_BITS_MAX, RSA_BITS_MIN, Suite};
use ciphermq_protocol::{Durability, limits as wire};
use ciphermq_server::limits;

/// A socket address; `localhost` is understood without asking a name server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        match local {
            Some(port) => Ok(Listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
            None => text
                .parse()
                .map(Listen)
                .map_err(|_| "an IP address and a port, such as 127.0.0.1:5672 or [::1]:0".into()),
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let unit = UNITS.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let bytes = digits.trim_end().parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
        bytes.map(Size).ok_or_else(|| "a number of bytes, such as 4096, 64KiB, 1MiB or 4GiB".into())
    }
}

pub(super) fn line_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    let allowed = wire::LINE_BYTES_MIN as u64..=wire::LINE_BYTES_MAX as u64;
    if allowed.contains(&size.0) { Ok(size) } else { Err("from 4KiB to 64MiB".into()) }
}

/// A quota under which segments of the smallest size still leave room to turn.
pub(super) fn disk_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    if size.0 >= limits::DISK_BYTES_MIN { Ok(size) } else { Err("at least 16MiB".into()) }
}

/// Where a message is published to. No name has a comma in it.
pub(super) fn place(text: &str) -> Result<Context, String> {
    let names = text.split_once(',').filter(|(exchange, key)| !exchange.is_empty() && !key.is_empty());
    let (exchange, key) = names.ok_or("an exchange and a routing key, such as orders,eu.new")?;
    Ok(Context::new(exchange, key))
}

pub(super) fn suite(text: &str) -> Result<Suite, String> {
    Suite::from_name(text).ok_or_else(|| "one of 1, 2r, 2x and 2pq".into())
}

pub(super) fn durability(text: &str) -> Result<Durability, String> {
    Durability::parse(text).map_err(|expected| expected.to_string())
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number from 1".into())
}

pub(super) fn key_bits(text: &str) -> Result<usize, String> {
    between(text, RSA_BITS_MIN, RSA_BITS_MAX)
}

/// Days, small enough to be counted in seconds.
pub(super) fn days(text: &str) -> Result<u64, String> {
    between(text, 0, 36_500).map(|days| days as u64)
}

/// The default line limit of a broker bounds what a bench can send: base64 makes a third more of it.
pub(super) fn body_size(text: &str) -> Result<Size, String> {
    const BODY_BYTES_MAX: u64 = 128 << 10;
    let size: Size = text.parse()?;
    if size.0 <= BODY_BYTES_MAX { Ok(size) } else { Err("at most 128KiB".into()) }
}

pub(super) fn connection_count(text: &str) -> Result<usize, String> {
    between(text, 1, 1000)
}

pub(super) fn window(text: &str) -> Result<usize, String> {
    between(text, 1, wire::PENDING_REPLIES_MAX)
}

fn between(text: &str, min: usize, max: usize) -> Result<usize, String> {
    text.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| format!("a number from {min} to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_or_refused() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0).ok();
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("64KiB"), Some(64 << 10));
        assert_eq!(size("1 MiB"), Some(1 << 20));
        assert_eq!(size("4GiB"), Some(4 << 30));
        for bad in ["", "KiB", "1.5MiB", "-1", "1MB", "4 096", "18446744073709551616", "18446744073709551615KiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn localhost_needs_no_name_server() {
        let listen = |text: &str| text.parse::<Listen>().map(|listen| listen.0.to_string()).ok();
        assert_eq!(listen("localhost:0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(listen("[::1]:5672").as_deref(), Some("[::1]:5672"));
        assert_eq!(listen("localhost"), None);
        assert_eq!(listen("example.org:5672"), None);
    }
}
