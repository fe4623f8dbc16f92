//! The tasks of contributors: `cargo xtask test`, `check-targets`, `lab`, `bench`.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a person or CI reads what it prints"
)]

#[cfg(target_os = "linux")]
mod bench;
mod comments;
#[cfg(target_os = "linux")]
mod dist;
mod fixture;
mod house;
mod lab;
mod mutants;
mod packages;
#[cfg(unix)]
mod picture;
#[cfg(target_os = "linux")]
mod soak;
mod targets;
mod test;
mod tested;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::LazyLock;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test                             every check that a change must pass
  house                            of these, the checks of comments, imports, circles, lengths, mutants and docs/tested.md
  tested                           write docs/tested.md, which says what the tests cover where
  check-targets                    type-check what is shipped for the systems that are not this one
  lab windows                      set up what builds and runs Windows programs here (Debian, root)
  lab MANAGER                      run the tests under the real systemd, openrc, sysv, runit or s6 (Debian, root)
  picture                          draw the picture of the README (Unix)
  mutants [WORD…]                  show that the tests find each fault of xtask/mutants, or those that these words name
  dist [PART…]                     build archives, packages and a container image for users (Debian): gnu,
                                   musl, aarch64, windows
  dist try [PART…]                 build them, and try them in clean systems (Debian, root)
  dist try budget                  try packages of the program that `bench budget` builds (Debian, root)
  soak [--minutes N] [--seed N]    attack a supervisor beside healthy services (Linux, root)
  bench budget                     check sizes, memory and wake-ups against their limits (Linux)
  bench engine|lines|spawn|events  measure the engine, lines of logs, process trees, or stored events (Linux)
  bench [SCENARIO…] [--rounds N]   measure mainstay against a bare spawn loop, cat and s6-log (Linux)
  registry-fixture                 write a registry in a new version of its schema, to be committed";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match &args[..] {
        ["test"] => test::run(),
        ["house"] => test::house(),
        ["tested"] => tested::write(),
        ["check-targets"] => targets::run(),
        ["lab", "windows"] => lab::run(),
        [
            "lab",
            manager @ ("systemd" | "openrc" | "sysv" | "runit" | "s6"),
        ] => test::under(manager),
        #[cfg(unix)]
        ["picture"] => picture::draw(),
        ["mutants", words @ ..] => mutants::run(words),
        #[cfg(target_os = "linux")]
        ["dist", "try", "budget"] => dist::try_budget(),
        #[cfg(target_os = "linux")]
        ["dist", "try", parts @ ..] => dist::build_and_try(parts),
        #[cfg(target_os = "linux")]
        ["dist", parts @ ..] => dist::run(parts),
        #[cfg(target_os = "linux")]
        ["soak", rest @ ..] => soak::run(rest),
        #[cfg(target_os = "linux")]
        [soak::INSIDE, rest @ ..] => soak::inside(rest),
        #[cfg(target_os = "linux")]
        ["bench", "budget"] => bench::budget(),
        #[cfg(target_os = "linux")]
        ["bench", part @ ("engine" | "lines" | "spawn" | "events")] => bench::part(part),
        #[cfg(target_os = "linux")]
        ["bench", rest @ ..] => bench::run(rest),
        ["registry-fixture"] => fixture::registry(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the cargo that runs this program, in the workspace's root.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(root());
    command
}

/// Returns the workspace's root: that of the cargo that runs this program, which may have been
/// compiled in another checkout whose target directory was copied.
fn root() -> &'static Path {
    static HERE: LazyLock<PathBuf> = LazyLock::new(|| {
        let here = std::env::var_os("CARGO_MANIFEST_DIR");
        here.unwrap_or(env!("CARGO_MANIFEST_DIR").into()).into()
    });
    HERE.parent().unwrap_or(&HERE)
}

/// Returns the target directory, in whose `debug` this program is.
#[cfg(unix)]
fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.ancestors().nth(2);
    Ok(dir.ok_or("not in a target directory")?.to_owned())
}

fn heading(name: &str) {
    println!("\n== {name}");
}
