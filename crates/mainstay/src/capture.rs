//! Capture of standard output and standard error in files, for services whose manager keeps neither
//! (the Service Control Manager) and for those that request it
//! ([`Definition::log_dir`](crate::Definition::log_dir)).
//!
//! Both streams of the process become pipes. One thread per stream copies the data to `stdout.log`
//! or `stderr.log` and rotates the file at a line end. A line is never split. Lines of different
//! threads are not mixed, because `println!` holds a lock for each. [`end`] waits until everything
//! written is in the files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::sys::{self, Redirected};

/// The maximum size of a file in bytes. A file is rotated before it exceeds this.
const LIMIT: u64 = 10 << 20;
/// The number of rotated files per stream. `stdout.log.1` is the newest.
const KEEP: u32 = 8;
/// The maximum time that [`end`] waits for a stream, which a child of the service may hold open.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);

static CAPTURE: Mutex<Option<Capture>> = Mutex::new(None);

struct Capture {
    redirected: Redirected,
    /// Disconnected when a stream has been copied completely.
    copied: [Receiver<()>; 2],
}

/// Captures both streams in files in this directory, which is created if necessary.
///
/// # Errors
/// If the directory cannot be used. The streams are then left unchanged.
pub(crate) fn begin(dir: &Path) -> io::Result<()> {
    // The service may change its working directory.
    let dir = &std::path::absolute(dir)?;
    create(dir)?;
    let begin = |name: &str| {
        let log = Log::open(dir.join(name), LIMIT)?;
        let (reader, writer) = io::pipe()?;
        let (copying, copied) = mpsc::channel();
        thread::Builder::new()
            .name("output".into())
            .spawn(move || {
                copy(reader, log);
                drop(copying);
            })?;
        Ok::<_, io::Error>((writer, copied))
    };
    let (stdout, stdout_copied) = begin("stdout.log")?;
    let (stderr, stderr_copied) = begin("stderr.log")?;
    let capture = Capture {
        redirected: sys::redirect(stdout, stderr)?,
        copied: [stdout_copied, stderr_copied],
    };
    *CAPTURE.lock().unwrap_or_else(PoisonError::into_inner) = Some(capture);
    Ok(())
}

/// Restores the streams and waits until everything written is in the files. Does nothing if nothing
/// is captured.
pub(crate) fn end() {
    let capture = CAPTURE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(Capture { redirected, copied }) = capture else {
        return;
    };
    // The buffer may hold an incomplete line.
    let _ = io::stdout().flush();
    drop(redirected);
    for copied in copied {
        let _ = copied.recv_timeout(STREAM_TIMEOUT);
    }
}

/// Creates the service's private directory. Links are rejected because they may lead elsewhere.
fn create(dir: &Path) -> io::Result<()> {
    // Directories above `NAME/logs` are shared.
    if let Some(shared) = dir.parent().and_then(Path::parent) {
        fs::create_dir_all(shared)?;
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    let own = [Some(dir), dir.parent()].into_iter().flatten();
    for place in own {
        if fs::symlink_metadata(place)?.is_symlink() {
            let what = format!("{} is a symbolic link", place.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
    }
    Ok(())
}

/// Copies until the last writer closes the pipe. The pipe is always drained, so the service never
/// waits for a full disk.
fn copy(mut reader: PipeReader, mut log: Log) {
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if lost > 0
            && log
                .write(format!("[{lost} bytes lost]\n").as_bytes())
                .is_ok()
        {
            lost = 0;
        }
        if log.write(&buffer[..count]).is_err() {
            lost += count;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file that is rotated at line ends.
struct Log {
    path: PathBuf,
    /// `None` while the file is being renamed, or if it could not be reopened.
    file: Option<File>,
    size: u64,
    limit: u64,
    /// Set if the last byte ends a line or the file is empty.
    ends_line: bool,
}

impl Log {
    fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file: Some(file),
            size,
            limit,
            // A line that a crash cut off counts as complete, so the file can be rotated after it.
            ends_line: true,
        })
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let room = self.limit.saturating_sub(self.size);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            if bytes.len() <= room {
                return self.append(bytes);
            }
            let is_end = |byte: &u8| *byte == b'\n';
            let fits = bytes[..room].iter().rposition(is_end);
            let cut = match fits {
                Some(at) => at + 1,
                None if self.ends_line && self.size > 0 => 0,
                // The line is longer than a file, or has already begun.
                None => bytes
                    .iter()
                    .position(is_end)
                    .map_or(bytes.len(), |at| at + 1),
            };
            let (head, rest) = bytes.split_at(cut);
            self.append(head)?;
            if !self.ends_line {
                return Ok(());
            }
            self.rotate()?;
            bytes = rest;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = bytes.last() else {
            return Ok(());
        };
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(open(&self.path)?),
        };
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.ends_line = *last == b'\n';
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let rotated = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        // Not every Windows version can rename an open file.
        self.file = None;
        for number in (1..KEEP).rev() {
            // The file may not exist.
            let _ = fs::rename(rotated(number), rotated(number + 1));
        }
        if fs::rename(&self.path, rotated(1)).is_err() {
            // Another process holds the file open. Rotation is tried again after the same amount of
            // data.
            self.size = 0;
            return Ok(());
        }
        *self = Self::open(self.path.clone(), self.limit)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{}: a line is split",
            path.display()
        );
        text.lines().map(str::to_owned).collect()
    }

    #[cfg(unix)]
    #[test]
    fn only_its_own_directories_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let top = std::env::temp_dir().join(format!("mainstay-logs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&top);
        create(&top.join("acme/web/logs")).unwrap();
        let is_closed = |path: &str| {
            let mode = fs::metadata(top.join(path)).unwrap().permissions().mode();
            mode & 0o011 == 0
        };
        let closed = ["", "acme", "acme/web", "acme/web/logs"].map(is_closed);
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(closed, [false, false, true, true]);
    }

    #[test]
    fn files_are_rotated_at_line_ends_whatever_the_pieces_are() {
        for piece in [1, 3, 7, 1000] {
            let dir = std::env::temp_dir()
                .join(format!("mainstay-capture-{}-{piece}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            create(&dir).unwrap();
            let path = dir.join("stdout.log");
            let mut log = Log::open(path.clone(), 40).unwrap();
            // The ninth line is longer than a file.
            let length = |number: usize| if number == 9 { 60 } else { number };
            let written: Vec<String> = (0..14).map(|it| "x".repeat(length(it))).collect();
            let text: String = written.iter().map(|line| format!("{line}\n")).collect();
            for piece in text.as_bytes().chunks(piece) {
                log.write(piece).unwrap();
            }
            drop(log);
            assert!(dir.join("stdout.log.1").exists(), "it is rotated");
            let mut read = Vec::new();
            for number in (1..=KEEP).rev() {
                let rotated = dir.join(format!("stdout.log.{number}"));
                if rotated.exists() {
                    read.extend(lines(&rotated));
                }
            }
            read.extend(lines(&path));
            assert_eq!(read, written, "pieces of {piece}");
            fs::remove_dir_all(&dir).unwrap();
        }
    }
}
