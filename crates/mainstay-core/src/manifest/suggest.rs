//! "Did you mean …?" suggestions.

/// Suggests the word of `known` that is nearest to `typed`, if it is near enough.
pub(super) fn did_you_mean<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    const LONGEST: usize = 63;
    let typed: Vec<char> = typed.chars().take(LONGEST + 1).collect();
    if typed.len() > LONGEST {
        return None;
    }
    let allowed = (typed.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|word| (distance(&typed, word), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

/// Formats a help: "write one of `a`, `b` or `c`".
pub(super) fn one_of_these(words: &[&str]) -> String {
    match words.len() {
        0 => String::new(),
        1 => format!("write {}", listed(words, "or")),
        _ => format!("write one of {}", listed(words, "or")),
    }
}

/// Formats a list: "`a`, `b` and `c`".
pub(super) fn listed(words: &[&str], and: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {and} {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Computes the edit distance, with insertions, deletions, substitutions and transpositions. Case,
/// and the choice between `-` and `_`, do not count.
fn distance(typed: &[char], word: &str) -> usize {
    let fold = |c: char| match c.to_ascii_lowercase() {
        '-' => '_',
        c => c,
    };
    let word: Vec<char> = word.chars().map(fold).collect();
    let typed: Vec<char> = typed.iter().copied().map(fold).collect();
    let mut two_back = vec![0; word.len() + 1];
    let mut back: Vec<usize> = (0..=word.len()).collect();
    for (i, a) in typed.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in word.iter().enumerate() {
            let substituted = back[j] + usize::from(a != b);
            let mut best = substituted.min(back[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && typed[i - 1] == *b && word[j - 1] == *a {
                best = best.min(two_back[j - 1] + 1);
            }
            row.push(best);
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back[word.len()]
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
        check(&"x".repeat(100_000), None);
    }
}
