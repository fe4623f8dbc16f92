//! The requests of the protocol, and the method and the path of each.
#![expect(
    missing_docs,
    reason = "names are names of services; verbs speak for themselves"
)]

use hyper::{Method, Uri};
use mainstay_core::engine::{Operation, Request};

/// A request to a supervisor, without its body and its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /v1`: information about the supervisor.
    About,
    /// `GET /v1/openapi.json`: the description of this protocol.
    OpenApi,
    /// `GET /v1/services`
    Status,
    /// `GET /v1/services/NAME`
    Entry { name: String },
    /// `GET /v1/events`: streams every later fact, one JSON object per line. The response begins
    /// when the stream is registered.
    Events,
    /// `POST /v1/stop`: answered when every service has settled.
    StopAll,
    /// `POST /v1/services/NAME[,NAME…]/stop`: answered when all of them are down.
    Stop { names: Vec<String>, reach: Reach },
    /// `POST /v1/services/NAME[,NAME…]/VERB`: answered when the services have settled. Only `start`
    /// and `restart` accept several names.
    Request {
        names: Vec<String>,
        request: Request,
    },
    /// `POST /v1/services/NAME/reload`
    Reload { name: String },
    /// `POST /v1/services/NAME/snapshot`: answered when the snapshot is complete.
    Snapshot { name: String },
    /// `POST /v1/services/NAME/logs/rotate`
    RotateLog { name: String },
    /// `POST /v1/services/NAME/update`: answered when the new definition is healthy, or the old one
    /// is running again.
    Update { name: String },
    /// `POST /v1/services/NAME/update/commit` and `…/abort`
    Decide { name: String, decision: Decision },
    /// `PUT /v1/services/NAME[,NAME…]?owner=TOKEN`: loads installed definitions on behalf of their
    /// owner in the registry. Answered when they are loaded.
    Define {
        names: Vec<String>,
        owner: Option<String>,
    },
    /// `DELETE /v1/services/NAME[,NAME…]?owner=TOKEN`: answered when nothing is left of the
    /// services.
    Forget {
        names: Vec<String>,
        owner: Option<String>,
    },
}

/// An operation that people and service managers request of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Restart,
    Pause,
    Continue,
    Reload,
}

/// The services that a stop applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The named services only.
    Named,
    /// The named services and all their dependents.
    WithDependents,
}

/// The decision on the trial of a new definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The new definition replaces the old one.
    Commit,
    /// The new definition is rolled back.
    Abort,
}

/// The part of a method and a path that is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    Protocol,
    Request,
    Verb,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::Reload => "reload",
        }
    }

    /// Returns the request for these services.
    pub fn route(self, names: &[String], reach: Reach) -> Route {
        let names = names.to_vec();
        let request = match self {
            Self::Stop => return Route::Stop { names, reach },
            Self::Reload => {
                let name = names.join(",");
                return Route::Reload { name };
            }
            Self::Start => Request::Start,
            Self::Restart => Request::Restart,
            Self::Pause => Request::Pause,
            Self::Continue => Request::Continue,
        };
        Route::Request { names, request }
    }
}

impl Route {
    pub fn method(&self) -> Method {
        match self {
            Self::About | Self::OpenApi | Self::Status | Self::Entry { .. } | Self::Events => {
                Method::GET
            }
            Self::Define { .. } => Method::PUT,
            Self::Forget { .. } => Method::DELETE,
            _ => Method::POST,
        }
    }

    /// Returns the path and the query.
    pub fn path(&self) -> String {
        const SERVICES: &str = "/v1/services";
        match self {
            Self::About => "/v1".to_owned(),
            Self::OpenApi => "/v1/openapi.json".to_owned(),
            Self::Status => SERVICES.to_owned(),
            Self::Entry { name } => format!("{SERVICES}/{name}"),
            Self::Events => "/v1/events".to_owned(),
            Self::StopAll => "/v1/stop".to_owned(),
            Self::Stop { names, reach } => {
                let query = match reach {
                    Reach::Named => "",
                    Reach::WithDependents => "?with-dependents",
                };
                format!("{SERVICES}/{}/stop{query}", names.join(","))
            }
            Self::Request { names, request } => {
                format!("{SERVICES}/{}/{request}", names.join(","))
            }
            Self::Reload { name } => format!("{SERVICES}/{name}/reload"),
            Self::Snapshot { name } => format!("{SERVICES}/{name}/snapshot"),
            Self::RotateLog { name } => format!("{SERVICES}/{name}/logs/rotate"),
            Self::Update { name } => format!("{SERVICES}/{name}/update"),
            Self::Decide { name, decision } => {
                let word = match decision {
                    Decision::Commit => "commit",
                    Decision::Abort => "abort",
                };
                format!("{SERVICES}/{name}/update/{word}")
            }
            Self::Define { names, owner } | Self::Forget { names, owner } => {
                let owner = owner.as_deref().unwrap_or_default();
                format!("{SERVICES}/{}?owner={owner}", names.join(","))
            }
        }
    }

    /// Parses a method, a path and a query.
    ///
    /// # Errors
    /// If they are no request of this protocol.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Self, Unrouted> {
        let query = uri.query().unwrap_or_default().split('&');
        let reach = if query.clone().any(|part| part == "with-dependents") {
            Reach::WithDependents
        } else {
            Reach::Named
        };
        let mut owners = query.filter_map(|part| part.strip_prefix("owner="));
        let owner = owners.next().filter(|it| !it.is_empty());
        let owner = owner.map(str::to_owned);
        let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let ["v1", path @ ..] = path.as_slice() else {
            return Err(Unrouted::Protocol);
        };
        let one = |name: &&str| (*name).to_owned();
        let several = |names: &&str| names.split(',').map(str::to_owned).collect();
        Ok(match (method.as_str(), path) {
            ("GET", []) => Self::About,
            ("GET", ["openapi.json"]) => Self::OpenApi,
            ("GET", ["services"]) => Self::Status,
            ("GET", ["services", name]) => Self::Entry { name: one(name) },
            ("GET", ["events"]) => Self::Events,
            ("PUT", ["services", names]) => Self::Define {
                names: several(names),
                owner,
            },
            ("DELETE", ["services", names]) => Self::Forget {
                names: several(names),
                owner,
            },
            ("POST", ["stop"]) => Self::StopAll,
            ("POST", ["services", name, "update"]) => Self::Update { name: one(name) },
            ("POST", ["services", name, "update", "commit"]) => Self::Decide {
                name: one(name),
                decision: Decision::Commit,
            },
            ("POST", ["services", name, "update", "abort"]) => Self::Decide {
                name: one(name),
                decision: Decision::Abort,
            },
            ("POST", ["services", name, "logs", "rotate"]) => Self::RotateLog { name: one(name) },
            ("POST", ["services", name, "snapshot"]) => Self::Snapshot { name: one(name) },
            ("POST", ["services", name, "reload"]) => Self::Reload { name: one(name) },
            ("POST", ["services", names, "stop"]) => Self::Stop {
                names: several(names),
                reach,
            },
            ("POST", ["services", names, verb]) => Self::Request {
                names: several(names),
                request: parse_request(verb).ok_or(Unrouted::Verb)?,
            },
            _ => return Err(Unrouted::Request),
        })
    }

    /// Returns the change that is requested; `None` for a request that changes no service.
    pub fn operation(&self) -> Option<Operation> {
        Some(match self {
            Self::About | Self::OpenApi | Self::Status | Self::Entry { .. } => return None,
            Self::Events | Self::RotateLog { .. } => return None,
            Self::StopAll | Self::Stop { .. } => Operation::Request(Request::Stop),
            Self::Request { request, .. } => Operation::Request(*request),
            Self::Reload { .. } => Operation::Reload,
            Self::Snapshot { .. } => Operation::Snapshot,
            Self::Update { .. } => Operation::Update,
            Self::Decide { decision, .. } => match decision {
                Decision::Commit => Operation::Commit,
                Decision::Abort => Operation::Abort,
            },
            Self::Define { .. } => Operation::Install,
            Self::Forget { .. } => Operation::Uninstall,
        })
    }

    /// Returns whether the request changes nothing, and is open to those who may only view.
    pub fn is_view(&self) -> bool {
        matches!(
            self,
            Self::About | Self::OpenApi | Self::Status | Self::Entry { .. } | Self::Events
        )
    }

    /// Returns the names of the services that the request is about.
    pub fn names(&self) -> &[String] {
        match self {
            Self::About | Self::OpenApi | Self::Status | Self::Events | Self::StopAll => &[],
            Self::Entry { name }
            | Self::Reload { name }
            | Self::Snapshot { name }
            | Self::RotateLog { name }
            | Self::Update { name }
            | Self::Decide { name, .. } => std::slice::from_ref(name),
            Self::Stop { names, .. }
            | Self::Request { names, .. }
            | Self::Define { names, .. }
            | Self::Forget { names, .. } => names,
        }
    }
}

fn parse_request(verb: &str) -> Option<Request> {
    use Request::{Continue, Pause, Restart, Start};
    [Start, Restart, Pause, Continue]
        .into_iter()
        .find(|known| known.to_string() == verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &str, path: &str) -> Result<Route, Unrouted> {
        Route::parse(&method.parse().unwrap(), &path.parse().unwrap())
    }

    #[test]
    fn a_route_is_parsed_from_its_own_path() {
        let name = || "web".to_owned();
        let names = || vec![name(), "db".to_owned()];
        let owner = || Some("41-7".to_owned());
        let (all, one) = (names(), vec![name()]);
        let mut routes = vec![
            Route::About,
            Route::OpenApi,
            Route::Status,
            Route::Entry { name: name() },
            Route::Events,
            Route::StopAll,
            Route::Snapshot { name: name() },
            Route::RotateLog { name: name() },
            Route::Update { name: name() },
        ];
        for decision in [Decision::Commit, Decision::Abort] {
            let name = name();
            routes.push(Route::Decide { name, decision });
        }
        for owner in [None, owner()] {
            let (names, other) = (names(), owner.clone());
            routes.push(Route::Define { names, owner });
            let (names, owner) = (vec![name()], other);
            routes.push(Route::Forget { names, owner });
        }
        for reach in [Reach::Named, Reach::WithDependents] {
            routes.push(Verb::Stop.route(&all, reach));
        }
        for verb in [
            Verb::Start,
            Verb::Restart,
            Verb::Pause,
            Verb::Continue,
            Verb::Reload,
        ] {
            routes.push(verb.route(&one, Reach::Named));
        }
        for route in routes {
            let found = parsed(route.method().as_str(), &route.path());
            assert_eq!(found, Ok(route.clone()), "{}", route.path());
        }
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        for (method, path, expect) in [
            ("GET", "/", Unrouted::Protocol),
            ("GET", "/v2/services", Unrouted::Protocol),
            ("POST", "/v1/services/web/dance", Unrouted::Verb),
            ("POST", "/v1/services", Unrouted::Request),
            ("DELETE", "/v1/services/web/logs", Unrouted::Request),
        ] {
            assert_eq!(parsed(method, path), Err(expect), "{method} {path}");
        }
    }

    #[test]
    fn a_trailing_slash_and_an_unknown_query_change_nothing() {
        let expect = Verb::Stop.route(&["web".to_owned()], Reach::WithDependents);
        let path = "/v1/services/web/stop/?x=1&with-dependents";
        assert_eq!(parsed("POST", path), Ok(expect));
    }
}
