use std::fmt;
use std::io;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

use crate::printable::Printable;

/// Sends the events `filter` lets through to stderr, one line each.
pub(crate) fn start(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .event_format(OneLine(format()))
        .with_writer(io::stderr)
        .init();
    Ok(())
}

/// Whatever a peer sent, an event is one line of visible characters.
///
/// Escaping happens behind the formatting of the event, not field by field: that leaves no door open for a value
/// that formats itself.
struct OneLine(Format<Full>);

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        writeln!(writer, "{}", Printable(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_a_peer_sends() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(OneLine(format()))
            .with_writer(move || writer.clone())
            .finish();
        let evil = "q\nERROR forged\r\u{1b}[2J\u{202e}\u{2028}\u{9b}";
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(queue = evil, shown = %evil, debug = ?evil, "from {evil}");
            tracing::info_span!("connection", peer = %evil).in_scope(|| tracing::warn!("second"));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.ends_with('\n'));
        assert!(text.contains("forged"), "escaped, not swallowed: {text:?}");
        let hidden = |c: &char| c.is_control() || ['\u{202e}', '\u{2028}'].contains(c);
        assert_eq!(text.chars().filter(hidden).filter(|c| *c != '\n').collect::<String>(), "");
    }

    #[test]
    fn a_bad_filter_is_refused() {
        assert!(EnvFilter::builder().parse("info,ciphermq=loud").is_err());
    }
}
