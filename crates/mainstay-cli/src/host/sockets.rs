//! Addresses that we listen on for a service: the sockets are there before its first start, stay while it is started again, and go when it is
//! down for good. Whoever connects meanwhile waits in their queues. The program is given them as sd_listen_fds(3) says.

use std::io;

use mainstay_core::spec::Spec;

use super::sys;

/// The sockets of a service.
#[derive(Debug, Default)]
pub(super) struct Sockets(Option<Vec<sys::Socket>>);

impl Sockets {
    /// Listens, if that was not begun before.
    pub(super) fn open(&mut self, spec: &Spec) -> Result<(), String> {
        if self.0.is_none() {
            let addresses = spec.listen().iter();
            let sockets = addresses.map(|address| {
                let failed = |error: io::Error| format!("listen on {address}: {error}");
                sys::listen(address).map_err(failed)
            });
            self.0 = Some(sockets.collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    /// Those that we listen on.
    pub(super) fn list(&self) -> &[sys::Socket] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Nobody is let in any more.
    pub(super) fn close(&mut self) {
        self.0 = None;
    }
}
