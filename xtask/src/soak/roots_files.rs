//! Files that only root may change, compared before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::Result;

/// The files below some directories: owner, mode, and the content or the link target.
pub(crate) struct RootsFiles(BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)>);

impl RootsFiles {
    pub(crate) fn read(dirs: [PathBuf; 3]) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut open = Vec::from(dirs);
        while let Some(path) = open.pop() {
            let about = fs::symlink_metadata(&path)?;
            let content = if about.is_dir() {
                for entry in fs::read_dir(&path)? {
                    open.push(entry?.path());
                }
                Vec::new()
            } else if about.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else if about.file_type().is_socket() || about.file_type().is_fifo() {
                Vec::new()
            } else {
                fs::read(&path)?
            };
            files.insert(path, (about.uid(), about.gid(), about.mode(), content));
        }
        Ok(Self(files))
    }

    /// Returns one line for each file that was added, removed or changed.
    pub(crate) fn differences(&self, after: &Self) -> Vec<String> {
        let name = |path: &Path| path.display().to_string();
        let gone = self
            .0
            .iter()
            .filter_map(|(path, was)| match after.0.get(path) {
                None => Some(format!("{} is gone", name(path))),
                Some(is) if is != was => Some(format!("{} has changed", name(path))),
                Some(_) => None,
            });
        let came = after.0.keys().filter(|path| !self.0.contains_key(*path));
        gone.chain(came.map(|path| format!("{} is new", name(path))))
            .collect()
    }
}
