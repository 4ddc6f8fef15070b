//! X25519 keys (RFC 7748), in PKCS#8 and SPKI as RFC 8410 says.

use pkcs8::ObjectIdentifier;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode, Encode};
use x25519_dalek::{PublicKey, StaticSecret, x25519};
use zeroize::Zeroizing;

use super::pem;
use crate::error::{Error, Result};

pub(super) const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
/// Bytes of a key, either half.
pub(super) const LEN: usize = 32;

/// A private key out of a PKCS#8 `privateKey`, which holds an octet string.
pub(super) fn private(inner: &[u8]) -> Result<Zeroizing<[u8; LEN]>> {
    let key = <&OctetStringRef>::from_der(inner).map_err(pem::damaged)?;
    let key = Zeroizing::new(<[u8; LEN]>::try_from(key.as_bytes()).map_err(|_| Error::key(WRONG_LENGTH))?);
    if *key == [0; LEN] {
        return Err(Error::key(ZERO));
    }
    Ok(key)
}

pub(super) fn to_pkcs8(key: &[u8; LEN]) -> Result<Zeroizing<Vec<u8>>> {
    let inner = OctetStringRef::new(key).and_then(|key| key.to_der()).map(Zeroizing::new).map_err(pem::unwritable)?;
    pem::pkcs8_der(OID, &inner)
}

pub(super) fn public_of(key: &[u8; LEN]) -> [u8; LEN] {
    PublicKey::from(&StaticSecret::from(*key)).to_bytes()
}

/// Refuses keys to which everybody knows the answer, and second spellings of a
/// key, which would give it a second id.
pub(super) fn public(bytes: &[u8]) -> Result<[u8; LEN]> {
    let key: [u8; LEN] = bytes.try_into().map_err(|_| Error::key(WRONG_LENGTH))?;
    if !is_canonical(&key) {
        return Err(Error::key("an X25519 key that is not below the prime"));
    }
    // A point of low order goes to zero with every private key; the scalar does not matter.
    if x25519([0x40; LEN], key) == [0; LEN] {
        return Err(Error::key("an X25519 key of low order: it protects nothing"));
    }
    Ok(key)
}

/// Below 2^255 - 19, little-endian.
fn is_canonical(key: &[u8; LEN]) -> bool {
    let is_over = key[0] >= 0xed && key[1..LEN - 1].iter().all(|byte| *byte == 0xff) && key[LEN - 1] == 0x7f;
    key[LEN - 1] < 0x80 && !is_over
}

const WRONG_LENGTH: &str = "an X25519 key has 32 bytes";
const ZERO: &str = "all zeros: not a key anybody made at random";

#[cfg(test)]
mod tests {
    use super::*;

    /// The points of order 1, 2, 4 and 8, and their spellings over the prime.
    #[test]
    fn keys_that_protect_nothing_are_refused() {
        let eight_a = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
        let eight_b = "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157";
        let last = |low: u8| [&[low][..], &[0xff; 30], &[0x7f]].concat();
        let point = |text: &str| -> Vec<u8> {
            (0..LEN).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        let low = [vec![0; LEN], [&[1][..], &[0; 31]].concat(), point(eight_a), point(eight_b), last(0xec)];
        for key in &low {
            assert!(public(key).unwrap_err().to_string().contains("low order"), "{key:?}");
            let with_top_bit = [&key[..31], &[key[31] | 0x80]].concat();
            assert!(public(&with_top_bit).is_err());
        }
        for key in [last(0xed), last(0xee), last(0xff)] {
            assert!(public(&key).unwrap_err().to_string().contains("prime"), "{key:?}");
        }
        assert!(public(&last(0xeb)).is_ok());
        for len in [0, 31, 33] {
            assert!(public(&vec![9; len]).is_err());
        }
    }

    /// RFC 7748 section 6.1.
    #[test]
    fn the_public_half_is_that_of_the_standard() {
        let private = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf, 0x4c,
            0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ];
        assert_eq!(public_of(&private)[..4], [0x85, 0x20, 0xf0, 0x09]);
        assert_eq!(public_of(&private)[28..], [0xaa, 0x9b, 0x4e, 0x6a][..]);
    }
}
