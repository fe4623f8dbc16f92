//! Requests that leave this machine: over TLS, through proxies, to names that must be resolved. All
//! of that blocks, so callers use a thread of their own, and never the loop of a host.

use std::path::Path;
use std::time::Duration;

use mainstay_logs::{StepError, tls};
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

use mainstay_api::http::USER_AGENT;

/// The connect timeout, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificate authorities that are trusted.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// The authorities that the system trusts.
    System,
    /// The authorities in this PEM file.
    Only(&'a Path),
    /// None: no TLS and no proxy, as for this machine.
    Plain,
}

/// Returns the configuration of an HTTP/1.1 client. The caller adds at least `timeout_global` and
/// calls `.build().into()` to get an [`Agent`]. The certificates are read now.
///
/// The client sends our user agent, gives up connecting after ten seconds, and uses TLS only
/// (unless [`Trust::Plain`]). It uses the proxy from the environment (`HTTPS_PROXY`, `NO_PROXY`),
/// returns responses of any status, and follows no redirects; to follow them, call
/// `.max_redirects(n).max_redirects_will_error(true)`. Read bodies with a limit
/// (`body_mut().with_config().limit(bytes)`). An `Error` contains the URL only if it was not a
/// valid URL.
///
/// # Errors
/// If the certificates cannot be read or used.
pub fn builder(trust: Trust<'_>) -> Result<ConfigBuilder<AgentScope>, StepError> {
    let builder = Agent::config_builder()
        .user_agent(USER_AGENT)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT));
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
