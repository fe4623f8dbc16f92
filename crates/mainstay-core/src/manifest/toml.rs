//! The TOML parser. It continues after errors, so that all of them are reported.

use toml::Spanned as TomlSpanned;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::diagnostic::{Code, Findings};
use super::tree::{Entry, MAX_DEPTH, Node, Span, Value};

pub(super) fn read<'a>(text: &'a str, findings: &mut Findings) -> Option<Node<'a>> {
    if let Some(span) = too_deep(text) {
        findings.too_deep(span);
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let (code, help) = match error.message() {
            "duplicate key" => (Code::DuplicateKey, Some("keep one of them")),
            message if message.contains("recurs") => (Code::TooDeep, None),
            _ => (Code::Syntax, None),
        };
        let span = error.span().unwrap_or_default().into();
        findings.add(code, span, error.message(), help);
    }
    table(root.into_inner(), Span::default(), 0, findings)
}

/// Returns the position at which brackets are nested deeper than [`MAX_DEPTH`]. The parser limits
/// both brackets and the dots of a key to 80, but not their combination. That allows 6,400 levels,
/// whose drop exhausts a small stack.
fn too_deep(text: &str) -> Option<Span> {
    let mut depth = 0_usize;
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some((token.span().start()..token.span().end()).into());
        }
    }
    None
}

fn table<'a>(
    table: DeTable<'a>,
    span: Span,
    depth: usize,
    findings: &mut Findings,
) -> Option<Node<'a>> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, item) in table {
        let span = key.span().into();
        entries.push(Entry::new(
            key.into_inner(),
            span,
            value(item, depth + 1, findings)?,
        ));
    }
    entries.sort_by_key(|entry| entry.key.span);
    Some(Node {
        value: Value::Table(entries),
        span,
    })
}

fn value<'a>(
    item: TomlSpanned<DeValue<'a>>,
    depth: usize,
    findings: &mut Findings,
) -> Option<Node<'a>> {
    let span = item.span().into();
    if depth > MAX_DEPTH {
        findings.too_deep(span);
        return None;
    }
    let value = match item.into_inner() {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Foreign("an integer beyond 64 bits"), Value::Integer),
        DeValue::Float(float) => float
            .as_str()
            .parse()
            .map_or(Value::Foreign("a number out of range"), Value::Float),
        DeValue::Boolean(boolean) => Value::Bool(boolean),
        DeValue::Datetime(_) => Value::Foreign("a date or time"),
        DeValue::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                list.push(self::value(item, depth + 1, findings)?);
            }
            Value::List(list)
        }
        DeValue::Table(entries) => return table(entries, span, depth, findings),
    };
    Some(Node { value, span })
}
