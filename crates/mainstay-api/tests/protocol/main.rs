//! The protocol as other programs see it: every document as committed JSON, and what today's types
//! read of earlier versions.

mod documents;
mod golden;
mod openapi;
