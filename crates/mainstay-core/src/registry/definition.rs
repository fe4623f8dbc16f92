//! Service definitions: everything that determines an installed service, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::manifest::Format;

/// A definition as it is stored. Equal definitions have the same [`Etag`].
///
/// The manifest may contain secrets. `Debug` omits it; use [`masked`](crate::manifest::masked) to
/// display it.
#[derive(Clone, PartialEq, Eq)]
pub struct Definition {
    /// The text of the manifest, including its other services.
    pub manifest: String,
    /// The format of the manifest.
    pub format: Format,
    /// The absolute directory to which relative paths of the manifest refer.
    pub base_dir: String,
    /// The name of the service manager.
    pub manager: String,
    /// `hosted` or `direct`.
    pub mode: String,
    /// Set for a service of a user instead of the machine.
    pub user: bool,
    /// Set if the service manager, where it supports it, runs the service in a sandbox.
    pub sandbox: bool,
}

impl Definition {
    /// Computes the entity tag: SHA-256 over a label of this format and all fields, each preceded
    /// by its length (64 bits, big endian).
    pub fn etag(&self) -> Etag {
        let flag = |it: bool| if it { "1" } else { "0" };
        Etag(sha256(&[
            "mainstay definition 1",
            &self.manifest,
            self.format.name(),
            &self.base_dir,
            &self.manager,
            &self.mode,
            flag(self.user),
            flag(self.sandbox),
        ]))
    }

    /// Returns the digest of the part of the definition that the service's host is started with.
    pub fn text_digest(&self) -> TextDigest {
        TextDigest::of(&self.manifest, self.format, &self.base_dir, None)
    }
}

/// Computes SHA-256 over the fields, each preceded by its length (64 bits, big endian), as 64
/// hexadecimal digits.
fn sha256(fields: &[&str]) -> String {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    let bytes = hash.finalize().into_iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let etag = self.etag();
        f.debug_tuple("Definition").field(&etag.as_str()).finish()
    }
}

/// A unique identifier of a definition's contents: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// Returns the tag as it is displayed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Restores a stored tag.
impl From<String> for Etag {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A unique identifier of the text that a host runs: 64 hexadecimal digits.
///
/// The supervisor of a service has this part of the definition. Only the registry also has the
/// installation options, which an [`Etag`] covers as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TextDigest(String);

impl TextDigest {
    /// Computes SHA-256 over a label of this format, the text of the manifest, its format, its base
    /// directory and, if any, the artifact that the service runs from.
    pub fn of(manifest: &str, format: Format, base_dir: &str, artifact: Option<&str>) -> Self {
        let text = ["mainstay text 1", manifest, format.name(), base_dir];
        let fields: Vec<&str> = text.into_iter().chain(artifact).collect();
        Self(sha256(&fields))
    }

    /// Returns the digest as it is displayed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        Definition {
            manifest: "[service.a]\ncommand = [\"a\"]\nenv = { KEY = \"s3cret\" }\n".to_owned(),
            format: Format::Toml,
            base_dir: "/srv".to_owned(),
            manager: "systemd".to_owned(),
            mode: "hosted".to_owned(),
            user: false,
            sandbox: true,
        }
    }

    /// Etags are stored and compared with those that clients have saved, so they must never change.
    #[test]
    fn an_etag_stays_what_it_is() {
        let expect = "b938bab8dcc8bd2877f34b74e8b428eadbbaffb2f9874d6261acc9488f963fa8";
        assert_eq!(definition().etag().as_str(), expect);
    }

    #[test]
    fn each_part_counts() {
        let mut seen = vec![definition().etag()];
        let changes: [fn(&mut Definition); 8] = [
            |it| it.manifest.push('\n'),
            |it| it.format = Format::Yaml,
            |it| it.base_dir = "/srv2".to_owned(),
            |it| it.manager = "openrc".to_owned(),
            |it| it.mode = "direct".to_owned(),
            |it| it.user = true,
            |it| it.sandbox = false,
            // Text that moves from one field to the next changes the definition.
            |it| {
                it.manager = "systemdh".to_owned();
                it.mode = "osted".to_owned();
            },
        ];
        for change in changes {
            let mut changed = definition();
            change(&mut changed);
            let etag = changed.etag();
            assert!(!seen.contains(&etag), "{etag:?}");
            seen.push(etag);
        }
    }

    /// Text digests are stored as well, and compared with those of hosts of other versions.
    #[test]
    fn a_digest_of_text_stays_what_it_is_and_is_of_the_text_alone() {
        let known = definition().text_digest();
        assert_eq!(
            known.as_str(),
            "bc0c5d5a87c58847387f9e363348462c75784f7e4424956e17682bb85a7d97cd"
        );
        let digest = |it: Definition| it.text_digest();
        let manager = "embedded".to_owned();
        let user = true;
        let elsewhere = Definition {
            manager,
            user,
            ..definition()
        };
        assert_eq!(digest(elsewhere), known);
        let base_dir = "/srv2".to_owned();
        assert_ne!(
            digest(Definition {
                base_dir,
                ..definition()
            }),
            known
        );
        let format = Format::Yaml;
        assert_ne!(
            digest(Definition {
                format,
                ..definition()
            }),
            known
        );
        let manifest = String::new();
        assert_ne!(
            digest(Definition {
                manifest,
                ..definition()
            }),
            known
        );
        let Definition {
            manifest,
            format,
            base_dir,
            ..
        } = definition();
        let of = |artifact| TextDigest::of(&manifest, format, &base_dir, artifact);
        assert_eq!(of(None), known);
        assert!(![known, of(Some("b"))].contains(&of(Some("a"))));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", definition()).contains("s3cret"));
    }
}
