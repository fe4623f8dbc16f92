//! The list of components, in the format of CycloneDX. See
//! <https://cyclonedx.org/docs/1.5/json/>.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::{Dist, NAME, text_of};
use crate::{Result, cargo, root};

/// The package of the program.
const PACKAGE: &str = "mainstay-cli";

/// Writes `mainstay-VERSION-TARGET.cdx.json`: every crate that is linked into the program.
pub(super) fn write(dist: &Dist, target: &str) -> Result<()> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", PACKAGE, "--target", target])
        .args(["--edges=normal,no-proc-macro", "--prefix=none"])
        .args(["--format={p}\t{l}"]);
    let tree = text_of(&mut tree)?;
    let checksums = checksums()?;
    // A crate that has been listed before is followed by `(*)`.
    let lines: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    let mut components = Vec::new();
    let mut program = Value::Null;
    for line in lines {
        let (package, license) = line.split_once('\t').ok_or("cargo tree: no license")?;
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            return Err(format!("cargo tree: {line}").into());
        };
        let version = version.trim_start_matches('v');
        let reference = format!("pkg:cargo/{name}@{version}");
        let mut component = json!({
            "type": if name == PACKAGE { "application" } else { "library" },
            "bom-ref": reference,
            "name": name,
            "version": version,
            "purl": reference,
            // Some crates use the older way to write "or".
            "licenses": [{"expression": license.replace('/', " OR ")}],
        });
        if let Some(checksum) = checksums.get(&reference) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        if name == PACKAGE {
            program = component;
        } else {
            components.push(component);
        }
    }
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": program},
        "components": components,
    });
    let name = format!("{NAME}-{}-{target}.cdx.json", dist.version);
    let text = serde_json::to_string_pretty(&document)? + "\n";
    Ok(fs::write(dist.out.join(name), text)?)
}

/// Returns the checksums in the lock file, by reference.
fn checksums() -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(root().join("Cargo.lock"))?;
    let checksum = |package: &str| {
        let value = |key: &str| {
            let mut lines = package.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(value.trim_matches('"').to_owned())
        };
        let reference = format!("pkg:cargo/{}@{}", value("name")?, value("version")?);
        Some((reference, value("checksum")?))
    };
    Ok(text.split("[[package]]").filter_map(checksum).collect())
}
