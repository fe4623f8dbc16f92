//! The requests that cause operations, as far as their clients take part in a trace.
//!
//! A request is the cause of everything that happens to the services that it affects (those that it
//! names, and the needs that it starts) until they have settled. A later request takes its place;
//! the commit and the rollback of an update belong to the request that began it. What happens after
//! that has no cause: a crash, a retry, a scheduled snapshot.

use super::Engine;
use super::id::ServiceId;
use super::service::Service;
use super::view::StateName;
use crate::trace::TraceContext;

impl Engine {
    /// Sets the trace context of the request that the host performs now, or clears it when the
    /// request was performed.
    pub fn set_request(&mut self, context: Option<TraceContext>) {
        self.request = context;
    }

    /// Returns the trace context of the request that the host performs now.
    pub fn request_context(&self) -> Option<&TraceContext> {
        self.request.as_ref()
    }

    /// Returns the trace context of the request that caused the operation in progress.
    pub fn cause(&self, id: ServiceId) -> Option<&TraceContext> {
        self.causes.get(self.services.get(&id)?.spec().name())
    }

    /// Ends the operations of the services that have settled. The host calls this when it has
    /// performed all actions.
    pub fn end_operations(&mut self) {
        let mut causes = std::mem::take(&mut self.causes);
        causes.retain(|name, _| {
            let id = self.find(name.as_str());
            id.is_some_and(|id| {
                let service = self.services.get(&id);
                !self.has_settled(id) || service.is_some_and(Service::is_snapshotted_on_request)
            })
        });
        self.causes = causes;
    }

    /// Returns whether a service has settled, for a client that waits for it. A backoff counts: the
    /// attempt has failed, and the client needs to be informed. So does a service that was removed.
    pub fn has_settled(&self, id: ServiceId) -> bool {
        self.trial(id).is_none()
            && self.view(id).is_none_or(|view| match view.state {
                StateName::BackingOff => true,
                StateName::Waiting => self.is_stuck(id),
                state => state.is_settled(),
            })
    }

    /// Makes the request that is performed now the cause of what follows for all services.
    pub(super) fn attribute_all(&mut self) {
        let all: Vec<ServiceId> = self.ids().collect();
        self.attribute(&all);
    }

    /// Makes the request that is performed now the cause of what follows for these services.
    pub(super) fn attribute(&mut self, ids: &[ServiceId]) {
        for service in ids.iter().filter_map(|id| self.services.get(id)) {
            let name = service.spec().name();
            match &self.request {
                Some(context) => drop(self.causes.insert(name.clone(), context.clone())),
                None => drop(self.causes.remove(name)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::engine::{
        Action, CopyFailure, Event, Exit, Fact, Launch, RunId, StartFailure, Style, Token, Tryout,
    };
    use crate::manifest::{Format, parse};
    use crate::spec::Spec;
    use crate::time::Instant;

    const MANIFEST: &str = r#"
        [service.db]
        command = ["db"]
        [service.web]
        command = ["web"]
        needs = ["db"]
        snapshot = { paths = ["/var/lib/web"], quiesce = ["q"], thaw = ["t"] }
    "#;

    fn specs() -> Vec<Arc<Spec>> {
        let specs = parse(MANIFEST, Format::Toml).expect("a manifest");
        specs.into_iter().map(Arc::new).collect()
    }

    /// An engine whose host answers each action in time.
    struct Host {
        engine: Engine,
        pids: u32,
        snapshot: Option<Token>,
    }

    const NOW: Instant = Instant::ZERO;

    impl Host {
        fn new() -> Self {
            let engine = Engine::new(specs(), 1).expect("a graph");
            let (pids, snapshot) = (0, None);
            Self {
                engine,
                pids,
                snapshot,
            }
        }

        fn id(&self, name: &str) -> ServiceId {
            self.engine.find(name).expect("the service")
        }

        /// Returns the trace of the request that caused what happens to a service now.
        fn cause(&self, name: &str) -> Option<String> {
            let cause = self.engine.cause(self.id(name))?.to_string();
            Some(cause[3..5].to_owned())
        }

        fn causes(&self) -> [Option<String>; 2] {
            ["db", "web"].map(|name| self.cause(name))
        }

        /// Performs a request that belongs to the trace with these two digits, if any, and returns
        /// the actions that are to be performed.
        fn request<T>(&mut self, trace: Option<&str>, request: impl FnOnce(&mut Engine) -> T) -> T {
            let context = |digits| {
                let parent = format!("00-{digits}{}-{}-01", "0".repeat(30), "1".repeat(16));
                TraceContext::parse(&parent, None).expect("a context")
            };
            self.engine.set_request(trace.map(context));
            let done = request(&mut self.engine);
            self.engine.set_request(None);
            done
        }

        /// Performs actions as long as they follow from each other, and ends what is over.
        fn perform(&mut self, actions: Vec<Action>) {
            let mut open = actions;
            while !open.is_empty() {
                for action in std::mem::take(&mut open) {
                    let event = match action {
                        Action::Spawn(id, run) => {
                            self.pids += 1;
                            Event::Spawned(id, run, self.pids)
                        }
                        Action::Forget(id) => Event::Forgotten(id),
                        Action::Snapshot { token, .. } => {
                            self.snapshot = Some(token);
                            continue;
                        }
                        _ => continue,
                    };
                    open.extend(self.engine.step(event, NOW));
                }
            }
            self.engine.end_operations();
        }

        fn run(&self, name: &str) -> RunId {
            let view = self.engine.view(self.id(name)).expect("a view");
            view.run.expect("a run")
        }

        fn exit(&mut self, name: &str, code: i32) -> Vec<Action> {
            let (id, run) = (self.id(name), self.run(name));
            let exited = Event::Exited(id, run, Exit::Code(code));
            let mut actions = self.engine.step(exited, NOW);
            actions.extend(self.engine.step(Event::Emptied(id, run), NOW));
            actions
        }
    }

    const START: fn(&mut Engine, ServiceId) -> Vec<Action> =
        |engine, id| engine.start(&[id], Launch::IfDown, NOW).expect("it starts");

    #[test]
    fn a_start_causes_those_of_its_needs_until_each_has_settled() {
        let mut host = Host::new();
        let web = host.id("web");
        let actions = host.request(Some("aa"), |engine| START(engine, web));
        let aa = || Some("aa".to_owned());
        assert_eq!(host.causes(), [aa(), aa()]);
        host.engine.end_operations();
        assert_eq!(host.causes(), [aa(), aa()], "both are still starting");
        host.perform(actions);
        assert_eq!(host.causes(), [None, None], "both run");
        // The program ends by itself.
        let actions = host.exit("web", 1);
        assert_eq!(host.causes(), [None, None]);
        host.perform(actions);
        // A request without a trace takes the place of one with it.
        let actions = host.request(Some("bb"), |engine| engine.stop(&[web], NOW));
        let again = host.request(None, |engine| START(engine, web));
        assert_eq!(host.causes(), [None, None]);
        host.perform([actions, again].concat());
    }

    #[test]
    fn a_failed_start_is_caused_and_its_retries_are_not() {
        let mut host = Host::new();
        let db = host.id("db");
        let actions = host.request(Some("aa"), |engine| START(engine, db));
        let Some(Action::Spawn(_, run)) = actions.last() else {
            panic!("{actions:?}");
        };
        let why = StartFailure::Transient("no".to_owned());
        let actions = host.engine.step(Event::SpawnFailed(db, *run, why), NOW);
        let is_failure = |it: &Action| matches!(it, Action::Emit(_, Fact::Failed { .. }));
        assert!(actions.iter().any(is_failure), "{actions:?}");
        assert_eq!(host.cause("db").as_deref(), Some("aa"), "its alert");
        host.engine.end_operations();
        assert_eq!(host.cause("db"), None, "its retries");
    }

    #[test]
    fn a_refused_request_causes_nothing() {
        let mut host = Host::new();
        let web = host.id("web");
        let actions = host.request(Some("aa"), |engine| START(engine, web));
        let refused = host.request(Some("bb"), |engine| engine.request_snapshot(web, NOW));
        assert!(refused.is_err());
        assert_eq!(host.cause("web").as_deref(), Some("aa"));
        host.perform(actions);
    }

    #[test]
    fn a_snapshot_on_request_is_caused_to_its_end_and_a_planned_one_is_not() {
        let mut host = Host::new();
        let web = host.id("web");
        let actions = host.request(None, |engine| START(engine, web));
        host.perform(actions);
        let requested = host.request(Some("aa"), |engine| engine.request_snapshot(web, NOW));
        let (token, actions) = requested.expect("a snapshot");
        host.perform(actions);
        assert_eq!(host.snapshot, Some(token));
        assert_eq!(
            host.cause("web").as_deref(),
            Some("aa"),
            "while it is taken"
        );
        let failed = Event::Snapshotted(web, token, Err(CopyFailure::Thawing));
        let actions = host.engine.step(failed, NOW);
        assert_eq!(host.cause("web").as_deref(), Some("aa"), "its alert");
        host.perform(actions);
        assert_eq!(host.cause("web"), None);
        // A start that changes nothing does not cause the snapshot that is due.
        host.snapshot = None;
        let later = NOW + Duration::from_secs(30 * 24 * 3600);
        let actions = host.engine.step(Event::Tick, later);
        host.perform(actions);
        assert!(host.snapshot.is_some());
        let actions = host.request(Some("bb"), |engine| START(engine, web));
        host.perform(actions);
        assert_eq!(host.cause("web"), None);
    }

    #[test]
    fn an_update_is_caused_to_its_end_with_whatever_decides_it() {
        let mut host = Host::new();
        let db = host.id("db");
        let actions = host.request(None, |engine| START(engine, db));
        host.perform(actions);
        let tried = host.request(Some("aa"), |engine| {
            let how = Tryout {
                style: Style::Restart,
                canary: Duration::ZERO,
                versions: None,
            };
            engine.try_out(db, specs().remove(0), how, NOW)
        });
        let (candidate, actions) = tried.expect("a trial");
        let causes = |host: &Host| {
            [db, candidate].map(|id| host.engine.cause(id).map(ToString::to_string).is_some())
        };
        assert_eq!(causes(&host), [true, true]);
        host.perform(actions);
        assert_eq!(causes(&host), [true, true], "while the old run ends");
        let actions = host.request(None, |engine| engine.abort(db, NOW));
        assert_eq!(causes(&host), [true, true], "while it is rolled back");
        host.perform(actions);
        let actions = host.exit("db", 0);
        host.perform(actions);
        let actions = host.engine.step(Event::Tick, NOW);
        host.perform(actions);
        assert!(host.engine.trial(db).is_none(), "the trial is over");
        assert_eq!(host.cause("db"), None);
    }
}
