//! OAEP by AWS-LC (feature `aws-lc`): six times as fast as the crate `rsa` in
//! unwrapping, and with no advisory on it.
//!
//! It takes keys from 2048 to 8192 bits with the usual exponents. For any other
//! there is nothing here, and the caller goes on with the crate `rsa`.

use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use zeroize::Zeroizing;

use super::rsa::{OAEP_LABEL, Oaep};
use crate::error::{Error, Result};

pub(super) struct Public(OaepPublicEncryptingKey);

impl Public {
    pub(super) fn new(spki: &[u8]) -> Option<Self> {
        let key = PublicEncryptingKey::from_der(spki).ok()?;
        OaepPublicEncryptingKey::new(key).ok().map(Self)
    }

    pub(super) fn encrypt(&self, oaep: Oaep, text: &[u8]) -> Result<Vec<u8>> {
        let (algorithm, label) = parameters(oaep);
        let mut block = vec![0; self.0.ciphertext_size()];
        let encrypted = self.0.encrypt(algorithm, text, &mut block, label);
        let len = encrypted.map_err(|_| Error::key("cannot wrap with it"))?.len();
        block.truncate(len);
        Ok(block)
    }
}

/// AWS-LC wipes the key when it is dropped.
pub(super) struct Private(OaepPrivateDecryptingKey);

impl Private {
    pub(super) fn new(pkcs8: &[u8]) -> Option<Self> {
        let key = PrivateDecryptingKey::from_pkcs8(pkcs8).ok()?;
        OaepPrivateDecryptingKey::new(key).ok().map(Self)
    }

    /// Blinded, as AWS-LC does by itself.
    pub(super) fn decrypt(&self, oaep: Oaep, block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (algorithm, label) = parameters(oaep);
        let mut text = Zeroizing::new(vec![0; self.0.min_output_size()]);
        let len = self.0.decrypt(algorithm, block, &mut text, label).ok()?.len();
        text.truncate(len);
        Some(text)
    }
}

fn parameters(oaep: Oaep) -> (&'static OaepAlgorithm, Option<&'static [u8]>) {
    match oaep {
        Oaep::Suite1 => (&OAEP_SHA1_MGF1SHA1, None),
        Oaep::Suite2 => (&OAEP_SHA256_MGF1SHA256, Some(OAEP_LABEL)),
    }
}
