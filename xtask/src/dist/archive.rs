//! Archives for systems without a package of their own.

use std::path::Path;

use super::payload::{Layout, Payload};
use super::program::Program;
use super::{Dist, NAME, succeed};
use crate::Result;

/// Writes `mainstay-VERSION-TARGET.tar.gz`: one directory, whose content belongs below
/// `/usr/local`.
pub(super) fn tarball(dist: &Dist, program: &Program) -> Result<()> {
    let name = format!("{NAME}-{}-{}", dist.version, program.target);
    let layout = Layout {
        top: "",
        bin: "/usr/local/bin",
        zsh: "share/zsh/site-functions",
        licenses: "share/doc/mainstay",
    };
    let top = format!("tarballs/{name}");
    Payload::collect(dist, &top, program, &layout)?;
    let tar = dist.out.join(format!("{name}.tar"));
    pack(dist, &dist.scratch("tarballs")?, &[&name], &tar)?;
    succeed(dist.gzip().arg(tar))
}

/// Writes a tar archive in which nothing depends on the machine.
pub(super) fn pack(dist: &Dist, dir: &Path, names: &[&str], to: &Path) -> Result<()> {
    let mut tar = dist.tool("tar");
    tar.args(["--create", "--format=ustar", "--sort=name"])
        .args(["--numeric-owner", "--owner=0", "--group=0"])
        .arg(format!("--mtime=@{}", dist.time))
        .arg("--file")
        .arg(to)
        .arg("--directory")
        .arg(dir)
        .args(names);
    succeed(&mut tar)
}
