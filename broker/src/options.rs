use std::sync::Arc;

use ciphermq_journal::Durability;

use crate::limits;

/// How a broker behaves. `BrokerOptions::default()` is what the documentation states.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Lease of a queue that does not state its own, in milliseconds.
    pub lease_ms: u64,
    /// Deliveries before dead-lettering, for queues that do not state their own; 0 is without limit.
    pub max_attempts: u32,
    /// Bytes of stored messages, summed over queues, beyond which publishes are refused.
    pub store_bytes_max: u64,
    /// Bytes of waiting messages, summed over queues, beyond which bodies leave memory and are read back when they are
    /// delivered. Without effect where nothing can be read back.
    pub resident_bytes_max: u64,
    /// How long a message id is remembered, in milliseconds.
    pub dedupe_window_ms: u64,
    /// How many message ids are remembered.
    pub dedupe_ids_max: usize,
    /// How certain a message and its settlement must be before they are answered, in queues that do not state their own.
    pub durability: Durability,
    /// Key of the message-id hash; random in production so that publishers cannot aim at collisions. A log that has
    /// one goes on with its own.
    pub hash_key: u128,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            lease_ms: limits::LEASE_MS_DEFAULT,
            max_attempts: limits::MAX_ATTEMPTS_DEFAULT,
            store_bytes_max: limits::STORE_BYTES_DEFAULT,
            resident_bytes_max: limits::RESIDENT_BYTES_DEFAULT,
            dedupe_window_ms: limits::DEDUPE_WINDOW_MS_DEFAULT,
            dedupe_ids_max: limits::DEDUPE_IDS_DEFAULT,
            durability: Durability::Synced,
            hash_key: uuid::Uuid::new_v4().as_u128(),
        }
    }
}

/// What a declaration asks of a queue; `None` leaves it to the broker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// Lease in milliseconds.
    pub lease_ms: Option<u64>,
    /// Deliveries before dead-lettering; 0 is without limit.
    pub max_attempts: Option<u32>,
    /// Where rejected and worn-out messages go.
    pub dead_letter: Option<Arc<str>>,
    /// Messages beyond which publishes are refused; 0 is without limit.
    pub max_messages: Option<u64>,
    /// Bytes beyond which publishes are refused; 0 is without limit.
    pub max_bytes: Option<u64>,
    /// How certain a message and its settlement must be before they are answered.
    pub durability: Option<Durability>,
}

/// What a queue has: every option decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// Lease in milliseconds.
    pub lease_ms: u64,
    /// Deliveries before dead-lettering; 0 is without limit.
    pub max_attempts: u32,
    /// Where rejected and worn-out messages go; `None` in a dead-letter queue, which is left only by ack or purge.
    pub dead_letter: Option<Arc<str>>,
    /// Messages beyond which publishes are refused; 0 is without limit.
    pub max_messages: u64,
    /// Bytes beyond which publishes are refused; 0 is without limit.
    pub max_bytes: u64,
    /// How certain a message and its settlement must be before they are answered.
    pub durability: Durability,
}

impl QueueSettings {
    /// Settings of the queue `name` declared with `options` on a broker with `defaults`.
    pub(crate) fn decide(name: &str, options: &QueueOptions, defaults: &BrokerOptions) -> QueueSettings {
        let own_dead_letter = || Arc::from(format!("{name}{}", limits::DEAD_LETTER_SUFFIX));
        QueueSettings {
            lease_ms: options.lease_ms.unwrap_or(defaults.lease_ms),
            max_attempts: options.max_attempts.unwrap_or(defaults.max_attempts),
            dead_letter: Some(options.dead_letter.clone().unwrap_or_else(own_dead_letter)),
            max_messages: options.max_messages.unwrap_or(0),
            max_bytes: options.max_bytes.unwrap_or(0),
            durability: options.durability.unwrap_or(defaults.durability),
        }
    }

    /// Settings of a dead-letter queue made on first need: nothing leaves it but by ack or purge.
    pub(crate) fn dead_letter_queue(defaults: &BrokerOptions) -> QueueSettings {
        QueueSettings {
            lease_ms: defaults.lease_ms,
            max_attempts: 0,
            dead_letter: None,
            max_messages: 0,
            max_bytes: 0,
            durability: defaults.durability,
        }
    }

    /// The first stated option that differs, as `name=value` of what the queue has.
    pub(crate) fn conflict(&self, options: &QueueOptions) -> Option<String> {
        fn differs<T: PartialEq + ToString>(name: &str, asked: Option<&T>, has: &T) -> Option<String> {
            asked.is_some_and(|asked| asked != has).then(|| format!("{name}={}", has.to_string()))
        }
        let dead_letter: Arc<str> = self.dead_letter.clone().unwrap_or_else(|| Arc::from("none"));
        differs("lease", options.lease_ms.as_ref(), &self.lease_ms)
            .or_else(|| differs("max_attempts", options.max_attempts.as_ref(), &self.max_attempts))
            .or_else(|| differs("dead_letter", options.dead_letter.as_ref(), &dead_letter))
            .or_else(|| differs("max_messages", options.max_messages.as_ref(), &self.max_messages))
            .or_else(|| differs("max_bytes", options.max_bytes.as_ref(), &self.max_bytes))
            .or_else(|| {
                let [asked, has] =
                    [options.durability, Some(self.durability)].map(|durability| durability.map(in_words));
                differs("durability", asked.as_ref(), &has?)
            })
    }
}

/// As the protocol says it.
pub(crate) fn in_words(durability: Durability) -> String {
    match durability {
        Durability::Synced => "sync".to_owned(),
        Durability::Within(ms) => format!("interval:{ms}"),
        Durability::Written => "none".to_owned(),
    }
}
