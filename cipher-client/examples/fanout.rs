//! One message for two departments: each has a queue bound to the exchange, and
//! each gets a copy of its own.
//!
//! Both open it with the same key here. Departments that must not read each
//! other's mail have a key each, and the sender a publisher each.
//!
//! `cargo run -p cipher-client --example fanout [host:port]`

use cipher_client::crypto::PrivateKey;
use cipher_client::{Client, ConnectOptions, QueueOptions, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5672".to_owned());
    let client = Client::connect(ConnectOptions::new(address)).await?;
    let departments = ["billing", "shipping"];

    client.declare_exchange("shop").await?;
    for queue in departments {
        client.declare_queue(queue, &QueueOptions::new()).await?;
        client.bind("shop", queue, "ordered").await?;
    }

    let key = PrivateKey::generate(2048)?;
    let publisher = client.publisher("shop", "ordered", key.public_key())?;
    publisher.publish("3 lamps for Ada").await?.await?;

    for queue in departments {
        if let Some(delivery) = client.fetch(queue, &key).await? {
            println!("{queue}: {}", String::from_utf8_lossy(delivery.plaintext()));
            delivery.ack().await?;
        }
    }
    client.close().await
}
