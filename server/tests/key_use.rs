//! Keys as `send`, `receive` and `key` take them: halves, directories, modes, signatures.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;
use support::place::{Place, bad, fingerprint, good, mode, set_mode, show};
use support::{Broker, ciphermq, run, text};

/// A place with a broker.
struct Setting {
    place: Place,
    broker: Broker,
}

impl Setting {
    fn new() -> Setting {
        Setting { place: Place::new(), broker: Broker::memory() }
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let server = self.broker.address.to_string();
        run(&[&arguments[..1], &["--server", &server], &arguments[1..]].concat())
    }
}

#[test]
fn a_private_key_that_others_can_read_is_refused_where_it_is_used() {
    let setting = Setting::new();
    let out = setting.place.keygen("pair", &["--suite", "2x"]);
    let sender = setting.place.keygen("sender", &["--suite", "sign"]);
    let set = setting.place.keygen("set", &["--suite", "2x", "--keyset"]);
    let (private, public) = (format!("{out}/receiver_private.pem"), format!("{out}/receiver_public.pem"));
    let signing = format!("{sender}/sender_private.pem");
    set_mode(&private, 0o644);
    set_mode(&signing, 0o640);
    set_mode(&set, 0o750);
    for (arguments, file, chmod) in [
        (&["receive", "--identity", &private, "--timeout-ms", "10"][..], &private, "chmod 600"),
        (&["receive", "--identity", &set, "--timeout-ms", "10"], &set, "chmod 700"),
        (&["send", "--to", &public, "--sign", &signing, "x"], &signing, "chmod 600"),
    ] {
        let told = bad(&setting.run(arguments), 1);
        assert!(told.contains(file.as_str()) && told.contains(chmod), "{told}");
        let told = setting.run(&[arguments, &["--allow-exposed-key"]].concat());
        assert!(told.status.success() && text(&told.stderr).contains(chmod), "{}", text(&told.stderr));
    }
    assert!(bad(&run(&["key", "rotate", &set]), 1).contains("chmod 700"));
    assert_eq!(show(&private)[0]["exposed"], true, "it can be looked at");
}

#[test]
fn a_passphrase_file_that_others_can_read_is_refused() {
    let place = Place::new();
    let secret = place.passphrase("horse");
    set_mode(&secret, 0o644);
    let told = bad(&run(&["keygen", "--out", &place.path("no"), "--passphrase-file", &secret]), 1);
    assert!(told.contains(&secret) && told.contains("chmod 600"), "{told}");
    assert!(!fs::exists(place.path("no")).unwrap());
}

#[test]
fn the_other_half_of_a_pair_is_named_as_such() {
    let setting = Setting::new();
    let out = setting.place.keygen("pair", &["--suite", "2x"]);
    let (private, public) = (format!("{out}/receiver_private.pem"), format!("{out}/receiver_public.pem"));
    let told = bad(&setting.run(&["receive", "--identity", &public]), 1);
    assert!(told.contains(&public) && told.contains("this is a public key, the private one is needed"), "{told}");
    assert!(!told.contains("chmod"), "{told}");
    let told = bad(&setting.run(&["send", "--to", &private, "x"]), 1);
    assert!(told.contains(&private) && told.contains("this is a private key, the public one is needed"), "{told}");
}

#[test]
fn a_key_of_another_use_is_told_what_it_is_not() {
    let setting = Setting::new();
    let pair = setting.place.keygen("pair", &["--suite", "2x"]);
    let (private, public) = (format!("{pair}/receiver_private.pem"), format!("{pair}/receiver_public.pem"));
    let told = bad(&setting.run(&["send", "--to", &public, "--sign", &private, "x"]), 1);
    assert!(told.contains(&private) && told.contains("not a key that signs"), "{told}");
    let told = bad(&setting.run(&["receive", "--identity", &private, "--from", &public]), 1);
    assert!(told.contains(&public) && told.contains("keygen --suite sign"), "{told}");
    let small = setting.place.path("small.pem");
    fs::write(&small, RSA_1024).unwrap();
    let told = bad(&setting.run(&["send", "--to", &small, "x"]), 1);
    assert!(told.contains("small.pem: an RSA key of 1024 bits") && told.contains("ask for a new one"), "{told}");
    let unset = bad(&run(&["keygen", "--out", &setting.place.path("no"), "--passphrase-env", "NOT_SET_HERE"]), 2);
    assert!(unset.contains("environment variable NOT_SET_HERE is not set"), "{unset}");
}

#[test]
fn a_directory_stands_for_its_keyset_and_otherwise_the_file_meant_is_named() {
    let setting = Setting::new();
    let set = setting.place.keygen("set", &["--suite", "2x", "--keyset"]);
    good(&setting.run(&["send", "--to", &set, "hello"]));
    assert_eq!(good(&setting.run(&["receive", "--identity", &set, "--count", "1"])), "hello\n");
    let pair = setting.place.keygen("pair", &["--suite", "2x"]);
    let told = bad(&setting.run(&["send", "--to", &pair, "x"]), 1);
    assert!(told.contains(&format!("did you mean {pair}/receiver_public.pem?")), "{told}");
    for command in [&["receive", "--identity", &pair][..], &["key", "show", &pair], &["key", "fingerprint", &pair]] {
        let told = bad(&run(command), 1);
        assert!(told.contains(&format!("did you mean {pair}/receiver_private.pem?")), "{told}");
    }
    let empty = setting.place.path("");
    let told = bad(&setting.run(&["send", "--to", &empty, "x"]), 1);
    assert!(told.contains("holds no keyset; name a PEM file"), "{told}");
}

#[test]
fn a_keyset_can_begin_with_a_key_there_is() {
    let place = Place::new();
    let pair = place.keygen("pair", &[]);
    let private = format!("{pair}/receiver_private.pem");
    let advice = bad(&run(&["key", "rotate", &pair]), 1);
    assert!(advice.contains(&format!("keygen --keyset --import {private} --out DIR")), "{advice}");
    let secret = place.passphrase("horse");
    let set = place.keygen("set", &["--keyset", "--import", &private, "--passphrase-file", &secret]);
    let key = &show(&set)[0];
    assert_eq!((&key["kid"], &key["encrypted"]), (&Value::from(fingerprint(&private)), &Value::from(true)));
    let public = key["public"].as_str().unwrap();
    assert_eq!(fingerprint(public), fingerprint(&private), "the file to give to senders");
    good(&run(&["key", "rotate", &set, "--passphrase-file", &secret]));
    assert_eq!(show(&set).len(), 2);
    assert_eq!(mode(&private), 0o600, "the old file stays");
    let unused = bad(&run(&["keygen", "--out", &place.path("no"), "--import", &private]), 2);
    assert!(unused.contains("--keyset"), "{unused}");
}

#[test]
fn the_keys_of_a_keyset_change_their_passphrase_together() {
    let place = Place::new();
    let set = place.keygen("set", &["--suite", "2x", "--keyset"]);
    good(&run(&["key", "rotate", &set]));
    let secret = place.passphrase("horse");
    let told = good(&run(&["key", "rewrap", &set, "--new-passphrase-file", &secret]));
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(show(&set).iter().all(|key| key["encrypted"] == true));
    good(&run(&["key", "rotate", &set, "--passphrase-file", &secret]));
    assert_eq!(show(&set).len(), 3);
}

#[test]
fn a_file_that_is_there_is_not_overwritten_and_the_next_step_is_said() {
    let place = Place::new();
    let out = place.keygen("pair", &["--suite", "2x"]);
    let told = bad(&run(&["keygen", "--out", &out]), 1);
    assert!(
        told.contains("receiver_private.pem: not overwritten: there is a key already; choose another folder"),
        "{told}"
    );
}

#[test]
fn only_what_one_of_the_senders_signed_is_taken() {
    let setting = Setting::new();
    let to = setting.place.keygen("receiver", &["--suite", "2pq"]);
    let (alice, mallory) =
        (setting.place.keygen("alice", &["--suite", "sign"]), setting.place.keygen("mallory", &["--suite", "sign"]));
    let send = |message: &str, sign: &[&str]| {
        let public = format!("{to}/receiver_public.pem");
        good(&setting.run(&[&["send", "--to", &public, message], sign].concat()));
    };
    let identity = |of: &str| format!("{of}/sender_private.pem");
    send("unsigned", &[]);
    send("from alice", &["--sign", &identity(&alice)]);
    send("from mallory", &["--sign", &identity(&mallory)]);
    let (private, from) = (format!("{to}/receiver_private.pem"), format!("{alice}/sender_public.pem"));
    let receive = ["receive", "--identity", &private, "--from", &from, "--json", "--timeout-ms", "300"];
    let output = setting.run(&receive);
    assert_eq!(bad(&output, 1).matches("it stays in the queue").count(), 2, "{}", text(&output.stderr));
    let told: Value = serde_json::from_str(text(&output.stdout)).expect("one message");
    assert_eq!((&told["message"], &told["suite"]), (&Value::from("from alice"), &Value::from("2pq")));
    assert_eq!(told["sender"], fingerprint(&from));
    let not_looked_at = good(&setting.run(&["receive", "--identity", &private, "--json", "--count", "2"]));
    assert_eq!(not_looked_at.matches("\"sender\":null").count(), 2, "{not_looked_at}");
}

#[test]
fn a_receiver_takes_what_it_asks_for_and_nothing_else() {
    let setting = Setting::new();
    let out = setting.place.keygen("pair", &["--suite", "2x"]);
    let sender = setting.place.keygen("sender", &["--suite", "sign"]);
    let (private, public) = (format!("{out}/receiver_private.pem"), format!("{out}/receiver_public.pem"));
    let (signing, from) = (format!("{sender}/sender_private.pem"), format!("{sender}/sender_public.pem"));
    good(&setting.run(&["send", "--to", &public, "--sign", &signing, "hello"]));
    let receive = ["receive", "--identity", &private, "--from", &from, "--timeout-ms", "300"];
    let with = |flags: &[&str]| setting.run(&[&receive, flags].concat());
    assert!(bad(&with(&["--only-for", "orders,eu"]), 1).contains("misdirected"));
    assert!(bad(&with(&["--suites", "1,2pq"]), 1).contains("a suite that is not taken here"));
    assert!(bad(&with(&["--max-age-s", "0"]), 1).contains("not trusted"));
    let flags = [
        "--only-for",
        "orders,eu",
        "--only-for",
        "default_exchange,default_key",
        "--suites",
        "2x",
        "--max-age-s",
        "60",
    ];
    assert_eq!(good(&with(&flags)), "hello\n");
    assert!(bad(&with(&["--only-for", "orders"]), 2).contains("such as orders,eu.new"));
    assert!(bad(&with(&["--suites", "3"]), 2).contains("one of 1, 2r, 2x and 2pq"));
    let nobody = bad(&setting.run(&["receive", "--identity", &private, "--max-age-s", "60"]), 2);
    assert!(nobody.contains("--from"), "{nobody}");
}

#[test]
fn a_replayed_message_is_not_printed_again() {
    let setting = Setting::new();
    let out = setting.place.keygen("pair", &[]);
    let (private, public) = (format!("{out}/receiver_private.pem"), format!("{out}/receiver_public.pem"));
    let seen = setting.place.path("seen");
    good(&setting.run(&["send", "--to", &public, "--id", "pay-1", "pay once"]));
    let mut wire = setting.broker.connect();
    wire.ask("hello 1");
    let taken = wire.ask("fetch default_queue");
    let envelope = taken[taken.find('{').unwrap()..].to_owned();
    wire.ask("release pay-1");
    let receive = ["receive", "--identity", &private, "--dedupe", &seen, "--timeout-ms", "300"];
    assert_eq!(good(&setting.run(&receive)), "pay once\n");
    // The originals' suite does not bind the id; the sealing is remembered as well.
    let renamed = envelope.replacen("pay-1", "pay-2", 1);
    assert_eq!(wire.ask(&format!("publish default_exchange default_key {renamed}")), "ACK pay-2");
    assert_eq!(good(&setting.run(&receive)), "", "not over a restart either");
    let forgetful = [&receive[..3], &receive[5..]].concat();
    assert_eq!(good(&setting.run(&forgetful)), "", "it was acknowledged");
}

#[test]
fn a_receiver_that_runs_follows_a_rotation() {
    let setting = Setting::new();
    let secret = setting.place.passphrase("horse");
    let set = setting.place.keygen("set", &["--suite", "2x", "--keyset", "--passphrase-file", &secret]);
    let server = setting.broker.address.to_string();
    let mut receiver = ciphermq();
    receiver.args(["receive", "--server", &server, "--identity", &set, "--passphrase-file", &secret, "--count", "3"]);
    let mut receiver = receiver.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines().map(Result::unwrap);
    good(&setting.run(&["send", "--to", &set, "to the first"]));
    assert_eq!(lines.next().unwrap(), "to the first", "it is running");
    good(&run(&["key", "rotate", &set, "--passphrase-file", &secret]));
    good(&setting.run(&["send", "--to", &set, "to the second"]));
    assert_eq!(lines.next().unwrap(), "to the second");
    good(&run(&["key", "prune", &set, "--retention", "0", "--passphrase-file", &secret]));
    good(&run(&["key", "rotate", &set, "--passphrase-file", &secret]));
    good(&setting.run(&["send", "--to", &set, "to the third"]));
    assert_eq!(lines.next().unwrap(), "to the third");
    let ended = receiver.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(0), ""));
}

#[test]
fn one_message_is_for_several_receivers() {
    let setting = Setting::new();
    let pairs = ["one", "two"].map(|name| setting.place.keygen(name, &["--suite", "2x"]));
    let public = pairs.clone().map(|pair| format!("{pair}/receiver_public.pem"));
    let private = pairs.map(|pair| format!("{pair}/receiver_private.pem"));
    for private in &private {
        good(&setting.run(&["send", "--to", &public[0], "--to", &public[1], "for both"]));
        assert_eq!(good(&setting.run(&["receive", "--identity", private, "--count", "1"])), "for both\n");
    }
    let rsa = setting.place.keygen("rsa", &[]);
    let mixed = bad(&setting.run(&["send", "--to", &public[0], "--to", &format!("{rsa}/receiver_public.pem"), "x"]), 1);
    assert!(mixed.contains("recipients: all with the same kind of key"), "{mixed}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    let place = Place::new();
    let set = place.keygen("set", &["--suite", "2x", "--keyset"]);
    for command in ["show", "fingerprint"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = ciphermq().args(["key", command, &set]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(0), ""));
    }
}

#[test]
fn help_says_what_cannot_be_undone() {
    for (command, told) in [
        (&["key", "prune", "--help"][..], "can never be read again"),
        (&["key", "rotate", "--help"], "Give the new public key to the senders"),
        (&["key", "rewrap", "--help"], "signature of the sender is not carried over"),
        (&["send", "--help"], "every line of stdin is one"),
        (&["receive", "--help"], "stays in the queue"),
        (&["verify", "--help"], "Takes no lock"),
    ] {
        let help = good(&run(command));
        // Lines are broken where the terminal ends.
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains(told), "{told:?} in {help}");
    }
}

/// A public key of a size that nobody should use any more.
const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCi//yeezt5hrNL5ADLHNkVToO6
TuAUT67/hc9cJTruqry8H9cS4IBxNLH3vtXKeuMbwUcK0LM9di3kpnO5pkHrzVqk
R+wLb5VcLIrUw+6pG7yCP84o7g4q8agQPZLRUnzenlRL7WiYZ5kb3a3g8cw/jjrm
igpd5hwnM4nQz1xZ2QIDAQAB
-----END PUBLIC KEY-----
";
