//! The environment variable that identifies members of a tree without a cgroup:
//! `MAINSTAY_INSTANCE=COUNTER.UID.CODE`.
//!
//! A service sees its own mark and must not be able to forge another's. The code is therefore
//! computed from a secret that is stored in the lock and the ledger alone: `kin SECRET` is a
//! supervisor's orphan marker, and `kin SECRET.COUNTER.UID` identifies one tree. With the secret, a
//! genuine mark can be verified without a list of marks. A stolen mark is of no use to another
//! account: a bearer counts only if its real user ID is the one in the mark. Supervisors of earlier
//! versions used `PREFIX.COUNTER`, which is still adopted.

use mainstay_core::snapshot::Hasher;

use super::proc::{has_variable, real_uid};
use crate::process::INSTANCE;

/// The secret that distinguishes this supervisor's marks from forged ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{:032x}", u128::from_le_bytes(bytes))))
    }

    /// Returns the orphan marker to pass to [`Marks::of_orphan_marker`].
    pub(super) fn orphan_marker(&self) -> String {
        format!("kin {}", self.0)
    }

    /// Returns the mark of the tree with this number, whose service runs as `uid`.
    pub(super) fn mark(&self, counter: u64, uid: u32) -> Mark {
        let mut hasher = Hasher::default();
        hasher.update(format!("{}.{counter}.{uid}", self.0).as_bytes());
        let code = hasher.finish().to_string();
        Mark {
            value: format!("{counter}.{uid}.{}", &code[..32]),
            tree: format!("kin {}.{counter}.{uid}", self.0),
            account: match uid {
                // A process of root may become any user, and may have been told to.
                0 => Account::Any,
                uid => Account::Only(uid),
            },
            uid: Some(uid),
        }
    }

    /// Returns the mark with this value, if it is genuine.
    fn verify(&self, value: &str) -> Option<Mark> {
        let mut parts = value.splitn(3, '.');
        let counter = parts.next()?.parse().ok()?;
        let uid = parts.next()?.parse().ok()?;
        Some(self.mark(counter, uid)).filter(|mark| mark.value == value)
    }
}

/// The accounts whose processes may bear a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Account {
    Any,
    Only(u32),
}

/// The mark of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The value of the variable.
    value: String,
    tree: String,
    account: Account,
    /// The user ID of the service.
    uid: Option<u32>,
}

impl Mark {
    /// Reads a mark in the form recorded in the ledger. `main` is the main process, if it is alive;
    /// its account applies if the mark names none.
    pub(super) fn of_tree(tree: &str, main: Option<u32>) -> Option<Self> {
        match tree.split_once(' ')? {
            ("kin", text) => {
                let mut parts = text.split('.');
                let secret = Secret(parts.next()?.to_owned());
                let counter = parts.next()?.parse().ok()?;
                Some(secret.mark(counter, parts.next()?.parse().ok()?))
            }
            ("instance", value) => {
                let uid = main.and_then(real_uid);
                Some(Self {
                    value: value.to_owned(),
                    tree: tree.to_owned(),
                    account: uid.map_or(Account::Any, Account::Only),
                    uid,
                })
            }
            _ => None,
        }
    }

    /// Returns the value of the variable.
    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// Returns the string by which a later supervisor identifies the tree.
    pub(super) fn tree(&self) -> &str {
        &self.tree
    }

    /// Returns whether the process belongs to the tree by the mark that it bears.
    pub(super) fn is_of(&self, pid: u32) -> bool {
        let is_it = |it: &[u8]| value_in(it).is_some_and(|value| value == self.value.as_bytes());
        has_variable(pid, is_it) && self.account.has(pid)
    }

    /// Returns whether the process also runs under the service's own account, so that its messages
    /// can be trusted.
    pub(super) fn is_believed_of(&self, pid: u32) -> bool {
        self.is_of(pid) && self.uid.is_none_or(|uid| real_uid(pid) == Some(uid))
    }
}

impl Account {
    fn has(self, pid: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Only(uid) => real_uid(pid) == Some(uid),
        }
    }
}

/// The marks of a dead supervisor.
pub(super) enum Marks {
    Secret(Secret),
    /// The prefix of every mark, `PREFIX.`.
    Prefix(String),
    One(Mark),
}

impl Marks {
    /// Reads an orphan marker; `None` if it describes no marks.
    pub(super) fn of_orphan_marker(orphan_marker: &str) -> Option<Self> {
        match orphan_marker.split_once(' ')? {
            ("kin", secret) => Some(Self::Secret(Secret(secret.to_owned()))),
            ("instance", prefix) => Some(Self::Prefix(format!("{prefix}."))),
            _ => None,
        }
    }

    /// Returns the value of the mark in a process's environment, if it is one of these marks.
    pub(super) fn borne_by<'e>(&self, pid: u32, environment: &'e [u8]) -> Option<&'e str> {
        let mut values = environment.split(|byte| *byte == 0).filter_map(value_in);
        values.find_map(|value| {
            let value = str::from_utf8(value).ok()?;
            let is_one = match self {
                Self::Secret(secret) => secret.verify(value)?.account.has(pid),
                Self::Prefix(prefix) => value.starts_with(prefix),
                Self::One(mark) => value == mark.value && mark.account.has(pid),
            };
            is_one.then_some(value)
        })
    }
}

fn value_in(variable: &[u8]) -> Option<&[u8]> {
    variable
        .strip_prefix(INSTANCE.as_bytes())?
        .strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_not_made_up() {
        let secret = Secret::new().unwrap();
        let mark = secret.mark(3, 1000);
        assert_eq!(secret.verify(mark.value()), Some(mark.clone()));
        assert_eq!(Mark::of_tree(mark.tree(), None), Some(mark.clone()));
        assert!(mark.tree().starts_with(&secret.orphan_marker()));
        assert!(!mark.value().contains(&secret.0));
        let code = mark.value().rsplit_once('.').unwrap().1;
        for other in [
            format!("4.1000.{code}"),
            format!("3.0.{code}"),
            format!("3.1000.{}", "0".repeat(32)),
            format!("03.1000.{code}"),
            format!("3.1000.{code}."),
            "3.1000".to_owned(),
            String::new(),
        ] {
            assert_eq!(secret.verify(&other), None, "{other}");
        }
        assert_eq!(Secret::new().unwrap().verify(mark.value()), None);
    }

    #[test]
    fn a_bearer_is_of_the_account_of_its_mark() {
        let own = std::process::id();
        let uid = real_uid(own).unwrap();
        let secret = Secret::new().unwrap();
        let check = |uid: u32, counts: bool| {
            let mark = secret.mark(0, uid);
            let environment = format!("A=1\0{INSTANCE}={}\0", mark.value());
            let marks = Marks::of_orphan_marker(&secret.orphan_marker()).unwrap();
            let borne = marks.borne_by(own, environment.as_bytes());
            assert_eq!(borne.is_some(), counts, "{uid}");
        };
        check(uid, true);
        check(uid + 1, false);
    }

    /// Supervisors of earlier versions left marks of this form.
    #[test]
    fn an_old_mark_is_read() {
        let mark = Mark::of_tree("instance a.0", None).unwrap();
        assert_eq!((mark.value(), mark.tree()), ("a.0", "instance a.0"));
        let marks = Marks::of_orphan_marker("instance a").unwrap();
        let environment = b"MAINSTAY_INSTANCE=a.7\0";
        assert_eq!(marks.borne_by(1, environment), Some("a.7"));
        assert_eq!(marks.borne_by(1, b"MAINSTAY_INSTANCE=ab.7\0"), None);
    }
}
