//! Encoding of lines for syslog: RFC 5424 for remote hosts, and the format of syslog(3) for a local
//! daemon.

use std::io::Write as _;

use super::Line;
use crate::spec::{Facility, ServiceName};
use crate::time::civil;

/// The maximum size of a UDP datagram in bytes, which receivers accept by default (RFC 5426
/// recommends 2048 and allows more).
pub const UDP_MAX: usize = 8192;

/// The maximum length of APP-NAME. A longer service name is truncated, and included in full in the
/// structured data.
const APP_NAME_MAX: usize = 48;

/// Appends `line` in the format of RFC 5424, with at most `max` bytes. `max` must have room for the
/// header of about 250 bytes. The structured data states the number of bytes cut from the message.
///
/// The message is copied byte for byte. No byte order mark precedes UTF-8 (which makes it MSG-ANY),
/// because receivers display it.
pub fn rfc5424(
    line: &Line<'_>,
    facility: Facility,
    host: &str,
    service: &ServiceName,
    max: usize,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let priority = facility.number() * 8 + line.severity();
    let seconds = line.time_ns / 1_000_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = line.time_ns / 1000 % 1_000_000;
    let name = service.as_str();
    let app = name.get(..APP_NAME_MAX).unwrap_or(name);
    put(
        out,
        format_args!(
            "<{priority}>1 {year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z {host} {app} "
        ),
    );
    match line.pid {
        0 => put(out, format_args!("- - [mainstay@32473")),
        pid => put(out, format_args!("{pid} - [mainstay@32473")),
    }
    // None of these values contains a quote, a backslash or a bracket, which would have to be
    // escaped.
    if let Some(stream) = line.stream {
        put(out, format_args!(" stream=\"{}\"", stream.name()));
    }
    put(out, format_args!(" restart=\"{}\"", line.restart));
    if app.len() < name.len() {
        put(out, format_args!(" service=\"{name}\""));
    }
    if line.partial {
        put(out, format_args!(" partial=\"1\""));
    }
    let room = max.saturating_sub(out.len() - start + "] ".len());
    let message = if line.message.len() <= room {
        line.message
    } else {
        let room = room.saturating_sub(" cut=\"\"".len() + 20);
        let kept = whole_characters(line.message, room);
        put(
            out,
            format_args!(" cut=\"{}\"", line.message.len() - kept.len()),
        );
        kept
    };
    out.extend_from_slice(b"] ");
    out.extend_from_slice(message);
}

/// Appends `line` in the format in which syslog(3) writes it to a local daemon, which adds the time
/// itself. The message is cut to at most `max` bytes, and each NUL, which would end it, is replaced
/// with a space.
pub fn local(
    line: &Line<'_>,
    facility: Facility,
    service: &ServiceName,
    max: usize,
    out: &mut Vec<u8>,
) {
    let priority = facility.number() * 8 + line.severity();
    match line.pid {
        0 => put(out, format_args!("<{priority}>{service}: ")),
        pid => put(out, format_args!("<{priority}>{service}[{pid}]: ")),
    }
    let message = whole_characters(line.message, max);
    out.extend(message.iter().map(|b| if *b == 0 { b' ' } else { *b }));
}

/// Returns a host name that is valid in a header; `-` if there is none.
pub fn host_name(name: &str) -> String {
    let mut host: String = name.chars().filter(char::is_ascii_graphic).collect();
    host.truncate(255);
    if host.is_empty() {
        host.push('-');
    }
    host
}

/// Returns at most the first `max` bytes, without a truncated character at the end.
fn whole_characters(bytes: &[u8], max: usize) -> &[u8] {
    let Some(&next) = bytes.get(max) else {
        return bytes;
    };
    let mut end = max;
    let continues = |byte: u8| byte & 0xC0 == 0x80;
    if continues(next) {
        let start = bytes[..max].iter().rposition(|byte| !continues(*byte));
        // Bytes without a start within the length of a character are not UTF-8: cut anywhere.
        end = start.filter(|start| max - start < 4).unwrap_or(max);
    }
    &bytes[..end]
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _a_vec_takes_all: std::io::Result<()> = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;
    use crate::spec::Level;

    const LINE: Line<'static> = Line {
        time_ns: 1_795_342_272_123_456_789,
        level: Some(Level::Warn),
        stream: Some(Stream::Stderr),
        pid: 4711,
        restart: 3,
        message: b"disk is nearly full",
        partial: false,
    };

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn shown(line: &Line<'_>, service: &str, max: usize) -> Vec<u8> {
        let mut out = b"before".to_vec();
        rfc5424(
            line,
            Facility::Daemon,
            "host",
            &name(service),
            max,
            &mut out,
        );
        out.split_off(6)
    }

    #[test]
    fn a_line_has_all_fields() {
        let check = |line: Line<'_>, service: &str, expect: &str| {
            let text = shown(&line, service, usize::MAX);
            assert_eq!(String::from_utf8_lossy(&text), expect);
        };
        check(
            LINE,
            "orders",
            "<28>1 2026-11-22T10:11:12.123456Z host orders 4711 - [mainstay@32473 stream=\"stderr\" restart=\"3\"] disk is nearly full",
        );
        let bare = Line {
            time_ns: 0,
            level: None,
            stream: None,
            pid: 0,
            restart: 0,
            message: b"",
            partial: true,
        };
        check(
            bare,
            "orders",
            "<30>1 1970-01-01T00:00:00.000000Z host orders - - [mainstay@32473 restart=\"0\" partial=\"1\"] ",
        );
        let long = "a".repeat(63);
        let cut = "a".repeat(48);
        check(
            bare,
            &long,
            &format!(
                "<30>1 1970-01-01T00:00:00.000000Z host {cut} - - [mainstay@32473 restart=\"0\" service=\"{long}\" partial=\"1\"] "
            ),
        );
    }

    #[test]
    fn severities_are_those_of_syslog() {
        let levels = [
            Level::Error,
            Level::Warn,
            Level::Info,
            Level::Debug,
            Level::Trace,
        ];
        let numbers = levels.map(|level| {
            let level = Some(level);
            Line { level, ..LINE }.severity()
        });
        assert_eq!(numbers, [3, 4, 6, 7, 7]);
        assert_eq!(
            Line {
                level: None,
                ..LINE
            }
            .severity(),
            6
        );
    }

    #[test]
    fn bytes_stay_as_they_are() {
        let message: Vec<u8> = (0..=255).collect();
        let line = Line {
            message: &message,
            ..LINE
        };
        assert!(shown(&line, "a", usize::MAX).ends_with(&message));
    }

    #[test]
    fn a_long_line_is_cut_at_a_character_and_says_so() {
        let message = "ü".repeat(8000);
        for max in 8180..8200 {
            let line = Line {
                message: message.as_bytes(),
                ..LINE
            };
            let text = String::from_utf8(shown(&line, "orders", max)).unwrap();
            assert!(text.len() <= max && text.len() + 32 > max, "{}", text.len());
            let (head, kept) = text.split_once("] ").unwrap();
            let cut = head.rsplit_once("cut=\"").unwrap().1.trim_end_matches('"');
            assert_eq!(cut.parse::<usize>().unwrap() + kept.len(), message.len());
        }
        let binary = vec![0x80; 9000];
        let line = Line {
            message: &binary,
            ..LINE
        };
        assert!(shown(&line, "orders", 8192).len() <= 8192);
    }

    #[test]
    fn a_local_line_is_what_syslog_writes() {
        let check = |line: Line<'_>, max, expect: &str| {
            let mut out = Vec::new();
            local(&line, Facility::Local0, &name("orders"), max, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect);
        };
        check(LINE, 4096, "<132>orders[4711]: disk is nearly full");
        check(
            Line {
                pid: 0,
                message: b"a\0b",
                ..LINE
            },
            4096,
            "<132>orders: a b",
        );
        check(
            Line {
                message: "aü".as_bytes(),
                ..LINE
            },
            2,
            "<132>orders[4711]: a",
        );
    }

    #[test]
    fn a_host_name_is_printable_and_bounded() {
        assert_eq!(host_name("db 1\u{e9}\n"), "db1");
        assert_eq!(host_name(""), "-");
        assert_eq!(host_name(&"a".repeat(999)).len(), 255);
    }
}
