//! The protocol between a supervisor and its clients: where the control socket is, the requests and
//! their routes, the documents in both directions, and the client (docs/control.md).
//!
//! The server is a part of the host, which performs the requests. Messages for people and exit
//! codes are made by the command.

mod client;
mod document;
pub(crate) mod endpoint;
pub(crate) mod http;
mod route;

pub(crate) use self::client::{Client, Error};
pub(crate) use self::document::{About, GivenUp, Healthy, Refusal, Taken, TrialRequest};
pub(crate) use self::route::{Decision, Reach, Route, Unrouted, Verb};
