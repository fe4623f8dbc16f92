//! A password that shows itself nowhere.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _};
use std::path::Path;

/// A password, for [`Account::User`](crate::Account::User). Wiped when it is dropped; no `Debug` shows it. It comes from anywhere but
/// the command line, which every user of the machine can read.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// From a program that has it already.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The first line of standard input.
    ///
    /// # Errors
    /// If nothing can be read.
    pub fn from_stdin() -> io::Result<Self> {
        let mut line = Self(String::new());
        io::stdin().lock().read_line(&mut line.0)?;
        Ok(line.trimmed())
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self(fs::read_to_string(path)?).trimmed())
    }

    /// What somebody types on the console, which does not show it (Windows).
    ///
    /// # Errors
    /// If there is no console.
    #[cfg(windows)]
    pub fn ask(prompt: &str) -> io::Result<Self> {
        crate::sys::ask(prompt).map(|line| Self(line).trimmed())
    }

    /// A variable of this process's environment. `None` if there is none of that name, or it is no text.
    pub fn from_env(name: &str) -> Option<Self> {
        std::env::var(name).ok().map(Self)
    }

    #[cfg(windows)]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    fn trimmed(mut self) -> Self {
        let end = self.0.find(['\r', '\n']).unwrap_or(self.0.len());
        Self(self.0.drain(..end).collect())
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        // Bytes of zero are text; the barrier keeps the compiler from leaving out a write that nobody reads.
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
