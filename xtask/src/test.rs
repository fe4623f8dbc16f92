//! `cargo xtask test`: every check that a change must pass. CI runs nothing else.
//!
//! All stages run, even after failures. A stage counts as one check in the summary, or as many as
//! it has tests. A test that cannot run reports this through `mainstay_testkit::skip`; it then
//! counts as skipped, not as passed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::lab::{Lab, on_path};
use crate::packages::install;
use crate::{Result, cargo, comments, heading, house, mutants, root, tested};

/// The environment variable with the directory of the programs under test.
const BIN_DIR: &str = "MAINSTAY_BIN_DIR";

/// The part of the soak that checks every change.
#[cfg(target_os = "linux")]
const SOAK_MINUTES: u64 = 2;
#[cfg(target_os = "linux")]
const SOAK_SEED: u64 = 1;

/// The packages that are tested on Windows.
const WINDOWS_PACKAGES: [&str; 12] = [
    "crates/mainstay",
    "crates/mainstay-api",
    "crates/mainstay-cli",
    "crates/mainstay-core",
    "crates/mainstay-host",
    "crates/mainstay-logs",
    "crates/mainstay-store",
    "crates/mainstay-sys",
    "examples/axum-hello",
    "examples/heartbeat",
    "examples/shop",
    "examples/tokio-ticker",
];

/// The results of checks so far.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
    skips: Vec<String>,
}

/// Runs all stages. Fails if any of them fails.
pub(crate) fn run() -> Result<ExitCode> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let installed = |tool: &str| {
        let mut command = cargo();
        command
            .args([tool, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };

    tally.check("format", cargo().args(["fmt", "--all", "--check"]))?;
    tally.sources("comments", comments::problems()?);
    tally.sources("house", house::problems()?);
    tally.sources("mutants", mutants::problems()?);
    tally.sources("tested", tested::problems()?);
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ];
    tally.check("clippy", cargo().args(clippy))?;
    tally.optional_tools(&installed)?;
    if let Err(error) = install_real_programs() {
        // The tests that require them report this themselves.
        println!("real programs: {error}");
    }
    let programs = ["build", "--workspace", "--exclude", "xtask", "--bins"];
    if tally.check("programs under test", cargo().args(programs))? {
        let runner = if installed("nextest") {
            Runner::Nextest
        } else {
            Runner::Libtest
        };
        tally.tests(runner)?;
        let mut doc_tests = cargo();
        doc_tests.args(["test", "--workspace", "--doc"]);
        tally.run_tests("documentation tests", Runner::Libtest, doc_tests)?;
        #[cfg(target_os = "linux")]
        tally.soak()?;
    }
    let doc = [
        "doc",
        "--workspace",
        "--lib",
        "--no-deps",
        "--document-private-items",
    ];
    let mut doc_command = cargo();
    doc_command.args(doc).env("RUSTDOCFLAGS", "-D warnings");
    tally.check("documentation", &mut doc_command)?;
    #[cfg(target_os = "linux")]
    {
        tally.budget()?;
        tally.packages()?;
    }
    tally.windows()?;

    Ok(tally.close(start))
}

/// Runs the checks that only read the sources.
pub(crate) fn house() -> Result<ExitCode> {
    let start = Instant::now();
    let mut tally = Tally::default();
    tally.sources("comments", comments::problems()?);
    tally.sources("house", house::problems()?);
    tally.sources("mutants", mutants::problems()?);
    tally.sources("tested", tested::problems()?);
    Ok(tally.close(start))
}

/// Runs the tests whose names contain this manager, one by one, because each boots its own machine.
pub(crate) fn under(manager: &str) -> Result<ExitCode> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let programs = ["build", "--workspace", "--exclude", "xtask", "--bins"];
    if tally.check("programs under test", cargo().args(programs))? {
        let mut tests = cargo();
        tests.args([
            "test",
            "--workspace",
            "--exclude",
            "xtask",
            "--tests",
            manager,
        ]);
        tests.args(["--no-fail-fast", "--", "--test-threads=1"]);
        let bin_dir = std::env::current_exe()?;
        tests.env(
            BIN_DIR,
            bin_dir.parent().ok_or("not in a target directory")?,
        );
        tally.run_tests(&format!("under {manager}"), Runner::Libtest, tests)?;
    }
    Ok(tally.close(start))
}

impl Tally {
    /// Prints the summary.
    fn close(self, start: Instant) -> ExitCode {
        heading(&format!("summary, after {} s", start.elapsed().as_secs()));
        let Self {
            passed,
            failed,
            skipped,
            failures,
            skips,
        } = self;
        failures
            .iter()
            .for_each(|failure| println!("failed: {failure}"));
        skips.iter().for_each(|skip| println!("skipped: {skip}"));
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        match failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// Counts one check of the sources, and prints its problems.
    fn sources(&mut self, name: &str, problems: Vec<String>) {
        heading(name);
        problems.iter().for_each(|problem| println!("{problem}"));
        if problems.is_empty() {
            self.passed += 1
        } else {
            self.fail(name)
        }
    }

    /// Runs one check, whose result is the command's exit status.
    fn check(&mut self, name: &str, command: &mut Command) -> Result<bool> {
        heading(name);
        let start = Instant::now();
        let passed = command.status()?.success();
        println!("({} s)", start.elapsed().as_secs());
        if passed {
            self.passed += 1;
        } else {
            self.fail(name);
        }
        Ok(passed)
    }

    fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    fn skip(&mut self, reason: &str) {
        self.skipped += 1;
        self.skips.push(reason.to_owned());
    }

    /// Runs the checks of tools that are not everywhere.
    fn optional_tools(&mut self, installed: &dyn Fn(&str) -> bool) -> Result<()> {
        if installed("deny") {
            // Advisories require the network and change independently, so they are not a check of
            // this change.
            let deny = [
                "deny",
                "--all-features",
                "check",
                "licenses",
                "bans",
                "sources",
            ];
            self.check("dependencies", cargo().args(deny))?;
        } else {
            self.skip("dependencies: cargo-deny is not installed");
        }
        if on_path("actionlint") {
            let mut actionlint = Command::new("actionlint");
            self.check("workflows", actionlint.current_dir(root()))?;
        } else {
            self.skip("workflows: actionlint is not installed");
        }
        Ok(())
    }

    /// Runs all tests except doc tests.
    fn tests(&mut self, runner: Runner) -> Result<()> {
        let own = std::env::current_exe()?;
        let bin_dir = own.parent().ok_or("not in a target directory")?;
        let mut command = cargo();
        command.args(match runner {
            Runner::Nextest => &[
                "nextest",
                "run",
                "--no-fail-fast",
                "--workspace",
                "--status-level",
                "skip",
            ][..],
            Runner::Libtest => &["test", "--no-fail-fast", "--workspace", "--tests"],
        });
        command.env(BIN_DIR, bin_dir);
        self.run_tests("tests", runner, command)
    }

    /// Runs a part of the soak, always the same.
    #[cfg(target_os = "linux")]
    fn soak(&mut self) -> Result<()> {
        let own = std::env::current_exe()?;
        let bin_dir = own.parent().ok_or("not in a target directory")?;
        match crate::soak::command(bin_dir, SOAK_MINUTES, SOAK_SEED) {
            Ok(mut command) => self.check("soak", &mut command).map(drop),
            Err(error) => {
                self.skip(&format!("soak: {error}"));
                Ok(())
            }
        }
    }

    /// Checks what mainstay costs.
    #[cfg(target_os = "linux")]
    fn budget(&mut self) -> Result<()> {
        let own = std::env::current_exe()?;
        let mut command = Command::new(own);
        // A process of its own, which may adopt what supervisors leave behind.
        command.args(["bench", "budget"]);
        self.check("budget", &mut command).map(drop)
    }

    /// Tries packages of the program that the budget has measured.
    #[cfg(target_os = "linux")]
    fn packages(&mut self) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["dist", "try", "budget"]);
        let skips_path = tempfile::NamedTempFile::new()?.into_temp_path();
        command.env(mainstay_testkit::SKIPS_VARIABLE, &skips_path);
        self.check("packages", &mut command)?;
        for line in fs::read_to_string(&skips_path)?.lines() {
            self.skip(&format!("packages: {line}"));
        }
        Ok(())
    }

    /// Runs the tests for Windows, as far as Wine supports them.
    fn windows(&mut self) -> Result<()> {
        let name = "Windows, under Wine";
        heading(&format!("{name}: the lab"));
        let lab = match Lab::set_up() {
            Ok(lab) => lab,
            Err(error) => {
                self.skip(&format!("{name}: {error}"));
                return Ok(());
            }
        };
        let mut selection: Vec<OsString> = ["--lib", "--bins", "--examples"].map(Into::into).into();
        for dir in WINDOWS_PACKAGES {
            let dir = root().join(dir);
            let package = dir.file_name().unwrap_or_default();
            selection.extend(["--package".into(), package.to_owned()]);
            for test in windows_tests(&dir.join("tests"))? {
                selection.extend(["--test".into(), test.into()]);
            }
        }
        let mut puppets = lab.cargo("x86_64-pc-windows-gnu");
        puppets.args(["build", "--package", "mainstay-testkit", "--bins"]);
        if !self.check(
            &format!("{name}: programs for tests"),
            deny_warnings(&mut puppets),
        )? {
            return Ok(());
        }
        let mut tests = lab.with_prefix("cargo-win");
        tests.args(["test", "--no-fail-fast"]).args(&selection);
        deny_warnings(&mut tests);
        self.run_tests(name, Runner::Libtest, tests)
    }

    /// Runs a test runner and counts the results in its closing lines and the skips that its tests
    /// report.
    fn run_tests(&mut self, name: &str, runner: Runner, mut command: Command) -> Result<()> {
        heading(name);
        let start = Instant::now();
        if io::stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let skips_path = tempfile::NamedTempFile::new()?.into_temp_path();
        command.env(mainstay_testkit::SKIPS_VARIABLE, &skips_path);
        // Nextest writes to stderr, libtest to stdout. Both use one pipe.
        let (output, input) = io::pipe()?;
        let mut child = command.stdout(input.try_clone()?).stderr(input).spawn()?;
        // The command holds the write ends of the pipe. While they are open, reading never ends.
        drop(command);
        let failed_before = self.failed;
        let mut broken = Vec::new();
        let mut is_list_of_broken = false;
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            let line = without_colours(&line);
            self.skips.extend(ignored(runner, &line));
            is_list_of_broken = match broken_target(&line) {
                Some(target) if is_list_of_broken => {
                    broken.push(format!("{name}: {target}"));
                    true
                }
                _ => is_list_of_broken_targets(&line),
            };
            for (count, outcome) in counts(runner, &line) {
                match outcome {
                    Outcome::Passed => self.passed += count,
                    Outcome::Failed => self.failed += count,
                    Outcome::Skipped => self.skipped += count,
                }
            }
        }
        let succeeded = child.wait()?.success();
        println!("({} s)", start.elapsed().as_secs());
        for line in fs::read_to_string(&skips_path)?.lines() {
            // The runner counts it as passed.
            self.passed = self.passed.saturating_sub(1);
            self.skip(line);
        }
        let failed_tests = self.failed - failed_before;
        if !succeeded && failed_tests == 0 {
            // The runner failed before any test could fail, or after all had passed.
            self.failed += broken.len().max(1);
        }
        if failed_tests > 0 {
            self.failures
                .push(format!("{name}: {failed_tests}, see above"));
        } else if !succeeded && broken.is_empty() {
            self.failures.push(name.to_owned());
        }
        self.failures.append(&mut broken);
        Ok(())
    }
}

/// Makes the lab's cargo fail on compiler warnings in the workspace. Existing builds are not
/// repeated.
fn deny_warnings(cargo: &mut Command) -> &mut Command {
    cargo
        .env("CARGO_UNSTABLE_WARNINGS", "true")
        .env("CARGO_BUILD_WARNINGS", "deny")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// A test runner. Nextest shows the output of a failed test, which contains libtest's lines, so
/// only one of them is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Nextest,
    Libtest,
}

/// Parses the counts in a runner's closing line. Returns none for any other line.
fn counts(runner: Runner, line: &str) -> Vec<(usize, Outcome)> {
    let (prefix, before_list) = match runner {
        Runner::Nextest => ("Summary [", " run: "),
        Runner::Libtest => ("test result: ", ". "),
    };
    let rest = line.trim().strip_prefix(prefix);
    let list = rest.and_then(|rest| Some(rest.split_once(before_list)?.1));
    let parse = |part: &str| {
        let (count, what) = part.trim().split_once(' ')?;
        let outcome = match what.split(' ').next()? {
            "passed" => Outcome::Passed,
            "skipped" | "ignored" => Outcome::Skipped,
            "failed" | "timed" | "exec" => Outcome::Failed,
            _ => return None,
        };
        Some((count.parse().ok()?, outcome))
    };
    list.unwrap_or("")
        .split([',', ';'])
        .filter_map(parse)
        .collect()
}

/// Returns the test that this line of a runner reports as ignored.
fn ignored(runner: Runner, line: &str) -> Option<String> {
    let line = line.trim();
    let test = match runner {
        Runner::Nextest => line.strip_prefix("SKIP [")?.split_once(") ")?.1,
        Runner::Libtest => line
            .strip_prefix("test ")
            .filter(|rest| rest.contains(" ... ignored"))?,
    };
    Some(format!("ignored: {}", test.trim()))
}

/// Returns whether this line of cargo begins a list of test programs that failed or could not be
/// run.
fn is_list_of_broken_targets(line: &str) -> bool {
    let ends = [" target failed:", " targets failed:"];
    line.starts_with("error: ") && ends.iter().any(|end| line.ends_with(end))
}

/// Returns the test program in a line of such a list.
fn broken_target(line: &str) -> Option<&str> {
    line.strip_prefix("    `")?.strip_suffix('`')
}

/// Returns the names of a package's test programs that apply to Windows: those whose head does not
/// name another system.
fn windows_tests(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    if !dir.exists() {
        return Ok(names);
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let (source, name) = match path.extension() {
            Some(extension) if extension == "rs" => (path.clone(), path.file_stem()),
            _ => (path.join("main.rs"), path.file_name()),
        };
        let Ok(text) = fs::read_to_string(&source) else {
            continue;
        };
        let is_elsewhere = |line: &str| {
            line.starts_with("#![cfg(unix)]") || line.starts_with("#![cfg(target_os = \"linux\")]")
        };
        if !text.lines().any(is_elsewhere) {
            names.extend(name.map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
}

/// Removes `ESC [ … m` sequences.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or("", |(_, rest)| rest)
    })
}

/// Installs the programs that tests run for real, if this is Debian and the user is root. Their
/// services are not started.
fn install_real_programs() -> Result<()> {
    install(&[
        ("redis-server", "redis-server"),
        ("nginx", "nginx"),
        ("python3", "python3"),
        ("openssl", "openssl"),
        ("xmllint", "libxml2-utils"),
        // The shell of illumos and Solaris.
        ("ksh93", "ksh"),
        // Shells with completions, and a judge of manual pages.
        ("zsh", "zsh"),
        ("fish", "fish"),
        ("mandoc", "mandoc"),
        // Stops a program at any system call.
        ("strace", "strace"),
        ("rsyslogd", "rsyslog"),
        (
            "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so",
            "rsyslog-openssl",
        ),
        ("/lib/systemd/systemd-journald", "systemd"),
        // For the labs of labs/unix.
        ("mmdebstrap", "mmdebstrap"),
        ("systemd-nspawn", "systemd-container"),
    ])
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Failed, Passed, Skipped};
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        #[track_caller]
        fn check(runner: Runner, line: &str, expect: &[(usize, Outcome)]) {
            assert_eq!(counts(runner, &without_colours(line)), expect, "{line}");
        }
        use Runner::{Libtest, Nextest};
        check(
            Nextest,
            "     Summary [   0.281s] 8 tests run: 7 passed (1 slow), 1 failed, 2 timed out, 3 \
             skipped",
            &[(7, Passed), (1, Failed), (2, Failed), (3, Skipped)],
        );
        check(
            Nextest,
            "\x1b[32;1m     Summary\x1b[0m [   0.010s] \x1b[1m1\x1b[0m test run: \x1b[1m1\x1b[0m \x1b[32;1mpassed\x1b[0m, 0 skipped",
            &[(1, Passed), (0, Skipped)],
        );
        let libtest = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        check(Libtest, libtest, &[(3, Passed), (1, Failed), (2, Skipped)]);
        check(Nextest, libtest, &[]);
        check(Libtest, "test passed ... ok", &[]);
    }

    #[test]
    fn targets_that_broke_are_named() {
        let mut tally = Tally::default();
        let mut command = Command::new("sh");
        let said = "error: 2 targets failed:\n    `-p heartbeat --test systemd`\n    `-p heartbeat --bin it`";
        command.args(["-c", "echo \"$0\"; echo; echo '    `else`'; exit 101", said]);
        tally
            .run_tests("Windows", Runner::Libtest, command)
            .unwrap();
        assert_eq!(tally.failed, 2);
        assert_eq!(
            tally.failures,
            [
                "Windows: -p heartbeat --test systemd",
                "Windows: -p heartbeat --bin it"
            ]
        );
    }

    /// Test programs of other systems are empty on Windows, but still take time to start.
    #[test]
    fn tests_of_other_systems_are_not_started_on_windows() {
        let names = |package: &str| {
            let mut names = windows_tests(&root().join(package).join("tests")).unwrap();
            names.sort();
            names
        };
        assert_eq!(names("examples/heartbeat"), ["windows"]);
        assert_eq!(names("crates/mainstay-cli"), ["check", "windows"]);
    }

    #[test]
    fn ignored_tests_are_named() {
        #[track_caller]
        fn check(runner: Runner, line: &str, expect: &str) {
            assert_eq!(ignored(runner, line).as_deref(), Some(expect), "{line}");
        }
        check(
            Runner::Nextest,
            "        SKIP [         ] (─────) mainstay-cli::bin/mainstay host::cost",
            "ignored: mainstay-cli::bin/mainstay host::cost",
        );
        check(
            Runner::Libtest,
            "test host::cost ... ignored, slow",
            "ignored: host::cost ... ignored, slow",
        );
    }
}
