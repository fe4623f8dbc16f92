//! One delivery attempt to a webhook: a POST of the event, signed according to Standard Webhooks.
//! Blocks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_core::alert::{Answer, SigningKeys};
use mainstay_core::engine::Human;
use mainstay_core::spec::Webhook;
use mainstay_sys as sys;
use mainstay_sys::guarded;
use ureq::Agent;

use crate::agent::{self, Trust};
use crate::launch;

/// The size limit of a secret file. Keys are much shorter.
const LONGEST_FILE: u64 = 8 << 10;

/// Sends a document. Returns the result and its description. `dir` is the manifest's directory.
pub(crate) fn post(webhook: &Webhook, dir: &Path, id: &str, document: &[u8]) -> (Answer, String) {
    match try_post(webhook, dir, id, document) {
        Ok((status, wanted)) => {
            let what = match status {
                300..=399 => format!("the server returned {status}; set `url` to its new address"),
                _ => format!("the server returned {status}"),
            };
            (Answer::Status(status, wanted), what)
        }
        Err(why) => (Answer::Nothing, why),
    }
}

fn try_post(
    webhook: &Webhook,
    dir: &Path,
    id: &str,
    document: &[u8],
) -> Result<(u16, Option<Duration>), String> {
    let keys = keys(webhook, dir)?;
    let ca = webhook.ca().map(|path| dir.join(path));
    let trust = match (&ca, webhook.url().is_secure()) {
        (_, false) => Trust::Plain,
        (Some(path), true) => Trust::Only(path),
        (None, true) => Trust::System,
    };
    let mut builder = agent::builder(trust)?.timeout_global(Some(webhook.timeout()));
    if webhook.url().is_local() {
        builder = builder.proxy(None);
    }
    let agent: Agent = builder.build().into();
    let now = SystemTime::now();
    let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let answer = agent
        .post(webhook.url().reveal())
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", keys.sign(id, timestamp, document))
        .send(document);
    let answer = answer.map_err(|error| match error {
        ureq::Error::Timeout(_) => format!("no response within {}", Human(webhook.timeout())),
        // The messages of these errors would show the URL.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_) => {
            "the URL is invalid".to_owned()
        }
        error => error.to_string(),
    })?;
    let wanted = answer.headers().get("retry-after");
    let wanted = wanted.and_then(|value| retry_after(value.to_str().ok()?, now));
    Ok((answer.status().as_u16(), wanted))
}

/// Parses a number of seconds or a date (RFC 9110 §10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = value.trim().parse().map(Duration::from_secs).ok();
    seconds.or_else(|| {
        let at = httpdate::parse_http_date(value).ok()?;
        Some(at.duration_since(now).unwrap_or_default())
    })
}

/// Reads the webhook's current keys.
pub(crate) fn keys(webhook: &Webhook, dir: &Path) -> Result<SigningKeys, String> {
    let named = webhook.secret_file();
    let credential = launch::credential(named);
    let path: PathBuf = credential.clone().unwrap_or_else(|| dir.join(named));
    let read = || -> io::Result<Result<String, String>> {
        let file = guarded::file(&path)?;
        // systemd protects its credentials with access lists that look like a group's permissions.
        if credential.is_none()
            && let Some(why) = sys::exposure(&path, &file)?
        {
            return Ok(Err(why));
        }
        let text = guarded::read_limited(&file, LONGEST_FILE)?;
        Ok(String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned()))
    };
    let wrong = |why: &str| format!("secret_file {}: {why}", named.display());
    let text = read().map_err(|error| wrong(&guarded::explain(&error)))?;
    SigningKeys::parse(&text.map_err(|why| wrong(&why))?).map_err(wrong)
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
