//! One file per verb: it reads its arguments, asks the rest of the program, and shows the answer.

pub(crate) mod check;
pub(crate) mod control;
pub(crate) mod enable;
pub(crate) mod events;
pub(crate) mod host;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod uninstall;
