//! Trials: installs artifacts into clean systems, uses them, upgrades them while services run, and
//! removes them. A trial that this machine cannot run is counted as skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mainstay_testkit::lab::Lab;
use mainstay_testkit::{skip, wait_until};
use serde_json::Value;

use super::program::Program;
use super::{Dist, GNU, MUSL, NAME, debian, oci, rpm, sha256, step, succeed, text_of, windows};
use crate::packages::install;
use crate::{Result, lab};

/// The number of services that write while the package is upgraded.
const SERVICES: usize = 20;

/// A service that writes a line and ends.
const ONCE: &str = "\
[service.once]
command = [\"/bin/sh\", \"-c\", \"echo it runs\"]
recovery = { policy = \"never\" }
";

/// The longest time that a step may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Tries the packages of `dist`, and upgrades to those of `next`.
pub(super) fn packages(dist: &Dist, next: &Dist) -> Result<()> {
    step("try the Debian package under systemd", || {
        debian_package(dist, next)
    })?;
    step("try the RPM package in a root of its own", || {
        rpm_package(dist, next)
    })?;
    step("try the archive", || archive(dist, GNU))?;
    step("lint", || lint(dist))
}

/// Tries the static program in systems that have no C library.
pub(super) fn static_program(dist: &Dist) -> Result<()> {
    step("try the static archive beside busybox", || {
        archive(dist, MUSL)
    })?;
    step("try the container image", || image(dist))
}

/// Starts a program for another architecture in an emulator. It cannot supervise there:
/// qemu-user refuses PR_SET_CHILD_SUBREAPER.
pub(super) fn emulated(program: &Program) -> Result<()> {
    step(&format!("try {} in an emulator", program.target), || {
        let dir = tempfile::tempdir()?;
        let manifest = dir.path().join("once.toml");
        fs::write(&manifest, ONCE)?;
        succeed(program.command().arg("version"))?;
        succeed(program.command().arg("check").arg(manifest))
    })
}

fn debian_package(dist: &Dist, next: &Dist) -> Result<()> {
    let lab = match Lab::up("systemd", &[(&dist.out, "/dist"), (&next.out, "/next")]) {
        Ok(lab) => lab,
        Err(reason) => {
            skip(reason);
            return Ok(());
        }
    };
    let deb = |dir: &str, of: &Dist| format!("/{dir}/{}", debian::file_name(&of.version));
    let changed = ["/usr", "/etc"];
    let before = lab.tree(&changed);
    lab.script(&format!(
        "cat > /opt/many.toml <<'END'\n{}END\n",
        many_services()
    ));
    lab.script(&format!(
        "cat > /opt/one.toml <<'END'\n{}END\n",
        counter("hosted")
    ));

    let begin = Instant::now();
    lab.check(0, &["dpkg", "--install", &deb("dist", dist)]);
    lab.check(0, &[NAME, "install", "/opt/one.toml"]);
    lab.check(0, &[NAME, "start", "hosted"]);
    report("from nothing to a service of systemd", begin);
    lab.check(1, &["systemctl", "is-enabled", NAME]);
    lab.check(3, &["systemctl", "is-active", NAME]);

    let begin = Instant::now();
    lab.check(0, &["systemctl", "enable", "--now", NAME]);
    let install = [NAME, "install", "--manager", "embedded", "/opt/many.toml"];
    lab.check(0, &install);
    lab.script(&format!(
        "{NAME} start $(seq --format=s%.0f 0 {})",
        SERVICES - 1
    ));
    report(&format!("daemon and {SERVICES} services"), begin);

    upgrade(&lab, &deb("next", next))?;

    lab.check(0, &[NAME, "uninstall", "hosted"]);
    lab.check(0, &["dpkg", "--remove", NAME]);
    lab.check(3, &["systemctl", "is-active", NAME]);
    lab.check(0, &["test", "-d", "/var/lib/mainstay/logs/s0"]);
    lab.check(0, &["dpkg", "--purge", NAME]);
    lab.check(1, &["test", "-e", "/var/lib/mainstay"]);
    lab.assert_tree(&changed, &before);
    println!("removed: state kept; purged: nothing left");
    Ok(())
}

/// Upgrades the package. No service restarts, and every number is in the logs once.
fn upgrade(lab: &Lab, package: &str) -> Result<()> {
    let services = || lab.script("pgrep --full 'while echo' | sort --numeric-sort");
    let main_pid = || {
        let show = ["systemctl", "show", "--property=MainPID", "--value", NAME];
        lab.check(0, &show)
    };
    let last_line = |name: &str| {
        let line = lab.check(0, &[NAME, "logs", name, "-n", "1"]);
        line.trim().parse::<usize>().unwrap_or(0)
    };
    let (daemon, pids) = (main_pid(), services());
    // And the one under systemd.
    ensure(pids.lines().count() == SERVICES + 1, &pids)?;
    wait_until("output of s0", TIMEOUT, || {
        (last_line("s0") > 20).then_some(())
    });

    let begin = Instant::now();
    lab.check(0, &["dpkg", "--install", package]);
    wait_until("another daemon", TIMEOUT, || {
        let active = lab.run(&["systemctl", "is-active", NAME]);
        (active.status.success() && main_pid() != daemon).then_some(())
    });
    lab.check(0, &[NAME, "status"]);
    report("upgrade, until all services are adopted", begin);
    ensure(services() == pids, "the upgrade has restarted services")?;
    let then = last_line("s0");
    wait_until("more output of s0", TIMEOUT, || {
        (last_line("s0") > then + 20).then_some(())
    });

    lab.check(0, &[NAME, "stop"]);
    let mut lines = 0;
    let names = (0..SERVICES).map(|n| format!("s{n}"));
    for name in names.chain(["hosted".to_owned()]) {
        let log = lab.check(0, &[NAME, "logs", &name]);
        for (number, line) in log.lines().enumerate() {
            let is_next = line == number.to_string();
            ensure(is_next, &format!("{name}: line {number} is {line:?}"))?;
        }
        let count = log.lines().count();
        ensure(count > 20, &format!("{name}: only {count} lines"))?;
        lines += count;
    }
    println!("0 restarts, 0 of {lines} lines lost");
    Ok(())
}

/// A manifest of services that number their lines.
fn many_services() -> String {
    (0..SERVICES).map(|n| counter(&format!("s{n}"))).collect()
}

fn counter(name: &str) -> String {
    let script = "n=0; while echo $n; do n=$((n+1)); sleep 0.05; done";
    format!("[service.{name}]\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n")
}

fn rpm_package(dist: &Dist, next: &Dist) -> Result<()> {
    let system = System::busybox()?;
    let rpm = |args: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(&system.dir).args(args);
        rpm
    };
    let package = |of: &Dist| {
        let path = of.out.join(rpm::file_name(&of.version));
        path.display().to_string()
    };
    succeed(&mut rpm(&["--initdb"]))?;
    let begin = Instant::now();
    // The database of this system does not contain its libraries.
    succeed(&mut rpm(&["--install", "--nodeps", &package(dist)]))?;
    system.add_libraries("/usr/bin/mainstay")?;
    system.run_service("/usr/bin/mainstay")?;
    report("from nothing to a service", begin);
    succeed(&mut rpm(&["--verify", "--nodeps", NAME]))?;
    succeed(&mut rpm(&["--upgrade", "--nodeps", &package(next)]))?;
    let installed = text_of(&mut rpm(&["--query", "--queryformat=%{version}", NAME]))?;
    ensure(installed == next.version, &installed)?;
    system.run_service("/usr/bin/mainstay")?;
    let files = text_of(&mut rpm(&["--query", "--list", NAME]))?;
    succeed(&mut rpm(&["--erase", NAME]))?;
    for file in files.lines() {
        ensure(!system.path(file).exists(), &format!("{file} is left"))?;
    }
    let has_state = system.path("/var/lib/mainstay/logs/once").is_dir();
    ensure(has_state, "the state is gone")?;
    println!("erased: state kept, {} files gone", files.lines().count());
    Ok(())
}

/// Unpacks an archive into `/usr/local`, and runs a service.
fn archive(dist: &Dist, target: &str) -> Result<()> {
    let system = System::busybox()?;
    let to = system.path("/usr/local");
    fs::create_dir_all(&to)?;
    let begin = Instant::now();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"]);
    tar.arg(
        dist.out
            .join(format!("{NAME}-{}-{target}.tar.gz", dist.version)),
    );
    succeed(tar.arg("--directory").arg(to))?;
    if target == GNU {
        system.add_libraries("/usr/local/bin/mainstay")?;
    }
    system.run_service("/usr/local/bin/mainstay")?;
    report("from nothing to a service", begin);
    Ok(())
}

/// Unpacks the image by its own index, and runs it as process 1 with its own command.
fn image(dist: &Dist) -> Result<()> {
    let layout = dist.scratch("image-layout")?;
    let system = System::empty()?;
    let unpack = |archive: &Path, to: &Path| {
        let mut tar = Command::new("tar");
        tar.arg("--extract").arg("--file").arg(archive);
        succeed(tar.arg("--directory").arg(to))
    };
    unpack(&dist.out.join(oci::file_name(&dist.version)), &layout)?;
    let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |descriptor: &Value| -> Result<PathBuf> {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        let hash = digest.strip_prefix("sha256:").ok_or("no digest")?;
        let path = layout.join("blobs/sha256").join(hash);
        ensure(sha256(&path)? == hash, "the content of a blob has changed")?;
        Ok(path)
    };
    let index = read(&layout.join("index.json"))?;
    let manifest = read(&blob(&index["manifests"][0])?)?;
    let config = read(&blob(&manifest["config"])?)?;
    unpack(&blob(&manifest["layers"][0])?, &system.dir)?;
    let service = "[service.version]\ncommand = [\"/usr/bin/mainstay\", \"version\"]\n";
    let service = format!("{service}recovery = {{ policy = \"never\" }}\n");
    fs::write(system.path(oci::MANIFEST), service)?;
    let words = |key: &str| config["config"][key].as_array().into_iter().flatten();
    let argv: Vec<&str> = words("Entrypoint")
        .chain(words("Cmd"))
        .filter_map(Value::as_str)
        .collect();

    let begin = Instant::now();
    let output = text_of(&mut system.command(&argv))?;
    ensure(output.contains("exit code 0"), &output)?;
    report("process 1 of a container, and its service", begin);
    Ok(())
}

/// A directory that is the root of a system.
struct System {
    dir: PathBuf,
    _guard: tempfile::TempDir,
}

impl System {
    /// Creates a system with the files that every kernel and container runtime provides.
    fn empty() -> Result<Self> {
        let guard = tempfile::tempdir()?;
        let dir = guard.path().to_owned();
        for name in ["dev", "proc"] {
            fs::create_dir(dir.join(name))?;
        }
        let mut mknod = Command::new("mknod");
        mknod.args(["--mode=666".as_ref(), dir.join("dev/null").as_os_str()]);
        succeed(mknod.args(["c", "1", "3"]))?;
        Ok(Self { dir, _guard: guard })
    }

    /// Creates a system that consists of busybox.
    fn busybox() -> Result<Self> {
        install(&[("busybox", "busybox-static")])?;
        let system = Self::empty()?;
        for name in ["bin", "etc", "tmp"] {
            fs::create_dir(system.dir.join(name))?;
        }
        fs::write(system.path("/etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
        fs::copy("/bin/busybox", system.path("/bin/busybox"))?;
        text_of(&mut system.command(&["/bin/busybox", "--install", "/bin"]))?;
        Ok(system)
    }

    /// Returns a command that becomes process 1 of this system.
    fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount"]);
        command.arg(format!("--mount-proc={}", self.path("/proc").display()));
        command.arg("chroot").arg(&self.dir).args(argv);
        command
    }

    /// Adds the libraries that a program in this system is linked with.
    fn add_libraries(&self, program: &str) -> Result<()> {
        let list = text_of(Command::new("ldd").arg(self.path(program)))?;
        let paths = list.split_whitespace().filter(|word| word.starts_with('/'));
        for path in paths {
            let copy = self.path(path);
            fs::create_dir_all(copy.parent().unwrap_or(&self.dir))?;
            fs::copy(path, copy)?;
        }
        Ok(())
    }

    /// Returns the path here of an absolute path in this system.
    fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// Runs a service to its end with this program.
    fn run_service(&self, program: &str) -> Result<()> {
        fs::write(self.dir.join("once.toml"), ONCE)?;
        let output = text_of(&mut self.command(&[program, "run", "/once.toml"]))?;
        ensure(output.contains("exit code 0"), &output)?;
        let log = text_of(&mut self.command(&[program, "logs", "once"]))?;
        ensure(log.starts_with("it runs"), &log)
    }
}

/// Runs the linters of each format. Warnings are printed.
fn lint(dist: &Dist) -> Result<()> {
    let artifact = |name: String| dist.out.join(name);
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--allow-root", "--fail-on=error"])
        // No user of Debian has asked for this package.
        .arg("--suppress-tags=initial-upload-closes-no-bugs")
        .arg(artifact(debian::file_name(&dist.version)));
    let mut rpmlint = Command::new("rpmlint");
    let config = dist.scratch("rpmlint")?.join("rpmlint.toml");
    // Packages are signed when they are published.
    fs::write(&config, "Filters = [\"no-signature\"]\n")?;
    rpmlint
        .arg("--config")
        .arg(config)
        .arg(artifact(rpm::file_name(&dist.version)));
    for (linter, mut command) in [("lintian", lintian), ("rpmlint", rpmlint)] {
        match install(&[(linter, linter)]) {
            Ok(()) => succeed(&mut command)?,
            Err(error) => skip(format!("{linter}: {error}")),
        }
    }
    Ok(())
}

/// Tries the MSI package under Wine: a service runs during the upgrade.
pub(super) fn windows(dist: &Dist, next: &Dist) -> Result<()> {
    step("try the MSI package under Wine", || {
        let lab = lab::Lab::set_up()?;
        let package = |of: &Dist| of.out.join(windows::msi_name(&of.version));
        let mut msiinfo = Command::new("msiinfo");
        succeed(msiinfo.arg("suminfo").arg(package(dist)))?;
        let mut trial = lab.with_prefix("try-msi");
        succeed(trial.arg(package(dist)).arg(package(next)))
    })
}

fn report(what: &str, begin: Instant) {
    println!("{what}: {:.1} s", begin.elapsed().as_secs_f64());
}

fn ensure(condition: bool, why: &str) -> Result<()> {
    if condition { Ok(()) } else { Err(why.into()) }
}
