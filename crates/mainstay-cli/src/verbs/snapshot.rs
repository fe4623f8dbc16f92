//! `mainstay snapshot create|list|show|verify|restore|prune NAME [ID]`: manages the snapshots of a
//! service's state.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay::Scope;
use mainstay_api::Verb;
use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure, Sought};
use mainstay_core::manifest::Format;
use mainstay_core::report::ServiceReport;
use mainstay_core::snapshot::{Digest, Index, Kind, Reason, SnapshotId};
use mainstay_core::spec::{ServiceName, SnapshotKeep, SnapshotPolicy};
use mainstay_host as host;
use mainstay_host::manifest_file;
use mainstay_host::output;
use mainstay_host::progress::Progress;
use mainstay_store::snapshot::{
    Change, Created, Listed, Occasion, Replaced, Seam, Store, Wait, Which,
};
use mainstay_store::state_dir::StateDir;
use mainstay_sys::access::Closed;
use serde_json::{Value, json};

use crate::client;
use crate::deploy::update;
use crate::installed::Installed;
use crate::not_found;
use crate::request_error::RequestError;

/// The hint for a manifest without `snapshot`.
const STATE: &str =
    "set snapshot = { paths = [\"/var/lib/…\"] }, or snapshot = {} for its own directory";

/// Manage the snapshots of a service
#[derive(Debug, clap::Args)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take a snapshot; for a running service, its supervisor takes it as the manifest specifies
    Create {
        #[command(flatten)]
        of: Of,
        /// Manifest of the service, if no supervisor has it
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
    },
    /// List the snapshots, oldest first
    List(Of),
    /// Show the content of a snapshot
    Show {
        #[command(flatten)]
        of: Of,
        /// ID of the snapshot [default: the newest]
        id: Option<SnapshotId>,
    },
    /// Compare every file of a snapshot, or of all snapshots, with its checksum; exit 1 if one is
    /// damaged
    Verify {
        #[command(flatten)]
        of: Of,
        /// ID of the snapshot [default: all]
        id: Option<SnapshotId>,
    },
    /// Restore a snapshot: all its directories or none
    Restore {
        #[command(flatten)]
        of: Of,
        /// ID of the snapshot [default: the newest that is stable and undamaged]
        id: Option<SnapshotId>,
        /// Stop the service first if it is running, and start it afterwards
        #[arg(long)]
        stop: bool,
        /// Do not take a snapshot of the state that is replaced
        #[arg(long)]
        discard: bool,
    },
    /// Delete old snapshots, or the one with this ID
    Prune {
        #[command(flatten)]
        of: Of,
        /// ID of the only snapshot to delete
        id: Option<SnapshotId>,
        /// Number of snapshots to keep [default: as in the manifest, or 5]
        #[arg(long, value_name = "N", conflicts_with = "id", value_parser = count)]
        keep: Option<u32>,
    },
}

/// The service that a subcommand applies to.
#[derive(Debug, clap::Args)]
struct Of {
    /// Name of the service
    name: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The number of bytes that were copied so far.
#[derive(Default)]
struct Copied(AtomicU64);

impl Seam for Copied {
    fn before(&self, _: Change<'_>) -> io::Result<()> {
        Ok(())
    }

    fn copied(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A service's snapshots, and the state directory of its supervisor.
struct Kept {
    name: ServiceName,
    /// The state directory of the supervisor that has the service.
    state: StateDir,
    /// The state directory of all services.
    base: StateDir,
    store: Store,
    copied: Arc<Copied>,
}

impl Snapshot {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        match self.action {
            Action::Create { of, manifest } => {
                let kept = Kept::of(&of.name, state)?;
                create(&kept, manifest.as_deref(), of.json)?;
            }
            Action::List(of) => list(&Kept::known(&of.name, state)?, of.json)?,
            Action::Show { of, id } => show(&Kept::known(&of.name, state)?, id, of.json)?,
            Action::Verify { of, id } => verify(&Kept::known(&of.name, state)?, id, of.json)?,
            Action::Restore {
                of,
                id,
                stop,
                discard,
            } => {
                let kept = Kept::known(&of.name, state)?;
                let which = id.map_or(Which::Stable(None), Which::Exactly);
                let replaced = if discard {
                    Replaced::Discard
                } else {
                    Replaced::Keep
                };
                restore(&kept, which, replaced, stop, of.json)?;
            }
            Action::Prune { of, id, keep } => {
                prune(&Kept::known(&of.name, state)?, id, keep, of.json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Kept {
    fn of(name: &str, base: &StateDir) -> Result<Self, Failure> {
        let Some(name) = ServiceName::new(name) else {
            let message = format!("{name:?} is not a valid service name");
            return Err(Failure::new(Code::Unknown, message));
        };
        let state = base.of(name.as_str());
        let copied = Arc::<Copied>::default();
        Ok(Self {
            store: Store::new(&state, &name, None, Arc::clone(&copied) as Arc<dyn Seam>),
            copied,
            base: base.clone(),
            state,
            name,
        })
    }

    /// Returns the snapshots of a service that has a snapshot store.
    ///
    /// # Errors
    /// If it has none, or this process may not read it.
    fn known(name: &str, base: &StateDir) -> Result<Self, Failure> {
        let kept = Self::of(name, base)?;
        if kept.store.exists() {
            return Ok(kept);
        }
        if let Some(closed) = Closed::at(&kept.state.snapshots_dir().join(name)) {
            return Err(closed.failure(&format!("cannot read the snapshots of {name}")));
        }
        let message = format!("{name} has no snapshots in {}", kept.state.path().display());
        let hint = match kept.declared(None) {
            Ok(Some(_)) => format!("take one: mainstay snapshot create {name}"),
            Ok(None) => format!("its manifest has no `snapshot`; {STATE}"),
            Err(_) => format!("take one: mainstay snapshot create {name} --manifest FILE"),
        };
        let failure = Failure::new(Code::Unknown, message).hint(hint);
        let failure = failure.seeking(Sought::Service(name.to_owned()));
        Err(not_found::service_or(base, &[name], failure))
    }

    /// Returns the failure for a manifest without `snapshot`, whether or not the service is
    /// running.
    fn undeclared(&self) -> Failure {
        let message = format!("the manifest of {} has no `snapshot`", self.name);
        Failure::new(Code::InvalidManifest, message).hint(STATE)
    }

    fn policy(&self, manifest: Option<&Path>) -> Result<SnapshotPolicy, Failure> {
        let declared = self.declared(manifest)?;
        declared.ok_or_else(|| self.undeclared())
    }

    /// Returns `snapshot` from the manifest: the given one, else the installed one, else the copy
    /// of the supervisor.
    fn declared(&self, manifest: Option<&Path>) -> Result<Option<SnapshotPolicy>, Failure> {
        let copies = [Format::Toml, Format::Yaml, Format::Json].map(|format| format.name());
        let installed = [Scope::User, Scope::System].map(|scope| {
            let place = self.base.installed_dir(scope).join(self.name.as_str());
            copies.map(|format| place.join(format!("manifest.{format}")))
        });
        let supervised = copies.map(|format| self.state.manifest_path(format));
        let mut places = installed.into_iter().flatten().chain(supervised);
        let found = places.find(|place| place.is_file());
        let Some(path) = manifest.or(found.as_deref()) else {
            let name = self.name.as_str();
            let message = format!("no manifest of {name} was found");
            let hint = "pass its manifest: --manifest FILE";
            let failure = Failure::new(Code::Unknown, message).hint(hint);
            let failure = failure.seeking(Sought::Service(name.to_owned()));
            return Err(not_found::service_or(&self.base, &[name], failure));
        };
        let loaded = manifest_file::load(path, None)?;
        let mut specs = loaded.specs.iter();
        let Some(spec) = specs.find(|spec| *spec.name() == self.name) else {
            let message = format!("{} has no service {}", path.display(), self.name);
            let failure = Failure::new(Code::Unknown, message);
            return Err(match manifest {
                Some(_) => failure,
                None => failure.seeking(Sought::Service(self.name.to_string())),
            });
        };
        Ok(spec.snapshot().cloned())
    }

    /// Returns the service as reported by its supervisor, if there is one.
    fn report(&self) -> Result<Option<ServiceReport>, Failure> {
        match client::block_on(client::status(&self.state))? {
            Ok(report) => {
                let mut services = report.services.into_iter();
                Ok(services.find(|service| service.name == self.name.as_str()))
            }
            Err(RequestError::NoSupervisor(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts or stops the service, and waits until it has settled.
    fn control(&self, verb: Verb) -> Result<ServiceReport, Failure> {
        match Installed::find(&self.base, self.name.as_str()) {
            Some(installed) => update::control(&installed, verb),
            None => {
                let request = client::request(&self.state, self.name.as_str(), verb);
                Ok(client::block_on(request)??)
            }
        }
    }

    /// Shows what is being done to the snapshots, until the value is dropped.
    fn progress(&self, json: bool, doing: &str) -> Option<Progress> {
        let (what, copied) = (format!("{}: {doing}", self.name), Arc::clone(&self.copied));
        let text = move || match copied.0.load(Ordering::Relaxed) {
            0 => what.clone(),
            bytes => format!("{what}, {} copied", size(bytes)),
        };
        (!json).then(|| Progress::begin(text)).flatten()
    }

    fn print_remarks(&self, remarks: &[String]) {
        for remark in remarks {
            output::remark(&format!("{}: {remark}", self.name));
        }
    }
}

fn create(kept: &Kept, manifest: Option<&Path>, json: bool) -> Result<(), Failure> {
    let runs = kept
        .report()?
        .is_some_and(|service| service.state == StateName::Running);
    let progress = kept.progress(json, "taking a snapshot");
    let id = if runs {
        let taken = client::block_on(client::snapshot(&kept.state, kept.name.as_str()))?;
        taken.map_err(|error| match kept.declared(manifest) {
            Ok(None) => kept.undeclared(),
            _ => error.into(),
        })?
    } else {
        let policy = kept.policy(manifest)?;
        let paths = kept.state.kept_paths(&policy, kept.name.as_str());
        let mut session = kept.store.lock(Wait::Briefly)?;
        session.finish();
        let occasion = Occasion {
            reason: Reason::Manual,
            stable: false,
            only_if_changed: false,
        };
        let created = session.create(&paths, occasion)?;
        session.prune(policy.keep())?;
        kept.print_remarks(&session.remarks);
        match created {
            Created::Taken(index) => index.id,
            Created::Unchanged => return Ok(()),
        }
    };
    drop(progress);
    let taken = kept.store.list()?.into_iter().find(|one| one.id == id);
    match (taken, json) {
        (taken, true) => {
            // Pruned meanwhile, it has its ID only.
            let taken = taken.map_or_else(|| json!({ "id": id }), |taken| summary(&taken));
            output::document(&json!({ "name": kept.name, "snapshot": taken }))
        }
        (Some(taken), false) => output::confirm(&format!("{}\n", row(&taken))),
        (None, false) => output::confirm(&format!("{id}\n")),
    }
}

fn list(kept: &Kept, json: bool) -> Result<(), Failure> {
    let listed = kept.store.list()?;
    if json {
        let snapshots: Vec<Value> = listed.iter().map(summary).collect();
        return output::document(&json!({ "name": kept.name, "snapshots": snapshots }));
    }
    let mut text = format!(
        "{:<23}  {:<14}  {:<6}  {:>8}  {:>10}\n",
        "ID", "REASON", "STABLE", "FILES", "SIZE"
    );
    for one in &listed {
        text.push_str(&row(one));
        text.push('\n');
    }
    output::text(&text)
}

fn row(one: &Listed) -> String {
    match &one.index {
        Ok(index) => {
            let (files, bytes) = index.size();
            let stable = if index.stable { "yes" } else { "no" };
            let size = size(bytes);
            format!(
                "{:<23}  {:<14}  {stable:<6}  {files:>8}  {size:>10}",
                one.id, index.reason
            )
        }
        Err(why) => format!("{:<23}  damaged: {why}", one.id),
    }
}

/// Formats a size in the largest unit that leaves a digit before the decimal point.
fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_u64, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = bytes / (unit / 10);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

fn summary(one: &Listed) -> Value {
    match &one.index {
        Ok(index) => {
            let (files, bytes) = index.size();
            json!({
                "id": one.id, "created": index.created, "reason": index.reason, "stable": index.stable,
                "files": files, "bytes": bytes, "damaged": null,
            })
        }
        Err(why) => json!({
            "id": one.id, "created": one.id.time(), "reason": null, "stable": false,
            "files": null, "bytes": null, "damaged": why.to_string(),
        }),
    }
}

/// Returns the snapshot with this ID, or the newest one.
fn find(kept: &Kept, id: Option<SnapshotId>) -> Result<Listed, Failure> {
    let mut listed = kept.store.list()?;
    let found = match id {
        Some(id) => listed.into_iter().find(|one| one.id == id),
        None => listed.pop(),
    };
    found.ok_or_else(|| {
        let message = match id {
            Some(id) => format!("{} has no snapshot {id}", kept.name),
            None => format!("{} has no snapshot", kept.name),
        };
        let hint = format!("list its snapshots: mainstay snapshot list {}", kept.name);
        Failure::new(Code::Unknown, message).hint(hint)
    })
}

fn show(kept: &Kept, id: Option<SnapshotId>, json: bool) -> Result<(), Failure> {
    let found = find(kept, id)?;
    let index = found.index.map_err(|why| {
        let message = format!("snapshot {} of {} is damaged: {why}", found.id, kept.name);
        Failure::new(Code::Failed, message)
    })?;
    if json {
        return output::document(&index);
    }
    output::text(&described(&index))
}

fn described(index: &Index) -> String {
    let (files, bytes) = index.size();
    let stable = if index.stable { ", stable" } else { "" };
    let mut text = format!(
        "{} of {}: {}{stable}, {files} files, {}\n",
        index.id,
        index.service,
        index.reason,
        size(bytes)
    );
    for root in &index.roots {
        text.push_str(&format!("{}\n", output::one_line(&root.path.to_string())));
        for entry in &root.entries {
            let (kind, what) = match &entry.kind {
                Kind::Dir => ('d', String::new()),
                Kind::File { size, sha256 } => ('-', format!("  {size} bytes  {}", short(sha256))),
                Kind::HardLink { to } => {
                    ('-', format!("  = {}", output::one_line(&to.to_string())))
                }
                Kind::Symlink { target } => (
                    'l',
                    format!("  -> {}", output::one_line(&target.to_string())),
                ),
                Kind::Fifo => ('p', String::new()),
            };
            let path = if entry.path.0.is_empty() {
                ".".to_owned()
            } else {
                output::one_line(&entry.path.to_string())
            };
            let metadata = &entry.metadata;
            text.push_str(&format!(
                "  {kind} {:04o} {:>5} {:>5}  {path}{what}\n",
                metadata.mode, metadata.uid, metadata.gid
            ));
        }
    }
    text
}

fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

fn verify(kept: &Kept, id: Option<SnapshotId>, json: bool) -> Result<(), Failure> {
    let ids = match id {
        Some(id) => vec![find(kept, Some(id))?.id],
        None => kept.store.list()?.into_iter().map(|one| one.id).collect(),
    };
    let mut session = kept.store.lock(Wait::Briefly)?;
    session.finish();
    kept.print_remarks(&session.remarks);
    let (mut snapshots, mut text, mut damaged) = (Vec::new(), String::new(), 0);
    let all = ids.len();
    for (number, id) in (1..).zip(ids) {
        let _progress = kept.progress(json, &format!("verifying snapshot {number} of {all}"));
        let verdict = session.verify(id)?;
        let why = verdict.err().map(|damage| damage.to_string());
        damaged += usize::from(why.is_some());
        let word = if why.is_some() { "damaged" } else { "whole" };
        text.push_str(&match &why {
            Some(why) => format!("{id}  {word}: {why}\n"),
            None => format!("{id}  {word}\n"),
        });
        snapshots.push(json!({ "id": id, "verdict": word, "detail": why }));
    }
    if json {
        output::document(&json!({ "name": kept.name, "snapshots": snapshots }))?
    } else {
        output::text(&text)?
    }
    match damaged {
        0 => Ok(()),
        1 => Err(damage(kept, "1 snapshot is damaged")),
        many => Err(damage(kept, &format!("{many} snapshots are damaged"))),
    }
}

fn damage(kept: &Kept, what: &str) -> Failure {
    let name = &kept.name;
    let hint = format!(
        "damaged snapshots cannot be restored; delete them: mainstay snapshot prune {name} ID"
    );
    Failure::new(Code::Failed, format!("{name}: {what}")).hint(hint)
}

fn restore(
    kept: &Kept,
    which: Which,
    replaced: Replaced,
    stops: bool,
    json: bool,
) -> Result<(), Failure> {
    let name = &kept.name;
    let report = kept.report()?;
    let is_down = |state| {
        use StateName::{BackingOff, Halted, Stopped, Waiting};
        matches!(state, Stopped | Halted | Waiting | BackingOff)
    };
    let runs = report.as_ref().filter(|service| !is_down(service.state));
    if report.is_none()
        && kept.state.has_left_something()
        && let Some(orphans) = host::orphans(&kept.state)
    {
        let (what, hint) = orphans.remark();
        let message = format!("cannot restore the state of {name}: {what}");
        return Err(Failure::new(Code::Failed, message).hint(hint));
    }
    match runs {
        Some(service) if !stops => {
            let message = format!(
                "cannot restore the state of {name}: it is {}, so its state is in use",
                service.state
            );
            let hint = format!("stop it first: mainstay stop {name}, or use --stop");
            return Err(Failure::new(Code::Failed, message).hint(hint));
        }
        Some(_) => drop(kept.control(Verb::Stop)?),
        None => {}
    }
    let is_to_start = runs.is_some();
    let progress = kept.progress(json, "restoring a snapshot");
    let restored = restore_now(kept, which, replaced);
    drop(progress);
    // The service ran before: start it again even if nothing was restored.
    if is_to_start {
        let started = kept.control(Verb::Start);
        if restored.is_ok() {
            started?;
        }
    }
    let (document, text) = restored?;
    if json {
        output::document(&document)
    } else {
        output::confirm(&text)
    }
}

fn restore_now(kept: &Kept, which: Which, replaced: Replaced) -> Result<(Value, String), Failure> {
    let mut session = kept.store.lock(Wait::Briefly)?;
    let done = session.restore(which, replaced)?;
    session.finish();
    for (id, why) in &done.damaged {
        output::remark(&format!(
            "{}: snapshot {id} is damaged: {why}; using an older one",
            kept.name
        ));
    }
    kept.print_remarks(&session.remarks);
    let id = done.index.id;
    let damaged: Vec<Value> = done
        .damaged
        .iter()
        .map(|(id, why)| json!({ "id": id, "detail": why.to_string() }))
        .collect();
    let document = json!({
        "name": kept.name, "restored": id, "damaged": damaged, "kept_as": done.kept_as,
    });
    let mut text = format!("{}: restored {id}\n", kept.name);
    if let Some(kept_as) = done.kept_as {
        text.push_str(&format!("the previous state is snapshot {kept_as}\n"));
    }
    Ok((document, text))
}

fn count(text: &str) -> Result<u32, &'static str> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or("expected a whole number, at least 1")
}

fn prune(
    kept: &Kept,
    id: Option<SnapshotId>,
    keep: Option<u32>,
    json: bool,
) -> Result<(), Failure> {
    let usual = SnapshotKeep {
        count: Some(5),
        age: None,
    };
    let keep = match keep {
        Some(count) => SnapshotKeep {
            count: Some(count),
            age: None,
        },
        None => kept.policy(None).map_or(usual, |policy| policy.keep()),
    };
    let mut session = kept.store.lock(Wait::Briefly)?;
    session.finish();
    kept.print_remarks(&session.remarks);
    let deleted = match id {
        Some(id) => {
            session.delete(id)?;
            vec![id]
        }
        None => session.prune(keep)?,
    };
    if json {
        return output::document(&json!({ "name": kept.name, "deleted": deleted }));
    }
    let lines: String = deleted.iter().map(|id| format!("deleted {id}\n")).collect();
    output::confirm(&lines)
}
