//! Key files: what is read, what is refused and how, what is written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

mod support;

use std::fs;

use cipher_client::crypto::{PrivateKey, PublicKey, open, seal, write_key_pair};
use cipher_client::{Error, ErrorKind};

use support::{field, private_key, vectors};

fn reason(error: Option<Error>) -> &'static str {
    match error.expect("was read").kind() {
        ErrorKind::Key { reason } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn the_wrong_kind_of_key_is_named() {
    let forms = vectors("keys.json")["keys"]["rsa2048"].clone();
    let (public, private) = (field(&forms, "spki"), field(&forms, "pkcs8"));
    assert!(reason(PublicKey::from_pem(private).err()).contains("private key"));
    assert!(reason(PrivateKey::from_pem(public).err()).contains("public key"));
    let certificate = public.replace("PUBLIC KEY", "CERTIFICATE");
    assert!(reason(PublicKey::from_pem(certificate).err()).contains("certificate"));
    for not_pem in ["", "hello", "-----BEGIN", "\u{0}"] {
        assert_eq!(reason(PublicKey::from_pem(not_pem).err()), "not a PEM text");
        assert_eq!(reason(PrivateKey::from_pem(not_pem).err()), "not a PEM text");
    }
    assert_eq!(reason(PrivateKey::from_pem([0xff, 0xfe]).err()), "not a PEM text");
}

#[test]
fn an_encrypted_key_says_what_to_do() {
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_eq!(*PrivateKey::from_pem(pkcs8).err().unwrap().kind(), ErrorKind::PassphraseNeeded);
    let pkcs1 = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
    assert!(reason(PrivateKey::from_pem(pkcs1).err()).contains("openssl pkey -in <file> -aes256"));
}

#[test]
fn damaged_keys_are_refused() {
    let forms = vectors("keys.json")["keys"]["rsa2048"].clone();
    let without_a_line = |form| -> String {
        let lines = field(&forms, form).lines().enumerate();
        lines.filter(|(n, _)| *n != 3).flat_map(|(_, line)| [line, "\n"]).collect()
    };
    for form in ["pkcs1", "pkcs8"] {
        assert_eq!(reason(PrivateKey::from_pem(without_a_line(form)).err()), "damaged, or not a key");
    }
    assert_eq!(reason(PublicKey::from_pem(without_a_line("spki")).err()), "damaged, or not a key");
}

#[test]
fn line_ends_and_text_round_a_key_do_not_matter() {
    let forms = vectors("keys.json")["keys"]["rsa2048"].clone();
    let pem = format!("RSA key of the receiver:\n\n{}\n \n", field(&forms, "spki"));
    for pem in [pem.replace('\n', "\r\n"), pem] {
        assert_eq!(PublicKey::from_pem(pem).unwrap().fingerprint(), field(&forms, "fingerprint"));
    }
}

#[test]
fn a_small_key_is_used_with_opt_in_only() {
    let key = private_key("rsa1048");
    assert_eq!(key.bits(), 1048);
    let small = |error: Error| matches!(error.kind(), ErrorKind::KeyTooSmall { bits: 1048, min: 2048 });
    assert!(small(seal(b"text", &key.public_key(), None).unwrap_err()));
    let envelope = seal(b"text", &key.public_key().allow_legacy_rsa(), None).unwrap();
    assert!(small(open(&envelope, &key).unwrap_err()));
    assert_eq!(open(&envelope, &key.allow_legacy_rsa()).unwrap().plaintext, b"text");
}

#[test]
fn sizes_that_are_not_made_are_refused_at_once() {
    for bits in [0, 512, 1024, 2047, 2049, 8200, usize::MAX] {
        let error = PrivateKey::generate(bits).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Option { option: "bits", .. }), "{bits}");
    }
}

#[test]
fn a_pair_is_written_once_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new/keys");
    let key = private_key("rsa2048");
    let paths = write_key_pair(&dir, &key).unwrap();
    assert_eq!(paths.private, dir.join("receiver_private.pem"));
    assert_eq!(paths.public, dir.join("receiver_public.pem"));
    assert_eq!(PrivateKey::from_file(&paths.private).unwrap().fingerprint(), key.fingerprint());
    assert_eq!(PublicKey::from_file(&paths.public).unwrap().fingerprint(), key.fingerprint());
    assert!(fs::read_to_string(&paths.private).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(fs::read_to_string(&paths.public).unwrap().starts_with("-----BEGIN PUBLIC KEY-----\n"));
}

#[test]
fn no_key_file_is_ever_overwritten() {
    let key = private_key("rsa2048");
    for existing in ["receiver_private.pem", "receiver_public.pem"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(existing), "precious").unwrap();
        let error = write_key_pair(dir.path(), &key).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Io { .. }));
        assert_eq!(fs::read_to_string(dir.path().join(existing)).unwrap(), "precious");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "half a pair was written");
    }
}

#[cfg(unix)]
#[test]
fn the_private_file_is_the_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let paths = write_key_pair(dir.path(), &private_key("rsa2048")).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&paths.private), 0o600);
    assert_eq!(mode(&paths.public) & 0o700, 0o600);
}

#[test]
fn a_missing_or_huge_file_is_an_io_or_file_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    assert!(matches!(PublicKey::from_file(&path).err().unwrap().kind(), ErrorKind::Io { .. }));
    fs::write(&path, "x".repeat(70_000)).unwrap();
    assert!(matches!(PublicKey::from_file(&path).err().unwrap().kind(), ErrorKind::File { .. }));
}

#[test]
fn a_public_key_can_be_shown_and_compared() {
    let key = private_key("rsa2048").public_key();
    assert_eq!(key, PublicKey::from_pem(key.to_pem().unwrap()).unwrap());
    assert_ne!(key, private_key("rsa3072").public_key());
    assert_eq!(format!("{key:?}"), format!("PublicKey({})", key.fingerprint()));
}
