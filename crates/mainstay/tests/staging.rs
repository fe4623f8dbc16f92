//! Services of managers that cannot run here, installed into an image: exactly the files of each.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is not as it should be"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use mainstay::{Account, Definition, ErrorKind, Manager, Start, service, stage_all};

const MANAGERS: [Manager; 4] = [Manager::Launchd, Manager::Rcd, Manager::Smf, Manager::Aix];

struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = format!("mainstay-staging-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// All that is no directory, below this root, with its mode and its inode.
    fn files(&self) -> BTreeMap<String, (u32, u64)> {
        fn walk(root: &Path, dir: &Path, files: &mut BTreeMap<String, (u32, u64)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                if metadata.is_dir() {
                    walk(root, &path, files);
                    continue;
                }
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                let found = (metadata.mode() & 0o777, metadata.ino());
                files.insert(name.to_owned(), found);
            }
        }
        let mut files = BTreeMap::new();
        walk(&self.0, &self.0, &mut files);
        files
    }

    fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn orders(manager: Manager) -> Definition {
    service("orders-2")
        .executable("/opt/orders")
        .account(Account::LocalSystem)
        .manager(manager)
}

fn files(manager: Manager) -> &'static [&'static str] {
    match manager {
        Manager::Launchd => &["Library/LaunchDaemons/orders-2.plist"],
        Manager::Rcd => &["etc/rc.conf.d/orders_2", "usr/local/etc/rc.d/orders-2"],
        Manager::Smf => &["lib/svc/manifest/site/orders-2.xml"],
        _ => &[
            "etc/rc.d/init.d/orders-2",
            "etc/rc.d/rc2.d/K01orders-2",
            "etc/rc.d/rc2.d/S99orders-2",
        ],
    }
}

#[test]
fn an_image_has_the_files_of_its_services_once() {
    for manager in MANAGERS {
        let root = Root::new(manager.name());
        let staged = stage_all(&[orders(manager)], &root.0).unwrap();
        assert!(staged[0].is_new, "{manager}");
        assert_eq!(root.names(), files(manager), "{manager}");
        let before = root.files();
        let staged = stage_all(&[orders(manager)], &root.0).unwrap();
        assert!(!staged[0].is_new, "{manager}");
        assert_eq!(root.files(), before, "{manager}");
        for (file, (mode, _)) in before {
            let is_script = file.contains("rc.d/init.d") || file.contains("etc/rc.d/orders");
            let expected = match () {
                () if file.contains("rc2.d") => 0o777,
                () if is_script => 0o755,
                () => 0o644,
            };
            assert_eq!(mode, expected, "{file}");
        }
    }
}

#[test]
fn what_is_not_to_start_says_so() {
    for manager in MANAGERS {
        let root = Root::new(&format!("manual-{manager}"));
        let read = |file: &str| fs::read_to_string(root.0.join(file)).unwrap();
        let manual = || orders(manager).start(Start::Manual);
        stage_all(&[manual()], &root.0).unwrap();
        let says_so = |is_manual: bool| match manager {
            Manager::Launchd => {
                read(files(manager)[0]).contains("<key>Disabled</key>") == is_manual
            }
            Manager::Rcd => read(files(manager)[0]).contains("orders_2_enable=\"NO\"") == is_manual,
            Manager::Smf => read(files(manager)[0]).contains("enabled=\"false\"") == is_manual,
            _ => (root.names().len() == 1) == is_manual,
        };
        assert!(says_so(true), "{manager}");
        stage_all(&[orders(manager)], &root.0).unwrap();
        assert!(says_so(false), "{manager}");
        assert_eq!(root.names(), files(manager), "{manager}");
        stage_all(&[manual()], &root.0).unwrap();
        assert!(says_so(true), "{manager}");
    }
}

#[test]
fn what_is_somebody_elses_stays() {
    for manager in MANAGERS {
        for file in files(manager).iter().filter(|file| !file.contains("rc2.d")) {
            let root = Root::new(&format!("foreign-{manager}"));
            let path = root.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "theirs").unwrap();
            let error = stage_all(&[orders(manager)], &root.0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
            assert!(
                error.to_string().contains("another service of that name"),
                "{error}"
            );
            assert_eq!(root.names(), [*file], "{manager}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        }
    }
}

/// A directory or a named pipe in the place of a file is refused before anything changes.
#[test]
fn what_is_in_the_place_of_a_file_is_left_alone() {
    for manager in MANAGERS {
        for make in ["mkdir", "mkfifo"] {
            let root = Root::new(&format!("{make}-{manager}"));
            let file = root.0.join(files(manager)[0]);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let made = std::process::Command::new(make).arg(&file).status();
            assert!(made.unwrap().success());
            let before = root.names();
            let error = stage_all(&[orders(manager)], &root.0).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(
                cause.contains("in its place: move it away"),
                "{error}: {cause}"
            );
            assert_eq!(root.names(), before);
        }
    }
}
