//! Suite 1 with `x`.

use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes128;
use aes_gcm::{AesGcm, Tag};
use cipher_client::crypto::{Identity, Kid, PrivateKey, PublicKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey};
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{encode, lp, member, sign, system};

/// What the holder of a private key gets out of a message.
pub fn session_key(key: &PrivateKey, envelope: &Value) -> [u8; 16] {
    let key = RsaPrivateKey::from_pkcs8_pem(&key.to_pem().unwrap()).unwrap();
    let text = key.decrypt(Oaep::<Sha1>::new(), &member(envelope, "enc_session_key")).unwrap();
    text.try_into().unwrap()
}

/// A message in the making.
pub struct Forged {
    pub id: String,
    pub session_key: [u8; 16],
    pub wrapped: Vec<u8>,
    pub text: Vec<u8>,
    pub exchange: String,
    pub routing_key: String,
    pub stream: [u8; 16],
    pub started_ms: u64,
    pub lifetime_ms: u64,
    pub number: u64,
    pub sent_ms: u64,
    pub recipient: Kid,
    pub sender: Kid,
}

impl Forged {
    /// A message to `to` in the name of `sender`, under a session key of its own.
    pub fn new(to: &PublicKey, sender: &Kid, text: &[u8]) -> Self {
        let now = super::now_ms();
        Self {
            id: "forged".into(),
            session_key: [7; 16],
            wrapped: wrap(to, &[7; 16]),
            text: text.to_vec(),
            exchange: "e".into(),
            routing_key: "k".into(),
            stream: [3; 16],
            started_ms: now,
            lifetime_ms: 60_000,
            number: 0,
            sent_ms: now,
            recipient: *to.kid(),
            sender: *sender,
        }
    }

    /// Of another time.
    pub fn sealed_at(self, ms: u64) -> Self {
        Self { started_ms: ms, sent_ms: ms, ..self }
    }

    /// The statement that a session signature is of.
    pub fn statement(&self) -> Vec<u8> {
        let session = self.session();
        let parts: [&[u8]; 6] = [
            b"cipher/1 session\0",
            self.recipient.as_bytes(),
            self.sender.as_bytes(),
            &[1],
            &session,
            &Sha256::digest(&self.wrapped),
        ];
        parts.concat()
    }

    pub fn signed_by(&self, identity: &Identity) -> Value {
        self.with_signature(&sign(identity, &self.statement()))
    }

    pub fn with_signature(&self, signature: &[u8; 64]) -> Value {
        let nonce = [9; 16];
        let mut ciphertext = self.text.clone();
        let cipher = AesGcm::<Aes128, U16>::new_from_slice(&self.session_key).unwrap();
        let tag: Tag = cipher.encrypt_inout_detached(&nonce.into(), &[], (&mut ciphertext[..]).into()).unwrap();
        let binding = [
            lp(self.id.as_bytes()),
            lp(&nonce),
            tag.to_vec(),
            self.number.to_be_bytes().to_vec(),
            self.sent_ms.to_be_bytes().to_vec(),
            lp(self.exchange.as_bytes()),
            lp(self.routing_key.as_bytes()),
            lp(b""),
        ];
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.mac_key()).unwrap();
        let mac = mac.chain_update(binding.concat()).finalize().into_bytes();
        json!({
            "message_id": self.id,
            "enc_session_key": encode(&self.wrapped),
            "nonce": encode(&nonce),
            "tag": encode(&tag),
            "ciphertext": encode(&ciphertext),
            "x": {
                "v": 1,
                "kid": self.recipient.to_string(),
                "skid": self.sender.to_string(),
                "signed": "session",
                "session": encode(&self.session()),
                "sig": encode(signature),
                "seq": self.number,
                "ts": self.sent_ms,
                "ctx": {"exchange": self.exchange, "routing_key": self.routing_key},
                "mac": encode(&mac),
            },
        })
    }

    fn session(&self) -> Vec<u8> {
        [&self.stream[..], &self.started_ms.to_be_bytes(), &self.lifetime_ms.to_be_bytes()].concat()
    }

    fn mac_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        let info = [&b"mac\0"[..], &Sha256::digest(self.statement())].concat();
        Hkdf::<Sha256>::new(Some(b"cipher/1x"), &self.session_key).expand(&info, &mut key).unwrap();
        key
    }
}

pub fn wrap(to: &PublicKey, session_key: &[u8]) -> Vec<u8> {
    let key = RsaPublicKey::from_public_key_der(to.as_der()).unwrap();
    key.encrypt(&mut system(), Oaep::<Sha1>::new(), session_key).unwrap()
}

/// An unsigned message under its own session key with the nonce and the tag of
/// another one: whoever knows the key can reach every tag with one free block.
pub fn with_sealing_of(other: &Value, to: &PublicKey, id: &str) -> Value {
    let session_key = [8; 16];
    let wanted: [u8; 16] = member(other, "tag").try_into().unwrap();
    let nonce: [u8; 16] = member(other, "nonce").try_into().unwrap();
    let cipher = AesGcm::<Aes128, U16>::new_from_slice(&session_key).unwrap();
    let tag_of = |ciphertext: u128| {
        let mut block = key_stream(&cipher, nonce);
        block.iter_mut().zip(ciphertext.to_be_bytes()).for_each(|(byte, with)| *byte ^= with);
        let tag: Tag = cipher.encrypt_inout_detached(&nonce.into(), &[], (&mut block[..]).into()).unwrap();
        assert_eq!(block, ciphertext.to_be_bytes());
        u128::from_be_bytes(tag.into())
    };
    // The tag is an affine function of the one block, bit by bit: solve it.
    let zero = tag_of(0);
    let columns: Vec<u128> = (0..128).map(|bit| tag_of(1 << bit) ^ zero).collect();
    let ciphertext = solve(&columns, u128::from_be_bytes(wanted) ^ zero);
    assert_eq!(tag_of(ciphertext).to_be_bytes(), wanted);
    json!({
        "message_id": id,
        "enc_session_key": encode(&wrap(to, &session_key)),
        "nonce": encode(&nonce),
        "tag": encode(&wanted),
        "ciphertext": encode(&ciphertext.to_be_bytes()),
    })
}

fn key_stream(cipher: &AesGcm<Aes128, U16>, nonce: [u8; 16]) -> [u8; 16] {
    let mut block = [0; 16];
    cipher.encrypt_inout_detached(&nonce.into(), &[], (&mut block[..]).into()).unwrap();
    block
}

/// Which of `columns`, added up without carry, make `wanted`: Gauss over bits.
fn solve(columns: &[u128], wanted: u128) -> u128 {
    let mut basis: Vec<(u128, u128)> = Vec::new();
    let reduce = |basis: &[(u128, u128)], mut value: u128, mut made_of: u128| {
        for (pivot, parts) in basis {
            if value & (1 << pivot.ilog2()) != 0 {
                (value, made_of) = (value ^ pivot, made_of ^ parts);
            }
        }
        (value, made_of)
    };
    for (bit, column) in columns.iter().enumerate() {
        let (value, made_of) = reduce(&basis, *column, 1 << bit);
        if value != 0 {
            basis.push((value, made_of));
        }
    }
    let (rest, made_of) = reduce(&basis, wanted, 0);
    assert_eq!(rest, 0, "multiplication in the field can be undone");
    made_of
}
