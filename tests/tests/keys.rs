//! Keys that clients announce: across restarts, and at once.

use std::sync::Barrier;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;
use system_tests::{Server, Wire};

/// The bytes docs/protocol.md section 5.5 describes, put together without the broker's code.
fn announcement(by: u8, client: &str, seq: u64, successor: Option<u8>) -> String {
    let identity = SigningKey::from_bytes(&[by; 32]);
    let successor = successor.map_or([0; 32], |by| SigningKey::from_bytes(&[by; 32]).verifying_key().to_bytes());
    let mut bytes = b"cipher/announce/1\0".to_vec();
    bytes.extend((client.len() as u32).to_be_bytes());
    bytes.extend(client.as_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(identity.verifying_key().to_bytes());
    bytes.extend(successor);
    bytes.extend([0; 32]);
    bytes.extend(3u32.to_be_bytes());
    bytes.extend(b"key");
    bytes.extend(0u64.to_be_bytes());
    bytes.extend(u64::MAX.to_be_bytes());
    let signature = identity.sign(&bytes);
    bytes.extend(signature.to_bytes());
    STANDARD.encode(bytes)
}

fn json(wire: &mut Wire, request: &str, word: &str) -> Value {
    let line = wire.ask(request, &format!("{word}: {{json}}"));
    serde_json::from_str(&line[word.len() + 2..]).expect("JSON")
}

#[test]
fn keys_are_there_again_after_a_kill_and_after_an_orderly_end() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::on_disk(data.path(), &[]);
    let mut before = Vec::new();
    for round in 0..4 {
        let mut wire = server.connect_modern();
        let known = |wire: &mut Wire| {
            [
                wire.ask("key_history billing", "{line}"),
                wire.ask("lookup_key moved", "{line}"),
                wire.ask("get_key plain", "{line}"),
                wire.ask("get_key replaced", "{line}"),
            ]
        };
        if round > 0 {
            assert_eq!(known(&mut wire).to_vec(), before, "round {round}");
        }
        for seq in [2 * round + 1, 2 * round + 2] {
            wire.ask(&format!("announce_key billing {}", announcement(1, "billing", seq, None)), "Key announced");
        }
        // Each round hands over to the next identity.
        let by = round as u8 + 1;
        wire.ask(
            &format!("announce_key moved {}", announcement(by, "moved", round + 1, Some(by + 1))),
            "Key announced",
        );
        wire.ask(&format!("register_key plain AAA{}", ["A", "B", "C", "D"][round as usize]), "Public key registered");
        if round == 0 {
            wire.ask("register_key replaced AAAA", "Public key registered");
            wire.ask(&format!("announce_key replaced {}", announcement(9, "replaced", 1, None)), "Key announced");
        }
        before = known(&mut wire).to_vec();
        assert!(before[2] == format!("Public key: AAA{}", ["A", "B", "C", "D"][round as usize]), "{before:?}");
        assert!(before[3].starts_with("Error: NOT_FOUND "), "{before:?}");
        wire.close();
        if round % 2 == 0 {
            server.kill();
        } else {
            server.terminate();
            assert!(server.wait().success());
        }
        server = Server::on_disk(data.path(), &[]);
    }
    let mut wire = server.connect_modern();
    let history = json(&mut wire, "key_history billing", "Keys");
    let rows = history["announcements"].as_array().expect("a list");
    assert_eq!(rows.iter().map(|row| row["seq"].as_u64()).collect::<Vec<_>>(), (1..=8).map(Some).collect::<Vec<_>>());
    for (row, seq) in rows.iter().zip(1..) {
        assert_eq!(row["announcement"], announcement(1, "billing", seq, None));
    }
    let expected = serde_json::json!({"clients": 4, "announcements": 13, "unsigned": 1});
    let counted = server.stat("keys");
    assert!(expected.as_object().expect("an object").iter().all(|(name, count)| counted[name] == *count), "{counted}");
    wire.close();
    server.kill();

    let inspected = Server::run(&["inspect", data.path().to_str().expect("UTF-8")]);
    let lines = String::from_utf8(inspected.stdout).expect("UTF-8");
    assert!(lines.contains(" announce ") && lines.contains("client billing seq 8 identity "), "{lines}");
    assert!(lines.contains(" register ") && lines.contains("unsigned key of client plain of 3 bytes"), "{lines}");
}

#[test]
fn of_many_that_announce_one_client_id_at_once_one_has_it() {
    const CLIENTS: usize = 24;
    const RIVALS: u8 = 8;
    let server = Server::start();
    let barrier = Barrier::new(RIVALS.into());
    let won: Vec<(u8, Vec<usize>)> = thread::scope(|scope| {
        let rivals: Vec<_> = (1..=RIVALS)
            .map(|by| {
                let (server, barrier) = (&server, &barrier);
                scope.spawn(move || {
                    let mut wire = server.connect_modern();
                    let requests: Vec<String> = (0..CLIENTS)
                        .map(|n| format!("announce_key c-{n} {}", announcement(by, &format!("c-{n}"), 1, None)))
                        .collect();
                    barrier.wait();
                    let won = requests.iter().enumerate().filter(|(_, request)| match &*wire.ask(request, "{line}") {
                        "Key announced" => true,
                        refused => {
                            assert!(refused.starts_with("Error: NOT_ALLOWED "), "{refused}");
                            false
                        }
                    });
                    (by, won.map(|(n, _)| n).collect())
                })
            })
            .collect();
        rivals.into_iter().map(|rival| rival.join().expect("a rival failed")).collect()
    });
    let mut wire = server.connect_modern();
    for n in 0..CLIENTS {
        let winners: Vec<u8> = won.iter().filter(|(_, won)| won.contains(&n)).map(|(by, _)| *by).collect();
        let [winner] = *winners else { panic!("c-{n} was won by {winners:?}") };
        let shown = json(&mut wire, &format!("lookup_key c-{n}"), "Key");
        assert_eq!(shown["announcement"], announcement(winner, &format!("c-{n}"), 1, None));
    }
}

#[test]
fn the_directory_holds_so_many_versions_and_says_where_the_next_part_begins() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    for seq in 1..=100 {
        wire.ask(&format!("announce_key c {}", announcement(1, "c", seq, None)), "Key announced");
    }
    let (mut from, mut seqs, mut parts) = (1, Vec::new(), 0);
    loop {
        let page = json(&mut wire, &format!("key_history c from={from}"), "Keys");
        let rows = page["announcements"].as_array().expect("a list");
        seqs.extend(rows.iter().map(|row| row["seq"].as_u64().expect("a number")));
        parts += 1;
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!((seqs, parts), ((37..=100).collect(), 2));
}
