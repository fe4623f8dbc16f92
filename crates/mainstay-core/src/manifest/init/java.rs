//! Java: the archive that Maven or Gradle builds, or archives in the directory.

use super::directory::{Directory, EntryKind, first_text};
use super::found::{Found, Kind};
use super::text::port_after;

/// The port on which Spring Boot listens by default.
const SPRING_PORT: u16 = 8080;

/// Returns the program that the build file describes, or one for each archive.
pub(super) fn find(dir: &impl Directory) -> Vec<Found> {
    if let Some(text) = dir.text("pom.xml") {
        return vec![maven(dir, &text)];
    }
    match first_text(dir, ["build.gradle", "build.gradle.kts"]) {
        Some((file, text)) => vec![gradle(dir, file, &text)],
        None => archives(dir, "").iter().map(|jar| archive(jar)).collect(),
    }
}

fn maven(dir: &impl Directory, text: &str) -> Found {
    // The elements of the project itself precede or follow those of others.
    let own = [
        "parent",
        "dependencies",
        "dependencyManagement",
        "build",
        "profiles",
    ];
    let own = own
        .iter()
        .fold(text.to_owned(), |text, tag| without(&text, tag));
    let name = element(&own, "artifactId").unwrap_or(dir.name());
    // The version may be that of the parent.
    let version = element(&own, "version").or_else(|| element(text, "version"));
    let stem = element(text, "finalName").filter(|it| !it.contains('$'));
    let stem = stem.map_or_else(|| joined(name, version), str::to_owned);
    let command = jar(dir, "target", &stem);
    let found = Found::new(Kind::Java, name, "pom.xml", command);
    spring(dir, found.remark("build it first: mvn package"), text)
}

fn gradle(dir: &impl Directory, file: &str, text: &str) -> Found {
    let settings = first_text(dir, ["settings.gradle", "settings.gradle.kts"]);
    let name = settings
        .as_ref()
        .and_then(|(_, text)| quoted(text, "rootProject.name"));
    let name = name.unwrap_or(dir.name());
    let command = jar(dir, "build/libs", &joined(name, quoted(text, "version")));
    let found = Found::new(Kind::Java, name, file, command);
    spring(dir, found.remark("build it first: gradle build"), text)
}

/// Adds the port of a Spring Boot application and the path of its health endpoint.
fn spring(dir: &impl Directory, found: Found, build: &str) -> Found {
    if !build.contains("spring-boot") && !build.contains("org.springframework.boot") {
        return found;
    }
    let files = [
        "application.properties",
        "application.yml",
        "application.yaml",
    ];
    let files = files.map(|file| format!("src/main/resources/{file}"));
    let settings = first_text(dir, files.iter().map(String::as_str));
    let settings = settings.map(|(_, text)| text).unwrap_or_default();
    let port = port_after(&settings, "server.port=").or_else(|| {
        let (_, server) = settings.split_once("server:")?;
        port_after(server, "port:")
    });
    let path = build
        .contains("actuator")
        .then(|| "/actuator/health".to_owned());
    let found = found.listening(port.unwrap_or(SPRING_PORT));
    Found { path, ..found }
}

fn archive(name: &str) -> Found {
    let stem = name.strip_suffix(".jar").unwrap_or(name);
    Found::new(Kind::Java, stem, name, ["java", "-jar", name])
}

/// Returns the command for the archive in a directory, or for the one that will be there.
fn jar(dir: &impl Directory, place: &str, stem: &str) -> [String; 3] {
    let built = archives(dir, place);
    let name = match &built[..] {
        [one] => one.clone(),
        _ => format!("{stem}.jar"),
    };
    [
        "java".to_owned(),
        "-jar".to_owned(),
        format!("{place}/{name}"),
    ]
}

/// Returns the archives in a directory that are programs.
fn archives(dir: &impl Directory, place: &str) -> Vec<String> {
    let is_extra = |stem: &str| {
        let ends = ["-sources", "-javadoc", "-plain", "-tests"];
        stem.starts_with("original-") || ends.iter().any(|end| stem.ends_with(end))
    };
    let entries = dir.entries(place).into_iter();
    let files = entries.filter(|it| it.kind != EntryKind::Directory);
    let jars = files.filter(|it| it.name.strip_suffix(".jar").is_some_and(|it| !is_extra(it)));
    jars.map(|it| it.name).collect()
}

fn joined(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) if !version.contains('$') => format!("{name}-{version}"),
        _ => name.to_owned(),
    }
}

/// Returns the text of the first element of this name.
fn element<'a>(xml: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
    let (text, _) = rest.split_once(&format!("</{tag}>"))?;
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// Removes the first element of this name.
fn without(xml: &str, tag: &str) -> String {
    let cut = xml.split_once(&format!("<{tag}>"));
    let cut =
        cut.and_then(|(before, rest)| Some((before, rest.split_once(&format!("</{tag}>"))?.1)));
    cut.map_or_else(
        || xml.to_owned(),
        |(before, after)| format!("{before}{after}"),
    )
}

/// Returns the quoted value that is assigned to `key` at the start of a line.
fn quoted<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(key)?;
        let rest = rest.trim_start_matches([' ', '=']);
        let quote = rest.chars().next().filter(|it| matches!(it, '\'' | '"'))?;
        rest.get(1..)?.split(quote).next()
    })
}
