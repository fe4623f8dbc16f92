//! Sockets on which the supervisor listens for a service. They are opened before the first start,
//! stay open during restarts, and are closed when the service is down for good. Clients that
//! connect meanwhile wait in their queues. The program receives them as sd_listen_fds(3) describes.

use std::io;
use std::path::PathBuf;

use mainstay_core::engine::StartFailure;
use mainstay_core::spec::{Listen, Spec};
use mainstay_sys as sys;
use mainstay_sys::{aside, guarded};

#[cfg(unix)]
use super::release::close as release;
#[cfg(windows)]
use drop as release;

/// The sockets of a service.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: Option<Vec<sys::Socket>>,
    /// The addresses that another definition of the same service already listens on, and their
    /// sockets.
    shared: Vec<(Listen, sys::Socket)>,
}

impl Sockets {
    /// Opens the sockets, unless they are open.
    pub(super) fn open(&mut self, spec: &Spec) -> Result<(), StartFailure> {
        if self.open.is_none() {
            let addresses = spec.listen().iter();
            let sockets = addresses.map(|address| {
                let failed = |error: io::Error| {
                    StartFailure::from(format!("listen on {address}: {}", guarded::explain(&error)))
                };
                let shared = self.shared.iter().find(|(other, _)| other == address);
                match shared {
                    Some((_, socket)) => sys::share(socket).map_err(failed),
                    None => look_at(address)
                        .and_then(|()| sys::listen(address))
                        .map_err(failed),
                }
            });
            self.open = Some(sockets.collect::<Result<_, _>>()?);
            self.release_shared();
        }
        Ok(())
    }

    /// Returns sockets for another definition of the same service. Those that both definitions use
    /// stay open in between.
    pub(super) fn share(&self, of: &Spec, with: &Spec) -> io::Result<Self> {
        let open = of.listen().iter().zip(self.open.iter().flatten());
        let both = open.filter(|(address, _)| with.listen().contains(address));
        let shared = both.map(|(address, socket)| Ok((address.clone(), sys::share(socket)?)));
        Ok(Self {
            open: None,
            shared: shared.collect::<io::Result<_>>()?,
        })
    }

    /// Returns whether the supervisor listens on any socket for the service.
    pub(super) fn are_ours(&self) -> bool {
        !self.list().is_empty() || !self.shared.is_empty()
    }

    /// Returns the open sockets.
    pub(super) fn list(&self) -> &[sys::Socket] {
        self.open.as_deref().unwrap_or_default()
    }

    /// Closes the sockets. Further clients are refused.
    pub(super) fn close(&mut self) {
        self.release_shared();
        self.open.take().into_iter().flatten().for_each(release);
    }

    fn release_shared(&mut self) {
        let shared = self.shared.drain(..).map(|(_, socket)| socket);
        shared.for_each(release);
    }
}

/// Looks at a path in a thread: the mount that it lies on may hang.
fn look_at(address: &Listen) -> io::Result<()> {
    let Listen::Unix(path) = address else {
        return Ok(());
    };
    let path = path.clone();
    let look = |path: PathBuf| drop(path.symlink_metadata());
    aside::wait(path.display().to_string(), move || look(path))
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.close();
    }
}
