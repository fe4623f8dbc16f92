//! Entries of `log.redact`: a class name, a path into JSON, or a named regular expression.

use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value as Json, json};

use super::RedactTable;
use crate::manifest::decode::{Decode, FromText, Mistake, spanned, wrong_type};
use crate::manifest::diagnostic::{Code, Findings, Shown};
use crate::manifest::tree::{Node, Value};
use crate::manifest::values::Pattern;
use crate::manifest::words::unknown_word;
use crate::spec::redact::{Class, FieldPath, OwnPattern};

/// One entry of `log.redact`.
pub(in crate::manifest) enum RedactEntry {
    Class(Class),
    Field(FieldPath),
    Pattern(OwnPattern),
}

impl Decode for RedactEntry {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text.starts_with('$') => {
                FieldName::decode(node, findings).map(|FieldName(path)| Self::Field(path))
            }
            Value::Text(_) => Class::decode(node, findings).map(Self::Class),
            Value::Table(_) => {
                let table = spanned::<RedactTable>(node, findings)?.value;
                let Expression(regex) = table.regex?.value;
                let LabelName(name) = table.name?.value;
                Some(Self::Pattern(OwnPattern::new(name, regex)))
            }
            _ => {
                let what = "the name of a class, a path or a table";
                let help = "write \"email\", \"$.patient.id\" or { regex = '…', name = \"…\" }";
                wrong_type(node, what, Some(help), findings)
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [Class::schema(), FieldName::schema(), RedactTable::schema()] })
    }
}

impl FromText for Class {
    const WHAT: &'static str = "a class of data";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let class = Self::ALL.into_iter().find(|class| class.name() == text);
        class.ok_or_else(|| unknown_word("a class of data", text, &Self::ALL.map(Self::name)))
    }

    fn text_schema() -> Json {
        json!({ "enum": Self::ALL.map(Self::name) })
    }
}

/// A field path such as `$.a.b` or `$.a[*].b`.
struct FieldName(FieldPath);

impl FromText for FieldName {
    const WHAT: &'static str = "a path to a field";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        FieldPath::new(text).map(Self).ok_or_else(|| {
            let message = format!("`{}` is not a path to a field", Shown(text));
            let help = "write keys after dots, and [*] for every item of a list: \"$.patient.id\", \
                        \"$.orders[*].card\"";
            Mistake::new(Code::FieldPath, message, help)
        })
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "pattern": "^\\$\\." })
    }
}

/// A compiled regular expression.
pub(in crate::manifest) struct Expression(Regex);

impl FromText for Expression {
    const WHAT: &'static str = Pattern::WHAT;

    fn from_text(text: &str) -> Result<Self, Mistake> {
        /// The maximum size of a compiled expression in bytes, for each service that uses it.
        const LARGEST: usize = 1 << 20;
        let Pattern(text) = Pattern::from_text(text)?;
        let regex = RegexBuilder::new(&text).size_limit(LARGEST).build();
        regex.map(Self).map_err(|_| {
            let message = "this regular expression needs more than 1 MiB when compiled";
            let help =
                "use smaller repetitions or character classes: (?-u:\\d) matches only 0 to 9";
            Mistake::new(Code::Regex, message, help)
        })
    }

    fn text_schema() -> Json {
        Pattern::text_schema()
    }
}

/// The label that replaces a match.
pub(in crate::manifest) struct LabelName(String);

impl FromText for LabelName {
    const WHAT: &'static str = "a name";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
            let message = format!("`{}` is not a valid name", Shown(text));
            let help = "a name consists of 1 to 64 letters, digits, -, _ and .";
            return Err(Mistake::new(Code::Text, message, help));
        }
        Ok(Self(text.to_owned()))
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })
    }
}
