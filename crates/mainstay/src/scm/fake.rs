//! A fake service control manager: keeps services as the real one does, counts its calls, and
//! refuses the call that a test selects.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::manage::{self, Installed};
use super::refusal;
use super::{Base, Kind, Scm, ServiceStatus, Setting, State};
use crate::manager::Enablement;
use crate::{Account, Definition, ErrorKind, Password, Recovery, Start, Trigger, service};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fake {
    services: BTreeMap<String, Entry>,
    /// The sources of the Event Log.
    sources: BTreeMap<String, String>,
    /// The accounts that may log on as a service.
    logons: BTreeSet<String>,
    /// The settings that this system does not support.
    lacks: Vec<Kind>,
    /// The number of changing calls so far.
    changes: usize,
    /// The changing call that is refused, and its error code.
    refuses: Option<(usize, u32)>,
    /// The state in which the next control finds its service, and the error code.
    meets: Option<(State, u32)>,
    /// Set if the caller has no right to any service.
    denies: bool,
    now: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    settings: Vec<Setting>,
    state: State,
    checkpoint: u32,
    /// The end of the pending operation.
    busy_until: Duration,
    /// The state after the pending operation.
    next: State,
    /// The duration of starts, stops and pauses. `None` means that they never end and never advance
    /// the checkpoint.
    takes: Option<Duration>,
    /// The time that other programs keep the service open after its deletion.
    held: Duration,
    deleted_at: Option<Duration>,
}

impl Fake {
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match self.refuses {
            Some((number, code)) if number == self.changes => Err(error(code)),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, name: &str) -> io::Result<&mut Entry> {
        let now = self.now;
        let is_gone = |entry: &Entry| entry.deleted_at.is_some_and(|at| now >= at + entry.held);
        self.services.retain(|_, entry| !is_gone(entry));
        let entry = self.services.get_mut(name);
        match entry.ok_or_else(|| error(refusal::DOES_NOT_EXIST))? {
            _ if self.denies => Err(error(refusal::ACCESS_DENIED)),
            entry => Ok(entry),
        }
    }
}

impl Entry {
    fn account(&self) -> &str {
        let base = self.settings.iter().find_map(|setting| match setting {
            Setting::Base(base) => Some(&*base.account),
            _ => None,
        });
        base.expect("a service has an account")
    }

    fn become_after(&mut self, pending: State, next: State, now: Duration) {
        self.state = pending;
        self.next = next;
        self.checkpoint = 1;
        self.busy_until = self.takes.map_or(Duration::MAX, |takes| now + takes);
    }
}

fn error(code: u32) -> io::Error {
    io::Error::from_raw_os_error(code.cast_signed())
}

impl Scm for Fake {
    fn create(&mut self, name: &str, base: &Base) -> io::Result<()> {
        self.change()?;
        if let Ok(entry) = self.entry(name) {
            return Err(error(match entry.deleted_at {
                Some(_) => refusal::MARKED_FOR_DELETE,
                None => 1073,
            }));
        }
        let entry = Entry {
            settings: vec![Setting::Base(base.clone())],
            state: State::Stopped,
            checkpoint: 0,
            busy_until: Duration::ZERO,
            next: State::Stopped,
            takes: Some(Duration::from_secs(3)),
            held: Duration::ZERO,
            deleted_at: None,
        };
        self.services.insert(name.to_owned(), entry);
        Ok(())
    }

    fn delete(&mut self, name: &str) -> io::Result<()> {
        self.change()?;
        let now = self.now;
        self.entry(name)?.deleted_at = Some(now);
        Ok(())
    }

    fn read(&mut self, name: &str, kind: Kind) -> io::Result<Setting> {
        if kind == Kind::EventSource {
            return Ok(Setting::EventSource(self.sources.get(name).cloned()));
        }
        let is_lacking = self.lacks.contains(&kind);
        let logons = self.logons.clone();
        let entry = self.entry(name)?;
        if is_lacking {
            return Err(error(124));
        }
        if kind == Kind::LogonRight {
            return Ok(Setting::LogonRight(logons.contains(entry.account())));
        }
        let mut settings = entry.settings.iter();
        let found = settings.find(|setting| setting.kind() == kind).cloned();
        // A setting that was never written has the system's default.
        found.map_or_else(
            || match kind {
                Kind::Environment => Ok(Setting::Environment(Vec::new())),
                Kind::Description => Ok(Setting::Description(String::new())),
                Kind::Sid => Ok(Setting::Sid(0)),
                Kind::Privileges => Ok(Setting::Privileges(Vec::new())),
                Kind::Triggers => Ok(Setting::Triggers(Vec::new())),
                _ => Err(error(2)),
            },
            Ok,
        )
    }

    fn write(&mut self, name: &str, setting: &Setting) -> io::Result<()> {
        self.change()?;
        if let Setting::EventSource(source) = setting {
            self.sources.remove(name);
            self.sources
                .extend(source.clone().map(|source| (name.to_owned(), source)));
            return Ok(());
        }
        let is_lacking = self.lacks.contains(&setting.kind());
        let entry = self.entry(name)?;
        if is_lacking {
            return Err(error(124));
        }
        if entry.deleted_at.is_some() {
            return Err(error(refusal::MARKED_FOR_DELETE));
        }
        if let Setting::LogonRight(is_granted) = setting {
            let account = entry.account().to_owned();
            if *is_granted {
                self.logons.insert(account)
            } else {
                self.logons.remove(&account)
            };
            return Ok(());
        }
        let settings = &mut entry.settings;
        match settings
            .iter_mut()
            .find(|known| known.kind() == setting.kind())
        {
            Some(known) => *known = setting.clone(),
            None => settings.push(setting.clone()),
        }
        Ok(())
    }

    fn start(&mut self, name: &str, _arguments: &[OsString]) -> io::Result<()> {
        self.change()?;
        let now = self.now;
        let entry = self.entry(name)?;
        if entry.state != State::Stopped {
            return Err(error(refusal::ALREADY_RUNNING));
        }
        entry.become_after(State::StartPending, State::Running, now);
        Ok(())
    }

    fn control(&mut self, name: &str, code: u32) -> io::Result<()> {
        self.change()?;
        let now = self.now;
        let meets = self.meets.take();
        let entry = self.entry(name)?;
        if let Some((state, code)) = meets {
            entry.become_after(state, State::Stopped, now);
            return Err(error(code));
        }
        let (pending, next) = match (code, entry.state) {
            (_, State::Stopped) => return Err(error(refusal::NOT_ACTIVE)),
            (1, _) => (State::StopPending, State::Stopped),
            (2, State::Running) => (State::PausePending, State::Paused),
            (3, State::Paused) => (State::ContinuePending, State::Running),
            (6 | 128.., _) => return Ok(()),
            _ => return Err(error(1061)),
        };
        entry.become_after(pending, next, now);
        Ok(())
    }

    fn query(&mut self, name: &str) -> io::Result<ServiceStatus> {
        let now = self.now;
        let entry = self.entry(name)?;
        if entry.state.is_pending() && now >= entry.busy_until {
            entry.state = entry.next;
            entry.checkpoint = 0;
        }
        if entry.state.is_pending() && entry.takes.is_some() {
            entry.checkpoint += 1;
        }
        Ok(ServiceStatus {
            state: entry.state,
            pid: (entry.state != State::Stopped).then_some(4),
            code: 0,
            own_code: 0,
            checkpoint: entry.checkpoint,
            wait_hint: Duration::from_secs(1),
        })
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        Ok(self.services.keys().cloned().collect())
    }

    fn wait(&mut self, _name: &str, _seen: State, time: Duration) {
        self.now += time;
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    fn now(&self) -> Duration {
        self.now
    }
}

const RUNNING: &str = "C:\\orders.exe";
const GRACEFUL: Duration = Duration::from_secs(30);

fn orders() -> Definition {
    service("orders").description("Orders").env("A", "1")
}

fn changed() -> Definition {
    orders()
        .account(Account::User("joe".into(), Some(Password::new("secret"))))
        .description("Other orders")
        .env("A", "2")
        .start(Start::Manual)
        .recovery(Recovery {
            restart_after: Vec::new(),
            ..Recovery::default()
        })
        .windows(|windows| {
            windows
                .privileges(["SeChangeNotifyPrivilege"])
                .trigger(Trigger::network_down().stops())
                .security("D:(A;;LCRP;;;IU)")
        })
}

fn install(fake: &mut Fake, definition: &Definition) -> Result<Installed, crate::Error> {
    manage::install(fake, definition, Path::new(RUNNING))
}

#[test]
fn an_installation_is_there_once_and_then_only_what_differs_is_written() {
    let mut fake = Fake::default();
    let installed = install(&mut fake, &orders()).unwrap();
    let losses = [
        "exit codes after which it stays down",
        "separate count of retries after exit code 202",
    ];
    assert!(installed.is_new);
    assert_eq!(installed.losses, losses);
    let changes = fake.changes;
    let installed = install(&mut fake, &orders()).unwrap();
    assert!(!installed.is_new);
    assert_eq!(
        fake.changes,
        changes + 1,
        "only what shows that it is not deleted"
    );
    install(&mut fake, &changed()).unwrap();
    assert!(fake.changes > changes);
    let mut fresh = Fake::default();
    install(&mut fresh, &changed()).unwrap();
    let (now, fresh) = (&fake.services["orders"], &fresh.services["orders"]);
    assert_eq!(now.settings.len(), fresh.settings.len());
    for setting in &fresh.settings {
        assert!(now.settings.contains(setting), "{setting:?}");
    }
}

#[test]
fn a_step_that_fails_leaves_nothing() {
    let mut old = Fake::default();
    install(&mut old, &orders()).unwrap();
    for before in [Fake::default(), old] {
        let mut whole = before.clone();
        install(&mut whole, &changed()).unwrap();
        let steps = whole.changes - before.changes;
        assert!(steps >= 6, "{steps}");
        for step in 1..=steps {
            let mut fake = before.clone();
            fake.refuses = Some((before.changes + step, 1450));
            let error = install(&mut fake, &changed()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed, "{step}");
            // A deleted service is removed at the next access.
            let _ = fake.entry("orders");
            let mut services = fake.services;
            // A setting that did not exist before cannot be removed from the system.
            for (name, entry) in &mut services {
                let known = &before.services[name].settings;
                entry
                    .settings
                    .retain(|now| known.iter().any(|known| known.kind() == now.kind()));
            }
            assert_eq!(services, before.services, "step {step}");
            assert_eq!(fake.sources, before.sources, "step {step}");
            assert_eq!(fake.logons, before.logons, "step {step}");
        }
    }
}

/// The account of a user is restored by its password, which the manager does not return.
#[test]
fn an_account_that_cannot_be_restored_is_told_before_and_after() {
    let mut fake = Fake::default();
    install(&mut fake, &changed()).unwrap();
    let cautions = |fake: &mut Fake, definition: Definition| {
        manage::cautions(fake, &[definition], Path::new(RUNNING)).unwrap()
    };
    assert!(cautions(&mut fake, changed()).is_empty());
    assert!(cautions(&mut Fake::default(), orders()).is_empty());
    let [caution] = &*cautions(&mut fake, orders()) else {
        panic!("one account is lost");
    };
    assert!(
        caution.contains(".\\joe to NT SERVICE\\orders"),
        "{caution}"
    );
    fake.refuses = Some((fake.changes + 2, 1450));
    let error = install(&mut fake, &orders()).unwrap_err().to_string();
    let told = "the account .\\joe could not be restored, because its password is not known";
    assert!(error.contains(told), "{error}");
    assert_eq!(fake.services["orders"].account(), "NT SERVICE\\orders");
}

#[test]
fn all_are_installed_or_none_is_added() {
    let mut fake = Fake::default();
    install(&mut fake, &orders()).unwrap();
    let definitions = [orders(), service("billing"), service("Wro/ng")];
    let all = manage::install_all(&mut fake, &definitions, Path::new(RUNNING));
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Invalid);
    let names = |fake: &mut Fake| {
        let names = ["orders", "billing", "Wrong!"].into_iter();
        let there = names.filter(|name| fake.entry(name).is_ok());
        there.collect::<Vec<_>>()
    };
    assert_eq!(names(&mut fake), ["orders"]);
    let all = manage::install_all(&mut fake, &definitions[..2], Path::new(RUNNING)).unwrap();
    let are_new: Vec<bool> = all.iter().map(|it| it.is_new).collect();
    assert_eq!(are_new, [false, true]);
    assert_eq!(names(&mut fake), ["orders", "billing"]);
}

#[test]
fn what_the_system_lacks_is_a_loss_but_not_of_the_base() {
    let mut fake = Fake {
        lacks: vec![Kind::FailureFlag, Kind::Preshutdown, Kind::Triggers],
        ..Fake::default()
    };
    let installed = install(&mut fake, &orders()).unwrap();
    let expected = [
        "exit codes after which it stays down",
        "separate count of retries after exit code 202",
        "actions for failures other than crashes",
        "preshutdown timeout",
    ];
    assert_eq!(installed.losses, expected);
    let mut fake = Fake {
        refuses: Some((1, refusal::ACCESS_DENIED)),
        ..Fake::default()
    };
    let error = install(&mut fake, &orders()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.cure(), Some("run it as an administrator"));
}

#[test]
fn it_goes_through_all_states_and_twenty_installations() {
    let mut fake = Fake::default();
    for _ in 0..20 {
        install(&mut fake, &orders()).unwrap();
        manage::start(&mut fake, "orders", &[]).unwrap();
        let error = manage::start(&mut fake, "orders", &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
        manage::pause(&mut fake, "orders", GRACEFUL).unwrap();
        assert_eq!(
            manage::status(&mut fake, "orders").unwrap().state,
            State::Paused
        );
        manage::resume(&mut fake, "orders", GRACEFUL).unwrap();
        manage::control(&mut fake, "orders", 200).unwrap();
        manage::reload(&mut fake, "orders").unwrap();
        manage::restart(&mut fake, "orders", GRACEFUL).unwrap();
        manage::uninstall(&mut fake, "orders", GRACEFUL).unwrap();
        assert!(fake.services.is_empty() && fake.sources.is_empty());
    }
    let error = manage::uninstall(&mut fake, "orders", GRACEFUL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    install(&mut fake, &orders()).unwrap();
    manage::restart(&mut fake, "orders", GRACEFUL).unwrap();
    assert_eq!(
        manage::status(&mut fake, "orders").unwrap().state,
        State::Running
    );
    let error = manage::control(&mut fake, "orders", 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn every_wait_ends() {
    let mut fake = Fake::default();
    install(&mut fake, &orders()).unwrap();
    // A start that makes no progress.
    fake.entry("orders").unwrap().takes = None;
    let error = manage::start(&mut fake, "orders", &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(fake.now < Duration::from_secs(20), "{:?}", fake.now);
    // A slow start that reports its progress.
    let entry = fake.entry("orders").unwrap();
    entry.state = State::Stopped;
    entry.takes = Some(Duration::from_secs(3600));
    manage::start(&mut fake, "orders", &[]).unwrap();
    // Other programs hold the service open.
    let entry = fake.entry("orders").unwrap();
    entry.takes = Some(Duration::ZERO);
    entry.held = Duration::from_secs(60);
    let error = manage::uninstall(&mut fake, "orders", GRACEFUL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MarkedForDelete);
    assert!(error.cure().unwrap().contains("services.msc"));
}

#[test]
fn a_plan_says_what_would_be_done_and_no_secret() {
    let definition = changed().env("TOKEN", "hunter2");
    let plan = manage::plan_all(&[definition], Path::new(RUNNING)).unwrap();
    for line in [
        "create or change service \"orders\"\n",
        "  configuration: \"C:\\orders.exe\" run --under-scm as .\\joe, start type 3\n",
        "  environment: A TOKEN\n",
        "  privileges: SeChangeNotifyPrivilege\n",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    assert!(
        !plan.contains("hunter2") && !plan.contains("secret"),
        "{plan}"
    );
}

#[test]
fn it_starts_with_the_system_or_not() {
    let mut fake = Fake::default();
    let error = manage::set_enablement(&mut fake, "orders", Enablement::Enabled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    install(&mut fake, &orders()).unwrap();
    assert!(manage::is_enabled(&mut fake, "orders").unwrap());
    manage::set_enablement(&mut fake, "orders", Enablement::Disabled).unwrap();
    assert!(!manage::is_enabled(&mut fake, "orders").unwrap());
    let settings = fake.services["orders"].settings.clone();
    install(&mut fake, &orders().start(Start::Manual)).unwrap();
    assert_eq!(
        fake.services["orders"].settings, settings,
        "nothing else has changed"
    );
    manage::set_enablement(&mut fake, "orders", Enablement::Enabled).unwrap();
    assert!(manage::is_enabled(&mut fake, "orders").unwrap());
}

#[test]
fn a_service_that_is_starting_is_stopped_too() {
    let mut fake = Fake::default();
    install(&mut fake, &orders()).unwrap();
    fake.start("orders", &[]).unwrap();
    manage::stop(&mut fake, "orders", GRACEFUL).unwrap();
    let status = manage::status(&mut fake, "orders").unwrap();
    assert_eq!(status.state, State::Stopped);
    // A service that exits on its own meanwhile.
    fake.start("orders", &[]).unwrap();
    fake.entry("orders").unwrap().next = State::Stopped;
    manage::stop(&mut fake, "orders", GRACEFUL).unwrap();
}

/// A service may end, or begin to stop, between the query and the control.
#[test]
fn a_stop_that_comes_second_succeeds() {
    for (meets, code) in [
        (State::Stopped, 1062),
        (State::StopPending, 1061),
        (State::Stopped, 1053),
        (State::StopPending, 1053),
    ] {
        let mut fake = Fake::default();
        install(&mut fake, &orders()).unwrap();
        manage::start(&mut fake, "orders", &[]).unwrap();
        fake.meets = Some((meets, code));
        manage::stop(&mut fake, "orders", GRACEFUL).unwrap();
        let error = manage::stop(&mut fake, "orders", GRACEFUL).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRunning, "{meets}");
        manage::start(&mut fake, "orders", &[]).unwrap();
        fake.meets = Some((meets, code));
        manage::restart(&mut fake, "orders", GRACEFUL).unwrap();
        let status = manage::status(&mut fake, "orders").unwrap();
        assert_eq!(status.state, State::Running, "{meets}");
    }
}

/// Error 1053 of a start is about the program, that of a control about the process.
#[test]
fn the_hint_for_a_timeout_fits_the_operation() {
    let mut fake = Fake::default();
    install(&mut fake, &orders()).unwrap();
    fake.refuses = Some((fake.changes + 1, 1053));
    let error = manage::start(&mut fake, "orders", &[]).unwrap_err();
    let cure = "the program did not connect to the service manager in time: check that its image path ends with --under-scm and that it runs in a console";
    assert_eq!(
        (error.kind(), error.cure()),
        (ErrorKind::TimedOut, Some(cure))
    );
    manage::start(&mut fake, "orders", &[]).unwrap();
    let cure =
        "its process did not respond in time: try again, or end the process with Task Manager";
    fake.refuses = Some((fake.changes + 1, 1053));
    let stop = manage::stop(&mut fake, "orders", GRACEFUL).unwrap_err();
    fake.refuses = Some((fake.changes + 1, 1053));
    let pause = manage::pause(&mut fake, "orders", GRACEFUL).unwrap_err();
    for error in [stop, pause] {
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.cure(), Some(cure), "{error}");
    }
}

#[test]
fn what_is_being_deleted_is_waited_for_and_made_anew() {
    let mut fake = Fake::default();
    install(&mut fake, &orders()).unwrap();
    fake.entry("orders").unwrap().held = Duration::from_secs(2);
    fake.delete("orders").unwrap();
    let installed = install(&mut fake, &orders()).unwrap();
    assert!(installed.is_new && fake.services["orders"].deleted_at.is_none());
    fake.entry("orders").unwrap().held = Duration::from_secs(60);
    fake.delete("orders").unwrap();
    let error = install(&mut fake, &orders()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MarkedForDelete);
}

#[test]
fn own_services_are_listed_and_changes_are_told() {
    let mut fake = Fake::default();
    install(&mut fake, &orders()).unwrap();
    install(&mut fake, &service("theirs")).unwrap();
    let theirs = fake.entry("theirs").unwrap();
    let Setting::Base(base) = &mut theirs.settings[0] else {
        panic!("the base comes first");
    };
    base.image_path = "C:\\theirs.exe run".to_owned();
    let own = manage::own(&mut fake).unwrap();
    let names: Vec<&str> = own.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["orders"]);
    let change = |fake: &mut Fake, seen| {
        let status = manage::wait_for_change(fake, "orders", seen, Duration::from_secs(60));
        (status.unwrap().state, fake.now.as_secs())
    };
    assert_eq!(change(&mut fake, State::Stopped), (State::Stopped, 60));
    fake.start("orders", &[]).unwrap();
    assert_eq!(change(&mut fake, State::StartPending), (State::Running, 63));
}

#[test]
fn a_service_without_access_is_not_taken_for_a_missing_one() {
    let mut fake = Fake::default();
    install(&mut fake, &orders()).unwrap();
    fake.denies = true;
    let kinds = |name: &str| {
        let fake = &mut fake.clone();
        let results = [
            manage::status(fake, name).map(drop),
            manage::is_enabled(fake, name).map(drop),
            manage::set_enablement(fake, name, Enablement::Enabled),
            manage::start(fake, name, &[]),
            manage::stop(fake, name, GRACEFUL),
            manage::restart(fake, name, GRACEFUL),
            manage::pause(fake, name, GRACEFUL),
            manage::resume(fake, name, GRACEFUL),
            manage::reload(fake, name),
            manage::control(fake, name, 200),
            manage::wait_for_change(fake, name, State::Stopped, GRACEFUL).map(drop),
            manage::uninstall(fake, name, GRACEFUL),
        ];
        results.map(|result| result.unwrap_err().kind())
    };
    assert_eq!(kinds("orders"), [ErrorKind::PermissionDenied; 12]);
    assert_eq!(kinds("nosuch"), [ErrorKind::NotInstalled; 12]);
    assert!(!manage::is_missing(&mut fake, "orders") && manage::is_missing(&mut fake, "nosuch"));
    let error = install(&mut fake, &orders()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}
