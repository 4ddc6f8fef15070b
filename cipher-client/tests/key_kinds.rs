//! Keys of every kind: their forms, their names, and that none protects nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

mod support;

use cipher_client::crypto::{KeyKind, Kid, OpenPolicy, Opener, PemKind, PrivateKey, PublicKey};
use cipher_client::{Error, ErrorKind};

use support::{field, vectors};

const KINDS: [KeyKind; 3] = [KeyKind::Rsa, KeyKind::X25519, KeyKind::XWing];

fn reason(error: Option<Error>) -> &'static str {
    match error.expect("was read").kind() {
        ErrorKind::Key { reason } => reason,
        other => panic!("{other}"),
    }
}

/// A PEM text round DER that is given in hexadecimal.
fn pem(label: &str, hex: &str) -> String {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    let text = base64(&bytes.collect::<Vec<u8>>());
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit =
            |n: usize| if n > group.len() { '=' } else { ALPHABET[(bits >> (18 - 6 * n)) as usize & 63].into() };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[test]
fn every_kind_is_read_as_it_was_written() {
    for kind in KINDS {
        let key = PrivateKey::generate_kind(kind).unwrap();
        assert_eq!(key.kind(), kind);
        let text = key.to_pem().unwrap();
        let read = PrivateKey::from_pem(text.as_bytes()).unwrap();
        assert_eq!((read.kid(), read.kind()), (key.kid(), kind));
        assert_eq!(read.to_pem().unwrap(), text);
        let public = key.public_key();
        assert_eq!(PublicKey::from_pem(public.to_pem().unwrap()).unwrap(), public);
        assert_eq!(PublicKey::from_der(public.as_der()).unwrap().kid(), key.kid());
        assert_eq!(public.fingerprint(), public.kid().to_string());
        assert_eq!(public.fingerprint().parse::<Kid>().unwrap(), *public.kid());
        assert_ne!(PrivateKey::generate_kind(kind).unwrap().kid(), key.kid(), "another key");
    }
}

/// RFC 8410 section 10: the first is its example of the form, with the key of RFC 7748 section 6.1.
#[test]
fn x25519_keys_have_the_form_of_the_standard() {
    let private = "302e020100300506032b656e04220420 77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
    let public = "302a300506032b656e032100 8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    let key = PrivateKey::from_pem(pem("PRIVATE KEY", private)).unwrap();
    assert_eq!(key.kind(), KeyKind::X25519);
    assert_eq!(key.bits(), 256);
    assert_eq!(key.public_key().to_pem().unwrap(), pem("PUBLIC KEY", public));
    assert_eq!(key.to_pem().unwrap().as_str(), pem("PRIVATE KEY", private));
}

/// Version 1 of the structure carries the public half as well.
#[test]
fn a_private_key_with_its_public_half_is_read() {
    let both = "3051020101300506032b656e04220420 77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a
        812100 8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    let key = PrivateKey::from_pem(pem("PRIVATE KEY", both)).unwrap();
    assert_eq!(key.kind(), KeyKind::X25519);
    let with_another = both.replace("4e6a", "4e6b");
    assert!(reason(PrivateKey::from_pem(pem("PRIVATE KEY", &with_another)).err()).contains("do not belong together"));
}

#[test]
fn x_wing_keys_stand_raw_under_the_identifier_of_the_draft() {
    let seed =
        "3034020100300d060b2b0601040183e62d81c87a0420 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let key = PrivateKey::from_pem(pem("PRIVATE KEY", seed)).unwrap();
    assert_eq!(key.kind(), KeyKind::XWing);
    assert_eq!(key.to_pem().unwrap().as_str(), pem("PRIVATE KEY", seed));
    let spki = key.public_key().as_der().to_vec();
    let header = [
        0x30, 0x82, 0x04, 0xd4, 0x30, 0x0d, 0x06, 0x0b, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xe6, 0x2d, 0x81, 0xc8,
        0x7a, 0x03, 0x82, 0x04, 0xc1, 0x00,
    ];
    assert_eq!((&spki[..24], spki.len()), (&header[..], 24 + 1216));
    assert_ne!(*key.kid(), Kid::of_spki(&spki), "an X-Wing key is named by its bytes, not by a form that may change");
    let with_wrong_length = seed.replace("3034", "3033").replace("0420", "041f").replace("1e1f", "1e");
    assert!(reason(PrivateKey::from_pem(pem("PRIVATE KEY", &with_wrong_length)).err()).contains("32 bytes"));
}

#[test]
fn keys_of_zeros_are_refused() {
    let zeros = "00".repeat(32);
    for private in ["302e020100300506032b656e04220420", "3034020100300d060b2b0601040183e62d81c87a0420"] {
        assert!(reason(PrivateKey::from_pem(pem("PRIVATE KEY", &format!("{private}{zeros}"))).err()).contains("zeros"));
    }
    let public = pem("PUBLIC KEY", &format!("302a300506032b656e032100{zeros}"));
    assert!(reason(PublicKey::from_pem(public).err()).contains("low order"));
    let zeros = "00".repeat(1216);
    let public = format!("308204d4300d060b2b0601040183e62d81c87a038204c100{zeros}");
    assert!(reason(PublicKey::from_pem(pem("PUBLIC KEY", &public)).err()).contains("protects nothing"));
}

/// A modulus of zeros, an even one, an exponent of one.
#[test]
fn rsa_keys_that_cannot_be_are_refused() {
    let key = PrivateKey::generate(2048).unwrap().public_key();
    let good = key.as_der().to_vec();
    let (modulus, last) = (good.len() - 261..good.len() - 5, good.len() - 6);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut der = good.clone();
        change(&mut der);
        PublicKey::from_der(der).is_err()
    };
    assert!(changed(&|der| der[modulus.clone()].fill(0)));
    assert!(changed(&|der| der[last] &= 0xfe), "even");
    assert!(changed(&|der| {
        let len = der.len();
        der[len - 3..].copy_from_slice(&[0, 0, 1]);
    }));
    assert!(!changed(&|_| ()));
}

#[test]
fn keys_of_other_algorithms_are_named() {
    let ed25519 = "302e020100300506032b657004220420 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    assert!(reason(PrivateKey::from_pem(pem("PRIVATE KEY", ed25519)).err()).contains("Ed25519"));
    let x448 = "3046020100300506032b656f043a0438".to_owned() + &"11".repeat(56);
    assert!(
        reason(PrivateKey::from_pem(pem("PRIVATE KEY", &x448)).err()).contains("not a key of RSA, X25519 or X-Wing")
    );
    let x25519_with_parameters = "302c300706032b656e0500032100".to_owned() + &"09".repeat(32);
    assert!(PublicKey::from_pem(pem("PUBLIC KEY", &x25519_with_parameters)).is_err());
}

#[test]
fn what_a_text_is_can_be_told_without_reading_the_key() {
    let forms = vectors("keys.json")["keys"]["rsa2048"].clone();
    for (form, kind) in [("spki", PemKind::Public), ("pkcs1", PemKind::Private), ("pkcs8", PemKind::Private)] {
        assert_eq!(PemKind::of(field(&forms, form)).unwrap(), kind);
    }
    assert!(PemKind::of("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").is_err());
}

/// Suite 1 envelopes never reach a key of another kind.
#[test]
fn a_key_of_another_kind_beside_an_rsa_key_does_not_matter() {
    let [rsa, x25519, xwing] = KINDS.map(|kind| PrivateKey::generate_kind(kind).unwrap());
    let opener = Opener::with_keys(&[&xwing, &x25519, &rsa], OpenPolicy::default()).unwrap();
    let envelope = cipher_client::crypto::seal(b"text", &rsa.public_key(), None).unwrap();
    assert_eq!(opener.open(&envelope).unwrap().plaintext, b"text");
    let without = Opener::with_keys(&[&xwing, &x25519], OpenPolicy::default()).unwrap();
    assert_eq!(*without.open(&envelope).unwrap_err().kind(), ErrorKind::Decrypt);
}
