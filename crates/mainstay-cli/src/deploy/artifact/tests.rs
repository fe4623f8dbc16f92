//! Tests with real files and real servers.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use mainstay_core::snapshot::Digest;
use mainstay_store::programs::{Hash, Programs};
use mainstay_testkit::Sandbox;

use super::*;

const WORDS: &[u8] = b"#!/bin/sh\necho new\n";
const OTHER: &str = "6b8ec51d4d4b0e5ce4a8ef9f4ab1f4cbd5aa4a1d0a1d6b5b6f0f3a5f0b8a8c11";
/// The timeout of a server in a fast test.
const SHORT: Duration = Duration::from_millis(300);

/// A source whose server must respond quickly.
struct Impatient<'s>(&'s Source);

impl Delivery for Impatient<'_> {
    fn open(&self) -> Result<Content, Failure> {
        self.0.open_within(SHORT)
    }

    fn interrupted(&self, error: &io::Error) -> Failure {
        self.failure(Code::Failed, &interruption(error, SHORT))
    }

    fn failure(&self, code: Code, why: &str) -> Failure {
        self.0.failure(code, why)
    }
}

fn sandbox() -> (Sandbox, Programs, Source) {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("new");
    fs::write(&file, WORDS).unwrap();
    let place = sandbox.path().join("state/installed/shop");
    // On Windows, the service is installed in it.
    fs::create_dir_all(&place).unwrap();
    (sandbox, Programs::of_place(&place), Source::File(file))
}

fn hash(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Returns the names of the stored programs' directories, and of unfinished fetches.
fn left(sandbox: &Sandbox) -> Vec<String> {
    let dir = if cfg!(windows) {
        "state/installed/shop/programs"
    } else {
        "state-programs/shop"
    };
    let entries = fs::read_dir(sandbox.path().join(dir));
    let entries = entries.into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
    names.sort();
    names
}

#[track_caller]
fn refused(fetched: Result<PathBuf, Failure>) -> String {
    fetched.unwrap_err().to_string()
}

#[test]
fn what_is_not_what_was_expected_is_not_kept() {
    let (sandbox, programs, source) = sandbox();
    let expected: Hash = OTHER.parse().unwrap();
    let why = refused(programs.fetch("shop", &source, Some(&expected)));
    let both = [OTHER, &hash(WORDS)];
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
    assert_eq!(left(&sandbox), [""; 0]);
    for text in ["", "x", &OTHER[1..], &OTHER.replace('6', "g")] {
        assert!(text.parse::<Hash>().is_err(), "{text}");
    }
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
    assert_eq!(left(&sandbox), [""; 0]);
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
    let (sandbox, programs, _) = sandbox();
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
    let expected: Hash = hash(WORDS).parse().unwrap();
    let fetch = |file_name| programs.fetch(file_name, &Impatient(&source), Some(&expected));
    for part in parts {
        let why = refused(fetch("shop"));
        assert!(why.contains(part), "{part}: {why}");
        assert!(
            why.starts_with("error: cannot fetch the program http://127.0.0.1:"),
            "{why}"
        );
        assert!(!why.contains("hunter2"), "{why}");
        assert_eq!(left(&sandbox), [""; 0], "{part}");
    }
    for file_name in ["shop", "shop-2"] {
        let path = fetch(file_name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), WORDS);
    }
    // The server is gone, and the stored program does not need it.
    fetch("shop").unwrap();
    assert!(refused(fetch("shop-3")).contains("refused"));
    assert_eq!(left(&sandbox), [hash(WORDS)]);
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
