//! The steps of a puppet.

use std::path::PathBuf;
use std::time::Duration;

/// A step, as written on the command line.
pub(crate) enum Step {
    /// `print TEXT`: prints a line to stdout.
    Print(String),
    /// `eprint TEXT`: prints a line to stderr.
    Eprint(String),
    /// `sleep 100ms`: sleeps; the unit is `ms` or `s`.
    Sleep(Duration),
    /// `exit N`: exits with N.
    Exit(i32),
    /// `signal SEGV`: sends the signal to itself (Unix).
    Signal(String),
    /// `ignore term,int,hup`: ignores the signals; later descendants inherit this. On Windows only
    /// `int`, which is ctrl-c.
    Ignore(Vec<String>),
    /// `on-term exit N [after D]`: installs a graceful handler for TERM and INT (Unix).
    OnTerm { code: i32, after: Duration },
    /// `serve tcp|http|unix ADDR [--after D] [--status N] [--drain]`: serves in the background;
    /// http answers every request with 200 or N. The address may be `given:0`, the first socket of
    /// `LISTEN_FDS`. With `--drain` (http, Unix), TERM makes it answer the accepted requests and
    /// exit with 0.
    Serve(Serve),
    /// `touch FILE`: creates the file.
    Touch(PathBuf),
    /// `await FILE`: waits until the file exists.
    Await(PathBuf),
    /// `notify STATE`: sends one datagram to `NOTIFY_SOCKET` (Unix).
    Notify(String),
    /// `print-env`: prints every variable, sorted, one per line.
    PrintEnv,
    /// `flood LINES [--bytes N] [--block]`: writes numbered lines of N bytes (default 80), with one
    /// write per line or in 64 KiB blocks.
    Flood {
        lines: u64,
        bytes: usize,
        block: bool,
    },
    /// `fork`: starts a child in the same process group, which hangs; prints `fork PID`.
    Fork,
    /// `fork-setsid`: starts a double-forked process in its own session; prints `fork PID` (Unix).
    ForkSetsid,
    /// `setsid`: starts a new session (Unix).
    Setsid,
    /// `trace PID`: becomes a tracer (ptrace(2)) that never waits (Linux).
    Trace(i32),
    /// `hang`: sleeps forever, without a wake-up.
    Hang,
    /// `count FILE`: appends a line with its PID, so that the lines count the starts.
    Count(PathBuf),
    /// `crash-until FILE N CODE`: counts in FILE. The first N starts exit with CODE; later ones
    /// continue.
    CrashUntil {
        file: PathBuf,
        starts: usize,
        code: i32,
    },
    /// `exit-if FILE TEXT CODE`: exits with CODE if FILE contains TEXT.
    ExitIf {
        file: PathBuf,
        text: String,
        code: i32,
    },
    /// `report-state`: prints the inherited state as a line of JSON.
    ReportState,
}

/// A listener.
#[derive(Clone)]
pub(crate) struct Serve {
    pub(crate) protocol: Protocol,
    pub(crate) address: String,
    pub(crate) after: Duration,
    pub(crate) status: u16,
    pub(crate) drain: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    Tcp,
    Http,
    Unix,
}

/// Parses all steps, or returns the mistake in the first invalid one.
pub(crate) fn parse(args: Vec<String>) -> Result<Vec<Step>, String> {
    let mut words = Words(args.into_iter().peekable());
    let mut steps = Vec::new();
    while let Some(word) = words.0.next() {
        steps.push(words.step(&word)?);
    }
    Ok(steps)
}

struct Words(std::iter::Peekable<std::vec::IntoIter<String>>);

impl Words {
    fn step(&mut self, word: &str) -> Result<Step, String> {
        Ok(match word {
            "print" => Step::Print(self.word("TEXT")?),
            "eprint" => Step::Eprint(self.word("TEXT")?),
            "sleep" => Step::Sleep(self.duration()?),
            "exit" => Step::Exit(self.number("N")?),
            "signal" => Step::Signal(self.word("NAME")?),
            "ignore" => Step::Ignore(self.word("NAMES")?.split(',').map(str::to_owned).collect()),
            "on-term" if self.flag("exit") => Step::OnTerm {
                code: self.number("N")?,
                after: self.option("after", Self::duration)?.unwrap_or_default(),
            },
            "serve" => Step::Serve(self.serve()?),
            "touch" => Step::Touch(self.word("FILE")?.into()),
            "await" => Step::Await(self.word("FILE")?.into()),
            "notify" => Step::Notify(self.word("STATE")?),
            "print-env" => Step::PrintEnv,
            "flood" => Step::Flood {
                lines: self.number("LINES")?,
                bytes: self
                    .option("--bytes", |words| words.number("N"))?
                    .unwrap_or(80),
                block: self.flag("--block"),
            },
            "fork" => Step::Fork,
            "fork-setsid" => Step::ForkSetsid,
            "setsid" => Step::Setsid,
            "trace" => Step::Trace(self.number("PID")?),
            "hang" => Step::Hang,
            "count" => Step::Count(self.word("FILE")?.into()),
            "crash-until" => Step::CrashUntil {
                file: self.word("FILE")?.into(),
                starts: self.number("N")?,
                code: self.number("CODE")?,
            },
            "exit-if" => Step::ExitIf {
                file: self.word("FILE")?.into(),
                text: self.word("TEXT")?,
                code: self.number("CODE")?,
            },
            "report-state" => Step::ReportState,
            other => return Err(format!("no step {other:?}")),
        })
    }

    fn serve(&mut self) -> Result<Serve, String> {
        let protocol = match self.word("tcp, http or unix")?.as_str() {
            "tcp" => Protocol::Tcp,
            "http" => Protocol::Http,
            "unix" => Protocol::Unix,
            other => return Err(format!("cannot serve {other:?}")),
        };
        Ok(Serve {
            protocol,
            address: self.word("ADDR")?,
            after: self.option("--after", Self::duration)?.unwrap_or_default(),
            status: self
                .option("--status", |words| words.number("N"))?
                .unwrap_or(200),
            drain: self.flag("--drain"),
        })
    }

    fn word(&mut self, what: &str) -> Result<String, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn number<N: std::str::FromStr>(&mut self, what: &str) -> Result<N, String> {
        let word = self.word(what)?;
        word.parse()
            .map_err(|_| format!("{what} is a number, not {word:?}"))
    }

    fn duration(&mut self) -> Result<Duration, String> {
        let word = self.word("a duration")?;
        let (number, unit) = match word.strip_suffix("ms") {
            Some(number) => (number, 0.001),
            None => (word.strip_suffix('s').unwrap_or(""), 1.0),
        };
        let number: Option<f64> = number.parse().ok();
        number
            .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
            .ok_or_else(|| format!("a duration is like 100ms or 2s, not {word:?}"))
    }

    fn flag(&mut self, name: &str) -> bool {
        self.0.next_if(|word| word == name).is_some()
    }

    fn option<T>(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.flag(name) {
            value(self).map(Some)
        } else {
            Ok(None)
        }
    }
}
