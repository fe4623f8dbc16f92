//! Decoding of the tree into typed values. One declaration defines a table's type, decoder,
//! defaults and JSON Schema, so that they cannot diverge: see the macros [`table!`] and
//! [`one_of!`].

use serde_json::{Map as JsonMap, Value as Json, json};

use super::diagnostic::{Code, Findings, Shown};
use super::tree::{Entry, Node, Span, Spanned, Value};
use crate::suggest::{did_you_mean, one_of_these};

/// A type that can be decoded from a manifest.
pub(super) trait Decode: Sized {
    /// Decodes a value. Returns `None` if the value is invalid, after recording the error.
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self>;

    /// Returns the JSON Schema of the type.
    fn schema() -> Json;

    /// Returns the value as a default in the schema; null for none.
    fn show(&self) -> Json {
        Json::Null
    }
}

/// A type that is written as a single string.
pub(super) trait FromText: Sized {
    /// The description in "expected …", such as "a duration".
    const WHAT: &'static str;

    /// Parses the text. The error has a code, a message and help.
    fn from_text(text: &str) -> Result<Self, Mistake>;

    /// Returns the JSON Schema of the text.
    fn text_schema() -> Json {
        json!({ "type": "string" })
    }

    /// Returns the text form of the value.
    fn to_text(&self) -> Option<String> {
        None
    }

    /// Returns the help for an integer in place of the text.
    fn from_integer(_: i64) -> Option<String> {
        None
    }
}

/// An error in a text value.
pub(super) struct Mistake {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Mistake {
    pub(super) fn new(code: Code, message: impl Into<String>, help: &str) -> Self {
        Self {
            code,
            message: message.into(),
            help: Some(help.to_owned()),
        }
    }
}

impl<T: FromText> Decode for T {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let Value::Text(text) = &node.value else {
            let help = match node.value {
                Value::Integer(integer) => T::from_integer(integer),
                _ => None,
            };
            return wrong_type(node, T::WHAT, help.as_deref(), findings);
        };
        T::from_text(text)
            .map_err(|m| findings.add(m.code, node.span, m.message, m.help.as_deref()))
            .ok()
    }

    fn schema() -> Json {
        T::text_schema()
    }

    fn show(&self) -> Json {
        self.to_text().map_or(Json::Null, Json::String)
    }
}

/// Records that `node` has the wrong type.
pub(super) fn wrong_type<T>(
    node: &Node<'_>,
    what: &str,
    help: Option<&str>,
    findings: &mut Findings,
) -> Option<T> {
    let message = format!("expected {what}, found {}", node.value.kind());
    findings.add(Code::WrongType, node.span, message, help);
    None
}

impl<T: Decode> Decode for Vec<Spanned<T>> {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return wrong_type(
                node,
                "a list",
                Some("write it in brackets: [ … ]"),
                findings,
            );
        };
        let decoded = items.iter().map(|item| spanned(item, findings));
        // All items are decoded, so that every error is reported even if an earlier item is
        // invalid.
        let decoded: Vec<_> = decoded.collect();
        decoded.into_iter().collect()
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

pub(super) fn spanned<T: Decode>(node: &Node<'_>, findings: &mut Findings) -> Option<Spanned<T>> {
    let span = node.span;
    T::decode(node, findings).map(|value| Spanned { value, span })
}

/// An optional value, absent if written as `"none"`.
pub(super) struct OrNone<T>(pub(super) Option<T>);

impl<T: Decode> Decode for OrNone<T> {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "none" => Some(Self(None)),
            Value::Integer(0) if !fits::<T>(node) && T::schema()["type"] != "object" => {
                let help = Some("write \"none\"");
                wrong_type(node, "an amount above zero", help, findings)
            }
            _ => T::decode(node, findings).map(|value| Self(Some(value))),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "none" }, T::schema()] })
    }

    fn show(&self) -> Json {
        self.0.as_ref().map_or(json!("none"), Decode::show)
    }
}

/// An optional value, absent if written as `"unlimited"`.
pub(super) struct OrUnlimited<T>(pub(super) Option<T>);

impl<T: Decode> Decode for OrUnlimited<T> {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "unlimited" => Some(Self(None)),
            _ => T::decode(node, findings).map(|value| Self(Some(value))),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "unlimited" }, T::schema()] })
    }

    fn show(&self) -> Json {
        self.0.as_ref().map_or(json!("unlimited"), Decode::show)
    }
}

/// A single value, or a table that specifies more.
pub(super) enum OrTable<S, T> {
    Single(S),
    Table(T),
}

impl<S: Decode, T: Table> Decode for OrTable<S, T> {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Table(_) => T::decode(node, findings).map(Self::Table),
            _ => S::decode(node, findings).map(Self::Single),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [S::schema(), T::schema()] })
    }

    fn show(&self) -> Json {
        match self {
            Self::Single(single) => single.show(),
            Self::Table(table) => table.show(),
        }
    }
}

const NAME_IT: &str = "write [service.NAME] instead of [service]: each service has its own table";

/// Tables by name, in the order of the text. An invalid table is kept as a name only.
pub(super) struct Named<T>(pub(super) Vec<(Spanned<String>, Option<T>)>);

impl<T: Decode> Decode for Named<T> {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            return wrong_type(node, "a table", Some(NAME_IT), findings);
        };
        // Only a table can be a service. Other values are the keys of a service whose name is
        // missing.
        if let Some(entry) = entries
            .iter()
            .find(|entry| !matches!(entry.node.value, Value::Table(_)))
        {
            let message = format!(
                "expected the table of a service, found the key `{}`",
                Shown(&entry.key.value)
            );
            findings.add(Code::WrongType, entry.key.span, message, Some(NAME_IT));
            return None;
        }
        let named = entries.iter().map(|Entry { key, node }| {
            let name = Spanned {
                value: key.value.to_string(),
                span: key.span,
            };
            (name, T::decode(node, findings))
        });
        Some(Self(named.collect()))
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema(), "minProperties": 1 })
    }
}

/// A table declared by [`table!`].
pub(super) trait Table: Decode {
    /// Returns the defaults, which apply to an absent table.
    fn absent() -> Self;
    /// Returns the keys that accept this value.
    fn fitting(node: &Node<'_>) -> Vec<&'static str>;
}

/// A function that returns the help for an unknown key, with its value and the keys that are known.
pub(super) type UnknownKey = fn(&str, &Value<'_>, &[&str]) -> Option<String>;

/// The keys of a table. Keys that have not been requested by the time of [`Keys::close`] are
/// unknown.
pub(super) struct Keys<'t, 'f> {
    entries: &'t [Entry<'t>],
    pub(super) span: Span,
    known: Vec<&'static str>,
    pub(super) findings: &'f mut Findings,
}

impl<'t, 'f> Keys<'t, 'f> {
    /// Opens a table. If `node` is not a table, the help names the keys from `fitting`, which
    /// accept such a value.
    pub(super) fn open(
        node: &'t Node<'t>,
        findings: &'f mut Findings,
        fitting: impl FnOnce() -> Vec<&'static str>,
    ) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            let help = match &*fitting() {
                [key] => format!("write it in braces, with its key: {{ {key} = … }}"),
                [key, others @ ..] if others.len() < 3 => {
                    let others = others.join("`, `");
                    format!("write it in braces, with its key: {{ {key} = … }} (or `{others}`)")
                }
                _ => "write it in braces: { … }".to_owned(),
            };
            return wrong_type(node, "a table", Some(&help), findings);
        };
        Some(Self {
            entries,
            span: node.span,
            known: Vec::with_capacity(20),
            findings,
        })
    }

    pub(super) fn find(&mut self, key: &'static str) -> Option<&'t Entry<'t>> {
        self.known.push(key);
        self.entries.iter().find(|entry| entry.key.value == key)
    }

    pub(super) fn optional<T: Decode>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        let entry = self.find(key)?;
        spanned(&entry.node, self.findings)
    }

    pub(super) fn required<T: Decode>(
        &mut self,
        key: &'static str,
        about: &str,
    ) -> Option<Spanned<T>> {
        let Some(entry) = self.find(key) else {
            self.findings.missing_key(self.span, key, about);
            return None;
        };
        spanned(&entry.node, self.findings)
    }

    pub(super) fn defaulted<T: Decode>(&mut self, key: &'static str, default: T) -> Spanned<T> {
        let span = self.span;
        self.optional(key).unwrap_or(Spanned {
            value: default,
            span,
        })
    }

    /// Reports the keys that are unknown.
    pub(super) fn close(self, help: UnknownKey) {
        for Entry { key, node } in unknown(self.entries, &self.known) {
            let message = format!("unknown key `{}`", Shown(&key.value));
            let help = help(&key.value, &node.value, &self.known)
                .or_else(|| did_you_mean(&key.value, self.known.iter().copied()))
                .unwrap_or_else(|| one_of_these(&self.known));
            self.findings
                .add(Code::UnknownKey, key.span, message, Some(&help));
        }
    }
}

/// Returns the entries whose keys are not in `known`.
fn unknown<'t>(entries: &'t [Entry<'t>], known: &[&str]) -> impl Iterator<Item = &'t Entry<'t>> {
    entries
        .iter()
        .filter(|entry| !known.contains(&&*entry.key.value))
}

/// A set of keys exactly one of which is present; an enum with a key for each variant.
pub(super) trait OneOf: Sized {
    /// Decodes the values of this set's keys and adds each key that is present to `found`.
    fn read(keys: &mut Keys<'_, '_>, found: &mut Vec<(Spanned<&'static str>, Option<Self>)>);
    /// Returns the keys that accept this value.
    fn fitting(node: &Node<'_>) -> Vec<&'static str>;
    /// Adds the keys and their schemas.
    fn properties(properties: &mut JsonMap<String, Json>);
}

/// Returns whether a key of this type accepts this value.
pub(super) fn fits<T: Decode>(node: &Node<'_>) -> bool {
    let mut findings = Findings::default();
    T::decode(node, &mut findings).is_some() && findings.is_empty()
}

/// Reads exactly one of the keys of `T`, or at most one if `required` is false. Also returns `None`
/// if the keys are invalid, after recording the error.
pub(super) fn read_one_of<T: OneOf>(keys: &mut Keys<'_, '_>, required: bool) -> Option<Spanned<T>> {
    let mut found = Vec::new();
    let known_before = keys.known.len();
    T::read(keys, &mut found);
    let names = one_of_these(keys.known.get(known_before..).unwrap_or_default());
    found.sort_by_key(|(key, _)| key.span);
    if let [(first, _), (second, _), ..] = &*found {
        let message = format!(
            "`{}` and `{}` are mutually exclusive",
            first.value, second.value
        );
        keys.findings
            .add(Code::OneOf, second.span, message, Some(&names));
        return None;
    }
    match found.pop() {
        Some((key, value)) => value.map(|value| Spanned {
            value,
            span: key.span,
        }),
        // An unknown key is probably a misspelling of the missing one, and is reported itself.
        None if required && unknown(keys.entries, &keys.known).next().is_none() => {
            let message = "exactly one of several keys is required";
            keys.findings
                .add(Code::OneOf, keys.span, message, Some(&names));
            None
        }
        None => None,
    }
}

/// Adds the schema of [`read_one_of`].
pub(super) fn one_of_schema<T: OneOf>(schema: &mut Json, required: bool) {
    let mut keys = JsonMap::new();
    T::properties(&mut keys);
    let mut alternatives: Vec<Json> = keys.keys().map(|k| json!({ "required": [k] })).collect();
    if !required {
        alternatives.push(json!({ "not": { "anyOf": alternatives.clone() } }));
    }
    schema["oneOf"] = Json::Array(alternatives);
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.extend(keys);
    }
}

/// Returns the schema of one key.
pub(super) fn property<T: Decode>(about: &str, default: Option<T>) -> Json {
    let mut schema = T::schema();
    schema["description"] = about.trim().into();
    match default.map(|value| value.show()) {
        None | Some(Json::Null) => {}
        Some(shown) => schema["default"] = shown,
    }
    schema
}

/// Declares tables. `key: Type` is optional, `key: Type = default` always has a value, and `key:
/// Type [required]` is an error if missing. `..key: Enum [required|optional]` includes the keys of
/// a [`one_of!`]. `unknown_key` returns the help for other keys. The field `sound` is set if the
/// table has no errors, so that a rule about two keys is not applied to a default that replaces an
/// invalid value.
macro_rules! table {
    (unknown_key: $help:path; $(
        $(#[doc = $about:literal])* $Name:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $T:ty $([$required:ident])? $(= $default:expr)?,
            )*
            $(..$one:ident: $One:ty [$mode:ident],)?
        }
    )*) => {$(
        $(#[doc = $about])*
        pub(super) struct $Name {
            $($(#[doc = $doc])* pub(super) $key: table!(@type $T $(= $default)?),)*
            $(pub(super) $one: Option<Spanned<$One>>,)?
            pub(super) sound: bool,
        }

        impl Decode for $Name {
            fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
                let before = findings.count();
                let mut keys = Keys::open(node, findings, || Self::fitting(node))?;
                let mut table = Self {
                    $($key: table!(
                        @read keys, $key, concat!($($doc),*), $([$required])? $(= $default)?
                    ),)*
                    $($one: decode::read_one_of(&mut keys, table!(@is_required $mode)),)?
                    sound: true,
                };
                keys.close($help);
                table.sound = findings.count() == before;
                Some(table)
            }

            fn schema() -> serde_json::Value {
                let mut schema = serde_json::json!({
                    "type": "object", "properties": {}, "additionalProperties": false,
                });
                let required: &[&str] = &[$($(table!(@name $required $key),)?)*];
                if !required.is_empty() {
                    schema["required"] = required.into();
                }
                $(schema["properties"][stringify!($key)] =
                    decode::property::<$T>(concat!($($doc),*), table!(@default $(= $default)?));)*
                $(decode::one_of_schema::<$One>(&mut schema, table!(@is_required $mode));)?
                schema
            }
        }

        impl Table for $Name {
            fn absent() -> Self {
                Self {
                    $($key: table!(@absent $(= $default)?),)*
                    $($one: None::<Spanned<$One>>,)?
                    sound: true,
                }
            }

            fn fitting(node: &Node<'_>) -> Vec<&'static str> {
                let keys: &[Option<&'static str>] =
                    &[$(decode::fits::<$T>(node).then_some(stringify!($key)),)*];
                let keys: Vec<&'static str> = keys.iter().copied().flatten().collect();
                $(let keys = [keys, <$One as OneOf>::fitting(node)].concat();)?
                keys
            }
        }
    )*};
    (@absent) => { None };
    (@absent = $default:expr) => { Spanned { value: $default, span: Default::default() } };
    (@type $T:ty) => { Option<Spanned<$T>> };
    (@type $T:ty = $default:expr) => { Spanned<$T> };
    (@read $keys:ident, $key:ident, $doc:expr,) => { $keys.optional(stringify!($key)) };
    (@read $keys:ident, $key:ident, $doc:expr, = $default:expr) => {
        $keys.defaulted(stringify!($key), $default)
    };
    (@read $keys:ident, $key:ident, $doc:expr, [required]) => {
        $keys.required(stringify!($key), $doc.trim())
    };
    (@name required $key:ident) => { stringify!($key) };
    (@default) => { None };
    (@default = $default:expr) => { Some($default) };
    (@is_required required) => { true };
    (@is_required optional) => { false };
}

/// Declares the variant for each key of an enum, exactly one of which a table contains. `..Other =>
/// Variant` includes the keys of another such enum.
macro_rules! one_of {
    ($($Enum:ty {
        $($(#[doc = $doc:literal])* $key:ident: $T:ty => $variant:expr,)*
        $(..$Other:ty => $wrap:expr,)?
    })*) => {$(
        impl OneOf for $Enum {
            fn read(
                keys: &mut Keys<'_, '_>,
                found: &mut Vec<(Spanned<&'static str>, Option<Self>)>,
            ) {
                $(if let Some(entry) = keys.find(stringify!($key)) {
                    let value = <$T as Decode>::decode(&entry.node, keys.findings);
                    let key = Spanned { value: stringify!($key), span: entry.key.span };
                    found.push((key, value.map($variant)));
                })*
                $(let mut others = Vec::new();
                <$Other as OneOf>::read(keys, &mut others);
                found.extend(others.into_iter().map(|(key, value)| (key, value.map($wrap))));)?
            }

            fn fitting(node: &Node<'_>) -> Vec<&'static str> {
                let keys: &[Option<&'static str>] =
                    &[$(decode::fits::<$T>(node).then_some(stringify!($key)),)*];
                let keys: Vec<&'static str> = keys.iter().copied().flatten().collect();
                $(let keys = [keys, <$Other as OneOf>::fitting(node)].concat();)?
                keys
            }

            fn properties(properties: &mut serde_json::Map<String, serde_json::Value>) {
                $(properties.insert(
                    stringify!($key).to_owned(),
                    decode::property::<$T>(concat!($($doc),*), None),
                );)*
                $(<$Other as OneOf>::properties(properties);)?
            }
        }
    )*};
}

pub(super) use {one_of, table};
