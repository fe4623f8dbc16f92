//! A password that is never shown.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _};
use std::path::Path;

/// A password, for [`Account::User`](crate::Account::User). It is wiped when dropped and never
/// appears in `Debug` output. It can come from any source except the command line, which every user
/// of the machine can read.
///
/// ```
/// use mainstay::Password;
///
/// let password = Password::new("hunter2");
/// assert_eq!(format!("{password:?}"), "Password(…)");
/// assert_eq!(Password::from_env("NO_SUCH_VARIABLE"), None);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Creates a password from a string that the program already has.
    ///
    /// ```
    /// let password = mainstay::Password::new("from the vault");
    /// assert!(!format!("{password:?}").contains("vault"));
    /// ```
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads the first line of standard input.
    ///
    /// # Errors
    /// If nothing can be read.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let password = mainstay::Password::from_stdin()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_stdin() -> io::Result<Self> {
        let mut line = Self(String::new());
        io::stdin().lock().read_line(&mut line.0)?;
        Ok(line.trimmed())
    }

    /// Reads the first line of a file.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let password = mainstay::Password::from_file("/run/secrets/orders")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self(fs::read_to_string(path)?).trimmed())
    }

    /// Reads an environment variable of this process. Returns `None` if it is not set or not valid
    /// Unicode.
    ///
    /// ```
    /// assert!(mainstay::Password::from_env("NO_SUCH_VARIABLE").is_none());
    /// ```
    pub fn from_env(name: &str) -> Option<Self> {
        std::env::var(name).ok().map(Self)
    }

    #[cfg(windows)]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the first line.
    pub(crate) fn trimmed(mut self) -> Self {
        let end = self.0.find(['\r', '\n']).unwrap_or(self.0.len());
        Self(self.0.drain(..end).collect())
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        // Zero bytes are valid text. The barrier keeps the compiler from removing a write that is
        // never read.
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
