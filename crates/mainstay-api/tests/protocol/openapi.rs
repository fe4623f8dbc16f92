//! The OpenAPI document of the protocol: generated from the routes and from the samples of every
//! document, and compared with the committed one, which the control socket serves.
//! `MAINSTAY_BLESS=1` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use mainstay_api::{Decision, OPENAPI, Reach, Route};
use mainstay_core::engine::{Request, StateName, Style, TrialPhase};
use mainstay_core::failure::Code;
use mainstay_core::manifest::Format;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::documents;

/// One request, as the document describes it.
struct Operation {
    route: Route,
    summary: &'static str,
    /// The document of the request.
    body: Option<&'static str>,
    /// The documents of a success.
    answers: &'static [&'static str],
    /// The statuses of errors that have documents of their own.
    errors: &'static [(&'static str, &'static str)],
}

impl Operation {
    fn new(route: Route, summary: &'static str, answers: &'static [&'static str]) -> Self {
        Self {
            route,
            summary,
            body: None,
            answers,
            errors: &[],
        }
    }
}

/// The name of a service in a path.
const NAMES: &str = "{names}";

fn operations() -> Vec<Operation> {
    let name = || NAMES.to_owned();
    let names = || vec![name()];
    let request = |request, summary, answers| {
        let names = names();
        Operation::new(Route::Request { names, request }, summary, answers)
    };
    let decide = |decision, summary| {
        let name = name();
        Operation::new(Route::Decide { name, decision }, summary, &["service"])
    };
    let reach = Reach::Named;
    let stop = Route::Stop {
        names: names(),
        reach,
    };
    let define = Route::Define {
        names: names(),
        owner: None,
    };
    let forget = Route::Forget {
        names: names(),
        owner: None,
    };
    let update = Operation {
        body: Some("trial-request"),
        errors: &[("409", "given-up"), ("422", "mistakes")],
        ..Operation::new(
            Route::Update { name: name() },
            "Try a new definition of a service",
            &["healthy"],
        )
    };
    let several: &[_] = &["service", "status"];
    vec![
        Operation::new(Route::About, "Describe the supervisor", &["about"]),
        Operation::new(Route::OpenApi, "Get this document", &[]),
        Operation::new(Route::Status, "List all services", &["status"]),
        Operation::new(Route::Entry { name: name() }, "Get a service", &["service"]),
        Operation::new(Route::Events, "Stream events, one a line", &["event"]),
        Operation::new(Route::StopAll, "Stop all services", &["status"]),
        Operation::new(stop, "Stop services", several),
        request(Request::Start, "Start services", several),
        request(Request::Restart, "Restart services", several),
        request(Request::Pause, "Pause a service", &["service"]),
        request(Request::Continue, "Resume a paused service", &["service"]),
        Operation::new(
            Route::Reload { name: name() },
            "Reload the configuration of a service",
            &["service"],
        ),
        Operation::new(
            Route::Snapshot { name: name() },
            "Take a snapshot of a service's state",
            &["taken", "done"],
        ),
        Operation::new(
            Route::RotateLog { name: name() },
            "Rotate the log of a service",
            &["done"],
        ),
        update,
        decide(Decision::Commit, "Commit the definition on trial"),
        decide(Decision::Abort, "Abort the trial"),
        Operation::new(define, "Load installed services", &["status"]),
        Operation::new(forget, "Stop and remove services", &["done"]),
    ]
}

/// Returns the parameters of a request. A new kind of request does not compile until it is here.
fn parameters(route: &Route) -> &'static [&'static str] {
    match route {
        Route::About | Route::OpenApi | Route::Status | Route::Events | Route::StopAll => &[],
        Route::Stop { .. } => &["names", "with-dependents", "if-match", "if-none-match"],
        Route::Define { .. } | Route::Forget { .. } => {
            &["names", "owner", "if-match", "if-none-match"]
        }
        Route::Entry { .. }
        | Route::Request { .. }
        | Route::Reload { .. }
        | Route::Snapshot { .. }
        | Route::RotateLog { .. }
        | Route::Update { .. }
        | Route::Decide { .. } => &["names", "if-match", "if-none-match"],
    }
}

/// Returns the path of a request, without its query, and its method.
fn place(route: &Route) -> (String, String) {
    let path = route.path();
    let path = path.split('?').next().unwrap_or_default().to_owned();
    (path, route.method().as_str().to_ascii_lowercase())
}

fn content(kind: &str, documents: &[&str]) -> Value {
    let schema = match documents {
        [one] => reference("schemas", one),
        several => {
            let all = several.iter().map(|name| reference("schemas", name));
            json!({ "anyOf": all.collect::<Vec<_>>() })
        }
    };
    json!({ kind: { "schema": schema } })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn operation(operation: &Operation) -> Value {
    let trace: &[_] = match operation.route.operation() {
        Some(_) => &["traceparent", "tracestate"],
        None => &[],
    };
    let parameters = parameters(&operation.route).iter().chain(trace);
    let parameters: Vec<_> = parameters
        .map(|name| reference("parameters", name))
        .collect();
    let kind = match operation.route {
        Route::Events => "application/x-ndjson",
        _ => "application/json",
    };
    let success = match operation.answers {
        [] => json!({ "description": "this document", "content": { kind: {} } }),
        answers => json!({ "description": "success", "content": content(kind, answers) }),
    };
    let mut responses = json!({ "200": success, "default": reference("responses", "error") });
    for (status, document) in operation.errors {
        let content = content("application/json", &[document, "refusal"]);
        responses[status] = json!({ "description": "nothing was changed", "content": content });
    }
    let mut described = json!({ "summary": operation.summary, "responses": responses });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(document) = operation.body {
        let content = content("application/json", &[document]);
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

/// Returns the words of an enumeration.
fn words<T: Serialize>(all: &[T]) -> Value {
    serde_json::to_value(all).expect("JSON")
}

/// Returns what a schema says of a field besides its type. Words that later versions may add to are
/// examples.
fn remarks(document: &str, field: &str) -> Option<(&'static str, Value)> {
    let phases = [
        TrialPhase::Stop,
        TrialPhase::Snapshot,
        TrialPhase::Start,
        TrialPhase::Ready,
        TrialPhase::Canary,
        TrialPhase::Trial,
        TrialPhase::RollBack,
    ];
    Some(match (document, field) {
        ("service", "state") => ("enum", words(&StateName::ALL)),
        ("service" | "given-up" | "event", "phase") => ("enum", words(&phases)),
        ("service" | "event", "style") => ("enum", words(&[Style::Restart, Style::Overlap])),
        ("trial-request", "format") => ("enum", words(&Format::ALL.map(Format::name))),
        ("refusal", "code") => ("examples", words(&Code::ALL.map(|code| code as u8))),
        ("refusal", "name") => ("examples", words(&Code::ALL.map(Code::name))),
        ("about", "containment") => ("examples", json!(["cgroup", "subreaper", "group", "job"])),
        ("event", "event") => {
            let all = documents::all().into_iter();
            let events = all
                .filter(|it| it.name == "event")
                .flat_map(|it| it.samples);
            let kinds: BTreeSet<_> = events.map(|it| it["event"].to_string()).collect();
            let kinds = kinds.iter().map(|kind| kind.trim_matches('"'));
            ("examples", kinds.collect::<Vec<_>>().into())
        }
        (_, "time" | "since" | "next_try") => ("format", json!("date-time")),
        _ => return None,
    })
}

/// Returns the schema of a value that has all of these samples.
fn schema(document: &str, samples: &[&Value]) -> Value {
    let kinds: BTreeSet<&str> = samples.iter().map(|sample| kind(sample)).collect();
    let mut schema = Map::new();
    schema.insert(
        "type".to_owned(),
        match kinds.iter().collect::<Vec<_>>()[..] {
            [one] => json!(one),
            _ => json!(kinds),
        },
    );
    let objects: Vec<_> = samples.iter().filter_map(|it| it.as_object()).collect();
    if !objects.is_empty() {
        let keys: BTreeSet<&String> = objects.iter().flat_map(|it| it.keys()).collect();
        let is_required = |key: &&&String| objects.iter().all(|it| it.contains_key(**key));
        let required: Vec<_> = keys.iter().filter(is_required).collect();
        let properties = keys.iter().map(|key| {
            let samples: Vec<_> = objects.iter().filter_map(|it| it.get(*key)).collect();
            let mut property = self::schema(document, &samples);
            if let Some((keyword, value)) = remarks(document, key) {
                let has_null = property["type"].is_array();
                property[keyword] = value;
                let words = property.get_mut("enum").and_then(Value::as_array_mut);
                if let (true, Some(words)) = (has_null, words) {
                    words.push(Value::Null);
                }
            }
            ((*key).clone(), property)
        });
        schema.insert("properties".to_owned(), properties.collect());
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
    }
    let items: Vec<_> = samples
        .iter()
        .filter_map(|it| it.as_array())
        .flatten()
        .collect();
    if !items.is_empty() {
        let is_service = document == "status";
        let items = if is_service {
            reference("schemas", "service")
        } else {
            self::schema(document, &items)
        };
        schema.insert("items".to_owned(), items);
    }
    schema.into()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Returns the schemas of all documents.
fn schemas() -> Map<String, Value> {
    let all = documents::all().into_iter().map(|document| {
        let samples: Vec<_> = document.samples.iter().collect();
        (document.name.to_owned(), schema(document.name, &samples))
    });
    let mut all: Map<String, Value> = all.collect();
    // Documents that have all fields of another one.
    for (name, base) in [
        ("healthy", "service"),
        ("given-up", "refusal"),
        ("mistakes", "refusal"),
    ] {
        let mut own = all[name].take();
        let inherited: Vec<String> = fields(&all[base]).cloned().collect();
        if let Some(properties) = own["properties"].as_object_mut() {
            properties.retain(|key, _| !inherited.contains(key));
        }
        if let Some(required) = own["required"].as_array_mut() {
            required.retain(|key| !inherited.iter().any(|it| key == it));
        }
        all[name] = json!({ "allOf": [reference("schemas", base), own] });
    }
    all
}

fn fields(schema: &Value) -> impl Iterator<Item = &String> {
    schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
}

/// Returns the document, with a line for each path and each component.
fn generated() -> String {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for described in operations() {
        let (path, method) = place(&described.route);
        let path = paths.entry(path).or_default();
        path.insert(method, operation(&described));
    }
    let tags = "entity tags of definitions (RFC 9110, section 13.1)";
    let trace = "position of the request in a trace (W3C Trace Context)";
    let parameter = |kind: &str, name: &str, what: &str| {
        let mut parameter = json!({
            "in": kind,
            "name": name,
            "description": what,
            "schema": { "type": "string" },
        });
        if kind == "path" {
            parameter["required"] = true.into();
        }
        parameter
    };
    let parameters = json!({
        "names": parameter("path", "names", "name of a service; where several services can be named, separated by commas"),
        "owner": parameter("query", "owner", "owner of the services in the registry"),
        "with-dependents": parameter("query", "with-dependents", "if present, also stop the services that need these"),
        "if-match": parameter("header", "If-Match", tags),
        "if-none-match": parameter("header", "If-None-Match", tags),
        "traceparent": parameter("header", "traceparent", trace),
        "tracestate": parameter("header", "tracestate", trace),
    });
    let error =
        json!({ "description": "error", "content": content("application/json", &["refusal"]) });
    let info = json!({
        "title": "mainstay",
        "version": "1",
        "description": "The control socket of a supervisor. Fields may be added, none is renamed or removed.",
    });
    let mut text = format!("{{\"openapi\":\"3.1.0\",\n\"info\":{info},\n\"paths\":{{");
    let lines = |text: &mut String, lines: Vec<(String, Value)>| {
        for (number, (name, value)) in lines.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(text, "{comma}\n{}:{value}", json!(name)).expect("memory");
        }
    };
    lines(
        &mut text,
        paths
            .into_iter()
            .map(|(path, it)| (path, it.into()))
            .collect(),
    );
    text += "},\n\"components\":{\"responses\":{";
    lines(&mut text, vec![("error".to_owned(), error)]);
    text += "},\n\"parameters\":{";
    lines(
        &mut text,
        parameters
            .as_object()
            .expect("a table")
            .clone()
            .into_iter()
            .collect(),
    );
    text += "},\n\"schemas\":{";
    lines(&mut text, schemas().into_iter().collect());
    text + "}}}\n"
}

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

#[test]
fn the_document_is_generated_from_routes_and_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let generated = generated();
    if env::var_os("MAINSTAY_BLESS").is_some() {
        fs::write(&path, &generated).expect("written");
    }
    assert_eq!(fs::read_to_string(&path).expect("a document"), generated);
}

#[test]
fn every_route_is_in_the_document_and_every_path_is_a_route() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let mut expected = BTreeSet::new();
    for operation in operations() {
        let (path, method) = place(&operation.route);
        let parsed = Route::parse(
            &operation.route.method(),
            &path.replace(NAMES, "a").parse().expect("a path"),
        );
        let expect = place(&operation.route).0.replace(NAMES, "a");
        assert_eq!(parsed.map(|route| place(&route).0), Ok(expect));
        assert!(expected.insert((path, method)), "{}", operation.summary);
    }
    let documented = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").keys();
        methods.map(|method| (path.clone(), method.clone()))
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), expected);
    // Each kind of request that the client can make.
    let kinds: BTreeSet<_> = operations()
        .iter()
        .map(|it| std::mem::discriminant(&it.route))
        .map(|kind| format!("{kind:?}"))
        .collect();
    assert_eq!(kinds.len(), 15);
}

#[test]
fn every_sample_is_valid_and_every_field_documented() {
    let openapi = document();
    for document in documents::all() {
        let schema = json!({
            "$ref": format!("#/components/schemas/{}", document.name),
            "components": openapi["components"],
            "unevaluatedProperties": false,
        });
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        for sample in &document.samples {
            let errors: Vec<_> = validator
                .iter_errors(sample)
                .map(|it| it.to_string())
                .collect();
            assert!(errors.is_empty(), "{}: {errors:?}", document.name);
        }
        let mut renamed = document.samples[0].clone();
        renamed["no_such_field"] = json!(1);
        assert!(!validator.is_valid(&renamed), "{}", document.name);
    }
}

/// Judged by another implementation, if Python and `openapi-spec-validator` are installed.
#[test]
fn the_document_is_valid_by_the_standard() {
    const PROGRAM: &str = "import json, sys\n\
        from openapi_spec_validator import validate\n\
        validate(json.load(open(sys.argv[1])))\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let python = |program: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", program]).arg(&path).output()
    };
    if !python("import openapi_spec_validator").is_ok_and(|it| it.status.success()) {
        return mainstay_testkit::skip("openapi-spec-validator is not installed");
    }
    let output = python(PROGRAM).expect("Python runs");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{why}");
}
