//! Tests of rules that apply to all manifests in every format. Individual errors are covered in
//! `mainstay-cli/tests/check`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::spec::{Signal, StopAsk};

const EXAMPLE: &str = include_str!("../../../../examples/orders/mainstay.toml");

#[test]
fn a_short_manifest_gets_every_default() {
    let specs = parse("[service.a]\ncommand = ['a']", Format::Toml).unwrap();
    let [spec] = &*specs else { panic!("{specs:?}") };
    let second = std::time::Duration::from_secs(1);
    assert_eq!(spec.start.timeout, 60 * second);
    assert_eq!(spec.stop.graceful, 30 * second);
    let asks = spec.stop.ladder.iter().map(|step| (step.ask, step.after));
    let at_once = [StopAsk::Signal(Signal::Term), StopAsk::Close].map(|ask| (ask, second - second));
    assert!(asks.eq(at_once));
    assert_eq!(spec.recovery.backoff.base, second / 10);
    assert_eq!(spec.recovery.backoff.max, 30 * second);
    let limit = spec.recovery.limit.unwrap();
    assert_eq!((limit.restarts, limit.window), (20, 900 * second));
    assert_eq!(limit.then, crate::spec::BeyondLimit::Alert);
    assert_eq!(
        spec.recovery.most_restarts(),
        None,
        "the default is reachable"
    );
    assert_eq!(
        spec.log,
        log("rotate = '10MB', keep = 8, compress = 'zstd'")
    );
    assert_eq!(spec.display_name(), "a");
    assert_eq!(spec.on_alert, None);
}

/// Entries of `needs` are keys; the manager gets its own names.
#[test]
fn a_manager_may_know_a_service_by_another_name() {
    let text = |name: &str, other: &str| {
        format!(
            "[service.sample]\ncommand = ['a']\nmanager_name = '{name}'\n\
             [service.b]\ncommand = ['b']\nneeds = ['sample', 'os:x']\n{other}"
        )
    };
    let specs = parse(&text("GoSampleService", ""), Format::Toml).unwrap();
    let [sample, b] = &*specs else {
        panic!("{specs:?}")
    };
    assert_eq!(
        (sample.name().as_str(), sample.manager_name()),
        ("sample", "GoSampleService")
    );
    assert_eq!(b.manager_name(), "b");
    let names = b.needs().iter().map(|need| b.manager_name_of(need));
    assert!(names.eq(["GoSampleService", "x"]));
    for name in [
        "my-legacy",
        "Orders Service (EU)",
        "sample",
        "com.example.orders_2",
    ] {
        assert!(parse(&text(name, ""), Format::Toml).is_ok(), "{name}");
    }
    let refused = |name: &str, other: &str| {
        let refused = parse(&text(name, other), Format::Toml).unwrap_err();
        refused[0].code
    };
    for name in ["", " x", "a/b", "a\\b"] {
        assert_eq!(refused(name, ""), Code::ServiceName, "{name}");
    }
    assert_eq!(refused("b", ""), Code::ManagerNameTaken);
    assert_eq!(refused("X", "manager_name = 'x'"), Code::ManagerNameTaken);
}

#[test]
fn a_command_alone_is_told_with_the_usual_limits() {
    let on_alert = |keys: &str| {
        let text = format!("[service.a]\ncommand = ['a']\non_alert = {keys}");
        parse(&text, Format::Toml).unwrap().remove(0).on_alert
    };
    let plain = on_alert("['page', '--urgent']").unwrap();
    let limit = plain.limit.unwrap();
    assert_eq!((limit.alerts, limit.window.as_secs()), (10, 3600));
    assert_eq!(plain.timeout.as_secs(), 30);
    assert_eq!(on_alert("{ exec = ['page', '--urgent'] }"), Some(plain));
    let url = "https://hooks/T0/hunter2";
    let table = on_alert(&format!(
        "{{ limit = 'none', webhook = {{ url = '{url}', secret_file = 'k' }} }}"
    ));
    assert!(!format!("{table:?}").contains("hunter2"), "{table:?}");
    let table = table.unwrap();
    let webhook = table.webhook.unwrap();
    assert_eq!((table.limit, webhook.url().reveal()), (None, url));
    let (timeout, deadline) = (webhook.timeout.as_secs(), webhook.deadline.as_secs());
    assert_eq!((timeout, deadline), (10, 3600));
}

/// Returns the log policy of a service with these keys in its `log` table.
fn log(keys: &str) -> crate::spec::LogPolicy {
    let text = format!("[service.a]\ncommand = ['a']\nlog = {{ {keys} }}");
    parse(&text, Format::Toml).unwrap()[0].log.clone()
}

#[test]
fn rotation_is_a_size_or_a_table_of_occasions() {
    use crate::spec::{Every, Rotation, Zone};
    let check = |keys: &str, size: Option<u64>, every, at_start| {
        let expect = Rotation {
            size,
            every,
            at_start,
        };
        assert_eq!(log(keys).rotate, expect, "{keys}");
    };
    let usual = Some(10_000_000);
    check("rotate = 'none'", None, None, false);
    check("rotate = '1kB'", Some(1000), None, false);
    check("rotate = {}", usual, None, false);
    check("rotate = { size = 'none' }", None, None, false);
    check(
        "rotate = { size = '1kB', at_start = true }",
        Some(1000),
        None,
        true,
    );
    let (utc, local) = ((Every::Daily, Zone::Utc), (Every::Hourly, Zone::Local));
    check("rotate = { every = 'daily' }", usual, Some(utc), false);
    check(
        "rotate = { every = 'hourly', zone = 'local' }",
        usual,
        Some(local),
        false,
    );
}

#[test]
fn what_stays_is_a_count_or_a_table_of_rules() {
    use crate::spec::Retention;
    let check = |keys: &str, files, size, days: Option<u64>| {
        let age = days.map(|days| std::time::Duration::from_secs(days * 86_400));
        let expect = Retention { files, size, age };
        assert_eq!(log(keys).keep, expect, "{keys}");
    };
    check("keep = 3", Some(3), None, None);
    check("keep = {}", Some(8), None, None);
    check("keep = { files = 3 }", Some(3), None, None);
    check("keep = { size = '1GB' }", None, Some(1_000_000_000), None);
    check("keep = { age = '30d' }", None, None, Some(30));
    check(
        "keep = { files = 3, size = '1B', age = '1d' }",
        Some(3),
        Some(1),
        Some(1),
    );
}

#[test]
fn the_formats_mean_the_same() {
    let specs = parse(EXAMPLE, Format::Toml).unwrap();
    assert_eq!(specs.len(), 2);
    let json = to_json(EXAMPLE);
    let json = serde_json::to_string_pretty(&json).unwrap();
    let by_name = |mut specs: Vec<Spec>| {
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs
    };
    let specs = by_name(specs);
    assert_eq!(by_name(parse(&json, Format::Json).unwrap()), specs);
    // JSON is also YAML in flow style; the block style has its own file.
    assert_eq!(by_name(parse(&json, Format::Yaml).unwrap()), specs);
    let yaml = include_str!("tests/orders.yaml");
    assert_eq!(by_name(parse(yaml, Format::Yaml).unwrap()), specs);
}

#[test]
fn the_schema_is_valid_and_judges_alike() {
    let schema = schema();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for example in [
        EXAMPLE,
        include_str!("../../../../examples/hello/mainstay.toml"),
        include_str!("../../../../examples/web-stack/mainstay.toml"),
    ] {
        validator.validate(&to_json(example)).unwrap();
    }
    let refused = |service: Json| !validator.is_valid(&json!({ "service": { "a": service } }));
    assert!(refused(json!({})));
    assert!(refused(json!({ "command": ["a"], "extra": 1 })));
    assert!(refused(
        json!({ "command": ["a"], "stop": { "graceful": 30 } })
    ));
    assert!(refused(
        json!({ "command": ["a"], "start": { "ready": {} } })
    ));
    assert!(refused(
        json!({ "command": ["a"], "start": { "ready": { "file": "x", "notify": true } } })
    ));
    assert!(!refused(json!({ "command": ["a"], "liveness": {} })));
    let codes = |key: &str| json!({ "command": ["a"], "recovery": { "codes": { key: "stop" } } });
    assert!(!refused(codes("0xC0000005")));
    assert!(refused(codes("4294967296")));
}

/// Schema and decoder accept the same keys. The test writes out each object of the schema with all
/// its keys and a bogus one, and expects only the bogus ones to be unknown.
#[test]
fn the_schema_and_the_decoder_know_the_same_keys() {
    fn typed(schema: &Json, tables: &mut usize) -> Json {
        if let Some(alternative) = schema["anyOf"].as_array().and_then(|any| any.last()) {
            return typed(alternative, tables);
        }
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], json!(false), "{schema}");
            *tables += 1;
            let mut object = json!({ "bogus": 0 });
            for (key, schema) in properties {
                object[key] = typed(schema, tables);
            }
            object
        } else if schema["additionalProperties"].is_object() {
            json!({ "a": typed(&schema["additionalProperties"], tables) })
        } else if schema["items"].is_object() {
            json!([typed(&schema["items"], tables)])
        } else {
            json!(0)
        }
    }
    let mut tables = 0;
    let text = typed(&schema(), &mut tables).to_string();
    let diagnostics = parse(&text, Format::Json).unwrap_err();
    let unknown = diagnostics.iter().filter(|d| d.code == Code::UnknownKey);
    let paths: BTreeSet<_> = unknown.map(|d| d.path.as_str()).collect();
    assert!(
        paths.iter().all(|path| path.ends_with("bogus")),
        "{paths:?}"
    );
    assert_eq!(paths.len(), tables, "{paths:?}");
    assert!(tables > 12, "{tables}");
}

#[test]
fn the_reference_names_every_key_and_every_code() {
    fn keys(schema: &Json, found: &mut BTreeSet<String>) {
        match schema {
            Json::Object(object) => {
                if let Some(properties) = object.get("properties").and_then(Json::as_object) {
                    found.extend(properties.keys().cloned());
                }
                object.values().for_each(|value| keys(value, found));
            }
            Json::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }
    let reference = include_str!("../../../../docs/manifest.md");
    let mut words = BTreeSet::new();
    keys(&schema(), &mut words);
    words.extend(Code::ALL.iter().map(|code| code.to_string()));
    let lacks = words
        .iter()
        .filter(|w| !reference.contains(&format!("`{w}`")));
    assert_eq!(lacks.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn depth_does_not_exhaust_the_stack() {
    let inline = format!("a={}1{}", "{a.a.a.a.a=".repeat(20_000), "}".repeat(20_000));
    let key = format!("{}=1", ["a"; 79].join("."));
    let nested = format!(
        "a = {{{}}}",
        format!("{} = {{", ["a"; 79].join(".")).repeat(78)
    );
    for text in [
        "a=[".repeat(100_000),
        "a.".repeat(100_000),
        inline,
        key,
        nested,
    ] {
        parse(&text, Format::Toml).unwrap_err();
    }
    for text in ["[", "{\"a\":", "- ", "{a: ", "? "] {
        let text = text.repeat(100_000);
        parse(&text, Format::Json).unwrap_err();
        parse(&text, Format::Yaml).unwrap_err();
    }
    let closed = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    parse(&closed, Format::Json).unwrap_err();
    let indented: String = (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    parse(&indented, Format::Yaml).unwrap_err();
}

#[test]
fn a_long_chain_of_needs_is_no_cycle_until_it_is_closed() {
    let service =
        |i: usize, need: usize| format!("[service.s{i}]\ncommand = ['a']\nneeds = ['s{need}']\n");
    let mut text: String = (0..5000).map(|i| service(i, i + 1)).collect();
    let open = format!("{text}[service.s5000]\ncommand = ['a']\n");
    assert_eq!(parse(&open, Format::Toml).unwrap().len(), 5001);
    text += &service(5000, 0);
    let diagnostics = parse(&text, Format::Toml).unwrap_err();
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].code, Code::NeedsCycle);
    assert_eq!(diagnostics[0].path, "service.s5000.needs[0]");
}

/// No diagnostic contains a value of `env`, however the manifest is broken.
#[test]
fn secrets_stay_secret() {
    let check = |format, text: &str| {
        let diagnostics = parse(text, format).unwrap_err();
        let shown = format!(
            "{diagnostics:?}{}",
            serde_json::to_string(&diagnostics).unwrap()
        );
        assert!(!shown.contains("hunter"), "{text}\n{shown}");
    };
    for text in [
        "service.a.env = { TOKEN = \"hunter2\", BAD = 1 }",
        "service.a.env = { TOKEN = \"hunter2\"",
        "service.a.env = { TOKEN = \"hunter2\", TOKEN = \"hunter3\" }",
        "service.a.env = { TOKEN = \"hunter2, BAD = 1 }",
        "service.a.env = \"TOKEN=hunter2\"",
        "service.a.env = [\"TOKEN=hunter2\"]",
        "service.a.env = { \"=\" = \"hunter2\" }",
        "service.a.env = { TOKEN = \"hunter2\\u0000\" }",
        "service.a.Env = { TOKEN = \"hunter2\" }",
        "service.a.environ = { TOKEN = \"hunter2\" }",
        "[service.a.env]\nTOKEN = hunter2",
        "[service.a.env]\nTOKEN = \"\"\"\nx\nhunter2\\q\n\"\"\"",
        "[service.a.'env']\nTOKEN = 'hunter2' x",
        "service.a.on_alert = { webhook = { url = \"http://hooks/hunter2\" } }",
        "service.a.on_alert = { webhook = { urL = \"https://hooks/hunter2\" } }",
        "service.a.on_alert = { webhook = { url = \"https://hooks/hunter2\"",
        "[service.a.on_alert.webhook]\nurl = 'https://hooks/hunter2' x",
    ] {
        check(Format::Toml, text);
    }
    for text in [
        r#"{"service": {"a": {"env": {"TOKEN": "hunter2", "BAD": 1}}}}"#,
        r#"{"service": {"a": {"env": {"TOKEN": "hunter2", "TOKEN": "hunter3"}}}}"#,
        r#"{"service": {"a": {"env": {"TOKEN": "hunter2""#,
        r#"{"service": {"a": {"env": {"TOKEN": "hunter2\x"#,
        r#"{"service": {"a": {"env": {"TOKEN": "hunter2\ud800"}}}}"#,
    ] {
        check(Format::Json, text);
        check(Format::Yaml, text);
    }
    for text in [
        "service:\n  a:\n    env:\n      TOKEN: &x hunter2\n      B: *x",
        "service:\n  a:\n    env:\n      TOKEN: |\n        hunter2\n\tx",
        "service:\n  a:\n    env:\n      TOKEN: [hunter2\n",
        "service:\n  a:\n    env:\n    - TOKEN=hunter2\n",
        "service:\n  a:\n    env:\n      ? [hunter2]\n      : x\n",
    ] {
        check(Format::Yaml, text);
    }
}

#[test]
fn a_place_is_found_for_a_rule_that_needs_the_file_system() {
    let text = "[service.a]\ncommand = ['a']";
    let at = |path: &[&str]| {
        let found = diagnose(text, Format::Toml, path, Code::WorldWritable, "m", None);
        (found.path, found.line, found.column)
    };
    let owned = |path: &str, line, column| (path.to_owned(), line, column);
    assert_eq!(
        at(&["service", "a", "command"]),
        owned("service.a.command", 2, 11)
    );
    assert_eq!(at(&["service", "a", "env"]), owned("service.a", 1, 10));
    assert_eq!(at(&[]), owned("", 1, 1));
}

#[test]
fn a_byte_order_mark_is_skipped() {
    for (text, format) in [
        ("\u{feff}[service.a]\ncommand = ['a']", Format::Toml),
        ("\u{feff}service: {a: {command: [a]}}", Format::Yaml),
        (
            "\u{feff}{\"service\": {\"a\": {\"command\": [\"a\"]}}}",
            Format::Json,
        ),
    ] {
        assert_eq!(parse(text, format).unwrap().len(), 1, "{format}");
    }
}

/// Bytes are cut, duplicated, swapped and replaced a few thousand times. Parsing must not panic,
/// and every position must be in the text.
#[test]
fn broken_manifests_do_not_panic() {
    let json = to_json(EXAMPLE).to_string();
    let yaml = include_str!("tests/orders.yaml");
    let seeds = [
        (EXAMPLE, Format::Toml),
        (&json, Format::Json),
        (yaml, Format::Yaml),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (seed, format) in seeds {
        for _ in 0..1500 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..=random.below(4) {
                mutate(&mut bytes, &mut random);
            }
            let text = String::from_utf8_lossy(&bytes);
            let diagnostics = parse(&text, format).err().unwrap_or_default();
            for found in diagnostics {
                let lines = text.split('\n').count();
                assert!(
                    found.line <= lines && found.span.end <= text.len(),
                    "{found:?}"
                );
                assert!(
                    found
                        .excerpt
                        .text
                        .get(found.excerpt.marked.clone())
                        .is_some(),
                    "{found:?}"
                );
            }
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const BITS: [&[u8]; 22] = [
        b"\"",
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b"=",
        b":",
        b",",
        b"\n",
        b"\t",
        b"\0",
        b"-",
        b"&a ",
        b"*a",
        b"!!x ",
        b"---\n",
        b"99999999999999999999",
        b"\\u",
        "ü".as_bytes(),
        "\u{feff}".as_bytes(),
        b"\r",
    ];
    let at = random.below(bytes.len().max(1)).min(bytes.len());
    let end = (at + random.below(40)).min(bytes.len());
    match random.below(4) {
        0 => drop(bytes.drain(at..end)),
        1 => {
            let part = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        2 => bytes.truncate(end),
        _ => drop(bytes.splice(at..at, BITS[random.below(BITS.len())].iter().copied())),
    }
}

/// A xorshift64* generator, which yields the same cases on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(random).unwrap() % limit.max(1)
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        for format in Format::ALL {
            let _ = parse(&text, format);
        }
    }

    #[test]
    fn no_structured_text_panics(text in r#"(service|a|env|needs|[\[\]{}=:,.'"\n \-&*!?|>0-9ü])*"#) {
        for format in Format::ALL {
            let _ = parse(&text, format);
        }
    }
}

fn to_json(toml: &str) -> Json {
    fn convert(node: &Node<'_>) -> Json {
        match &node.value {
            Value::Table(entries) => {
                let entries = entries.iter();
                entries
                    .map(|e| (e.key.value.to_string(), convert(&e.node)))
                    .collect()
            }
            Value::List(items) => items.iter().map(convert).collect(),
            Value::Text(text) => json!(text),
            Value::Integer(integer) => json!(integer),
            Value::Float(float) => json!(float),
            Value::Bool(boolean) => json!(boolean),
            other => panic!("{other:?}"),
        }
    }
    convert(&read(toml, Format::Toml, &mut Findings::default()).unwrap())
}

#[test]
fn a_masked_text_keeps_its_lines_and_no_secret() {
    for (format, text, expect) in [
        (
            Format::Toml,
            "# orders\n[service.a]\ncommand = [\"a\"]\nenv = { KEY = \"hunter2\", N = 5 }\n\
             working_dir = \"/\"\n",
            "# orders\n[service.a]\ncommand = [\"a\"]\nenv = { KEY = ***, N = *** }\n\
             working_dir = \"/\"\n",
        ),
        (
            Format::Toml,
            "[service.a]\ncommand = [\"a\"]\n[service.a.env]\nKEY = \"\"\"hun\nter2\"\"\"\n",
            "[service.a]\ncommand = [\"a\"]\n[service.a.env]\nKEY = ***\n***\n",
        ),
        (
            Format::Yaml,
            "service:\n  a:\n    command: [a]\n    environ:\n      KEY: hunter2\n",
            "service:\n  a:\n    command: [a]\n    environ:\n      KEY: ***\n",
        ),
        (
            Format::Json,
            r#"{"service":{"a":{"command":["a"],"env":{"KEY":"hunter2"}}}}"#,
            r#"{"service":{"a":{"command":["a"],"env":{"KEY":***}}}}"#,
        ),
        (
            Format::Yaml,
            "service:\n  a:\n    command: [a]\n    on_alert:\n      webhook: {url: 'https://hooks/hunter2', secret_file: k}\n",
            "service:\n  a:\n    command: [a]\n    on_alert:\n      webhook: {url: ***, secret_file: k}\n",
        ),
        // A text that cannot be parsed is masked from the first `env` or `webhook` on.
        (
            Format::Toml,
            "[service.a]\ncommand = [\nenv.KEY = \"hunter2\"\nhunter2\n",
            "[service.a]\ncommand = [\nenv.KEY = \"***\"\n***\n",
        ),
    ] {
        assert_eq!(masked(text, format), expect);
    }
}

#[test]
fn a_program_is_replaced_and_nothing_else() {
    let toml = "# mine\n[service.a]\ncommand = [ 'bin/a' , \"x\"]  # two\n[service.b]\n\
                command = [\n  \"b\",\n]\n";
    let yaml = "service:\n  a:\n    command: [bin/a, 'x']\n  b:\n    command:\n      - b # one\n";
    let json = r#"{"service": {"a": {"command": ["bin/a", "x"]}, "b": {"command": ["b"]}}}"#;
    let path = "/srv/my \"programs\"/ü";
    for (text, format) in [
        (toml, Format::Toml),
        (yaml, Format::Yaml),
        (json, Format::Json),
    ] {
        for (service, old) in [("a", "bin/a"), ("b", "b")] {
            let Some(new) = with_program(text, format, service, path) else {
                panic!("{format} {service}")
            };
            let specs = parse(&new, format).unwrap();
            let spec = specs
                .iter()
                .find(|spec| spec.name().as_str() == service)
                .unwrap();
            assert_eq!(spec.command().program(), path);
            // Replacing the program again restores an equivalent manifest.
            let back = with_program(&new, format, service, old).unwrap();
            assert_eq!(parse(&back, format), parse(text, format));
        }
        assert!(with_program(text, format, "c", path).is_none());
        assert!(with_program(text, format, "a", "").is_none());
        assert!(with_program("[", format, "a", path).is_none());
    }
    let commented = with_program(toml, Format::Toml, "a", "/p").unwrap();
    assert_eq!(commented, toml.replace("'bin/a'", "\"/p\""));
}
