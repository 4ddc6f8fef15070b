use std::future::poll_fn;

use ciphermq_broker::{Broker, Timestamp};

use crate::clock::Clock;

/// Ends leases and delays when they are due, for ever. The broker has no clock and no thread of its own.
pub(crate) async fn run(broker: Broker, clock: Clock) {
    loop {
        let now = clock.now();
        match broker.poll_timeout() {
            Some(due) if due <= now => {
                broker.handle_timeout(now);
                // Many leases may end in the same moment; connections get their turn in between.
                tokio::task::yield_now().await;
            }
            Some(due) => wait(&broker, clock, due).await,
            None => rung(&broker).await,
        }
    }
}

/// Until `due`, or until something earlier came up.
async fn wait(broker: &Broker, clock: Clock, due: Timestamp) {
    tokio::select! {
        () = tokio::time::sleep_until(clock.instant(due)) => {}
        () = rung(broker) => {}
    }
}

async fn rung(broker: &Broker) {
    poll_fn(|context| broker.timer_bell().poll_rung(context)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use ciphermq_broker::{BrokerOptions, Delivery, Link, Notice, Publish};
    use ciphermq_journal::Doorbell;

    const ENVELOPE: &str = r#"{"message_id":"m","enc_session_key":"","nonce":"","tag":"","ciphertext":""}"#;

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_runs_out_is_delivered_again_without_traffic() {
        let clock = Clock::start();
        let broker = Broker::in_memory(BrokerOptions { lease_ms: 500, ..BrokerOptions::default() }, clock.now());
        let timers = tokio::spawn(run(broker.clone(), clock));
        let bell = Arc::new(Doorbell::new());
        let mut link = broker.connect(Arc::clone(&bell));
        publish(&mut link, clock);

        let first = link.fetch("default_queue", None, clock.now()).unwrap().expect("one message is ready");
        assert_eq!(first.attempt(), 1);
        link.subscribe("default_queue", 1, clock.now()).unwrap();
        assert!(link.next_notice().is_none(), "the only message is leased");

        let leased_at = clock.now();
        let again = delivered(&mut link, &bell).await;
        assert_eq!(again.attempt(), 2);
        assert!(clock.now().ms_since(leased_at) >= 500);
        timers.abort();
    }

    async fn delivered(link: &mut Link, bell: &Doorbell) -> Delivery {
        loop {
            match link.next_notice() {
                Some(Notice::Delivery(delivery)) => return delivery,
                Some(other) => panic!("{other:?}"),
                None => poll_fn(|context| bell.poll_rung(context)).await,
            }
        }
    }

    fn publish(link: &mut Link, clock: Clock) {
        let publish = Publish { exchange: "default_exchange", key: "default_key", id: "m", envelope: ENVELOPE };
        link.publish(publish, clock.now()).unwrap();
        assert!(link.submit().is_some());
    }
}
