//! Tests against an account that owns part of a path. They run as root, because they need another
//! account.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;

use mainstay_testkit::{Sandbox, skip};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::privilege::is_privileged;

/// The user ID of `nobody` on all systems.
const OTHER: u32 = 65_534;

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
}

fn refused<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => panic!("it was opened"),
        Err(error) => explain(&error),
    }
}

/// Creates a directory `trusted` with a file `secret`, and a directory `app` of another account
/// with a directory `etc`.
fn sandbox() -> Option<Sandbox> {
    if !is_privileged() {
        skip("only root can give a directory to another account");
        return None;
    }
    let sandbox = Sandbox::new();
    for dir in ["trusted", "app", "app/etc"] {
        fs::create_dir(sandbox.path().join(dir)).expect("a directory");
    }
    sandbox.write("trusted/secret", "secret");
    sandbox.write("app/etc/env", "A=1");
    for path in ["app", "app/etc", "app/etc/env"] {
        chown(sandbox.path().join(path), Some(OTHER), Some(OTHER)).expect("given");
    }
    Some(sandbox)
}

#[test]
fn only_regular_files_are_read_and_only_so_much() {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.path().join(name);
    fifo(&at("pipe"));
    let _socket = UnixListener::bind(at("socket")).unwrap();
    symlink("/dev/zero", at("zeros")).unwrap();
    symlink(at("pipe"), at("link")).unwrap();
    for (path, what) in [
        (at("pipe"), "a named pipe"),
        (at("link"), "a named pipe"),
        (at("socket"), "a socket"),
        (at("zeros"), "a device"),
        (at("."), "a directory"),
    ] {
        let expect = format!("it is {what}, not a regular file");
        assert_eq!(refused(read(&path, ENV_FILE)), expect);
        assert_eq!(refused(plain_file(&path)), expect);
    }
    sandbox.write("large", &"x".repeat(2049));
    let why = refused(read(&at("large"), 2048));
    assert_eq!(why, "it is larger than 2 KiB");
    assert_eq!(read(&at("large"), 2049).unwrap().len(), 2049);
    let missing = file(&at("missing")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn links_are_followed_as_far_as_only_root_can_change_them() {
    let Some(sandbox) = sandbox() else { return };
    let at = |name: &str| sandbox.path().join(name);
    let text = |name: &str| read_to_string(&at(name), ENV_FILE);
    symlink("app/../trusted", at("alias")).unwrap();
    symlink(at("alias/secret"), at("name")).unwrap();
    assert_eq!(text("name").unwrap(), "secret");
    assert_eq!(text("app/etc/env").unwrap(), "A=1");
    assert_eq!(text("app/etc/../../trusted/secret").unwrap(), "secret");
    assert_eq!(directory(&at("alias")).unwrap().path(), at("trusted"));
    // The link may be root's: the owner of the directory can still replace it.
    symlink(at("trusted"), at("app/led")).unwrap();
    symlink(at("trusted/secret"), at("app/etc/last")).unwrap();
    symlink("app/led", at("detour")).unwrap();
    for (name, link) in [
        ("app/led/secret", "app/led"),
        ("app/etc/last", "app/etc/last"),
        ("detour/secret", "app/led"),
        ("app/led", "app/led"),
    ] {
        let expect = format!(
            "{} is a symbolic link that uid {OTHER} can change",
            at(link).display()
        );
        let why = refused(file(&at(name)));
        assert!(why.starts_with(&expect), "{why}");
        let why = refused(parent(&at(name).join("x")));
        assert!(why.starts_with(&expect), "{why}");
    }
    // The last component is only a name.
    let (above, name) = parent(&at("app/led")).unwrap();
    assert_eq!((above.path(), &*name), (&*at("app"), "led".as_ref()));
    assert!(above.is_settled(), "root can");
    assert!(!parent(&at("app/etc/env")).unwrap().0.is_settled());
    assert!(parent(&at("trusted/secret")).unwrap().0.is_settled());
}

#[test]
fn directories_that_others_may_write_to_are_others() {
    let Some(sandbox) = sandbox() else { return };
    let at = |name: &str| sandbox.path().join(name);
    symlink(at("trusted"), at("app/link")).unwrap();
    chown(at("app"), Some(0), Some(OTHER)).unwrap();
    for (mode, by) in [
        (0o777, Some("every user")),
        (0o775, Some("gid 65534")),
        (0o755, None),
        (0o1777, None),
    ] {
        fs::set_permissions(at("app"), fs::Permissions::from_mode(mode)).unwrap();
        match (by, file(&at("app/link/secret"))) {
            (None, Ok(_)) => {}
            (Some(by), Err(error)) => {
                assert!(error.to_string().contains(by), "{mode:o}: {error}");
            }
            (_, found) => panic!("{mode:o}: {found:?}"),
        }
    }
    rustix::fs::chownat(
        CWD,
        at("app/link"),
        Some(rustix::fs::Uid::from_raw(OTHER)),
        None,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    let why = refused(file(&at("app/link/secret")));
    assert!(why.contains("uid 65534"), "{why}");
}

#[test]
fn what_changes_places_while_it_is_opened_leads_nowhere_else() {
    let Some(sandbox) = sandbox() else { return };
    let at = |name: &str| sandbox.path().join(name);
    sandbox.write("trusted/env", "secret");
    symlink(at("trusted"), at("app/other")).unwrap();
    let inode = fs::metadata(at("trusted/env")).unwrap().ino();
    let swap = || {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let (one, other) = (at("app/etc"), at("app/other"));
        rustix::fs::renameat_with(CWD, one, CWD, other, flags).unwrap();
    };
    let ends = std::sync::atomic::AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                swap();
            }
        });
        while opened < 200 || refused < 200 {
            match file(&at("app/etc/env")) {
                Ok(found) => {
                    assert_ne!(found.metadata().unwrap().ino(), inode, "it was followed");
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
