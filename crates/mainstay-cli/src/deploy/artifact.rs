//! The sources of programs delivered with an update (`mainstay update --artifact`).

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use mainstay_core::failure::{Code, Failure};
use mainstay_host::agent::{self, Trust};
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| "this is not a URL: write https://HOST/PATH".to_owned())?;
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            let why = "remove the user name and password, or fetch it yourself and name the file";
            return Err(why.into());
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self::Url(uri)),
            Some("http") if is_here(&uri) => Ok(Self::Url(uri)),
            _ => Err("programs are fetched over https:// (http:// only from this machine)".into()),
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
                cannot(why)
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

fn ask(uri: &Uri, timeout: Duration) -> Result<Content, String> {
    let is_plain = uri.scheme_str() == Some("http");
    let trust = if is_plain {
        Trust::Plain
    } else {
        Trust::System
    };
    let agent: ureq::Agent = agent::builder(trust)?
        .max_redirects(if is_plain { 0 } else { REDIRECTS })
        .max_redirects_will_error(!is_plain)
        .timeout_resolve(Some(timeout))
        .timeout_recv_response(Some(timeout))
        // No limit for the whole download: a slow connection is fine while data arrives.
        .timeout_per_read(Some(timeout))
        .build()
        .into();
    let answer = agent.get(uri).call().map_err(|error| match error {
        ureq::Error::Timeout(_) => silence(timeout),
        ureq::Error::TooManyRedirects => format!("there are more than {REDIRECTS} redirects"),
        // The messages of these errors would show the URL.
        ureq::Error::RequireHttpsOnly(_) => "it redirects to a URL without TLS".to_owned(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the URL is invalid".to_owned(),
        error => error.to_string(),
    })?;
    match answer.status().as_u16() {
        200 => {}
        // A redirect from this machine to another.
        status @ 300..=399 => {
            let to = answer.headers().get("location");
            let to = to.and_then(|to| to.to_str().ok()?.parse::<Uri>().ok());
            return match to.filter(|to| to.scheme_str() == Some("https")) {
                Some(to) if is_plain => ask(&to, timeout),
                _ => Err(format!(
                    "the server returned {status} without a redirect to https://"
                )),
            };
        }
        status => return Err(format!("the server returned {status}")),
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
