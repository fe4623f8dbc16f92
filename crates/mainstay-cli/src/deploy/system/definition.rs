//! Service definitions for the system's manager: the host in hosted mode, the program itself in
//! direct mode.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use mainstay::{Account, Definition, Limit, Manager, Readiness, Recovery, Scope, Start, Systemd};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::spec::{
    self, BeyondLimit, CodeAction, Policy, Priority, Ready, Reload, Signal, Spec, StopAsk,
};
use mainstay_host::launch;

use super::OWN_DIRS;
use super::order::Wanted;
use crate::installed::{Installed, Mode};
use crate::margins::{of_host, start_limit};

/// The largest number of increasing restart delays passed to a manager.
const PAUSES: usize = 20;
/// The exit code after which a direct program is not restarted: its state failed to load.
const STATE_FAILED: u8 = 201;

impl Installed {
    /// Returns the manager's definition of the service, and the settings of the manifest that the
    /// manager does not support, one text each.
    pub(super) fn definition(
        &self,
        wanted: &Wanted<'_>,
        manifest: &Path,
        base_dir: &Path,
    ) -> Result<(Definition, Vec<String>), Failure> {
        let spec = wanted.spec;
        let (definition, losses) = match self.record.mode {
            Mode::Hosted => (
                self.hosted(spec, manifest, base_dir, &wanted.account)?,
                Vec::new(),
            ),
            Mode::Direct => self.direct(spec, base_dir)?,
        };
        let mut definition = definition
            .display_name(spec.display_name())
            .account(wanted.account.clone())
            .systemd(|systemd| sandboxed(systemd, spec, wanted.has_sandbox));
        // The host runs as root and switches to the user's account for the program.
        let is_hosted = self.record.mode == Mode::Hosted && wanted.account == Account::LocalSystem;
        let has_user = matches!(spec.account(), Some(spec::Account::User(_)));
        if is_hosted && has_user && spec.sandbox().is_some() {
            let state = self.state.path();
            definition = definition.systemd(|systemd| systemd.confine_root().writable(state));
        }
        for name in spec.inherit_env() {
            definition = definition.systemd(|systemd| systemd.pass_variable(name));
        }
        // A service that was disabled by an operator stays disabled.
        let is_enabled = self.service().is_enabled();
        if self.root.is_none() && is_enabled.is_ok_and(|is_enabled| !is_enabled) {
            definition = definition.start(Start::Manual);
        }
        if let Some(text) = spec.description() {
            definition = definition.description(text);
        }
        for need in spec.needs() {
            let name = spec.manager_name_of(need);
            definition = match self.record.mode {
                // The host checks that the need is running.
                Mode::Hosted => definition.wants(name),
                Mode::Direct => definition.needs(name),
            };
        }
        Ok((definition, losses))
    }

    /// Returns the definition of the host.
    fn hosted(
        &self,
        spec: &Spec,
        manifest: &Path,
        base_dir: &Path,
        account: &Account,
    ) -> Result<Definition, Failure> {
        let mut program = std::env::current_exe().map_err(|error| {
            Failure::new(Code::Failed, format!("cannot find mainstay: {error}"))
        })?;
        if let Some(root) = &self.root {
            let below = program
                .strip_prefix(root)
                .map(|path| Path::new("/").join(path));
            program = below
                .ok()
                .or_else(|| in_image("mainstay", root))
                .unwrap_or(program);
        }
        let own_manifest = manifest;
        let HostPlace {
            state,
            manifest,
            systemd,
        } = self.host_place(manifest, account);
        let systemd = if self.is_checked_before() && !spec.needs().is_empty() {
            systemd.before_start(self.needs_check(&program, own_manifest, base_dir))
        } else {
            systemd
        };
        let (state, name) = (state.as_os_str(), self.name.as_str().as_ref());
        let arguments = [
            "--state-dir".as_ref(),
            state,
            "host".as_ref(),
            name,
            "--manifest".as_ref(),
            manifest.as_os_str(),
            "--base-dir".as_ref(),
            base_dir.as_os_str(),
        ];
        let timeout = format!("{}s", start_limit(spec).as_secs().max(1));
        let is_ready: [&OsStr; 8] = [
            program.as_os_str(),
            "--state-dir".as_ref(),
            state,
            "status".as_ref(),
            name,
            "--wait".as_ref(),
            timeout.as_ref(),
            "--started".as_ref(),
        ];
        let definition = self
            .service()
            .ready_check(is_ready)
            .executable(&program)
            .arguments(arguments)
            .supervises()
            .systemd(|_| systemd);
        let definition = of_host(definition, spec);
        Ok(if cfg!(unix) {
            // The manifest sets the working directory of the program.
            definition.working_dir("/")
        } else {
            definition
        })
    }

    /// Returns the command that checks the needs. It runs as root, in the state directory of all
    /// services.
    fn needs_check<'a>(
        &'a self,
        program: &'a Path,
        manifest: &'a Path,
        base_dir: &'a Path,
    ) -> [&'a OsStr; 10] {
        let all = self.place.ancestors().nth(2).unwrap_or(&self.place);
        [
            program.as_os_str(),
            "--state-dir".as_ref(),
            all.as_os_str(),
            "host".as_ref(),
            self.name.as_str().as_ref(),
            "--manifest".as_ref(),
            manifest.as_os_str(),
            "--base-dir".as_ref(),
            base_dir.as_os_str(),
            "--check-needs".as_ref(),
        ]
    }

    /// Returns the paths of a host's own files. An account that exists only while its service runs
    /// owns nothing but what systemd provides.
    fn host_place(&self, manifest: &Path, account: &Account) -> HostPlace {
        let systemd = Systemd::default();
        if !self.is_dynamic(account) {
            return HostPlace {
                state: self.state.path().to_owned(),
                manifest: manifest.to_owned(),
                systemd,
            };
        }
        let name = manifest.file_name().unwrap_or_default();
        let name = name.display().to_string();
        let own_dir = self.own_dir();
        HostPlace {
            state: Path::new(OWN_DIRS).join(&own_dir),
            manifest: format!("credential:{name}").into(),
            systemd: systemd.state_directory(own_dir).credential(name, manifest),
        }
    }

    /// Returns whether systemd creates the account when it starts the service.
    pub(super) fn is_dynamic(&self, account: &Account) -> bool {
        self.record.manager == Manager::Systemd
            && self.record.scope() == Scope::System
            && *account == Account::Virtual
    }

    /// Returns the definition that runs the program itself.
    fn direct(&self, spec: &Spec, base_dir: &Path) -> Result<(Definition, Vec<String>), Failure> {
        let name = spec.name();
        let cannot = |why: String| {
            let message = format!("cannot install {name}: {why}");
            Failure::new(Code::MissingPart, message)
        };
        let program = spec.command().program();
        let search = std::env::var_os("PATH");
        let find = |program: &str| {
            let image = self.root.as_deref().filter(|_| !program.contains('/'));
            let found = image.and_then(|root| in_image(program, root)).map(Ok);
            found
                .unwrap_or_else(|| launch::find_program(program, base_dir, search.as_deref()))
                .map_err(|error| cannot(format!("program {program}: {error}")))
        };
        let path = find(program)?;
        let mut losses = UnsupportedSettings(Vec::new());
        let mut definition = self
            .service()
            .executable(path)
            .arguments(spec.command().args())
            .working_dir(launch::working_dir(spec, base_dir))
            .start_timeout(spec.start().timeout())
            .graceful(spec.stop().graceful())
            .readiness(match spec.start().ready() {
                Some(Ready::Notify(_)) => Readiness::Notify,
                _ => Readiness::Exec,
            })
            .stop_scope(match spec.stop().scope() {
                spec::StopScope::Tree => mainstay::StopScope::Tree,
                spec::StopScope::Main => mainstay::StopScope::Main,
            })
            .cpus(spec.cpus().iter().copied())
            .recovery(recovery(spec, &mut losses));
        let account = spec.account().unwrap_or(&spec::Account::Dynamic);
        if self.record.manager == Manager::Systemd && !matches!(account, spec::Account::LocalSystem)
        {
            let own_dir = self.own_dir();
            definition = definition.systemd(|systemd| systemd.state_directory(own_dir));
        }
        definition = definition.env(launch::LOG_LEVEL, spec.log().level().name());
        for (name, value) in spec.env().iter() {
            if value.contains("${") {
                let why = format!("env {name}: `${{…}}` is expanded in hosted mode only");
                return Err(cannot(why).hint("use --mode hosted, or write the value in full"));
            }
            definition = definition.env(name, value);
        }
        if matches!(spec.start().ready(), Some(Ready::Notify(_))) {
            definition = definition.systemd(Systemd::notified_by_tree);
        }
        if let Some(path) = spec.env_file() {
            definition = definition.env_file(base_dir.join(path));
        }
        if let Some(priority) = spec.priority() {
            definition = definition.nice(match priority {
                Priority::Low => 19,
                Priority::BelowNormal => 10,
                Priority::Normal => 0,
                Priority::AboveNormal => -5,
                Priority::High => -10,
            });
        }
        for address in spec.listen() {
            definition = definition.listen(address.to_string());
        }
        let is_left_to_manager = self.record.manager != Manager::Systemd;
        losses.lose_if(
            is_left_to_manager && !spec.inherit_env().is_empty(),
            "`inherit_env`: the service manager determines the inherited environment",
        );
        let limits = spec.limits();
        for (limit, value) in [
            (Limit::OpenFiles, limits.open_files),
            (Limit::Processes, limits.processes),
            (Limit::CoreSize, limits.core_size),
            (Limit::LockedMemory, limits.locked_memory),
        ] {
            if let Some(value) = value {
                definition = definition.limit(limit, value);
            }
        }
        let asks = spec.stop().ladder().iter().map(|step| step.ask());
        let mut signals = asks.filter_map(|ask| match ask {
            StopAsk::Signal(signal) => Some(signal),
            StopAsk::Close => None,
        });
        let signal = signals.next().unwrap_or(Signal::Term);
        definition = definition.stop_signal(signal.name());
        losses.lose_if(signals.next().is_some(), "further steps of `stop.ladder`");
        definition = match spec.reload() {
            None => definition.reload_signal(Signal::Hup.name()),
            Some(Reload::Signal(signal)) => definition.reload_signal(signal.name()),
            Some(Reload::Exec(argv)) => {
                let program = argv.program();
                let path = find(program)?;
                let words = argv.args().iter().map(Into::into);
                definition.reload_command(std::iter::once(path.into_os_string()).chain(words))
            }
        };
        let ready = spec.start().ready();
        let is_asked = !matches!(ready, None | Some(Ready::Notify(_)));
        losses.lose_if(
            is_asked,
            "`start.ready`: it counts as ready as soon as it runs",
        );
        losses.lose_if(!spec.wait_for().is_empty(), "`wait_for`");
        let manager = self.record.manager;
        let stops_too = [
            Manager::Systemd,
            Manager::OpenRc,
            Manager::Dinit,
            Manager::Upstart,
        ];
        losses.lose_if(
            !spec.needs().is_empty() && stops_too.contains(&manager),
            &format!(
                "independent stops: {manager} also stops the service when one that it needs stops"
            ),
        );
        losses.lose_if(spec.liveness().is_some(), "`liveness`");
        losses.lose_if(spec.snapshot().is_some(), "`snapshot`");
        losses.lose_if(spec.http().is_some(), "`http`");
        losses.lose_if(spec.on_alert().is_some(), "`on_alert`");
        losses.lose_if(
            *spec.log() != spec::LogPolicy::default(),
            "`log`: the service manager receives the output",
        );
        Ok((definition, losses.0))
    }
}

/// Finds a program in the system below `root`, in the directories of the usual `PATH`.
fn in_image(program: &str, root: &Path) -> Option<PathBuf> {
    let dirs = [
        "usr/local/sbin",
        "usr/local/bin",
        "usr/sbin",
        "usr/bin",
        "sbin",
        "bin",
    ];
    let paths = dirs.iter().map(|dir| Path::new(dir).join(program));
    let mut found = paths.filter(|path| root.join(path).is_file());
    found.next().map(|path| Path::new("/").join(path))
}

/// The paths passed to a host.
struct HostPlace {
    state: PathBuf,
    manifest: PathBuf,
    systemd: Systemd,
}

struct UnsupportedSettings(Vec<String>);

impl UnsupportedSettings {
    fn lose(&mut self, what: &str) {
        self.0.push(what.to_owned());
    }

    fn lose_if(&mut self, is_lost: bool, what: &str) {
        if is_lost {
            self.lose(what);
        }
    }
}

fn sandboxed(systemd: Systemd, spec: &Spec, has_sandbox: bool) -> Systemd {
    let systemd = if has_sandbox {
        systemd
    } else {
        systemd.without_sandbox()
    };
    let Some(sandbox) = spec.sandbox() else {
        return systemd;
    };
    let paths = sandbox.writable.iter();
    let systemd = paths.fold(systemd, |systemd, path| systemd.writable(path));
    let names = sandbox.capabilities.iter();
    let mut systemd = names.fold(systemd, |systemd, name| systemd.capability(name));
    if sandbox.jit {
        systemd = systemd.makes_code();
    }
    if sandbox.devices {
        systemd = systemd.devices();
    }
    systemd
}

/// Translates the exit code contract as far as the manager supports it natively.
fn recovery(spec: &Spec, losses: &mut UnsupportedSettings) -> Recovery {
    let recovery = spec.recovery();
    let backoff = recovery.backoff();
    let mut restart_after = Vec::new();
    let mut pause = backoff.base();
    while restart_after.len() < PAUSES {
        restart_after.push(pause.min(backoff.max()));
        if pause >= backoff.max() || pause.is_zero() || backoff.factor() <= 1.0 {
            break;
        }
        pause = pause.mul_f64(backoff.factor());
    }
    let action = |code: u8| recovery.codes().get(&code.into()).copied();
    let has = |code: u8, asked: CodeAction| action(code) == Some(asked);
    let all = || 1..=u8::MAX;
    let is_halt = |code: &u8| match action(*code) {
        Some(action) => matches!(action, CodeAction::Halt | CodeAction::Restore),
        None => *code == STATE_FAILED,
    };
    losses.lose_if(
        all().any(|code| has(code, CodeAction::Restore)) || action(STATE_FAILED).is_none(),
        "restore of a snapshot after exit code 201: the service stays down",
    );
    if recovery.policy() != Policy::Restart {
        restart_after.clear();
        losses.lose_if(
            recovery.policy() == Policy::Strict,
            "retries after exit code 202: the service stays down",
        );
        losses.lose_if(
            recovery
                .codes()
                .values()
                .any(|action| matches!(action, CodeAction::Restart | CodeAction::Retry)),
            "restarts after single exit codes: the service stays down",
        );
    } else {
        losses.lose("separate count of retries after 202: they count as restarts");
    }
    losses.lose_if(
        has(0, CodeAction::Restart),
        "restart after exit code 0: the service stays down",
    );
    let limit = recovery.limit();
    let halts = limit.filter(|limit| limit.then() == BeyondLimit::Halt);
    losses.lose_if(
        recovery.policy() == Policy::Restart && limit.is_some() && halts.is_none(),
        "crash-loop detection: the service is restarted without an alert",
    );
    Recovery {
        restart_after,
        reset_after: recovery.reset_after(),
        crashes_only: false,
        limit: halts.map(|limit| (limit.restarts().saturating_add(1), limit.window())),
        halts: all().filter(is_halt).collect(),
        clean: all().filter(|code| has(*code, CodeAction::Stop)).collect(),
    }
}

/// Returns the account that the manager uses. The default is an account with minimal rights, unless
/// the manifest names one. A host that switches to a user's account runs as root.
#[cfg(unix)]
pub(crate) fn account(of: Option<&spec::Account>, mode: Mode) -> Account {
    match (of, mode) {
        (Some(spec::Account::LocalSystem), _) | (Some(spec::Account::User(_)), Mode::Hosted) => {
            Account::LocalSystem
        }
        (Some(spec::Account::User(name)), Mode::Direct) => Account::User(name.clone(), None),
        _ => Account::Virtual,
    }
}

/// Returns the account that the manager uses. The default is the one with the fewest rights.
#[cfg(windows)]
pub(crate) fn account(of: Option<&spec::Account>, _mode: Mode) -> Account {
    match of {
        None | Some(spec::Account::Virtual | spec::Account::Dynamic) => Account::Virtual,
        Some(spec::Account::LocalSystem) => Account::LocalSystem,
        Some(spec::Account::LocalService) => Account::LocalService,
        Some(spec::Account::NetworkService) => Account::NetworkService,
        Some(spec::Account::User(name)) => Account::User(name.clone(), None),
        Some(spec::Account::Gmsa(name)) => Account::Managed(name.clone()),
    }
}
