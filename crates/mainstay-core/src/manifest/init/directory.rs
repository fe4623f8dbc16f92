//! The directory in which programs are looked for, as far as the core needs to see it.

/// A directory of an application. Its files are read up to a limit, and never executed.
pub trait Directory {
    /// Returns the name of the directory, or an empty text if it has none.
    fn name(&self) -> &str;

    /// Returns the entries of a directory below this one, sorted by name; `""` is this one. It is
    /// empty if the directory cannot be read.
    fn entries(&self, dir: &str) -> Vec<Entry>;

    /// Returns the text of a regular file; `None` if it cannot be read, is too large, or is not
    /// UTF-8.
    fn text(&self, path: &str) -> Option<String>;
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without control characters.
    pub name: String,
    /// The kind.
    pub kind: EntryKind,
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// An executable program in the format of its operating system, not a script.
    Program,
    /// Any other file.
    File,
}

/// Returns whether a directory has the file or directory `path`.
pub(super) fn has(dir: &impl Directory, path: &str) -> bool {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    dir.entries(parent).iter().any(|entry| entry.name == name)
}

/// Returns the first of these files that exists, with its text.
pub(super) fn first_text<'a>(
    dir: &impl Directory,
    paths: impl IntoIterator<Item = &'a str>,
) -> Option<(&'a str, String)> {
    let mut paths = paths.into_iter();
    paths.find_map(|path| Some((path, dir.text(path)?)))
}

/// Returns the names of the subdirectories that may contain sources, at most as many as a project
/// has.
pub(super) fn subdirectories(dir: &impl Directory, path: &str) -> Vec<String> {
    const MOST: usize = 64;
    const OTHERS: [&str; 6] = [
        "node_modules",
        "venv",
        "target",
        "build",
        "dist",
        "__pycache__",
    ];
    let entries = dir.entries(path).into_iter();
    let dirs = entries.filter(|it| it.kind == EntryKind::Directory && !it.name.starts_with('.'));
    let names = dirs.map(|it| it.name);
    let names = names.filter(|name| !OTHERS.contains(&&**name));
    names.take(MOST).collect()
}
