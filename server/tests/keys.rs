//! `keygen` and `key` as a shell sees them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use support::place::{Place, bad, fingerprint, good, mode, show, with_input};
use support::{Broker, ciphermq, run, text};

#[test]
fn each_suite_has_its_kind_of_key() {
    let place = Place::new();
    for (suite, kind, bits) in [("1", "RSA", 2048), ("2x", "X25519", 256), ("2pq", "X-Wing", 9728)] {
        let out = place.keygen(suite, &["--suite", suite]);
        let private = format!("{out}/receiver_private.pem");
        let public = format!("{out}/receiver_public.pem");
        assert_eq!(mode(&private), 0o600);
        let shown = &show(&private)[0];
        assert_eq!((&shown["kind"], &shown["half"]), (&Value::from(kind), &Value::from("private")));
        assert_eq!((&shown["bits"], &shown["mode"]), (&Value::from(bits), &Value::from("0600")));
        assert_eq!(show(&public)[0]["half"], "public");
        assert_eq!(fingerprint(&private), fingerprint(&public), "of either half");
        assert!(fingerprint(&private).starts_with("sha256:"));
        let told = good(&run(&["key", "show", &private]));
        assert!(told.contains(&format!("{kind} private key, {bits} bits")), "{told}");
    }
    let out = place.keygen("large", &["--bits", "3072"]);
    assert_eq!(show(&format!("{out}/receiver_private.pem"))[0]["bits"], 3072);
    let refused = bad(&run(&["keygen", "--out", &place.path("no"), "--suite", "2x", "--bits", "3072"]), 2);
    assert!(refused.contains("--bits is for RSA keys"), "{refused}");
    assert!(!Path::new(&place.path("no")).exists());
}

#[test]
fn a_key_that_signs_is_made_shown_and_named() {
    let place = Place::new();
    let secret = place.passphrase("horse");
    let out = place.keygen("me", &["--suite", "sign", "--passphrase-file", &secret]);
    let (private, public) = (format!("{out}/sender_private.pem"), format!("{out}/sender_public.pem"));
    assert_eq!((mode(&private), &show(&public)[0]["kind"]), (0o600, &Value::from("Ed25519")));
    let told = good(&run(&["key", "fingerprint", &private, "--passphrase-file", &secret]));
    assert!(told.starts_with(&fingerprint(&public)), "{told}");
    good(&run(&["key", "rewrap", &private, "--passphrase-file", &secret, "--decrypt"]));
    assert_eq!(fingerprint(&private), fingerprint(&public));
    assert_eq!(run(&["keygen", "--out", &out, "--suite", "sign"]).status.code(), Some(1), "not overwritten");
    let no_set = bad(&run(&["keygen", "--out", &place.path("set"), "--suite", "sign", "--keyset"]), 2);
    assert!(no_set.contains("keygen --suite sign"), "{no_set}");
    let to = bad(&run(&["send", "--to", &public, "x"]), 1);
    assert!(to.contains("Ed25519"), "{to}");
}

#[test]
fn a_passphrase_comes_from_a_file_or_the_environment_and_never_from_an_argument() {
    let place = Place::new();
    let secret = place.passphrase("horse");
    let out = place.keygen("enc", &["--suite", "2x", "--encrypt", "--passphrase-file", &secret]);
    let private = format!("{out}/receiver_private.pem");
    assert!(fs::read_to_string(&private).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let public = fingerprint(&format!("{out}/receiver_public.pem"));
    let told = good(&run(&["key", "fingerprint", &private, "--passphrase-file", &secret]));
    assert!(told.starts_with(&public));
    let from_env = |value: &str| {
        let flags = ["key", "show", "--json", &private, "--passphrase-env", "SECRET"];
        ciphermq().args(flags).env("SECRET", value).stdin(Stdio::null()).output().unwrap()
    };
    assert!(good(&from_env("horse")).contains("\"encrypted\":true"));
    let wrong = bad(&from_env("cow"), 1);
    assert!(wrong.contains("receiver_private.pem") && wrong.contains("passphrase"), "{wrong}");
    let missing = bad(&run(&["key", "show", &private, "--passphrase-env", "NOT_SET"]), 2);
    assert!(missing.contains("NOT_SET"), "{missing}");
    let none = bad(&run(&["key", "show", &private]), 2);
    assert!(none.contains("--passphrase-file"), "{none}");
    assert!(none.len() < 200, "one line: {none}");
    assert_eq!(run(&["keygen", "--out", &place.path("x"), "--passphrase", "horse"]).status.code(), Some(2));
}

#[test]
fn a_keyset_is_rotated_shown_and_pruned() {
    let place = Place::new();
    let dir = place.keygen("set", &["--suite", "2pq", "--keyset"]);
    assert_eq!(mode(&dir), 0o700);
    let first = fingerprint(&dir);
    let rotated = good(&run(&["key", "rotate", &dir]));
    let second = fingerprint(&dir);
    assert_ne!(first, second);
    assert!(rotated.contains(&format!("primary key  {second}")), "{rotated}");
    assert!(rotated.contains(&format!("retired key  {first}")), "{rotated}");
    let public = rotated.lines().find_map(|line| line.strip_prefix("public key   ")).unwrap();
    assert_eq!(fingerprint(public), second, "the file to give to senders");
    good(&run(&["key", "rotate", &dir, "--suite", "2x"]));
    let rows = show(&dir);
    let column = |name: &str| rows.iter().map(|row| row[name].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(column("status"), ["primary", "retired", "retired"]);
    assert_eq!(column("kind"), ["X25519", "X-Wing", "X-Wing"]);
    assert_eq!(column("mode"), ["0600"; 3]);
    assert_eq!(column("kid")[1..], [second, first]);
    assert!(rows[1]["retired"].as_str().unwrap().ends_with('Z') && rows[0]["retired"].is_null());
    let told = good(&run(&["key", "show", &dir]));
    assert_eq!(told.matches("  status  retired at 20").count(), 2, "{told}");
    assert_eq!(good(&run(&["key", "prune", &dir, "--retention", "1"])), "", "none is a day old");
    assert_eq!(good(&run(&["key", "prune", &dir, "--retention", "0"])).lines().count(), 2);
    assert_eq!(show(&dir).len(), 1);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_the_next_step() {
    let place = Place::new();
    let dir = place.path("");
    let no_keyset = bad(&run(&["key", "rotate", &dir]), 1);
    assert!(no_keyset.contains("holds no keyset") && no_keyset.contains("keygen --keyset"), "{no_keyset}");
    let file = place.path("notes.txt");
    fs::write(&file, "hello").unwrap();
    let no_key = bad(&run(&["key", "fingerprint", &file]), 1);
    assert!(no_key.contains("notes.txt") && no_key.contains("not a PEM text"), "{no_key}");
    let missing = bad(&run(&["key", "show", &place.path("nowhere.pem")]), 1);
    assert!(missing.contains("nowhere.pem") && missing.contains("No such file"), "{missing}");
    let out = place.keygen("pair", &["--suite", "2x"]);
    let public = bad(&run(&["key", "rewrap", &format!("{out}/receiver_public.pem"), "--decrypt"]), 1);
    assert!(public.contains("a public key has no passphrase"), "{public}");
    let set = place.keygen("set", &["--suite", "2x", "--keyset"]);
    let again = bad(&run(&["keygen", "--out", &set, "--keyset", "--suite", "2x"]), 1);
    assert!(again.contains("holds a keyset already"), "{again}");
    let private = format!("{out}/receiver_private.pem");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = good(&run(&["key", "show", &private]));
    assert!(exposed.contains("0644") && exposed.contains("chmod 600"), "{exposed}");
    let warned = run(&["key", "rewrap", &private, "--decrypt"]);
    assert!(text(&warned.stderr).contains("can be read by others"), "{}", text(&warned.stderr));
}

#[test]
fn a_passphrase_is_changed_and_taken_off_in_place() {
    let place = Place::new();
    let (old, new) = (place.passphrase("old"), place.passphrase("new"));
    let out = place.keygen("key", &["--suite", "2x"]);
    let private = format!("{out}/receiver_private.pem");
    let kid = fingerprint(&private);
    good(&run(&["key", "rewrap", &private, "--new-passphrase-file", &old]));
    good(&run(&["key", "rewrap", &private, "--passphrase-file", &old, "--new-passphrase-file", &new]));
    let wrong = ["key", "rewrap", &private, "--passphrase-file", &old, "--decrypt"];
    assert!(bad(&run(&wrong), 1).contains("passphrase"));
    let told = good(&run(&["key", "fingerprint", &private, "--passphrase-file", &new]));
    assert!(told.starts_with(&kid));
    good(&run(&["key", "rewrap", &private, "--passphrase-file", &new, "--decrypt"]));
    assert_eq!((fingerprint(&private), mode(&private)), (kid, 0o600));
}

#[test]
fn messages_are_received_with_a_keyset_over_a_rotation() {
    let place = Place::new();
    let broker = Broker::memory();
    let server = broker.address.to_string();
    let secret = place.passphrase("horse");
    let with = ["--passphrase-file", secret.as_str()];
    let dir = place.keygen("set", &[&["--keyset"], &with[..]].concat());
    let send = |message: &str| {
        let public = show(&dir)[0]["file"].as_str().unwrap().replace(".pem", ".public.pem");
        good(&run(&["send", "--server", &server, "--to", &public, message]));
    };
    send("before");
    good(&run(&[&["key", "rotate", &dir], &with[..]].concat()));
    send("after");
    let receive = ["receive", "--server", &server, "--identity", &dir, "--count", "2"];
    assert_eq!(good(&run(&[&receive, &with[..]].concat())), "before\nafter\n");
}

#[test]
fn messages_for_an_old_key_are_sealed_anew() {
    let place = Place::new();
    let dir = place.keygen("set", &["--keyset"]);
    let old = cipher_client::crypto::Keyset::open(&dir).unwrap();
    let seal = |text: &[u8], id| cipher_client::crypto::seal(text, &old.primary().public_key(), Some(id)).unwrap();
    let envelopes = [seal(b"one", "m-1"), "{}".to_owned(), seal(b"two", "m-2")].join("\n");
    good(&run(&["key", "rotate", &dir]));
    let output = with_input(&["key", "rewrap", "--envelope", &dir], &envelopes);
    let told = bad(&output, 1);
    assert!(told.contains("line 2: malformed envelope"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    good(&run(&["key", "prune", &dir, "--retention", "0"]));
    let new = cipher_client::crypto::Keyset::open(&dir).unwrap();
    let opened = text(&output.stdout).lines().map(|line| {
        let opened = cipher_client::crypto::open(line, new.primary()).unwrap();
        (opened.message_id, opened.plaintext)
    });
    let expected = [("m-1".to_owned(), b"one".to_vec()), ("m-2".to_owned(), b"two".to_vec())];
    assert_eq!(opened.collect::<Vec<_>>(), expected);
    let no_target = with_input(&["key", "rewrap", "--envelope", new_file(&place).as_str()], "");
    assert!(bad(&no_target, 2).contains("--to"));
}

/// From one suite to another, with what the sender bound.
#[test]
fn a_message_sealed_anew_keeps_its_id_and_its_context() {
    use cipher_client::crypto::{Context, Keyset, Opener, Sealer, SessionPolicy};
    let place = Place::new();
    let dir = place.keygen("set", &["--suite", "2x", "--keyset"]);
    let sealer = Sealer::new(&Keyset::open(&dir).unwrap().primary().public_key(), SessionPolicy::default()).unwrap();
    let context = Context::new("orders", "eu.new").content_type("text/plain");
    let sealed = sealer.seal_for_with_id(&context, "m-1", b"one").unwrap();
    good(&run(&["key", "rotate", &dir, "--suite", "2pq"]));
    let printed = good(&with_input(&["key", "rewrap", "--envelope", &dir], &sealed.envelope));
    good(&run(&["key", "prune", &dir, "--retention", "0"]));
    let opener = Opener::builder(&Keyset::open(&dir).unwrap()).build().unwrap();
    let opened = opener.open(printed.trim_end()).unwrap();
    assert_eq!((opened.message_id.as_str(), &opened.plaintext[..]), ("m-1", &b"one"[..]));
    assert_eq!(opened.context, Some(context));
    assert!(opener.open(&sealed.envelope).is_err(), "the old one is lost, as it should be");
}

fn new_file(place: &Place) -> String {
    place.keygen("single", &[]) + "/receiver_private.pem"
}
