//! The environment of the soak: root's files, the attacker's directory, programs and the manifest.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use mainstay_testkit::free_port;

use crate::Result;

/// The attacker's account.
pub(crate) const ATTACKER: &str = "nobody";

/// The directories and programs, all below one directory of root.
pub(crate) struct Site {
    dir: PathBuf,
}

impl Site {
    /// Creates everything. `/etc` and `/root` are copies from now on.
    pub(crate) fn set_up(dir: &Path, bin_dir: &Path, seed: u64) -> Result<Self> {
        let site = Self {
            dir: dir.to_owned(),
        };
        run("ip", &["link", "set", "lo", "up"])?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        fs::create_dir(site.path("bin"))?;
        for program in ["mainstay", "puppet", "hostile"] {
            fs::copy(bin_dir.join(program), site.path("bin").join(program))?;
        }
        site.shadow("/etc")?;
        site.shadow("/root")?;
        for (path, text) in [
            ("R/etc/ssh/key", "root's key"),
            ("R/s", "root's file, named like a socket"),
            ("R/env", "SOAK_SECRET_FILE=root's\n"),
        ] {
            let path = site.path(path);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, text)?;
        }
        fs::set_permissions(site.path("R"), fs::Permissions::from_mode(0o700))?;
        for (name, user) in [("bob", ATTACKER), ("neighbours", "daemon")] {
            let own = site.path(name);
            fs::create_dir(&own)?;
            own_by(&own, user)?;
        }
        for name in ["app", "app/etc", "app/etc/ssh", "sock"] {
            let own = site.path("bob").join(name);
            fs::create_dir(&own)?;
            own_by(&own, ATTACKER)?;
        }
        let env = site.path("bob/env");
        fs::write(&env, "FROM_FILE=1\n")?;
        own_by(&env, ATTACKER)?;
        fs::write(site.manifest(), site.manifest_text(seed))?;
        Ok(site)
    }

    /// Returns a path below the site's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.path("mainstay.toml")
    }

    /// Returns the paths that must be unchanged at the end.
    pub(crate) fn roots(&self) -> [PathBuf; 3] {
        ["/etc".into(), "/root".into(), self.path("R")]
    }

    /// Mounts a copy of `dir` over it, in this mount namespace only. Only a part of `/root` is
    /// copied: gigabytes of caches prove nothing.
    fn shadow(&self, dir: &str) -> Result<()> {
        let copy = self.path(dir.trim_start_matches('/'));
        if dir == "/etc" {
            run("cp", &["-a", dir, &copy.display().to_string()])?;
        } else {
            fs::create_dir_all(copy.join(".ssh"))?;
            fs::write(copy.join(".ssh/authorized_keys"), "ssh-ed25519 AAAA root\n")?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o700))?;
        }
        Ok(rustix::mount::mount_bind(&copy, dir)?)
    }

    fn manifest_text(&self, seed: u64) -> String {
        let text = r#"environment = "development"

[service.neighbour]
command = ["HERE/bin/puppet", "serve", "http", "127.0.0.1:PORT", "hang"]
account = "user:daemon"
start = { ready = { http = "http://127.0.0.1:PORT/" } }
liveness = { every = "100ms", timeout = "5s" }
stop = { graceful = "5s" }

[service.diary]
command = ["HERE/bin/hostile", "diary", "HERE/neighbours", "SEED"]
account = "user:daemon"
log = { rotate = "1MB", keep = 1000, compress = "none" }
stop = { graceful = "5s" }

[service.accomplice]
command = ["HERE/bin/hostile", "accomplice", "HERE/bob", "SEED"]
account = "user:ATTACKER"
stop = { graceful = "200ms" }
recovery = { delay = "10ms", max_delay = "100ms", limit = "none" }

[service.hostile]
command = ["HERE/bin/hostile", "service", "HERE/bob", "SEED"]
account = "user:ATTACKER"
env_file = "HERE/bob/env"
listen = ["HERE/bob/sock/s"]
snapshot = { paths = ["HERE/bob/app/etc/ssh"], after = "300ms", every = "1s", keep = 2 }
start = { timeout = "2s", ready = { notify = true } }
stop = { graceful = "200ms" }
recovery = { delay = "10ms", max_delay = "300ms", limit = "none" }
log = { rotate = "1MB", keep = 3 }
"#;
        text.replace("HERE", &self.dir.display().to_string())
            .replace("PORT", &free_port().to_string())
            .replace("ATTACKER", ATTACKER)
            .replace("SEED", &seed.to_string())
    }
}

/// Makes a user of this machine the owner of a file.
pub(crate) fn own_by(path: &Path, user: &str) -> Result<()> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let mut entries = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|entry| entry.first() == Some(&user));
    let entry = entry.ok_or_else(|| format!("there is no user {user}"))?;
    Ok(chown(
        path,
        Some(entry[2].parse()?),
        Some(entry[3].parse()?),
    )?)
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let status = Command::new(program).args(args).status();
    if status
        .map_err(|error| format!("{program}: {error}"))?
        .success()
    {
        Ok(())
    } else {
        Err(format!("{program} {} failed", args.join(" ")).into())
    }
}
