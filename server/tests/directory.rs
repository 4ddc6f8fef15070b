//! The client's raw calls for the directory of keys, against a server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use cipher_client::{Client, Code, ConnectOptions, ErrorKind};
use ciphermq_protocol::{Announcement, Name};
use ciphermq_server::{Server, ServerConfig};
use ed25519_dalek::{Signer, SigningKey};
use tokio::sync::oneshot;

fn announcement(by: &SigningKey, seq: u64) -> Vec<u8> {
    let content = Announcement {
        client_id: Name::parse("billing").unwrap(),
        seq,
        identity: &by.verifying_key().to_bytes(),
        successor: None,
        prev: &[0; 32],
        key: b"key",
        not_before_ms: 0,
        not_after_ms: u64::MAX,
    };
    let mut bytes = content.signed_bytes().unwrap();
    let signature = by.sign(&bytes);
    bytes.extend(signature.to_bytes());
    bytes
}

fn refused(result: cipher_client::Result<()>) -> Code {
    match result.unwrap_err().kind() {
        ErrorKind::Refused { code, .. } => *code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_announces_looks_up_and_reads_the_history_byte_for_byte() {
    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
    let server = Server::bind(config).unwrap();
    let address = server.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let client = Client::connect(ConnectOptions::new(&address)).await.unwrap();
    let (mine, theirs) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));

    assert_eq!(client.lookup_key_raw("billing").await.unwrap(), None);
    assert_eq!(client.key_history_raw("billing", 1).await.unwrap(), None);
    let all: Vec<Vec<u8>> = (1..=40).map(|seq| announcement(&mine, seq)).collect();
    for bytes in &all {
        client.announce_key_raw("billing", bytes).await.unwrap();
    }
    client.announce_key_raw("billing", &all[39]).await.unwrap();
    assert_eq!(refused(client.announce_key_raw("billing", &all[38]).await), Code::Conflict);
    assert_eq!(refused(client.announce_key_raw("billing", &announcement(&theirs, 41)).await), Code::NotAllowed);
    assert_eq!(refused(client.announce_key_raw("other", &all[0]).await), Code::BadAnnouncement);
    let mut forged = announcement(&mine, 41);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(client.announce_key_raw("billing", &forged).await), Code::BadSignature);

    let newest = client.lookup_key_raw("billing").await.unwrap().unwrap();
    assert_eq!((newest.seq, &newest.announcement), (40, &all[39]));
    let (mut from, mut read) = (Some(1), Vec::new());
    while let Some(next) = from {
        let part = client.key_history_raw("billing", next).await.unwrap().unwrap();
        assert_eq!((part.first, part.last), (1, 40));
        read.extend(part.announcements.into_iter().map(|key| key.announcement));
        from = part.next;
    }
    assert_eq!(read, all);
    drop(stop);
    running.await.unwrap().unwrap();
}
