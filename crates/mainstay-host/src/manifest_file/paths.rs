//! The check that this system can start programs with their paths. Windows limits the length of
//! some, and `cmd.exe` cannot run in a directory on a server.

use std::path::Path;

use mainstay_core::manifest::{self, Code, Diagnostic, Format};
use mainstay_core::spec::Spec;
use mainstay_core::windows::paths::Unusable;
use mainstay_sys as sys;

use crate::launch;

/// A path that cannot be used, and the key that it follows from.
pub(crate) struct Problem {
    service: String,
    key: &'static str,
    why: Unusable,
}

impl Problem {
    pub(crate) fn diagnostic(&self, text: &str, format: Format) -> Diagnostic {
        let Self { service, key, why } = self;
        let message = format!("Windows cannot start this command: {why}");
        let at = ["service", service, key];
        let code = Code::UnusablePath;
        manifest::diagnose(text, format, &at, code, &message, Some(why.hint()))
    }
}

/// Returns the problems with the paths of all commands of `spec`, at most one for its working
/// directory. Relative paths are relative to `dir`. Programs that are not found are not checked.
pub(crate) fn problems(spec: &Spec, dir: &Path) -> Vec<Problem> {
    // A look at a mount whose server is gone would hang.
    if cfg!(unix) {
        return Vec::new();
    }
    let search = std::env::var_os("PATH");
    let working_dir = launch::working_dir(spec, dir);
    let mut problems = Vec::<Problem>::new();
    for (key, argv) in spec.commands() {
        let found = launch::find_program(argv.program(), dir, search.as_deref());
        let Some(why) = found
            .ok()
            .and_then(|path| sys::unusable_paths(&path, &working_dir))
        else {
            continue;
        };
        let key = if why.is_of_working_dir() {
            "working_dir"
        } else {
            key
        };
        if !problems.iter().any(|known| known.key == key) {
            problems.push(Problem {
                service: spec.name().to_string(),
                key,
                why,
            });
        }
    }
    problems
}
