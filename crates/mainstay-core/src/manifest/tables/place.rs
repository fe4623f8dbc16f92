//! Suggestions for keys in the wrong table, based on the schema.

use serde_json::{Map, Value as Json};

use super::{Manifest, ServiceTable};
use crate::manifest::decode::Decode as _;
use crate::manifest::foreign;
use crate::manifest::tree::Value;
use crate::suggest::listed;

/// Returns the help for an unknown key of a table with the keys `known`, if the key belongs
/// elsewhere or to another tool.
pub(super) fn help(key: &str, value: &Value<'_>, known: &[&str]) -> Option<String> {
    of_whole(key, value, known)
        .or_else(|| foreign::help(key, value, known))
        .or_else(|| of_key(key, known))
}

/// Returns the help for a top-level key inside a table. A line appended to a TOML file belongs to
/// its last table.
fn of_whole(key: &str, value: &Value<'_>, known: &[&str]) -> Option<String> {
    let keys = properties(&Manifest::schema());
    let is_in_file = known.iter().any(|known| keys.contains_key(*known));
    // Docker Compose's `environment` is a list or a table.
    let is_meant = match (key, value) {
        ("environment", Value::Text(_)) => true,
        ("environment", _) => false,
        _ => keys.contains_key(key),
    };
    (is_meant && !is_in_file).then(|| {
        format!(
            "`{key}` is a key of the whole file: write it at the top of the file, above the first \
             [service.…]"
        )
    })
}

/// Returns the help for a service key inside one of the service's tables, or the reverse.
fn of_key(key: &str, known: &[&str]) -> Option<String> {
    let service = properties(&ServiceTable::schema());
    let is_service = known.contains(&"command") && known.contains(&"account");
    let is_file = known.contains(&"service");
    if is_file {
        return service
            .contains_key(key)
            .then(|| format!("`{key}` is a key of a service: write it below [service.NAME]"));
    }
    if !is_service {
        return service.contains_key(key).then(|| {
            format!(
                "`{key}` is a key of the service itself: write it above its tables, below \
                 [service.NAME]"
            )
        });
    }
    let tables = service.iter().filter(|(_, schema)| has(schema, key));
    let tables: Vec<&str> = tables.map(|(table, _)| table.as_str()).collect();
    let first = tables.first()?;
    Some(match tables.len() {
        1 => format!("write {first} = {{ {key} = … }}"),
        _ => {
            let all = listed(&tables, "and");
            format!("`{key}` is a key of {all}: write {first} = {{ {key} = … }} or the like")
        }
    })
}

/// Returns whether a value of this schema may be a table with this key.
fn has(schema: &Json, key: &str) -> bool {
    let alternatives = schema["anyOf"].as_array();
    properties(schema).contains_key(key)
        || alternatives.is_some_and(|all| all.iter().any(|schema| has(schema, key)))
}

fn properties(schema: &Json) -> Map<String, Json> {
    schema["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default()
}
