//! Events of the Rust side become records of Python's logger `ciphermq`.
//!
//! A thread of the runtime must not wait for the interpreter, and must not take
//! a lock that a fork could copy while it is held. So it hands its events through a
//! channel to a thread that logs them. A thread of Python keeps them for itself
//! and logs them as soon as it holds the interpreter again.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::process::Gate;

/// Events that wait for the interpreter; further ones are dropped.
const WAITING_MAX: usize = 1024;

struct Record {
    level: Level,
    text: String,
}

thread_local! {
    static SINK: RefCell<Option<SyncSender<Record>>> = const { RefCell::new(None) };
    static KEPT: RefCell<Vec<Record>> = const { RefCell::new(Vec::new()) };
    static IS_LOGGING: Cell<bool> = const { Cell::new(false) };
}

/// Python's number of the least level that is logged.
static LEVEL: AtomicU8 = AtomicU8::new(WARNING);
const DEBUG: u8 = 10;
const INFO: u8 = 20;
const WARNING: u8 = 30;
const ERROR: u8 = 40;

/// Once, when the module is imported.
pub(crate) fn install() {
    // This library has a copy of `tracing` to itself: there is no other subscriber.
    drop(tracing::subscriber::set_global_default(ToPython));
}

/// Takes over the level that the logger has now.
pub(crate) fn read_level(py: Python<'_>) -> PyResult<()> {
    let level: u64 = logger(py)?.call_method0(intern!(py, "getEffectiveLevel"))?.extract()?;
    LEVEL.store(u8::try_from(level).unwrap_or(u8::MAX), Ordering::Relaxed);
    Ok(())
}

/// The thread that logs what the threads of one runtime send.
pub(crate) fn start_sink(gate: Arc<Gate>) -> std::io::Result<LogSink> {
    let (sink, records) = sync_channel(WAITING_MAX);
    std::thread::Builder::new().name("ciphermq-log".into()).spawn(move || log_all(&records, &gate))?;
    Ok(LogSink(sink))
}

#[derive(Clone)]
pub(crate) struct LogSink(SyncSender<Record>);

/// Called by each thread of a runtime.
pub(crate) fn use_sink(sink: &LogSink) {
    SINK.with_borrow_mut(|own| *own = Some(sink.0.clone()));
}

/// Runs `work` without the interpreter, and logs what it had to say.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    let output = py.detach(work);
    flush(py);
    output
}

/// Logs what this thread has kept.
pub(crate) fn flush(py: Python<'_>) {
    if KEPT.with_borrow(Vec::is_empty) || IS_LOGGING.replace(true) {
        return;
    }
    for record in KEPT.take() {
        log(py, &record);
    }
    IS_LOGGING.set(false);
}

fn log_all(records: &Receiver<Record>, gate: &Gate) {
    while let Ok(record) = records.recv() {
        if !gate.enter(|py| log(py, &record)) {
            return;
        }
    }
}

fn log(py: Python<'_>, record: &Record) {
    let logged = logger(py).and_then(|logger| {
        // As an argument: a text with a % in it is no format.
        logger.call_method1(intern!(py, "log"), (number(&record.level), "%s", record.text.as_str()))
    });
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}

fn logger(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = || Ok(py.import("logging")?.call_method1("getLogger", ("ciphermq",))?.unbind());
    LOGGER.get_or_try_init(py, make).map(|logger| logger.bind(py))
}

fn number(level: &Level) -> u8 {
    match *level {
        Level::ERROR => ERROR,
        Level::WARN => WARNING,
        Level::INFO => INFO,
        _ => DEBUG,
    }
}

/// The crates whose events are of interest; the last is this one.
const OURS: [&str; 3] = ["ciphermq", "cipher_client", "_native"];

struct ToPython;

impl Subscriber for ToPython {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = OURS.iter().any(|ours| metadata.target().starts_with(ours));
        ours && metadata.is_event() && number(metadata.level()) >= LEVEL.load(Ordering::Relaxed)
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The level can change with each connection.
        tracing::subscriber::Interest::sometimes()
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let record = Record { level: *event.metadata().level(), text: text.finish() };
        SINK.with_borrow(|sink| match sink {
            // A full channel: the text is lost, the work goes on.
            Some(sink) => drop(sink.try_send(record)),
            None => KEPT.with_borrow_mut(|kept| {
                if kept.len() < WAITING_MAX {
                    kept.push(record);
                }
            }),
        });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// `message name=value name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let text = self.message + &self.fields;
        if text.contains(char::is_control) {
            // One event is one line: what a peer sends must not look like another.
            return text.escape_debug().to_string();
        }
        text
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
