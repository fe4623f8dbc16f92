//! TLS: the cryptography provider and the trusted authorities. Files are read on every call,
//! because they may have been renewed.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mainstay_sys::guarded;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::step::StepError;

/// Returns the ring provider, which needs no C library of the system and builds everywhere.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns the authorities in the PEM file `ca`, all of which must be usable, or those that the
/// system trusts.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, StepError> {
    let mut roots = RootCertStore::empty();
    let authorities = authorities(ca)?;
    match ca {
        Some(path) => {
            for certificate in authorities {
                roots
                    .add(certificate)
                    .map_err(|error| StepError::new(format!("use ca {}", path.display()), error))?;
            }
        }
        None => drop(roots.add_parsable_certificates(authorities)),
    }
    if roots.is_empty() {
        Err(of_system("there are none that can be used"))
    } else {
        Ok(roots)
    }
}

/// Returns the same certificates without checking that they are usable.
pub fn authorities(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, StepError> {
    if let Some(path) = ca {
        return certificates(path);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(match found.errors.into_iter().next() {
            Some(error) => of_system(error),
            None => of_system("there are none"),
        });
    }
    Ok(found.certs)
}

fn of_system(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StepError {
    StepError::new("read the system's certificates".to_owned(), cause)
}

/// Reads the private key in a PEM file, the first if there are several.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, StepError> {
    let step = || format!("read key {}", path.display());
    let text = read(path).map_err(|why| StepError::new(step(), why))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| StepError::new(step(), error))
}

/// Reads the certificates in a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StepError> {
    let step = || format!("read certificates {}", path.display());
    let text = read(path).map_err(|why| StepError::new(step(), why))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| StepError::new(step(), error))?;
    if certificates.is_empty() {
        return Err(StepError::new(step(), "there is no certificate in it"));
    }
    Ok(certificates)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    guarded::read(path, guarded::PEM)
        .map_err(|error| io::Error::new(error.kind(), guarded::explain(&error)))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let sandbox = mainstay_testkit::Sandbox::new();
        let path = sandbox.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let expect = "it is a socket, not a regular file";
        let why = certificates(&path).unwrap_err().to_string();
        assert!(why.ends_with(expect), "{why}");
        let why = private_key(&path).unwrap_err().to_string();
        assert!(why.ends_with(expect), "{why}");
    }
}
