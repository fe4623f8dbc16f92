//! What is wrong with a manifest, where, and the cure.
//!
//! While a manifest is read its mistakes are only noted ([`Findings`], by span). Lines, columns, paths and excerpts are worked out
//! at the end, and only if there is a mistake at all. Values of `env` are masked there: nothing after this stage can show them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

use super::tree::{Entry, Node, Span, Value};

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The manifest cannot be used.
    Error,
    /// It can, but does not do what it seems to.
    Warning,
}

impl Severity {
    fn is_error(&self) -> bool {
        *self == Self::Error
    }
}

/// One mistake in a manifest. It serialises to `{code, path, message, help, line, column}`; a warning also has its `severity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Which rule is broken.
    pub code: Code,
    /// How much it matters; the code says.
    #[serde(skip_serializing_if = "Severity::is_error")]
    pub severity: Severity,
    /// The key, such as `service.orders.stop.graceful`; empty for the text as a whole.
    pub path: String,
    /// What is wrong, on one line, without a value of `env`.
    pub message: String,
    /// The cure, where there is one to name.
    pub help: Option<String>,
    /// Bytes of the text.
    #[serde(skip)]
    pub span: Range<usize>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line, for people.
    #[serde(skip)]
    pub excerpt: Excerpt,
}

/// The line of a mistake (a window of it, if it is long), with the values of `env` masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// Without its line break.
    pub text: String,
    /// The bytes of `text` to underline.
    pub marked: Range<usize>,
}

macro_rules! codes {
    ($($Name:ident $text:literal $doc:literal,)*) => {
        /// Which rule is broken. The texts are stable (docs/manifest.md lists them).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code { $(#[doc = $doc] $Name,)* }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$Name,)*];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$Name => $text,)* }
            }
        }
    };
}

codes! {
    Syntax "syntax" "Not TOML, YAML or JSON.",
    TooDeep "too-deep" "Nested beyond any manifest.",
    YamlFeature "yaml-feature" "An anchor, alias, tag, second document, or key that is not a scalar.",
    DuplicateKey "duplicate-key" "A key, or a service, is there twice.",
    UnknownKey "unknown-key" "No such key here.",
    MissingKey "missing-key" "A key that must be there.",
    WrongType "wrong-type" "Say, a number where a string must stand.",
    UnknownValue "unknown-value" "Not one of the words that this key takes.",
    OneOf "one-of" "Exactly one of several keys must be there.",
    Conflict "conflict" "Keys that do not go together.",
    Duration "duration" "Not a duration, or one out of range.",
    Size "size" "Not a size, or one out of range.",
    Number "number" "Out of range.",
    Text "text" "Empty, longer than a line, or with a NUL.",
    Command "command" "No program, or a NUL in an argument.",
    EnvName "env-name" "Not the name of an environment variable.",
    Account "account" "Not an account.",
    Address "address" "Not `host:port`.",
    Url "url" "Not a URL, or not one that may stand here.",
    Regex "regex" "Not a regular expression.",
    FieldPath "field-path" "Not a path to a field of a JSON object.",
    ServiceName "service-name" "Not the name of a service.",
    NoService "no-service" "A manifest without a service.",
    UnknownNeed "unknown-need" "`needs` names no service of this manifest.",
    ManagerNameTaken "manager-name-taken" "Two services would have one name for their service manager.",
    SelfNeed "self-need" "A service needs itself.",
    DuplicateNeed "duplicate-need" "`needs` names one thing twice.",
    NeedsCycle "needs-cycle" "Services that wait for each other.",
    Order "order" "A maximum below its minimum.",
    NoProbe "no-probe" "`liveness` names no probe, and `start.ready` has none that could be asked again.",
    RelativePath "relative-path" "A path that must be absolute.",
    PortRange "port-range" "A port that may not be used in this environment.",
    PortTaken "port-taken" "Two services listen on one port.",
    GracefulTooShort "graceful-too-short" "Less than 30 s to stop, outside development.",
    LogTooVerbose "log-too-verbose" "A log level that this environment does not allow.",
    WorldWritable "world-writable" "Another account may change what a privileged account runs.",
    UnreachableLimit "unreachable-limit" "A warning: the pauses between restarts are too long for the limit ever to be reached.",
}

impl Code {
    /// How much it matters.
    pub fn severity(self) -> Severity {
        match self {
            Self::UnreachableLimit => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Whether the tree lacks a part of the text, whose values are then not known as such.
    fn hides_text(self) -> bool {
        use Code::{DuplicateKey, Syntax, TooDeep, YamlFeature};
        matches!(self, Syntax | TooDeep | YamlFeature | DuplicateKey)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Mistakes as they are found.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

struct Finding {
    code: Code,
    span: Span,
    /// A key below the one at `span`, which is not there.
    missing: Option<&'static str>,
    message: String,
    help: Option<String>,
}

impl Findings {
    pub(super) fn add(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        self.0.push(Finding {
            code,
            span,
            missing: None,
            message: message.into(),
            help: help.map(str::to_owned),
        });
    }

    pub(super) fn missing_key(&mut self, span: Span, key: &'static str, about: &str) {
        self.0.push(Finding {
            code: Code::MissingKey,
            span,
            missing: Some(key),
            message: format!("the key `{key}` is missing"),
            help: Some(format!("`{key}`: {about}")),
        });
    }

    pub(super) fn duplicate_key(&mut self, span: Span) {
        let help = Some("keep one of them");
        self.add(Code::DuplicateKey, span, "duplicate key", help);
    }

    pub(super) fn too_deep(&mut self, span: Span) {
        self.add(Code::TooDeep, span, "nested too deeply", None);
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is more than duplicate keys, beside which everything else can still be judged.
    pub(super) fn is_broken(&self) -> bool {
        self.0.iter().any(|f| f.code != Code::DuplicateKey)
    }

    /// The mistakes in the order of the text. `tree` is `None` where the text could not be read.
    pub(super) fn finish(self, text: &str, tree: Option<&Node<'_>>) -> Vec<Diagnostic> {
        let mut map = Map::default();
        let unknown = self.0.iter().filter(|f| f.code == Code::UnknownKey);
        map.secret_keys = unknown.map(|f| f.span).collect();
        if let Some(root) = tree {
            map.visit(root, "", false);
        }
        let readable = tree.is_some() && self.0.iter().all(|f| !f.code.hides_text());
        let lines = Lines::new(text);
        let mut findings = self.0;
        findings.sort_by_key(|finding| finding.span.start);
        findings
            .into_iter()
            .map(|finding| {
                let mut path = map.paths.get(&finding.span).cloned().unwrap_or_default();
                if let Some(key) = finding.missing {
                    path = join(&path, key);
                }
                let secrets = readable.then_some(&*map.secrets);
                let (line, column, excerpt) = lines.locate(finding.span, secrets);
                Diagnostic {
                    code: finding.code,
                    severity: finding.code.severity(),
                    path,
                    message: finding.message,
                    help: finding.help,
                    span: finding.span.start..finding.span.end,
                    line,
                    column,
                    excerpt,
                }
            })
            .collect()
    }

    /// The text with a mask in the place of each value that nobody may see. Its lines stay lines.
    pub(super) fn mask(self, text: &str, tree: Option<&Node<'_>>) -> String {
        let mut map = Map::default();
        let unknown = self.0.iter().filter(|f| f.code == Code::UnknownKey);
        map.secret_keys = unknown.map(|f| f.span).collect();
        let readable = tree.filter(|_| self.0.iter().all(|f| !f.code.hides_text()));
        if let Some(root) = readable {
            map.visit(root, "", false);
        }
        let secret = first_secret(text);
        let mut at = 0;
        let lines = text.split_inclusive('\n').map(|line| {
            let start = at;
            at += line.len();
            match readable {
                Some(_) => masks(line, start, in_spans(start, &map.secrets)),
                None if at > secret => masks(line, 0, in_values(line, 0, line)),
                None => line.to_owned(),
            }
        });
        lines.collect()
    }
}

/// The path of each key and value, and which values nobody may see.
#[derive(Default)]
struct Map {
    paths: HashMap<Span, String>,
    /// Keys that are unknown: one may be a misspelt `env`.
    secret_keys: BTreeSet<Span>,
    /// In the order of the text.
    secrets: Vec<Span>,
}

impl Map {
    fn visit(&mut self, node: &Node<'_>, path: &str, secret: bool) {
        self.paths.insert(node.span, path.to_owned());
        match &node.value {
            Value::Table(entries) => {
                for Entry { key, node } in entries {
                    let path = join(path, &key.value);
                    let secret = secret
                        || key.value.eq_ignore_ascii_case("env")
                        || self.secret_keys.contains(&key.span);
                    self.visit(node, &path, secret);
                    self.paths.insert(key.span, path);
                }
            }
            Value::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    self.visit(node, &format!("{path}[{index}]"), secret);
                }
            }
            _ if secret => self.secrets.push(node.span),
            // A URL that may hold a password.
            Value::Text(text) if text.contains("://") && text.contains('@') => {
                self.secrets.push(node.span);
            }
            // Who knows its path may use it.
            _ if path.ends_with(".webhook.url") => self.secrets.push(node.span),
            _ => {}
        }
    }
}

fn join(path: &str, key: &str) -> String {
    let key = Shown(key);
    if path.is_empty() {
        key.to_string()
    } else {
        format!("{path}.{key}")
    }
}

/// Typed text inside a message: one line, not endless, no control characters.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        for c in self.0.chars().take(LONGEST) {
            match c {
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => write!(f, "{c}")?,
            }
        }
        if self.0.chars().nth(LONGEST).is_some() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// From where on a line may hold a secret, if nothing better is known.
    secret: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self {
            text,
            starts: std::iter::once(0)
                .chain(breaks.map(|(i, _)| i + 1))
                .collect(),
            secret: first_secret(text),
        }
    }

    /// Line, column, and the masked line; `secrets` is `None` where the text could not be read.
    fn locate(&self, span: Span, secrets: Option<&[Span]>) -> (usize, usize, Excerpt) {
        /// Of a long line this much is shown before and after.
        const WINDOW: usize = 100;
        let at = boundary(self.text, span.start);
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let next = self.starts.get(line).copied().unwrap_or(self.text.len());
        let whole = self.text.get(start..next).unwrap_or_default();
        let whole = whole.trim_end_matches(['\n', '\r']);
        let before = self.text.get(start..at).unwrap_or_default();

        let end = start + whole.len();
        let first = boundary(self.text, at.saturating_sub(WINDOW).max(start));
        let last = boundary(self.text, (at + 2 * WINDOW).min(end).max(first));
        let text = self.text.get(first..last).unwrap_or_default();
        // Each char keeps its bytes, so that positions in `text` hold in the masked line.
        let masked = match secrets {
            Some(secrets) => stars(text, first, in_spans(first, secrets)),
            None if end > self.secret => {
                stars(text, first - start, in_values(whole, first - start, text))
            }
            None => text.to_owned(),
        };
        let marked_start = at.min(last) - first;
        let marked_end = boundary(self.text, span.end.clamp(first + marked_start, last)) - first;
        let excerpt = Excerpt {
            text: masked,
            marked: marked_start..marked_end,
        };
        (line, before.chars().count() + 1, excerpt)
    }
}

/// The last boundary between characters that is not after byte `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether a byte lies in `secrets`; asked in order, from byte `offset` on.
fn in_spans(offset: usize, secrets: &[Span]) -> impl FnMut(usize) -> bool {
    let mut next = secrets.partition_point(|secret| secret.end <= offset);
    move |at| {
        while secrets.get(next).is_some_and(|secret| secret.end <= at) {
            next += 1;
        }
        secrets.get(next).is_some_and(|secret| secret.start <= at)
    }
}

/// Of a line that could not be read, whether a byte of its part `text` is more than the punctuation of the format after the first `=` or
/// `:`; every byte if there is none.
fn in_values(line: &str, skipped: usize, text: &str) -> impl FnMut(usize) -> bool {
    let values = line.find(['=', ':']).unwrap_or(0);
    let bytes = text.as_bytes();
    move |at| {
        let byte = bytes.get(at - skipped).copied().unwrap_or_default();
        at >= values && !b" \t\"'[]{},=:".contains(&byte)
    }
}

/// Stars for what is hidden; `text` starts at byte `offset`. Lengths, and so all spans, stay as they are.
fn stars(text: &str, offset: usize, mut hidden: impl FnMut(usize) -> bool) -> String {
    let mut masked = String::with_capacity(text.len());
    for (index, c) in text.char_indices() {
        if hidden(offset + index) {
            masked.extend(std::iter::repeat_n('*', c.len_utf8()));
        } else {
            masked.push(c);
        }
    }
    masked
}

/// One mask for each part that is hidden, which does not tell its length. Line breaks stay.
fn masks(text: &str, offset: usize, mut hidden: impl FnMut(usize) -> bool) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut was_hidden = false;
    for (index, c) in text.char_indices() {
        let is_hidden = c != '\n' && hidden(offset + index);
        match is_hidden {
            false => masked.push(c),
            true if !was_hidden => masked.push_str("***"),
            true => {}
        }
        was_hidden = is_hidden;
    }
    masked
}

/// Where the first key stands that may have a secret below it; the length of the text if there is none.
fn first_secret(text: &str) -> usize {
    let is_key = |(at, word): &(usize, &str)| {
        let before = text.get(..*at).and_then(|t| t.chars().next_back());
        let after = text.get(at + word.len()..).unwrap_or_default();
        let after = after.trim_start_matches(['"', '\'', ' ', '\t']);
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            && after.starts_with(['=', ':', '.', ']'])
    };
    let keys = ["env", "webhook"].iter();
    let found = keys.filter_map(|key| text.match_indices(key).find(is_key));
    found.map(|(at, _)| at).min().unwrap_or(text.len())
}
