//! The copy of the workspace in which mutants are built.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, root};

/// A copy of all files that git knows, as they are in the working tree. Files that are the same are
/// not written again, so that a second build of the copy has little to do.
pub(super) struct Copy {
    dir: PathBuf,
}

/// A mutated file. It is restored when this is dropped.
pub(super) struct Mutation {
    path: PathBuf,
    original: String,
}

impl Copy {
    /// Makes or renews the copy in this directory.
    pub(super) fn renew(dir: PathBuf) -> Result<Self> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others"]);
        let listed = git.arg("--exclude-standard").current_dir(root()).output()?;
        if !listed.status.success() {
            return Err("git cannot list the files of the workspace".into());
        }
        let listed = String::from_utf8(listed.stdout)?;
        let names: BTreeSet<&str> = listed.split_terminator('\0').collect();
        let mut kept = BTreeSet::new();
        for name in names {
            let to = dir.join(name);
            match fs::read(root().join(name)) {
                Ok(contents) => write(&to, &contents)?,
                // It was deleted, and git was not told yet.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{name}: {error}").into()),
            }
            kept.insert(to);
        }
        remove_others(&dir, &kept)?;
        Ok(Self { dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Mutates a file.
    pub(super) fn mutate(
        &self,
        file: &str,
        apply: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<Mutation> {
        let path = self.dir.join(file);
        let original = fs::read_to_string(&path)?;
        fs::write(&path, apply(&original)?)?;
        Ok(Mutation { path, original })
    }
}

impl Drop for Mutation {
    fn drop(&mut self) {
        // If this fails, the next run restores it.
        let _ = fs::write(&self.path, &self.original);
    }
}

fn write(to: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(to).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    Ok(fs::write(to, contents)?)
}

fn remove_others(dir: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
