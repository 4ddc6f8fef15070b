//! Opening what is left, and holding it against what was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ciphermq_broker::{AnnouncementView, Broker, Link, Reason, Recovered};
use ciphermq_journal::{
    Crash, Doorbell, Finding, FindingKind, MemoryDisk, RecordKind, Report, Scanned, Stop, Unsynced, scan,
};
use rand::RngExt;

use crate::changes::announcement;
use crate::disk::WatchedDisk;
use crate::faults::{End, Fault};
use crate::history::{History, Running};
use crate::model::{ANNOUNCERS, Name, name};

/// Crashes in a row while opening.
const STOPS_WHILE_OPENING_MAX: usize = 3;
const NO_LIMIT: usize = usize::MAX;

/// A message as the next broker has it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) send: usize,
    pub(crate) from: Option<(Name, Reason)>,
    pub(crate) attempts: u32,
}

/// All that can be seen of a broker: its topology, and each queue from its first message to its last.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) queues: BTreeMap<Name, Vec<Found>>,
    pub(crate) exchanges: BTreeSet<Name>,
    pub(crate) bindings: BTreeSet<(Name, Name, Name)>,
    pub(crate) announced: BTreeMap<Name, Vec<u64>>,
}

impl History {
    pub(crate) fn reopen(&mut self, image: MemoryDisk) {
        self.reopen_after(image, End::NoneYet);
    }

    /// The next broker on what the last one left behind. It may be stopped several times before it runs.
    pub(crate) fn reopen_after(&mut self, image: MemoryDisk, end: End) {
        (self.fault, self.refused_with_room) = (Fault::None, None);
        self.now += self.random.random_range(0..3);
        let mut image = image;
        let mut stops = 0;
        let (broker, recovered) = loop {
            self.disk = WatchedDisk::new(image);
            if stops < STOPS_WHILE_OPENING_MAX && self.chance(4) {
                let (at, torn) = (self.random.random_range(0..40), self.random.random_range(0..9_000));
                self.disk
                    .disk
                    .stop_at(at, [Stop::Before, Stop::After, Stop::Torn(torn)][self.random.random_range(0..3)]);
            }
            let scanned = self.chance(4).then(|| self.scan());
            let opened = self.open(&self.disk);
            match opened {
                Ok(opened) if !self.disk.disk.is_stopped() => {
                    let found = &opened.1.log;
                    if let Some(scanned) = scanned {
                        let without =
                            |report: &Report| (report.records, report.payload_bytes, report.segments, report.closed);
                        assert_eq!(without(&scanned), without(found), "looked at, and opened");
                    }
                    break opened;
                }
                Err(error) if !self.disk.disk.is_stopped() => panic!("opening failed: {error}"),
                _ => {}
            }
            stops += 1;
            self.coverage.crashes_while_opening += 1;
            let crash = self.any_crash();
            image = self.disk.disk.crash(crash);
        };
        self.disk.disk.stop_at(u64::MAX, Stop::Before);
        self.coverage.opened += 1;
        self.coverage.messages_recovered += recovered.messages;
        let observer = broker.connect(Arc::new(Doorbell::new()));
        self.say(format!(
            "-- opened after {stops} stops: {} messages, {:?}",
            recovered.messages, recovered.log.findings
        ));
        let observed = self.observe(&observer);
        let counted: usize = observed.queues.values().map(Vec::len).sum();
        assert_eq!(recovered.messages, counted as u64, "messages counted when opening, and in the queues");
        self.check_findings(&recovered, end, stops);
        // Records of attempts are written, not synced: a power failure while opening may have taken them.
        self.has_untold_attempts |= stops > 0;
        self.settle_accounts(observed, end, &recovered);
        let reads = self.disk.reads();
        self.running = Some(Running { clients: Vec::new(), observer, broker, reads });
        (0..self.clients_wanted).for_each(|_| self.connect());
    }

    fn open(&self, disk: &WatchedDisk) -> Result<(Broker, Recovered), ciphermq_journal::OpenError> {
        Broker::open_stepped(self.options.clone(), self.at(), Arc::new(disk.clone()), self.journal.clone())
    }

    /// Looks at the log as `ciphermq verify` does.
    fn scan(&mut self) -> Report {
        let mut carried = 0;
        let report = scan(&self.disk.disk.crash(Crash::Kill), &mut |scanned| {
            carried += u64::from(matches!(scanned, Scanned::Record { kind: RecordKind::Carried, .. }));
        });
        self.coverage.records_carried += carried;
        report.unwrap_or_else(|error| panic!("looking at the log failed: {error}"))
    }

    /// What the broker has, as far as a second one sees that is started on a copy of its disk after a power failure: what was
    /// recovered must be there for good.
    fn observe(&mut self, live: &Link) -> Observed {
        let crash = if self.chance(2) { Crash::Kill } else { Crash::PowerLoss(Unsynced::Lost) };
        let copy = WatchedDisk::new(self.disk.disk.crash(crash));
        let (broker, _) = self.open(&copy).unwrap_or_else(|error| panic!("opening again failed: {error}"));
        let mut link = broker.connect(Arc::new(Doorbell::new()));
        let shown = |link: &Link| {
            (
                link.list_queues(None, NO_LIMIT),
                link.list_exchanges(None, NO_LIMIT),
                link.list_bindings(None, None, NO_LIMIT),
                link.dedupe_ids(),
                announced(link),
            )
        };
        assert_eq!(shown(live), shown(&link), "opened twice after {crash:?}, and not the same");
        let (queues, exchanges, bindings, _, announced) = shown(&link);
        let mut observed = Observed {
            queues: BTreeMap::new(),
            exchanges: exchanges.iter().map(|view| name(&view.exchange)).collect(),
            bindings: bindings.iter().map(|view| (name(&view.exchange), name(&view.key), name(&view.queue))).collect(),
            announced,
        };
        for view in &queues {
            let mut found = Vec::new();
            while let Some(delivery) = link.fetch(&view.queue, Some(u64::MAX), self.at()).expect("listed") {
                let message = delivery.message();
                found.push(Found {
                    send: self.recognise(message),
                    from: message.dead_letter().map(|dead| (name(dead.from), dead.reason)),
                    attempts: delivery.attempt() - 1,
                });
            }
            assert_eq!(found.len() as u64, view.ready, "messages of {} counted, and handed over", view.queue);
            observed.queues.insert(name(&view.queue), found);
        }
        observed
    }

    /// Nothing is reported that did not happen.
    fn check_findings(&mut self, recovered: &Recovered, end: End, stops: usize) {
        let log = &recovered.log;
        assert_eq!(log.aside_failed, None);
        // Of what cost nothing nothing is kept aside: it is found anew each time.
        let is_old =
            |finding: &Finding| finding.known_before || !(finding.kind.is_loss() || finding.kind == FindingKind::Torn);
        let new: Vec<&Finding> = log.findings.iter().filter(|finding| !is_old(finding)).collect();
        let is_torn = new.iter().any(|finding| finding.kind == FindingKind::Torn);
        self.coverage.torn_tails_found += u64::from(is_torn && end != End::Flipped);
        self.coverage.flips_reported += u64::from(end == End::Flipped && !log.findings.is_empty());
        match end {
            End::Flipped => {}
            End::NoneYet | End::Closed | End::KilledAtRest if stops == 0 => {
                assert!(new.is_empty(), "nothing was wrong after {end:?}: {new:?}");
                assert!(log.closed || end != End::Closed, "closed in order");
            }
            _ => assert!(new.iter().all(|finding| !finding.kind.is_loss()), "reported as lost: {:?}", log.findings),
        }
    }
}

/// The numbers of what each client announced; the bytes are the right ones.
fn announced(link: &Link) -> BTreeMap<Name, Vec<u64>> {
    let histories = ANNOUNCERS.iter().filter_map(|client| Some((*client, link.key_history(client, 1, NO_LIMIT).ok()?)));
    let seqs = histories.map(|(client, history)| {
        let seq = |view: AnnouncementView| {
            assert_eq!(view.bytes, announcement(client, view.seq).bytes);
            view.seq
        };
        (client, history.announcements.into_iter().map(seq).collect())
    });
    seqs.collect()
}
