//! Conversations about keys, and `resend`.

use ciphermq_protocol::limits::{ANNOUNCEMENT_BYTES_MAX, KEY_HISTORY_LIMIT_MAX};
use ed25519_dalek::SigningKey;

use super::*;
use crate::base64;
use crate::testing::{content, signed};

const KEY: &str = "AAECAwQ=";

fn identity(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn announce(by: u8, client: &str, seq: u64) -> String {
    format!("announce_key {client} {}\n", base64::encode(&signed(&identity(by), client, seq, None)))
}

fn named(broker: &Broker, name: &str) -> Conversation {
    let mut conversation = Conversation::with(broker);
    assert!(conversation.say(&format!("hello 1 name={name}\n")).starts_with("Hello 1 "));
    conversation
}

#[test]
fn an_announcement_is_answered_and_shown_when_it_is_committed() {
    let broker = slow_broker();
    let (mut client, mut other) = (Conversation::modern(&broker), Conversation::modern(&broker));
    assert_eq!(client.say(&announce(1, "billing", 1)), "");
    assert_eq!(other.say("lookup_key billing\n"), "Error: NOT_FOUND announcement of 'billing'\n");
    broker.write_journal();
    assert_eq!(client.hear(), "Key announced\n");
    let shown = other.say("lookup_key billing\n");
    assert!(
        shown.starts_with(r#"Key: {"client_id":"billing","seq":1,"announced":1000000,"announcement":"Y2lw"#),
        "{shown}"
    );
}

#[test]
fn of_two_that_announce_one_client_id_at_once_one_is_told_that_it_came_too_late() {
    let broker = slow_broker();
    let (mut one, mut other) = (Conversation::modern(&broker), Conversation::modern(&broker));
    assert_eq!(one.say(&announce(1, "billing", 1)) + &other.say(&announce(2, "billing", 1)), "");
    broker.write_journal();
    assert_eq!(one.hear(), "Key announced\n");
    assert_eq!(other.hear(), "Error: NOT_ALLOWED 'billing' is announced by another identity\n");
    // The same of one identity on two connections.
    let (first, second) = (announce(1, "billing", 2), announce(1, "billing", 3));
    assert_eq!(one.say(&second) + &other.say(&first), "");
    broker.write_journal();
    assert_eq!(one.hear() + &other.hear(), "Key announced\nError: CONFLICT 'billing' has announced seq=3\n");
}

#[test]
fn an_identity_hands_over_to_its_successor_and_to_nobody_else() {
    let broker = broker();
    let mut client = Conversation::modern(&broker);
    let handing_over = base64::encode(&signed(&identity(1), "billing", 5, Some(&identity(2))));
    assert_eq!(client.say(&format!("announce_key billing {handing_over}\n")), "Key announced\n");
    let refused = "Error: NOT_ALLOWED 'billing' is announced by another identity\n";
    assert_eq!(client.say(&announce(3, "billing", 6)), refused);
    assert_eq!(client.say(&announce(2, "billing", 6)), "Key announced\n");
    assert_eq!(client.say(&announce(1, "billing", 7)), refused);
}

#[test]
fn hostile_announcements_are_refused_and_change_nothing() {
    let broker = broker();
    let mut client = Conversation::modern(&broker);
    assert_eq!(client.say(&announce(1, "billing", 2)), "Key announced\n");
    let before = client.say("key_history billing\n");
    let bytes = signed(&identity(1), "billing", 3, None);
    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut overflowing = content(&identity(1).verifying_key().to_bytes(), "billing", 3, None).signed_bytes().unwrap();
    overflowing[18 + 11..][..8].copy_from_slice(&u64::MAX.to_be_bytes());
    overflowing.extend([0; 64]);
    let long = vec![0; ANNOUNCEMENT_BYTES_MAX + 1];
    for (text, error) in [
        (base64::encode(&forged), "BAD_SIGNATURE"),
        (base64::encode(&bytes[..bytes.len() - 1]), "BAD_ANNOUNCEMENT"),
        (base64::encode(&[&bytes[..], b"x"].concat()), "BAD_ANNOUNCEMENT"),
        (base64::encode(&overflowing), "BAD_ANNOUNCEMENT"),
        (base64::encode(&long), "BAD_ANNOUNCEMENT"),
        ("A".repeat(900_000), "BAD_ANNOUNCEMENT"),
        (base64::encode(&bytes).replace('A', "\u{e4}"), "BAD_ANNOUNCEMENT"),
        ("=".to_owned(), "BAD_ANNOUNCEMENT"),
        (format!("{} now", base64::encode(&bytes)), "BAD_ARGUMENT"),
        (String::new(), "BAD_ARGUMENT"),
    ] {
        let heard = client.say(&format!("announce_key billing {text}\n"));
        assert!(heard.starts_with(&format!("Error: {error} ")) && heard.len() < 200, "{heard}");
    }
    assert_eq!(client.say(&announce(1, "billing", 1)), "Error: CONFLICT 'billing' has announced seq=2\n");
    assert_eq!(client.say("key_history billing\n"), before);
    assert_eq!(client.say("announce_key\n"), "Error: MISSING_ARGUMENT client_id\n");
    assert_eq!(
        client.say("announce_key a*b c\n"),
        "Error: BAD_NAME a client id is 1 to 255 bytes of A-Z a-z 0-9 . _ - : /\n"
    );
    for from in ["0", "9007199254740992", "x"] {
        let heard = client.say(&format!("key_history billing from={from}\n"));
        assert_eq!(heard, "Error: BAD_OPTION from is a number from 1 to 9007199254740991\n");
    }
}

#[test]
fn the_longest_history_comes_in_parts_that_fit_into_a_line() {
    let broker = broker();
    let mut client = Conversation::modern(&broker);
    let by = identity(1);
    let of = by.verifying_key().to_bytes();
    let short = content(&of, "billing", 1, None).signed_bytes().unwrap().len() + 64;
    let key = vec![7; ANNOUNCEMENT_BYTES_MAX - short + content(&of, "billing", 1, None).key.len()];
    for seq in 1..=70 {
        let long = ciphermq_protocol::Announcement { key: &key, ..content(&of, "billing", seq, None) };
        let mut bytes = long.signed_bytes().unwrap();
        let signature = ed25519_dalek::Signer::sign(&by, &bytes).to_bytes();
        bytes.extend(signature);
        assert_eq!(bytes.len(), ANNOUNCEMENT_BYTES_MAX);
        assert_eq!(client.say(&format!("announce_key billing {}\n", base64::encode(&bytes))), "Key announced\n");
    }
    let (mut from, mut seqs) = (Some(1), Vec::new());
    while let Some(next) = from {
        let line = client.say(&format!("key_history billing from={next}\n"));
        assert!(line.len() < MAX_LINE, "{} bytes", line.len());
        let page: serde_json::Value = serde_json::from_str(line.strip_prefix("Keys: ").unwrap()).unwrap();
        assert_eq!((&page["first"], &page["last"]), (&7.into(), &70.into()));
        let rows = page["announcements"].as_array().unwrap();
        assert!(rows.len() <= KEY_HISTORY_LIMIT_MAX as usize);
        seqs.extend(rows.iter().map(|row| row["seq"].as_u64().unwrap()));
        from = page["next"].as_u64();
    }
    assert_eq!(seqs, (7..=70).collect::<Vec<u64>>());
}

#[test]
fn an_unsigned_key_is_registered_under_the_name_of_the_connection() {
    let broker = broker();
    let (mut billing, mut legacy) = (named(&broker, "billing"), Conversation::with(&broker));
    assert_eq!(billing.say(&format!("register_public_key {KEY}\n")), "Public key registered\n");
    assert_eq!(legacy.say("get_public_key billing\nget_key billing\n"), format!("Public key: {KEY}\n").repeat(2));
    let refused = billing.say(&format!("register_key shipping {KEY}\n"));
    assert!(refused.starts_with("Error: NOT_ALLOWED a client registers its own key only"), "{refused}");
    assert_eq!(billing.say("register_key billing AAAA\n"), "Public key registered\n");
    assert_eq!(legacy.say("get_key billing\n"), "Public key: AAAA\n");
    assert_eq!(billing.say("get_key shipping\n"), "Error: NOT_FOUND unsigned key of 'shipping'\n");

    assert_eq!(billing.say(&announce(1, "billing", 1)), "Key announced\n");
    assert_eq!(legacy.say("get_key billing\nget_public_key billing\n"), "No public key found\nPublic key not found\n");
    let replaced = "'billing' has a signed announcement, which an unsigned key cannot replace\n";
    assert_eq!(legacy.say("register_key billing AAAA\n"), format!("Error registering key: {replaced}"));
    assert_eq!(billing.say("register_public_key AAAA\n"), format!("Error: NOT_ALLOWED {replaced}"));
}

#[test]
fn a_registration_that_comes_too_late_is_refused_in_the_words_of_its_command() {
    let broker = slow_broker();
    let (mut client, mut legacy) = (Conversation::modern(&broker), Conversation::with(&broker));
    assert_eq!(client.say(&announce(1, "billing", 1)) + &legacy.say("register_key billing AAAA\n"), "");
    broker.write_journal();
    assert_eq!(client.hear(), "Key announced\n");
    let heard = legacy.hear();
    assert!(heard.starts_with("Error registering key: 'billing' has a signed announcement"), "{heard}");
}

#[test]
fn a_failed_journal_says_so_in_the_words_of_each_command() {
    let simulation = Simulation { fail_at: Some(Position(TOPOLOGY + 1)), pace: Pace::WhenTold };
    let broker = Broker::simulated(BrokerOptions::default(), START, simulation);
    broker.write_journal();
    let (mut billing, mut legacy) = (named(&broker, "billing"), Conversation::with(&broker));
    assert_eq!(billing.say(&format!("register_public_key {KEY}\n")) + &legacy.say("register_key x AAAA\n"), "");
    broker.write_journal();
    assert!(billing.hear().starts_with("Error: STORAGE "));
    let heard = legacy.hear();
    assert!(heard.starts_with("Error registering key: ") && heard.lines().count() == 1, "{heard}");
    assert!(billing.say(&announce(1, "billing", 1)).starts_with("Error: STORAGE "));
}

#[test]
fn resend_brings_back_what_the_connection_holds() {
    let broker = broker();
    let (mut holder, mut other) = (Conversation::modern(&broker), Conversation::with(&broker));
    assert_eq!(other.say("resend m-1\n"), "Message ID not found\n");
    other.say(&publish("m-1"));
    assert_eq!(other.say("resend m-1\n"), "Resend requested\n", "it waits already");
    assert!(holder.say("consume default_queue\n").contains("Message: m-1 queue=default_queue attempt=1 "));
    assert_eq!(other.say("resend m-1\n"), "Unauthorized resend request\n");
    let heard = holder.say("resend m-1\n");
    assert!(heard.starts_with("Resend requested\nMessage: m-1 queue=default_queue attempt=2 "), "{heard}");
    assert_eq!(holder.say("ack m-1\n"), "ACK_CONFIRMED m-1\n");
    assert_eq!(holder.say("resend m-1\n"), "Error: NOT_FOUND message 'm-1'\n");
    assert_eq!(other.say("resend m-1\n"), "Message ID not found\n");
}

#[test]
fn resend_to_a_legacy_receiver_is_pushed_again_after_its_reply() {
    let broker = broker();
    let mut receiver = Conversation::with(&broker);
    receiver.say(&(publish("m-1") + &publish("m-2") + "consume default_queue\n"));
    assert!(receiver.wait_ms(PAUSE_MS + 1).starts_with("Message: m-1 "));
    assert_eq!(receiver.say("resend m-1\n"), "Resend requested\n");
    assert!(receiver.wait_ms(PAUSE_MS + 1).starts_with("Message: m-1 "), "in its old place");
    assert_eq!(receiver.say("ack m-1\n"), "ACK_CONFIRMED m-1\n");
    assert!(receiver.wait_ms(PAUSE_MS + 1).starts_with("Message: m-2 "));
}

#[test]
fn a_dead_letter_that_is_resent_returns_to_its_queue_behind_the_others() {
    let broker = slow_broker();
    let mut client = Conversation::modern(&broker);
    let say = |client: &mut Conversation, text: &str| {
        let heard = client.say(text);
        broker.write_journal();
        heard + &client.hear()
    };
    say(&mut client, &(publish("m-1") + &publish("m-2")));
    say(&mut client, "fetch default_queue\n");
    assert_eq!(say(&mut client, "reject m-1\n"), "REJECT_CONFIRMED m-1\n");
    assert_eq!(client.say("resend m-1\n"), "", "a move is answered when it is committed");
    let mut other = Conversation::modern(&broker);
    assert!(other.say("resend m-1\n").starts_with("Error: NOT_LEASED "), "it is on its way");
    broker.write_journal();
    assert_eq!(client.hear(), "Resend requested\n");
    for id in ["m-2", "m-1"] {
        let fetched = say(&mut client, "fetch default_queue\n");
        assert!(fetched.starts_with(&format!("Fetched: {id} queue=default_queue attempt=1 ")), "{fetched}");
        assert!(!fetched.contains("from="), "no dead letter any more: {fetched}");
    }
    assert_eq!(say(&mut client, "fetch default_queue.dlq\n"), "No messages\n");
    let stats = say(&mut client, "stats\n");
    assert!(stats.contains(r#""dead_lettered":1,"#), "{stats}");
}

#[test]
fn a_dead_letter_whose_queue_is_gone_stays_where_it_is() {
    let broker = broker();
    let (mut client, mut legacy) = (Conversation::modern(&broker), Conversation::with(&broker));
    client.say("declare_queue jobs\nbind default_exchange jobs default_key\nunbind default_exchange default_queue default_key\n");
    client.say(&format!("bind default_exchange jobs job\npublish default_exchange job {}\n", envelope("j-1")));
    assert!(client.say("fetch jobs\nreject j-1\n").ends_with("REJECT_CONFIRMED j-1\n"));
    assert_eq!(client.say("delete_queue jobs\n"), "Queue deleted\n");
    assert_eq!(client.say("resend j-1\n"), "Error: NOT_FOUND queue 'jobs'\n");
    assert_eq!(legacy.say("resend j-1\n"), "Error retrieving message metadata\n");
    assert!(client.say("fetch jobs.dlq\n").starts_with("Fetched: j-1 queue=jobs.dlq attempt=1 "));
}
