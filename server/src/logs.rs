//! Where the log goes and what it looks like: one line for each event, as JSON or for people. What
//! is logged is ids, states and durations; never a code, a seed, a key, a token, a body, a query or
//! a header (security 40), and nothing in it can break out of its line (security 43).

use std::io::{self, Write};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};

/// Sets how much is logged, while it is logged.
pub struct Levels(Box<dyn Fn(LogLevel) + Send + Sync>);

impl Levels {
    /// Logs so much from here on.
    pub fn set(&self, level: LogLevel) {
        (self.0)(level);
    }
}

/// Sends the log to the standard error output, from here on, for the whole process. A panic is
/// logged like anything else.
///
/// # Errors
/// Where a log was started before.
pub fn start(
    format: LogFormat,
    level: LogLevel,
) -> Result<Levels, tracing::subscriber::SetGlobalDefaultError> {
    let (subscriber, levels) = subscriber(format, level, io::stderr);
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("something that is no text");
        tracing::error!(place, what, "panic");
    }));
    Ok(levels)
}

/// The libraries are heard only where they warn: what they log at lower levels is not ours to
/// vouch for.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(format!("warn,semilla={0},semilla_server={0}", level.name()))
}

/// A log of this form into `writer`, and what sets its level.
pub fn subscriber<W>(
    format: LogFormat,
    level: LogLevel,
    writer: W,
) -> (Box<dyn Subscriber + Send + Sync>, Levels)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // No colours: they are made of the very characters that are not let through.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(false)
        .with_writer(Lines(writer));
    // Setting it fails only once the log itself is gone.
    match format {
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_span_list(false).with_filter_reloading();
            let handle = log.reload_handle();
            let levels = Levels(Box::new(move |level| drop(handle.reload(filter(level)))));
            (Box::new(log.finish()), levels)
        }
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            let levels = Levels(Box::new(move |level| drop(handle.reload(filter(level)))));
            (Box::new(log.finish()), levels)
        }
    }
}

/// Makes writers that keep each event on its line.
struct Lines<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Lines<W> {
    type Writer = Line<W::Writer>;
    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// Writes one event, which comes in one piece and ends with a line feed.
struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(escaped(line).as_bytes())?;
        self.0.write_all(b"\n")?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `line` with every character that is not shown, or that turns others around, as `\uXXXX`: the
/// form that JSON has for it, so that a line of JSON stays what it was.
fn escaped(line: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(line.len());
    for character in line.chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// Control characters, and those that are not seen or turn others around (Unicode Cf).
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written where `log` logs.
    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        logged_with(format, |_| log())
    }

    fn logged_with(format: LogFormat, log: impl FnOnce(&Levels)) -> String {
        let memory = Memory::default();
        let writer = {
            let memory = memory.clone();
            move || memory.clone()
        };
        let (subscriber, levels) = subscriber(format, LogLevel::Info, writer);
        tracing::subscriber::with_default(subscriber, || log(&levels));
        let bytes = memory.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn security_43_nothing_in_the_log_breaks_out_of_its_line() {
        let name = "Laura\r\n2026-01-01 INFO forged\u{1b}[2J\u{202e}\u{2028}\u{0}\u{85}ñ";
        for format in [LogFormat::Json, LogFormat::Text] {
            let log = logged(format, || {
                tracing::info!(name, "{name}");
                tracing::warn!(%name, ?name, "second");
            });
            assert_eq!(log.lines().count(), 2, "{log:?}");
            assert!(log.ends_with('\n') && log.contains('ñ'));
            assert!(
                !log.trim_end_matches('\n').contains(|c: char| c != '\n' && is_hidden(c)),
                "{log:?}"
            );
        }
    }

    #[test]
    fn a_line_of_json_is_json_and_says_what_was_meant() {
        let name = "a\u{202e}b\u{1b}\"\\";
        let log = logged(LogFormat::Json, || tracing::info!(name, "met"));
        let line: serde_json::Value = serde_json::from_str(log.trim_end()).expect("JSON");
        assert_eq!((&line["name"], &line["message"]), (&name.into(), &"met".into()));
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn the_level_is_set_while_it_runs() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let log = logged_with(format, |levels| {
                let say = |what| {
                    tracing::debug!("detail of {what}");
                    tracing::info!("line of {what}");
                };
                say("first");
                levels.set(LogLevel::Debug);
                say("second");
                levels.set(LogLevel::Error);
                say("third");
            });
            assert_eq!(log.lines().count(), 3, "{log}");
            assert!(log.contains("detail of second") && !log.contains("third"));
        }
    }

    #[test]
    fn the_level_holds_for_the_product_and_libraries_are_heard_only_where_they_warn() {
        let log = logged(LogFormat::Text, || {
            tracing::debug!("ours, too low");
            tracing::info!(target: "hyper", "theirs, too low");
            tracing::warn!(target: "hyper", "theirs, heard");
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("theirs, heard"));
    }
}
