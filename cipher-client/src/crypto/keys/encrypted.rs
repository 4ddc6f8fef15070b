//! Private keys under a passphrase: PKCS#8 with PBES2 (RFC 8018 section 6.2).
//!
//! Written: scrypt (RFC 7914) with N = 2^14, r = 8, p = 5, a salt of 16 bytes,
//! then AES-256-CBC. That is 16 MiB and about a fifth of a second for each guess,
//! and the most of N that OpenSSL reads without being told to.

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode, Encode};
use pkcs8::pkcs5::EncryptionScheme as Scheme;
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Salt, ScryptParams};
use zeroize::{Zeroize, Zeroizing};

use super::pem;
use crate::crypto::passphrase::Passphrase;
use crate::crypto::suite;
use crate::error::{Error, ErrorKind, Result};

/// Decrypts an EncryptedPrivateKeyInfo into PKCS#8.
pub(in crate::crypto) fn decrypt(der: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>> {
    let info = EncryptedPrivateKeyInfoRef::from_der(der).map_err(unsupported)?;
    let Scheme::Pbes2(parameters) = &info.encryption_algorithm else { return Err(Error::key(UNSUPPORTED)) };
    check_cost(&parameters.kdf)?;
    let mut text = Zeroizing::new(info.encrypted_data.as_bytes().to_vec());
    let len = parameters.decrypt_in_place(passphrase.as_bytes(), &mut text).map_err(undecryptable)?.len();
    text[len..].zeroize();
    text.truncate(len);
    // CBC has no tag: one wrong passphrase in 256 ends in a good padding. What is in there is not DER then.
    if pkcs8::PrivateKeyInfoRef::from_der(&text).is_err() {
        return Err(ErrorKind::PassphraseWrong.into());
    }
    Ok(text)
}

/// The PEM text of a PKCS#8 key under a passphrase.
pub(in crate::crypto) fn to_pem(pkcs8: &[u8], passphrase: &Passphrase) -> Result<String> {
    let kdf = Kdf::Scrypt(ScryptParams {
        salt: Salt::new(suite::random::<SALT_LEN>()?).map_err(pem::unwritable)?,
        cost_parameter: SCRYPT_N,
        block_size: SCRYPT_R,
        parallelization: SCRYPT_P,
        key_length: None,
    });
    let parameters = Parameters { kdf, encryption: EncryptionScheme::Aes256Cbc { iv: suite::random()? } };
    let text = parameters.encrypt(passphrase.as_bytes(), pkcs8).map_err(pem::unwritable)?;
    let info = EncryptedPrivateKeyInfoRef {
        encryption_algorithm: parameters.into(),
        encrypted_data: OctetStringRef::new(&text).map_err(pem::unwritable)?,
    };
    pem::encrypted_text(&info.to_der().map_err(pem::unwritable)?)
}

/// A file can ask for any amount of memory and time; these are given.
fn check_cost(kdf: &Kdf) -> Result<()> {
    let is_fair = match kdf {
        Kdf::Scrypt(scrypt) => {
            let block = 128 * u64::from(scrypt.block_size);
            scrypt.cost_parameter.is_power_of_two()
                && scrypt.cost_parameter.checked_mul(block).is_some_and(|bytes| bytes <= SCRYPT_BYTES_MAX)
                && (1..=SCRYPT_P_MAX).contains(&scrypt.parallelization)
        }
        Kdf::Pbkdf2(pbkdf2) => (1..=PBKDF2_ROUNDS_MAX).contains(&pbkdf2.iteration_count),
        _ => false,
    };
    if is_fair { Ok(()) } else { Err(Error::key(COSTLY)) }
}

/// CPU and memory cost: with `SCRYPT_R` 16 MiB.
const SCRYPT_N: u64 = 1 << 14;
const SCRYPT_R: u16 = 8;
/// Five times over, for the time that more memory would take.
const SCRYPT_P: u16 = 5;
const SALT_LEN: usize = 16;

/// Most memory that reading a key takes.
const SCRYPT_BYTES_MAX: u64 = 256 << 20;
const SCRYPT_P_MAX: u16 = 16;
/// About five seconds.
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;

const UNSUPPORTED: &str = "encrypted with an algorithm that is not read (scrypt or PBKDF2 with AES are); \
    write it anew: openssl pkcs8 -topk8 -in <file> -v2 aes-256-cbc -out <new file>";
const COSTLY: &str = "encrypted with a cost over 256 MiB of memory or 10,000,000 rounds";

fn unsupported(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Key { reason: UNSUPPORTED }, fault)
}

fn undecryptable(fault: pkcs8::pkcs5::Error) -> Error {
    match fault {
        pkcs8::pkcs5::Error::DecryptFailed => ErrorKind::PassphraseWrong.into(),
        fault => unsupported(fault),
    }
}

#[cfg(test)]
mod tests {
    use pkcs8::pkcs5::pbes2::{Pbkdf2Params, Pbkdf2Prf};

    use super::*;

    #[test]
    fn a_file_cannot_ask_for_any_amount_of_work() {
        let salt = Salt::new([1; SALT_LEN]).unwrap();
        let scrypt = |cost_parameter, block_size, parallelization| {
            let key_length = None;
            check_cost(&Kdf::Scrypt(ScryptParams { salt, cost_parameter, block_size, parallelization, key_length }))
                .is_ok()
        };
        assert!(scrypt(SCRYPT_N, SCRYPT_R, SCRYPT_P));
        assert!(scrypt(1 << 17, 8, 1) && scrypt(1 << 18, 8, SCRYPT_P_MAX));
        assert!(!scrypt(1 << 19, 8, 1) && !scrypt(1 << 63, u16::MAX, 1) && !scrypt(1 << 17, 17, 1));
        assert!(!scrypt(SCRYPT_N, 8, 0) && !scrypt(SCRYPT_N, 8, SCRYPT_P_MAX + 1));
        assert!(!scrypt(0, 8, 1) && !scrypt(1000, 8, 1));
        let pbkdf2 = |iteration_count| {
            let prf = Pbkdf2Prf::HmacWithSha256;
            check_cost(&Kdf::Pbkdf2(Pbkdf2Params { salt, iteration_count, key_length: None, prf })).is_ok()
        };
        assert!(pbkdf2(1) && pbkdf2(PBKDF2_ROUNDS_MAX));
        assert!(!pbkdf2(0) && !pbkdf2(PBKDF2_ROUNDS_MAX + 1));
    }
}
