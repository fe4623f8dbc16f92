//! Detection of files of other tools.

use std::fmt;

/// A tool whose files are recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of tools")]
pub enum Tool {
    Systemd,
    Supervisord,
    Compose,
    Kubernetes,
    Pm2,
    Procfile,
    Winsw,
    Servy,
    Launchd,
    Smf,
    Nssm,
    OpenRc,
    InitScript,
    Upstart,
    Dockerfile,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Systemd => "a systemd unit",
            Self::Supervisord => "a supervisord configuration",
            Self::Compose => "a Docker Compose file",
            Self::Kubernetes => "a Kubernetes object",
            Self::Pm2 => "a pm2 ecosystem file",
            Self::Procfile => "a Procfile",
            Self::Winsw => "a WinSW configuration",
            Self::Servy => "a Servy configuration",
            Self::Launchd => "a launchd property list",
            Self::Smf => "an SMF manifest",
            Self::Nssm => "an NSSM script",
            Self::OpenRc => "an OpenRC service script",
            Self::InitScript => "an init script",
            Self::Upstart => "an Upstart job",
            Self::Dockerfile => "a Dockerfile",
        })
    }
}

/// Detects the tool that a file belongs to, by its content and, if that is ambiguous, its name.
/// Only for text that is not a valid manifest.
pub fn tool_of(file_name: &str, text: &str) -> Option<Tool> {
    const LINES: usize = 400;
    let lines = || {
        text.trim_start_matches('\u{feff}')
            .lines()
            .take(LINES)
            .map(str::trim)
    };
    let has_line = |is: &dyn Fn(&str) -> bool| lines().any(is);
    let has = |needle: &str| has_line(&|line| line.contains(needle));
    let starts = |needle: &str| has_line(&|line| line.starts_with(needle));
    let name = file_name.to_ascii_lowercase();
    let is_named = |suffix: &str| name.ends_with(suffix);
    let first = lines().find(|line| !line.is_empty()).unwrap_or_default();
    let has_key = |key: &str| has_line(&|line| begins_with_key(line, key));
    if first.starts_with("#!") && first.contains("openrc-run") {
        return Some(Tool::OpenRc);
    }
    if has("### BEGIN INIT INFO") {
        return Some(Tool::InitScript);
    }
    if first.starts_with('<') || is_named(".plist") || is_named(".xml") {
        if has("<plist") || has("PropertyList") || is_named(".plist") {
            return Some(Tool::Launchd);
        }
        if has("<ServiceDto") {
            return Some(Tool::Servy);
        }
        if has("<service_bundle") {
            return Some(Tool::Smf);
        }
        return (has("<service>") || has("<service ")).then_some(Tool::Winsw);
    }
    let mut supervisord = "[program: [supervisord] [eventlistener: [fcgi-program: \
                           [unix_http_server] [supervisorctl]"
        .split(' ');
    if supervisord.any(starts) {
        return Some(Tool::Supervisord);
    }
    let mut sections = "[Unit] [Service] [Install] [Socket] [Timer]".split(' ');
    let mut units = ".service .socket .timer .target .mount .path .slice".split(' ');
    if sections.any(starts) || units.any(is_named) && has("=") {
        return Some(Tool::Systemd);
    }
    let mut scripts = ".config.js .config.cjs .config.mjs".split(' ');
    if scripts.any(is_named)
        || has("module.exports") && has("apps")
        || has_key("apps") && (has_key("script") || has("script") || has("exec_mode"))
    {
        return Some(Tool::Pm2);
    }
    if has_key("apiVersion") && has_key("kind") {
        return Some(Tool::Kubernetes);
    }
    let mut compose = "image build ports volumes container_name depends_on".split(' ');
    if has_key("services") && compose.any(has_key) {
        return Some(Tool::Compose);
    }
    if has_line(&|line| {
        line.starts_with("nssm ") || line.contains("nssm.exe ") || line.contains("nssm install ")
    }) {
        return Some(Tool::Nssm);
    }
    if name == "dockerfile" || is_named(".dockerfile") {
        return Some(Tool::Dockerfile);
    }
    if name == "procfile" || name.starts_with("procfile.") || is_procfile(lines()) {
        return Some(Tool::Procfile);
    }
    let upstart = ["start on ", "respawn", "exec ", "stop on "];
    (is_named(".conf") && upstart.into_iter().filter(|word| starts(word)).count() >= 2)
        .then_some(Tool::Upstart)
}

/// Returns whether a line begins with this key, in YAML or in JSON-like text with any quotes.
fn begins_with_key(line: &str, key: &str) -> bool {
    let bare = line.trim_start_matches([' ', '\t', '{', '"', '\'']);
    let rest = bare
        .strip_prefix(key)
        .map(|rest| rest.trim_start_matches(['"', '\'']));
    rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// Returns whether the file consists of `web: command` lines, with commands that are not YAML
/// values.
fn is_procfile<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let mut count = 0;
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, command)) = line.split_once(':') else {
            return false;
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let command = command.trim();
        let is_command = command.contains([' ', '/']) && !command.starts_with(['"', '{', '[', '/']);
        if name.is_empty() || !name.chars().all(is_name) || !is_command {
            return false;
        }
        count += 1;
    }
    count > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_tools_are_recognised() {
        use Tool::*;
        for (name, text, expect) in [
            (
                "a.service",
                "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/x\n",
                Some(Systemd),
            ),
            (
                "<stdin>",
                "# x\n[Service]\nExecStart=/bin/x\n",
                Some(Systemd),
            ),
            (
                "a.ini",
                "[program:web]\ncommand=/bin/x\n",
                Some(Supervisord),
            ),
            (
                "compose.yaml",
                "services:\n  web:\n    image: nginx\n",
                Some(Compose),
            ),
            ("a.yaml", "apiVersion: v1\nkind: Pod\n", Some(Kubernetes)),
            (
                "p.json",
                "{ \"apps\": [{ \"script\": \"a.js\" }] }",
                Some(Pm2),
            ),
            (
                "ecosystem.config.js",
                "module.exports = {\n  apps: [{\n    script: 'a.js' }] }",
                Some(Pm2),
            ),
            (
                "<stdin>",
                "module.exports = { apps: [{ script: 'a.js' }] }",
                Some(Pm2),
            ),
            ("ecosystem.config.cjs", "require('./apps')", Some(Pm2)),
            ("Procfile", "web: bundle exec puma\n", Some(Procfile)),
            (
                "-",
                "web: bundle exec puma\nworker: bin/x y\n",
                Some(Procfile),
            ),
            ("a.xml", "<service>\n<id>a</id>\n</service>", Some(Winsw)),
            ("a.xml", "<?xml version=\"1\"?>\n<ServiceDto>", Some(Servy)),
            (
                "a.xml",
                "<?xml version=\"1.0\"?>\n<service_bundle type='manifest' name='a'>\n<service \
                 name='a'>",
                Some(Smf),
            ),
            (
                "a.plist",
                "<?xml version=\"1.0\"?>\n<!DOCTYPE plist>\n<plist>",
                Some(Launchd),
            ),
            ("install.bat", "nssm install a C:\\a.exe\n", Some(Nssm)),
            ("a", "#!/sbin/openrc-run\ncommand=/bin/x\n", Some(OpenRc)),
            ("a", "#!/bin/sh\n### BEGIN INIT INFO\n", Some(InitScript)),
            (
                "a.conf",
                "start on runlevel [2345]\nrespawn\nexec /bin/x\n",
                Some(Upstart),
            ),
            ("Dockerfile", "FROM x\n", Some(Dockerfile)),
            // Manifests with errors.
            ("a.toml", "[service.a]\ncomand = [\"x\"]\n", None),
            ("a.yaml", "service:\n  web:\n    image: nginx\n", None),
            ("a.json", "{ \"service\": {} }", None),
            ("a.toml", "", None),
            ("a.yaml", "name: x\n", None),
        ] {
            assert_eq!(tool_of(name, text), expect, "{name}: {text}");
        }
    }
}
