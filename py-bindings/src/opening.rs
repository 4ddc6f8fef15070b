//! Opening what has come at one go, on all cores where that pays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use cipher_client::crypto::{Context, Opened, Opener, Order};
use cipher_client::{Error, ErrorKind, RawDelivery};

use crate::logging;
use crate::process::Process;

/// After so many session keys in a row that were new, the messages left are
/// opened on all cores: each costs an RSA decryption, some 1.6 ms. Where session
/// keys are used again, one in a row is new.
const FRESH_IN_A_ROW: u64 = 2;

/// Most threads that open at a time.
const THREADS_MAX: usize = 16;

/// Opens them in their order, up to the first part of a larger message: the number
/// of that one counts when it is whole, and those behind it come after it.
pub(crate) fn open_all(opener: &Opener, came: &[RawDelivery], process: &Process) -> Vec<Result<Opened, Error>> {
    let mut opened = Vec::with_capacity(came.len());
    let mut fresh = 0;
    for delivery in came {
        if fresh >= FRESH_IN_A_ROW {
            break;
        }
        let before = opener.stats().unwraps;
        let one = open(opener, delivery);
        let is_fresh = opener.stats().unwraps > before && !is_tracked(&one);
        let is_part = one.as_ref().is_ok_and(|opened| opened.part.is_some());
        opened.push(one);
        if is_part {
            return opened;
        }
        fresh = if is_fresh { fresh + 1 } else { 0 };
    }
    let left = &came[opened.len()..];
    if !left.is_empty() {
        // A thread of the runtime hands what waits for it over to another one.
        opened.extend(tokio::task::block_in_place(|| spread(left, process, |delivery| open(opener, delivery))));
    }
    opened
}

/// Numbered by a known sender: opened in its order, so that no gap is told
/// where there is none.
fn is_tracked(opened: &Result<Opened, Error>) -> bool {
    opened.as_ref().is_ok_and(|opened| opened.order != Order::Untracked)
}

/// The results of `work`, from as many threads as there are cores. This thread
/// is one of them: it is what waits for the rest.
fn spread<T: Sync, R: Send>(items: &[T], process: &Process, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let share = || {
        let mut own = Vec::new();
        while let Some((place, item)) = take(items, &next) {
            own.push((place, work(item)));
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
    };
    thread::scope(|scope| {
        for _ in 1..cores.min(items.len()) {
            scope.spawn(|| {
                logging::use_sink(&process.sink);
                share();
            });
        }
        share();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, T>(items: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    items.get(place).map(|item| (place, item))
}

fn open(opener: &Opener, delivery: &RawDelivery) -> Result<Opened, Error> {
    let delivered = Context::new(delivery.exchange(), delivery.routing_key());
    let opened = opener.open_for(delivery.envelope(), &delivered)?;
    if opened.message_id != delivery.message_id() {
        return Err(ErrorKind::Malformed { part: "message_id", fault: "not the one it was delivered as" }.into());
    }
    Ok(opened)
}
