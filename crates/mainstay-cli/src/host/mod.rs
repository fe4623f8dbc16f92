//! The host: it performs what the engine decides, on real processes, files and sockets.

mod log;
mod sys;
