//! Python: web applications of Django, FastAPI, Flask and their like, else a script or a module.

use super::directory::{Directory, has, subdirectories};
use super::found::{Found, Kind};
use super::text::{assigned, port_after};
use crate::manifest::tree::{Node, Value};
use crate::manifest::{Findings, Format, Platform, read};

/// The port that web servers are given.
const PORT: u16 = 8000;
/// Scripts in the order in which they are looked for.
const SCRIPTS: [&str; 6] = [
    "app.py",
    "main.py",
    "server.py",
    "asgi.py",
    "wsgi.py",
    "run.py",
];
/// Frameworks by the class of their application.
const ASGI: [&str; 5] = ["FastAPI", "Starlette", "Quart", "Litestar", "Sanic"];
const WSGI: [&str; 3] = ["Flask", "Bottle", "Falcon"];

/// Returns the program of a Python project, if this is one.
pub(super) fn find(dir: &impl Directory, platform: Platform) -> Option<Found> {
    let project = Project::read(dir, platform);
    let found = django(dir, &project).or_else(|| web(dir, &project));
    let found = found
        .or_else(|| script(dir, &project))
        .or_else(|| module(dir, &project));
    // Output to a pipe is buffered, and reaches the log late.
    found.map(|it| it.with_env("PYTHONUNBUFFERED", "1"))
}

/// The parts of a project on which its command depends.
struct Project {
    name: String,
    /// The names of the packages that it requires, and whatever follows them.
    requirements: String,
    /// The scripts of `pyproject.toml`.
    scripts: Vec<String>,
    interpreter: &'static str,
    /// The directory of the programs of the virtual environment.
    programs: &'static str,
}

impl Project {
    fn read(dir: &impl Directory, platform: Platform) -> Self {
        let text = dir.text("pyproject.toml").unwrap_or_default();
        let mut findings = Findings::default();
        let tree = read(&text, Format::Toml, &mut findings);
        let tables = [&["project"][..], &["tool", "poetry"]];
        let tables = tables.map(|path| {
            path.iter()
                .try_fold(tree.as_ref()?, |node, key| node.at(key))
        });
        let name = tables
            .iter()
            .flatten()
            .find_map(|it| match &it.at("name")?.value {
                Value::Text(name) => Some(name.to_string()),
                _ => None,
            });
        let scripts = tables
            .iter()
            .flatten()
            .filter_map(|it| keys(it.at("scripts")?))
            .flatten();
        let (interpreter, programs) = interpreter(dir, platform);
        let requirements = dir.text("requirements.txt").unwrap_or_default();
        Self {
            name: name.unwrap_or_else(|| dir.name().to_owned()),
            scripts: scripts.collect(),
            requirements: (requirements + &text).to_ascii_lowercase(),
            interpreter,
            programs,
        }
    }

    fn requires(&self, package: &str) -> bool {
        self.requirements.contains(package)
    }

    /// Returns a process that runs a module: `python -m MODULE …`.
    fn module(&self, source: &str, module: &str, args: &[&str]) -> Found {
        let command = [&[self.interpreter, "-m", module], args].concat();
        Found::new(Kind::Python, &*self.name, source, command)
    }
}

/// Returns the interpreter of the virtual environment, or that of the system, and the directory of
/// the programs.
fn interpreter(dir: &impl Directory, platform: Platform) -> (&'static str, &'static str) {
    let places = match platform {
        Platform::Unix => [
            (".venv/bin/python", ".venv/bin/"),
            ("venv/bin/python", "venv/bin/"),
        ],
        Platform::Windows => [
            (".venv/Scripts/python.exe", ".venv/Scripts/"),
            ("venv/Scripts/python.exe", "venv/Scripts/"),
        ],
    };
    let found = places.into_iter().find(|(path, _)| has(dir, path));
    found.unwrap_or(match platform {
        Platform::Unix => ("python3", ""),
        Platform::Windows => ("python", ""),
    })
}

fn django(dir: &impl Directory, project: &Project) -> Option<Found> {
    let text = dir.text("manage.py")?;
    let (_, after) = text.split_once("DJANGO_SETTINGS_MODULE")?;
    let mut quoted = after.trim_start_matches(['\'', '"']).split(['\'', '"']);
    let settings = quoted.find(|part| part.contains(".settings"))?;
    let (package, _) = settings.split_once(".settings")?;
    let address = format!("127.0.0.1:{PORT}");
    let source = "manage.py";
    let found = if project.requires("gunicorn") {
        let app = format!("{package}.wsgi:application");
        project.module(source, "gunicorn", &["--bind", &address, &app])
    } else if project.requires("uvicorn") {
        let app = format!("{package}.asgi:application");
        let port = PORT.to_string();
        project.module(
            source,
            "uvicorn",
            &[&app, "--host", "127.0.0.1", "--port", &port],
        )
    } else {
        let command = [
            project.interpreter,
            "manage.py",
            "runserver",
            "--noreload",
            &address,
        ];
        Found::new(Kind::Python, &*project.name, source, command)
            .remark("runserver is for development; use gunicorn in production")
    };
    Some(found.listening(PORT))
}

/// Returns the process of the first application that a module assigns to a name.
fn web(dir: &impl Directory, project: &Project) -> Option<Found> {
    modules(dir).into_iter().find_map(|(path, module)| {
        let text = dir.text(&path)?;
        let named = |classes: &[&str]| {
            let mut all = classes.iter();
            all.find_map(|class| assigned(&text, class).map(|app| format!("{module}:{app}")))
        };
        let port = PORT.to_string();
        let found = if let Some(app) = named(&ASGI) {
            project.module(
                &path,
                "uvicorn",
                &[&app, "--host", "127.0.0.1", "--port", &port],
            )
        } else {
            let app = named(&WSGI)?;
            let address = format!("127.0.0.1:{PORT}");
            if project.requires("gunicorn") {
                project.module(&path, "gunicorn", &["--bind", &address, &app])
            } else if project.requires("waitress") {
                project.module(&path, "waitress", &[&format!("--listen={address}"), &app])
            } else if text.contains("Flask") {
                project
                    .module(&path, "flask", &["--app", &app, "run", "--port", &port])
                    .remark("flask run is for development; use gunicorn in production")
            } else {
                return None;
            }
        };
        Some(found.listening(PORT))
    })
}

/// Returns the files that may define an application, with the names of their modules.
fn modules(dir: &impl Directory) -> Vec<(String, String)> {
    let top = SCRIPTS.iter().map(|file| (*file).to_owned());
    let mut paths: Vec<String> = top.collect();
    for name in subdirectories(dir, "") {
        let names = ["main.py", "app.py", "asgi.py", "wsgi.py", "__init__.py"];
        paths.extend(names.map(|file| format!("{name}/{file}")));
    }
    let module = |path: String| {
        let module = path
            .trim_end_matches(".py")
            .trim_end_matches("/__init__")
            .replace('/', ".");
        (path, module)
    };
    paths.into_iter().map(module).collect()
}

fn script(dir: &impl Directory, project: &Project) -> Option<Found> {
    if let Some(name) = project.scripts.first() {
        let source = format!("pyproject.toml: scripts.{name}");
        let command = [format!("{}{name}", project.programs)];
        return Some(Found::new(Kind::Python, &**name, source, command));
    }
    let (file, text) = SCRIPTS
        .iter()
        .find_map(|file| Some((*file, dir.text(file)?)))?;
    let command = [project.interpreter, file];
    let found = Found::new(Kind::Python, &*project.name, file, command);
    let variables = [
        "environ[\"PORT\"",
        "environ['PORT'",
        "environ.get(\"PORT\"",
        "environ.get('PORT'",
        "getenv(\"PORT\"",
        "getenv('PORT'",
    ];
    let variable = variables.into_iter().find(|it| text.contains(it));
    Some(match variable {
        Some(variable) => found.told_port(port_after(&text, variable).unwrap_or(PORT)),
        None => Found {
            likely_port: port_after(&text, "port="),
            ..found
        },
    })
}

/// Returns the process of a package that can be run.
fn module(dir: &impl Directory, project: &Project) -> Option<Found> {
    let mut packages = subdirectories(dir, "").into_iter();
    let package = packages.find(|name| has(dir, &format!("{name}/__main__.py")))?;
    let source = format!("{package}/__main__.py");
    Some(project.module(&source, &package, &[]))
}

fn keys(node: &Node<'_>) -> Option<Vec<String>> {
    match &node.value {
        Value::Table(entries) => Some(entries.iter().map(|it| it.key.value.to_string()).collect()),
        _ => None,
    }
}
