//! Deviations that a single source shows.

use std::fmt;

use super::Subject;
use super::rules::thaw;

/// A deviation that needs no second source. `Display` formats the cause as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// Something differs from what is registered.
    Registered(String),
    /// The program differs from the registered one, or is missing.
    Program(String),
    /// The registry cannot be read; what helps against that, if it is known.
    Unreadable(String, Option<String>),
    /// The service runs an earlier definition; the sentence says what to do.
    Outdated(String),
    /// The supervisor does not respond, for the given reason.
    Silent(String),
    /// The supervisor was stopped by a signal or by a debugger.
    Suspended(u32),
    /// The supervisor was killed.
    Orphaned {
        /// The process ID of the supervisor.
        pid: u32,
        /// Set if the service still runs.
        is_alive: bool,
        /// The command that starts the supervisor again.
        command: String,
    },
    /// The embedded manager, which is to run the service, is not running.
    NoDaemon,
    /// The supervisor is in a control group that is frozen by this file.
    Frozen(String),
    /// The process of the manager that restarts the supervisor, named here, has ended.
    Unwatched(&'static str),
    /// The service failed, for the given reason, and its manager does not start it again.
    Failed(String),
    /// The service failed, for the given reason, and is about to be started again.
    BackingOff(String),
    /// The service keeps failing, for the given reason.
    CrashLooping(String),
    /// The service waits for a need that will not become ready soon.
    Blocked(String),
    /// The unit file has changed since the manager loaded it.
    NotReloaded,
    /// The service is up and will not start at boot.
    NotAtBoot,
    /// The Service Control Manager will delete the service once it has stopped.
    MarkedForDelete,
    /// A process of another program has an address of the service.
    PortOfAnother {
        /// The address.
        address: String,
        /// The process.
        who: String,
    },
    /// Nobody listens on an address of a service that is ready.
    NotListening(String),
    /// A process runs the command of a service that is down.
    Stray(u32),
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(what)
            | Self::Program(what)
            | Self::Unreadable(what, _)
            | Self::Outdated(what) => f.write_str(what),
            Self::Silent(why) => write!(f, "its supervisor does not respond: {why}"),
            Self::Suspended(pid) => write!(
                f,
                "its supervisor (pid {pid}) was stopped by a signal or by a debugger"
            ),
            Self::Frozen(_) => f.write_str("its supervisor is frozen"),
            Self::Unwatched(by) => write!(
                f,
                "{by}, which restarts its supervisor after a crash, is not running"
            ),
            Self::Orphaned { pid, is_alive, .. } => {
                let rest = if *is_alive {
                    "; it runs without one"
                } else {
                    ""
                };
                write!(f, "its supervisor (pid {pid}) was killed{rest}")
            }
            Self::NoDaemon => f.write_str("`mainstay daemon`, which should run it, is not running"),
            Self::Failed(why) => write!(f, "it failed and is down: {why}"),
            Self::BackingOff(why) => write!(f, "it failed and will be restarted: {why}"),
            Self::CrashLooping(why) => write!(f, "it keeps failing: {why}"),
            Self::Blocked(why) => write!(f, "it waits: {why}"),
            Self::NotReloaded => {
                f.write_str("its unit file has changed, and the manager still uses the old one")
            }
            Self::NotAtBoot => f.write_str("it is running, but will not start at boot"),
            Self::MarkedForDelete => f.write_str(
                "it is marked for deletion: Windows removes it once it has stopped and all \
                 handles to it are closed",
            ),
            Self::PortOfAnother { address, who } => {
                write!(f, "{address} belongs to another program: {who}")
            }
            Self::NotListening(address) => write!(f, "no process listens on {address}"),
            Self::Stray(pid) => write!(
                f,
                "pid {pid} runs the same command, but does not belong to the service"
            ),
        }
    }
}

impl Deviation {
    /// Returns what an operator can do about it.
    pub(super) fn hint(&self, subject: Subject<'_>) -> Option<String> {
        let Subject { name, manager } = subject;
        let restart = format!("mainstay restart {name}");
        let start = format!("mainstay start {name}");
        Some(match self {
            // The sentence says it.
            Self::Outdated(_) => return None,
            Self::Unreadable(_, hint) => return hint.clone(),
            Self::Program(_) => "put the registered program back; or accept the one that is there \
                                 now: install the manifest again"
                .to_owned(),
            Self::Registered(_) => format!(
                "to restore what is registered, install the manifest again; to see changes of the \
                 definition: mainstay diff {name}"
            ),
            Self::Suspended(pid) => format!("to let it continue: kill -CONT {pid}"),
            Self::Silent(_) => format!("restart it: {restart}"),
            Self::Frozen(file) => format!("to let it continue: {}", thaw(file)),
            Self::Unwatched(_) => format!("restart it: {restart}"),
            Self::Orphaned {
                is_alive, command, ..
            } => {
                let then = if *is_alive { "adopts it" } else { "starts it" };
                format!("start its supervisor again, which {then}: {command}")
            }
            Self::NoDaemon => "start it: mainstay daemon, or the service that runs it".to_owned(),
            Self::BackingOff(_) => format!("read its output: mainstay logs {name} -n 50"),
            Self::Failed(_) | Self::CrashLooping(_) => format!(
                "read its output (mainstay logs {name} -n 50), fix the cause, then: {start}"
            ),
            Self::Blocked(_) => format!("see what it waits for: mainstay status {name}"),
            Self::NotReloaded => format!("load it with `systemctl daemon-reload`, then: {restart}"),
            Self::NotAtBoot => format!("if it is to start at boot: mainstay enable {name}"),
            Self::MarkedForDelete => {
                "close programs that have it open (services.msc, the Task Manager), then \
                 install it again"
                    .to_owned()
            }
            Self::PortOfAnother { .. } => {
                format!("end that program or change the port, then: {restart}")
            }
            Self::NotListening(_) => format!("restart it: {restart}"),
            Self::Stray(pid) => format!(
                "if {manager} should run it, end pid {pid} first; see who started it: ps -o \
                 ppid,lstart,args -p {pid}"
            ),
        })
    }
}
