//! The Debian package. See <https://www.debian.org/doc/debian-policy/>.

use std::fs;

use super::payload::{Layout, Payload};
use super::program::Program;
use super::{Dist, HOMEPAGE, MAINTAINER, NAME, fill, succeed, text_of};
use crate::{Result, root};

/// The scripts that run when the package is installed, removed or purged.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("templates/postinst")),
    ("prerm", include_str!("templates/prerm")),
    ("postrm", include_str!("templates/postrm")),
];

pub(super) fn file_name(version: &str) -> String {
    format!("{NAME}_{version}-1_amd64.deb")
}

/// Writes `mainstay_VERSION-1_amd64.deb`.
pub(super) fn package(dist: &Dist, program: &Program) -> Result<()> {
    let layout = Layout {
        top: "usr/",
        bin: "/usr/bin",
        zsh: "share/zsh/vendor-completions",
        licenses: "share/doc/mainstay",
    };
    let payload = Payload::collect(dist, &format!("deb-{}", dist.version), program, &layout)?;
    let doc = "usr/share/doc/mainstay";
    // The file `copyright` replaces them.
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::remove_file(payload.root.join(doc).join(license))?;
    }
    payload.add(&format!("{doc}/copyright"), 0o644, copyright()?.as_bytes())?;
    let changes = fs::read(root().join("CHANGELOG.md"))?;
    payload.add_compressed(dist, &format!("{doc}/changelog"), &changes)?;
    let date = dist.date("%a, %d %b %Y %H:%M:%S +0000")?;
    let own_changes = fill(
        include_str!("templates/changelog"),
        &[
            ("VERSION", &dist.version),
            ("MAINTAINER", MAINTAINER),
            ("DATE", &date),
        ],
    );
    payload.add_compressed(
        dist,
        &format!("{doc}/changelog.Debian"),
        own_changes.as_bytes(),
    )?;
    add_control(dist, program, &payload)?;
    let mut build = dist.tool("dpkg-deb");
    build.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]);
    build.arg(&payload.root);
    build.arg(dist.out.join(file_name(&dist.version)));
    succeed(&mut build)
}

/// Adds the files for dpkg itself.
fn add_control(dist: &Dist, program: &Program, payload: &Payload) -> Result<()> {
    let files = payload.files()?;
    let mut kilobytes = 0;
    for file in &files {
        kilobytes += payload.root.join(file).metadata()?.len().div_ceil(1024);
    }
    let mut md5sum = dist.tool("md5sum");
    let sums = text_of(md5sum.current_dir(&payload.root).args(&files))?;
    let control = fill(
        include_str!("templates/control"),
        &[
            ("VERSION", &dist.version),
            ("MAINTAINER", MAINTAINER),
            ("HOMEPAGE", HOMEPAGE),
            ("SIZE", &kilobytes.to_string()),
            ("GLIBC", &program.glibc()?),
        ],
    );
    payload.add("DEBIAN/control", 0o644, control.as_bytes())?;
    payload.add("DEBIAN/md5sums", 0o644, sums.as_bytes())?;
    for (name, text) in SCRIPTS {
        payload.add(&format!("DEBIAN/{name}"), 0o755, text.as_bytes())?;
    }
    Ok(())
}

/// Returns the copyright file in the machine-readable format, in which the lines of a text are
/// indented and its empty lines are dots.
fn copyright() -> Result<String> {
    let expat = fs::read_to_string(root().join("LICENSE-MIT"))?;
    let expat: Vec<String> = expat
        .lines()
        .map(|line| match line.trim() {
            "" => " .".to_owned(),
            line => format!(" {line}"),
        })
        .collect();
    Ok(fill(
        include_str!("templates/copyright"),
        &[("HOMEPAGE", HOMEPAGE), ("EXPAT", &expat.join("\n"))],
    ))
}
