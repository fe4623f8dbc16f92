//! Events for the Windows Event Log: their content, and the fallback if an event is not accepted.

use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::{Entry, Sink, fall_back};
use crate::event::{Reporter, source_of};

/// The maximum length of each string in UTF-16 units. Two strings stay below the event size limit
/// of 61 440 bytes.
const UNITS_MAX: usize = 15_000;

/// Reports a service's events, with the service's name in the JSON data. The source is opened for
/// the first event, and reopened if the Event Log service was restarted meanwhile.
pub(super) struct EventLog<R> {
    name: String,
    reporter: Mutex<Option<R>>,
}

impl<R: Reporter> EventLog<R> {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            reporter: Mutex::new(None),
        }
    }

    fn report(&self, entry: &Entry<'_>) -> io::Result<()> {
        let message = literal(cut(entry.message));
        let data = data(&self.name, entry);
        let mut reporter = self.reporter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = reporter.take()
            && open.report(entry.event, [&message, &data]).is_ok()
        {
            *reporter = Some(open);
            return Ok(());
        }
        let open = R::open(&source_of(&self.name))?;
        open.report(entry.event, [&message, &data])?;
        *reporter = Some(open);
        Ok(())
    }
}

impl<R: Reporter> Sink for EventLog<R> {
    fn log(&self, entry: &Entry<'_>) {
        if self.report(entry).is_err() {
            fall_back(entry);
        }
    }
}

/// Escapes `%`: Event Viewer interprets `%1` inside an inserted string as another insertion, so
/// such a `%` becomes a full-width one. NUL would end the string.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek();
        let is_insertion = next.is_some_and(|next| next.is_ascii_digit() || *next == '%');
        literal.push(match character {
            '%' if is_insertion => '％',
            '\0' => ' ',
            other => other,
        });
    }
    literal
}

fn cut(text: &str) -> &str {
    let mut units = 0;
    let too_much = text.char_indices().find(|(_, character)| {
        units += character.len_utf16();
        units > UNITS_MAX
    });
    too_much.map_or(text, |(end, _)| &text[..end])
}

/// Returns the second string: a JSON object. It also includes the exact message, unless that is too
/// long.
fn data(name: &str, entry: &Entry<'_>) -> String {
    let with = |message: Option<&str>| {
        let mut json = String::from("{\"service\":");
        string(&mut json, name);
        let _ = write!(json, ",\"pid\":{}", std::process::id());
        let _ = write!(json, ",\"kind\":\"{}\"", entry.event.kind());
        for (key, value) in entry.fields {
            let _ = write!(json, ",\"{key}\":{value}");
        }
        if let Some(message) = message {
            json.push_str(",\"message\":");
            string(&mut json, message);
        }
        json + "}"
    };
    let whole = with(Some(entry.message));
    if cut(&whole).len() == whole.len() {
        whole
    } else {
        with(None)
    }
}

/// Appends a JSON string, with every `%` escaped.
fn string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\n' => json.push_str("\\n"),
            '%' | '\0'..='\x1f' => {
                let _ = write!(json, "\\u{:04x}", u32::from(character));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::event::Event;

    /// The events in the fake Event Log, by source, and whether its service is down.
    static LOGS: Mutex<Vec<(String, Event, [String; 2])>> = Mutex::new(Vec::new());
    static IS_AWAY: AtomicBool = AtomicBool::new(false);

    /// A handle: the name it was opened with, and whether the service has stopped since.
    struct Fake(String, AtomicBool);

    impl Reporter for Fake {
        fn open(source: &str) -> io::Result<Self> {
            if IS_AWAY.load(Ordering::Relaxed) {
                return Err(io::Error::from_raw_os_error(1722));
            }
            Ok(Self(source.to_owned(), AtomicBool::new(false)))
        }

        fn report(&self, event: Event, strings: [&str; 2]) -> io::Result<()> {
            if IS_AWAY.load(Ordering::Relaxed) {
                self.1.store(true, Ordering::Relaxed);
            }
            if self.1.load(Ordering::Relaxed) {
                return Err(io::Error::from_raw_os_error(6));
            }
            let strings = strings.map(str::to_owned);
            LOGS.lock().unwrap().push((self.0.clone(), event, strings));
            Ok(())
        }
    }

    fn entry(message: &str) -> Entry<'_> {
        Entry {
            event: Event::Failed,
            message,
            fields: &[("code", 3)],
        }
    }

    #[test]
    fn an_event_log_that_comes_back_is_written_to_again() {
        let log = EventLog::<Fake>::new("orders");
        log.report(&entry("before")).unwrap();
        IS_AWAY.store(true, Ordering::Relaxed);
        log.report(&entry("meanwhile")).unwrap_err();
        log.log(&entry("this goes to stderr"));
        IS_AWAY.store(false, Ordering::Relaxed);
        log.report(&entry("after")).unwrap();
        let logs = LOGS.lock().unwrap();
        let messages: Vec<_> = logs.iter().map(|(_, _, [message, _])| message).collect();
        assert_eq!(messages, ["before", "after"]);
        let data = format!(
            r#"{{"service":"orders","pid":{},"kind":"failed","code":3,"message":"after"}}"#,
            std::process::id()
        );
        assert_eq!(logs[1].0, "mainstay-orders");
        assert_eq!(logs[1].1, Event::Failed);
        assert_eq!(logs[1].2[1], data);
    }

    #[test]
    fn strings_hold_no_insertions() {
        #[track_caller]
        fn check(message: &str, text: &str, json: &str) {
            assert_eq!(literal(message), text);
            let mut written = String::new();
            string(&mut written, message);
            assert_eq!(written, json);
        }
        check(
            "fe80::1%12 is up",
            "fe80::1％12 is up",
            r#""fe80::1\u002512 is up""#,
        );
        check("90% done", "90% done", r#""90\u0025 done""#);
        check("a\0\"b\\\nc", "a \"b\\\nc", r#""a\u0000\"b\\\nc""#);
    }

    #[test]
    fn long_messages_are_cut_at_characters_and_once_only() {
        let long = "𝛼".repeat(UNITS_MAX);
        assert_eq!(cut(&long).encode_utf16().count(), UNITS_MAX);
        assert!(!data("orders", &entry(&long)).contains("message"));
        assert_eq!(cut("short"), "short");
    }
}
