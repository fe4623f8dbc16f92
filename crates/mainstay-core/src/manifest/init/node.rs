//! Node.js: the start script of `package.json`.

use super::directory::{Directory, first_text, has};
use super::found::{Found, Kind};
use super::text::{port_after, port_option, words};
use crate::manifest::tree::Node;
use crate::manifest::{Findings, Format, read};

/// The port on which web frameworks listen by default.
const USUAL_PORT: u16 = 3000;
/// Lock files, and the tools that they belong to.
const TOOLS: [(&str, &str); 4] = [
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("bun.lock", "bun"),
    ("bun.lockb", "bun"),
];
/// Commands of frameworks that listen on `PORT`.
const OBEYS_PORT: [&str; 5] = [
    "next start",
    "nuxt start",
    "remix-serve",
    "react-scripts start",
    ".output/server",
];
/// Frameworks of web servers. The program chooses the port.
const WEB: [&str; 7] = [
    "express",
    "fastify",
    "koa",
    "@hapi/hapi",
    "@nestjs/core",
    "hono",
    "polka",
];

/// Returns the process that `npm start` starts.
pub(super) fn find(dir: &impl Directory) -> Option<Found> {
    let text = dir.text("package.json")?;
    let mut findings = Findings::default();
    let package = read(&text, Format::Json, &mut findings)?;
    let at = |path: &[&str]| text_at(&package, path);
    let (script, source) = match at(&["scripts", "start"]) {
        Some(script) => (script, "package.json: scripts.start"),
        // The default of npm.
        None if has(dir, "server.js") => ("node server.js", "package.json, server.js"),
        None => return None,
    };
    let plain = words(script, None);
    let direct = plain.as_ref().filter(|it| {
        let program = it.words.first().map(String::as_str);
        program == Some("node") && at(&["scripts", "prestart"]).is_none()
    });
    let file = direct.and_then(|it| it.words.iter().skip(1).find(|word| !word.starts_with('-')));
    let command = match direct {
        // Without npm in between, signals and exit codes are those of the program.
        Some(plain) => plain.words.clone(),
        None => {
            let mut tools = TOOLS.iter();
            let tool = tools.find(|(lock, _)| has(dir, lock));
            let (tool, start) = match tool {
                Some((_, "bun")) => ("bun", &["run", "start"][..]),
                Some((_, tool)) => (*tool, &["start"][..]),
                None => ("npm", &["start"][..]),
            };
            [&[tool], start]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect()
        }
    };
    let name = at(&["name"]).and_then(|name| name.rsplit('/').next());
    let name = name.filter(|name| !name.is_empty()).unwrap_or(dir.name());
    let mut found = Found::new(Kind::Node, name, source, command);
    for (name, value) in direct.iter().flat_map(|it| &it.env) {
        found = found.with_env(name, value);
    }
    if let Some(version) = at(&["engines", "node"]) {
        found = found.remark(format!("requires node {version}"));
    }
    let is_web = |name: &&str| {
        package
            .at("dependencies")
            .is_some_and(|it| it.at(name).is_some())
    };
    let framework = WEB.iter().find(|name| is_web(name));
    let main = at(&["main"]).unwrap_or("index.js");
    let file = match file.map(String::as_str) {
        Some("." | "./") => Some(main),
        file => file,
    };
    let code = file.and_then(|file| {
        let file = file.strip_prefix("./").unwrap_or(file);
        let paths = [
            file.to_owned(),
            format!("{file}.js"),
            format!("{file}/index.js"),
        ];
        first_text(dir, paths.iter().map(String::as_str)).map(|(_, text)| text)
    });
    let fixed = plain.as_ref().and_then(|it| {
        let set = it.env.iter().find(|(name, _)| name == "PORT");
        port_option(&it.words).or_else(|| set?.1.parse().ok())
    });
    Some(with_port(found, script, code.as_deref(), fixed, framework))
}

/// Adds the port on which the program listens.
fn with_port(
    found: Found,
    script: &str,
    code: Option<&str>,
    fixed: Option<u16>,
    framework: Option<&&str>,
) -> Found {
    const VARIABLE: &str = "process.env.PORT";
    if let Some(port) = fixed {
        return found.listening(port);
    }
    if OBEYS_PORT.iter().any(|command| script.contains(command)) {
        return found.told_port(USUAL_PORT);
    }
    let code = code.unwrap_or_default();
    if code.contains(VARIABLE) {
        return found.told_port(port_after(code, VARIABLE).unwrap_or(USUAL_PORT));
    }
    match port_after(code, ".listen(") {
        Some(port) => found.listening(port),
        None if framework.is_some() => Found {
            likely_port: Some(USUAL_PORT),
            ..found
        },
        None => found,
    }
}

fn text_at<'a>(node: &'a Node<'_>, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(node, |node, key| node.at(key))?.text()
}
