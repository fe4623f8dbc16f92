//! A process that was found, and how its readiness can be checked.

use serde::Serialize;

/// The kind of the file that describes a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "names of tools")]
pub enum Kind {
    Procfile,
    Node,
    Python,
    Rust,
    Go,
    Java,
    Program,
}

/// A process found in a directory: a service of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The name of the service.
    pub name: String,
    /// The kind of the file that describes the process.
    pub kind: Kind,
    /// The part of which file describes it, such as `package.json: scripts.start`.
    pub source: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The variables that the process needs.
    #[serde(skip)]
    pub(super) env: Vec<(String, String)>,
    /// The port on which the process listens, if it is known for certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path of an HTTP endpoint that answers when the process is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The port on which the process probably listens.
    #[serde(skip)]
    pub(super) likely_port: Option<u16>,
    /// Facts for the reader of the manifest, a line each.
    pub remarks: Vec<String>,
}

impl Found {
    pub(super) fn new<S: Into<String>>(
        kind: Kind,
        name: impl Into<String>,
        source: impl Into<String>,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            source: source.into(),
            command: command.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            port: None,
            path: None,
            likely_port: None,
            remarks: Vec::new(),
        }
    }

    /// Sets the port on which it listens.
    pub(super) fn listening(self, port: u16) -> Self {
        let port = Some(port);
        Self { port, ..self }
    }

    /// Sets the port on which it listens, and passes the port in `PORT`.
    pub(super) fn told_port(self, port: u16) -> Self {
        self.with_env("PORT", port.to_string()).listening(port)
    }

    pub(super) fn with_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remarks.push(remark.into());
        self
    }
}
