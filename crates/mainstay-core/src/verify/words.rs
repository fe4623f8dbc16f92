//! The states of service managers, in their own codes and words, as states of mainstay.

use crate::engine::StateName;

/// One state in the codes and words of Windows and systemd. docs/verify.md contains this table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The state.
    pub state: StateName,
    /// `SERVICE_STATUS.dwCurrentState` (winsvc.h), which `sc query` also prints.
    pub scm: u32,
    /// `ServiceControllerStatus`, which `Get-Service` prints.
    pub get_service: &'static str,
    /// The `ActiveState` of systemd (org.freedesktop.systemd1(5)), where there is one.
    pub systemd: &'static [&'static str],
}

/// The states that managers report.
pub const TABLE: &[Row] = &[
    Row {
        state: StateName::Stopped,
        scm: 1,
        get_service: "Stopped",
        systemd: &["inactive", "failed"],
    },
    Row {
        state: StateName::StartPending,
        scm: 2,
        get_service: "StartPending",
        systemd: &["activating"],
    },
    Row {
        state: StateName::StopPending,
        scm: 3,
        get_service: "StopPending",
        systemd: &["deactivating"],
    },
    Row {
        state: StateName::Running,
        scm: 4,
        get_service: "Running",
        systemd: &["active", "reloading", "refreshing"],
    },
    Row {
        state: StateName::ContinuePending,
        scm: 5,
        get_service: "ContinuePending",
        systemd: &[],
    },
    Row {
        state: StateName::PausePending,
        scm: 6,
        get_service: "PausePending",
        systemd: &[],
    },
    Row {
        state: StateName::Paused,
        scm: 7,
        get_service: "Paused",
        systemd: &[],
    },
];

fn find(is_it: impl Fn(&Row) -> bool) -> Option<StateName> {
    TABLE.iter().find(|row| is_it(row)).map(|row| row.state)
}

/// Returns the state for a code of the Service Control Manager.
pub fn of_scm(code: u32) -> Option<StateName> {
    find(|row| row.scm == code)
}

/// Returns the state for an `ActiveState` of systemd.
pub fn of_systemd(active: &str) -> Option<StateName> {
    find(|row| row.systemd.contains(&active))
}

/// Returns the code of the Service Control Manager for a state; 0 if it has none.
pub fn scm_of(state: StateName) -> u32 {
    let row = TABLE.iter().find(|row| row.state == state);
    row.map_or(0, |row| row.scm)
}

/// Returns a number in the output of `reg.exe query KEY`, whose lines are a name, a type and a
/// value: `    Start    REG_DWORD    0x2`.
pub fn of_reg(output: &str, name: &str) -> Option<u32> {
    output.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_it = words.next()? == name && words.next()? == "REG_DWORD";
        let digits = words.next()?.strip_prefix("0x")?;
        u32::from_str_radix(digits, 16).ok().filter(|_| is_it)
    })
}

/// Returns the state and the process ID in the output of `sc.exe queryex`.
///
/// The names of the fields depend on the language of Windows; their order, and the codes, do not.
/// `STATE` is the second field with a number (after `TYPE`), and `PID` the one before the last.
pub fn of_sc(output: &str) -> Option<(StateName, Option<u32>)> {
    let fields = output.lines().filter_map(|line| {
        let (_, value) = line.split_once(" : ")?;
        let number = value.split_ascii_whitespace().next()?;
        match number.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => number.parse().ok(),
        }
    });
    let fields: Vec<u32> = fields.collect();
    let state = of_scm(*fields.get(1)?)?;
    // TYPE, STATE, WIN32_EXIT_CODE, SERVICE_EXIT_CODE, CHECKPOINT, WAIT_HINT, PID
    let pid = fields.get(6).copied().filter(|pid| *pid != 0);
    Some((state, pid))
}

/// Returns the state for the number or the word that PowerShell prints as the status of
/// `Get-Service`. The words of an enumeration are English in every language of Windows.
pub fn of_get_service(output: &str) -> Option<StateName> {
    let word = output.trim();
    match word.parse() {
        Ok(code) => of_scm(code),
        Err(_) => find(|row| row.get_service == word),
    }
}

/// The answer of `sv status` (sv(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervised {
    /// The state.
    pub state: StateName,
    /// The process ID of the service.
    pub pid: Option<u32>,
    /// Set if the service is to run.
    pub is_wanted: bool,
}

/// Parses the first service in the output of `sv status` (sv(8)), such as
/// `run: orders: (pid 812) 5s, normally down, want down` or `down: orders: 3s, want up`.
pub fn of_sv(output: &str) -> Option<Supervised> {
    let line = output.lines().next()?;
    let line = line.split("; ").next()?;
    let (word, rest) = line.split_once(": ")?;
    let has = |what: &str| rest.split(", ").any(|it| it == what);
    let pid = rest
        .split_once("(pid ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(pid, _)| pid.parse().ok());
    let state = match word {
        "run" if has("paused") => StateName::Paused,
        "run" if has("want down") || has("got TERM") => StateName::StopPending,
        "run" => StateName::Running,
        "finish" if has("want down") => StateName::StopPending,
        "finish" => StateName::StartPending,
        "down" => StateName::Stopped,
        _ => return None,
    };
    let is_wanted = match state {
        StateName::Stopped => has("want up"),
        _ => !has("want down"),
    };
    Some(Supervised {
        state,
        pid,
        is_wanted,
    })
}
