//! The conditions of a request on a service's definition: RFC 9110, section 13.1.1 (`If-Match`) and
//! 13.1.2 (`If-None-Match`).

use std::fmt;

use hyper::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};

/// The conditions of a request, as entity tags of definitions.
#[derive(Debug)]
pub(in crate::host) struct Conditions {
    matches: Option<Tags>,
    matches_none: Option<Tags>,
}

#[derive(Debug, PartialEq)]
enum Tags {
    /// Any existing definition.
    Any,
    These(Vec<Tag>),
}

#[derive(Debug, PartialEq)]
struct Tag {
    is_weak: bool,
    text: String,
}

/// The reason why the header of this name is malformed.
#[derive(Debug)]
pub(in crate::host) enum Malformed {
    /// A value is neither `*` nor a list of entity tags.
    Tags(HeaderName),
    /// `*` is not the only value.
    Both(HeaderName),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tags(name) => write!(
                f,
                "{name} is `*`, or a list of quoted entity tags: \"…\", \"…\""
            ),
            Self::Both(name) => write!(f, "{name} is either `*` or a list"),
        }
    }
}

/// The condition that is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Unmet {
    /// The definition is another one, or does not exist.
    Match,
    /// The definition is one of the excluded ones.
    NoneMatch,
}

impl Conditions {
    /// Parses the conditions in a request's headers. Returns `None` if there are none.
    ///
    /// # Errors
    /// If a header is malformed.
    pub(in crate::host) fn of(headers: &HeaderMap) -> Result<Option<Self>, Malformed> {
        let conditions = Self {
            matches: tags(headers, &IF_MATCH)?,
            matches_none: tags(headers, &IF_NONE_MATCH)?,
        };
        let is_one = conditions.matches.is_some() || conditions.matches_none.is_some();
        Ok(is_one.then_some(conditions))
    }

    /// Returns the condition that a definition with this tag, or a missing one, does not meet.
    pub(in crate::host) fn check(&self, current: Option<&str>) -> Option<Unmet> {
        // A weak tag is too imprecise for a change. The supervisor issues none.
        let is_strong = |tag: &Tag| !tag.is_weak;
        if let Some(tags) = &self.matches
            && !tags.have(current, is_strong)
        {
            return Some(Unmet::Match);
        }
        let is_one = |tags: &Tags| tags.have(current, |_| true);
        let is_unmet = self.matches_none.as_ref().is_some_and(is_one);
        is_unmet.then_some(Unmet::NoneMatch)
    }
}

impl Tags {
    fn have(&self, current: Option<&str>, counts: impl Fn(&Tag) -> bool) -> bool {
        let Some(current) = current else { return false };
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| counts(tag) && tag.text == current),
        }
    }
}

/// Parses all headers of this name. Several lines form one list (section 5.3).
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Malformed> {
    let mut all = None;
    for value in headers.get_all(name) {
        let parsed = value.to_str().ok().and_then(parse);
        let tags = parsed.ok_or_else(|| Malformed::Tags(name.clone()))?;
        all = Some(match (all, tags) {
            (Some(Tags::These(mut some)), Tags::These(more)) => {
                some.extend(more);
                Tags::These(some)
            }
            (None, tags) => tags,
            _ => return Err(Malformed::Both(name.clone())),
        });
    }
    Ok(all)
}

/// Parses `*` or `#entity-tag` (section 8.8.3). The list may have empty elements (section 5.6.1).
fn parse(value: &str) -> Option<Tags> {
    let is_space = |c| c == ' ' || c == '\t';
    if value.trim_matches(is_space) == "*" {
        return Some(Tags::Any);
    }
    let (mut tags, mut rest) = (Vec::new(), value);
    loop {
        rest = rest.trim_start_matches(|c| is_space(c) || c == ',');
        if rest.is_empty() {
            return (!tags.is_empty()).then_some(Tags::These(tags));
        }
        let strong = rest.strip_prefix("W/");
        let is_weak = strong.is_some();
        let (text, after) = strong.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        let is_allowed = |c: char| c == '!' || ('#'..='~').contains(&c);
        if !text.chars().all(is_allowed) {
            return None;
        }
        let text = text.to_owned();
        tags.push(Tag { is_weak, text });
        rest = after.trim_start_matches(is_space);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn conditions(headers: &[(HeaderName, &'static str)]) -> Result<Option<Conditions>, Malformed> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        Conditions::of(&map)
    }

    #[track_caller]
    fn check(headers: &[(HeaderName, &'static str)], current: Option<&str>) -> Option<Unmet> {
        let conditions = conditions(headers).expect("conditions");
        conditions.expect("one").check(current)
    }

    #[test]
    fn a_definition_matches_one_of_several_tags() {
        let unmet = Some(Unmet::Match);
        for (value, current, expect) in [
            (r#""a""#, Some("a"), None),
            (r#""a""#, Some("b"), unmet),
            (r#""a""#, None, unmet),
            (r#""a" , "b,c",,"#, Some("b,c"), None),
            (r#""b,c""#, Some("c"), unmet),
            (r#"W/"a""#, Some("a"), unmet),
            (r#"W/"a", "a""#, Some("a"), None),
            ("*", Some("a"), None),
            ("*", None, unmet),
        ] {
            let seen = check(&[(IF_MATCH, value)], current);
            assert_eq!(seen, expect, "{value} {current:?}");
        }
        let two = [(IF_MATCH, r#""a""#), (IF_MATCH, r#""b""#)];
        assert_eq!(check(&two, Some("b")), None);
    }

    #[test]
    fn a_definition_matches_none_of_several_tags() {
        let unmet = Some(Unmet::NoneMatch);
        for (value, current, expect) in [
            (r#""a""#, Some("a"), unmet),
            (r#"W/"a""#, Some("a"), unmet),
            (r#""a", "c""#, Some("b"), None),
            (r#""a""#, None, None),
            ("*", Some("a"), unmet),
            ("*", None, None),
        ] {
            let seen = check(&[(IF_NONE_MATCH, value)], current);
            assert_eq!(seen, expect, "{value} {current:?}");
        }
        let both = [(IF_MATCH, r#""a""#), (IF_NONE_MATCH, "*")];
        assert_eq!(check(&both, Some("b")), Some(Unmet::Match));
        assert_eq!(check(&both, Some("a")), unmet);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        assert!(conditions(&[]).is_ok_and(|it| it.is_none()));
        for value in [
            "a",
            "",
            ",",
            r#""a"#,
            r#""a" "b""#,
            r#"w/"a""#,
            "\"a b\"",
            "*, \"a\"",
        ] {
            assert!(conditions(&[(IF_MATCH, value)]).is_err(), "{value}");
        }
        assert!(conditions(&[(IF_MATCH, "*"), (IF_MATCH, "*")]).is_err());
    }
}
