//! What is installed: all that decides what a service is, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::manifest::Format;

/// A definition as it is stored. Two that are equal have one [`Etag`].
///
/// Its manifest may hold secrets: `Debug` leaves it out, and [`masked`](crate::manifest::masked) is what may be shown of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Definition {
    /// The text of the manifest, with its other services.
    pub manifest: String,
    /// Its language.
    pub format: Format,
    /// What its relative paths are relative to; absolute.
    pub base_dir: String,
    /// The name of the service manager.
    pub manager: String,
    /// `hosted` or `direct`.
    pub mode: String,
    /// It is a service of a user, not of the machine.
    pub user: bool,
    /// Its manager puts it into a sandbox, where it has one.
    pub sandbox: bool,
}

impl Definition {
    /// The entity tag: SHA-256 over a name of this form and all fields, each after its length (64 bits, big endian).
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

    /// Of what of it its host is started with.
    pub fn text_digest(&self) -> TextDigest {
        TextDigest::of(&self.manifest, self.format, &self.base_dir, None)
    }
}

/// SHA-256 over the fields, each after its length (64 bits, big endian), as 64 hexadecimal digits.
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

/// Tells a definition from every other: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// As it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As it was stored.
impl From<String> for Etag {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Tells what a host runs from all else that it could run: 64 hexadecimal digits. Whoever supervises a service knows this much of its
/// definition; how it was installed, which an [`Etag`] covers as well, only the registry knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TextDigest(String);

impl TextDigest {
    /// SHA-256 over a name of this form, the text of the manifest, its language, what its relative paths are relative to, and the artifact
    /// that it runs from, where there is one.
    pub fn of(manifest: &str, format: Format, base_dir: &str, artifact: Option<&str>) -> Self {
        let text = ["mainstay text 1", manifest, format.name(), base_dir];
        let fields: Vec<&str> = text.into_iter().chain(artifact).collect();
        Self(sha256(&fields))
    }

    /// As it is shown.
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

    /// Etags are stored and compared with what clients have kept: they may never change.
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
            // Text that moves from one field to the next is another definition.
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

    /// They are stored, too, and compared with those of hosts of another version.
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
