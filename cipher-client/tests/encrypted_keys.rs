//! Private keys under a passphrase: our own, and OpenSSL's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use cipher_client::crypto::{
    KeyFileOptions, KeyKind, PASSPHRASE_BYTES_MAX, Passphrase, PemKind, PrivateKey, PublicKey, change_passphrase,
    write_encrypted_key_pair,
};
use cipher_client::{Error, ErrorKind};

const KINDS: [KeyKind; 3] = [KeyKind::Rsa, KeyKind::X25519, KeyKind::XWing];
const WORDS: &str = "correct h\u{f6}rse";

fn passphrase(words: &str) -> Passphrase {
    Passphrase::new(words).unwrap()
}

fn kind<T>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.err().expect("was read").kind().clone()
}

#[test]
fn every_kind_is_read_under_its_passphrase_and_no_other() {
    for kind_of_key in KINDS {
        let key = PrivateKey::generate_kind(kind_of_key).unwrap();
        let text = key.to_encrypted_pem(&passphrase(WORDS)).unwrap();
        assert_eq!(PemKind::of(&text).unwrap(), PemKind::EncryptedPrivate);
        assert_eq!(PrivateKey::from_encrypted_pem(&text, &passphrase(WORDS)).unwrap().kid(), key.kid());
        assert_eq!(kind(PrivateKey::from_encrypted_pem(&text, &passphrase("wrong"))), ErrorKind::PassphraseWrong);
        assert_eq!(kind(PrivateKey::from_pem(&text)), ErrorKind::PassphraseNeeded);
        assert_ne!(key.to_encrypted_pem(&passphrase(WORDS)).unwrap(), text, "another salt");
    }
}

#[test]
fn a_key_that_is_not_encrypted_needs_no_passphrase() {
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    let text = key.to_pem().unwrap();
    assert_eq!(PrivateKey::from_encrypted_pem(text.as_bytes(), &passphrase("any")).unwrap().kid(), key.kid());
}

/// CBC padding is right by chance once in 256.
#[test]
fn a_wrong_passphrase_is_never_another_key() {
    // PBKDF2 with one round, so that many can be tried: written by `openssl pkcs8 -topk8 -iter 1`.
    let text = include_str!("keys/x25519-one-round.pem");
    assert_eq!(PrivateKey::from_encrypted_pem(text, &passphrase("secret")).unwrap().kind(), KeyKind::X25519);
    for n in 0..2000 {
        let wrong = passphrase(&format!("secret{n}"));
        assert_eq!(kind(PrivateKey::from_encrypted_pem(text, &wrong)), ErrorKind::PassphraseWrong, "{n}");
    }
}

fn decoded(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn encoded(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{}\n-----END ENCRYPTED PRIVATE KEY-----\n", lines.join("\n"))
}

#[test]
fn damaged_and_foreign_encryption_is_refused() {
    let text = include_str!("keys/x25519-one-round.pem");
    let der = decoded(text);
    for n in 0..der.len() {
        let mut damaged = der.clone();
        damaged[n] ^= 1;
        if let Ok(key) = PrivateKey::from_encrypted_pem(encoded(&damaged), &passphrase("secret")) {
            // CBC has no tag: a change in the first block and the vector before it can go unnoticed in the key itself.
            assert_eq!(key.kind(), KeyKind::X25519);
        }
    }
    let triple_des = include_str!("keys/x25519-3des.pem");
    let outcome = kind(PrivateKey::from_encrypted_pem(triple_des, &passphrase("secret")));
    assert!(matches!(outcome, ErrorKind::Key { reason } if reason.contains("-v2 aes-256-cbc")), "{outcome}");
}

#[test]
fn passphrases_are_bounded_and_not_empty() {
    for len in [0, PASSPHRASE_BYTES_MAX + 1] {
        assert!(matches!(kind(Passphrase::new(vec![b'x'; len])), ErrorKind::Option { .. }));
    }
    assert!(Passphrase::new(vec![b'x'; PASSPHRASE_BYTES_MAX]).is_ok());
    assert!(matches!(kind(Passphrase::from_env("CIPHERMQ_TEST_NOT_SET")), ErrorKind::Option { .. }));
}

#[test]
fn a_passphrase_file_is_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    let text = key.to_encrypted_pem(&passphrase("a b ")).unwrap();
    let path = dir.path().join("passphrase");
    for written in ["a b ", "a b \n", "a b \r\nmore\n"] {
        fs::write(&path, written).unwrap();
        assert!(PrivateKey::from_encrypted_pem(&text, &Passphrase::from_file(&path).unwrap()).is_ok(), "{written:?}");
    }
    for empty in ["", "\n", "\nlate\n"] {
        fs::write(&path, empty).unwrap();
        assert!(matches!(kind(Passphrase::from_file(&path)), ErrorKind::File { .. }), "{empty:?}");
    }
}

#[test]
fn a_passphrase_can_be_changed_and_taken_off() {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate_kind(KeyKind::XWing).unwrap();
    let path = write_encrypted_key_pair(dir.path(), &key, &passphrase("old")).unwrap().private;
    let with = |words: &str| KeyFileOptions::default().with_passphrase(passphrase(words));
    assert_eq!(kind(change_passphrase(&path, &with("wrong"), None)), ErrorKind::PassphraseWrong);
    change_passphrase(&path, &with("old"), Some(&passphrase("new"))).unwrap();
    assert_eq!(kind(PrivateKey::from_file_with(&path, &with("old"))), ErrorKind::PassphraseWrong);
    assert_eq!(PrivateKey::from_file_with(&path, &with("new")).unwrap().kid(), key.kid());
    change_passphrase(&path, &with("new"), None).unwrap();
    assert_eq!(PrivateKey::from_file(&path).unwrap().kid(), key.kid());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
}

#[cfg(unix)]
#[test]
fn files_that_others_can_read_are_refused_when_asked_to() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate_kind(KeyKind::X25519).unwrap();
    let path = cipher_client::crypto::write_key_pair(dir.path(), &key).unwrap().private;
    let strict = || PrivateKey::from_file_with(&path, &KeyFileOptions::default().strict());
    assert!(strict().is_ok());
    for mode in [0o640, 0o604, 0o620, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(kind(strict()), ErrorKind::File { reason, .. } if reason.contains("chmod 600")), "{mode:o}");
        assert!(PrivateKey::from_file(&path).is_ok(), "a warning in the log");
    }
    change_passphrase(&path, &KeyFileOptions::default(), None).unwrap();
    assert!(strict().is_ok(), "written anew with mode 0600");
}

/// `openssl`, or a word on stderr that there is none. CIPHERMQ_REQUIRE_OPENSSL makes that a failure.
fn openssl(arguments: &[&str], input: &Path) -> Option<Vec<u8>> {
    match Command::new("openssl").args(arguments).arg("-in").arg(input).output() {
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {arguments:?}: {stderr}");
            Some(output.stdout)
        }
        Err(fault) => {
            assert!(std::env::var_os("CIPHERMQ_REQUIRE_OPENSSL").is_none(), "openssl: {fault}");
            eprintln!("SKIPPED: openssl is not installed ({fault}); its side of the key files is not checked");
            None
        }
    }
}

/// OpenSSL does not know X-Wing.
#[test]
fn openssl_reads_our_encrypted_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    for kind_of_key in [KeyKind::Rsa, KeyKind::X25519] {
        let key = PrivateKey::generate_kind(kind_of_key).unwrap();
        fs::write(&path, key.to_encrypted_pem(&passphrase("secret words")).unwrap()).unwrap();
        let Some(public) = openssl(&["pkey", "-passin", "pass:secret words", "-pubout"], &path) else { return };
        assert_eq!(PublicKey::from_pem(&public).unwrap(), key.public_key());
        let der = openssl(&["pkey", "-passin", "pass:secret words", "-pubout", "-outform", "DER"], &path).unwrap();
        assert_eq!(der, key.public_key().as_der(), "the id is that of OpenSSL's form");
    }
}

#[test]
fn we_read_the_encrypted_keys_of_openssl() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let forms: [&[&str]; 5] = [
        &["-v2", "aes-256-cbc"],
        &["-v2", "aes-128-cbc", "-iter", "100000"],
        &["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"],
        &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"],
        &["-scrypt"],
    ];
    for kind_of_key in [KeyKind::Rsa, KeyKind::X25519] {
        let key = PrivateKey::generate_kind(kind_of_key).unwrap();
        fs::write(&path, key.to_pem().unwrap().as_bytes()).unwrap();
        for form in forms {
            let arguments = [&["pkcs8", "-topk8", "-passout", "pass:secret words"], form].concat();
            let Some(text) = openssl(&arguments, &path) else { return };
            let read = PrivateKey::from_encrypted_pem(&text, &passphrase("secret words")).unwrap();
            assert_eq!(read.kid(), key.kid(), "{form:?}");
        }
    }
}
