//! `mainstay init`: writes a first manifest for the programs in a directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::Platform;
use mainstay_core::manifest::init::{Directory, Draft, Entry, EntryKind, draft};
use mainstay_host::output;
use mainstay_sys::{access, guarded};
use serde::Serialize;

const FILE_NAME: &str = "mainstay.toml";
/// The size limit of the files that are read.
const LONGEST_FILE: u64 = 256 << 10;
/// The number of entries of a directory that are looked at.
const MOST_ENTRIES: usize = 4096;
const PLATFORM: Platform = if cfg!(windows) {
    Platform::Windows
} else {
    Platform::Unix
};

/// Write a first manifest for the programs in a directory
///
/// Looks for a Procfile, package.json, Python projects, Cargo.toml, go.mod, Maven and Gradle
/// builds, archives and programs. Nothing is executed. The manifest has one service for each
/// process, and comments about what to set next.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// Directory of the programs [default: the current directory]
    dir: Option<PathBuf>,
    /// File to write; `-` writes standard output [default: mainstay.toml in DIR]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Print the services that were found, and the manifest, as one JSON document
    #[arg(long)]
    json: bool,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    /// The file that was written, if any.
    path: Option<&'a Path>,
    #[serde(flatten)]
    draft: &'a Draft,
}

impl Init {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let path = self.dir.as_deref().unwrap_or(Path::new("."));
        let dir = Disk::open(path)?;
        let target_path = match self.output {
            Some(output) if output == Path::new("-") => None,
            Some(output) => Some(output),
            None => Some(path.join(FILE_NAME)),
        };
        let base = match &target_path {
            Some(target_path) => dir.base_for(target_path)?,
            None => None,
        };
        let draft = draft(&dir, PLATFORM, base.as_deref());
        if let Some(target_path) = &target_path {
            store(target_path, &draft.manifest, self.force)?;
        }
        for note in &draft.notes {
            output::remark(&format!("note: {note}"));
        }
        if draft.services.is_empty() {
            let dir = path.display();
            output::remark(&format!(
                "note: no program was found in {dir}: set `command`"
            ));
        }
        match target_path.as_deref() {
            path if self.json => output::document(&Document {
                path,
                draft: &draft,
            })?,
            Some(path) => output::confirm(&summary(path, &draft))?,
            None => output::text(&draft.manifest)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn summary(path: &Path, draft: &Draft) -> String {
    let path = path.display();
    let width = draft.services.iter().map(|it| it.name.len()).max();
    let width = width.unwrap_or(0);
    let mut text = match draft.services.len() {
        0 => format!("{path}: an example\n"),
        1 => format!("{path}: 1 service\n"),
        count => format!("{path}: {count} services\n"),
    };
    for found in &draft.services {
        let source = output::one_line(&found.source);
        text += &format!("  {:width$}  {source}\n", found.name);
    }
    text + &format!("edit it, then: mainstay run {path}\n")
}

/// Writes the manifest. A file that exists is replaced as a whole if `force` is set, and keeps its
/// permissions.
fn store(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let message = format!("cannot write {}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => access::denied(&message, path, &error),
            _ => Failure::new(Code::CannotWrite, format!("{message}: {error}")).because_of(&error),
        }
    };
    let refused = |why: &str, hint: &str| {
        let message = format!("cannot write {}: {why}", path.display());
        Err(Failure::new(Code::CannotWrite, message).hint(hint))
    };
    let existing = match fs::symlink_metadata(path) {
        Ok(existing) => existing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return create(path, text).map_err(failed);
        }
        Err(error) => return Err(failed(error)),
    };
    if !existing.is_file() {
        return refused(
            "it is not a regular file",
            "name another file with --output",
        );
    }
    if !force {
        return refused(
            "the file exists",
            "replace it with --force, or name another file with --output",
        );
    }
    let mut new_path = path.as_os_str().to_owned();
    new_path.push(".new");
    let new_path = Path::new(&new_path);
    create(new_path, text).map_err(failed)?;
    let replaced = fs::set_permissions(new_path, existing.permissions());
    let replaced = replaced.and_then(|()| fs::rename(new_path, path));
    if replaced.is_err() {
        // The error is that of the write.
        let _ = fs::remove_file(new_path);
    }
    replaced.map_err(failed)
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes());
    if written.is_err() {
        // Do not leave half a file on a full disk.
        let _ = fs::remove_file(path);
    }
    written
}

/// A directory on disk.
struct Disk {
    path: PathBuf,
    name: String,
}

impl Disk {
    fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let message = format!("cannot read {}", path.display());
            match error.kind() {
                io::ErrorKind::PermissionDenied => access::denied(&message, path, &error),
                _ => Failure::new(Code::Failed, format!("{message}: {error}")).caused_by(&error),
            }
        };
        fs::read_dir(path).map_err(failed)?;
        let path = std::path::absolute(path).map_err(failed)?;
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            name: name.unwrap_or_default(),
            path,
        })
    }

    /// Returns the path of the directory, unless a manifest at `target_path` would be in it.
    fn base_for(&self, target_path: &Path) -> Result<Option<String>, Failure> {
        let target_path = std::path::absolute(target_path).unwrap_or(target_path.to_owned());
        if target_path.parent() == Some(&self.path) {
            return Ok(None);
        }
        let base = self.path.to_str().map(str::to_owned);
        let failure = || {
            let message = format!(
                "cannot write the path {} to a manifest",
                self.path.display()
            );
            let failure = Failure::new(Code::Usage, format!("{message}: it is not UTF-8"));
            failure.hint("write the manifest into the directory")
        };
        Ok(Some(base.ok_or_else(failure)?))
    }

    /// Returns the path of a file below the directory; `None` if `path` leaves it.
    fn below(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        let is_below = |it| matches!(it, Component::Normal(_));
        path.components()
            .all(is_below)
            .then(|| self.path.join(path))
    }
}

impl Directory for Disk {
    fn name(&self) -> &str {
        &self.name
    }

    fn entries(&self, dir: &str) -> Vec<Entry> {
        let entries = self.below(dir).and_then(|dir| fs::read_dir(dir).ok());
        let entries = entries.into_iter().flatten().flatten().take(MOST_ENTRIES);
        let entries = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kind = kind(&entry.path());
            (!name.contains(char::is_control)).then_some(Entry { name, kind })
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    fn text(&self, path: &str) -> Option<String> {
        guarded::read_to_string(&self.below(path)?, LONGEST_FILE).ok()
    }
}

fn kind(path: &Path) -> EntryKind {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => EntryKind::Directory,
        Ok(metadata) if metadata.is_file() && is_program(path, &metadata) => EntryKind::Program,
        _ => EntryKind::File,
    }
}

fn is_program(path: &Path, metadata: &fs::Metadata) -> bool {
    let is_exe = path
        .extension()
        .is_some_and(|it| it.eq_ignore_ascii_case("exe"));
    is_exe || is_executable(metadata) && has_magic(path)
}

/// Returns whether a file begins like a program: ELF, or Mach-O for one or several processors.
#[cfg(unix)]
fn has_magic(path: &Path) -> bool {
    use std::io::Read as _;
    const MAGIC: [[u8; 4]; 3] = [
        *b"\x7fELF",
        [0xcf, 0xfa, 0xed, 0xfe],
        [0xca, 0xfe, 0xba, 0xbe],
    ];
    let mut start = [0; 4];
    let read = guarded::file(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && MAGIC.contains(&start)
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0
}

/// Programs of Windows have the extension alone.
#[cfg(windows)]
fn has_magic(_: &Path) -> bool {
    false
}

#[cfg(windows)]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}
