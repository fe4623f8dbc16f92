//! The RPM package. See <https://rpm-software-management.github.io/rpm/manual/spec.html>.

use std::fs;

use super::payload::{Layout, Payload};
use super::program::Program;
use super::{Dist, HOMEPAGE, LICENSE, MAINTAINER, NAME, fill, succeed};
use crate::Result;

pub(super) fn file_name(version: &str) -> String {
    format!("{NAME}-{version}-1.x86_64.rpm")
}

/// Writes `mainstay-VERSION-1.x86_64.rpm`.
pub(super) fn package(dist: &Dist, program: &Program) -> Result<()> {
    let layout = Layout {
        top: "usr/",
        bin: "/usr/bin",
        zsh: "share/zsh/site-functions",
        licenses: "share/licenses/mainstay",
    };
    let name = file_name(&dist.version);
    let payload = Payload::collect(dist, &name, program, &layout)?;
    let line = |path: String| {
        let kind = match path.as_str() {
            path if path.starts_with("usr/share/licenses/") => "%license ",
            path if path.starts_with("usr/share/doc/") => "%doc ",
            _ => "",
        };
        format!("{kind}/{path}")
    };
    let files: Vec<String> = payload.files()?.into_iter().map(line).collect();
    let top = dist.scratch(&format!("rpmbuild-{}", dist.version))?;
    let spec = fill(
        include_str!("templates/mainstay.spec"),
        &[
            ("VERSION", &dist.version),
            ("LICENSE", LICENSE),
            ("HOMEPAGE", HOMEPAGE),
            ("MAINTAINER", MAINTAINER),
            ("DATE", &dist.date("%a %b %d %Y")?),
            ("PAYLOAD", &payload.root.to_string_lossy()),
            ("FILES", &files.join("\n")),
        ],
    );
    let spec_path = top.join("mainstay.spec");
    fs::write(&spec_path, spec)?;
    let mut rpmbuild = dist.tool("rpmbuild");
    rpmbuild
        .args(["-bb", "--quiet", "--target=x86_64"])
        .arg(format!("--define=_topdir {}", top.display()))
        .arg(spec_path);
    succeed(&mut rpmbuild)?;
    fs::copy(top.join("RPMS/x86_64").join(&name), dist.out.join(&name))?;
    Ok(())
}
