//! The check that privileged programs are not in places that others can write to. Whoever can
//! replace such a program gains its rights.

use std::path::{Path, PathBuf};

use mainstay_core::manifest::{self, Code, Diagnostic, Format};
use mainstay_core::spec::Spec;

use crate::runs;

/// A file that another account may change, and the key that refers to it.
pub(crate) struct Problem {
    service: String,
    key: &'static str,
    exposure: runs::Exposed,
}

impl Problem {
    pub(crate) fn diagnostic(&self, text: &str, format: Format) -> Diagnostic {
        let runs::Exposed { what, cure } = &self.exposure;
        let message = format!("{what}, but the account is privileged");
        let help = format!("{cure}, or choose an account with fewer rights");
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

/// Returns the problems with the programs and the working directory of `spec`. Relative paths are
/// relative to `dir`. Missing files are not checked.
pub(crate) fn problems(spec: &Spec, dir: &Path) -> Vec<Problem> {
    if !spec.account().is_some_and(runs::is_privileged) {
        return Vec::new();
    }
    let search = std::env::var_os("PATH");
    let working_dir = spec.working_dir().map(|path| dir.join(path));
    let working_dir = working_dir.into_iter().map(|path| ("working_dir", path));
    let files: Vec<(&str, PathBuf)> = runs::files(spec, dir, search.as_deref())
        .chain(working_dir)
        .collect();
    let problems = files.into_iter().filter_map(|(key, path)| {
        let exposure = runs::exposed(&path)?;
        let service = spec.name().to_string();
        Some(Problem {
            service,
            key,
            exposure,
        })
    });
    problems.collect()
}
