//! The paths with which Windows and `cmd.exe` start programs, and their limits ("Maximum Path
//! Length Limitation", Microsoft Learn). Pure, on UTF-16.

use std::fmt;

use super::text;

/// The maximum length of a path without the prefix `\\?\`, in UTF-16 units: `MAX_PATH` without
/// its NUL.
pub const LONGEST: usize = 259;
/// The maximum length of a working directory, to which the system appends a separator. No prefix
/// lifts this limit.
const LONGEST_WORKING_DIR: usize = 258;

/// The reason why a program cannot be started with its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The working directory has a longer path than the system accepts.
    WorkingDirTooLong {
        /// The length in UTF-16 units.
        units: usize,
    },
    /// `cmd.exe` cannot enter the working directory of a batch file. It would run in the directory
    /// of Windows instead.
    WorkingDirOnServer,
    /// The path of a batch file is longer than `cmd.exe` accepts.
    BatchFileTooLong {
        /// The length in UTF-16 units.
        units: usize,
    },
}

impl Unusable {
    /// Checks the absolute paths of a program and its working directory.
    pub fn check(program: &[u16], working_dir: &[u16]) -> Result<(), Self> {
        let is_batch = text::is_batch(program);
        match (working_dir.len(), program.len()) {
            (units, _) if units > LONGEST_WORKING_DIR => Err(Self::WorkingDirTooLong { units }),
            _ if is_batch && is_on_server(working_dir) => Err(Self::WorkingDirOnServer),
            (_, units) if is_batch && units > LONGEST => Err(Self::BatchFileTooLong { units }),
            _ => Ok(()),
        }
    }

    /// Returns whether the working directory is the cause, and not the program.
    pub fn is_of_working_dir(self) -> bool {
        !matches!(self, Self::BatchFileTooLong { .. })
    }

    /// Returns what can be done about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::WorkingDirTooLong { .. } => {
                "choose a shorter `working_dir`, such as a junction that leads to it"
            }
            Self::WorkingDirOnServer => {
                "choose a local `working_dir`, and name the share in the batch file (`pushd`)"
            }
            Self::BatchFileTooLong { .. } => "move the batch file to a shorter path",
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkingDirTooLong { units } => write!(
                f,
                "the path has {units} UTF-16 units, and Windows accepts at most {LONGEST_WORKING_DIR} for a working directory"
            ),
            Self::WorkingDirOnServer => {
                f.write_str("cmd.exe cannot run a batch file in a directory on a server")
            }
            Self::BatchFileTooLong { units } => write!(
                f,
                "the path has {units} UTF-16 units, and cmd.exe accepts at most {LONGEST} for a batch file"
            ),
        }
    }
}

/// Adds the prefix that lifts the limit of the length to an absolute path without `.`, `..` and
/// slashes.
pub fn extended(path: &[u16]) -> Vec<u16> {
    let wide = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    let network = wide(r"\\");
    if path.starts_with(&wide(r"\\?\")) || path.starts_with(&wide(r"\\.\")) {
        path.to_vec()
    } else if let Some(share) = path.strip_prefix(&*network) {
        [&*wide(r"\\?\UNC\"), share].concat()
    } else {
        [&*wide(r"\\?\"), path].concat()
    }
}

/// Returns whether a path leads to a server: `\\server\share` or `\\?\UNC\server\share`.
fn is_on_server(path: &[u16]) -> bool {
    let path = String::from_utf16_lossy(path).replace('/', r"\");
    match path.strip_prefix(r"\\") {
        Some(rest) if rest.starts_with(r"?\") || rest.starts_with(r".\") => rest
            .get(2..6)
            .is_some_and(|it| it.eq_ignore_ascii_case(r"UNC\")),
        rest => rest.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn paths_of_any_length() {
        for (path, long, is_remote) in [
            (r"C:\a", r"\\?\C:\a", false),
            (r"\\?\C:\a", r"\\?\C:\a", false),
            (r"\\srv\share\a", r"\\?\UNC\srv\share\a", true),
            (r"\\?\UNC\srv\share", r"\\?\UNC\srv\share", true),
            (r"\\.\pipe\a", r"\\.\pipe\a", false),
        ] {
            let found = String::from_utf16(&extended(&wide(path))).unwrap();
            assert_eq!(found, long, "{path}");
            assert_eq!(is_on_server(&wide(path)), is_remote, "{path}");
        }
        assert!(is_on_server(&wide("//srv/share")));
    }

    #[test]
    fn paths_that_a_program_cannot_be_started_with() {
        let check = |program: &str, dir: &str| Unusable::check(&wide(program), &wide(dir)).err();
        let long = |units: usize| format!(r"C:\{}", "x".repeat(units - 3));
        let batch = |units: usize| format!("{}.cmd", long(units - 4));
        assert_eq!(check(&long(32_000), &long(258)), None);
        let units = 259;
        let too_long = Unusable::WorkingDirTooLong { units };
        assert_eq!(check(r"C:\a.exe", &long(units)), Some(too_long));
        // `é` is two bytes in UTF-8, and `𝄞` two units in UTF-16.
        let two_units = |units: usize| format!(r"C:\{}", "𝄞".repeat(units));
        assert_eq!(check("a.exe", &format!(r"C:\{}", "é".repeat(255))), None);
        assert_eq!(check("a.exe", &two_units(127)), None);
        assert_eq!(check("a.exe", &two_units(128)), Some(too_long));
        let share = r"\\srv\share";
        assert_eq!(check(r"C:\a.exe", share), None);
        let on_server = Unusable::WorkingDirOnServer;
        assert_eq!(check(r"C:\a.bat", share), Some(on_server));
        assert_eq!(check(r"\\srv\share\a.cmd", r"C:\"), None);
        assert_eq!(check(&batch(259), r"C:\"), None);
        let units = 260;
        let too_long = Unusable::BatchFileTooLong { units };
        assert_eq!(check(&batch(units), r"C:\"), Some(too_long));
        assert!(on_server.is_of_working_dir() && !too_long.is_of_working_dir());
    }
}
