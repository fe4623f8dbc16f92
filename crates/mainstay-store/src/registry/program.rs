//! The size, time and hash of a program file at registration.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mainstay_sys::{aside, guarded};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A registered program. It is stored as JSON, so new fields must be optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The path of the file.
    pub path: PathBuf,
    /// The size in bytes.
    size: u64,
    /// The modification time in nanoseconds since 1970. It is text, because JSON numbers lack the
    /// precision.
    modified: String,
    sha256: String,
}

impl Program {
    /// Reads the current state of the file, including all of its content.
    pub fn read(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            size: metadata.len(),
            modified: modified(&metadata),
            sha256: hash(path)?,
        })
    }

    /// Describes the change to the file since registration, if any. The content is only read if the
    /// size or the time differs.
    pub fn change(&self) -> Option<String> {
        let path = self.path.display();
        let place = self.path.clone();
        let look = move || fs::metadata(place);
        let metadata = match aside::wait(path.to_string(), look).flatten() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some(format!("the program {path} is missing"));
            }
            Err(error) => return Some(format!("the program {path} cannot be inspected: {error}")),
        };
        if (metadata.len(), modified(&metadata)) == (self.size, self.modified.clone()) {
            return None;
        }
        let changed = || {
            Some(format!(
                "the program {path} has changed since the installation"
            ))
        };
        if metadata.len() != self.size {
            return changed();
        }
        match hash(&self.path) {
            Ok(hash) if hash == self.sha256 => None,
            Ok(_) => changed(),
            Err(error) => Some(format!("the program {path} cannot be read: {error}")),
        }
    }
}

fn modified(metadata: &fs::Metadata) -> String {
    let at = metadata.modified().ok();
    let since_1970 = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since_1970.unwrap_or_default().as_nanos().to_string()
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = guarded::plain_file(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let hex = hash.finalize().into_iter();
    Ok(hex.map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_another_one_by_what_is_in_it() {
        let sandbox = mainstay_testkit::Sandbox::new();
        let path = sandbox.write("program", "one");
        let program = Program::read(&path).unwrap();
        assert_eq!(program.change(), None);
        let later = |seconds| {
            let at = SystemTime::now() + std::time::Duration::from_secs(seconds);
            fs::File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(at)
                .unwrap();
        };
        // A new timestamp alone is not a change. Different content of the same size is.
        later(10);
        assert_eq!(program.change(), None);
        fs::write(&path, "two").unwrap();
        later(20);
        assert!(program.change().unwrap().contains("has changed"));
        fs::remove_file(&path).unwrap();
        assert!(program.change().unwrap().contains("missing"));
    }
}
