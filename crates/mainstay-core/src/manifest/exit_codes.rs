//! The keys of `recovery.codes`: exit codes by number, or by their names on Windows.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::decode::{Decode, wrong_type};
use super::diagnostic::{Code, Findings, Shown};
use super::tree::{Entry, Node, Value};
use crate::spec::CodeAction;
use crate::suggest::did_you_mean;
use crate::windows::status;

/// Exit codes and their actions.
pub(super) struct Codes(pub(super) BTreeMap<i32, CodeAction>);

/// Parses an exit code: a decimal number, signed or unsigned, a hexadecimal one, or a name of
/// Windows. A decimal number has one spelling.
pub(crate) fn exit_code(key: &str) -> Option<i32> {
    if let Some(digits) = key.strip_prefix("0x").or_else(|| key.strip_prefix("0X")) {
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok();
        return code
            .filter(|_| is_hex && digits.len() <= 8)
            .map(u32::cast_signed);
    }
    let number = key.parse::<i64>().ok().filter(|it| it.to_string() == key);
    match number {
        Some(number) => {
            let unsigned = u32::try_from(number).ok().map(u32::cast_signed);
            unsigned.or_else(|| i32::try_from(number).ok())
        }
        None => status::by_name(key),
    }
}

/// Returns the pattern of the keys that [`exit_code`] accepts.
fn exit_code_pattern() -> String {
    let (above, below) = (up_to(u32::MAX), up_to(i32::MIN.unsigned_abs()));
    let names = status::NAMES.map(|(name, _)| name).join("|");
    format!("^(?:0|{above}|-(?:{below})|0[xX][0-9A-Fa-f]{{1,8}}|{names})$")
}

/// Returns a pattern of the decimal numbers from 1 to `last`, which has ten digits.
fn up_to(last: u32) -> String {
    let digits = last.to_string();
    // Numbers that agree with `last` in the first digits and are smaller in the next one.
    let smaller = digits.char_indices().filter_map(|(at, digit)| {
        let first = if at == 0 { '1' } else { '0' };
        let next = char::from_u32(u32::from(digit) - 1).filter(|next| *next >= first)?;
        let rest = digits.len() - at - 1;
        Some(format!("{}[{first}-{next}][0-9]{{{rest}}}|", &digits[..at]))
    });
    format!("[1-9][0-9]{{0,8}}|{}{digits}", smaller.collect::<String>())
}

impl Decode for Codes {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            let help = Some("write { 75 = \"retry\" }");
            return wrong_type(node, "a table of actions", help, findings);
        };
        let mut codes = BTreeMap::new();
        for Entry { key, node } in entries {
            let action = CodeAction::decode(node, findings);
            let Some(code) = exit_code(&key.value) else {
                let message = format!("`{}` is not an exit code", Shown(&key.value));
                let name = did_you_mean(&key.value, status::NAMES.map(|(name, _)| name));
                let help = name.unwrap_or_else(|| {
                    "write a number from 0 to 255; on Windows, also any 32-bit number \
                     (3221225477, -1, 0xC0000005) or a name such as STATUS_ACCESS_VIOLATION"
                        .to_owned()
                });
                findings.add(Code::Number, key.span, message, Some(&help));
                continue;
            };
            let Some(action) = action else { continue };
            if codes.insert(code, action).is_some() {
                let message = format!("another key is the exit code `{}` too", Shown(&key.value));
                let help = Some("write each exit code once");
                findings.add(Code::Conflict, key.span, message, help);
            }
        }
        Some(Self(codes))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "patternProperties": { exit_code_pattern(): CodeAction::schema() },
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema and the decoder accept the same exit codes.
    #[test]
    fn exit_codes() {
        let pattern = regex::Regex::new(&exit_code_pattern()).unwrap();
        for (key, expect) in [
            ("0", Some(0)),
            ("255", Some(255)),
            ("3010", Some(3010)),
            ("2147483647", Some(i32::MAX)),
            ("2147483648", Some(i32::MIN)),
            ("3221225477", Some(-1_073_741_819)),
            ("4294967295", Some(-1)),
            ("-1", Some(-1)),
            ("-2147483648", Some(i32::MIN)),
            ("0xC0000005", Some(-1_073_741_819)),
            ("0Xc0000005", Some(-1_073_741_819)),
            ("0x0", Some(0)),
            ("STATUS_ACCESS_VIOLATION", Some(-1_073_741_819)),
            ("STATUS_CONTROL_C_EXIT", Some(-1_073_741_510)),
            ("4294967296", None),
            ("4294967300", None),
            ("-2147483649", None),
            ("99999999999", None),
            ("0x", None),
            ("0x+1", None),
            ("0x100000000", None),
            ("-0", None),
            ("+1", None),
            ("007", None),
            ("", None),
            ("STATUS_NOTHING", None),
        ] {
            assert_eq!(exit_code(key), expect, "{key}");
            assert_eq!(pattern.is_match(key), expect.is_some(), "{key}");
        }
    }
}
