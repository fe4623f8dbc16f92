use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;

use super::*;
use crate::manifest::write::specs::specs;
use crate::manifest::{parse, write};
use crate::spec::Spec;

fn set(path: &str, value: Json) -> Edit {
    Edit::set(path.split('.'), value)
}

fn remove(path: &str) -> Edit {
    Edit::remove(path.split('.'))
}

#[track_caller]
fn check(format: Format, text: &str, edit: Edit, expect: &str) {
    let patched = patch(text, format, std::slice::from_ref(&edit));
    assert_eq!(patched.as_deref(), Ok(expect), "{edit:?}");
    let windows = text.replace('\n', "\r\n");
    let patched = patch(&windows, format, &[edit]);
    assert_eq!(patched, Ok(expect.replace('\n', "\r\n")));
}

#[test]
fn statements_and_sections_are_patched_in_their_places() {
    for (text, edit, expect) in [
        // A statement.
        (
            "a = 1 # one\nb = 2\n",
            set("a", json!("x")),
            "a = \"x\" # one\nb = 2\n",
        ),
        ("a = 1 # one\n# b\nb = 2\n", remove("a"), "# b\nb = 2\n"),
        ("a = [ # list\n  1,\n] # a\nb = 2\n", remove("a"), "b = 2\n"),
        ("# top\n[t]\n", set("a", json!(1)), "a = 1\n# top\n[t]\n"),
        (
            "a = 1\n\n[t]\n",
            set("b", json!(1)),
            "a = 1\nb = 1\n\n[t]\n",
        ),
        // A section.
        (
            "[s.x]\n  a = 1\n\n[s.y]\n",
            set("s.x.b", json!(2)),
            "[s.x]\n  a = 1\n  b = 2\n\n[s.y]\n",
        ),
        (
            "[s.x] # x\n[s.y]\n",
            set("s.x.b", json!(2)),
            "[s.x] # x\nb = 2\n[s.y]\n",
        ),
        (
            "[s.x]\na = 1\n# y\n[s.y]\nb = 1",
            remove("s.x"),
            "# y\n[s.y]\nb = 1",
        ),
        (
            "[s.x]\na = 1\n[s.x.l]\nb = 1\n",
            set("s.x.l", json!({"c": 1})),
            "[s.x]\na = 1\nl = { c = 1 }\n",
        ),
        (
            "[s.x.l]\nb = 1\n",
            set("s.x.a", json!(1)),
            "[s.x.l]\nb = 1\n\n[s.x]\na = 1\n",
        ),
        (
            "[s.x]\na = 1\n\n[t]\n",
            set("s.y", json!({"a": 1, "b": 2})),
            "[s.x]\na = 1\n\n[s.y]\na = 1\nb = 2\n\n[t]\n",
        ),
        ("[s.x.l]\nb = 1\n", remove("s.x.l"), "[s.x]\n"),
        (
            "[s.x]\n[s.x.l]\nb = 1\n",
            remove("s.x.l.b"),
            "[s.x]\n[s.x.l]\n",
        ),
        // An element of a list of tables.
        (
            "[s]\n[[s.w]]\na = 1\n[[s.w]]\na = 2\n[t]\n",
            remove("s.w"),
            "[s]\n[t]\n",
        ),
    ] {
        check(Format::Toml, text, edit, expect);
    }
}

#[test]
fn dotted_keys_and_tables_in_braces_are_patched_in_their_places() {
    for (text, edit, expect) in [
        // Dotted keys.
        (
            "[s.x]\nl.a = 1\nc = 3\n",
            set("s.x.l.b", json!(2)),
            "[s.x]\nl.a = 1\nl.b = 2\nc = 3\n",
        ),
        (
            "[s.x]\nl.a = 1\nc = 3\n",
            remove("s.x.l.a"),
            "[s.x]\nc = 3\nl = {}\n",
        ),
        (
            "[s.x]\nl.a = 1\nl.b.c = 2\nc = 3\n",
            set("s.x.l", json!(4)),
            "[s.x]\nc = 3\nl = 4\n",
        ),
        (
            "s.x.a = 1\n",
            set("s.x.b.c", json!(true)),
            "s.x.a = 1\ns.x.b.c = true\n",
        ),
        // Tables in braces.
        (
            "l = { a = 1, b = 2 }\n",
            set("l.c", json!([3])),
            "l = { a = 1, b = 2, c = [3] }\n",
        ),
        ("l = { a = 1, b = 2 }\n", remove("l.a"), "l = { b = 2 }\n"),
        ("l = { a = 1, b = 2 }\n", remove("l.b"), "l = { a = 1 }\n"),
        ("l = { a = 1, b = 2, }\n", remove("l.b"), "l = { a = 1, }\n"),
        ("l = {}\n", set("l.a.b", json!(1)), "l = { a.b = 1 }\n"),
        ("l = { }\n", set("l.a", json!(1)), "l = { a = 1 }\n"),
        (
            "l = { m = { a = 1 }, n.o = 2 }\n",
            set("l.n.p", json!(1)),
            "l = { m = { a = 1 }, n.o = 2, n.p = 1 }\n",
        ),
        (
            "l = { m = { a = 1 }, n.o = 2 }\n",
            set("l.m.a", json!("b")),
            "l = { m = { a = \"b\" }, n.o = 2 }\n",
        ),
        // Names in quotes, and what only looks like TOML.
        (
            "['s'.\"x\"]\n\"a\" = '''\n[s.x]\nb = 1'''\n",
            set("s.x.a", json!("'\\")),
            "['s'.\"x\"]\n\"a\" = \"'\\\\\"\n",
        ),
        ("[s.x]\n", set("s.x.a b", json!(1)), "[s.x]\n\"a b\" = 1\n"),
    ] {
        check(Format::Toml, text, edit, expect);
    }
}

#[test]
fn json_is_patched_between_its_commas() {
    let lines = "{\n  \"a\": 1,\n  \"t\": {\n    \"b\": \"x,\\\"}\"\n  }\n}\n";
    for (text, edit, expect) in [
        (lines, set("a", json!([1])), lines.replace("1,", "[1],")),
        (
            lines,
            set("t.b", json!(2)),
            lines.replace("\"x,\\\"}\"", "2"),
        ),
        (
            lines,
            set("t.c", json!(2)),
            lines.replace("\"x,\\\"}\"", "\"x,\\\"}\",\n    \"c\": 2"),
        ),
        (
            lines,
            set("u.v", json!(2)),
            lines.replace("  }\n}", "  },\n  \"u\": { \"v\": 2 }\n}"),
        ),
        (lines, remove("a"), lines.replace("  \"a\": 1,\n", "")),
        (
            lines,
            remove("t.b"),
            lines.replace("    \"b\": \"x,\\\"}\"\n", ""),
        ),
        (lines, remove("t"), "{\n  \"a\": 1\n}\n".to_owned()),
        ("{}", set("a", json!(1)), "{ \"a\": 1 }".to_owned()),
        ("{\"a\":1,\"b\":2}", remove("a"), "{\"b\":2}".to_owned()),
        ("{\"a\":1,\"b\":2}", remove("b"), "{\"a\":1}".to_owned()),
        (
            "{\"a\":[{\"a\":1}]}",
            set("b", json!(-1.5)),
            "{\"a\":[{\"a\":1}], \"b\": -1.5}".to_owned(),
        ),
    ] {
        check(Format::Json, text, edit, &expect);
    }
}

#[test]
fn what_cannot_be_patched_is_refused_and_named() {
    let patched = |text, format, edit| patch(text, format, &[edit]).unwrap_err();
    let yaml = patched("a: 1\n", Format::Yaml, remove("a"));
    assert_eq!(yaml, PatchError::Format(Format::Yaml));
    assert_eq!(
        yaml.to_string(),
        "a manifest in YAML cannot be changed without rewriting it"
    );
    let invalid = patched("a = 1\na = 2\n", Format::Toml, remove("a"));
    assert!(matches!(invalid, PatchError::Invalid(found) if found.len() == 1));
    for (text, path) in [
        ("a.b = 1\n", "a.b"),
        ("[[a.b]]\nc = 1\n", "a.b"),
        ("a.b = [{ c = 1 }]\n", "a.b"),
    ] {
        for edit in [set("a.b.c", json!(1)), remove("a.b.c")] {
            assert_eq!(
                patched(text, Format::Toml, edit),
                PatchError::NotATable(path.to_owned())
            );
        }
    }
    for value in [json!(null), json!([{ "a": null }]), json!(u64::MAX)] {
        let found = patched("a = 1\n", Format::Toml, set("a", value));
        assert_eq!(found, PatchError::Inexpressible("a".to_owned()));
    }
    let unchanged = patch(
        "a = 1",
        Format::Toml,
        &[remove("b"), remove("c.d"), set("a", json!(1))],
    );
    assert_eq!(unchanged.as_deref(), Ok("a = 1"));
}

const NAMES: [&str; 6] = ["a", "b", "log", "a b", "x.y", "ä'\"#"];

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        any::<i64>().prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        (-1e6..1e6_f64).prop_map(Json::from),
        "[ -~ä\n\t]{0,9}".prop_map(Json::from),
    ]
}

fn content() -> impl Strategy<Value = Json> {
    let name = || select(NAMES.to_vec()).prop_map(str::to_owned);
    scalar().prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Json::from),
            btree_map(name(), inner, 0..4)
                .prop_map(|keys| Json::Object(keys.into_iter().collect())),
        ]
    })
}

fn table() -> impl Strategy<Value = Json> {
    let name = select(NAMES.to_vec()).prop_map(str::to_owned);
    btree_map(name, content(), 0..5).prop_map(|keys| Json::Object(keys.into_iter().collect()))
}

/// Writes a text in one of its many spellings.
struct Speller<'a> {
    /// The choices, and the number of those that were made.
    choices: &'a [u8],
    made: usize,
    /// Every line, and the key that its statement is about; none for comments.
    lines: Vec<(Option<Vec<String>>, String)>,
}

impl Speller<'_> {
    /// Returns one of `count` possibilities.
    fn choose(&mut self, count: u8) -> u8 {
        self.made += 1;
        self.choices[self.made % self.choices.len()].wrapping_add(self.made as u8 / 7) % count
    }

    fn line(&mut self, path: &[String], text: &str) {
        let number = self.lines.len();
        if self.choose(3) == 0 {
            self.lines.push((None, format!("  # comment {number}")));
        }
        if self.choose(4) == 0 {
            self.lines.push((None, String::new()));
        }
        let indent = ["", "  ", "\t"][usize::from(self.choose(3))];
        let behind = match self.choose(2) {
            0 => format!(" # {number}"),
            _ => String::new(),
        };
        self.lines
            .push((Some(path.to_vec()), format!("{indent}{text}{behind}")));
    }

    fn name(&mut self, name: &str) -> String {
        match self.choose(3) {
            0 if !name.contains('\'') => format!("'{name}'"),
            1 => Json::from(name).to_string(),
            _ => toml_key(name),
        }
    }

    fn value(&mut self, value: &Json) -> String {
        let (begin, end) =
            [("", ""), (" ", " "), ("\n  ", " # in a list\n")][usize::from(self.choose(3))];
        match value {
            Json::Array(items) if !items.is_empty() => {
                let items: Vec<String> = items.iter().map(|it| self.value(it)).collect();
                format!("[{begin}{}{end}]", items.join(&format!(",{begin}")))
            }
            Json::Object(keys) if !keys.is_empty() => {
                let mut members = Vec::new();
                for (name, value) in keys {
                    members.extend(self.member(String::new(), name, value));
                }
                let comma = if self.choose(4) == 0 { "," } else { "" };
                format!(
                    "{{{begin}{}{comma}{end}}}",
                    members.join(&format!(",{begin}"))
                )
            }
            value => to_toml(value),
        }
    }

    /// Returns the assignments of a key: one, or one for each dotted key.
    fn member(&mut self, prefix: String, name: &str, value: &Json) -> Vec<String> {
        let name = format!("{prefix}{}", self.name(name));
        match value {
            Json::Object(keys) if !keys.is_empty() && self.choose(2) == 0 => {
                let mut all = Vec::new();
                for (key, value) in keys {
                    all.extend(self.member(format!("{name}."), key, value));
                }
                all
            }
            value => vec![format!("{name} = {}", self.value(value))],
        }
    }

    fn section(&mut self, path: &[String], keys: &serde_json::Map<String, Json>) {
        let mut sections = Vec::new();
        for (name, value) in keys {
            let path = [path, std::slice::from_ref(name)].concat();
            match value {
                Json::Object(keys) if self.choose(2) == 0 => sections.push((path, keys)),
                value => {
                    for statement in self.member(String::new(), name, value) {
                        self.line(&path, &statement);
                    }
                }
            }
        }
        for (path, keys) in sections {
            let names: Vec<String> = path.iter().map(|name| self.name(name)).collect();
            // A table with sections needs none of its own.
            let has_lines = keys.values().any(|value| !value.is_object());
            if has_lines || keys.is_empty() || self.choose(2) == 0 {
                let header = format!("[{}]", names.join(" . "));
                self.line(&path, &header);
                self.section(&path, keys);
            } else {
                for (name, keys) in keys {
                    let path = [&*path, std::slice::from_ref(name)].concat();
                    let names = format!("{}.{}", names.join("."), self.name(name));
                    self.line(&path, &format!("[{names}]"));
                    self.section(&path, keys.as_object().expect("a table"));
                }
            }
        }
    }
}

fn apply(content: &mut Json, path: &[String], value: Option<&Json>) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    let Some(keys) = content.as_object_mut() else {
        return;
    };
    match (rest, value) {
        ([], Some(value)) => drop(keys.insert(name.clone(), value.clone())),
        ([], None) => drop(keys.remove(name)),
        (rest, None) if keys.contains_key(name) => apply(&mut keys[name], rest, None),
        (_, None) => {}
        (rest, value) => {
            let next = keys.entry(name).or_insert_with(|| json!({}));
            apply(next, rest, value);
        }
    }
}

/// Returns a path through tables alone: to an existing key, or to a new one.
fn path_in(content: &Json, steps: &[Index]) -> Vec<String> {
    let (mut place, mut path) = (Some(content), Vec::new());
    for step in steps {
        let name = NAMES[step.index(NAMES.len())];
        match place {
            Some(Json::Object(keys)) => place = keys.get(name),
            Some(_) => break,
            None => {}
        }
        path.push(name.to_owned());
    }
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn an_edit_changes_its_key_and_no_other_line(
        content in table(),
        choices in vec(any::<u8>(), 1..40),
        steps in vec(any::<Index>(), 1..4),
        value in proptest::option::of(content()),
        is_windows in any::<bool>(),
    ) {
        let mut speller = Speller { choices: &choices, made: 0, lines: Vec::new() };
        speller.section(&[], content.as_object().expect("a table"));
        let lines = speller.lines;
        let mut text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        if is_windows {
            text = text.replace('\n', "\r\n");
        }
        let read = Patch::new(&text, Format::Toml);
        prop_assert_eq!(read.map(|it| it.content), Ok(content.clone()), "{}", text);
        let path = path_in(&content, &steps);
        let edit = Edit { path: path.clone(), value: value.clone() };
        let patched = patch(&text, Format::Toml, &[edit]);
        let mut expected = content;
        apply(&mut expected, &path, value.as_ref());
        let found = patched.as_ref().map(|it| Patch::new(it, Format::Toml).unwrap().content);
        prop_assert_eq!(found, Ok(expected), "{}\n{:?}", text, patched);
        // What is about neither this key nor the tables around it stays, in its order.
        let patched = patched.unwrap().replace("\r\n", "\n");
        let mut rest = &*patched;
        for (about, line) in &lines {
            let is_other = |about: &Vec<String>| !about.starts_with(&path) && !path.starts_with(about);
            if about.as_ref().is_none_or(is_other) && !line.is_empty() {
                let at = rest.find(&format!("{line}\n"));
                prop_assert!(at.is_some(), "{:?} is lost:\n{}\n{:?}\n{}", line, text, path, patched);
                rest = &rest[at.unwrap() + line.len()..];
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_manifest_is_what_it_was_apart_from_the_edit(
        old in specs(),
        new in specs(),
        key in select(KEYS.to_vec()),
    ) {
        let (old, new) = (&old, &new[0]);
        prop_assume!(old[0].environment == new.environment);
        let (name, take) = key;
        for format in [Format::Toml, Format::Json] {
            let text = write(old, format);
            let path = ["service", old[0].name.as_str(), name];
            let given = write(std::slice::from_ref(new), Format::Json);
            let given: Json = serde_json::from_str(&given).expect("JSON");
            let edit = match &given["service"][new.name.as_str()][name] {
                Json::Null => Edit::remove(path),
                value => Edit::set(path, value.clone()),
            };
            let patched = patch(&text, format, &[edit]).expect("a manifest");
            let mut expected = old.clone();
            take(&mut expected[0], new.clone());
            prop_assert_eq!(parse(&patched, format), Ok(expected), "{}\n{}", text, patched);
        }
    }
}

/// Takes the value of a key over from another service.
type Take = fn(&mut Spec, Spec);

/// Keys whose values do not depend on others.
const KEYS: [(&str, Take); 9] = [
    ("description", |spec, other| {
        spec.description = other.description
    }),
    ("working_dir", |spec, other| {
        spec.working_dir = other.working_dir
    }),
    ("env", |spec, other| spec.env = other.env),
    ("inherit_env", |spec, other| {
        spec.inherit_env = other.inherit_env
    }),
    ("priority", |spec, other| spec.priority = other.priority),
    ("limits", |spec, other| spec.limits = other.limits),
    ("reload", |spec, other| spec.reload = other.reload),
    ("recovery", |spec, other| spec.recovery = other.recovery),
    ("snapshot", |spec, other| spec.snapshot = other.snapshot),
];
