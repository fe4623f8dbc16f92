//! Runs a Rust program as a native service.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! use mainstay::{Accepts, Context, Control, Exit};
//!
//! fn main() -> ExitCode {
//!     mainstay::service("heartbeat")
//!         .display_name("Heartbeat")
//!         .description("Says every five seconds that it lives")
//!         .accepts(Accepts::PAUSE)
//!         .main(heartbeat)
//! }
//!
//! fn heartbeat(mut context: Context) -> Result<(), Exit> {
//!     let mut is_paused = false;
//!     loop {
//!         match context.wait_for(Duration::from_secs(5)) {
//!             None if is_paused => {}
//!             None => context.logger().info("alive"),
//!             Some(Control::Pause) => is_paused = true,
//!             Some(Control::Continue) => is_paused = false,
//!             Some(Control::Stop(_)) => return Ok(()),
//!             Some(_) => {}
//!         }
//!     }
//! }
//! ```
//!
//! [`Definition::run`] runs a [`Service`] under the manager that started the process: the Windows
//! Service Control Manager, systemd, any other program that starts processes and signals them, or a
//! terminal. [`Definition::main`] also adds the verbs `install`, `uninstall`, `start`, `stop`,
//! `restart`, `status` and more to the program. [`notify`] alone is enough for a program that
//! another supervisor runs.
#![deny(unsafe_code)]
#![warn(missing_debug_implementations)]
#![warn(clippy::must_use_candidate, clippy::return_self_not_must_use)]

#[cfg(unix)]
mod backend;
mod capture;
#[cfg(feature = "clap")]
mod clap;
mod context;
mod control;
mod definition;
mod error;
mod event;
#[cfg(feature = "log")]
mod log;
mod logger;
mod manage;
mod manager;
pub mod notify;
mod password;
mod program;
#[cfg(any(windows, test))]
mod progress;
mod run;
#[cfg_attr(
    not(any(windows, test)),
    expect(dead_code, reason = "only Windows has it, and tests")
)]
mod scm;
mod service;
mod sys;
mod terminal;
pub mod testing;
#[cfg(feature = "tracing")]
mod tracing;
mod trigger;
mod verbs;

pub use context::{Context, Status};
pub use control::{Accepts, Control, Power, SessionChange, SessionReason, Stop};
pub use definition::{
    Account, Definition, ErrorControl, Limit, Readiness, Recovery, Scope, ServiceSid, Start,
    StopScope, Systemd, Windows, service,
};
pub use error::{Error, ErrorKind};
pub use logger::Logger;
pub use manage::{
    cautions, check_manager, install_all, may_install, plan_all, services, stage_all,
};
pub use manager::{Manager, UNDER_SCM, is_interactive};
pub use password::Password;
pub use program::Program;
pub use scm::manage::Installed;
pub use scm::{ServiceStatus, State};
pub use service::{Exit, Service};
pub use trigger::Trigger;
pub use verbs::{Install, Verb};

/// Handles are passed to other threads, and definitions and errors are returned from them.
const _: () = {
    const fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Context>();
    is_shared::<Definition>();
    is_shared::<Error>();
    is_shared::<Exit>();
    is_shared::<Installed>();
    is_shared::<Logger>();
    is_shared::<Program>();
    is_shared::<Status>();
    is_shared::<Verb>();
    is_shared::<testing::Context>();
};

/// The programs in the documentation, compiled as tests. A block of `rs` is a program of another
/// crate, and is not.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
    #[doc = include_str!("../../../docs/library.md")]
    mod library {}
    #[doc = include_str!("../../../docs/howto/kardianos.md")]
    mod kardianos {}
    #[doc = include_str!("../../../docs/howto/windows-service.md")]
    mod windows_service {}
}
