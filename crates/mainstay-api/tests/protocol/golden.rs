//! Every document of the protocol, compared with committed files. `MAINSTAY_BLESS=1` writes the
//! files of the current version (`v1`); those of earlier versions are never changed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_core::events::StoredEvent;
use serde_json::Value;

use super::documents;

fn golden_dir(version: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    tests.join(version)
}

fn golden(version: &str, name: &str) -> Vec<Value> {
    let path = golden_dir(version).join(format!("{name}.json"));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("a list of documents")
}

/// Fails unless every field of `old` is in `new`, with the same value.
#[track_caller]
fn assert_kept(old: &Value, new: &Value, path: &str) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let path = format!("{path}.{key}");
                match new.get(key) {
                    Some(new) => assert_kept(value, new, &path),
                    // A field that may be absent is null by another name.
                    None => assert!(value.is_null(), "{path} is lost"),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                assert_kept(old, new, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(old, new, "{path}"),
    }
}

/// Returns the document with a field that no version has, in each of its objects.
fn with_unknown_fields(document: &Value) -> Value {
    match document {
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(key, value)| (key.clone(), with_unknown_fields(value)));
            let unknown = ("of_a_later_version".to_owned(), Value::Bool(true));
            fields.chain([unknown]).collect()
        }
        Value::Array(items) => items.iter().map(with_unknown_fields).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_document_is_written_and_read_as_committed() {
    for document in documents::all() {
        let name = document.name;
        if env::var_os("MAINSTAY_BLESS").is_some() {
            let text = serde_json::to_string_pretty(&document.samples).expect("JSON");
            let path = golden_dir("v1").join(format!("{name}.json"));
            fs::create_dir_all(golden_dir("v1")).expect("a directory");
            fs::write(path, text + "\n").expect("the file is written");
        }
        let golden = golden("v1", name);
        assert_eq!(document.samples, golden, "{name}");
        let Some(read) = document.read else { continue };
        for sample in &golden {
            let read = read(sample);
            assert_eq!(read.as_ref().ok(), Some(sample), "{name}: {read:?}");
        }
    }
}

#[test]
fn documents_of_the_version_before_are_read() {
    for document in documents::all() {
        let Some(read) = document.read else { continue };
        for old in golden("v0", document.name) {
            let read = read(&old).unwrap_or_else(|error| {
                panic!("{}: {error}: {old}", document.name);
            });
            assert_kept(&old, &read, document.name);
        }
    }
}

/// Fields are only ever added: the version before, which ignores unknown ones, reads what is
/// written today.
#[test]
fn no_field_of_the_version_before_is_renamed_or_removed() {
    for document in documents::all() {
        for (old, new) in golden("v0", document.name).iter().zip(&document.samples) {
            match document.name {
                // The text of a mistake is not part of the protocol.
                "mistakes" => {
                    let fields = |mistakes: &Value| {
                        let mistake = mistakes["mistakes"][0].as_object();
                        mistake
                            .expect("a mistake")
                            .keys()
                            .cloned()
                            .collect::<Vec<_>>()
                    };
                    assert_eq!(fields(old), fields(new));
                }
                name => assert_kept(old, new, name),
            }
        }
    }
}

#[test]
fn unknown_fields_are_ignored() {
    for document in documents::all() {
        let Some(read) = document.read else { continue };
        for sample in &document.samples {
            let read = read(&with_unknown_fields(sample));
            assert_eq!(
                read.as_ref().ok(),
                Some(sample),
                "{}: {read:?}",
                document.name
            );
        }
    }
}

#[test]
fn every_event_is_read_by_the_reader_of_stored_events() {
    for version in ["v0", "v1"] {
        for event in golden(version, "event") {
            let line = event.to_string();
            let read = StoredEvent::parse(line.as_bytes()).expect("an event");
            assert_eq!(event["event"], *read.event);
            assert_eq!(event["message"], *read.message);
            assert_eq!(read.role.is_some(), event.get("beside").is_some());
        }
    }
}
