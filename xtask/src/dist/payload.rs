//! The files of an archive or a package, in a directory that stands for the root of a system.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::program::Program;
use super::{Dist, fill, succeed, text_of};
use crate::{Result, root};

/// The unit of the embedded manager. No package enables it: many users of the command need no
/// daemon.
const UNIT: &str = include_str!("templates/mainstay.service");

/// The directories of one format.
pub(super) struct Layout {
    /// The directory that contains `bin`, `lib` and `share`. The default is the root.
    pub(super) top: &'static str,
    /// The directory of the program on a user's system.
    pub(super) bin: &'static str,
    /// The directory of completions for zsh, below `top`.
    pub(super) zsh: &'static str,
    /// The directory of the licences, below `top`.
    pub(super) licenses: &'static str,
}

pub(super) struct Payload {
    pub(super) root: PathBuf,
}

impl Payload {
    /// Creates a payload without files, in a scratch directory of this name.
    pub(super) fn empty(dist: &Dist, name: &str) -> Result<Self> {
        let root = dist.scratch(name)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
        Ok(Self { root })
    }

    /// Collects everything that a Linux system gets.
    pub(super) fn collect(
        dist: &Dist,
        name: &str,
        program: &Program,
        layout: &Layout,
    ) -> Result<Self> {
        let payload = Self::empty(dist, name)?;
        let add = |path: &str, mode, content: &[u8]| {
            payload.add(&format!("{}{path}", layout.top), mode, content)
        };
        add("bin/mainstay", 0o755, &fs::read(&program.path)?)?;
        let unit = fill(UNIT, &[("BIN", layout.bin)]);
        add(
            "lib/systemd/system/mainstay.service",
            0o644,
            unit.as_bytes(),
        )?;
        let source = |name: &str| fs::read(root().join(name));
        add("share/doc/mainstay/README.md", 0o644, &source("README.md")?)?;
        for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let path = format!("{}/{license}", layout.licenses);
            add(&path, 0o644, &source(license)?)?;
        }
        let print = |args: &[&str]| text_of(program.command().args(args));
        let zsh = format!("{}/_mainstay", layout.zsh);
        for (shell, path) in [
            ("bash", "share/bash-completion/completions/mainstay"),
            ("zsh", &zsh),
            ("fish", "share/fish/vendor_completions.d/mainstay.fish"),
        ] {
            add(path, 0o644, print(&["completions", shell])?.as_bytes())?;
        }
        let page = format!("{}share/man/man1/mainstay.1", layout.top);
        payload.add_compressed(dist, &page, print(&["man"])?.as_bytes())?;
        Ok(payload)
    }

    /// Adds a file. Everyone may enter its directories.
    pub(super) fn add(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = self.root.join(path);
        self.add_dir(path.parent().unwrap_or(&self.root), 0o755)?;
        fs::write(&path, content)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    /// Adds a directory. Everyone may enter those that contain it.
    pub(super) fn add_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let dir = self.root.join(path);
        fs::create_dir_all(&dir)?;
        for above in dir.ancestors().take_while(|it| it.starts_with(&self.root)) {
            fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
        }
        Ok(fs::set_permissions(dir, fs::Permissions::from_mode(mode))?)
    }

    /// Adds a file as `PATH.gz`.
    pub(super) fn add_compressed(&self, dist: &Dist, path: &str, content: &[u8]) -> Result<()> {
        self.add(path, 0o644, content)?;
        succeed(dist.gzip().arg(self.root.join(path)))
    }

    /// Returns the paths of all files below the root, sorted.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut dirs = vec![self.root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let below = path.strip_prefix(&self.root)?.to_str();
                    files.push(below.ok_or("a path is not UTF-8")?.to_owned());
                }
            }
        }
        files.sort();
        Ok(files)
    }
}
