//! Go: the programs of a module, in its directory and in `cmd`.

use super::directory::{Directory, subdirectories};
use super::found::{Found, Kind};
use super::text::port_of_address;
use crate::manifest::Platform;

/// Returns the programs of the module.
pub(super) fn find(dir: &impl Directory, platform: Platform) -> Vec<Found> {
    let Some(module) = dir.text("go.mod") else {
        return Vec::new();
    };
    let path = module
        .lines()
        .find_map(|line| line.trim().strip_prefix("module "));
    let path = path.unwrap_or_default().trim().trim_matches('"');
    // The last part of the path of a later version is that version: `example.com/app/v2`.
    let is_version = |part: &str| {
        let digits = part.strip_prefix('v').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit())
    };
    let mut parts = path.rsplit('/').filter(|part| !is_version(part));
    let name = parts
        .next()
        .filter(|it| !it.is_empty())
        .unwrap_or(dir.name());
    let suffix = match platform {
        Platform::Unix => "",
        Platform::Windows => ".exe",
    };
    let program = |name: &str, package: &str, code: &str| {
        let command = [format!("./{name}{suffix}")];
        let found = Found::new(Kind::Go, name, format!("go.mod: {package}"), command);
        Found {
            likely_port: port_of_address(code),
            ..found.remark(format!(
                "build it first: go build -o {name}{suffix} {package}"
            ))
        }
    };
    let main = dir
        .text("main.go")
        .filter(|code| code.contains("package main"));
    let main = main.map(|code| program(name, ".", &code));
    let commands = subdirectories(dir, "cmd").into_iter().filter_map(|name| {
        let code = dir.text(&format!("cmd/{name}/main.go"))?;
        Some(program(&name, &format!("./cmd/{name}"), &code))
    });
    main.into_iter().chain(commands).collect()
}
