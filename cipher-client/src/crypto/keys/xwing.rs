//! X-Wing keys: ML-KEM-768 and X25519 in one (draft-connolly-cfrg-xwing-kem).
//!
//! ```text
//! public   0  ML-KEM-768 encapsulation key   1184  X25519 public key     1216 bytes
//! private  0  seed, from which both halves are made                        32 bytes
//! ```
//!
//! In SPKI and PKCS#8 they stand as they are, under the identifier of the draft
//! and without parameters.

use pkcs8::ObjectIdentifier;
use x_wing::{DecapsulationKey, Decapsulator, EncapsulationKey, KeyExport};
use zeroize::Zeroizing;

use super::{pem, x25519};
use crate::error::{Error, Result};

pub(super) const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.62253.25722");
/// Bytes of a public key.
pub(super) const LEN: usize = 1216;
/// Bytes of a private key.
pub(super) const SEED_LEN: usize = 32;

/// A private key out of a PKCS#8 `privateKey`.
pub(super) fn private(inner: &[u8]) -> Result<Zeroizing<[u8; SEED_LEN]>> {
    let seed = <[u8; SEED_LEN]>::try_from(inner).map_err(|_| Error::key("an X-Wing seed has 32 bytes"))?;
    let seed = Zeroizing::new(seed);
    if *seed == [0; SEED_LEN] {
        return Err(Error::key("all zeros: not a key anybody made at random"));
    }
    Ok(seed)
}

pub(super) fn to_pkcs8(seed: &[u8; SEED_LEN]) -> Result<Zeroizing<Vec<u8>>> {
    pem::pkcs8_der(OID, seed)
}

pub(super) fn public_of(seed: &[u8; SEED_LEN]) -> Box<[u8; LEN]> {
    let bytes = DecapsulationKey::from(*seed).encapsulation_key().to_bytes();
    let mut key = Box::new([0; LEN]);
    key.copy_from_slice(&bytes);
    key
}

/// Refuses numbers that are not reduced (FIPS 203 section 7.2), and either half
/// without a secret in it.
pub(super) fn public(bytes: &[u8]) -> Result<Box<[u8; LEN]>> {
    let key = Box::new(<[u8; LEN]>::try_from(bytes).map_err(|_| Error::key("an X-Wing key has 1,216 bytes"))?);
    EncapsulationKey::try_from(&key[..]).map_err(|_| Error::key("not an X-Wing key: ML-KEM part out of range"))?;
    // A key of t = 0 encrypts to nobody in particular: everybody can decapsulate.
    if key[..ML_KEM_T_LEN].iter().all(|byte| *byte == 0) {
        return Err(Error::key("an X-Wing key with an empty ML-KEM part: it protects nothing"));
    }
    x25519::public(&key[ML_KEM_LEN..])?;
    Ok(key)
}

const ML_KEM_LEN: usize = 1184;
/// The part of it that depends on the secret; the rest is a seed.
const ML_KEM_T_LEN: usize = 1152;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_protect_nothing_are_refused() {
        let good = public_of(&[7; SEED_LEN]);
        assert_eq!(public(&good[..]).unwrap(), good);
        let changed = |change: fn(&mut [u8])| {
            let mut key = good.to_vec();
            change(&mut key);
            public(&key).unwrap_err().to_string()
        };
        assert!(public(&[0; LEN]).is_err());
        assert!(changed(|key| key[..ML_KEM_LEN].fill(0)).contains("ML-KEM"));
        assert!(changed(|key| key[..3].fill(0xff)).contains("out of range"));
        assert!(changed(|key| key[ML_KEM_LEN..].fill(0)).contains("low order"));
        assert!(private(&[0; SEED_LEN]).is_err());
        for len in [0, LEN - 1, LEN + 1] {
            assert!(public(&vec![1; len]).is_err());
            assert!(private(&vec![1; len]).is_err());
        }
    }
}
