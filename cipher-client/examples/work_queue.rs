//! Jobs shared by two workers: each job is done by one of them, and a job that
//! fails is tried again after a pause, three times at most.
//!
//! `cargo run -p cipher-client --example work_queue [host:port]`

use std::time::Duration;

use cipher_client::crypto::PrivateKey;
use cipher_client::{Client, ConnectOptions, ConsumeOptions, QueueOptions, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5672".to_owned());
    let client = Client::connect(ConnectOptions::new(address.as_str())).await?;
    client.declare_queue("jobs", &QueueOptions::new().max_attempts(3)).await?;
    client.bind("default_exchange", "jobs", "job").await?;

    let key = PrivateKey::generate(2048)?;
    let publisher = client.publisher("default_exchange", "job", key.public_key())?;
    // One request for all of them; confirmed when all are stored.
    let jobs = (1..=9).map(|number| format!("job {number}"));
    println!("{} jobs stored", publisher.publish_batch(jobs).await?.all().await?.len());

    tokio::try_join!(worker("ann", &address, &key), worker("bob", &address, &key))?;
    client.close().await
}

/// Works until there was nothing to do for a second.
async fn worker(name: &str, address: &str, key: &PrivateKey) -> Result<()> {
    let client = Client::connect(ConnectOptions::new(address).name(name)).await?;
    // One job at a time: the other worker takes what this one has no hand for.
    let mut consumer = client.consume("jobs", key, ConsumeOptions::new().prefetch(1)).await?;
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
        let delivery = delivery?;
        let job = String::from_utf8_lossy(delivery.plaintext()).into_owned();
        if job.ends_with('5') && delivery.attempt() == 1 {
            println!("{name}: {job} failed, again in 200 ms");
            delivery.nack(Some(Duration::from_millis(200))).await?;
        } else {
            println!("{name}: {job} done");
            delivery.ack().await?;
        }
    }
    client.close().await
}
