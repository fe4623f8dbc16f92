//! The protocol between a supervisor and its clients: where the control socket is, the requests and
//! their routes, the documents in both directions, and the client (docs/control.md).
//!
//! Both ends agree by these types: the host parses a [`Route`] and serializes a document, the
//! [`Client`] does the reverse. Reports of services are in `mainstay_core::report`.
//!
//! The crate does not contain the server, which is a part of the host and performs the requests,
//! and no messages for people: [`Error`] is typed, and the command words it.
#![forbid(unsafe_code)]

mod client;
mod document;
pub mod endpoint;
pub mod http;
mod route;

pub use self::client::{Client, Error};
pub use self::document::{
    About, Done, Event, GivenUp, Healthy, Mistake, Mistakes, Refusal, Taken, TrialRequest, code_of,
};
pub use self::route::{Decision, Reach, Route, Unrouted, Verb};

/// The OpenAPI document of the protocol (OpenAPI 3.1). It is generated from the routes and the
/// documents by `tests/protocol/openapi.rs`.
pub const OPENAPI: &str = include_str!("../openapi.json");
