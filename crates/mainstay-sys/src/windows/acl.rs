//! The accounts that may change a file, by its owner and its access control list ("Access Control
//! Lists", "File Access Rights Constants", Microsoft). Pure: tests do not need Windows.

/// An entry of an access control list, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ace {
    pub(crate) kind: AceKind,
    /// Set if the entry applies only to objects created in the directory.
    pub(crate) is_inherit_only: bool,
    pub(crate) mask: u32,
    /// The account, as `S-1-…`.
    pub(crate) sid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AceKind {
    Allow,
    Deny,
}

/// The position of a path relative to the object being checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The file or directory itself, or the directory that contains a program: a library placed
    /// next to a program is loaded.
    Itself,
    /// A directory further above, whose content must not be replaceable. Others are often allowed
    /// to create directories of their own there.
    Above,
}

const WRITE_DATA: u32 = 0x2;
const APPEND_DATA: u32 = 0x4;
const DELETE_CHILD: u32 = 0x40;
const DELETE: u32 = 0x1_0000;
const WRITE_DAC: u32 = 0x4_0000;
const WRITE_OWNER: u32 = 0x8_0000;
const GENERIC_ALL: u32 = 0x1000_0000;
const GENERIC_WRITE: u32 = 0x4000_0000;

const EVERYONE: &str = "S-1-1-0";
/// The SID that stands for the owner of the object.
const OWNER_RIGHTS: &str = "S-1-3-4";
/// The system, its administrators, and the Windows installer itself.
const OF_SYSTEM: [&str; 3] = [
    "S-1-5-18",
    "S-1-5-32-544",
    "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",
];
const NAMES: [(&str, &str); 7] = [
    (EVERYONE, "Everyone"),
    ("S-1-5-7", "Anonymous"),
    ("S-1-5-11", "Authenticated Users"),
    ("S-1-5-4", "Interactive"),
    ("S-1-5-32-545", "Users"),
    ("S-1-5-32-546", "Guests"),
    ("S-1-5-32-547", "Power Users"),
];

/// Returns an account other than the system, administrators and `user` that may change the object.
/// `list` is `None` if there is no list at all, which allows everything to everyone.
pub(crate) fn stranger(
    owner: &str,
    list: Option<&[Ace]>,
    place: Place,
    user: &str,
) -> Option<String> {
    let is_trusted = |sid: &str| OF_SYSTEM.contains(&sid) || sid == user;
    // An owner can always change the list.
    if !is_trusted(owner) {
        return Some(name(owner));
    }
    let Some(list) = list else {
        return Some(name(EVERYONE));
    };
    let list = list.iter().filter(|ace| !ace.is_inherit_only);
    let list: Vec<&Ace> = list.collect();
    list.iter().enumerate().find_map(|(index, ace)| {
        if ace.kind == AceKind::Deny || is_trusted(&ace.sid) || ace.sid == OWNER_RIGHTS {
            return None;
        }
        let denied = list[..index]
            .iter()
            .filter(|other| other.kind == AceKind::Deny)
            .filter(|other| other.sid == ace.sid || other.sid == EVERYONE)
            .fold(0, |denied, other| denied | other.mask);
        (ace.mask & !denied & changes(place) != 0).then(|| name(&ace.sid))
    })
}

fn changes(place: Place) -> u32 {
    let exchange = DELETE | DELETE_CHILD | WRITE_DAC | WRITE_OWNER | GENERIC_ALL;
    match place {
        Place::Itself => exchange | WRITE_DATA | APPEND_DATA | GENERIC_WRITE,
        Place::Above => exchange,
    }
}

/// Returns the display name of a SID.
fn name(sid: &str) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == sid);
    known.map_or_else(|| sid.to_owned(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMINISTRATORS: &str = "S-1-5-32-544";
    const USERS: &str = "S-1-5-32-545";
    const ME: &str = "S-1-5-21-1-2-3-1001";
    const MODIFY: u32 = 0x1301BF;
    const READ_AND_RUN: u32 = 0x1200A9;

    fn allow(sid: &str, mask: u32) -> Ace {
        Ace {
            kind: AceKind::Allow,
            is_inherit_only: false,
            mask,
            sid: sid.to_owned(),
        }
    }

    #[track_caller]
    fn check(owner: &str, list: &[Ace], place: Place, expected: Option<&str>) {
        let found = stranger(owner, Some(list), place, ME);
        assert_eq!(found.as_deref(), expected, "{list:?}");
    }

    #[test]
    fn whoever_may_change_it_is_found() {
        use Place::{Above, Itself};
        let program_files = [
            allow("S-1-5-18", 0x1F01FF),
            allow(ADMINISTRATORS, 0x1F01FF),
            allow(ME, 0x1F01FF),
            allow(OWNER_RIGHTS, 0x1F01FF),
            allow(USERS, READ_AND_RUN),
        ];
        check(ADMINISTRATORS, &program_files, Itself, None);
        check(ME, &program_files, Above, None);
        // C:\app, which inherits this entry.
        let app = [allow("S-1-5-11", MODIFY)];
        check(ADMINISTRATORS, &app, Itself, Some("Authenticated Users"));
        check(ADMINISTRATORS, &app, Above, Some("Authenticated Users"));
        check(
            "S-1-5-21-1-2-3-1002",
            &[],
            Itself,
            Some("S-1-5-21-1-2-3-1002"),
        );
        check(
            ADMINISTRATORS,
            &[allow(EVERYONE, GENERIC_ALL)],
            Above,
            Some("Everyone"),
        );
        // C:\ lets users create directories. Users own the directories that they create, and the
        // inheritable entry applies only to those.
        let root = [
            allow("S-1-5-11", APPEND_DATA),
            Ace {
                is_inherit_only: true,
                ..allow("S-1-5-11", MODIFY)
            },
        ];
        check(ADMINISTRATORS, &root, Above, None);
        check(ADMINISTRATORS, &root, Itself, Some("Authenticated Users"));
        assert_eq!(
            stranger(ADMINISTRATORS, None, Itself, ME).as_deref(),
            Some("Everyone")
        );
    }

    #[test]
    fn a_refusal_counts_for_what_follows_it() {
        let deny = |sid: &str| Ace {
            kind: AceKind::Deny,
            ..allow(sid, MODIFY)
        };
        let users = || allow(USERS, WRITE_DATA);
        check(ADMINISTRATORS, &[deny(USERS), users()], Place::Itself, None);
        check(
            ADMINISTRATORS,
            &[deny(EVERYONE), users()],
            Place::Itself,
            None,
        );
        check(
            ADMINISTRATORS,
            &[users(), deny(USERS)],
            Place::Itself,
            Some("Users"),
        );
    }
}
