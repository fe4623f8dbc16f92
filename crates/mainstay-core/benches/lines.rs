//! The throughput of [`Refiner`], by the log settings of a service.

#![expect(clippy::print_stdout, reason = "it prints the figures")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::time::{Duration, Instant};

use mainstay_core::log::redact::RedactionKey;
use mainstay_core::log::refine::{Origin, Refiner, Unfinished};
use mainstay_core::manifest::{Format, parse};
use mainstay_core::spec::redact::Class;

/// The size of a batch: what a pipe holds.
const BATCH: usize = 1 << 16;
const ROUNDS: usize = 5;

const NUMBERS: &str = "'phone', 'credit-card', 'id-card-cn', 'iban', 'ipv4', 'ssn-us'";
const CREDENTIALS: &str = "'jwt', 'bearer', 'basic-auth', 'url-password', 'aws-key', \
                           'private-key', 'github-token', 'slack-token', 'password'";

fn main() {
    let input = input();
    let all: Vec<String> = Class::ALL
        .iter()
        .map(|class| format!("'{}'", class.name()))
        .collect();
    let all = all.join(", ");
    for (name, format, redact) in [
        ("raw, email", "raw", "'email'"),
        ("raw, numbers", "raw", NUMBERS),
        ("raw, credentials", "raw", CREDENTIALS),
        ("raw, every class", "raw", &all),
        (
            "raw, every class and a regex",
            "raw",
            &format!(r"{all}, {{ regex = 'EMP-\d+', name = 'e' }}"),
        ),
        ("text", "text", ""),
        ("json", "json", ""),
        ("json, every class", "json", &all),
    ] {
        measure(
            name,
            &format!("format = '{format}'\nredact = [{redact}]"),
            &input,
        );
    }
    measure("raw, filter", "filter = true", &input);
}

fn input() -> String {
    let mut input = String::new();
    for i in 0..100_000 {
        let message = match i % 100 {
            0 => "login of ann@example.com from 10.11.12.13 failed: password=hunter2",
            50 => "peer 192.168.1.7:8080 said 503, will try again in 2.5s (attempt 3 of 5)",
            _ => {
                "request GET /orders/4711/items?page=3 answered with 200 in 17.3 ms, cache=hit, \
                 bytes=18233"
            }
        };
        input += &format!("2026-11-22T10:11:12.{i:06}Z  INFO app::http: {message}\n");
    }
    input
}

fn measure(name: &str, log: &str, input: &str) {
    let manifest = format!("[service.a]\ncommand = ['a']\n[service.a.log]\n{log}");
    let specs = parse(&manifest, Format::Toml).expect("the manifest is valid");
    let key = RedactionKey::new([7; 32]);
    let mut refiner = Refiner::new(specs[0].log(), &key, false).expect("lines are processed");
    let best = (0..ROUNDS)
        .map(|_| refine(&mut refiner, input.as_bytes()))
        .min();
    let rate = input.len() as f64 / best.unwrap_or_default().as_secs_f64();
    println!("{name:30} {:6.0} MB/s", rate / 1e6);
}

fn refine(refiner: &mut Refiner, input: &[u8]) -> Duration {
    let origin = Origin {
        service: "orders",
        time: 1_795_342_272_123_456_789,
        stream: None,
        pid: 123,
        restart: 1,
    };
    let mut out = Vec::with_capacity(16 * BATCH);
    let began = Instant::now();
    let mut at = 0;
    while at < input.len() {
        out.clear();
        let end = input.len().min(at + BATCH);
        let unfinished = if end == input.len() {
            Unfinished::Take
        } else {
            Unfinished::Leave
        };
        at += refiner.refine(&input[at..end], unfinished, &origin, &mut out, &mut |_| {});
    }
    began.elapsed()
}
