//! Make a Rust program a native service.
#![forbid(unsafe_code)]
