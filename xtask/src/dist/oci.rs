//! The container image, as an OCI image layout in a tar archive. See
//! <https://github.com/opencontainers/image-spec>.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::payload::Payload;
use super::program::Program;
use super::{Dist, LICENSE, NAME, SUMMARY, archive, sha256, succeed};
use crate::Result;

/// The manifest's path in a container.
pub(super) const MANIFEST: &str = "/etc/mainstay/mainstay.toml";

pub(super) fn file_name(version: &str) -> String {
    format!("{NAME}-{version}-oci.tar")
}

/// Writes `mainstay-VERSION-oci.tar`: the static program as process 1, and nothing else.
pub(super) fn image(dist: &Dist, program: &Program) -> Result<()> {
    let files = Payload::empty(dist, "image-root")?;
    files.add("usr/bin/mainstay", 0o755, &fs::read(&program.path)?)?;
    files.add_dir("etc/mainstay", 0o755)?;
    files.add_dir("tmp", 0o1777)?;
    let layer = dist.scratch("image-layer")?.join("layer.tar");
    archive::pack(dist, &files.root, &["etc", "tmp", "usr"], &layer)?;
    let diff_id = format!("sha256:{}", sha256(&layer)?);
    succeed(dist.gzip().arg(&layer))?;

    let layout = Layout {
        dir: &dist.scratch("image")?,
    };
    fs::create_dir_all(layout.dir.join("blobs/sha256"))?;
    let layer = layout.blob(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        &fs::read(layer.with_extension("tar.gz"))?,
    )?;
    let created = dist.date("%Y-%m-%dT%H:%M:%SZ")?;
    let labels = json!({
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.description": SUMMARY,
        "org.opencontainers.image.licenses": LICENSE,
        "org.opencontainers.image.version": dist.version,
    });
    let config = layout.document(json!({
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/usr/bin/mainstay"],
            "Cmd": ["run", MANIFEST],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Volumes": {"/var/lib/mainstay": {}},
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "cargo xtask dist"}],
    }))?;
    let mut manifest = layout.document(json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": labels,
    }))?;
    let reference = format!("{NAME}:{}", dist.version);
    manifest["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{reference}"),
        "org.opencontainers.image.ref.name": reference,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    fs::write(layout.dir.join("index.json"), index.to_string())?;
    fs::write(
        layout.dir.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let to = dist.out.join(file_name(&dist.version));
    let names = ["blobs", "index.json", "oci-layout"];
    archive::pack(dist, layout.dir, &names, &to)
}

/// A directory of blobs that are named by their content.
struct Layout<'a> {
    dir: &'a Path,
}

impl Layout<'_> {
    /// Stores a blob, and returns its descriptor.
    fn blob(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let new = self.dir.join("blobs/sha256/new");
        fs::write(&new, content)?;
        let digest = sha256(&new)?;
        fs::rename(&new, new.with_file_name(&digest))?;
        Ok(json!({
            "mediaType": media_type,
            "digest": format!("sha256:{digest}"),
            "size": content.len(),
        }))
    }

    /// Stores a document that states its media type.
    fn document(&self, document: Value) -> Result<Value> {
        let media_type = document["mediaType"].as_str().unwrap_or_default();
        self.blob(media_type, document.to_string().as_bytes())
    }
}
