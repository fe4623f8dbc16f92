//! The HTTP endpoint of a service.

use std::path::{Path, PathBuf};

/// The metrics and control endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
}

impl Http {
    /// Returns the port, 1024–65534.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Returns the certificate and key; `None` is plain HTTP on loopback.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

/// The paths of a PEM certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub(crate) cert_path: PathBuf,
    pub(crate) key_path: PathBuf,
}

impl Tls {
    /// Returns the path of the certificate chain.
    pub fn cert_path(&self) -> &Path {
        &self.cert_path
    }
    /// Returns the path of the private key.
    pub fn key_path(&self) -> &Path {
        &self.key_path
    }
}
