//! The JSON of `status` and `stats`.

use ciphermq_broker::{AnnouncementView, CopyView, DirectoryFigures, KeyHistory, Link, limits};
use ciphermq_journal::{Figures, Health};
use serde::Serialize;

use crate::base64;
use crate::connection::{ConnectionContext, StoreKind};

/// What `status` answers.
#[derive(Serialize)]
pub(crate) struct StatusAnswer<'a> {
    pub(crate) message_id: &'a str,
    pub(crate) copies: Vec<CopyView>,
}

/// What `lookup_key` answers.
#[derive(Serialize)]
pub(crate) struct KeyAnswer<'a> {
    pub(crate) client_id: &'a str,
    #[serde(flatten)]
    pub(crate) announcement: AnnouncementAnswer,
}

/// What `key_history` answers.
#[derive(Serialize)]
pub(crate) struct KeysAnswer<'a> {
    client_id: &'a str,
    first: u64,
    last: u64,
    /// Where to go on.
    next: Option<u64>,
    announcements: Vec<AnnouncementAnswer>,
}

#[derive(Serialize)]
pub(crate) struct AnnouncementAnswer {
    seq: u64,
    /// Milliseconds since 1970.
    announced: u64,
    /// Base64.
    announcement: String,
}

impl<'a> KeysAnswer<'a> {
    pub(crate) fn new(client_id: &'a str, history: KeyHistory) -> KeysAnswer<'a> {
        let KeyHistory { first, last, next, announcements } = history;
        let announcements = announcements.into_iter().map(AnnouncementAnswer::from).collect();
        KeysAnswer { client_id, first, last, next, announcements }
    }
}

impl From<AnnouncementView> for AnnouncementAnswer {
    fn from(view: AnnouncementView) -> AnnouncementAnswer {
        let AnnouncementView { seq, announced, bytes } = view;
        AnnouncementAnswer { seq, announced: announced.0, announcement: base64::encode(&bytes) }
    }
}

/// What `stats` answers: the keys of CipherMQ 1.0.0 first, in its order.
#[derive(Serialize)]
pub(crate) struct StatsAnswer {
    queues: Vec<(String, u64)>,
    consumers: Vec<(String, usize)>,
    message_status_counts: StatusCounts,
    total_exchanges: usize,
    total_bindings: usize,
    connected_clients: u64,
    request_times_avg_seconds: Vec<(&'static str, f64, u64, f64)>,
    avg_publish_to_ack_seconds: f64,
    avg_delivery_to_ack_seconds: f64,
    uptime_seconds: u64,
    published: u64,
    duplicates: u64,
    delivered: u64,
    redelivered: u64,
    dead_lettered: u64,
    refused: u64,
    store_bytes: u64,
    store_bytes_max: u64,
    dedupe_ids: usize,
    keys: KeysCount,
    journal: JournalAnswer,
}

/// How much is in the directory of keys.
#[derive(Serialize)]
struct KeysCount {
    clients: usize,
    announcements: usize,
    unsigned: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct JournalAnswer {
    /// `memory`, `ok`, `full` or `failed`.
    state: &'static str,
    /// What failed.
    error: Option<String>,
    disk_bytes: u64,
    findings: u64,
}

#[derive(Serialize)]
struct StatusCounts {
    sent: u64,
    delivered: u64,
    acknowledged: u64,
}

impl StatsAnswer {
    pub(crate) fn new(link: &Link, context: &ConnectionContext) -> StatsAnswer {
        let mut queues = link.list_queues(None, limits::QUEUES_MAX);
        let (stats, (total_exchanges, total_bindings)) = (link.stats(), link.topology_counts());
        let (store_bytes, store_bytes_max) = link.store_bytes();
        let DirectoryFigures { clients, announcements, unsigned, bytes } = link.directory_figures();
        let times = context.counters.command_times().into_iter();
        let message_status_counts = StatusCounts {
            sent: queues.iter().map(|queue| queue.ready + queue.delayed).sum(),
            delivered: queues.iter().map(|queue| queue.leased).sum(),
            acknowledged: stats.acknowledged,
        };
        queues.truncate(limits::STATS_QUEUES_MAX);
        StatsAnswer {
            message_status_counts,
            consumers: queues.iter().map(|queue| (queue.queue.clone(), queue.consumers)).collect(),
            queues: queues.into_iter().map(|view| (view.queue, view.ready + view.delayed + view.leased)).collect(),
            total_exchanges,
            total_bindings,
            connected_clients: context.counters.connected(),
            request_times_avg_seconds: times
                .map(|time| (time.verb, time.seconds / time.count as f64, time.count, time.seconds))
                .collect(),
            avg_publish_to_ack_seconds: stats.publish_to_ack_seconds,
            avg_delivery_to_ack_seconds: stats.delivery_to_ack_seconds,
            uptime_seconds: context.clock.uptime_ms() / 1000,
            published: stats.published,
            duplicates: stats.duplicates,
            delivered: stats.delivered,
            redelivered: stats.redelivered,
            dead_lettered: stats.dead_lettered,
            refused: stats.refused,
            store_bytes,
            store_bytes_max,
            dedupe_ids: link.dedupe_ids(),
            keys: KeysCount { clients, announcements, unsigned, bytes },
            journal: JournalAnswer::new(link, context.store),
        }
    }
}

impl JournalAnswer {
    fn new(link: &Link, store: StoreKind) -> JournalAnswer {
        let figures = link.journal_figures();
        let state = match (link.health(), store) {
            (Health::Poisoned, _) => "failed",
            (Health::Full, _) => "full",
            (Health::Healthy, StoreKind::Memory) => "memory",
            (Health::Healthy, StoreKind::Disk) => "ok",
        };
        let Figures { disk_bytes, findings, .. } = figures;
        JournalAnswer { state, error: link.journal_failure(), disk_bytes, findings }
    }
}

/// JSON of a value that always has one.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs of strings and numbers have no way to fail")
}
