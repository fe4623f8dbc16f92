//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the position of a request in the
//! distributed trace of its client.
//!
//! Mainstay takes part in a trace by passing it on unchanged. A context that violates the
//! specification is no context: no request fails because of it.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use serde::{Serialize, Serializer};

/// The length of a `traceparent` of version 00. Those of later versions are longer, or as long.
const PARENT_LENGTH: usize = 55;
/// The number of bytes of `tracestate` that are passed on.
const MOST_STATE: usize = 512;
/// The number of list members that a `tracestate` may have.
const MOST_MEMBERS: usize = 32;
/// The length from which list members are dropped first, if there are too many bytes.
const LONG_MEMBER: usize = 128;
/// The flag of a request that its client records. No other flag is defined.
const SAMPLED: u8 = 1;

/// The trace context of a request. `Display` formats it as a `traceparent` of version 00.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: NonZeroU128,
    parent: NonZeroU64,
    is_sampled: bool,
    /// The list members of `tracestate`; empty if there are none.
    state: String,
}

impl TraceContext {
    /// The headers of a request, in lower case.
    pub const PARENT_HEADER: &str = "traceparent";
    /// See [`PARENT_HEADER`](Self::PARENT_HEADER).
    pub const STATE_HEADER: &str = "tracestate";
    /// The environment variables of a command.
    pub const PARENT_VARIABLE: &str = "TRACEPARENT";
    /// See [`PARENT_VARIABLE`](Self::PARENT_VARIABLE).
    pub const STATE_VARIABLE: &str = "TRACESTATE";

    /// Parses a `traceparent`, and the `tracestate` that accompanies it. An invalid `tracestate` is
    /// dropped. Several headers of that name are one, joined by commas.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let (head, rest) = parent.split_at_checked(PARENT_LENGTH)?;
        let mut fields = head.split('-');
        let version = hex(fields.next()?, 2)?;
        let is_complete = match version {
            0 => rest.is_empty(),
            0xff => false,
            // A later version may append fields.
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let trace = NonZeroU128::new(hex(fields.next()?, 32)?)?;
        let parent = NonZeroU64::new(hex(fields.next()?, 16)?.try_into().ok()?)?;
        let flags = u8::try_from(hex(fields.next()?, 2)?).ok()?;
        (is_complete && fields.next().is_none()).then(|| Self {
            trace,
            parent,
            is_sampled: flags & SAMPLED != 0,
            state: state.and_then(list).unwrap_or_default(),
        })
    }

    /// Returns `tracestate`, unless it is empty.
    pub fn state(&self) -> Option<&str> {
        Some(self.state.as_str()).filter(|state| !state.is_empty())
    }

    /// Returns the environment variables that pass the context to a command.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        self.named([Self::PARENT_VARIABLE, Self::STATE_VARIABLE])
    }

    /// Returns the headers that pass the context on with a request.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        self.named([Self::PARENT_HEADER, Self::STATE_HEADER])
    }

    fn named(
        &self,
        names: [&'static str; 2],
    ) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let values = [Some(self.to_string()), self.state().map(str::to_owned)];
        let named = names.into_iter().zip(values);
        named.filter_map(|(name, value)| Some((name, value?)))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled) * SAMPLED;
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.parent)
    }
}

/// As text, like `Display`: without `tracestate`, which any vendor fills.
impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses a number of `length` hexadecimal digits in lower case.
fn hex(text: &str, length: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_one = text.len() == length && text.bytes().all(is_digit);
    u128::from_str_radix(text, 16).ok().filter(|_| is_one)
}

/// Parses a `tracestate`: list members, without the optional white space between them. If there are
/// too many bytes, drops long members, then the last ones (section 3.3.1.5).
fn list(text: &str) -> Option<String> {
    let members = text.split(',').map(|it| it.trim_matches([' ', '\t']));
    let mut members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    let mut keys = Vec::with_capacity(members.len());
    for member in &members {
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MOST_MEMBERS {
            return None;
        }
        keys.push(key);
    }
    let length = |members: &[&str]| members.iter().map(|it| it.len() + 1).sum::<usize>();
    let is_too_long = |members: &[&str]| length(members) > MOST_STATE + 1;
    while is_too_long(&members)
        && let Some(long) = members.iter().rposition(|it| it.len() > LONG_MEMBER)
    {
        members.remove(long);
    }
    while is_too_long(&members) {
        members.pop();
    }
    Some(members.join(","))
}

/// Returns whether this is the key of a list member: `simple-key` or `multi-tenant-key`.
fn is_key(key: &str) -> bool {
    let is_name = |text: &str, most, may_begin_with_digit| {
        let is_first = |c: u8| c.is_ascii_lowercase() || may_begin_with_digit && c.is_ascii_digit();
        let is_other = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
        let is_begun = text.bytes().next().is_some_and(is_first);
        is_begun && text.len() <= most && text.bytes().all(is_other)
    };
    match key.split_once('@') {
        None => is_name(key, 256, false),
        Some((tenant, system)) => is_name(tenant, 241, true) && is_name(system, 14, false),
    }
}

/// Returns whether this is the value of a list member, whose last character is not a space.
fn is_value(value: &str) -> bool {
    let is_allowed = |c: u8| matches!(c, b' '..=b'~') && c != b'=';
    (1..=256).contains(&value.len()) && !value.ends_with(' ') && value.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[track_caller]
    fn check(parent: &str, expect: Option<&str>) {
        let found = TraceContext::parse(parent, None).map(|it| it.to_string());
        assert_eq!(found.as_deref(), expect, "{parent}");
    }

    fn state_of(state: &str) -> Option<String> {
        let context = TraceContext::parse(PARENT, Some(state)).expect("a valid context");
        context.state().map(str::to_owned)
    }

    #[test]
    fn version_00_has_one_form() {
        check(PARENT, Some(PARENT));
        check(
            &PARENT.replace("-01", "-00"),
            Some(&PARENT.replace("-01", "-00")),
        );
        // Undefined flags are not passed on.
        check(
            &PARENT.replace("-01", "-fe"),
            Some(&PARENT.replace("-01", "-00")),
        );
        check(&PARENT.replace("-01", "-ff"), Some(PARENT));
        for wrong in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-"),
            &format!("{PARENT}-what-the-future-will-be-like"),
            &format!("{PARENT}0"),
            &format!(" {PARENT}"),
            &PARENT.to_uppercase(),
            &PARENT.replace("-01", "-0G"),
            &PARENT.replace("-01", "_01"),
            &PARENT.replace("-01", "-+1"),
            &PARENT.replace("-b7", "-é"),
            &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("00-0af", "000-af"),
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn later_versions_may_append_fields() {
        let later = PARENT.replacen("00", "cc", 1);
        check(&later, Some(PARENT));
        check(
            &format!("{later}-what-the-future-will-be-like"),
            Some(PARENT),
        );
        check(&format!("{later}-"), Some(PARENT));
        check(&format!("{later}.what"), None);
        check(&later[..54], None);
        check(&PARENT.replacen("00", "ff", 1), None);
    }

    #[test]
    fn a_list_is_valid_as_a_whole() {
        for (state, expect) in [
            ("foo=1", Some("foo=1")),
            ("foo=1 \t,\tbar=2,, ", Some("foo=1,bar=2")),
            ("1a@b=x y,c*/_-d=~", Some("1a@b=x y,c*/_-d=~")),
            ("", None),
            (" , ", None),
            ("foo", None),
            ("foo=", None),
            ("=1", None),
            ("Foo=1", None),
            ("1foo=1", None),
            ("foo@1=1", None),
            ("foo@bar@baz=1", None),
            ("foo @bar=1", None),
            ("foo=1=2", None),
            ("foo=é", None),
            ("foo=\u{1}", None),
            ("foo=1,foo=2", None),
        ] {
            assert_eq!(state_of(state).as_deref(), expect, "{state:?}");
        }
        let members = |count: usize| {
            let members: Vec<String> = (0..count).map(|i| format!("k{i}=1")).collect();
            members.join(",")
        };
        assert_eq!(state_of(&members(32)), Some(members(32)));
        assert_eq!(state_of(&members(33)), None);
        let key = |length| format!("{}=1", "k".repeat(length));
        assert_eq!(state_of(&key(256)), Some(key(256)));
        assert_eq!(state_of(&key(257)), None);
        let value = |length| format!("k={}", "v".repeat(length));
        assert_eq!(state_of(&value(256)), Some(value(256)));
        assert_eq!(state_of(&value(257)), None);
    }

    #[test]
    fn a_list_that_is_too_long_loses_its_long_members_first() {
        let member = |key: &str, length: usize| format!("{key}={}", "v".repeat(length - 2));
        let short = [member("a", 100), member("c", 100), member("d", 100)];
        let (long, [a, c, d]) = (member("b", 200), short);
        let all = format!("{a},{long},{c},{d}");
        assert_eq!(all.len(), 503);
        assert_eq!(state_of(&all).as_ref(), Some(&all));
        let e = member("e", 9);
        assert_eq!(
            state_of(&format!("{all},{}", member("e", 8)))
                .unwrap()
                .len(),
            512
        );
        assert_eq!(
            state_of(&format!("{all},{e}")),
            Some(format!("{a},{c},{d},{e}"))
        );
        let many: Vec<String> = ('a'..='f')
            .map(|key| member(&key.to_string(), 100))
            .collect();
        assert_eq!(state_of(&many.join(",")), Some(many[..5].join(",")));
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_passed_on(parent in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,9})?", state in "([a-z]=[ -~]{1,9},?){0,40}") {
            let context = TraceContext::parse(&parent, Some(&state));
            let is_later = !parent.starts_with("00") && !parent.starts_with("ff");
            prop_assert_eq!(context.is_some(), is_later || parent.starts_with("00") && parent.len() == 55);
            if let Some(context) = context {
                let again = TraceContext::parse(&context.to_string(), context.state());
                prop_assert_eq!(again, Some(context.clone()));
                prop_assert_eq!(&context.to_string()[2..53], &parent[2..53]);
                prop_assert!(context.state().is_none_or(|state| state.len() <= MOST_STATE));
            }
        }

        #[test]
        fn no_text_is_parsed_as_more_than_it_is(parent in "\\PC{0,80}", state in "\\PC{0,80}") {
            if let Some(context) = TraceContext::parse(&parent, Some(&state)) {
                prop_assert_eq!(&context.to_string()[2..53], &parent[2..53]);
            }
        }
    }
}
