//! Services in a system that does not run.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};

use mainstay::{Account, Manager, Start, service, stage_all};

/// All files and links below it, with what is in them.
fn tree(dir: &Path, root: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let name = Path::new("/").join(path.strip_prefix(root).expect("below it"));
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            found.extend(tree(&path, root));
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            found.push((name, format!("-> {}", target.display())));
        } else {
            found.push((name, fs::read_to_string(&path).expect("a file")));
        }
    }
    found.sort();
    found
}

#[test]
fn an_image_gets_what_its_manager_reads_and_nothing_else() {
    for (manager, traces, unit, off) in [
        (
            Manager::Runit,
            "etc/runit/runsvdir/default",
            "/etc/sv/orders/run",
            Some("/etc/sv/orders/down"),
        ),
        (
            Manager::S6,
            "etc/s6-linux-init/current/run-image/service",
            "/etc/s6-linux-init/current/run-image/service/orders/run",
            Some("/etc/s6-linux-init/current/run-image/service/orders/down"),
        ),
        (Manager::Dinit, "etc/dinit.d", "/etc/dinit.d/orders", None),
    ] {
        let root = std::env::temp_dir().join(format!("mainstay-{manager}-{}", std::process::id()));
        fs::create_dir_all(root.join(traces)).expect("a directory");
        let orders = |start| {
            let definition = service("orders").executable("/opt/orders");
            definition.account(Account::LocalSystem).start(start)
        };
        let stage = |start| stage_all(&[orders(start)], &root).expect("an image")[0].is_new;
        let holds = |path: &str| {
            tree(&root, &root)
                .iter()
                .any(|(it, _)| it == Path::new(path))
        };

        assert!(stage(Start::Automatic), "{manager}: it is found by itself");
        let first = tree(&root, &root);
        assert!(holds(unit), "{first:?}");
        assert!(off.is_none_or(|off| !holds(off)), "{first:?}");
        assert!(!stage(Start::Automatic));
        assert_eq!(tree(&root, &root), first);
        // Everything that it says leads to where it will be.
        assert!(
            first.iter().all(|(path, _)| path.starts_with("/etc")),
            "{first:?}"
        );
        let host = root.to_str().expect("text");
        assert!(
            !first.iter().any(|(_, text)| text.contains(host)),
            "{first:?}"
        );

        stage(Start::Manual);
        assert!(off.is_none_or(holds));
        stage(Start::Automatic);
        assert_eq!(tree(&root, &root), first);
        fs::remove_dir_all(&root).expect("ours");
    }
}
