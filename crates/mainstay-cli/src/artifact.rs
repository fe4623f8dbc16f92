//! Programs that come along with an update (`mainstay update --artifact`).
//!
//! ```text
//! PROGRAMS/NAME/.lock         held by whoever adds or removes one
//! PROGRAMS/NAME/.new/FILE     one that is being fetched, or of which that was interrupted
//! PROGRAMS/NAME/SHA256/FILE   one that is whole
//! ```
//!
//! PROGRAMS is `STATE-programs`, for STATE is its owner's alone, and a program is for every account that runs it (on Windows it lies where the
//! service is installed, which its account may read). What lies there never changes: a definition names its program by this path, so the switch
//! from one definition to another is that from one program to another, what runs keeps its file, and going back needs none.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::failure::{Code, Failure};
use crate::http::agent::{self, Trust};

/// The largest program.
const LARGEST: u64 = 4 << 30;
/// How long a download may take.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Where a download may be sent on to, so often.
const REDIRECTS: u32 = 5;
const NEW: &str = ".new";

/// Where a program comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(PathBuf),
    /// `https://`, or `http://` of this machine.
    Url(String),
}

/// SHA-256: 64 hexadecimal digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hash(String);

/// The programs of one service.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    dir: PathBuf,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::File(text.into()));
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = match host.strip_prefix('[') {
            Some(literal) => literal.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        match scheme {
            "https" => Ok(Self::Url(text.to_owned())),
            "http" if ["127.0.0.1", "::1", "localhost"].contains(&host) => {
                Ok(Self::Url(text.to_owned()))
            }
            _ => Err("a program is fetched by https:// (http:// only from this machine)".into()),
        }
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_hash {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err("SHA-256 is 64 hexadecimal digits"),
        }
    }
}

impl Programs {
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Of a service whose place is `STATE/installed/NAME`.
    pub(crate) fn of_place(place: &Path) -> Self {
        if cfg!(windows) {
            return Self::at(place.join("programs"));
        }
        let state = place.parent().and_then(Path::parent).unwrap_or(place);
        let mut all = state.as_os_str().to_owned();
        all.push("-programs");
        let name = place.file_name().unwrap_or_default();
        Self::at(Path::new(&all).join(name))
    }

    /// Whether this program has come along with an update.
    pub(crate) fn have(&self, program: &str) -> bool {
        Path::new(program).starts_with(&self.dir)
    }

    /// Fetches a program and keeps it, whole or not at all; its path. Blocks as long as that takes.
    ///
    /// # Errors
    /// Where it cannot be had or kept, or is not what `expected` says.
    pub(crate) fn fetch(
        &self,
        file_name: &str,
        source: &Source,
        expected: Option<&Hash>,
    ) -> Result<PathBuf, Failure> {
        let doing = |what: &str, path: &Path| {
            let what = format!("{what} {}", path.display());
            move |error: io::Error| {
                let code = match error.kind() {
                    io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                    _ => Code::CannotWrite,
                };
                Failure::new(code, format!("{what}: {error}"))
            }
        };
        if let Some(all) = self.dir.parent() {
            create_dir(all).map_err(doing("create", all))?;
        }
        create_dir(&self.dir).map_err(doing("create", &self.dir))?;
        let _lock = self.lock().map_err(doing("lock", &self.dir))?;
        let new = self.dir.join(NEW);
        remove(&new).map_err(doing("remove", &new))?;
        create_dir(&new).map_err(doing("create", &new))?;
        let path = new.join(file_name);
        let copied = source.open().and_then(|from| {
            let kept = copy(from, &path).map_err(|(read, error)| match read {
                true => source.unread(&error.to_string()),
                false => doing("write", &path)(error),
            });
            kept.and_then(|found| match expected {
                Some(expected) if *expected != found => Err(source.is_another(&found, expected)),
                _ => Ok(found),
            })
        });
        let hash = match copied {
            Ok(hash) => hash,
            Err(failure) => {
                // What stays is in nobody's way.
                drop(remove(&new));
                return Err(failure);
            }
        };
        let kept = self.dir.join(&hash.0);
        let program = kept.join(file_name);
        let keep = || {
            if kept.exists() {
                // The same again, or what was damaged there.
                fs::rename(&path, &program)?;
                sync_dir(&kept)?;
                remove(&new)?;
            } else {
                sync_dir(&new)?;
                fs::rename(&new, &kept)?;
            }
            sync_dir(&self.dir)
        };
        keep().map_err(doing("keep", &program))?;
        Ok(program)
    }

    /// Removes those whose hash is not to be kept; a hope, not more.
    pub(crate) fn prune(&self, keeps: impl Fn(&str) -> bool) {
        let Ok(_lock) = self.lock() else { return };
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let hash = name.to_str().filter(|name| name.parse::<Hash>().is_ok());
            if hash.is_some_and(|hash| !keeps(hash)) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }

    /// Removes all of them.
    pub(crate) fn purge(&self) -> io::Result<()> {
        remove(&self.dir)?;
        if let Some(all) = self.dir.parent() {
            // Other services have theirs there.
            drop(fs::remove_dir(all));
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<File> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let lock = options.open(self.dir.join(".lock"))?;
        lock.lock()?;
        Ok(lock)
    }
}

impl Source {
    fn open(&self) -> Result<Box<dyn Read>, Failure> {
        match self {
            Self::File(path) => {
                let opened = File::open(path).and_then(|file| match file.metadata()?.is_file() {
                    true => Ok(file),
                    false => Err(io::Error::other("it is not a file")),
                });
                Ok(Box::new(
                    opened.map_err(|error| self.unread(&error.to_string()))?,
                ))
            }
            Self::Url(url) => self
                .request(url)
                .map_err(|why| self.unread(&why).hint("see whether that is where it lies")),
        }
    }

    fn request(&self, url: &str) -> Result<Box<dyn Read>, String> {
        let is_local = url.starts_with("http://");
        let trust = if is_local {
            Trust::Plain
        } else {
            Trust::System
        };
        let agent: ureq::Agent = agent::builder(trust)?
            .max_redirects(if is_local { 0 } else { REDIRECTS })
            .max_redirects_will_error(true)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let answer = agent.get(url).call();
        // Of one that is none, it says all.
        let answer = answer.map_err(|error| error.to_string().replace(url, "the URL"))?;
        match answer.status().as_u16() {
            200 => {
                let body = answer.into_body().into_with_config();
                Ok(Box::new(body.limit(LARGEST + 1).reader()))
            }
            status => Err(format!("the server answers {status}")),
        }
    }

    fn unread(&self, why: &str) -> Failure {
        let from = match self {
            Self::File(path) => path.display().to_string(),
            // What follows may be a secret.
            Self::Url(url) => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        };
        Failure::new(Code::Failed, format!("fetch the program {from}: {why}"))
    }

    fn is_another(&self, found: &Hash, expected: &Hash) -> Failure {
        let why = format!(
            "its SHA-256 is {}, and {} was expected",
            found.0, expected.0
        );
        self.unread(&why)
            .hint("it is another file, or was damaged on its way: nothing of it was kept")
    }
}

/// Copies all of it into a new file that everybody may run, and has it on the disk. On failure also whether it was in reading.
fn copy(mut from: impl Read, path: &Path) -> Result<Hash, (bool, io::Error)> {
    let (read, write) = (|error| (true, error), |error| (false, error));
    let mut options = File::options();
    options.write(true).create_new(true);
    let mut file = options.open(path).map_err(write)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        size += count as u64;
        if size > LARGEST {
            let why = format!("it has more than {LARGEST} bytes");
            return Err(read(io::Error::other(why)));
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(write)?;
    }
    open_to_all(path).map_err(write)?;
    file.sync_all().map_err(write)?;
    let bytes = hash.finalize().into_iter();
    Ok(Hash(bytes.map(|byte| format!("{byte:02x}")).collect()))
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A directory that its owner changes, and everybody may look into.
fn create_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => open_to_all(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_foreign(dir),
        Err(error) => Err(error),
    }
}

/// To read and to run, whatever the umask.
#[cfg(unix)]
fn open_to_all(path: &Path) -> io::Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path, mode)
}

/// As the directory above has it.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as elsewhere")]
fn open_to_all(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Whoever may change a program may do what it may.
#[cfg(unix)]
fn refuse_foreign(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let there = dir.symlink_metadata()?;
    let is_ours = there.is_dir() && there.uid() == rustix::process::geteuid().as_raw();
    match is_ours && there.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(io::Error::other(
            "it is there already, and others may write to it, or own it",
        )),
    }
}

#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as elsewhere")]
fn refuse_foreign(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Directories cannot be synchronised there.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as elsewhere")]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::net::TcpListener;

    use mainstay_testkit::Sandbox;

    use super::*;

    const WORDS: &[u8] = b"#!/bin/sh\necho new\n";
    const HASH: &str = "6b8ec51d4d4b0e5ce4a8ef9f4ab1f4cbd5aa4a1d0a1d6b5b6f0f3a5f0b8a8c11";

    fn sandbox() -> (Sandbox, Programs) {
        let sandbox = Sandbox::new();
        let place = sandbox.path().join("state/installed/shop");
        let programs = Programs::of_place(&place);
        (sandbox, programs)
    }

    /// Answers one request after the other with these.
    fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = io::BufReader::new(stream.try_clone().unwrap()).lines();
                let is_end = |line: &io::Result<String>| line.as_ref().is_ok_and(String::is_empty);
                assert!(lines.take_while(|line| !is_end(line)).all(|it| it.is_ok()));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        format!("http://{address}/shop?key=hunter2")
    }

    fn answer(status: &str, more: &str, length: usize, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    }

    fn left(programs: &Programs) -> Vec<String> {
        let entries = fs::read_dir(&programs.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_kept_by_its_hash_for_everybody_to_run() {
        let (sandbox, programs) = sandbox();
        let file = sandbox.path().join("new");
        fs::write(&file, WORDS).unwrap();
        let source = Source::File(file.clone());
        let path = programs.fetch("shop", &source, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), WORDS);
        assert!(programs.have(path.to_str().unwrap()) && !programs.have("/bin/shop"));
        let hash: Hash = left(&programs)[0].parse().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert!(path.ancestors().take(4).all(|it| mode(it) == 0o755));
        }
        // Again, and where it was damaged meanwhile.
        fs::write(&path, "damaged").unwrap();
        assert_eq!(programs.fetch("shop", &source, Some(&hash)).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), WORDS);
        fs::write(&file, "two").unwrap();
        let two = programs.fetch("shop", &source, None).unwrap();
        assert_eq!(left(&programs).len(), 2);
        programs.prune(|kept| kept == hash.0);
        assert!(path.exists() && !two.exists());
        programs.purge().unwrap();
        assert!(!programs.dir.parent().unwrap().exists());
    }

    #[test]
    fn what_is_not_what_was_expected_is_not_kept() {
        let (sandbox, programs) = sandbox();
        let file = sandbox.path().join("new");
        fs::write(&file, WORDS).unwrap();
        let expected: Hash = HASH.parse().unwrap();
        let refused = programs.fetch("shop", &Source::File(file), Some(&expected));
        let why = refused.unwrap_err().to_string();
        assert!(why.contains(HASH) && why.contains("was expected"), "{why}");
        assert_eq!(left(&programs), [""; 0]);
        let missing = Source::File(sandbox.path().join("none"));
        assert!(programs.fetch("shop", &missing, None).is_err());
        assert!(
            programs
                .fetch("shop", &Source::File("/".into()), None)
                .is_err()
        );
        assert_eq!(left(&programs), [""; 0]);
        for text in ["", "x", &HASH[1..], &HASH.replace('6', "g")] {
            assert!(text.parse::<Hash>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_program_comes_by_http_or_not_at_all() {
        let (_sandbox, programs) = sandbox();
        let text = std::str::from_utf8(WORDS).unwrap();
        let url = server(vec![
            answer("200 OK", "", text.len(), text),
            answer("404 Not Found", "", 0, ""),
            answer("302 Found", "Location: http://example.net/\r\n", 0, ""),
            answer("200 OK", "", text.len() + 1, text),
        ]);
        let source: Source = url.parse().unwrap();
        let path = programs.fetch("shop", &source, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), WORDS);
        for part in [
            "the server answers 404",
            "the server answers 302",
            "fetch the program",
        ] {
            let why = programs
                .fetch("shop", &source, None)
                .unwrap_err()
                .to_string();
            assert!(
                why.contains(part) && !why.contains("hunter2"),
                "{part}: {why}"
            );
        }
        // Nobody listens any more.
        assert!(programs.fetch("shop", &source, None).is_err());
        assert_eq!(left(&programs).len(), 1);
    }

    #[test]
    fn other_machines_are_asked_by_tls_only() {
        for (text, is_fit) in [
            ("https://example.net/shop", true),
            ("http://127.0.0.1:8080/shop", true),
            ("http://[::1]/shop", true),
            ("http://localhost/shop", true),
            ("http://example.net/shop", false),
            ("http://127.0.0.1.example.net/", false),
            ("http://localhost@example.net/", false),
            ("ftp://127.0.0.1/shop", false),
        ] {
            assert_eq!(text.parse::<Source>().is_ok(), is_fit, "{text}");
        }
        assert!(matches!("./shop".parse(), Ok(Source::File(_))));
    }

    #[cfg(unix)]
    #[test]
    fn a_place_that_others_write_to_is_refused() {
        let (sandbox, programs) = sandbox();
        let all = programs.dir.parent().unwrap();
        fs::create_dir(all).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(all, mode).unwrap();
        let file = sandbox.path().join("new");
        fs::write(&file, WORDS).unwrap();
        let why = programs
            .fetch("shop", &Source::File(file), None)
            .unwrap_err();
        assert!(why.to_string().contains("others may write to it"), "{why}");
    }

    /// Interrupted at any instant it leaves `.new`, of which nothing comes.
    #[test]
    fn what_an_interrupted_download_left_is_removed() {
        let (sandbox, programs) = sandbox();
        let file = sandbox.path().join("new");
        fs::write(&file, WORDS).unwrap();
        fs::create_dir_all(programs.dir.join(NEW)).unwrap();
        fs::write(programs.dir.join(NEW).join("shop"), "half").unwrap();
        let path = programs.fetch("shop", &Source::File(file), None).unwrap();
        assert_eq!(fs::read(path).unwrap(), WORDS);
        assert_eq!(left(&programs).len(), 1);
    }
}
