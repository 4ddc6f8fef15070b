//! Suite 2 to X25519 keys.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use cipher_client::crypto::{Identity, Kid, PrivateKey, PublicKey};
use hkdf::Hkdf;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender_with_rng};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use super::{encode, lp, member, scalar, sign, system};

/// What the holder of a private key gets out of a message.
pub fn content_key(key: &PrivateKey, envelope: &Value) -> [u8; 32] {
    let header = Header::read(&member(envelope, "hdr"));
    let place = header.recipients.iter().position(|kid| kid == key.kid()).unwrap();
    unwrap(key, &wraps(envelope)[place]).unwrap()
}

pub fn wraps(envelope: &Value) -> Vec<Vec<u8>> {
    let more = envelope["wraps"].as_array().cloned().unwrap_or_default();
    let more = more.iter().map(|text| member(&json!({"w": text}), "w"));
    std::iter::once(member(envelope, "enc_session_key")).chain(more).collect()
}

pub fn wrap(to: &PublicKey, content_key: &[u8; 32]) -> Vec<u8> {
    let to = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(to.as_der().last_chunk::<32>().unwrap()).unwrap();
    let (encapped, mut context) = setup_sender_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &to,
        b"cipher/2",
        &mut system(),
    )
    .unwrap();
    [&encapped.to_bytes()[..], &context.seal(content_key, b"").unwrap()].concat()
}

fn unwrap(key: &PrivateKey, wrap: &[u8]) -> Option<[u8; 32]> {
    let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&scalar(key)).unwrap();
    let encapped = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&wrap[..32]).unwrap();
    let mut context =
        setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&OpModeR::Base, &key, &encapped, b"cipher/2").ok()?;
    context.open(&wrap[32..], b"").ok()?.try_into().ok()
}

/// The fields of a header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub sent_ms: u64,
    pub session: [u8; 16],
    pub number: u64,
    pub started_ms: u64,
    pub lifetime_ms: u64,
    pub id: String,
    pub exchange: String,
    pub routing_key: String,
    pub content_type: String,
    pub sender: Option<Kid>,
    pub recipients: Vec<Kid>,
}

impl Header {
    pub fn bytes(&self) -> Vec<u8> {
        let kids: Vec<u8> = self.recipients.iter().flat_map(|kid| *kid.as_bytes()).collect();
        let parts: [&[u8]; 12] = [
            &[2, 2, 0],
            &self.sent_ms.to_be_bytes(),
            &self.session,
            &self.number.to_be_bytes(),
            &self.started_ms.to_be_bytes(),
            &self.lifetime_ms.to_be_bytes(),
            &lp(self.id.as_bytes()),
            &lp(self.exchange.as_bytes()),
            &lp(self.routing_key.as_bytes()),
            &lp(self.content_type.as_bytes()),
            &lp(self.sender.as_ref().map_or(&[][..], |kid| kid.as_bytes())),
            &lp(&kids),
        ];
        parts.concat()
    }

    pub fn read(mut bytes: &[u8]) -> Self {
        assert_eq!(bytes[..3], [2, 2, 0]);
        let mut take = |len: usize| {
            let (taken, rest) = bytes.split_at(len);
            bytes = rest;
            taken.to_vec()
        };
        let number = |bytes: Vec<u8>| u64::from_be_bytes(bytes.try_into().unwrap());
        take(3);
        let (sent_ms, session, count) = (number(take(8)), take(16).try_into().unwrap(), number(take(8)));
        let (started_ms, lifetime_ms) = (number(take(8)), number(take(8)));
        let mut field = || {
            let len = u32::from_be_bytes(take(4).try_into().unwrap());
            take(len as usize)
        };
        let mut text = || String::from_utf8(field()).unwrap();
        let (id, exchange, routing_key, content_type) = (text(), text(), text(), text());
        let kids = |bytes: Vec<u8>| bytes.chunks(32).map(|kid| Kid::from_bytes(kid.try_into().unwrap())).collect();
        let senders: Vec<Kid> = kids(field());
        Self {
            sent_ms,
            session,
            number: count,
            started_ms,
            lifetime_ms,
            id,
            exchange,
            routing_key,
            content_type,
            sender: senders.first().copied(),
            recipients: kids(field()),
        }
    }

    /// What a session signature is of.
    pub fn statement(&self, wrap: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 8] = [
            b"cipher/2 session\0",
            &[2],
            &self.session,
            &self.started_ms.to_be_bytes(),
            &self.lifetime_ms.to_be_bytes(),
            self.sender.as_ref().unwrap().as_bytes(),
            self.recipients[0].as_bytes(),
            &Sha512::digest(wrap),
        ];
        parts.concat()
    }
}

/// A message in the making.
pub struct Forged {
    pub header: Header,
    pub content_key: [u8; 32],
    pub wraps: Vec<Vec<u8>>,
    pub text: Vec<u8>,
}

impl Forged {
    /// A message to `to` in the name of `sender`, under a content key of its own.
    pub fn new(to: &[&PublicKey], sender: Option<&Kid>, text: &[u8]) -> Self {
        let mut to = to.to_vec();
        to.sort_by_key(|key| *key.kid());
        let now = super::now_ms();
        let header = Header {
            sent_ms: now,
            session: [3; 16],
            number: 0,
            started_ms: now,
            lifetime_ms: 60_000,
            id: "forged".into(),
            exchange: "e".into(),
            routing_key: "k".into(),
            content_type: String::new(),
            sender: sender.copied(),
            recipients: to.iter().map(|key| *key.kid()).collect(),
        };
        let wraps = to.iter().map(|key| wrap(key, &[7; 32])).collect();
        Self { header, content_key: [7; 32], wraps, text: text.to_vec() }
    }

    /// Another text under the key and the header of `envelope`, by one who can open it.
    pub fn like(envelope: &Value, key: &PrivateKey, text: &[u8]) -> Self {
        Self {
            header: Header::read(&member(envelope, "hdr")),
            content_key: content_key(key, envelope),
            wraps: wraps(envelope),
            text: text.to_vec(),
        }
    }

    /// Of another time.
    pub fn sealed_at(mut self, ms: u64) -> Self {
        (self.header.started_ms, self.header.sent_ms) = (ms, ms);
        self
    }

    /// As the sender would: the session for one recipient, the message for several.
    pub fn signed_by(&self, identity: &Identity) -> Value {
        let signed = match self.wraps.len() {
            1 => self.header.statement(&self.wraps[0]),
            _ => self.message_statement(),
        };
        self.with_signature(Some(&sign(identity, &signed)))
    }

    pub fn message_statement(&self) -> Vec<u8> {
        let wraps: Vec<u8> = self.wraps.iter().flat_map(|wrap| lp(wrap)).collect();
        let digests = [&self.header.bytes()[..], &wraps, &self.payload()].map(Sha512::digest);
        [&b"cipher/2 message\0"[..], &digests[0], &digests[1], &digests[2]].concat()
    }

    pub fn with_signature(&self, signature: Option<&[u8; 64]>) -> Value {
        let mut envelope = json!({
            "message_id": self.header.id,
            "enc_session_key": encode(&self.wraps[0]),
            "nonce": "",
            "tag": "",
            "v": 2,
            "suite": "2x",
            "hdr": encode(&self.header.bytes()),
            "ciphertext": encode(&self.payload()),
        });
        if self.wraps.len() > 1 {
            envelope["wraps"] = self.wraps[1..].iter().map(|wrap| encode(wrap)).collect();
        }
        if let Some(signature) = signature {
            envelope["sig"] = encode(signature).into();
        }
        envelope
    }

    /// One chunk is enough.
    fn payload(&self) -> Vec<u8> {
        let (salt, header) = ([9; 24], self.header.bytes());
        let mut prk = [0; 64];
        prk[..32].copy_from_slice(&self.content_key);
        let info = [&b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"[..], &salt, &header].concat();
        let mut derived = [0; 76];
        Hkdf::<Sha512>::from_prk(&prk).unwrap().expand(&info, &mut derived).unwrap();
        let mut chunk = self.text.clone();
        let nonce: [u8; 12] = derived[32..44].try_into().unwrap();
        let cipher = Aes256Gcm::new_from_slice(&derived[..32]).unwrap();
        let tag: Tag = cipher.encrypt_inout_detached(&Nonce::from(nonce), &[], (&mut chunk[..]).into()).unwrap();
        [&salt[..], &derived[44..], &chunk, &tag].concat()
    }
}
