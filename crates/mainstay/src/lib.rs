//! Make a Rust program a native service.
//!
//! At present this is the program's own voice towards whoever supervises it: [`notify`]. The `Service` trait, installation and the
//! Windows Service Control Manager follow.
#![forbid(unsafe_code)]

pub mod notify;
