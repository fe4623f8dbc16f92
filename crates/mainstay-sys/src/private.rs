//! Files and directories that only their owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Creates a directory and its parents, each readable by its owner only. An existing directory is
/// left unchanged.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that only its owner can read, atomically.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut new_path = path.as_os_str().to_owned();
    new_path.push(".new");
    let mut file = create_anew(Path::new(&new_path))?;
    let written = file
        .write_all(bytes)
        .and_then(|()| fs::rename(&new_path, path));
    if written.is_err() {
        // Do not leave half a file on a full disk.
        let _ = fs::remove_file(&new_path);
    }
    written.map(|()| file)
}

/// Creates a file that only its owner can read. An existing file or link is removed first: its
/// owner could still change it.
pub fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
