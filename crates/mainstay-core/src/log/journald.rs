//! Encoding of lines in the journal's native protocol, one entry per datagram.

use std::io::Write as _;

use super::Line;
use crate::spec::{Facility, ServiceName};

/// Appends the fields of an entry. A message that contains a line feed is written in the
/// binary-safe form.
pub fn entry(line: &Line<'_>, facility: Facility, service: &ServiceName, out: &mut Vec<u8>) {
    field(out, "MESSAGE", line.message);
    let mut number = |name: &str, value: u64| text(out, format_args!("{name}={value}\n"));
    number("PRIORITY", line.severity().into());
    number("SYSLOG_FACILITY", facility.number().into());
    if line.pid != 0 {
        number("SYSLOG_PID", line.pid.into());
    }
    number("MAINSTAY_TIME_NS", line.time_ns);
    number("MAINSTAY_RESTART", line.restart.into());
    if line.partial {
        number("MAINSTAY_PARTIAL", 1);
    }
    text(
        out,
        format_args!("SYSLOG_IDENTIFIER={service}\nMAINSTAY_SERVICE={service}\n"),
    );
    if let Some(stream) = line.stream {
        text(out, format_args!("MAINSTAY_STREAM={}\n", stream.name()));
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn text(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _a_vec_takes_all: std::io::Result<()> = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;
    use crate::spec::Level;

    #[test]
    fn an_entry_has_all_fields() {
        let check = |message: &[u8], expect: &[u8]| {
            let line = Line {
                time_ns: 7,
                level: Some(Level::Error),
                stream: Some(Stream::Stdout),
                pid: 12,
                restart: 3,
                message,
                partial: false,
            };
            let mut out = Vec::new();
            let service = ServiceName::new("orders").unwrap();
            entry(&line, Facility::Daemon, &service, &mut out);
            let rest: &[u8] = b"PRIORITY=3\nSYSLOG_FACILITY=3\nSYSLOG_PID=12\nMAINSTAY_TIME_NS=7\nMAINSTAY_RESTART=3\n\
                SYSLOG_IDENTIFIER=orders\nMAINSTAY_SERVICE=orders\nMAINSTAY_STREAM=stdout\n";
            assert_eq!(out, [expect, rest].concat());
        };
        check(b"hello", b"MESSAGE=hello\n");
        check(b"a\0=\xff", b"MESSAGE=a\0=\xff\n");
        check(b"a\nb", b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
        check(b"", b"MESSAGE=\n");
    }
}
