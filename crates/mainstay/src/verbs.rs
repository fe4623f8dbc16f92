//! The verbs of a service's own program: `install`, `start`, `status` and so on.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::service::chain;
use crate::terminal;
use crate::{
    Account, Definition, Error, ErrorKind, Password, Scope, Service, ServiceStatus, State,
    UNDER_SCM,
};

const USAGE: &str = "  install      install the service, or update the installed one
      --dry-run             print the changes without making them
      --account ACCOUNT     virtual, local-service, network-service, local-system, gmsa:DOMAIN\\NAME$, user:NAME
      --password-stdin, --password-file FILE, --password-env VARIABLE     the password of user:NAME [default: prompt]
  uninstall    stop and remove the service
  enable, disable       start the service at boot, or not
  start [ARGUMENT…], stop, restart, pause, continue, reload
  control N    send a custom control code, 128 to 255
  status       show the status of the service
  run          run the service in the foreground until ctrl-c; the default
  help, version         show this help, or the version of the program (also --help, --version)
  --user       apply to the services of the user, not of the machine (systemd)";

/// A command for a program's own service. For programs with their own command line;
/// [`Definition::main`] handles everything itself.
///
/// ```
/// use std::ffi::OsString;
/// use std::process::ExitCode;
///
/// use mainstay::{ErrorKind, Verb};
///
/// /// `orders service VERB`, beside the program's other subcommands.
/// fn service(arguments: Vec<OsString>) -> Result<ExitCode, mainstay::Error> {
///     mainstay::service("orders").perform(Verb::parse(arguments)?)
/// }
///
/// let error = service(vec!["instal".into()]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Usage);
/// assert_eq!(error.to_string(), "unknown verb instal");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verb {
    /// Installs the service, or updates the installed one.
    Install(Install),
    /// Stops and removes the service.
    Uninstall,
    /// Starts the service at boot from now on.
    Enable,
    /// Starts the service on request only.
    Disable,
    /// Starts the service, with arguments for [`Context::arguments`](crate::Context::arguments).
    Start(Vec<OsString>),
    /// Stops the service.
    Stop,
    /// Stops the service if it is running, and starts it.
    Restart,
    /// Pauses the service.
    Pause,
    /// Resumes the service.
    Continue,
    /// Reloads the service's configuration.
    Reload,
    /// Sends a service-defined control code, 128 to 255.
    Control(u8),
    /// Shows the service's status.
    Status,
    /// Runs the service in this process.
    Run,
    /// Shows the usage.
    Help,
    /// Shows the version, [`Definition::version`].
    Version,
}

/// Options of `install`.
///
/// ```
/// use mainstay::Verb;
///
/// # fn main() -> Result<(), mainstay::Error> {
/// let arguments = ["install", "--dry-run"].map(Into::into);
/// let Verb::Install(options) = Verb::parse(arguments)? else {
///     unreachable!("it is install")
/// };
/// assert!(options.is_dry);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Install {
    /// The account to use instead of the one in the definition.
    pub account: Option<Account>,
    /// Set to print the plan without executing it.
    pub is_dry: bool,
}

impl Verb {
    /// Parses a command line without the program, such as `["start"]`. An empty one is
    /// [`Verb::Run`]. If a password is needed, it is asked for on a console.
    ///
    /// # Errors
    /// If the command line is invalid, or the password it refers to cannot be read.
    ///
    /// ```
    /// use mainstay::Verb;
    ///
    /// # fn main() -> Result<(), mainstay::Error> {
    /// assert_eq!(Verb::parse(["stop".into()])?, Verb::Stop);
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let mut arguments = arguments
            .into_iter()
            .filter(|argument| argument != UNDER_SCM);
        let Some(verb) = arguments.next() else {
            return Ok(Self::Run);
        };
        let arguments: Vec<_> = arguments.collect();
        // The arguments of these belong to the service.
        let is_ours = verb != "run" && verb != "start";
        if is_ours && arguments.iter().any(|it| it == "--help" || it == "-h") {
            return Ok(Self::Help);
        }
        let mut arguments = arguments.into_iter();
        let verb = match verb.to_str() {
            Some("install") => return Install::parse(arguments).map(Self::Install),
            Some("run") => return Ok(Self::Run),
            Some("start") => return Ok(Self::Start(arguments.collect())),
            Some("uninstall") => Self::Uninstall,
            Some("enable") => Self::Enable,
            Some("disable") => Self::Disable,
            Some("stop") => Self::Stop,
            Some("restart") => Self::Restart,
            Some("pause") => Self::Pause,
            Some("continue") => Self::Continue,
            Some("reload") => Self::Reload,
            Some("status") => Self::Status,
            Some("help" | "--help" | "-h") => return Ok(Self::Help),
            Some("version" | "--version" | "-V") => return Ok(Self::Version),
            Some("control") => {
                let code = arguments.next();
                let code = code.as_ref().and_then(|code| code.to_str()?.parse().ok());
                Self::Control(
                    code.ok_or_else(|| wrong("control requires a number from 128 to 255"))?,
                )
            }
            _ => return Err(wrong(format!("unknown verb {}", verb.display()))),
        };
        match arguments.next() {
            None => Ok(verb),
            Some(extra) => Err(wrong(format!("unexpected argument {}", extra.display()))),
        }
    }
}

impl Install {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Error> {
        let mut account = None;
        let mut password = None;
        let mut is_dry = false;
        while let Some(option) = arguments.next() {
            let option = option.display().to_string();
            let mut value = || {
                let missing = || wrong(format!("{option} requires a value"));
                arguments.next().ok_or_else(missing)
            };
            let unread = |from: &str, error: io::Error| {
                Error::new(
                    ErrorKind::Failed,
                    format!("cannot read a password from {from}"),
                )
                .because(error)
            };
            match &*option {
                "--dry-run" => is_dry = true,
                "--account" => account = Some(parse_account(&value()?.to_string_lossy())?),
                "--password-stdin" => {
                    let read = Password::from_stdin();
                    password = Some(read.map_err(|error| unread("standard input", error))?);
                }
                "--password-file" => {
                    let path = PathBuf::from(value()?);
                    let read = Password::from_file(&path);
                    let from = path.display().to_string();
                    password = Some(read.map_err(|error| unread(&from, error))?);
                }
                "--password-env" => {
                    let name = value()?.to_string_lossy().into_owned();
                    let read = Password::from_env(&name);
                    let missing = || wrong(format!("the environment variable {name} is not set"));
                    password = Some(read.ok_or_else(missing)?);
                }
                _ => return Err(wrong(format!("unknown option {option}"))),
            }
        }
        let account = match (account, password) {
            (Some(Account::User(name, _)), None) => {
                let password = ask(&name)?;
                Some(Account::User(name, password))
            }
            (Some(Account::User(name, _)), password) => Some(Account::User(name, password)),
            (_, Some(_)) => return Err(wrong("a password requires --account user:NAME")),
            (account, None) => account,
        };
        Ok(Self { account, is_dry })
    }
}

fn parse_account(text: &str) -> Result<Account, Error> {
    Ok(match text {
        "virtual" => Account::Virtual,
        "local-service" => Account::LocalService,
        "network-service" => Account::NetworkService,
        "local-system" => Account::LocalSystem,
        _ => match text.split_once(':') {
            Some(("user", name)) => Account::User(name.to_owned(), None),
            Some(("gmsa", name)) => Account::Managed(name.to_owned()),
            _ => return Err(wrong(format!("unknown account {text}"))),
        },
    })
}

#[cfg(windows)]
fn ask(name: &str) -> Result<Option<Password>, Error> {
    let failed = |error| {
        let what = format!("cannot read the password of {name}");
        Error::new(ErrorKind::Failed, what)
            .because(error)
            .with_cure("use --password-stdin, --password-file or --password-env")
    };
    let password = Password::ask(&format!("Password of {name}: ")).map_err(failed)?;
    Ok(Some(password))
}

/// Only Windows requires a password.
#[cfg(not(windows))]
#[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
fn ask(_name: &str) -> Result<Option<Password>, Error> {
    Ok(None)
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, what)
}

impl Definition {
    /// Runs the service or executes the verb on the command line: `install`, `uninstall`, `enable`,
    /// `disable`, `start`, `stop`, `restart`, `pause`, `continue`, `reload`, `control N`, `status`.
    /// With `--user` before the verb, it applies to the user's own services. Returns the exit code
    /// for the process, which is the same as that of the `mainstay` command (docs/exit-codes.md).
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    ///
    /// use mainstay::{Context, Control, Exit};
    ///
    /// fn main() -> ExitCode {
    ///     mainstay::service("orders").main(orders)
    /// }
    ///
    /// fn orders(mut context: Context) -> Result<(), Exit> {
    ///     while !matches!(context.wait(), Control::Stop(_)) {}
    ///     Ok(())
    /// }
    /// ```
    pub fn main(self, service: impl Service + Send + 'static) -> ExitCode {
        let name = self.name.clone();
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        let scope = if arguments.first().is_some_and(|first| first == "--user") {
            arguments.remove(0);
            Scope::User
        } else {
            self.scope
        };
        let result = match Verb::parse(arguments) {
            Ok(Verb::Run) => return self.run(service),
            Ok(verb) => self.scope(scope).perform(verb),
            Err(error) => Err(error),
        };
        match result {
            Ok(code) => code,
            Err(error) => describe_failure(&name, &error),
        }
    }

    /// Returns the service's description and the program's usage.
    fn about(&self) -> String {
        let about = self.description.as_ref();
        let about = about.map(|text| format!("{text}\n\n"));
        about.unwrap_or_default() + &usage(&self.name)
    }

    /// Executes a verb, reports the result on standard output, and blocks until it is done.
    /// [`Verb::Run`] is rejected because it requires the service: use [`Definition::run`].
    ///
    /// # Errors
    /// The errors of the method with the same name: [`Definition::install`] and so on.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mainstay::Error> {
    /// let orders = mainstay::service("orders");
    /// orders.perform(mainstay::Verb::Restart)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn perform(mut self, verb: Verb) -> Result<ExitCode, Error> {
        let said = match verb {
            Verb::Install(options) => {
                install(std::slice::from_mut(&mut self), options)?;
                return Ok(ExitCode::SUCCESS);
            }
            Verb::Uninstall => self.uninstall().map(|()| "uninstalled".to_owned())?,
            Verb::Enable => self.enable().map(|()| "enabled".to_owned())?,
            Verb::Disable => self.disable().map(|()| "disabled".to_owned())?,
            Verb::Start(arguments) => {
                let done = self.start_with(arguments);
                or_already(done, ErrorKind::AlreadyRunning).map(|()| "running".to_owned())?
            }
            Verb::Stop => {
                let done = self.stop();
                or_already(done, ErrorKind::NotRunning).map(|()| "stopped".to_owned())?
            }
            Verb::Restart => self.restart().map(|()| "running".to_owned())?,
            Verb::Pause => self.pause().map(|()| "paused".to_owned())?,
            Verb::Continue => self.resume().map(|()| "running".to_owned())?,
            Verb::Reload => self.reload().map(|()| "reload requested".to_owned())?,
            Verb::Control(code) => self.control(code).map(|()| format!("sent {code}"))?,
            Verb::Status => {
                let status = self.status()?;
                say(&status.to_string())?;
                return Ok(shown(status));
            }
            Verb::Help => {
                say(self.about().trim_end())?;
                return Ok(ExitCode::SUCCESS);
            }
            Verb::Version => {
                let version = self.version.as_deref().unwrap_or("(no version)");
                say(&format!("{} {version}", self.name))?;
                return Ok(ExitCode::SUCCESS);
            }
            Verb::Run => return Err(wrong("run requires the service: use Definition::run")),
        };
        say(&format!("{}: {said}", self.name))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Installs the services, or shows the plan, and reports the result on standard output.
pub(crate) fn install(definitions: &mut [Definition], options: Install) -> Result<(), Error> {
    let Install { account, is_dry } = options;
    for definition in &mut *definitions {
        if let Some(account) = &account {
            definition.account = account.clone();
        }
    }
    if is_dry {
        return say(crate::plan_all(definitions)?.trim_end());
    }
    for caution in crate::cautions(definitions)? {
        say(&format!("warning: {caution}"))?;
    }
    let all = crate::install_all(definitions)?;
    for (definition, installed) in definitions.iter().zip(all) {
        let mut text = format!("{}: installed", definition.name);
        for loss in installed.losses {
            text = format!("{text}\nnot supported by the service manager: {loss}");
        }
        for warning in installed.warnings {
            text = format!("{text}\nwarning: {warning}");
        }
        say(&text)?;
    }
    Ok(())
}

/// Returns the exit code after a status was shown.
pub(crate) fn shown(status: ServiceStatus) -> ExitCode {
    match status.state {
        State::Running | State::Paused => ExitCode::SUCCESS,
        // Includes a service that is starting, perhaps in a restart loop, or stopping.
        _ => ExitCode::from(exit_code(ErrorKind::NotRunning)),
    }
}

/// Writes an error to standard error, with the usage of the program after a usage error. Returns
/// its exit code.
pub(crate) fn describe_failure(name: &str, error: &Error) -> ExitCode {
    let mut text = format!("error: {}\n", chain(error));
    if let Some(cure) = error.cure() {
        text += &format!("hint: {cure}\n");
    }
    if error.kind() == ErrorKind::Usage {
        text += &usage(name);
    }
    // A failed write to standard error cannot be reported.
    let _ = terminal::write(io::stderr(), &text);
    ExitCode::from(exit_code(error.kind()))
}

/// A verb that has nothing to do succeeds, as those of the `mainstay` command do.
fn or_already(done: Result<(), Error>, kind: ErrorKind) -> Result<(), Error> {
    match done {
        Err(error) if error.kind() == kind => Ok(()),
        done => done,
    }
}

pub(crate) fn usage(name: &str) -> String {
    format!("usage: {name} [--user] [VERB]\n\n{USAGE}\n")
}

pub(crate) fn say(text: &str) -> Result<(), Error> {
    let said = terminal::write(io::stdout(), &format!("{text}\n"));
    said.map_err(|error| {
        Error::new(ErrorKind::Failed, "cannot write to standard output").because(error)
    })
}

/// Returns the exit code of the `mainstay` command for an error.
fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::NotRunning => 3,
        ErrorKind::NotInstalled => 4,
        ErrorKind::Unsupported => 69,
        ErrorKind::MarkedForDelete => 75,
        ErrorKind::PermissionDenied => 77,
        ErrorKind::Invalid => 78,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Verb, Error> {
        Verb::parse(line.split_ascii_whitespace().map(OsString::from))
    }

    #[test]
    fn command_lines_are_verbs() {
        let check = |line, expected| assert_eq!(parse(line).unwrap(), expected, "{line}");
        check("", Verb::Run);
        for line in [
            "--help",
            "-h",
            "help",
            "help install",
            "install --help",
            "stop -h",
        ] {
            check(line, Verb::Help);
        }
        check("start --help", Verb::Start(vec!["--help".into()]));
        for line in ["--version", "-V", "version"] {
            check(line, Verb::Version);
        }
        check("--under-scm", Verb::Run);
        check("run --config x --under-scm", Verb::Run);
        check("start a b", Verb::Start(vec!["a".into(), "b".into()]));
        check("control 200", Verb::Control(200));
        check("install", Verb::Install(Install::default()));
        let dry = Install {
            is_dry: true,
            ..Install::default()
        };
        check("install --dry-run", Verb::Install(dry));
        let account = Some(Account::Managed("D\\orders$".into()));
        check(
            "install --account gmsa:D\\orders$",
            Verb::Install(Install {
                account,
                is_dry: false,
            }),
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |line, expected: &str| {
            let error = parse(line).unwrap_err();
            assert_eq!(
                (error.kind(), &*error.to_string()),
                (ErrorKind::Usage, expected)
            );
        };
        check("instal", "unknown verb instal");
        check("stop now", "unexpected argument now");
        check("control", "control requires a number from 128 to 255");
        check("control 300", "control requires a number from 128 to 255");
        check("install --account root", "unknown account root");
        check("install --account", "--account requires a value");
        check("install --password secret", "unknown option --password");
        check(
            "install --account virtual --password-env PATH",
            "a password requires --account user:NAME",
        );
    }
}
