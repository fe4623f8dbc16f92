//! Deployment: installations, updates and removals, with the system's managers and with the
//! embedded one, and the control of what is installed.

pub(crate) mod artifact;
pub(crate) mod embedded;
pub(crate) mod registered;
pub(crate) mod system;
pub(crate) mod update;
