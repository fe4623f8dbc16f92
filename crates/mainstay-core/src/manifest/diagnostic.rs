//! Diagnostics: the errors in a manifest, their positions, and help.
//!
//! While a manifest is parsed, errors are only recorded with their spans ([`Findings`]). Lines,
//! columns, paths and excerpts are computed at the end, if there are errors at all. Values of `env`
//! are masked at that point, so later stages cannot reveal them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

use super::tree::{Entry, Node, Span, Value};

/// The severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The manifest cannot be used.
    Error,
    /// The manifest can be used, but does not do what it appears to do.
    Warning,
}

impl Severity {
    fn is_error(&self) -> bool {
        *self == Self::Error
    }
}

/// An error or warning about a manifest. It serialises to `{code, path, message, help, line,
/// column}`; a warning also has its `severity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The rule that is violated.
    pub code: Code,
    /// The severity, which follows from the code.
    #[serde(skip_serializing_if = "Severity::is_error")]
    pub severity: Severity,
    /// The key, such as `service.orders.stop.graceful`; empty for the text as a whole.
    pub path: String,
    /// The problem, on one line and without values of `env`.
    pub message: String,
    /// The suggested correction, if any.
    pub help: Option<String>,
    /// The byte range of the text.
    #[serde(skip)]
    pub span: Range<usize>,
    /// The line number, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line, for display.
    #[serde(skip)]
    pub excerpt: Excerpt,
}

/// The line of an error (or a window of a long line), with the values of `env` masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The text, without its line break.
    pub text: String,
    /// The bytes of `text` to underline.
    pub marked: Range<usize>,
}

macro_rules! codes {
    ($($Name:ident $text:literal $doc:literal,)*) => {
        /// A rule for manifests. The texts are stable (docs/manifest.md lists them).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code { $(#[doc = $doc] $Name,)* }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$Name,)*];

            /// Returns the stable text of the code.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$Name => $text,)* }
            }

            /// Returns the violated rule as a sentence, or several.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$Name => $doc,)* }
            }
        }
    };
}

codes! {
    Syntax "syntax" "The text is not TOML, YAML or JSON.",
    TooDeep "too-deep" "The nesting is deeper than in any manifest.",
    YamlFeature "yaml-feature"
        "The YAML has an anchor, alias, tag, second document, or key that is not a scalar.",
    DuplicateKey "duplicate-key" "A key or a service is defined twice.",
    UnknownKey "unknown-key" "The key does not exist here.",
    MissingKey "missing-key" "A required key is missing.",
    WrongType "wrong-type"
        "The value has the wrong type, for example a number instead of a string.",
    UnknownValue "unknown-value" "The value is not one of the words that this key accepts.",
    OneOf "one-of" "Exactly one of several keys is required.",
    Conflict "conflict" "The keys cannot be combined.",
    Duration "duration" "The value is not a duration, or is out of range.",
    Size "size" "The value is not a size, or is out of range.",
    Number "number" "The number is out of range.",
    Text "text" "The text is empty, longer than a line, or contains a NUL.",
    Command "command" "The command has no program, or an argument contains a NUL.",
    CommandLine "command-line"
        "Windows cannot pass the command to its program: the command line is too long, or `cmd.exe` would misread it. On Windows only.",
    UnusablePath "unusable-path"
        "Windows cannot start a program with this path or working directory: it is too long, or `cmd.exe` would run a batch file in a directory on a server. On Windows only.",
    EnvName "env-name" "The name is not valid for an environment variable.",
    Account "account" "The value is not an account.",
    Address "address" "The value is not `host:port`.",
    Url "url" "The value is not a URL, or the URL is not allowed here.",
    Regex "regex" "The value is not a regular expression.",
    FieldPath "field-path" "The value is not a path to a field of a JSON object.",
    ServiceName "service-name" "The name is not valid for a service.",
    ReservedName "reserved-name" "Windows reserves the name of the service for a device.",
    NoService "no-service" "The manifest has no service.",
    UnknownNeed "unknown-need" "`needs` names a service that is not in this manifest.",
    ManagerNameTaken "manager-name-taken"
        "Two services would have the same name in their service manager.",
    SelfNeed "self-need" "A service needs itself.",
    DuplicateNeed "duplicate-need" "`needs` names the same service twice.",
    NeedsCycle "needs-cycle" "Services depend on each other in a cycle.",
    Order "order" "A maximum is below its minimum.",
    NoProbe "no-probe"
        "`liveness` has no probe, and `start.ready` has none that could be repeated.",
    RelativePath "relative-path" "The path must be absolute.",
    PortRange "port-range" "The port is not allowed in this environment.",
    PortTaken "port-taken" "Two services listen on the same port.",
    GracefulTooShort "graceful-too-short" "`stop.graceful` is below 30 s, outside development.",
    LogTooVerbose "log-too-verbose" "The log level is not allowed in this environment.",
    WorldWritable "world-writable"
        "Another account may change files that a privileged account runs.",
    UnreachableLimit "unreachable-limit"
        "Warning: the pauses between restarts are so long that the limit can never be reached.",
}

impl Code {
    /// Returns the severity of the code.
    pub fn severity(self) -> Severity {
        match self {
            Self::UnreachableLimit => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Returns whether part of the text is missing from the tree, so that secrets in it are not
    /// recognized as such.
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

/// The errors found so far.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

struct Finding {
    code: Code,
    span: Span,
    /// A missing key in the table at `span`.
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

    /// Returns whether there are errors other than duplicate keys. With duplicate keys alone, all
    /// other rules can still be checked.
    pub(super) fn is_broken(&self) -> bool {
        self.0.iter().any(|f| f.code != Code::DuplicateKey)
    }

    /// Returns the diagnostics in the order of the text. `tree` is `None` if the text could not be
    /// parsed.
    pub(super) fn finish(self, text: &str, tree: Option<&Node<'_>>) -> Vec<Diagnostic> {
        let mut map = Map::default();
        let unknown = self.0.iter().filter(|f| f.code == Code::UnknownKey);
        map.secret_keys = unknown.map(|f| f.span).collect();
        if let Some(root) = tree {
            map.visit(root, "", Secrecy::Public);
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

    /// Returns the text with each secret value masked. Lines are preserved.
    pub(super) fn mask(self, text: &str, tree: Option<&Node<'_>>) -> String {
        let mut map = Map::default();
        let unknown = self.0.iter().filter(|f| f.code == Code::UnknownKey);
        map.secret_keys = unknown.map(|f| f.span).collect();
        let readable = tree.filter(|_| self.0.iter().all(|f| !f.code.hides_text()));
        if let Some(root) = readable {
            map.visit(root, "", Secrecy::Public);
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

/// The secrecy of a value, as its keys determine it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Public,
    Secret,
}

/// The path of each key and value, and the spans of secret values.
#[derive(Default)]
struct Map {
    paths: HashMap<Span, String>,
    /// Unknown keys: one of them may be a misspelt `env`.
    secret_keys: BTreeSet<Span>,
    /// The spans of secret values, in the order of the text.
    secrets: Vec<Span>,
}

impl Map {
    fn visit(&mut self, node: &Node<'_>, path: &str, secrecy: Secrecy) {
        self.paths.insert(node.span, path.to_owned());
        match &node.value {
            Value::Table(entries) => {
                for Entry { key, node } in entries {
                    let path = join(path, &key.value);
                    let is_secret = key.value.eq_ignore_ascii_case("env")
                        || self.secret_keys.contains(&key.span);
                    let secrecy = if is_secret { Secrecy::Secret } else { secrecy };
                    self.visit(node, &path, secrecy);
                    self.paths.insert(key.span, path);
                }
            }
            Value::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    self.visit(node, &format!("{path}[{index}]"), secrecy);
                }
            }
            _ if secrecy == Secrecy::Secret => self.secrets.push(node.span),
            // The URL may contain a password.
            Value::Text(text) if text.contains("://") && text.contains('@') => {
                self.secrets.push(node.span);
            }
            // The URL grants access to anyone who has its path.
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

/// Untrusted text in a message: one line, of limited length, without control characters.
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
    /// The offset after which a line may contain a secret, if the tree is not available.
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

    /// Returns the line, the column and the masked line. `secrets` is `None` if the text could not
    /// be parsed.
    fn locate(&self, span: Span, secrets: Option<&[Span]>) -> (usize, usize, Excerpt) {
        /// The number of bytes of a long line that are shown before the position. Twice as many are
        /// shown from it on.
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
        // Masking preserves byte lengths, so that positions in `text` also apply to the masked
        // line.
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

/// Returns the last character boundary at or before byte `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Returns a predicate that tests whether a byte is in `secrets`. It must be called in ascending
/// order, from byte `offset` on.
fn in_spans(offset: usize, secrets: &[Span]) -> impl FnMut(usize) -> bool {
    let mut next = secrets.partition_point(|secret| secret.end <= offset);
    move |at| {
        while secrets.get(next).is_some_and(|secret| secret.end <= at) {
            next += 1;
        }
        secrets.get(next).is_some_and(|secret| secret.start <= at)
    }
}

/// Returns a predicate for a line that could not be parsed. It tests whether a byte of its part
/// `text` is after the first `=` or `:` and is not punctuation of the format. If the line has
/// neither, it applies to every byte.
fn in_values(line: &str, skipped: usize, text: &str) -> impl FnMut(usize) -> bool {
    let values = line.find(['=', ':']).unwrap_or(0);
    let bytes = text.as_bytes();
    move |at| {
        let byte = bytes.get(at - skipped).copied().unwrap_or_default();
        at >= values && !b" \t\"'[]{},=:".contains(&byte)
    }
}

/// Replaces hidden characters with stars; `text` starts at byte `offset`. Byte lengths are
/// preserved, and so are all spans.
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

/// Replaces each hidden part with one mask, which does not reveal its length. Line breaks are
/// preserved.
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

/// Returns the position of the first key that may contain a secret, or the length of the text if
/// there is none.
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
