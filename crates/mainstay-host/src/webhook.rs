//! One delivery attempt to a webhook: a POST of the event, signed according to Standard Webhooks.
//!
//! Each attempt is a process of its own, which the supervisor ends when its time is over. A panic
//! or a fault in the code for TLS, HTTP or name resolution therefore costs one attempt, and what a
//! receiver sends never takes memory of the supervisor. The process reads the `Request` from its
//! standard input and writes the result to its standard output, both as JSON.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_core::alert::{Answer, SigningKeys};
use mainstay_core::engine::CommandFailure;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::Webhook;
use mainstay_core::trace::TraceContext;
use mainstay_logs::StepError;
use mainstay_sys as sys;
use mainstay_sys::guarded;
use serde::{Deserialize, Serialize};
use ureq::Agent;

use crate::agent::{self, Trust};
use crate::{launch, output};

/// The verb by which the program performs an attempt.
pub const VERB: &str = "post-alert";

/// The size limit of a secret file. Keys are much shorter.
const LONGEST_FILE: u64 = 8 << 10;
/// The size limit of a request. Documents are much shorter.
const LONGEST_REQUEST: u64 = 16 << 20;

/// An attempt to perform.
#[derive(Serialize, Deserialize)]
struct Request {
    url: String,
    /// Set if the receiver is on this machine, so that no proxy is used.
    is_local: bool,
    secret_file: PathBuf,
    ca: Option<PathBuf>,
    /// The manifest's directory.
    dir: PathBuf,
    timeout: Duration,
    id: String,
    document: String,
    /// Further headers: the trace context of the request that caused the alert.
    headers: Vec<(String, String)>,
}

/// Returns the request for an attempt, as the process reads it.
pub(crate) fn request(
    webhook: &Webhook,
    dir: &Path,
    (id, document): (&str, &str),
    cause: Option<&TraceContext>,
) -> serde_json::Result<Vec<u8>> {
    let headers = cause.into_iter().flat_map(TraceContext::headers);
    let request = Request {
        url: webhook.url().reveal().to_owned(),
        is_local: webhook.url().is_local(),
        secret_file: webhook.secret_file().to_owned(),
        ca: webhook.ca().map(Path::to_owned),
        dir: dir.to_owned(),
        timeout: webhook.timeout(),
        id: id.to_owned(),
        document: document.to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    };
    serde_json::to_vec(&request)
}

/// The reason why an attempt has no result.
pub(crate) enum NoResult {
    /// The process failed.
    Process(CommandFailure),
    /// The output of the process is not a result.
    Output(serde_json::Error),
}

impl fmt::Display for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(late @ CommandFailure::TimedOut(_)) => late.fmt(f),
            Self::Process(why) => write!(f, "its process failed: {why}"),
            Self::Output(error) => write!(f, "its process gave no result: {error}"),
        }
    }
}

/// Decodes the result of an attempt, as the process writes it.
pub(crate) fn result(output: &[u8]) -> Result<(Answer, String), NoResult> {
    serde_json::from_slice(output).map_err(NoResult::Output)
}

/// Performs the request on standard input and writes the result to standard output.
///
/// # Errors
/// If there is no valid request. An unsuccessful attempt is a result.
pub fn run() -> Result<(), Failure> {
    // A core dump would contain the key. A sandbox may forbid to change limits, so this is done
    // here, where it prevents nothing if it fails.
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = setrlimit(Resource::Core, none);
    }
    // The name of a program that was started through `/proc` is "exe".
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/comm", "mainstay-alert");
    let mut request = Vec::new();
    let read = io::stdin().take(LONGEST_REQUEST).read_to_end(&mut request);
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("cannot read a request from standard input: {error}");
        Failure::new(Code::Failed, message)
    };
    read.map_err(|error| failed(&error))?;
    let request: Request = serde_json::from_slice(&request).map_err(|error| failed(&error))?;
    let result: (Answer, String) = match request.post() {
        Ok((status, wanted)) => {
            let what = match status {
                300..=399 => format!("the server returned {status}; set `url` to its new address"),
                _ => format!("the server returned {status}"),
            };
            (Answer::Status(status, wanted), what)
        }
        Err(why) => (Answer::Nothing, why.to_string()),
    };
    output::document(&result)
}

/// The reason why an attempt has no response.
enum NoResponse {
    Keys(Keyless),
    /// The certificates cannot be used.
    Trust(StepError),
    /// The request failed. This was its time limit.
    Http(ureq::Error, Duration),
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(why) => why.fmt(f),
            Self::Trust(error) => error.fmt(f),
            Self::Http(error, limit) => match error {
                ureq::Error::Timeout(_) => CommandFailure::TimedOut(*limit).fmt(f),
                // The messages of these errors would show the URL.
                ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::RequireHttpsOnly(_) => f.write_str("the URL is invalid"),
                error => error.fmt(f),
            },
        }
    }
}

impl Request {
    fn post(&self) -> Result<(u16, Option<Duration>), NoResponse> {
        let keys = keys(&self.secret_file, &self.dir).map_err(NoResponse::Keys)?;
        let ca = self.ca.as_ref().map(|path| self.dir.join(path));
        let trust = match (&ca, self.url.starts_with("https:")) {
            (_, false) => Trust::Plain,
            (Some(path), true) => Trust::Only(path),
            (None, true) => Trust::System,
        };
        // The supervisor ends this process in time. The limit here is for one whose supervisor was
        // killed. A limit for the whole request would need a thread to resolve names in.
        let builder = agent::builder(trust).map_err(NoResponse::Trust)?;
        let mut builder = builder.timeout_recv_response(Some(self.timeout));
        if self.is_local {
            builder = builder.proxy(None);
        }
        let agent: Agent = builder.build().into();
        let now = SystemTime::now();
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let document = self.document.as_bytes();
        let post = agent.post(&self.url);
        let headers = self.headers.iter();
        let post = headers.fold(post, |post, (name, value)| post.header(name, value));
        let answer = post
            .header("content-type", "application/json")
            .header("webhook-id", &self.id)
            .header("webhook-timestamp", timestamp.to_string())
            .header(
                "webhook-signature",
                keys.sign(&self.id, timestamp, document),
            )
            .send(document);
        let answer = answer.map_err(|error| NoResponse::Http(error, self.timeout))?;
        let wanted = answer.headers().get("retry-after");
        let wanted = wanted.and_then(|value| retry_after(value.to_str().ok()?, now));
        Ok((answer.status().as_u16(), wanted))
    }
}

/// Parses a number of seconds or a date (RFC 9110 §10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = value.trim().parse().map(Duration::from_secs).ok();
    seconds.or_else(|| {
        let at = httpdate::parse_http_date(value).ok()?;
        Some(at.duration_since(now).unwrap_or_default())
    })
}

/// The reason why a `secret_file` has no keys.
pub(crate) struct Keyless {
    file: PathBuf,
    why: Unusable,
}

enum Unusable {
    Unreadable(io::Error),
    /// Other accounts can read the file, as this describes.
    Exposed(String),
    Binary,
    Malformed(&'static str),
}

impl fmt::Display for Keyless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret_file {}: ", self.file.display())?;
        match &self.why {
            Unusable::Unreadable(error) => f.write_str(&guarded::explain(error)),
            Unusable::Exposed(why) => f.write_str(why),
            Unusable::Binary => f.write_str("it is not UTF-8"),
            Unusable::Malformed(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Reads the current keys of a webhook from its `secret_file`.
pub(crate) fn keys(named: &Path, dir: &Path) -> Result<SigningKeys, Keyless> {
    let credential = launch::credential(named);
    let path: PathBuf = credential.clone().unwrap_or_else(|| dir.join(named));
    let read = || -> Result<SigningKeys, Unusable> {
        let file = guarded::file(&path)?;
        // systemd protects its credentials with access lists that look like a group's permissions.
        if credential.is_none()
            && let Some(why) = sys::exposure(&path, &file)?
        {
            return Err(Unusable::Exposed(why));
        }
        let text = guarded::read_limited(&file, LONGEST_FILE)?;
        let text = String::from_utf8(text).map_err(|_| Unusable::Binary)?;
        SigningKeys::parse(&text).map_err(Unusable::Malformed)
    };
    read().map_err(|why| Keyless {
        file: named.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_say_when_they_want_to_be_asked_again() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expect) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:57 GMT", Some(20)),
            ("Sun, 06 Nov 1994 08:49:17 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let found = retry_after(value, now).map(|pause| pause.as_secs());
            assert_eq!(found, expect, "{value}");
        }
    }
}
