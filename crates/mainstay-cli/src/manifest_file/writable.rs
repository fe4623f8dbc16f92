//! Never run a privileged program from a place that others may write to: whoever can replace it has its rights.

use std::path::{Path, PathBuf};

use mainstay_core::manifest::{self, Code, Diagnostic, Format};
use mainstay_core::spec::Spec;

/// A path that everyone may change, and the key that leads there.
pub(crate) struct Problem {
    service: String,
    key: &'static str,
    path: PathBuf,
}

impl Problem {
    pub(crate) fn diagnostic(&self, text: &str, format: Format) -> Diagnostic {
        let path = self.path.display();
        let message = format!("everyone may write to {path}, and this account is privileged");
        let help = format!("chmod o-w {path}, or choose an account with fewer rights");
        let at = ["service", &self.service, self.key];
        manifest::diagnose(
            text,
            format,
            &at,
            Code::WorldWritable,
            &message,
            Some(&help),
        )
    }
}

/// What is wrong with the program and the directory of `spec`, whose relative paths are relative to `dir`. What is not there yet is
/// not judged.
pub(crate) fn problems(spec: &Spec, dir: &Path) -> Vec<Problem> {
    if !spec
        .account()
        .is_some_and(|account| account.is_privileged())
    {
        return Vec::new();
    }
    let program = spec.command().program();
    let program = match Path::new(program).components().count() {
        1 if !program.contains(std::path::is_separator) => in_path(program),
        _ => Some(dir.join(program)),
    };
    let working_dir = spec.working_dir().map(|path| dir.join(path));
    let places = [("command", program), ("working_dir", working_dir)];
    places
        .into_iter()
        .filter_map(|(key, place)| {
            let service = spec.name().to_string();
            let path = sys::everyone_may_change(&place?)?;
            Some(Problem { service, key, path })
        })
        .collect()
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(unix)]
mod sys {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    /// `path`, or the first directory above it, that everyone may write to; links are followed. A sticky directory (such as
    /// `/tmp`) counts only for what lies in it directly under somebody else's name, which `path` itself would then be.
    pub(super) fn everyone_may_change(path: &Path) -> Option<PathBuf> {
        const WRITE: u32 = 0o002;
        const STICKY: u32 = 0o1000;
        let real = fs::canonicalize(path).ok()?;
        let found = real.ancestors().find(|place| {
            fs::metadata(place).is_ok_and(|found| {
                let sticky_above = found.is_dir() && found.mode() & STICKY != 0 && *place != real;
                found.mode() & WRITE != 0 && !sticky_above
            })
        });
        found.map(Path::to_path_buf)
    }
}

#[cfg(not(unix))]
mod sys {
    use std::path::{Path, PathBuf};

    use crate::host::sys;

    /// `path`, if somebody beside this user, administrators and the system may change it, or exchange a directory above it: the directory's
    /// access control lists tell. What cannot be read is not known to be safe; what is not there is not judged.
    pub(super) fn everyone_may_change(path: &Path) -> Option<PathBuf> {
        if !path.exists() {
            return None;
        }
        let is_safe = matches!(sys::exposure_of_program(path), Ok(None));
        (!is_safe).then(|| path.to_owned())
    }
}
