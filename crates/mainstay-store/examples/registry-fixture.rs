//! Writes a registry in the current version of the schema to PATH, which must not exist: a service
//! whose update was rolled back, and a deleted one. `cargo xtask registry-fixture` runs it.

use std::path::{Path, PathBuf};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::Format;
use mainstay_core::registry::{Definition, Expected};
use mainstay_core::spec::ServiceName;
use mainstay_store::registry::{ChangeRequest, Registry, Remains, Work};

fn main() -> Result<(), Failure> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.ok_or_else(|| Failure::new(Code::Usage, "no PATH"))?;
    for (service, text) in [("db", "one"), ("db", "two"), ("web", "web")] {
        begin(&path, service, Some(text))?.commit(&[None])?;
    }
    begin(&path, "web", None)?.delete(Remains::Keep)?;
    begin(&path, "db", Some("three"))?.roll_back("the service was not ready")
}

fn begin(path: &Path, service: &str, text: Option<&str>) -> Result<Work, Failure> {
    let request = ChangeRequest {
        name: ServiceName::new(service).expect("a valid name"),
        expected: Expected::Any,
        definition: text.map(definition),
    };
    Ok(Registry::open(path)?.begin(&[request])?)
}

fn definition(text: &str) -> Definition {
    Definition {
        manifest: text.to_owned(),
        format: Format::Toml,
        base_dir: "/srv".to_owned(),
        manager: "systemd".to_owned(),
        mode: "hosted".to_owned(),
        user: false,
        sandbox: true,
    }
}
