//! Requests that leave this machine: over TLS, through proxies, to names that must be looked up. All of that blocks, so whoever
//! asks has a thread for it; the loop of a host never does.

use std::path::Path;
use std::time::Duration;

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

use crate::tls;

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// Who may answer for a name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// Whom the system trusts.
    System,
    /// Whom this PEM file names.
    Only(&'a Path),
    /// Nobody: there is no TLS, and no proxy, as for our own machine.
    Plain,
}

/// An HTTP/1.1 client to be finished by the caller, who adds at least `timeout_global` and says `.build().into()` for an
/// [`Agent`]. Reads the certificates now.
///
/// It says who we are, gives up a connection after ten seconds, speaks nothing but TLS (unless [`Trust::Plain`]), goes through the
/// proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`), returns answers of any status, and follows no redirect: whoever
/// wants that says `.max_redirects(n).max_redirects_will_error(true)`. Bodies are to be read with a limit
/// (`body_mut().with_config().limit(bytes)`). An `Error` of it may hold the URL only where that was no URL.
///
/// # Errors
/// Certificates that cannot be read or used, for people.
pub(crate) fn builder(trust: Trust<'_>) -> Result<ConfigBuilder<AgentScope>, String> {
    let builder = Agent::config_builder()
        .user_agent(super::USER_AGENT)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT));
    let ca = match trust {
        Trust::Plain => return Ok(builder.proxy(None)),
        Trust::System => None,
        Trust::Only(path) => Some(path),
    };
    let authorities = tls::authorities(ca)?;
    let authorities = authorities
        .iter()
        .map(|it| Certificate::from_der(it).to_owned());
    let config = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(tls::provider())
        .root_certs(RootCerts::from(authorities))
        .build();
    Ok(builder.tls_config(config).https_only(true))
}
