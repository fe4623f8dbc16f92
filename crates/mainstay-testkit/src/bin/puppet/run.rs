//! Execution of the steps.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::step::{Step, parse};
use crate::{serve, sys};

/// Executes the steps in `args` and returns the exit code.
pub(crate) fn run(args: Vec<String>) -> i32 {
    let steps = match parse(args) {
        Ok(steps) => steps,
        Err(mistake) => {
            eprintln!("puppet: {mistake}");
            return 64;
        }
    };
    let serves = steps.iter().any(|step| matches!(step, Step::Serve(_)));
    for step in steps {
        match perform(step) {
            Ok(Next::GoOn) => {}
            Ok(Next::Exit(code)) => return code,
            Err(error) => {
                eprintln!("puppet: {error}");
                return 70;
            }
        }
    }
    if serves { hang() } else { 0 }
}

enum Next {
    GoOn,
    Exit(i32),
}

fn perform(step: Step) -> io::Result<Next> {
    match step {
        Step::Print(text) => writeln!(io::stdout(), "{text}")?,
        Step::Eprint(text) => writeln!(io::stderr(), "{text}")?,
        Step::Sleep(time) => thread::sleep(time),
        Step::Exit(code) => return Ok(Next::Exit(code)),
        Step::Signal(name) => sys::signal_self(&name)?,
        Step::Ignore(names) => names.iter().try_for_each(|name| sys::ignore(name))?,
        Step::OnTerm { code, after } => sys::on_term(code, after)?,
        Step::Serve(what) => serve::start(what),
        Step::Touch(file) => drop(File::create(file)?),
        Step::Await(file) => {
            while !file.exists() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        Step::Notify(state) => sys::notify(&state)?,
        Step::PrintEnv => print_env()?,
        Step::Flood {
            lines,
            bytes,
            block,
        } => flood(lines, bytes, block)?,
        Step::Fork => println!("fork {}", puppet("hang")?.spawn()?.id()),
        // The intermediate process leads the new session and exits at once.
        Step::ForkSetsid => drop(puppet("setsid")?.args(["fork", "exit", "0"]).status()?),
        Step::Setsid => sys::setsid()?,
        Step::Trace(pid) => sys::trace(pid)?,
        Step::Hang => return Ok(Next::Exit(hang())),
        Step::Count(file) => drop(count(&file)?),
        Step::CrashUntil { file, starts, code } => {
            if count(&file)? <= starts {
                return Ok(Next::Exit(code));
            }
        }
        Step::ExitIf { file, text, code } => {
            if fs::read_to_string(file)?.contains(&text) {
                return Ok(Next::Exit(code));
            }
        }
        Step::ReportState => println!("{}", report_state()?),
    }
    Ok(Next::GoOn)
}

fn hang() -> i32 {
    loop {
        thread::park();
    }
}

/// Returns a command for another puppet, which inherits everything, including ignored signals.
fn puppet(step: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(step).stdin(Stdio::null());
    Ok(command)
}

/// Appends this start to `file` and returns the number of starts.
fn count(file: &Path) -> io::Result<usize> {
    let line = format!("{}\n", std::process::id());
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)?
        .write_all(line.as_bytes())?;
    Ok(fs::read_to_string(file)?.lines().count())
}

fn print_env() -> io::Result<()> {
    let mut variables: Vec<_> = std::env::vars_os().collect();
    variables.sort();
    let mut out = BufWriter::new(io::stdout().lock());
    for (name, value) in variables {
        writeln!(out, "{}={}", lossy(&name), lossy(&value))?;
    }
    out.flush()
}

/// Writes lines like `000000000042 kkkk…`, each `bytes` long including the newline.
fn flood(lines: u64, bytes: usize, block: bool) -> io::Result<()> {
    let capacity = if block { 64 * 1024 } else { bytes.max(14) };
    let mut out = BufWriter::with_capacity(capacity, sys::raw_stdout()?);
    for number in 0..lines {
        let letter = char::from(b'a' + (number % 26) as u8);
        let filler = letter.to_string().repeat(bytes.saturating_sub(14));
        out.write_all(format!("{number:012} {filler}\n").as_bytes())?;
    }
    out.flush()
}

fn report_state() -> io::Result<String> {
    let environment: serde_json::Map<_, _> = std::env::vars_os()
        .map(|(name, value)| (lossy(&name), lossy(&value).into()))
        .collect();
    let mut state = sys::inherited()?;
    state.insert("pid".into(), std::process::id().into());
    state.insert(
        "cwd".into(),
        lossy(std::env::current_dir()?.as_os_str()).into(),
    );
    state.insert("env".into(), environment.into());
    Ok(serde_json::Value::Object(state).to_string())
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}
