//! `cargo xtask bench`: the cost of supervision by Mainstay, compared with the minimum possible on
//! this machine.
//!
//! The baseline is `bare`, a spawn loop without any safety. For logs, it is `writer | cat > file`
//! or `| s6-log`; for a restore, it is `cp -a`. Both sides run the same measured program (`stamp`)
//! in the same rounds, alternately, so that changes in the machine's load affect both. Absolute
//! figures drift; ratios are stable.

mod budget;
mod logs;
mod parts;
mod recovery;
mod run;
mod scenarios;
mod service;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_testkit::procs;

use crate::{Result, cargo, target_dir};
pub(crate) use budget::run as budget;
use logs::LOGS;
pub(crate) use parts::run as part;
use recovery::RECOVERY;
use run::Side;
use scenarios::{PROCESSES, Scenario};
use service::SERVICE;
use table::Results;

/// The paths of the release builds.
struct Programs {
    mainstay: PathBuf,
    bare: PathBuf,
    stamp: PathBuf,
    heartbeat: PathBuf,
}

/// Runs the benchmarks and prints the table. A missed goal is not a failure. A scenario that cannot
/// be measured is one.
pub(crate) fn run(args: &[&str]) -> Result<ExitCode> {
    let mut rounds = 3;
    let mut names = Vec::new();
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        match arg {
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            name if scenarios().any(|scenario| scenario.is(name)) => names.push(name),
            other => {
                let known: Vec<_> = scenarios().map(|scenario| scenario.name).collect();
                return Err(
                    format!("no scenario {other:?}; there are: {}", known.join(" ")).into(),
                );
            }
        }
    }
    let programs = build()?;
    prepare()?;
    let mut results = Results::default();
    for scenario in scenarios() {
        if !names.is_empty() && !names.iter().any(|name| scenario.is(name)) {
            continue;
        }
        for round in 0..rounds {
            let mut sides: Vec<Side> = scenario.bound.into_iter().chain([Side::Mainstay]).collect();
            if round % 2 == 1 {
                sides.reverse();
            }
            for side in sides {
                eprintln!("{} {}/{rounds} {side:?}", scenario.name, round + 1);
                results.add(scenario, side, (scenario.measure)(&programs, side));
            }
        }
    }
    print!("{results}");
    Ok(if results.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    let others = [&SERVICE, &RECOVERY];
    PROCESSES.iter().chain(LOGS).chain(others)
}

/// Lets this process own what the supervisors leave behind.
fn prepare() -> Result<()> {
    procs::adopt_orphans()?;
    procs::keep_descriptors();
    Ok(())
}

fn build() -> Result<Programs> {
    let mainstay = build_mainstay()?;
    build_alone("mainstay-testkit")?;
    Ok(Programs {
        bare: mainstay.with_file_name("bare"),
        stamp: mainstay.with_file_name("stamp"),
        heartbeat: build_alone("heartbeat")?,
        mainstay,
    })
}

/// Builds the command for release.
pub(crate) fn build_mainstay() -> Result<PathBuf> {
    Ok(build_alone("mainstay-cli")?.with_file_name("mainstay"))
}

/// Builds the programs of a package for release, with the features that it asks for and no other
/// package's. Returns the path of the one that bears the package's name.
fn build_alone(package: &str) -> Result<PathBuf> {
    let status = cargo()
        .args(["build", "--release", "--bins", "--package", package])
        .status()?;
    if !status.success() {
        return Err(format!("the release build of {package} failed").into());
    }
    Ok(target_dir()?.join("release").join(package))
}
