/// How a log on disk is laid out and bounded.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The smallest segment. Rounded up to whole blocks of 4,096 bytes, and at least two of them.
    pub segment_bytes_min: u64,
    /// The largest segment, unless one group of entries needs more. Between the two, a segment has about a quarter of the log's
    /// bytes, or what is written in a second.
    pub segment_bytes_max: u64,
    /// How much is written before it is synced and committed, though more waits.
    pub batch_bytes_max: usize,
    /// How much may wait to be written before [`Journal::is_congested`](crate::Journal::is_congested).
    pub inbox_bytes_max: u64,
    /// How much of the disk the log may use; all of it if `None`.
    pub disk_bytes_max: Option<u64>,
    /// How much of the oldest segment is read at a time to carry on what lives in it.
    pub carry_bytes_per_step: usize,
    /// Where the salts of segments come from. `None`: from the system's random generator. `Some`: the same every time, for
    /// tests and simulations.
    pub salt_seed: Option<u64>,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            segment_bytes_min: 4 << 20,
            segment_bytes_max: 64 << 20,
            batch_bytes_max: 1 << 20,
            inbox_bytes_max: 64 << 20,
            disk_bytes_max: None,
            carry_bytes_per_step: 1 << 20,
            salt_seed: None,
        }
    }
}
