//! Types of values that are single words.

use serde_json::{Value as Json, json};

use super::decode::{FromText, Mistake};
use super::diagnostic::{Code, Shown};
use super::foreign;
use crate::spec::redact::RedactWith;
use crate::spec::{
    BeyondLimit, CodeAction, Compress, Encoding, Environment, Every, Facility, Level, LogFormat,
    Owner, Policy, Priority, Signal, SnapshotWhen, StopAsk, StopScope, Streams, Zone,
};
use crate::suggest::{did_you_mean, one_of_these};

/// Declares the words for the variants of an enum.
macro_rules! words {
    ($($Enum:ident $what:literal { $($word:literal => $Variant:ident,)* })*) => {$(
        impl FromText for $Enum {
            const WHAT: &'static str = $what;

            fn from_text(text: &str) -> Result<Self, Mistake> {
                match text {
                    $($word => Ok(Self::$Variant),)*
                    _ => Err(unknown_word($what, text, &[$($word),*])),
                }
            }

            fn text_schema() -> Json {
                json!({ "enum": [$($word),*] })
            }

            fn to_text(&self) -> Option<String> {
                let word = match self { $(Self::$Variant => $word,)* };
                Some(word.to_owned())
            }
        }
    )*};
}

words! {
    Environment "an environment" {
        "production" => Production, "staging" => Staging, "development" => Development,
    }
    BeyondLimit "a reaction to the limit" { "alert" => Alert, "halt" => Halt, }
    Policy "a recovery policy" { "restart" => Restart, "strict" => Strict, "never" => Never, }
    CodeAction "an action" {
        "stop" => Stop, "restart" => Restart, "retry" => Retry, "restore" => Restore,
        "halt" => Halt,
    }
    Priority "a priority" {
        "low" => Low, "below-normal" => BelowNormal, "normal" => Normal,
        "above-normal" => AboveNormal, "high" => High,
    }
    StopScope "a stop scope" { "tree" => Tree, "main" => Main, }
    Owner "an owner" { "service" => Service, "any" => Any, }
    SnapshotWhen "a snapshot trigger" { "healthy" => Healthy, "manual" => Manual, }
    Level "a log level" {
        "trace" => Trace, "debug" => Debug, "info" => Info, "warn" => Warn, "error" => Error,
    }
    Every "a period" { "hourly" => Hourly, "daily" => Daily, }
    Zone "a time zone setting" { "utc" => Utc, "local" => Local, }
    Compress "a compression" { "none" => None, "zstd" => Zstd, "gzip" => Gzip, }
    LogFormat "a log format" { "raw" => Raw, "text" => Text, "json" => Json, }
    Encoding "an encoding" {
        "utf-8" => Utf8, "utf-16le" => Utf16Le, "oem" => Oem, "iso-8859-1" => Latin1,
        "cp437" => Cp437, "cp850" => Cp850, "cp852" => Cp852, "cp858" => Cp858, "cp866" => Cp866,
        "cp1250" => Cp1250, "cp1251" => Cp1251, "cp1252" => Cp1252, "cp1253" => Cp1253,
        "cp1254" => Cp1254, "cp1257" => Cp1257,
    }
    Streams "a stream mode" { "merged" => Merged, "split" => Split, }
    RedactWith "a replacement for redacted data" { "label" => Label, "hash" => Hash, }
    Facility "a syslog facility" {
        "user" => User, "mail" => Mail, "daemon" => Daemon, "auth" => Auth, "lpr" => Lpr,
        "news" => News, "uucp" => Uucp, "cron" => Cron, "authpriv" => Authpriv, "ftp" => Ftp,
        "local0" => Local0, "local1" => Local1, "local2" => Local2, "local3" => Local3,
        "local4" => Local4, "local5" => Local5, "local6" => Local6, "local7" => Local7,
    }
    StrategyName "a strategy" { "fixed" => Fixed, "backoff" => Backoff, "probe" => Probe, }
}

/// The polling strategy of `wait_for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StrategyName {
    Fixed,
    Backoff,
    Probe,
}

pub(super) fn unknown_word(what: &str, text: &str, words: &[&str]) -> Mistake {
    let help = foreign::value(what, text);
    let help = help.or_else(|| did_you_mean(text, words.iter().copied()));
    Mistake {
        code: Code::UnknownValue,
        message: format!("`{}` is not {what}", Shown(text)),
        help: Some(help.unwrap_or_else(|| one_of_these(words))),
    }
}

impl FromText for Signal {
    const WHAT: &'static str = "a signal name";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let signal = Self::ALL.into_iter().find(|signal| signal.name() == name);
        signal.ok_or_else(|| unknown_word("a supported signal", text, &Self::ALL.map(Self::name)))
    }

    fn text_schema() -> Json {
        let names = Self::ALL.map(Self::name).join("|");
        json!({ "type": "string", "pattern": format!("^(?:[Ss][Ii][Gg])?(?:{names}|{})$", names.to_lowercase()) })
    }

    fn to_text(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}

impl FromText for StopAsk {
    const WHAT: &'static str = "a stop request";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        match text {
            "close" => Ok(Self::Close),
            "ctrl-c" => Ok(Self::Signal(Signal::Int)),
            _ => Signal::from_text(text).map(Self::Signal).map_err(|_| {
                let words = [&["ctrl-c", "close"], &Signal::ALL.map(Signal::name)[..]].concat();
                unknown_word("a stop request", text, &words)
            }),
        }
    }

    fn text_schema() -> Json {
        json!({ "anyOf": [{ "enum": ["ctrl-c", "close"] }, Signal::text_schema()] })
    }

    fn to_text(&self) -> Option<String> {
        match self {
            Self::Signal(signal) => signal.to_text(),
            Self::Close => Some("close".to_owned()),
        }
    }
}
