//! The text of a first manifest, with comments for the person who completes it.

use super::directory::{Directory, has};
use super::found::Found;
use crate::manifest::diagnostic::Shown;
use crate::manifest::write::{toml_key, toml_string};

/// The column at which remarks begin, where the key leaves room.
const REMARKS: usize = 56;

const HEAD: &str = "\
# Written by `mainstay init`. Next: `mainstay check`, then `mainstay run`, then `mainstay install`.
# Remove the `#` before a key to set it. All keys: `mainstay schema`.

";

/// Returns the manifest of these services.
pub(super) fn manifest(services: &[&Found], dir: &impl Directory, base: Option<&str>) -> String {
    let mut text = HEAD.to_owned();
    text += &environment();
    for (at, found) in services.iter().enumerate() {
        text.push('\n');
        text += &comment(&found.source);
        for remark in &found.remarks {
            text += &comment(remark);
        }
        text += &format!("[service.{}]\n", found.name);
        text += &service(found, base);
        if at == 0 {
            let env_file = has(dir, ".env").then_some(".env");
            text += &suggestions(env_file, base);
        }
    }
    text
}

/// Returns the manifest for a directory in which nothing was found.
pub(super) fn skeleton(name: &str) -> String {
    let command = key(
        "command = [\"./my-program\", \"--option\"]",
        "replace it; no shell, one string each",
    );
    let ready = key(
        "# start = { ready = { tcp = \"127.0.0.1:8080\" } }",
        "readiness; also http, log, exec, notify",
    );
    let environment = environment();
    let more = suggestions(None, None);
    format!(
        "{HEAD}{environment}\n# No program was found here.\n[service.{name}]\n{command}{ready}{more}"
    )
}

/// Returns the key for all services, as a comment.
fn environment() -> String {
    key(
        "# environment = \"development\"",
        "relaxes limits; the default is production",
    )
}

/// Returns the keys of one service.
fn service(found: &Found, base: Option<&str>) -> String {
    let mut command = found.command.clone();
    let mut text = String::new();
    if let (Some(base), Some(program)) = (base, command.first_mut()) {
        // A path is relative to the manifest, which is elsewhere.
        if program.contains('/') && !program.starts_with('/') {
            *program = below(base, program.strip_prefix("./").unwrap_or(program));
        }
    }
    let words: Vec<String> = command.iter().map(|word| toml_string(word)).collect();
    text += &format!("command = [{}]\n", words.join(", "));
    if let Some(base) = base {
        text += &format!("working_dir = {}\n", toml_string(base));
    }
    if !found.env.is_empty() {
        let values = found.env.iter().map(|(name, value)| {
            let value = value.replace("${", "$${");
            format!("{} = {}", toml_key(name), toml_string(&value))
        });
        text += &format!("env = {{ {} }}\n", values.collect::<Vec<_>>().join(", "));
    }
    text + &match (found.port, found.likely_port, &found.path) {
        (Some(port), _, Some(path)) => {
            let url = toml_string(&format!("http://localhost:{port}{path}"));
            key(
                &format!("start = {{ ready = {{ http = {url} }} }}"),
                "ready when it answers",
            )
        }
        (Some(port), _, None) => key(
            &format!("start = {{ ready = {{ tcp = \"localhost:{port}\" }} }}"),
            "ready when the port is open",
        ),
        (None, port, _) => key(
            &format!(
                "# start = {{ ready = {{ tcp = \"localhost:{}\" }} }}",
                port.unwrap_or(8080)
            ),
            match port {
                Some(_) => "readiness; this seems to be its port",
                None => "readiness; also http, log, exec, notify",
            },
        ),
    }
}

/// Returns the keys that an operator considers next, as comments.
fn suggestions(env_file: Option<&str>, base: Option<&str>) -> String {
    let mut text = key(
        "# liveness = { every = \"10s\", misses = 3 }",
        "restarts it if the probe of `start` fails",
    );
    if let Some(file) = env_file {
        let path = base.map_or(file.to_owned(), |base| below(base, file));
        text += &key(
            &format!("# env_file = {}", toml_string(&path)),
            "variables; read at each start",
        );
    }
    text += &key("# account = \"user:NAME\"", "the account to run as");
    text += &key(
        "# log = { rotate = \"10MB\", keep = 8 }",
        "the default; read it with `mainstay logs`",
    );
    text + &key(
        "# recovery = { policy = \"restart\" }",
        "the default; or \"strict\", \"never\"",
    )
}

fn below(base: &str, path: &str) -> String {
    let separator = if base.contains('\\') { '\\' } else { '/' };
    format!("{}{separator}{path}", base.trim_end_matches(separator))
}

/// Returns a line with a remark at its end.
fn key(key: &str, remark: &str) -> String {
    format!("{key:REMARKS$} # {remark}\n")
}

/// Returns a comment line. The text may come from a file.
fn comment(text: &str) -> String {
    format!("# {}\n", Shown(text))
}
