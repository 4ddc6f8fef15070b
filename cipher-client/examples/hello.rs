//! One encrypted message, there and back, on the topology every broker has.
//!
//! Start a broker (`ciphermq serve --memory`), then
//! `cargo run -p cipher-client --example hello [host:port]`.

use cipher_client::crypto::PrivateKey;
use cipher_client::{Client, ConnectOptions, ConsumeOptions, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5672".to_owned());
    let client = Client::connect(ConnectOptions::new(address).name("hello")).await?;

    // The receiver's key pair; a sender only needs the public half.
    let key = PrivateKey::generate(2048)?;

    let publisher = client.publisher("default_exchange", "default_key", key.public_key())?;
    let ack = publisher.publish("hello, world").await?.await?;
    println!("the broker has {}, and cannot read it", ack.message_id());

    let mut consumer = client.consume("default_queue", &key, ConsumeOptions::new()).await?;
    if let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        println!("received: {}", String::from_utf8_lossy(delivery.plaintext()));
        delivery.ack().await?;
    }
    drop(consumer);
    client.close().await
}
