//! Recognition of the level of a line, in the formats of common loggers.
//!
//! A line consists of a head (a time, names in brackets, `key=value`) and a message. Levels are
//! recognized only in the head, so words in a message are not mistaken for levels. The head ends at
//! the first word that has none of the known forms.

use crate::spec::Level;

/// The number of bytes of a line that are inspected.
const HEAD: usize = 200;
/// The length in bytes of the longest word for a level.
const WORD: usize = 13;
/// The maximum length of the name of a logger, host or thread.
const NAME: usize = 100;

/// Returns the level stated in `line`.
pub(super) fn level_of(line: &[u8]) -> Option<Level> {
    let head = &line[..line.len().min(HEAD)];
    if memchr::memchr(0x1b, head).is_none() {
        return level_of_plain(head);
    }
    let mut plain = [0; HEAD];
    let mut len = 0;
    let mut rest = head;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == 0x1b && tail.first() == Some(&b'[') {
            let end = tail.iter().position(u8::is_ascii_alphabetic);
            rest = tail
                .get(end.map_or(tail.len(), |end| end + 1)..)
                .unwrap_or_default();
        } else {
            plain[len] = byte;
            len += 1;
            rest = tail;
        }
    }
    level_of_plain(&plain[..len])
}

fn level_of_plain(head: &[u8]) -> Option<Level> {
    let head = head.trim_ascii_start();
    match head {
        [b'{', ..] => json(head),
        [b'<', rest @ ..] => angle(rest),
        [letter, rest @ ..] => glog(*letter, rest)
            .or_else(|| ruby(*letter, rest))
            .or_else(|| tokens(head)),
        [] => None,
    }
}

/// Parses `<3>text` and `<info> text`.
fn angle(rest: &[u8]) -> Option<Level> {
    let end = rest.iter().take(12).position(|b| *b == b'>')?;
    let (inside, rest) = (&rest[..end], &rest[end + 1..]);
    if inside.is_empty() || !inside.iter().all(u8::is_ascii_digit) {
        return word(inside);
    }
    let priority = number(inside).filter(|n| *n < 192 && inside.len() <= 3)?;
    // A level from the program itself is more precise than the priority of the transport.
    tokens(rest.trim_ascii_start()).or(Some(match priority % 8 {
        0..=3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        _ => Level::Debug,
    }))
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses `I1122 10:11:12.123456`.
fn glog(letter: u8, rest: &[u8]) -> Option<Level> {
    let dated = rest.first_chunk::<5>()?;
    (dated[..4].iter().all(u8::is_ascii_digit) && dated[4] == b' ').then_some(())?;
    initial(letter)
}

/// Parses `I, [2026-11-22T10:11:12.123456 #123]`.
fn ruby(letter: u8, rest: &[u8]) -> Option<Level> {
    rest.starts_with(b", [").then_some(())?;
    initial(letter)
}

fn initial(letter: u8) -> Option<Level> {
    match letter {
        b'D' | b'V' => Some(Level::Debug),
        b'I' => Some(Level::Info),
        b'W' => Some(Level::Warn),
        b'E' | b'F' | b'C' => Some(Level::Error),
        _ => None,
    }
}

/// Parses a word that names a level, ignoring case.
fn word(text: &[u8]) -> Option<Level> {
    let mut lower = [0; WORD];
    let lower = lower.get_mut(..text.len())?;
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    match &*lower {
        b"trace" | b"trc" | b"trce" | b"trac" | b"verbose" | b"verb" | b"finest" | b"finer"
        | b"silly" => Some(Level::Trace),
        b"debug" | b"dbg" | b"dbug" | b"debu" | b"fine" => Some(Level::Debug),
        b"info" | b"inf" | b"information" | b"informational" | b"notice" | b"note" | b"log" => {
            Some(Level::Info)
        }
        b"warn" | b"warning" | b"wrn" => Some(Level::Warn),
        b"error" | b"err" | b"erro" | b"eror" | b"fail" | b"fatal" | b"ftl" | b"fata"
        | b"critical" | b"crit" | b"severe" | b"panic" | b"pani" | b"alert" | b"emerg"
        | b"emergency" => Some(Level::Error),
        _ => None,
    }
}

/// Returns the leading letters of `text`, up to one more than the longest [`word`] has.
fn letters(text: &[u8]) -> &[u8] {
    let text = &text[..text.len().min(WORD + 1)];
    let len = text.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    &text[..len]
}

/// Returns whether a token is part of a time: digits and their separators, a month, a day, a time
/// zone.
fn is_time(token: &[u8]) -> bool {
    const WORDS: [&[u8]; 25] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun", b"UTC", b"GMT", b"CET",
        b"CEST", b"AM", b"PM",
    ];
    let part = |b: &u8| b.is_ascii_digit() || b":.,+-/TZ#".contains(b);
    let plain = token.strip_suffix(b",").unwrap_or(token);
    token.iter().all(part) && token.iter().any(u8::is_ascii_digit) || WORDS.contains(&plain)
}

/// Parses tokens as long as they belong to the head.
fn tokens(head: &[u8]) -> Option<Level> {
    const MOST: usize = 16;
    let mut rest = head;
    // After a time, a name may follow. After a name, only a level may follow.
    let (mut timed, mut named, mut dashed) = (false, false, false);
    for _ in 0..MOST {
        rest = rest.trim_ascii_start();
        let (&first, _) = rest.split_first()?;
        if let Some((inside, after)) = bracketed(first, rest) {
            if let Some(level) = in_brackets(inside) {
                return Some(level);
            }
            rest = after;
            timed |= inside.first().is_some_and(u8::is_ascii_digit);
            continue;
        }
        let len = memchr::memchr3(b' ', b'\t', b'\r', rest);
        let (token, after) = rest.split_at(len.unwrap_or(rest.len()));
        if let Some(level) = leading(token, after, timed) {
            return Some(level);
        }
        if is_time(token) {
            timed = true;
        } else if token == b"-" || token == b"|" || token == b"---" || token == b"--" {
            dashed = true;
            rest = after;
            continue;
        } else if let Some(level) = redis(token, after) {
            return Some(level);
        } else if let Some((key, value)) = key_value(token) {
            if is_key(key) {
                return word(letters(value));
            }
            rest = after_value(value, rest, token.len());
            continue;
        } else if !timed || named || !(dashed || is_name(token)) {
            return None;
        } else {
            named = true;
        }
        dashed = false;
        rest = after;
    }
    None
}

/// Splits `[…]` or `(…)` from the text that follows.
fn bracketed(first: u8, rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let close = match first {
        b'[' => b']',
        b'(' => b')',
        _ => return None,
    };
    let end = memchr::memchr(close, rest)?;
    Some((&rest[1..end], &rest[end + 1..]))
}

/// Parses `INFO`, ` info `, `core:error`, `2026-11-22T10:11:12Z INFO app`, `2026-11-22
/// 10:11:12,123: INFO/Main`.
fn in_brackets(inside: &[u8]) -> Option<Level> {
    let inside = inside.trim_ascii();
    let last = inside.rsplit(|b| *b == b':').next().unwrap_or_default();
    if let Some(level) = word(inside).or_else(|| word(last)) {
        return Some(level);
    }
    if !inside.first()?.is_ascii_digit() {
        return None;
    }
    let mut tokens = inside
        .split(u8::is_ascii_whitespace)
        .filter(|token| !token.is_empty());
    let token = tokens.find(|token| !is_time(token))?;
    upper(letters(token))
}

fn upper(text: &[u8]) -> Option<Level> {
    word(text).filter(|_| text.iter().all(u8::is_ascii_uppercase))
}

/// Parses a token that starts with a level: `INFO`, `INFO:root:`, `INFO[0000]`, `warn:`, and after
/// a time `info<TAB>`.
fn leading(token: &[u8], after: &[u8], timed: bool) -> Option<Level> {
    let name = letters(token);
    let level = word(name)?;
    let capital = name.iter().all(u8::is_ascii_uppercase);
    match &token[name.len()..] {
        [] => (capital || timed && after.first() == Some(&b'\t')).then_some(level),
        [b':', next, ..] => (capital || !timed && *next != b':' && *next != b'/').then_some(level),
        [b':'] => Some(level),
        [b'[' | b'|' | b',' | b']' | b'-' | b'/' | b'(', ..] => capital.then_some(level),
        _ => None,
    }
}

/// Parses `123:M 22 Nov 2026 10:11:12.123 # text`.
fn redis(token: &[u8], after: &[u8]) -> Option<Level> {
    let [pid @ .., b':', b'M' | b'S' | b'C' | b'X'] = token else {
        return None;
    };
    (!pid.is_empty() && pid.iter().all(u8::is_ascii_digit)).then_some(())?;
    let mut tokens = after
        .split(|b| *b == b' ')
        .filter(|token| !token.is_empty());
    match tokens.find(|token| !is_time(token))? {
        b"#" => Some(Level::Warn),
        b"*" => Some(Level::Info),
        b"-" | b"." => Some(Level::Debug),
        _ => None,
    }
}

/// Returns whether a token is the name of a logger, host or thread: it contains a dot or a colon,
/// and does not end a sentence.
fn is_name(token: &[u8]) -> bool {
    let part = |b: &u8| b.is_ascii_alphanumeric() || b"._-:$/#".contains(b);
    let inner = token.len() <= NAME && memchr::memchr3(b'.', b':', b'$', token).is_some();
    inner && token.iter().all(part) && token.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn is_key(key: &[u8]) -> bool {
    const KEYS: [&[u8]; 6] = [
        b"level",
        b"lvl",
        b"severity",
        b"loglevel",
        b"log.level",
        b"levelname",
    ];
    KEYS.iter().any(|known| key.eq_ignore_ascii_case(known))
}

/// Splits `key=value` or `key="value`.
fn key_value(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = memchr::memchr(b'=', token)?;
    let (key, value) = (&token[..equals], &token[equals + 1..]);
    let part = |b: &u8| b.is_ascii_alphanumeric() || b"_.-@".contains(b);
    (!key.is_empty() && key.iter().all(part))
        .then_some((key, value.strip_prefix(b"\"").unwrap_or(value)))
}

/// Returns the text after a value, which may be quoted and contain spaces.
fn after_value<'a>(value: &[u8], rest: &'a [u8], token: usize) -> &'a [u8] {
    let start = token - value.len();
    if rest.get(start.wrapping_sub(1)) != Some(&b'"') {
        return &rest[token..];
    }
    let mut escaped = false;
    let close = rest[start..].iter().position(|b| {
        let closes = *b == b'"' && !escaped;
        escaped = *b == b'\\' && !escaped;
        closes
    });
    close.map_or(&[], |close| &rest[start + close + 1..])
}

/// Returns the level of a JSON object from its top-level keys, including the numbers of bunyan and
/// pino.
fn json(head: &[u8]) -> Option<Level> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = head.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let text = string(&head[at..])?;
                at += text.len() + 1;
                let rest = head[at..].trim_ascii_start();
                let Some(rest) = rest.strip_prefix(b":").filter(|_| depth == 1) else {
                    continue;
                };
                let value = rest.trim_ascii_start();
                let severe = text == b"s";
                if !severe && !is_key(text.strip_prefix(b"@").unwrap_or(text)) {
                    continue;
                }
                let found = match value {
                    [b'"', value @ ..] if severe => match string(value)? {
                        [letter] | [letter, _] => initial(*letter),
                        _ => None,
                    },
                    [b'"', value @ ..] => word(string(value)?),
                    _ => numeric(value),
                };
                if found.is_some() {
                    return found;
                }
            }
            _ => {}
        }
    }
    None
}

/// Returns the text up to the closing quote.
fn string(text: &[u8]) -> Option<&[u8]> {
    let mut escaped = false;
    let close = text.iter().position(|b| {
        let closes = *b == b'"' && !escaped;
        escaped = *b == b'\\' && !escaped;
        closes
    });
    text.get(..close?)
}

fn numeric(value: &[u8]) -> Option<Level> {
    let len = value.iter().take_while(|b| b.is_ascii_digit()).count();
    match number(&value[..len])? {
        10..=19 => Some(Level::Trace),
        20..=29 => Some(Level::Debug),
        30..=39 => Some(Level::Info),
        40..=49 => Some(Level::Warn),
        50..=60 => Some(Level::Error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_recognised_where_loggers_write_them() {
        use Level::{Debug, Error, Info, Trace, Warn};
        let check = |level: Option<Level>, lines: &[&str]| {
            for line in lines {
                assert_eq!(level_of(line.as_bytes()), level, "{line:?}");
            }
        };
        check(
            Some(Trace),
            &[
                "TRACE entering",
                "[TRACE] x",
                "level=trace msg=x",
                r#"{"level":10,"msg":"x"}"#,
                "trce: App[0]",
                "2026-11-22T10:11:12Z TRC x",
                "FINEST: x",
            ],
        );
        check(
            Some(Debug),
            &[
                "DEBUG:asyncio:Using selector: EpollSelector",
                "<7>x",
                "D1122 10:11:12.123456 1 a.go:1] x",
                r#"{"level":20}"#,
                "D, [2026-11-22T10:11:12.1 #9] DEBUG -- : x",
                "dbug: App[0]",
                "1:M 22 Nov 2026 10:11:12.123 - 0 clients connected",
                "[2026-11-22T10:11:12Z DEBUG hyper::proto] x",
            ],
        );
        check(
            Some(Info),
            &[
                "INFO started",
                "INFO: started",
                "[INFO] started",
                "info: started",
                "  [ info ] x",
                "Info: x",
                "2026-11-22T10:11:12.123Z  INFO app::server: listening",
                "\x1b[2m2026-11-22T10:11:12.123456Z\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mapp\x1b[0m\x1b[2m:\x1b[0m x",
                "\x1b[36mINFO\x1b[0m[0000] logrus",
                "INFO[11-22|10:11:12] log15",
                "2026-11-22 10:11:12,123 - my.module - INFO - hello",
                "2026-11-22 10:11:12,123 my.module INFO hello",
                "[2026-11-22 10:11:12 +0000] [123] [INFO] Booting worker",
                "[2026-11-22 10:11:12,123: INFO/MainProcess] task",
                "2026-11-22 10:11:12.123 | INFO     | mod:fn:12 - loguru",
                "I1122 10:11:12.123456       1 main.go:12] klog",
                "INFO:     127.0.0.1:1234 - \"GET / HTTP/1.1\" 200 OK",
                r#"{"level":30,"time":1,"msg":"x"}"#,
                r#"{"time":"2026","level":"INFO","msg":"x"}"#,
                r#"{"severity":"NOTICE"}"#,
                r#"{"t":{"$date":"x"},"s":"I","c":"NETWORK"}"#,
                "2026-11-22 10:11:12.123 UTC [123] LOG:  database system is ready",
                "<6>x",
                "<30>x",
                "[2026-11-22T10:11:12,123][INFO ][o.e.n.Node] [n] started",
                "2026/11/22 10:11:12 INFO msg",
                "2026-11-22T10:11:12.123Z\tinfo\tserver\tstarted",
                "time=2026-11-22T10:11:12Z level=INFO msg=x",
                "2026-11-22T10:11:12.123Z  INFO 1234 --- [main] c.e.App : Started",
                "[10:11:12 INF] Now listening",
                "2026-11-22 10:11:12,123 [myid:1] - INFO  [main:Q@1] - x",
                "10:11:12.123 [info] Running Endpoint",
                "1:M 22 Nov 2026 10:11:12.123 * Ready",
                "ts=1 caller=main.go:1 level=info msg=x",
                "<info>  [1.2] manager: x",
                "Nov 22 10:11:12 INFO x",
                "info: Microsoft.Hosting.Lifetime[0]",
                "I, [2026-11-22T10:11:12.1 #9]  INFO -- : x",
            ],
        );
        check(
            Some(Warn),
            &[
                "WARNING: This is a development server",
                "WARN x",
                "2026-11-22 10:11:12 [main] WARN foo",
                "warning: unused",
                r#"level=warning msg="x""#,
                r#"time="2026-11-22T10:11:12 Z" level=warning msg=x"#,
                "lvl=wrn",
                "severity=\"warn\" x",
                "2026-11-22T10:11:12.123456Z 0 [Warning] [MY-010] x",
                "W1122 10:11:12.1 1 a.go:1] x",
                "<4>x",
                "[WARNING] (1) : x",
                r#"{"msg":"x","nested":{"level":"error"},"level":40}"#,
                "1:M 22 Nov 2026 10:11:12.123 # x",
                "2026-11-22T10:11:12.123Z [WARN]  agent: x",
                "WRN x",
                "WARNING:root:x",
            ],
        );
        check(
            Some(Error),
            &[
                "ERROR x",
                "error: cannot find x",
                "FATAL: x",
                "2026/11/22 10:11:12 [error] 123#0: *1 open() failed",
                "[Sun Nov 22 10:11:12.123 2026] [core:error] [pid 1] x",
                "CRITICAL:root:x",
                "SEVERE: x",
                "fail: App[0]",
                r#"{"@level":"error"}"#,
                r#"{"level":60}"#,
                r#"{"log.level":"fatal"}"#,
                "E1122 10:11:12.1 1 a.go:1] x",
                "<3>x",
                "<11>x",
                "2026-11-22T10:11:12Z ERR x",
                "ERRO[0012] x",
                "panic: runtime error",
                "crit: x",
                "[EMERG] x",
                "2026-11-22 10:11:12.123 UTC [123] ERROR:  relation",
                "\x1b[31mERROR\x1b[0m: x",
            ],
        );
        check(
            None,
            &[
                "",
                " ",
                "hello",
                "no error here",
                "an ERROR occurred",
                "error while reading",
                "Information about x",
                "2026-11-22 10:11:12 error while reading",
                "2026-11-22 10:11:12 got ERROR from x",
                "info about x",
                r#"msg="set level=debug" x"#,
                "set level=debug",
                r#"{"msg":"level: error"}"#,
                r#"{"a":{"level":"error"}}"#,
                r#"{"msg":"\"level\":\"error\""}"#,
                "Errors: 5",
                "errors=5",
                "[main] hello ERROR",
                "<html>",
                "<b>ERROR</b>",
                "<999>x",
                "Nov 22 10:11:12 host app[123]: ERROR x",
                "    at com.foo.Error.bar(Error.java:12)",
                "INFORMATION_SCHEMA",
                "{",
                "[",
                "level=",
                "Warnings: none",
                "E, x",
                "I am",
                "error::Foo",
                "levels level=5",
            ],
        );
        let late = format!("{}ERROR", " [x]".repeat(60));
        check(None, &[&late]);
    }
}
