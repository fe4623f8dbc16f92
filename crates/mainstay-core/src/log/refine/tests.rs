//! Tests that the output does not depend on the chunks of the input, and tests of the output
//! formats.

use proptest::prelude::*;

use super::Unfinished::{Leave, Take};
use super::*;
use crate::manifest::{Format, parse};
use crate::spec::Spec;

const EVERYTHING: &str = "'email', 'phone', 'credit-card', 'id-card-cn', 'iban', 'ipv4', 'ipv6', \
                          'mac', 'jwt', 'bearer', 'basic-auth', 'url-password', 'aws-key', \
                          'private-key', 'github-token', 'gitlab-token', 'slack-token', \
                          'google-api-key', 'stripe-key', 'password', 'ssn-us', 'patient-id'";

fn spec(log: &str) -> Spec {
    let text = format!(
        "environment = \"development\"\n[service.orders]\ncommand = ['a']\n[service.orders.log]\n\
         {log}"
    );
    parse(&text, Format::Toml).unwrap().remove(0)
}

fn refiner(log: &str, records: bool) -> Refiner {
    let key = RedactionKey::new([7; 32]);
    Refiner::new(spec(log).log(), &key, records).unwrap()
}

fn origin(stream: Option<Stream>) -> Origin<'static> {
    Origin {
        service: "orders",
        time: 1_795_342_272_123_456_789,
        stream,
        pid: 123,
        restart: 1,
    }
}

/// Returns the output and the records as text for `input` in chunks of these lengths.
fn run(log: &str, input: &[u8], chunks: &[usize]) -> (Vec<u8>, Vec<String>) {
    let mut refiner = refiner(log, true);
    let (mut out, mut records) = (Vec::new(), Vec::new());
    let (mut from, mut to, mut chunks) = (0, 0, chunks.iter());
    loop {
        to = chunks
            .next()
            .map_or(input.len(), |len| (to + len).min(input.len()));
        let all = to == input.len();
        let mut note = |record: &Record<'_>| {
            let message = String::from_utf8_lossy(record.message);
            records.push(format!("{:?} {} {message}", record.level, record.partial));
        };
        let unfinished = if all { Take } else { Leave };
        from += refiner.refine(
            &input[from..to],
            unfinished,
            &origin(None),
            &mut out,
            &mut note,
        );
        assert!(from <= to);
        if all {
            assert_eq!(from, to);
            return (out, records);
        }
    }
}

fn check(log: &str, stream: Option<Stream>, input: &[u8], expect: &str) {
    let mut out = Vec::new();
    refiner(log, false).refine(input, Take, &origin(stream), &mut out, &mut |_| {});
    assert_eq!(String::from_utf8_lossy(&out), expect, "{log}");
}

#[test]
fn formats() {
    let raw = "format = 'raw'\nfilter = true\nlevel = 'warn'";
    check(
        raw,
        None,
        b"\r\na\0\xff\n\nINFO x\nWARN y\r\n[DEBUG] z\nend",
        "\r\na\0\u{fffd}\n\nWARN y\r\nend",
    );
    let text = "format = 'text'";
    check(
        text,
        None,
        b"a\r\n\n",
        "2026-11-22T10:11:12.123Z a\n2026-11-22T10:11:12.123Z \n",
    );
    check(
        text,
        Some(Stream::Stderr),
        b"b\n",
        "2026-11-22T10:11:12.123Z stderr b\n",
    );
    let json = "format = 'json'";
    let head =
        r#"{"time":"2026-11-22T10:11:12.123456789Z","service":"orders","pid":123,"restart":1"#;
    for (line, rest) in [
        ("a \"b\"\\\t\r\n".as_bytes(), r#","message":"a \"b\"\\\t"}"#),
        (
            b"WARN \x01\x1b[0m\n",
            r#","level":"warn","message":"WARN \u0001\u001b[0m"}"#,
        ),
        (b"\xffa\n", ",\"message\":\"\u{fffd}a\",\"lossy\":true}"),
        (b"", ""),
        (b"\n", r#","message":""}"#),
        (b"open", r#","message":"open","partial":true}"#),
        (
            b" {\"level\":30,\"a\":[1]} \n",
            r#","level":"info","fields":{"level":30,"a":[1]}}"#,
        ),
        (b"{\"a\":1}}\n", r#","message":"{\"a\":1}}"}"#),
    ] {
        let expect = if line.is_empty() {
            String::new()
        } else {
            format!("{head}{rest}\n")
        };
        check(json, None, line, &expect);
    }
    let head = head.replace("\"service", "\"stream\":\"stdout\",\"service");
    check(
        json,
        Some(Stream::Stdout),
        b"a\n",
        &format!("{head},\"message\":\"a\"}}\n"),
    );
}

#[test]
fn nothing_to_do_is_nothing() {
    let key = RedactionKey::new([0; 32]);
    assert!(Refiner::new(spec("level = 'warn'").log(), &key, false).is_none());
    assert!(Refiner::new(spec("level = 'warn'").log(), &key, true).is_some());
}

#[test]
fn an_unfinished_line_stays_in_the_pipe() {
    let mut refiner = refiner("format = 'text'", false);
    let mut out = Vec::new();
    let taken = refiner.refine(b"a\nbc", Leave, &origin(None), &mut out, &mut |_| {});
    assert_eq!(taken, 2);
    let long = vec![b'x'; LINE_MAX];
    assert_eq!(
        refiner.refine(&long[1..], Leave, &origin(None), &mut out, &mut |_| {}),
        0
    );
    assert!(refiner.refine(&long, Leave, &origin(None), &mut out, &mut |_| {}) > LINE_MAX / 2);
}

/// A secret anywhere in a line of any length is hidden, however a cut falls within it.
#[test]
fn secrets_in_long_lines_are_found() {
    let cut = LINE_MAX - OVERLAP;
    let long = format!("password={}9", "s3cr3t-".repeat(580));
    for secret in [
        "4111 1111 1111 1111",
        "ann@example.com",
        "MRN 1234567",
        "Authorization: Bearer s3cr3t9",
        &long,
    ] {
        for at in (cut - secret.len() - 40..cut + 40).step_by(1 + secret.len() / 100) {
            let line = format!("{}{secret} {}\n", " ".repeat(at), ". ".repeat(20_000));
            let log = format!("redact = [{EVERYTHING}]");
            let (out, _) = run(&log, line.as_bytes(), &[]);
            let out = String::from_utf8_lossy(&out);
            for leak in ["4111", "ann", "1234", "s3cr3t"] {
                assert!(!out.contains(leak), "{secret} at {at}");
            }
            assert!(out.len() + secret.len() + 20 > line.len());
        }
    }
}

/// Fields of a JSON line in pieces are found, even one that fills a whole piece.
#[test]
fn fields_of_long_lines_are_found() {
    let long = "s3cr3t ".repeat(10_000);
    let pad = ". ".repeat(30_000);
    let line = format!(
        "{{\"pad\":\"{pad}\",\"a\":{{\"id\":\"{long}\"}},\"p\":\"{pad}\",\"b\":[{{\"id\":\"s3cr3t\"}}]}}\nx\n"
    );
    let (out, records) = run("redact = ['$.a', '$.b[*].id']", line.as_bytes(), &[]);
    let expect = format!(
        "{{\"pad\":\"{pad}\",\"a\":\"[a]\",\"p\":\"{pad}\",\"b\":[{{\"id\":\"[b[*].id]\"}}]}}\nx\n"
    );
    assert_eq!(String::from_utf8_lossy(&out), expect);
    assert!(records.len() > 4);
}

const PARTS: [&str; 30] = [
    "\n",
    "\r\n",
    "INFO ",
    "level=debug ",
    "ann@example.com",
    "4111 1111 1111 1111",
    "password=hunter2",
    "\"token\": \"x y\"",
    "{\"a\":{\"b\":1}}\n",
    "{\"a\":\"",
    "\"}",
    "-----BEGIN PRIVATE KEY-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\\n",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n",
    "-----END PRIVATE KEY-----\n",
    "10.0.0.1",
    "fe80::1",
    "EMP-123456",
    "ü",
    "\0",
    "+49 30 901820",
    "https://u:p@h/",
    "eyJhbGciOiJIUzI1NiJ9.eyJ.x",
    "MRN 123456",
    "Bearer 0123456789",
    " ",
    "x",
    "\\",
    "[",
    "]",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        12 => (0..PARTS.len()).prop_map(|i| PARTS[i].as_bytes().to_vec()),
        1 => Just(b"word, ".repeat(6_000)),
        1 => Just(b"eyJh1234".repeat(5_000)),
        1 => Just(vec![0xff, 0xfe]),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

fn policy() -> impl Strategy<Value = String> {
    let format = prop_oneof![Just("raw"), Just("text"), Just("json")];
    let with = prop_oneof![Just("label"), Just("hash")];
    let redact = prop_oneof![
        Just(String::new()),
        Just(EVERYTHING.to_owned()),
        Just(format!(
            r#"{EVERYTHING},"$.a.b",{{ regex = 'EMP-\d+', name = "employee" }}"#
        )),
        Just(r#""$.a""#.to_owned()),
    ];
    (format, with, redact, any::<bool>()).prop_map(|(format, with, redact, filter)| {
        format!(
            "format = '{format}'\nredact_with = '{with}'\nfilter = {filter}\nlevel = 'info'\n\
             redact = [{redact}]"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_do_not_matter(
        text in text(),
        log in policy(),
        chunks in prop::collection::vec(prop_oneof![1..40usize, 1..50_000usize], 0..40),
    ) {
        let whole = run(&log, &text, &[]);
        let cut = run(&log, &text, &chunks);
        prop_assert!(whole == cut, "{log}");
    }

    #[test]
    fn raw_text_stays(text in text()) {
        let (out, _) = run("format = 'raw'", &text, &[100, 5_000]);
        prop_assert!(out == text);
    }
}

/// Random changes cause no panic, chunks do not matter, and JSON lines remain JSON.
#[test]
fn broken_lines_do_no_harm() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % limit.max(1)
    };
    let seed = PARTS.join(" ").into_bytes();
    let raw = format!("redact = [{EVERYTHING}, '$.a.b']");
    let json = format!("format = 'json'\n{raw}");
    for _ in 0..400 {
        let mut bytes = seed.clone();
        for _ in 0..=random(12) {
            let at = random(bytes.len());
            match random(4) {
                0 => drop(bytes.drain(at..(at + random(20)).min(bytes.len()))),
                1 => bytes[at] = u8::try_from(random(256)).unwrap(),
                2 => bytes.insert(at, b"\n\"@:=-{}"[random(8)]),
                _ => {
                    let part = bytes[at..(at + random(60)).min(bytes.len())].to_vec();
                    let to = random(bytes.len());
                    drop(bytes.splice(to..to, part));
                }
            }
        }
        let chunks: Vec<usize> = (0..8).map(|_| 1 + random(200)).collect();
        assert_eq!(run(&raw, &bytes, &[]), run(&raw, &bytes, &chunks));
        let (out, _) = run(&json, &bytes, &chunks);
        for line in out.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            assert!(json::is_object(line), "{}", String::from_utf8_lossy(line));
        }
    }
}
