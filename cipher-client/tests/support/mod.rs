//! The vectors of tests/vectors/envelope-v1.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::path::Path;

use cipher_client::crypto::PrivateKey;
use serde_json::Value;

/// One file of vectors.
pub fn vectors(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/envelope-v1");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let vectors: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(vectors["format"], "ciphermq-envelope-vectors-1");
    vectors
}

/// The envelopes of one file.
pub fn cases(name: &str) -> Vec<Value> {
    vectors(name)["envelopes"].as_array().unwrap().clone()
}

/// A member that is text.
pub fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))
}

/// A key of the vectors.
pub fn private_key(name: &str) -> PrivateKey {
    PrivateKey::from_pem(field(&vectors("keys.json")["keys"][name], "pkcs8")).unwrap()
}
