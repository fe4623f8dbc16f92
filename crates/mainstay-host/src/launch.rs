//! The parameters with which a program is started: its absolute path, its working directory and its
//! whole environment.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use mainstay_core::engine::StartFailure;
use mainstay_core::spec::Spec;
use mainstay_core::windows::text::variable_key;
use mainstay_core::{env_file, environment};
use mainstay_sys as sys;
use mainstay_sys::{aside, guarded};

/// The variable that passes `log.level` to every program.
pub const LOG_LEVEL: &str = "MAINSTAY_LOG_LEVEL";

/// An environment under construction. Names stay as they were given. If `FOLDS`, as on Windows,
/// `Path` and `PATH` are one variable, whose name is the one that was given last.
#[derive(Clone, Default)]
pub struct Environment<const FOLDS: bool = { cfg!(windows) }> {
    /// Names and values by the text that names are compared by.
    variables: BTreeMap<OsString, (OsString, OsString)>,
}

impl<const FOLDS: bool> Environment<FOLDS> {
    /// Returns the value of a variable.
    pub(crate) fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsString> {
        let (_, value) = self.variables.get(&*Self::key(name.as_ref()))?;
        Some(value)
    }

    /// Sets a variable.
    pub(crate) fn insert(&mut self, name: OsString, value: OsString) {
        let key = Self::key(&name).into_owned();
        self.variables.insert(key, (name, value));
    }

    /// Returns the text that a name is compared by.
    fn key(name: &OsStr) -> Cow<'_, OsStr> {
        if !FOLDS {
            return Cow::Borrowed(name);
        }
        Cow::Owned(match name.to_str() {
            Some(name) => variable_key(name).into(),
            None => name.to_ascii_uppercase(),
        })
    }
}

impl<const FOLDS: bool> Extend<(OsString, OsString)> for Environment<FOLDS> {
    fn extend<T: IntoIterator<Item = (OsString, OsString)>>(&mut self, variables: T) {
        for (name, value) in variables {
            self.insert(name, value);
        }
    }
}

impl<const FOLDS: bool> FromIterator<(OsString, OsString)> for Environment<FOLDS> {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        let mut environment = Self {
            variables: BTreeMap::new(),
        };
        environment.extend(variables);
        environment
    }
}

impl<const FOLDS: bool> IntoIterator for Environment<FOLDS> {
    type Item = (OsString, OsString);
    type IntoIter = std::collections::btree_map::IntoValues<OsString, (OsString, OsString)>;

    fn into_iter(self) -> Self::IntoIter {
        self.variables.into_values()
    }
}

/// Returns the supervisor's own environment, without its private variables. Call this once: the
/// environment never changes.
pub fn inherited() -> Environment {
    inherited_from(env::vars_os())
}

fn inherited_from<const FOLDS: bool>(
    ours: impl Iterator<Item = (OsString, OsString)>,
) -> Environment<FOLDS> {
    let is_private = |name: &OsStr| {
        let key = Environment::<FOLDS>::key(name);
        key.to_str().is_some_and(environment::is_private)
    };
    ours.filter(|(name, _)| !is_private(name)).collect()
}

/// Returns the part of `ours` that a service and the commands of its account inherit. It is
/// everything, unless they run as another `user`: another account must not see the supervisor's
/// environment, so it gets a clean one.
pub(crate) fn inherited_by(
    spec: &Spec,
    user: Option<&sys::User>,
    ours: &Environment,
) -> Environment {
    let Some(user) = user else {
        return ours.clone();
    };
    let named = spec.inherit_env().iter().map(String::as_str);
    let named = environment::BASE.into_iter().chain(named);
    let named: BTreeSet<_> = named
        .map(|name| Environment::<{ cfg!(windows) }>::key(name.as_ref()))
        .collect();
    let passed = ours.variables.iter();
    let passed = passed.filter(|(key, _)| named.contains(&Cow::Borrowed(&***key)));
    let mut inherited: Environment = passed.map(|(_, variable)| variable.clone()).collect();
    inherited.extend(user.environment());
    inherited
}

/// Returns the service's working directory: `working_dir`, relative to the manifest's directory,
/// which is the default.
pub fn working_dir(spec: &Spec, manifest_dir: &Path) -> PathBuf {
    spec.working_dir()
        .map_or_else(|| manifest_dir.to_path_buf(), |dir| manifest_dir.join(dir))
}

/// The variable that names the directory of systemd's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Returns the path that `credential:NAME` stands for: a credential that systemd provides to its
/// service alone; see systemd.exec(5), "Credentials".
pub fn credential(path: &Path) -> Option<PathBuf> {
    let name = path.to_str()?.strip_prefix("credential:")?;
    Some(PathBuf::from(env::var_os(CREDENTIALS)?).join(name))
}

/// Returns the variable by which a helper process of the supervisor finds the same credentials.
pub(crate) fn credentials() -> Option<(OsString, OsString)> {
    Some((CREDENTIALS.into(), env::var_os(CREDENTIALS)?))
}

/// Returns a path by which this program can be started again. On Linux it leads to the program that
/// is running, even if its file was replaced or deleted.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        env::current_exe()
    }
}

/// Returns a service's environment: the [inherited](inherited_by) variables, the log level, then
/// `env_file`, then `env`, whose values may refer to earlier variables as `${NAME}`.
///
/// # Errors
/// If a file cannot be read or a variable is not set. The message names the operation and the file,
/// but never a value.
pub(crate) fn environment(
    spec: &Spec,
    manifest_dir: &Path,
    user: Option<&sys::User>,
    ours: &Environment,
) -> Result<Environment, StartFailure> {
    let mut environment = inherited_by(spec, user, ours);
    environment.insert(LOG_LEVEL.into(), spec.log().level().name().into());
    if let Some((path, text)) = read_env_file(spec, manifest_dir)? {
        let variables = env_file::parse(&text)
            .map_err(|mistake| format!("env_file {}, {mistake}", path.display()))?;
        for variable in variables {
            environment.insert(variable.name.into(), variable.value.into());
        }
    }
    let mut own = Vec::new();
    for (name, value) in spec.env().iter() {
        let value = expand(value, &environment).map_err(|missing| {
            let hint = if ours.get(missing).is_some() {
                format!(" (add it to `inherit_env = [\"{missing}\"]`)")
            } else {
                " (set it, or write `$${` for a literal `${`)".to_owned()
            };
            StartFailure::Missing(format!("env {name}: `${{{missing}}}` is not set{hint}"))
        })?;
        own.push((name.into(), value));
    }
    environment.extend(own);
    Ok(environment)
}

/// Returns the path and the text of the `env_file`, if there is one.
fn read_env_file(
    spec: &Spec,
    manifest_dir: &Path,
) -> Result<Option<(PathBuf, String)>, StartFailure> {
    let Some(path) = spec.env_file() else {
        return Ok(None);
    };
    let path = manifest_dir.join(path);
    let read = {
        let path = path.clone();
        move || guarded::read_to_string(&path, guarded::ENV_FILE)
    };
    let text = aside::wait(path.display().to_string(), read);
    let text = text.flatten().map_err(|error| {
        let why = guarded::explain(&error);
        StartFailure::of_path(format!("read env_file {}: {why}", path.display()), &error)
    })?;
    Ok(Some((path, text)))
}

/// Returns remarks on lines of the `env_file` that may not mean what their author expects. Empty if
/// the file cannot be read.
pub(crate) fn env_file_remarks(spec: &Spec, manifest_dir: &Path) -> Vec<String> {
    let Ok(Some((path, text))) = read_env_file(spec, manifest_dir) else {
        return Vec::new();
    };
    let variables = env_file::parse(&text).unwrap_or_default().into_iter();
    let remarks = variables.filter(|variable| variable.ends_like_comment);
    let remarks = remarks.map(|variable| {
        let (path, line, name) = (path.display(), variable.line, variable.name);
        format!(
            "env_file {path}, line {line}: ` #` and the text after it are part of the value of {name}; put a comment on a line of its own, or quote the value"
        )
    });
    remarks.collect()
}

/// Replaces references to variables, `${NAME}`, by their values; `$${` stands for a literal `${`.
/// Fails with the name of the first variable that is not set.
fn expand<'a>(text: &'a str, environment: &Environment) -> Result<OsString, &'a str> {
    let mut expanded = OsString::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push(before);
            expanded.push("${");
            rest = &reference[2..];
            continue;
        }
        expanded.push(before);
        let Some((name, after)) = reference[2..].split_once('}') else {
            rest = reference;
            break;
        };
        expanded.push(environment.get(name).ok_or(name)?);
        rest = after;
    }
    expanded.push(rest);
    Ok(expanded)
}

/// Returns the absolute path of a program. A name with a separator is taken as given (relative to
/// `base`) and not checked; any other is looked up in `PATH`.
///
/// # Errors
/// `NotFound`, or `PermissionDenied` if a file exists that may not be executed.
pub fn find_program(program: &str, base: &Path, search: Option<&OsStr>) -> io::Result<PathBuf> {
    if program.contains(std::path::is_separator) {
        return Ok(base.join(program));
    }
    let mut refused = None;
    for dir in env::split_paths(search.unwrap_or_default()) {
        for name in candidates(program) {
            let path = base.join(&dir).join(name);
            match check_executable(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    refused = Some(error)
                }
                Err(_) => {}
            }
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not found in PATH")))
}

#[cfg(unix)]
fn candidates(program: &str) -> [String; 1] {
    [program.to_owned()]
}

/// Returns the file names to look for. `CreateProcess` runs `.exe` and, through `cmd`, the two
/// kinds of batch file.
#[cfg(windows)]
fn candidates(program: &str) -> [String; 4] {
    ["", ".exe", ".cmd", ".bat"].map(|suffix| format!("{program}{suffix}"))
}

/// Checks that `path` is a file that this process may execute.
#[cfg(unix)]
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        let why = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(access(path, Access::EXEC_OK)?)
}

/// Returns the reason that a file cannot be executed, as far as it is known in advance, and a hint
/// if the error alone is misleading.
#[cfg(unix)]
pub(crate) fn obstacle(path: &Path) -> Option<(io::Error, Option<String>)> {
    match check_executable(path) {
        Err(error) => {
            let errno = error.raw_os_error();
            let hint = errno.and_then(|errno| sys::why_not_executed(path, errno));
            Some((error, hint))
        }
        Ok(()) => sys::lacks_interpreter(path)
            .map(|hint| (io::Error::from_raw_os_error(libc::ENOENT), Some(hint))),
    }
}

/// Returns the reason that a file cannot be executed, as far as it is known in advance.
#[cfg(windows)]
pub(crate) fn obstacle(path: &Path) -> Option<(io::Error, Option<String>)> {
    check_executable(path).err().map(|error| (error, None))
}

/// Checks that `path` is a file. On Windows, only an attempt shows whether it can be executed.
#[cfg(windows)]
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_refer_to_what_was_there() {
        let environment = [("PATH", "/bin"), ("EMPTY", "")]
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter()
            .collect();
        for (text, expect) in [
            ("/opt:${PATH}:${EMPTY}x", Ok("/opt:/bin:x")),
            ("${PATH}${PATH}", Ok("/bin/bin")),
            ("$PATH $${PATH} 5$", Ok("$PATH ${PATH} 5$")),
            ("${PATH", Ok("${PATH")),
            ("${NOWHERE}", Err("NOWHERE")),
            ("${}", Err("")),
        ] {
            assert_eq!(expand(text, &environment), expect.map(Into::into), "{text}");
        }
    }

    #[test]
    fn names_of_windows_stay_as_given_and_are_looked_up_in_any_case() {
        fn shown<const FOLDS: bool>(environment: Environment<FOLDS>) -> Vec<String> {
            let show = |(name, value): (OsString, OsString)| {
                format!("{}={}", name.display(), value.display())
            };
            environment.into_iter().map(show).collect()
        }
        let ours = [
            ("windir", "w"),
            ("Path", "p"),
            ("mainstay_state_dir", "s"),
            ("Größe", "g"),
        ];
        let ours = || {
            ours.map(|(name, value)| (name.into(), value.into()))
                .into_iter()
        };
        let mut windows: Environment<true> = inherited_from(ours());
        assert_eq!(windows.get("WINDIR"), Some(&"w".into()));
        assert_eq!(windows.get("größe"), Some(&"g".into()));
        windows.extend([
            ("path".into(), "q".into()),
            ("MixedCase".into(), "x".into()),
        ]);
        assert_eq!(
            shown(windows),
            ["Größe=g", "MixedCase=x", "path=q", "windir=w"]
        );
        let unix: Environment<false> = inherited_from(ours());
        assert_eq!(unix.get("WINDIR"), None);
        let all = ["Größe=g", "Path=p", "mainstay_state_dir=s", "windir=w"];
        assert_eq!(shown(unix), all);
    }
}
