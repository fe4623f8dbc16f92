//! Types of addresses: where a probe asks, a socket listens, and output and alerts are sent.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::decode::{Decode, FromText, Mistake};
use super::diagnostic::{Code, Findings, Shown};
use super::tree::{Node, Value};
use super::words::unknown_word;
use crate::spec::{HostPort, HttpUrl, Listen, SinkTarget, WebhookUrl};

impl FromText for HostPort {
    const WHAT: &'static str = "an address";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        host_port(text).map_err(|help| {
            let message = format!("`{}` is not an address", Shown(text));
            Mistake::new(Code::Address, message, help)
        })
    }
}

impl FromText for Listen {
    const WHAT: &'static str = "an address";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        match text.starts_with('/') {
            true if text.contains('\0') => {
                let message = "a path cannot contain a NUL";
                Err(Mistake::new(Code::Address, message, "remove it"))
            }
            true => Ok(Self::Unix(text.into())),
            false => {
                let address = HostPort::from_text(text)?;
                if address.literal().is_empty() {
                    let message = format!("`{}` is not an address of this machine", Shown(text));
                    let help = "write an IP address (`[::]` for all): host names are not resolved";
                    return Err(Mistake::new(Code::Address, message, help));
                }
                Ok(Self::Tcp(address))
            }
        }
    }
}

fn host_port(text: &str) -> Result<HostPort, &'static str> {
    const EXAMPLE: &str = "write a host and a port: \"127.0.0.1:5432\", \"[::1]:5432\"";
    let (host, port) = text.rsplit_once(':').ok_or(EXAMPLE)?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0);
    let port: u16 = port.ok_or("a port is a number from 1 to 65535")?;
    let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(address) => address
            .filter(|address| address.parse::<Ipv6Addr>().is_ok())
            .ok_or("write an IPv6 address in brackets: \"[::1]:5432\"")?,
        None if host.contains(':') => {
            return Err("write an IPv6 address in brackets: \"[::1]:5432\"");
        }
        None => host,
    };
    let plain = |c: char| c.is_alphanumeric() || "-_.:".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(EXAMPLE);
    }
    let host = host.to_owned();
    Ok(HostPort { host, port })
}

impl FromText for HttpUrl {
    const WHAT: &'static str = "a URL";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        http_url(text).map_err(|help| {
            // The text is omitted: a URL may contain a password.
            Mistake::new(
                Code::Url,
                "this is not a URL that a probe can request",
                help,
            )
        })
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "pattern": "^http://" })
    }
}

fn http_url(text: &str) -> Result<HttpUrl, &'static str> {
    const EXAMPLE: &str = "write \"http://127.0.0.1:8080/healthz\"";
    if text.starts_with("https://") {
        return Err("write http:// : probes do not support TLS");
    }
    let rest = text.strip_prefix("http://").ok_or(EXAMPLE)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("remove the user name and password");
    }
    if path.contains('#') {
        return Err("remove the fragment: it is never sent");
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("write spaces and other special characters as %20");
    }
    let has_port = authority
        .rsplit(']')
        .next()
        .is_some_and(|end| end.contains(':'));
    let authority = if has_port {
        Cow::Borrowed(authority)
    } else {
        Cow::Owned(format!("{authority}:80"))
    };
    let path_and_query = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    Ok(HttpUrl {
        address: host_port(&authority)?,
        path_and_query,
    })
}

impl FromText for WebhookUrl {
    const WHAT: &'static str = "a URL";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        webhook_url(text).map_err(|help| {
            // The text is omitted: the path may be a secret.
            Mistake::new(Code::Url, "this is not a valid webhook URL", help)
        })
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

fn webhook_url(text: &str) -> Result<WebhookUrl, &'static str> {
    const EXAMPLE: &str = "write \"https://alerts.example.com/mainstay\"";
    let (scheme, rest) = text.split_once("://").ok_or(EXAMPLE)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("remove the user name and password: the signature authenticates the sender");
    }
    if path.contains('#') {
        return Err("remove the fragment: it is never sent");
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("write spaces and other special characters as %20");
    }
    let end = authority.rsplit(']').next();
    let has_port = end.is_some_and(|end| end.contains(':'));
    let host = if has_port {
        host_port(authority)?.host
    } else {
        host_port(&format!("{authority}:443"))?.host
    };
    let is_local = match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    };
    match scheme {
        "https" => {}
        "http" if is_local => {}
        "http" => return Err("write https:// : http:// is allowed only for this machine"),
        _ => return Err(EXAMPLE),
    }
    Ok(WebhookUrl {
        text: text.to_owned(),
        origin: scheme.len() + "://".len() + authority.len(),
        is_local,
    })
}

impl FromText for SinkTarget {
    const WHAT: &'static str = "a sink";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        const WORDS: [&str; 7] = [
            "journald",
            "syslog",
            "syslog+udp://HOST:PORT",
            "syslog+tcp://HOST:PORT",
            "syslog+tls://HOST:PORT",
            "syslog+unix:///PATH",
            "journald+unix:///PATH",
        ];
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "journald" => Ok(Self::Journald(Self::JOURNALD_SOCKET.into())),
                "syslog" => Ok(Self::Unix(Self::SYSLOG_SOCKET.into())),
                _ => Err(unknown_word(Self::WHAT, text, &WORDS)),
            };
        };
        let address = |usual: &str| {
            host_port(rest).map_err(|help| {
                // The text is omitted: it may contain a password.
                let message = format!("`{scheme}://` requires a host and a port");
                let help = if help.starts_with("write a host") {
                    format!("write \"{scheme}://loghost:{usual}\"")
                } else {
                    help.to_owned()
                };
                Mistake::new(Code::Address, message, &help)
            })
        };
        let path = || {
            if rest.starts_with('/') && !rest.contains(char::is_control) {
                Ok(PathBuf::from(rest))
            } else {
                let message = format!("`{scheme}://` requires an absolute path");
                let help = format!("write \"{scheme}:///dev/log\"");
                Err(Mistake::new(Code::RelativePath, message, &help))
            }
        };
        match scheme {
            "syslog+udp" => address("514").map(Self::Udp),
            "syslog+tcp" => address("601").map(Self::Tcp),
            "syslog+tls" => address("6514").map(Self::Tls),
            "syslog+unix" => path().map(Self::Unix),
            "journald+unix" => path().map(Self::Journald),
            _ => Err(unknown_word(Self::WHAT, scheme, &WORDS)),
        }
    }

    fn text_schema() -> Json {
        json!({ "type": "string", "pattern": "^(?:journald|syslog|syslog\\+(?:udp|tcp|tls)://.+:[0-9]+|(?:syslog|journald)\\+unix:///.*)$" })
    }

    fn to_text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A sink: a target, or a table that specifies more.
pub(super) enum Target<T> {
    Plain(SinkTarget),
    Table(T),
}

impl<T: Decode> Decode for Target<T> {
    fn decode(node: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match node.value {
            Value::Table(_) => T::decode(node, findings).map(Self::Table),
            _ => SinkTarget::decode(node, findings).map(Self::Plain),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [SinkTarget::schema(), T::schema()] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let check = |text, expect: Option<&str>| {
            let shown = host_port(text).ok().map(|address| address.to_string());
            assert_eq!(shown.as_deref(), expect, "{text}");
        };
        check("db:5432", Some("db:5432"));
        check("[::1]:80", Some("[::1]:80"));
        check("127.0.0.1:65535", Some("127.0.0.1:65535"));
        for bad in [
            "", ":", ":80", "db", "db:", "db:0", "db:65536", "db:+80", "::1:80", "[::1]",
            "[db]:80", "a b:80", "[::1:80", "a/b:80",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn urls_are_read() {
        let check = |text, expect: Option<&str>| {
            let shown = http_url(text).ok().map(|url| url.to_string());
            assert_eq!(shown.as_deref(), expect, "{text}");
        };
        check("http://db", Some("http://db:80/"));
        check("http://[::1]?q=1", Some("http://[::1]:80/?q=1"));
        check("http://[::1]:8080/a", Some("http://[::1]:8080/a"));
        for bad in [
            "",
            "db",
            "https://db",
            "http://",
            "http:///x",
            "http://u:p@db/",
            "http://db/a b",
            "http://db/#x",
            "http://db/ü",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn urls_of_webhooks_are_read_and_keep_their_path_to_themselves() {
        let check = |text, expect: Option<&str>| {
            let shown = webhook_url(text).ok().map(|url| format!("{url:?}"));
            assert_eq!(shown.as_deref(), expect, "{text}");
        };
        check("https://hooks/T0/hunter2", Some("https://hooks"));
        check("https://hooks:8443?key=hunter2", Some("https://hooks:8443"));
        check("https://[::2]:1/", Some("https://[::2]:1"));
        check("http://localhost:8080/a", Some("http://localhost:8080"));
        check("http://127.1.2.3/a", Some("http://127.1.2.3"));
        check("http://[::1]", Some("http://[::1]"));
        for bad in [
            "",
            "hooks",
            "https://",
            "https:///a",
            "ftp://hooks/",
            "HTTPS://hooks/",
            "http://hooks/",
            "http://10.0.0.1/",
            "http://localhost.example.com/",
            "https://u:p@hooks/",
            "https://hooks/#a",
            "https://hooks/a b",
        ] {
            check(bad, None);
        }
    }
}
