//! The `mainstay` command.

mod host;

fn main() {}
