//! TLS: the cryptography provider and the trusted authorities. Files are read on every call,
//! because they may have been renewed.

use std::path::Path;
use std::sync::Arc;

use mainstay_sys::guarded;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Returns the ring provider, which needs no C library of the system and builds everywhere.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns the authorities in the PEM file `ca`, all of which must be usable, or those that the
/// system trusts.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let authorities = authorities(ca)?;
    match ca {
        Some(path) => {
            for certificate in authorities {
                roots
                    .add(certificate)
                    .map_err(|error| format!("use ca {}: {error}", path.display()))?;
            }
        }
        None => drop(roots.add_parsable_certificates(authorities)),
    }
    if roots.is_empty() {
        Err("read the system's certificates: there are none that can be used".to_owned())
    } else {
        Ok(roots)
    }
}

/// Returns the same certificates without checking that they are usable.
pub fn authorities(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    if let Some(path) = ca {
        return certificates(path);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let first = found.errors.first();
        let cause = first.map_or("there are none".to_owned(), ToString::to_string);
        return Err(format!("read the system's certificates: {cause}"));
    }
    Ok(found.certs)
}

/// Reads the private key in a PEM file, the first if there are several.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let key = read(path)
        .and_then(|text| PrivateKeyDer::from_pem_slice(&text).map_err(|error| error.to_string()));
    key.map_err(|why| format!("read key {}: {why}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    guarded::read(path, guarded::PEM).map_err(|error| guarded::explain(&error))
}

/// Reads the certificates in a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        let path = path.display();
        format!("read certificates {path}: {error}")
    };
    let text = read(path).map_err(|why| wrong(&why))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| wrong(&error))?;
    if certificates.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    Ok(certificates)
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
        let why = certificates(&path).unwrap_err();
        assert!(why.ends_with(expect), "{why}");
        let why = private_key(&path).unwrap_err();
        assert!(why.ends_with(expect), "{why}");
    }
}
