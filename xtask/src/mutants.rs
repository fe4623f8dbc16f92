//! `cargo xtask mutants`: shows that the tests of the engine and of the dispatcher find faults.
//!
//! A mutant is a fault that a maintainer could make: a guard that is missing, an order that is
//! swapped, a deadline that is forgotten. Each is built in a copy of the workspace, and the unit
//! tests and simulations have to fail on it. One that they do not notice survives: then a rule is
//! missing in them, or the code that the mutant removes is not needed.

mod copy;
mod list;
mod stage;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use self::copy::Copy;
use self::list::Mutant;
use self::stage::{Stage, Verdict};
use crate::{Result, root};

/// The tests for mutants of the core. The scenarios and the host's simulation see what the core's
/// own tests do not.
const CORE: &[&Stage] = &[
    &Stage {
        package: "mainstay-core",
        target: &["--lib"],
        profile: QUICK_CORE,
        runs: &[
            &["engine::", "alert::", "--skip", SIMULATION],
            &[SIMULATION],
        ],
    },
    &Stage {
        package: "mainstay-core",
        target: &["--test", "scenarios"],
        profile: QUICK_CORE,
        runs: &[&[]],
    },
    HOST[0],
];

const HOST: &[&Stage] = &[&Stage {
    package: "mainstay-host",
    target: &["--lib"],
    profile: "profile.dev.package.mainstay-core.opt-level=1",
    runs: &[&["--skip", SIMULATION], &[SIMULATION]],
}];

const QUICK_CORE: &str = "profile.dev.package.mainstay-core.opt-level=0";

/// A part of the name of both simulations.
const SIMULATION: &str = "what_must_hold";

/// The stages of a mutant of this file.
fn stages(file: &str) -> &'static [&'static Stage] {
    let is_core = file.starts_with("crates/mainstay-core/");
    if is_core { CORE } else { HOST }
}

/// Returns the problems of the lists, one line each.
pub(crate) fn problems() -> Result<Vec<String>> {
    list::problems(root())
}

/// Runs the mutants whose names, files or lists contain one of these words, or all.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let (mut mutants, problems) = list::load()?;
    if !problems.is_empty() {
        return Err(problems.join("\n").into());
    }
    let is_meant = |it: &Mutant| {
        let contains = |word: &&str| {
            [&it.name, &it.area, &it.file]
                .iter()
                .any(|x| x.contains(*word))
        };
        words.is_empty() || words.iter().any(contains)
    };
    mutants.retain(is_meant);
    let dir = root().join("target/mutants");
    let (copy, target) = (Copy::renew(dir.join("tree"))?, dir.join("target"));
    let begin = Instant::now();
    let whole = mutants.iter().any(|it| stages(&it.file).len() > 1);
    for stage in if whole { CORE } else { HOST } {
        let start = Instant::now();
        match stage.check(&copy, &target)? {
            Verdict::Passed => println!(
                "without a mutant, {} {} passes ({} s)",
                stage.package,
                stage.target.join(" "),
                start.elapsed().as_secs()
            ),
            Verdict::Caught(why) | Verdict::Broken(why) => {
                return Err(format!("without a mutant, {} fails: {why}", stage.package).into());
            }
        }
    }
    let mut results: BTreeMap<&str, usize> = BTreeMap::new();
    for mutant in &mutants {
        let start = Instant::now();
        let (result, text) = result_of(mutant, &copy, &target)?;
        *results.entry(result).or_default() += 1;
        let (Mutant { name, area, .. }, took) = (mutant, start.elapsed().as_secs());
        println!("{result:<8} {area}: {name}: {text} ({took} s)");
    }
    let counts: Vec<String> = results.iter().map(|(it, n)| format!("{n} {it}")).collect();
    println!(
        "{} after {} s",
        counts.join(", "),
        begin.elapsed().as_secs()
    );
    Ok(match results.get(CAUGHT) {
        Some(count) if *count == mutants.len() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

const CAUGHT: &str = "caught";

/// Runs the tests of one mutant. Returns a word and an explanation.
fn result_of(
    mutant: &Mutant,
    copy: &Copy,
    target: &std::path::Path,
) -> Result<(&'static str, String)> {
    let _mutation = copy.mutate(&mutant.file, |text| mutant.apply(text))?;
    for stage in stages(&mutant.file) {
        match stage.check(copy, target)? {
            Verdict::Passed => {}
            Verdict::Caught(why) => return Ok((CAUGHT, why)),
            Verdict::Broken(why) => return Ok(("BROKEN", why)),
        }
    }
    Ok(("SURVIVED", "no test fails".to_owned()))
}
