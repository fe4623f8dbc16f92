//! Definitions of services, and what is prepared for them.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use mainstay_api::{Done, Mistake, Mistakes, Refusal, TrialRequest};
use mainstay_core::engine::{Human, ServiceId, StartFailure, Versions};
use mainstay_core::failure::chain;
use mainstay_core::manifest::Format;
use mainstay_core::registry::TextDigest;
use mainstay_core::spec::ServiceName;
use mainstay_store::embedded::Definition;
use mainstay_store::ledger::Updated;
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
use mainstay_sys::aside::aside;
use tokio::sync::oneshot;

use super::{Executor, Seat, notify, other};
use crate::host::Wake;
use crate::host::control::Reply;
use crate::host::effects::{
    Account, Candidate, CandidateText, Definitions, Loaded, Message, Refused, Setting, Ticket,
    share_log,
};
use crate::manifest_file::Source;
use crate::{definitions, launch, preflight};

/// The longest trial.
const LONGEST_CANARY: Duration = Duration::from_secs(24 * 3600);

/// The longest time in which definitions are read or checked. They may lie on a mount whose server
/// is gone, and their accounts in a directory that does not respond.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

fn failed(operation: &str, name: &ServiceName, error: &io::Error) -> Refused {
    let why = format!("cannot {operation} {name}: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// Does work that may block in a thread. Returns the reason if that is not possible, or takes too
/// long.
async fn within_limit<T: Send + 'static>(
    subject: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    let refused = |why| (StatusCode::SERVICE_UNAVAILABLE, why);
    let done = aside(subject.clone(), work);
    match tokio::time::timeout(READ_TIMEOUT, done).await {
        Ok(done) => done.map_err(|error| refused(format!("{subject}: {error}"))),
        Err(_) => Err(refused(format!(
            "{subject}: no response within {}",
            Human(READ_TIMEOUT)
        ))),
    }
}

/// Reads an installed definition.
fn load(state: &StateDir, name: &str, inherited: &launch::Environment) -> Result<Loaded, Refused> {
    let conflict = |why: String| (StatusCode::CONFLICT, why);
    let definition = definitions::read(state, name);
    let definition = definition.map_err(|why| conflict(why.to_string()))?;
    let user = preflight::user_of(&definition.spec);
    let user = user.map_err(|failure| conflict(failure.message().to_owned()))?;
    let remarks = preflight::remarks(&definition.spec, &definition.dir, inherited);
    Ok(Loaded {
        definition,
        user,
        remarks,
    })
}

/// Checks the definition in a request, and returns the response to one that cannot be tried.
fn check(candidate: CandidateText, inherited: &launch::Environment) -> Result<Candidate, Reply> {
    let CandidateText {
        name,
        version,
        body,
        setting,
    } = candidate;
    let bad = |why: &str| Reply::error(StatusCode::BAD_REQUEST, why);
    let unfit = |why: &str| Reply::error(StatusCode::UNPROCESSABLE_ENTITY, why);
    let failed = |failure| Reply::failure(StatusCode::UNPROCESSABLE_ENTITY, &failure);
    let request: TrialRequest =
        serde_json::from_slice(&body).map_err(|error| bad(&format!("invalid request: {error}")))?;
    let format = Format::ALL
        .into_iter()
        .find(|format| format.name() == request.format);
    let format = format.ok_or_else(|| bad("`format` is toml, yaml or json"))?;
    if !request.base_dir.is_absolute() {
        return Err(bad("`base_dir` is not an absolute path"));
    }
    let canary = Duration::from_millis(request.canary_ms);
    if canary > LONGEST_CANARY {
        return Err(bad("`canary_ms` is longer than a day"));
    }
    let (text, dir) = (request.manifest, request.base_dir);
    let digest = TextDigest::of(&text, format, &dir.to_string_lossy(), None);
    let source = Source::of("the manifest".to_owned(), text.clone(), format, dir.clone());
    let specs = source.specs().map_err(|found| {
        let mistakes = Mistakes {
            mistakes: found.iter().map(Mistake::from).collect(),
            refusal: Refusal::from(&source.count(&found)),
        };
        Reply::with(StatusCode::UNPROCESSABLE_ENTITY, &mistakes)
    })?;
    let spec = specs.into_iter().find(|spec| spec.name().as_str() == name);
    let spec = spec.ok_or_else(|| unfit(&format!("the manifest has no service {name}")))?;
    let spec = match setting {
        Setting::Managed => spec.under_manager(cfg!(windows)),
        Setting::Installed => spec.beside_others(),
        Setting::OfManifest => spec,
    };
    let user = preflight::user_of(&spec).map_err(failed)?;
    preflight::check_files(&spec, &dir, user.as_ref(), inherited).map_err(failed)?;
    let versions = request.from_version.zip(request.version);
    Ok(Candidate {
        definition: Definition {
            version: request.version.unwrap_or(version),
            ..Definition::of_manifest(spec, &dir, Some(digest))
        },
        user,
        written: Updated::new(dir, format, text),
        canary,
        versions: versions.map(|(from, to)| Versions { from, to }),
    })
}

impl Executor {
    fn create_data_dir(&self, name: &ServiceName, account: &Account) -> io::Result<()> {
        let made = self.state.create_data_dir(name.as_str(), other(account));
        made.map(drop)
    }

    /// Opens the log of a service without processes again, as it is now defined.
    fn open_own_log(&mut self, id: ServiceId) -> io::Result<()> {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.log = self
                .logs
                .replace(&seat.spec, &seat.dir, other(&seat.account))?;
        }
        Ok(())
    }

    fn keep_seated_pipes(&mut self) -> io::Result<()> {
        let seats = self.seats.values();
        self.logs.keep(seats.map(|seat| &seat.log))
    }
}

impl Definitions for Executor {
    type Seat = Seat;

    fn load(&mut self, ticket: Ticket, names: Vec<String>) {
        let (state, inherited) = (self.state.clone(), self.inherited.clone());
        let subject = format!("read the definitions of {}", names.join(", "));
        let read = move || -> Result<Vec<Loaded>, Refused> {
            let names = names.iter();
            names.map(|name| load(&state, name, &inherited)).collect()
        };
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            let loaded = within_limit(subject, read).await.flatten();
            messages.send(Message::Loaded(ticket, loaded));
        });
    }

    fn check(&mut self, ticket: Ticket, candidate: CandidateText) {
        let inherited = self.inherited.clone();
        let subject = format!("check the definition of {}", candidate.name);
        let messages = self.messages.clone();
        tokio::task::spawn_local(async move {
            let checked = within_limit(subject, move || check(candidate, &inherited)).await;
            let checked = checked.map_err(|(status, why)| Reply::error(status, &why));
            messages.send(Message::Checked(ticket, Box::new(checked.flatten())));
        });
    }

    fn prepare(&mut self, definition: &Definition, account: &Account) -> Result<Seat, Refused> {
        let Definition { spec, dir, .. } = definition;
        let name = spec.name();
        // An earlier service of this name may have left unread output.
        self.logs.close_pipes(name);
        let made = self.logs.make(name, spec.log(), other(account));
        let log = made.and_then(|pipes| self.logs.open(name, spec.log(), dir, pipes));
        let log = log.map_err(|error| failed("open the log of", name, &error))?;
        let seat = Seat::new(definition, account, log);
        if let Err(error) = self.create_data_dir(name, account) {
            self.discard(name, seat);
            return Err(failed("create the data directory of", name, &error));
        }
        Ok(seat)
    }

    fn share(
        &mut self,
        with: ServiceId,
        definition: &Definition,
        account: &Account,
    ) -> Result<Seat, Refused> {
        let name = definition.spec.name();
        let old = self.seats.get(&with);
        let old = old.ok_or_else(|| (StatusCode::NOT_FOUND, "it was removed".to_owned()))?;
        let log = old.log.try_clone();
        let log = log.map_err(|error| failed("share the log of", name, &error))?;
        let sockets = old.sockets.share(&old.spec, &definition.spec);
        let sockets = sockets.map_err(|error| failed("share the sockets of", name, &error))?;
        Ok(Seat {
            sockets,
            ..Seat::new(definition, account, log)
        })
    }

    fn seat(&mut self, id: ServiceId, seat: Seat) {
        self.seats.insert(id, seat);
    }

    fn discard(&mut self, name: &ServiceName, seat: Seat) {
        drop(seat);
        self.logs.forget(name, || {});
    }

    fn keep_pipes(&mut self, more: &[Option<Seat>]) -> io::Result<()> {
        let seats = self.seats.values().chain(more.iter().flatten());
        self.logs.keep(seats.map(|seat| &seat.log))
    }

    fn redefine(
        &mut self,
        id: ServiceId,
        definition: &Definition,
        account: &Account,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let Some(seat) = self.seats.get_mut(&id) else {
            return problems;
        };
        let is_same_log = share_log(
            (&seat.spec, &seat.dir, &seat.account),
            (&definition.spec, &definition.dir, account),
        );
        seat.spec = definition.spec.clone();
        seat.dir.clone_from(&definition.dir);
        seat.account.clone_from(account);
        let data_dir = self.create_data_dir(definition.spec.name(), account);
        if !is_same_log {
            if let Err(error) = self.open_own_log(id) {
                problems.push(format!(
                    "its new log cannot be opened: {error}; the old log remains in use"
                ));
            }
            if let Err(error) = self.keep_seated_pipes() {
                let why = "if this daemon is killed, further output of the service is lost";
                problems.push(format!("its log pipes cannot be preserved: {error}; {why}"));
            }
        }
        if let Err(error) = data_dir {
            problems.push(format!("cannot create its data directory: {error}"));
        }
        problems
    }

    fn take_own_log(&mut self, id: ServiceId) -> Result<(), StartFailure> {
        let opened = self.open_own_log(id);
        opened.map_err(|error| format!("cannot open its log: {error}"))?;
        if let Some(seat) = self.seats.get(&id) {
            let made = self.create_data_dir(seat.spec.name(), &seat.account);
            made.map_err(|error| format!("cannot create its data directory: {error}"))?;
        }
        let kept = self.keep_seated_pipes();
        kept.map_err(|error| format!("cannot preserve its log pipes: {error}").into())
    }

    fn unseat(&mut self, id: ServiceId) {
        self.seats.remove(&id);
    }

    fn forget(&mut self, ids: &[ServiceId], reply: oneshot::Sender<Reply>) {
        let gone = ids.iter().filter_map(|id| self.seats.remove(id));
        let names: Vec<ServiceName> = gone.map(|seat| seat.spec.name().clone()).collect();
        let done = Reply::document(&Done {});
        let Some((last, others)) = names.split_last() else {
            return drop(reply.send(done));
        };
        let meaning = "what it ran is stopped; uninstall it again when it does";
        let respond = self.unless_logs_hang(reply, meaning);
        for name in others {
            self.logs.forget(name, || {});
        }
        // The log thread processes requests in order: when the files of the last service are
        // closed, so are all others. Then those of its events are closed.
        let events = self.events.clone();
        self.logs.forget(last, move || {
            events.settle(move || respond(done));
        });
        for name in &names {
            sys::forget_service(&self.processes, name.as_str());
        }
        if let Err(error) = self.keep_seated_pipes() {
            self.reporter.notify(&format!(
                "cannot start the keeper of the log pipes: {}",
                chain(&error)
            ));
        }
    }

    fn settle(&mut self) {
        let in_use = self.seats.values().filter_map(|it| it.notify.as_ref());
        notify::remove_stale(&self.state, in_use);
        // Storing the events of the start is start-up work, too.
        let messages = self.messages.clone();
        self.events.settle(move || messages.send(Wake::Settled));
    }
}
