//! `puppet STEP…`: a child process that executes the steps of a test one by one; see [`step::Step`]
//! for all of them.
//!
//! It exits with 0 after the last step, unless it serves something; then it waits forever. An
//! invalid step exits with 64 before the first step is executed. A step that fails exits with 70.
//!
//! On Unix it has a C `main`, because Rust's own start-up code ignores SIGPIPE, and a puppet must
//! report the state it inherited.

#![cfg_attr(unix, no_main)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is its purpose"
)]

mod run;
mod serve;
mod step;
#[cfg_attr(unix, path = "sys_unix.rs")]
#[cfg_attr(windows, path = "sys_windows.rs")]
mod sys;

#[cfg(unix)]
#[unsafe(no_mangle)]
extern "C" fn main(argc: libc::c_int, argv: *const *const libc::c_char) -> libc::c_int {
    // SAFETY: the C runtime passes its own argc and argv.
    let args = unsafe { mainstay_testkit::c_args(argc, argv) };
    run::run(args)
}

#[cfg(windows)]
fn main() {
    std::process::exit(run::run(std::env::args().skip(1).collect()));
}
