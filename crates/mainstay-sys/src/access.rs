//! Paths that this process cannot read: their owners, and how to run the command with sufficient
//! rights.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use mainstay_core::failure::{Code, Failure};

/// The component of a path that denies this process access.
#[derive(Debug)]
pub struct Closed {
    path: PathBuf,
    #[cfg(unix)]
    owner: String,
    #[cfg(unix)]
    mode: u32,
}

impl Closed {
    /// Returns `None` if `path` can be read or does not exist.
    pub fn at(path: &Path) -> Option<Self> {
        Self::find(path, MOST_LINKS)
    }

    #[cfg(unix)]
    fn find(path: &Path, links: u32) -> Option<Self> {
        use rustix::fs::Access;
        use rustix::io::Errno;
        use std::os::unix::fs::MetadataExt as _;

        if rustix::fs::access(path, Access::READ_OK) != Err(Errno::ACCESS) {
            return None;
        }
        let visible = crate::rights::from_root(path).map_while(|it| {
            let found = it.symlink_metadata().ok()?;
            Some((it, found))
        });
        let (closed, found) = visible.last()?;
        if found.is_symlink() && links > 0 {
            let rest = path.strip_prefix(closed).ok()?;
            let target = closed.parent()?.join(closed.read_link().ok()?).join(rest);
            return Self::find(&target, links - 1);
        }
        Some(Self {
            path: closed.to_owned(),
            owner: crate::trust::user(found.uid()),
            mode: found.mode() & 0o7777,
        })
    }

    #[cfg(windows)]
    fn find(path: &Path, _links: u32) -> Option<Self> {
        let opened = if path.is_dir() {
            std::fs::read_dir(path).map(drop)
        } else {
            std::fs::File::open(path).map(drop)
        };
        let error = opened.err()?;
        let is_closed = error.kind() == std::io::ErrorKind::PermissionDenied;
        let path = path.to_owned();
        is_closed.then_some(Self { path })
    }

    /// Returns the failure of an operation that needs the path.
    pub fn failure(&self, operation: &str) -> Failure {
        let failure = Failure::new(Code::PermissionDenied, format!("{operation}: {self}"));
        failure.hint(self.hint())
    }

    /// Describes how to run this command as a user who can read the path.
    #[cfg(unix)]
    fn hint(&self) -> String {
        run_as(&self.owner)
    }

    #[cfg(windows)]
    #[expect(clippy::unused_self, reason = "as on Unix")]
    fn hint(&self) -> String {
        run_as_administrator()
    }
}

impl fmt::Display for Closed {
    #[cfg(unix)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, owner, mode } = self;
        write!(f, "{} belongs to {owner} (mode {mode:04o})", path.display())
    }

    #[cfg(windows)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access to {} is denied", self.path.display())
    }
}

/// Returns the failure of an operation on a path that the system denied with this error.
pub fn denied(operation: &str, path: &Path, error: &io::Error) -> Failure {
    match Closed::at(path) {
        Some(closed) => closed.failure(operation),
        None => Failure::new(Code::PermissionDenied, format!("{operation}: {error}"))
            .hint(run_as_administrator()),
    }
    .caused_by(error)
}

/// The number of symbolic links that are followed to the component that denies access.
const MOST_LINKS: u32 = 8;

/// Describes how to run this command as an administrator.
pub fn run_as_administrator() -> String {
    if cfg!(windows) {
        "run it as an administrator".to_owned()
    } else {
        run_as("root")
    }
}

/// Describes how to run this command as another user. sudo(8) does not pass variables on, so the
/// state directory of the environment becomes an option.
pub fn run_as(user: &str) -> String {
    let sudo = match user {
        "root" => "sudo".to_owned(),
        user => format!("sudo -u {}", quoted(user)),
    };
    let mut words: Vec<String> = std::env::args().skip(1).map(|it| quoted(&it)).collect();
    let is_option = |word: &String| word.starts_with("--state-dir");
    if let Ok(dir) = std::env::var("MAINSTAY_STATE_DIR")
        && !words.iter().any(is_option)
    {
        words.splice(0..0, ["--state-dir".to_owned(), quoted(&dir)]);
    }
    format!("run it as {user}: {sudo} mainstay {}", words.join(" "))
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-./:=@,+%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--since=10:00"), "--since=10:00");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
