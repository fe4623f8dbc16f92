//! Tests with real files, real servers, and power failures before every single change.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

#[cfg(target_os = "linux")]
use mainstay_store::snapshot::Change;
use mainstay_testkit::Sandbox;

use super::*;

#[cfg(target_os = "linux")]
#[path = "../../../../mainstay-store/src/snapshot/plug.rs"]
mod plug;

const WORDS: &[u8] = b"#!/bin/sh\necho new\n";
const OTHER: &str = "6b8ec51d4d4b0e5ce4a8ef9f4ab1f4cbd5aa4a1d0a1d6b5b6f0f3a5f0b8a8c11";
/// The timeout of a server in a fast test.
const SHORT: Duration = Duration::from_millis(300);

fn programs(dir: &Path) -> Programs {
    let place = dir.join("state").join("installed").join("shop");
    if cfg!(windows) {
        // The service is installed in it.
        fs::create_dir_all(&place).unwrap();
    }
    Programs::of_place(&place)
}

fn sandbox() -> (Sandbox, Programs, Source) {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("new");
    fs::write(&file, WORDS).unwrap();
    let programs = programs(sandbox.path());
    (sandbox, programs, Source::File(file))
}

fn hash(bytes: &[u8]) -> Hash {
    Hash(mainstay_core::snapshot::Digest::of(bytes).to_string())
}

fn left(programs: &Programs) -> Vec<String> {
    let entries = fs::read_dir(&programs.dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name != LOCK).collect();
    names.sort();
    names
}

#[track_caller]
fn refused(fetched: Result<PathBuf, Failure>) -> String {
    fetched.unwrap_err().to_string()
}

#[test]
fn a_file_is_kept_by_its_hash_for_everybody_to_run() {
    let (sandbox, programs, source) = sandbox();
    let path = programs.fetch("shop", &source, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), WORDS);
    assert!(programs.have(path.to_str().unwrap()) && !programs.have("/bin/shop"));
    assert_eq!(left(&programs), [hash(WORDS).0]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(path.ancestors().take(4).all(|it| mode(it) == 0o755));
    }
    // One content with two file names.
    let other = programs.fetch("shop-2", &source, None).unwrap();
    assert_eq!(other.parent(), path.parent());
    let two = sandbox.write("two", "two");
    let two = programs.fetch("shop", &Source::File(two), None).unwrap();
    assert_eq!(left(&programs).len(), 2);
    let (long_ago, later) = (
        SystemTime::UNIX_EPOCH,
        SystemTime::now() + Duration::from_secs(9),
    );
    programs.prune(long_ago, |_| false);
    assert_eq!(left(&programs).len(), 2);
    programs.prune(later, |kept| kept == hash(WORDS).0);
    assert!(path.exists() && !two.exists());
    programs.purge().unwrap();
    assert!(!programs.dir.parent().unwrap().exists());
    programs.purge().unwrap();
}

#[test]
fn one_that_is_there_is_not_fetched_again_unless_it_was_damaged() {
    let (sandbox, programs, source) = sandbox();
    let expected = hash(WORDS);
    let path = programs.fetch("shop", &source, Some(&expected)).unwrap();
    let nowhere = Source::File(sandbox.path().join("none"));
    let fetch = |source: &Source| programs.fetch("shop", source, Some(&expected));
    assert_eq!(fetch(&nowhere).unwrap(), path);
    fs::write(&path, "damaged").unwrap();
    assert!(refused(fetch(&nowhere)).contains("fetch the program"));
    assert_eq!(fetch(&source).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), WORDS);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fetch(&source).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }
    assert_eq!(left(&programs), [expected.0]);
}

#[test]
fn what_is_not_what_was_expected_is_not_kept() {
    let (sandbox, programs, source) = sandbox();
    let expected: Hash = OTHER.parse().unwrap();
    let why = refused(programs.fetch("shop", &source, Some(&expected)));
    let both = [OTHER, &hash(WORDS).0];
    assert!(both.iter().all(|it| why.contains(it)), "{why}");
    let missing = Source::File(sandbox.path().join("none"));
    let why = refused(programs.fetch("shop", &missing, None));
    assert!(why.contains("none: "), "{why}");
    let dir = Source::File(sandbox.path().to_owned());
    let why = refused(programs.fetch("shop", &dir, None));
    assert!(
        why.contains("it is a directory") && why.contains("not a regular file"),
        "{why}"
    );
    assert_eq!(left(&programs), [""; 0]);
    for text in ["", "x", &OTHER[1..], &OTHER.replace('6', "g")] {
        assert!(text.parse::<Hash>().is_err(), "{text}");
    }
}

#[test]
fn one_at_a_time_fetches() {
    let (_sandbox, programs, source) = sandbox();
    programs.fetch("shop", &source, None).unwrap();
    let lock = programs.lock().unwrap();
    let busy = programs.fetch("shop", &source, None).unwrap_err();
    assert_eq!(busy.code(), Code::Busy);
    programs.prune(SystemTime::now() + Duration::from_secs(9), |_| false);
    assert_eq!(left(&programs).len(), 1);
    drop(lock);
    programs.fetch("shop", &source, None).unwrap();
}

#[test]
fn a_file_that_is_too_large_is_not_begun() {
    let (sandbox, programs, _) = sandbox();
    let file = sandbox.path().join("large");
    let large = File::create(&file).unwrap();
    if large.set_len(LARGEST + 1).is_err() {
        return mainstay_testkit::skip("this file system has no such large files");
    }
    let why = refused(programs.fetch("shop", &Source::File(file), None));
    assert!(why.contains("larger than 4 GiB"), "{why}");
    assert_eq!(left(&programs), [""; 0]);
}

/// The reaction of a server to one request after its head was read.
type Act = Box<dyn FnOnce(TcpStream) + Send>;

/// Starts a server that answers successive requests with these acts. The URL contains a secret.
fn server(acts: Vec<Act>) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for act in acts {
            let (stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let is_end = |line: &io::Result<String>| line.as_ref().is_ok_and(String::is_empty);
            assert!(lines.take_while(|line| !is_end(line)).all(|it| it.is_ok()));
            act(stream);
        }
    });
    format!("http://{address}/shop?key=hunter2")
        .parse()
        .unwrap()
}

fn says(text: String) -> Act {
    Box::new(move |mut stream| stream.write_all(text.as_bytes()).unwrap())
}

/// Sends the text, and then nothing more until the client disconnects.
fn stalls(text: String) -> Act {
    Box::new(move |mut stream| {
        stream.write_all(text.as_bytes()).unwrap();
        // Returns when the other end is closed.
        drop(stream.read(&mut [0]));
    })
}

fn answer(status: &str, more: &str, length: usize, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[test]
#[cfg_attr(
    windows,
    ignore = "how Windows words refused connections, and whom Wine trusts, has not been seen"
)]
fn a_program_comes_by_http_or_not_at_all() {
    let (_sandbox, programs, _) = sandbox();
    let text = std::str::from_utf8(WORDS).unwrap();
    let ok = |length, body: &str| answer("200 OK", "", length, body);
    let to = |place: &str| answer("302 Found", &format!("Location: {place}\r\n"), 0, "");
    let chunked = |end: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n{end}",
            text.len()
        )
    };
    let refusals = [
        (says(ok(text.len(), "damaged on its way!")), ", expected "),
        (says(ok(text.len() + 1, text)), "before the download was"),
        (says(chunked("5\r\nab")), "before the download was"),
        // A response without a length.
        (
            says("HTTP/1.1 200 OK\r\n\r\n#!/bin".to_owned()),
            ", expected ",
        ),
        (
            says(answer("404 Not Found", "", 0, "")),
            "the server returned 404",
        ),
        (
            says(answer("401 Unauthorized", "", 0, "")),
            "the server returned 401",
        ),
        (
            says(answer("204 No Content", "", 0, "")),
            "the server returned 204",
        ),
        (
            says(answer("206 Partial Content", "", 3, "#!/")),
            "the server returned 206",
        ),
        (
            says(to("http://192.0.2.1/shop?other=hunter2")),
            "without a redirect to https://",
        ),
        (
            says(to("http://127.0.0.1:9/shop")),
            "without a redirect to https://",
        ),
        (says(to("/elsewhere")), "without a redirect to https://"),
        // Nothing listens there: the error shows that the redirect was followed.
        (says(to("https://127.0.0.1:1/?other=hunter2")), "refused"),
        (
            says(answer("302 Found", "", 0, "")),
            "without a redirect to https://",
        ),
        (
            says("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n#".to_owned()),
            "larger than 4 GiB",
        ),
        (
            says("SSH-2.0-OpenSSH_9.9\r\n".to_owned()),
            "fetch the program",
        ),
        (says(String::new()), "fetch the program"),
        (stalls(String::new()), "no data from the server"),
        (stalls("HTTP/1.1 200".to_owned()), "no data from the server"),
        (stalls(ok(text.len(), "#!/bin")), "no data from the server"),
    ];
    let (mut acts, parts): (Vec<Act>, Vec<&str>) = refusals.into_iter().unzip();
    acts.extend([says(ok(text.len(), text)), says(chunked("0\r\n\r\n"))]);
    let source = server(acts);
    let expected = hash(WORDS);
    let fetch = |file_name| {
        let what = (file_name, &source, Some(&expected));
        programs.fetch_over(&CallOff::default(), SHORT, what)
    };
    for part in parts {
        let why = refused(fetch("shop"));
        assert!(why.contains(part), "{part}: {why}");
        assert!(
            why.starts_with("error: cannot fetch the program http://127.0.0.1:"),
            "{why}"
        );
        assert!(!why.contains("hunter2"), "{why}");
        assert_eq!(left(&programs), [""; 0], "{part}");
    }
    for file_name in ["shop", "shop-2"] {
        let path = fetch(file_name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), WORDS);
    }
    // The server is gone, and the stored program does not need it.
    fetch("shop").unwrap();
    assert!(refused(fetch("shop-3")).contains("refused"));
    assert_eq!(left(&programs), [expected.0]);
}

#[test]
fn other_machines_are_asked_by_tls_only() {
    for (text, is_fit) in [
        ("https://example.net/shop", true),
        ("HTTPS://example.net", true),
        ("http://127.0.0.1:8080/shop", true),
        ("http://127.9.9.9/shop", true),
        ("http://[::1]/shop", true),
        ("http://[::1]:80/shop?a", true),
        ("http://localhost/shop", true),
        ("http://example.net/shop", false),
        ("http://127.0.0.1.example.net/", false),
        ("http://localhost@example.net/", false),
        ("https://me:secret@example.net/", false),
        ("http://[::2]/shop", false),
        ("ftp://127.0.0.1/shop", false),
        ("https://", false),
        ("://x", false),
    ] {
        let parsed = text.parse::<Source>();
        assert_eq!(parsed.is_ok(), is_fit, "{text}: {parsed:?}");
        assert!(!parsed.is_err_and(|why| why.contains("secret")));
    }
    assert!(matches!("./shop".parse(), Ok(Source::File(_))));
}

#[cfg(unix)]
#[test]
fn a_place_that_others_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (sandbox, programs, source) = sandbox();
    let open = |dir: &Path, mode| {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    };
    let all = programs.dir.parent().unwrap();
    fs::create_dir_all(&programs.dir).unwrap();
    for dir in [&*programs.dir, all, sandbox.path()] {
        for mode in [0o777, 0o775, 0o757] {
            open(dir, mode);
            let why = refused(programs.fetch("shop", &source, None));
            let part = format!(
                "{}: it is writable by others (mode {mode:o})",
                dir.display()
            );
            assert!(why.contains(&part) && why.contains("hint: "), "{why}");
        }
        open(dir, 0o755);
    }
    assert_eq!(left(&programs), [""; 0]);
    // The owner of the link could redirect it.
    fs::remove_dir_all(all).unwrap();
    let (elsewhere, public) = (
        sandbox.path().join("elsewhere"),
        sandbox.path().join("public"),
    );
    for dir in [&elsewhere, &public] {
        fs::create_dir(dir).unwrap();
    }
    std::os::unix::fs::symlink(&elsewhere, public.join("state-programs")).unwrap();
    open(&public, 0o777);
    let through = self::programs(&public);
    let why = refused(through.fetch("shop", &source, None));
    assert!(why.contains("public: it is writable by others"), "{why}");
    open(&public, 0o755);
    through.fetch("shop", &source, None).unwrap();
}

/// Tests of power failures.
#[cfg(target_os = "linux")]
mod faults {
    use std::os::unix::fs::MetadataExt as _;

    use super::plug::{Loss, Place, Plug};
    use super::*;

    /// Returns content that takes more than one write.
    fn content(of: u8) -> Vec<u8> {
        vec![of; CHUNK + 7]
    }

    fn place() -> (Place, Programs) {
        let place = Place::new();
        for of in [1, 2] {
            fs::write(place.path.join(of.to_string()), content(of)).unwrap();
        }
        let programs = programs(&place.path);
        (place, programs)
    }

    fn fetch(programs: &Programs, seam: &dyn Seam, of: u8) -> Result<PathBuf, Failure> {
        let place = programs.dir.ancestors().nth(2).unwrap();
        let source = Source::File(place.join(of.to_string()));
        programs.fetch_over(
            seam,
            RESPONSE_TIMEOUT,
            ("shop", &source, Some(&hash(&content(of)))),
        )
    }

    /// Returns whether the program is present, and asserts that it is intact.
    #[track_caller]
    fn is_there(programs: &Programs, of: u8) -> bool {
        let path = programs.dir.join(hash(&content(of)).0).join("shop");
        let Ok(found) = fs::metadata(&path) else {
            return false;
        };
        assert!(fs::read(&path).unwrap() == content(of), "another content");
        // The plug sets this time on files that lost their mode.
        assert_ne!(found.mtime(), 0, "another mode");
        assert_eq!(found.mode() & 0o7777, 0o755);
        true
    }

    /// Runs `act` with a power failure before every change, with every kind of loss.
    fn whatever_happens(
        prepare: impl Fn(&Programs),
        act: impl Fn(&Programs, &dyn Seam) -> bool,
        judge: impl Fn(&Programs, bool),
    ) -> usize {
        let mut most = 0;
        for loss in [Loss::Nothing, Loss::Half, Loss::Everything] {
            for changes in 0.. {
                let (place, programs) = place();
                prepare(&programs);
                let plug = Plug::new(place.path.join("trash"), changes, true);
                let is_done = act(&programs, &*plug);
                plug.lose(loss);
                let was_pulled = plug.was_pulled();
                assert!(is_done || was_pulled);
                judge(&programs, is_done);
                most = most.max(changes);
                if !was_pulled {
                    break;
                }
            }
        }
        most
    }

    #[test]
    fn a_program_is_whole_or_not_there() {
        let changes = whatever_happens(
            |_| {},
            |programs, seam| fetch(programs, seam, 1).is_ok(),
            |programs, is_done| {
                let is_there = is_there(programs, 1);
                assert!(is_there || !is_done);
                // No repair is needed.
                fetch(programs, &CallOff::default(), 1).unwrap();
                assert!(self::is_there(programs, 1));
                fetch(programs, &CallOff::default(), 2).unwrap();
                let mut expected = [1, 2].map(|of| hash(&content(of)).0);
                expected.sort();
                assert_eq!(left(programs), expected);
            },
        );
        assert!(changes >= 14, "{changes}");
    }

    #[test]
    fn one_that_is_damaged_is_replaced_or_stays_damaged_and_others_are_left_alone() {
        let damage = |programs: &Programs| {
            fetch(programs, &CallOff::default(), 2).unwrap();
            let path = fetch(programs, &CallOff::default(), 1).unwrap();
            fs::write(path, "damaged").unwrap();
        };
        let changes = whatever_happens(
            damage,
            |programs, seam| fetch(programs, seam, 1).is_ok(),
            |programs, is_done| {
                assert!(is_there(programs, 2));
                let path = programs.dir.join(hash(&content(1)).0).join("shop");
                let is_damaged = fs::read(&path).unwrap() == b"damaged";
                assert!(is_damaged && !is_done || is_there(programs, 1));
                fetch(programs, &CallOff::default(), 1).unwrap();
                assert!(is_there(programs, 1));
                assert_eq!(left(programs).len(), 2);
            },
        );
        assert!(changes >= 6, "{changes}");
    }

    #[test]
    fn what_is_pruned_is_gone_or_can_be_had_again() {
        let both = |programs: &Programs| {
            for of in [1, 2] {
                fetch(programs, &CallOff::default(), of).unwrap();
            }
        };
        whatever_happens(
            both,
            |programs, seam| {
                let later = SystemTime::now() + Duration::from_secs(9);
                programs.prune_over(seam, later, |kept| kept == hash(&content(2)).0);
                left(programs).len() == 1
            },
            |programs, _| {
                assert!(is_there(programs, 2));
                is_there(programs, 1);
                fetch(programs, &CallOff::default(), 1).unwrap();
                assert!(is_there(programs, 1));
            },
        );
    }

    #[test]
    fn a_disk_that_is_full_is_said() {
        struct Full;
        impl Seam for Full {
            fn before(&self, change: Change<'_>) -> io::Result<()> {
                match change {
                    Change::Write(_) => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(()),
                }
            }
        }
        let (_place, programs) = place();
        let failure = fetch(&programs, &Full, 1).unwrap_err();
        assert_eq!(failure.code(), Code::CannotWrite);
        let why = failure.to_string();
        assert!(why.contains("/.new: no storage space"), "{why}");
        assert_eq!(left(&programs), [""; 0]);
    }
}
