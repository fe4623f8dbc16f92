//! "Did you mean …?" suggestions.

use strsim::osa_distance;

/// Suggests the word of `known` that is nearest to `typed`, if it is near enough. A text with
/// control characters is not a misspelt word.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(typed, &mut known.into_iter())
}

/// Does the work, once for all kinds of iterators.
fn nearest(typed: &str, known: &mut dyn Iterator<Item = &str>) -> Option<String> {
    const LONGEST: usize = 63;
    let length = typed.chars().take(LONGEST + 1).count();
    if length > LONGEST || typed.contains(char::is_control) {
        return None;
    }
    let allowed = (length / 3).clamp(1, 3);
    let typed = folded(typed);
    known
        .map(|word| (osa_distance(&typed, &folded(word)), word))
        .filter(|(distance, _)| *distance <= allowed && *distance < length)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

/// Formats a help: "write one of `a`, `b` or `c`".
pub(crate) fn one_of_these(words: &[&str]) -> String {
    match words.len() {
        0 => String::new(),
        1 => format!("write {}", listed(words, "or")),
        _ => format!("write one of {}", listed(words, "or")),
    }
}

/// Formats a list: "`a`, `b` and `c`".
pub(crate) fn listed(words: &[&str], and: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {and} {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Returns the text for comparisons: case, and the choice between `-` and `_`, do not count.
fn folded(text: &str) -> String {
    text.to_ascii_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested() {
        let check = |typed, expect: Option<&str>| {
            let known = ["graceful", "signal", "scope", "on-failure"];
            let expect = expect.map(|word| format!("did you mean `{word}`?"));
            assert_eq!(did_you_mean(typed, known), expect, "{typed}");
        };
        check("gracefull", Some("graceful"));
        check("Graceful", Some("graceful"));
        check("singal", Some("signal"));
        check("on_failure", Some("on-failure"));
        check("", None);
        check("timeout", None);
        // Another letter is another name.
        assert_eq!(did_you_mean("b", ["a"]), None);
        check("signa\u{7}", None);
        check(&"x".repeat(100_000), None);
    }
}
