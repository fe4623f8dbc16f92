//! The rules for logs.

use super::{Resolver, span, value};
use crate::manifest::addresses::Target;
use crate::manifest::decode::{OrNone, OrTable};
use crate::manifest::diagnostic::Code;
use crate::manifest::tables::{
    KEEP_FILES, KeepTable, LogTable, RedactEntry, RotateTable, SinkTable,
};
use crate::manifest::tree::Spanned;
use crate::manifest::values::{Count, Size, Time};
use crate::spec::redact::{RedactWith, Redaction, Refused};
use crate::spec::{
    Encoding, Environment, Facility, Level, LogFormat, LogPolicy, Retention, Rotation, ServiceName,
    SinkSpec, SinkTarget, Tls, Zone,
};

/// The default spool size of a sink.
pub(in crate::manifest) const USUAL_SPOOL: u64 = 64_000_000;

impl Resolver<'_> {
    pub(super) fn log(&mut self, typed: LogTable, name: &ServiceName) -> LogPolicy {
        let (allowed, word, help) = match self.environment {
            Environment::Production => (
                Level::Warn,
                "production",
                "write \"warn\" or \"error\", or set environment = \"staging\" (allows \"info\") \
                 or \"development\" (allows all) at the top of the file",
            ),
            Environment::Staging => (
                Level::Info,
                "staging",
                "write \"info\", \"warn\" or \"error\", or set environment = \"development\" \
                 (allows all) at the top of the file",
            ),
            Environment::Development => (Level::Trace, "development", ""),
        };
        if typed.level.value < allowed {
            let message = format!(
                "this level is too verbose for {word}: debugging output fills disks and may \
                 contain personal data; the program receives the level in MAINSTAY_LOG_LEVEL"
            );
            self.findings
                .add(Code::LogTooVerbose, typed.level.span, message, Some(help));
        }
        let reads_lines = typed.filter.value || typed.redact.is_some();
        if typed.encoding.value != Encoding::Utf8
            && typed.format.value == LogFormat::Raw
            && reads_lines
        {
            let message = "`filter` and `redact` cannot read this encoding in the raw format, \
                           which keeps the bytes of the program";
            let help = Some("add format = \"text\" or format = \"json\"");
            self.findings
                .add(Code::Conflict, typed.encoding.span, message, help);
        }
        LogPolicy {
            level: typed.level.value,
            rotate: self.rotation(typed.rotate.value),
            keep: retention(typed.keep.value),
            compress: typed.compress.value,
            format: typed.format.value,
            encoding: typed.encoding.value,
            streams: typed.streams.value,
            filter: typed.filter.value,
            redact: self.redact(typed.redact, typed.redact_with.value),
            sinks: typed
                .sinks
                .map_or_else(Vec::new, |sinks| self.sinks(sinks.value, name)),
        }
    }

    fn rotation(&mut self, typed: OrNone<OrTable<Size, RotateTable>>) -> Rotation {
        let table = match typed.0 {
            None => return Rotation::default(),
            Some(OrTable::Single(Size(size))) => {
                return Rotation {
                    size: Some(size),
                    ..Rotation::default()
                };
            }
            Some(OrTable::Table(table)) => table,
        };
        if let (None, Some(zone), true) = (&table.every, &table.zone, table.sound) {
            let message = "`zone` requires `every`";
            let help = Some("add every = \"daily\", or remove it");
            self.findings.add(Code::Conflict, zone.span, message, help);
        }
        let zone = value(table.zone).unwrap_or(Zone::Utc);
        Rotation {
            size: table.size.value.0.map(|Size(size)| size),
            every: value(table.every).map(|every| (every, zone)),
            at_start: table.at_start.is_some(),
        }
    }

    fn redact(
        &mut self,
        typed: Option<Spanned<Vec<Spanned<RedactEntry>>>>,
        with: RedactWith,
    ) -> Redaction {
        let mut redaction = Redaction::new(with);
        for Spanned { value, span } in value(typed).unwrap_or_default() {
            let added = match value {
                RedactEntry::Class(class) => redaction.add_class(class),
                RedactEntry::Field(path) => redaction.add_field(path),
                RedactEntry::Pattern(pattern) => redaction.add_pattern(pattern),
            };
            match added {
                Ok(()) => {}
                Err(Refused::Twice) => {
                    let help = Some("keep one of them");
                    let message = "duplicate entry";
                    self.findings.add(Code::Conflict, span, message, help);
                }
                Err(Refused::TooMany) => {
                    let message = "too many fields";
                    let help = Some("write at most 64");
                    self.findings.add(Code::Number, span, message, help);
                }
            }
        }
        redaction
    }

    /// Checks that each target occurs only once per service, and has the same settings in all
    /// services, because they share a connection.
    fn sinks(
        &mut self,
        typed: Vec<Spanned<Target<SinkTable>>>,
        name: &ServiceName,
    ) -> Vec<SinkSpec> {
        let mut sinks: Vec<SinkSpec> = Vec::with_capacity(typed.len());
        for Spanned { value, span } in typed {
            let sink = match value {
                Target::Table(table) => self.sink(table),
                Target::Plain(target) => Some(SinkSpec {
                    target,
                    facility: Facility::Daemon,
                    ca: None,
                    identity: None,
                    spool: USUAL_SPOOL,
                }),
            };
            let Some(sink) = sink else { continue };
            if sinks.iter().any(|other| other.target == sink.target) {
                let help = Some("keep one of them");
                let message = "duplicate sink";
                self.findings.add(Code::Conflict, span, message, help);
                continue;
            }
            let first = self.sinks.entry(sink.target.clone());
            let (first, other) = first.or_insert_with(|| (sink.clone(), name.clone()));
            if !first.connects_like(&sink) {
                let message = format!("the service `{other}` configures this sink differently");
                let help = "services share the connection of a sink: use the same `ca`, `cert`, \
                            `key` and `spool`";
                self.findings.add(Code::Conflict, span, message, Some(help));
            }
            sinks.push(sink);
        }
        sinks
    }

    fn sink(&mut self, typed: SinkTable) -> Option<SinkSpec> {
        let target = typed.to?.value;
        let is_tls = matches!(target, SinkTarget::Tls(_));
        let given = [
            ("ca", span(&typed.ca), is_tls, "only syslog+tls:// uses it"),
            (
                "cert",
                span(&typed.cert),
                is_tls,
                "only syslog+tls:// uses it",
            ),
            (
                "key",
                span(&typed.key),
                is_tls,
                "only syslog+tls:// uses it",
            ),
            (
                "spool",
                span(&typed.spool),
                target.is_remote(),
                "only network targets use it",
            ),
        ];
        for (key, span, fits, help) in given {
            if let Some(span) = span.filter(|_| !fits) {
                let message = format!("`{key}` cannot be used with `{target}`");
                let help = format!("remove it: {help}");
                self.findings
                    .add(Code::Conflict, span, message, Some(&help));
            }
        }
        if let (Some(at), None) | (None, Some(at)) = (span(&typed.cert), span(&typed.key)) {
            let message = "`cert` and `key` require each other";
            let help = Some("set both, or neither");
            self.findings.add(Code::Conflict, at, message, help);
        }
        let spool = typed.spool.as_ref();
        if let Some(spool) = spool.filter(|spool| spool.value.0 < SinkSpec::LEAST_SPOOL) {
            let message = "the spool is too small";
            let help = Some("write at least \"1MB\"");
            self.findings.add(Code::Size, spool.span, message, help);
        }
        Some(SinkSpec {
            target,
            facility: typed.facility.value,
            ca: value(typed.ca),
            identity: value(typed.cert)
                .zip(value(typed.key))
                .map(|(cert_path, key_path)| Tls {
                    cert_path,
                    key_path,
                }),
            spool: typed.spool.map_or(USUAL_SPOOL, |size| size.value.0),
        })
    }
}

fn retention(typed: OrTable<Count, KeepTable>) -> Retention {
    let Count(usual) = KEEP_FILES;
    let keep = match typed {
        OrTable::Single(Count(files)) => {
            return Retention {
                files: Some(files),
                ..Retention::default()
            };
        }
        OrTable::Table(table) => Retention {
            files: value(table.files).map(|Count(files)| files),
            size: value(table.size).map(|Size(size)| size),
            age: value(table.age).map(|Time(age)| age),
        },
    };
    if keep == Retention::default() {
        Retention {
            files: Some(usual),
            ..keep
        }
    } else {
        keep
    }
}
