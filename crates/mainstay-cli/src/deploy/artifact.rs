//! The sources of programs delivered with an update (`mainstay update --artifact`).

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use mainstay_core::failure::{Code, Failure};
use mainstay_host::agent::{self, Trust};
use mainstay_logs::StepError;
use mainstay_store::programs::{Content, Delivery, LARGEST};
use mainstay_sys::guarded;
use ureq::http::Uri;

/// The longest time without a response from a server.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest number of redirects of a download.
const REDIRECTS: u32 = 5;

/// A file or a download.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(PathBuf),
    /// An `https://` URL, or an `http://` URL of this machine. The query may be a secret and is
    /// never shown.
    Url(Uri),
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let uri = text.parse::<Uri>();
        let uri = uri.map_err(|_| "this is not a URL: write https://HOST/PATH")?;
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(
                "remove the user name and password, or fetch it yourself and name the file",
            );
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self::Url(uri)),
            Some("http") if is_here(&uri) => Ok(Self::Url(uri)),
            _ => Err("programs are fetched over https:// (http:// only from this machine)"),
        }
    }
}

fn is_here(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    }
}

impl Delivery for Source {
    fn open(&self) -> Result<Content, Failure> {
        self.open_within(RESPONSE_TIMEOUT)
    }

    fn interrupted(&self, error: &io::Error) -> Failure {
        self.failure(Code::Failed, &interruption(error, RESPONSE_TIMEOUT))
    }

    fn failure(&self, code: Code, why: &str) -> Failure {
        let from = match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(uri) => {
                let text = uri.to_string();
                text.split('?').next().unwrap_or_default().to_owned()
            }
        };
        Failure::new(code, format!("cannot fetch the program {from}: {why}"))
    }
}

impl Source {
    /// Opens the source. Blocks until the response has begun. `timeout` limits the wait for each
    /// response of a server, here and while reading.
    fn open_within(&self, timeout: Duration) -> Result<Content, Failure> {
        let cannot = |why: String| self.failure(Code::Failed, &why);
        match self {
            Self::File(path) => open(path).map_err(|error| {
                let failure = cannot(guarded::explain(&error));
                match error.kind() {
                    io::ErrorKind::NotFound => failure.hint("pass the program file itself"),
                    _ => failure,
                }
            }),
            Self::Url(uri) => ask(uri, timeout).map_err(|why| {
                cannot(why.to_string())
                    .hint("check the URL, or download the program yourself and pass the file")
            }),
        }
    }
}

fn open(path: &Path) -> io::Result<Content> {
    let file = guarded::file(path)?;
    Ok(Content {
        size: Some(file.metadata()?.len()),
        bytes: Box::new(file),
    })
}

/// The reason why a download did not begin.
enum Refused {
    /// The certificates cannot be used.
    Trust(StepError),
    /// The request failed. This was the longest wait for the server.
    Http(ureq::Error, Duration),
    /// The response was a redirect with this status, and not to HTTPS.
    Redirect(u16),
    Status(u16),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(error) => error.fmt(f),
            Self::Http(error, timeout) => match error {
                ureq::Error::Timeout(_) => f.write_str(&silence(*timeout)),
                ureq::Error::TooManyRedirects => {
                    write!(f, "there are more than {REDIRECTS} redirects")
                }
                // The messages of these errors would show the URL.
                ureq::Error::RequireHttpsOnly(_) => {
                    f.write_str("it redirects to a URL without TLS")
                }
                ureq::Error::BadUri(_) | ureq::Error::Http(_) => f.write_str("the URL is invalid"),
                error => error.fmt(f),
            },
            Self::Redirect(status) => write!(
                f,
                "the server returned {status} without a redirect to https://"
            ),
            Self::Status(status) => write!(f, "the server returned {status}"),
        }
    }
}

fn ask(uri: &Uri, timeout: Duration) -> Result<Content, Refused> {
    let is_plain = uri.scheme_str() == Some("http");
    let trust = if is_plain {
        Trust::Plain
    } else {
        Trust::System
    };
    let agent: ureq::Agent = agent::builder(trust)
        .map_err(Refused::Trust)?
        .max_redirects(if is_plain { 0 } else { REDIRECTS })
        .max_redirects_will_error(!is_plain)
        .timeout_resolve(Some(timeout))
        .timeout_recv_response(Some(timeout))
        // No limit for the whole download: a slow connection is fine while data arrives.
        .timeout_per_read(Some(timeout))
        .build()
        .into();
    let answer = agent.get(uri).call();
    let answer = answer.map_err(|error| Refused::Http(error, timeout))?;
    match answer.status().as_u16() {
        200 => {}
        // A redirect from this machine to another.
        status @ 300..=399 => {
            let to = answer.headers().get("location");
            let to = to.and_then(|to| to.to_str().ok()?.parse::<Uri>().ok());
            return match to.filter(|to| to.scheme_str() == Some("https")) {
                Some(to) if is_plain => ask(&to, timeout),
                _ => Err(Refused::Redirect(status)),
            };
        }
        status => return Err(Refused::Status(status)),
    }
    let size = answer.body().content_length();
    let body = answer.into_body().into_with_config().limit(LARGEST + 1);
    Ok(Content {
        size,
        bytes: Box::new(body.reader()),
    })
}

/// Describes an error in the middle of a download.
fn interruption(error: &io::Error, timeout: Duration) -> String {
    let of_client = error.get_ref().and_then(|it| it.downcast_ref());
    match (of_client, error.kind()) {
        (Some(ureq::Error::Timeout(_)), _) => silence(timeout),
        (_, io::ErrorKind::UnexpectedEof) => {
            "the connection was closed before the download was complete".to_owned()
        }
        _ => error.to_string(),
    }
}

fn silence(timeout: Duration) -> String {
    format!("no data from the server for {} s", timeout.as_secs_f32())
}
