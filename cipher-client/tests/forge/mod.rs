//! An attacker's own implementation: whatever docs/encryption.md lets anybody
//! build who has a session key, a private key or an identity.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

pub mod suite1;
pub mod suite2;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{Identity, PrivateKey};
use ed25519_dalek::{Signer, SigningKey};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use serde_json::Value;

/// Signs whatever it is given.
pub fn sign(identity: &Identity, bytes: &[u8]) -> [u8; 64] {
    let seed = last_32(&identity.to_pem().unwrap());
    SigningKey::from_bytes(&seed).sign(bytes).to_bytes()
}

/// The 32 bytes of an X25519 private key.
pub fn scalar(key: &PrivateKey) -> [u8; 32] {
    last_32(&key.to_pem().unwrap())
}

/// Both kinds of key end in their 32 bytes.
fn last_32(pem: &str) -> [u8; 32] {
    let text: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    *STANDARD.decode(text).unwrap().last_chunk().unwrap()
}

pub fn system() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The decoded bytes of a member.
pub fn member(envelope: &Value, name: &str) -> Vec<u8> {
    STANDARD.decode(envelope[name].as_str().unwrap_or_else(|| panic!("no {name}"))).unwrap()
}

pub fn lp(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}
