//! Types of single values: durations, sizes, paths, accounts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::decode::{Decode, FromText, Mistake, wrong_type};
use super::diagnostic::{Code, Findings, Shown};
use super::tree::{Entry, Node, Value};
use super::units::{self, ShowDuration, ShowSize};
use super::words::unknown_word;
use crate::environment::is_private;
use crate::spec::{Account, Argv, Env, Senders};
use crate::suggest::did_you_mean;

/// A duration above zero.
pub(super) struct Time(pub(super) Duration);

/// A duration that may be zero.
pub(super) struct Pause(pub(super) Duration);

fn duration(text: &str) -> Result<Duration, Mistake> {
    units::duration(text).map_err(|error| {
        let message = format!("`{}` is not a duration", Shown(text));
        Mistake::new(Code::Duration, message, &error.to_string())
    })
}

fn duration_schema() -> Json {
    json!({ "type": "string", "pattern": "^(?:[0-9]+(?:d|h|m|s|ms|us))+$" })
}

impl FromText for Time {
    const WHAT: &'static str = "a duration";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let time = duration(text)?;
        if time.is_zero() {
            let help = "write a duration: \"30s\"";
            return Err(Mistake::new(
                Code::Duration,
                "zero is not allowed here",
                help,
            ));
        }
        Ok(Self(time))
    }

    fn text_schema() -> Json {
        duration_schema()
    }

    fn to_text(&self) -> Option<String> {
        Some(ShowDuration(self.0).to_string())
    }

    fn from_integer(integer: i64) -> Option<String> {
        (integer > 0).then(|| format!("write \"{integer}s\""))
    }
}

impl FromText for Pause {
    const WHAT: &'static str = Time::WHAT;

    fn from_text(text: &str) -> Result<Self, Mistake> {
        duration(text).map(Self)
    }

    fn text_schema() -> Json {
        duration_schema()
    }

    fn to_text(&self) -> Option<String> {
        Some(ShowDuration(self.0).to_string())
    }

    fn from_integer(integer: i64) -> Option<String> {
        (integer >= 0).then(|| format!("write \"{integer}s\""))
    }
}

/// A number of bytes above zero.
pub(super) struct Size(pub(super) u64);

impl FromText for Size {
    const WHAT: &'static str = "a size";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let wrong = |help: &str| {
            let message = format!("`{}` is not a size", Shown(text));
            Mistake::new(Code::Size, message, help)
        };
        match units::size(text) {
            Ok(0) => Err(wrong("write a size: \"10MB\"")),
            Ok(bytes) => Ok(Self(bytes)),
            Err(error) => Err(wrong(&error.to_string())),
        }
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+ *(?:[Bb]|[KkMmGgTt][Ii]?[Bb]?)$" })
    }

    fn to_text(&self) -> Option<String> {
        Some(ShowSize(self.0).to_string())
    }

    fn from_integer(integer: i64) -> Option<String> {
        (integer > 0).then(|| format!("write \"{integer}B\""))
    }
}

/// Non-empty text on one line.
pub(super) struct Line(pub(super) String);

impl FromText for Line {
    const WHAT: &'static str = "a string";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        if text.trim().is_empty() || text.contains(char::is_control) {
            let message = "the text is empty, or contains a line break or a tab";
            let help = "write one line without tabs, or omit the key";
            return Err(Mistake::new(Code::Text, message, help));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromText for PathBuf {
    const WHAT: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        if text.is_empty() || text.contains(char::is_control) {
            let help = "write a path, or omit the key";
            return Err(Mistake::new(Code::Text, "this is not a path", help));
        }
        Ok(text.into())
    }
}

/// Returns whether a path is absolute on any system. A manifest may be checked on one system and
/// used on another.
pub(super) fn is_absolute(path: &str) -> bool {
    let drive =
        |b: &[u8]| matches!(b, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    path.starts_with('/') || path.starts_with(r"\\") || drive(path.as_bytes())
}

/// A regular expression of the `regex` crate that matches bytes.
pub(super) struct Pattern(pub(super) String);

impl FromText for Pattern {
    const WHAT: &'static str = "a regular expression";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let mut parser = regex_syntax::ParserBuilder::new().utf8(false).build();
        match parser.parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => {
                let cause = match &error {
                    regex_syntax::Error::Parse(error) => error.kind().to_string(),
                    regex_syntax::Error::Translate(error) => error.kind().to_string(),
                    _ => "invalid syntax".to_owned(),
                };
                let message = format!("this is not a regular expression: {cause}");
                let help = "the syntax is that of docs.rs/regex; in TOML, quote it 'like this'";
                Err(Mistake::new(Code::Regex, message, help))
            }
        }
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "format": "regex" })
    }
}

/// The value `true`, the only value of a switch.
pub(super) struct Yes;

impl Decode for Yes {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match node.value {
            Value::Bool(true) => Some(Self),
            _ => {
                let help = Some("write true, or omit the key");
                wrong_type(node, "true", help, findings)
            }
        }
    }

    fn schema() -> Json {
        json!({ "const": true })
    }
}

/// The processes whose messages on `NOTIFY_SOCKET` are accepted.
pub(super) struct NotifySenders(pub(super) Senders);

impl Decode for NotifySenders {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Bool(true) => Some(Self(Senders::Tree)),
            Value::Text(text) if text == "all" => Some(Self(Senders::All)),
            _ => {
                let help = Some("write true, or \"all\" to accept any process of its account");
                wrong_type(node, "true or \"all\"", help, findings)
            }
        }
    }

    fn schema() -> Json {
        json!({ "enum": [true, "all"] })
    }
}

impl Decode for bool {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => wrong_type(node, "true or false", None, findings),
        }
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }

    fn show(&self) -> Json {
        (*self).into()
    }
}

/// A count of at least one.
pub(super) struct Count(pub(super) u32);

impl Decode for Count {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        integer(node, 1..=1_000_000, "1 to 1000000", findings)
            .and_then(|count| u32::try_from(count).ok().map(Self))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 })
    }

    fn show(&self) -> Json {
        self.0.into()
    }
}

/// An amount of at least one, without an upper limit.
pub(super) struct Amount(pub(super) u64);

impl Decode for Amount {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        if let Value::Text(_) = node.value {
            let help = Some("write a number, or \"unlimited\"");
            return wrong_type(node, "an integer", help, findings);
        }
        integer(node, 1..=i64::MAX, "1, or \"unlimited\"", findings)
            .and_then(|amount| u64::try_from(amount).ok().map(Self))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 1 })
    }

    fn show(&self) -> Json {
        self.0.into()
    }
}

/// A processor number, from 0.
pub(super) struct Cpu(pub(super) u16);

impl Decode for Cpu {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        integer(node, 0..=1023, "0 to 1023", findings)
            .and_then(|cpu| u16::try_from(cpu).ok().map(Self))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": 1023 })
    }

    fn show(&self) -> Json {
        self.0.into()
    }
}

/// The name of a Linux capability.
pub(super) struct Capability(pub(super) String);

impl Capability {
    /// The capabilities of capabilities(7), in the order of their numbers.
    const ALL: [&'static str; 41] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_LINUX_IMMUTABLE",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_BROADCAST",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_IPC_LOCK",
        "CAP_IPC_OWNER",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
        "CAP_MKNOD",
        "CAP_LEASE",
        "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL",
        "CAP_SETFCAP",
        "CAP_MAC_OVERRIDE",
        "CAP_MAC_ADMIN",
        "CAP_SYSLOG",
        "CAP_WAKE_ALARM",
        "CAP_BLOCK_SUSPEND",
        "CAP_AUDIT_READ",
        "CAP_PERFMON",
        "CAP_BPF",
        "CAP_CHECKPOINT_RESTORE",
    ];
}

impl FromText for Capability {
    const WHAT: &'static str = "a capability";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        if Self::ALL.contains(&text) {
            return Ok(Self(text.to_owned()));
        }
        // Container tools omit the prefix.
        let full = text.to_ascii_uppercase();
        let full = if full.starts_with("CAP_") {
            full
        } else {
            format!("CAP_{full}")
        };
        let help = if Self::ALL.contains(&&*full) {
            Some(format!("write \"{full}\""))
        } else {
            did_you_mean(text, Self::ALL)
        };
        let help = help.unwrap_or_else(|| {
            "write one of capabilities(7) in full: \"CAP_NET_BIND_SERVICE\"".to_owned()
        });
        let message = format!("`{}` is not a capability", Shown(text));
        Err(Mistake::new(Code::UnknownValue, message, &help))
    }

    fn text_schema() -> Json {
        json!({ "enum": Self::ALL[..] })
    }
}

/// A TCP port to listen on: neither 0 nor 65535.
pub(super) struct Port(pub(super) u16);

impl Decode for Port {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        integer(node, 1..=65534, "1024 to 65534", findings)
            .and_then(|port| u16::try_from(port).ok().map(Self))
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": 65534 })
    }
}

fn integer(
    node: &Node<'_>,
    range: std::ops::RangeInclusive<i64>,
    advice: &str,
    findings: &mut Findings,
) -> Option<i64> {
    let Value::Integer(integer) = node.value else {
        return wrong_type(node, "an integer", None, findings);
    };
    if !range.contains(&integer) {
        let help = format!("write a number from {advice}");
        let message = format!("{integer} is out of range");
        findings.add(Code::Number, node.span, message, Some(&help));
        return None;
    }
    Some(integer)
}

/// A backoff factor: finite, at least 1.
pub(super) struct Factor(pub(super) f64);

impl Decode for Factor {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let factor = match node.value {
            Value::Float(float) => float,
            // Larger integers make no sense, and a 32-bit integer converts without loss.
            Value::Integer(integer) => i32::try_from(integer).map_or(f64::INFINITY, f64::from),
            _ => return wrong_type(node, "a number", None, findings),
        };
        if !(1.0..=1000.0).contains(&factor) {
            let help = Some("write a number from 1 (constant pause) to 1000");
            let message = "the factor is out of range";
            findings.add(Code::Number, node.span, message, help);
            return None;
        }
        Some(Self(factor))
    }

    fn schema() -> Json {
        json!({ "type": "number", "minimum": 1, "maximum": 1000 })
    }

    fn show(&self) -> Json {
        self.0.into()
    }
}

impl Decode for Argv {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        const EXAMPLE: &str = "write the program and its arguments as a list: \
                               [\"/usr/bin/orders\", \"--port\", \"8080\"]";
        let Value::List(items) = &node.value else {
            return wrong_type(node, "a list of strings", Some(EXAMPLE), findings);
        };
        let mut words = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Text(word) => words.push(word.to_string()),
                _ => wrong_type(item, "a string", Some("put it in quotes"), findings)?,
            }
        }
        let argv = Self::new(words);
        if argv.is_none() {
            let message =
                "this is not a command: the program is missing, or an argument contains a NUL";
            findings.add(Code::Command, node.span, message, Some(EXAMPLE));
        }
        argv
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })
    }
}

impl Decode for Env {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            let help = Some("write { NAME = \"value\" }");
            return wrong_type(node, "a table of strings", help, findings);
        };
        let mut variables = BTreeMap::new();
        for Entry { key, node } in entries {
            if key.value.is_empty() || key.value.contains(['=', '\0']) {
                let message = "this is not a valid variable name";
                let help = Some("a name must not be empty or contain `=` or NUL");
                findings.add(Code::EnvName, key.span, message, help);
            }
            match &node.value {
                Value::Text(value) if !value.contains('\0') => {
                    variables.insert(key.value.to_string(), value.to_string());
                }
                Value::Text(_) => {
                    let message = "the value of a variable cannot contain a NUL";
                    findings.add(Code::Text, node.span, message, None);
                }
                _ => wrong_type(node, "a string", Some("put it in quotes"), findings).unwrap_or(()),
            }
        }
        Some(Self(variables))
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

/// The name of a variable that services can inherit.
pub(super) struct VariableName(pub(super) String);

impl FromText for VariableName {
    const WHAT: &'static str = "the name of a variable";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        if text.is_empty() || text.contains(['=', '\0']) {
            let message = "this is not a valid variable name";
            let help = "a name must not be empty or contain `=` or NUL";
            return Err(Mistake::new(Code::EnvName, message, help));
        }
        if is_private(text) {
            let message = format!("`{}` applies to the supervisor only", Shown(text));
            let help = "remove it: services never inherit it";
            return Err(Mistake::new(Code::EnvName, message, help));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The help for a numeric user ID.
const NAME_OF_USER: &str =
    "write the name of the user, not the number: \"user:NAME\" (`id -nu NUMBER` shows the name)";

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromText for Account {
    const WHAT: &'static str = "an account";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        const WORDS: [&str; 7] = [
            "local-system",
            "local-service",
            "network-service",
            "virtual",
            "dynamic",
            "user:NAME",
            r"gmsa:DOMAIN\NAME$",
        ];
        let name = |name: &str| {
            let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
            (!name.is_empty() && name.chars().all(plain)).then(|| name.to_owned())
        };
        let gmsa = |text: &str| {
            let (domain, account) = text.split_once('\\')?;
            let account = account.strip_suffix('$')?;
            (!account.contains('\\') && name(domain).is_some() && name(account).is_some())
                .then(|| Self::Gmsa(text.to_owned()))
        };
        let account = match (text, text.split_once(':')) {
            ("local-system", _) => Some(Self::LocalSystem),
            ("local-service", _) => Some(Self::LocalService),
            ("network-service", _) => Some(Self::NetworkService),
            ("virtual", _) => Some(Self::Virtual),
            ("dynamic", _) => Some(Self::Dynamic),
            (_, Some(("user", user))) => name(user).map(Self::User),
            (_, Some(("gmsa", account))) => gmsa(account),
            _ => None,
        };
        account.ok_or_else(|| {
            let mistake = unknown_word("an account", text, &WORDS);
            let known = did_you_mean(text, WORDS);
            // Other tools use the bare user name.
            let user = match text {
                "root" | "LocalSystem" | "SYSTEM" => Some("local-system".to_owned()),
                "LocalService" => Some("local-service".to_owned()),
                "NetworkService" => Some("network-service".to_owned()),
                text if known.is_none() => name(text).map(|user| format!("user:{user}")),
                _ => None,
            };
            let help = if is_number(text) {
                Some(NAME_OF_USER.to_owned())
            } else {
                user.map(|user| format!("write \"{user}\""))
            };
            Mistake {
                code: Code::Account,
                help: help.or(mistake.help),
                ..mistake
            }
        })
    }

    fn text_schema() -> Json {
        let words = "local-system|local-service|network-service|virtual|dynamic";
        let pattern = format!(r"^(?:{words}|user:[^\s:]+|gmsa:[^\s:\\]+\\[^\s:\\]+\$)$");
        json!({ "type": "string", "pattern": pattern })
    }

    fn from_integer(_: i64) -> Option<String> {
        Some(NAME_OF_USER.to_owned())
    }
}

/// An entry of `needs` whose name is not resolved yet.
pub(super) struct NeedName(pub(super) String);

impl FromText for NeedName {
    const WHAT: &'static str = "the name of a service";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        Ok(Self(text.to_owned()))
    }
}

/// A name that at least one service manager accepts. Windows has the widest limits
/// ("CreateServiceW"). Whether a Unix service manager accepts the name is checked when it is used
/// there.
pub(super) struct ManagerName(pub(super) String);

impl FromText for ManagerName {
    const WHAT: &'static str = "the name of a service";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        const LONGEST: usize = 256;
        let is_good = (1..=LONGEST).contains(&text.encode_utf16().count())
            && !text.contains(|char: char| char.is_control() || matches!(char, '/' | '\\'))
            && text.trim() == text;
        if is_good {
            return Ok(Self(text.to_owned()));
        }
        let message = "no service manager accepts this name";
        let help = "a name has 1 to 256 characters, contains neither / nor \\, and neither starts \
                    nor ends with a space";
        Err(Mistake::new(Code::ServiceName, message, help))
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": 256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_on_any_system() {
        for path in ["/var", r"C:\x", "c:/x", r"\\server\share"] {
            assert!(is_absolute(path), "{path}");
        }
        for path in ["", "var", "C:x", "./x", r"\x"] {
            assert!(!is_absolute(path), "{path}");
        }
    }
}
